"""Packets too big for one call: cut or answered as a router does, judged by scapy."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, defragment
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6

from grepunch.ordinary.toobig import fragments, too_big

OWN = IPv4Address("10.77.0.1")
OWN_V6 = b"\xfe\x80" + bytes(13) + b"\x01"
MTU = 600


def datagram(size: int, flags: str = "") -> bytes:
    return bytes(IP(src="10.0.0.9", dst="10.77.0.2", id=77, flags=flags) / UDP(sport=1, dport=2) / (b"x" * size))


@given(st.integers(1, 3000), st.integers(100, 1400))
def test_the_parts_fit_and_make_the_whole_again(size: int, mtu: int) -> None:
    packet = datagram(size)
    parts = [IP(part) for part in fragments(packet, mtu)]
    assert all(len(bytes(part)) <= mtu for part in parts)
    for part in parts:
        stated = part.chksum
        del part.chksum
        assert IP(bytes(part)).chksum == stated
    (whole,) = defragment(parts)
    assert bytes(whole)[20:] == packet[20:]


def test_a_fragment_is_cut_into_fragments_of_the_whole() -> None:
    first, second = fragments(datagram(2000), 1200)[:2]
    parts = fragments(first, MTU) + fragments(second, MTU)
    (whole,) = defragment([IP(part) for part in parts])
    assert bytes(whole)[20:] == datagram(2000)[20:]


def test_what_must_not_be_cut_is_answered() -> None:
    packet = datagram(1000, flags="DF")
    assert fragments(packet, MTU) == []
    answer = IP(too_big(packet, MTU, OWN, OWN_V6))
    assert (answer.src, answer.dst) == (str(OWN), "10.0.0.9")
    icmp = answer[ICMP]
    assert (icmp.type, icmp.code, icmp.nexthopmtu) == (3, 4, MTU)
    assert bytes(icmp.payload) == packet[:28]
    stated = answer.chksum, icmp.chksum
    del answer.chksum, answer[ICMP].chksum
    again = IP(bytes(answer))
    assert (again.chksum, again[ICMP].chksum) == stated


def test_ipv6_is_always_answered() -> None:
    packet = bytes(IPv6(src="fe80::9", dst="fe80::2") / ICMPv6EchoRequest(data=b"x" * 1300))
    assert fragments(packet, MTU) == []
    answer = IPv6(too_big(packet, 1280, OWN, OWN_V6))
    assert (answer.src, answer.dst, answer.hlim) == ("fe80::1", "fe80::9", 255)
    assert len(bytes(answer)) <= 1280
    told = answer[ICMPv6PacketTooBig]
    assert told.mtu == 1280
    stated = told.cksum
    del told.cksum
    assert IPv6(bytes(answer))[ICMPv6PacketTooBig].cksum == stated


def test_no_error_is_answered_with_an_error() -> None:
    error = bytes(IP(src="10.0.0.9", dst="10.77.0.2", flags="DF") / ICMP(type=3, code=1) / (b"x" * 900))
    assert too_big(error, MTU, OWN, OWN_V6) is None
    later = bytes(IP(src="10.0.0.9", dst="10.77.0.2", frag=9) / (b"x" * 900))
    assert too_big(later, MTU, OWN, OWN_V6) is None
    error_v6 = bytes(IPv6() / ICMPv6PacketTooBig() / (b"x" * 1300))
    assert too_big(error_v6, MTU, OWN, OWN_V6) is None


@given(st.binary(min_size=20, max_size=60), st.integers(68, 1500))
def test_any_octets_are_survived(octets: bytes, mtu: int) -> None:
    for first in (b"\x45", b"\x4f", b"\x60"):
        packet = first + octets[1:]
        assert all(len(part) <= mtu for part in fragments(packet, mtu))
        too_big(packet + bytes(20), mtu, OWN, OWN_V6)
