"""The MSS clamp against packets that scapy makes and a checksum computed anew."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from grepunch.ordinary.mss import clamp_mss
from pptp.mtu import tcp_mss

MTU = 1396


def checksums_fit(packet: bytes) -> bool:
    """Whether the checksum of the TCP segment is the one that scapy computes."""
    layer = IPv6 if packet[0] >> 4 == 6 else IP
    parsed = layer(packet)
    stated = parsed[TCP].chksum
    del parsed[TCP].chksum
    return bool(layer(bytes(parsed))[TCP].chksum == stated)


def syn(mss: int, options: list[tuple[str, object]] | None = None, *, ipv6: bool = False, flags: str = "S") -> bytes:
    head = IPv6(src="fe80::1", dst="fe80::2") if ipv6 else IP(src="10.0.0.1", dst="10.0.0.2")
    before = options if options is not None else [("SAckOK", b"")]
    return bytes(head / TCP(flags=flags, options=[*before, ("MSS", mss), ("WScale", 7)]))


def mss_of(packet: bytes) -> object:
    layer = IPv6 if packet[0] >> 4 == 6 else IP
    return dict(option for option in layer(packet)[TCP].options if option[0] == "MSS").get("MSS")


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("flags", ["S", "SA"])
def test_a_syn_is_lowered_to_what_fits(ipv6: bool, flags: str) -> None:
    clamped = clamp_mss(syn(1460, ipv6=ipv6, flags=flags), MTU)
    assert mss_of(clamped) == tcp_mss(MTU, ipv6=ipv6)
    assert checksums_fit(clamped)


@pytest.mark.parametrize(
    "packet",
    [
        syn(1300),
        syn(tcp_mss(MTU)),
        syn(1460, flags="A"),
        bytes(IP() / UDP() / (b"x" * 30)),
        bytes(IP(frag=5, proto=6) / (b"\x02" * 40)),
        bytes(IP() / TCP(flags="S")),
        b"",
        b"\x45",
        syn(1460)[:30],
    ],
)
def test_everything_else_passes_as_the_same_object(packet: bytes) -> None:
    assert clamp_mss(packet, MTU) is packet


@settings(max_examples=200)
@given(
    st.integers(0, 65535),
    st.lists(st.sampled_from([("NOP", None), ("SAckOK", b""), ("Timestamp", (1, 2))]), max_size=3),
    st.integers(576, 1500),
    st.booleans(),
)
def test_any_mss_at_any_place_keeps_a_right_checksum(
    mss: int, options: list[tuple[str, object]], mtu: int, ipv6: bool
) -> None:
    clamped = clamp_mss(syn(mss, options, ipv6=ipv6), mtu)
    assert mss_of(clamped) == min(mss, tcp_mss(mtu, ipv6=ipv6))
    assert checksums_fit(clamped)


@settings(max_examples=500)
@given(st.binary(max_size=120), st.sampled_from([b"\x45", b"\x46", b"\x60", b"\x4f"]))
def test_any_octets_are_survived(octets: bytes, first: bytes) -> None:
    packet = first + octets[:8] + b"\x06" + octets[8:]
    assert len(clamp_mss(packet, MTU)) == len(packet)


@given(st.integers(0, 255), st.binary(min_size=19, max_size=40))
def test_broken_options_are_left_alone(length: int, rest: bytes) -> None:
    """A length of 0 or 1, or beyond the header, ends the search."""
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 0, 0, 0xF0, 0x02, 0, 0, 0) + bytes((3, length)) + rest
    packet = bytes(IP(proto=6) / tcp)
    assert len(clamp_mss(packet, MTU)) == len(packet)
