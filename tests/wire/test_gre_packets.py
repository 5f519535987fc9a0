"""GRE versions 0 and 1: round trips, refusals, scapy as a second opinion, recorded packets."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import GRE, GRE_PPTP

from pptp.errors import UsageError, WireCause, WireError
from pptp.mtu import GRE_ACKNOWLEDGEMENT, GRE_V0_HEADER, GRE_V1_HEADER
from pptp.wire.gre import PROTOCOL_PPP, GrePacket, build_v0, build_v1, parse

CALL_ID = st.integers(0, 0xFFFF)
NUMBER = st.none() | st.integers(0, 0xFFFFFFFF)
PAYLOAD = st.binary(max_size=80)


def refusal(packet: bytes) -> WireCause:
    with pytest.raises(WireError) as caught:
        parse(packet)
    return caught.value.cause


@settings(max_examples=200, deadline=None)
@given(CALL_ID, PAYLOAD, NUMBER, NUMBER)
def test_version_1_round_trips_and_scapy_agrees(
    call_id: int, payload: bytes, sequence: int | None, acknowledgement: int | None
) -> None:
    if sequence is None:
        payload = b""
    packet = build_v1(call_id, payload, sequence, acknowledgement)
    assert parse(packet) == GrePacket(1, payload, call_id, sequence, acknowledgement)
    assert parse(memoryview(packet)) == GrePacket(1, payload, call_id, sequence, acknowledgement)
    theirs = GRE_PPTP(
        call_id=call_id,
        seqnum_present=sequence is not None,
        sequence_number=sequence,
        acknum_present=acknowledgement is not None,
        ack_number=acknowledgement,
    )
    assert packet == bytes(theirs / payload)
    read = GRE(packet)
    assert (read.call_id, read.payload_len, read.proto) == (call_id, len(payload), PROTOCOL_PPP)
    assert (read.sequence_number, read.ack_number) == (sequence, acknowledgement)


@given(PAYLOAD)
def test_version_0_round_trips_and_scapy_agrees(payload: bytes) -> None:
    packet = build_v0(payload)
    assert parse(packet) == GrePacket(0, payload)
    assert packet == bytes.fromhex("0000880b") + payload
    assert packet == bytes(GRE(proto=PROTOCOL_PPP))[:2] + b"\x88\x0b" + payload


def test_header_sizes_are_those_of_the_size_sums() -> None:
    assert len(build_v0(b"")) == GRE_V0_HEADER
    assert len(build_v1(0, b"", 0)) == GRE_V1_HEADER
    assert len(build_v1(0, b"", 0, 0)) == GRE_V1_HEADER + GRE_ACKNOWLEDGEMENT


def test_an_acknowledgement_alone_has_twelve_octets_and_no_payload() -> None:
    packet = build_v1(0x57C4, acknowledgement=3)
    assert packet.hex() == "2081880b000057c400000003"
    assert parse(packet) == GrePacket(1, b"", 0x57C4, None, 3)


def test_a_packet_that_says_nothing_is_legal() -> None:
    assert parse(bytes.fromhex("2001880b00001234")) == GrePacket(1, b"", 0x1234)


@given(PAYLOAD, st.none() | st.integers(0, 0xFFFFFFFF))
def test_every_truncation_is_refused(payload: bytes, acknowledgement: int | None) -> None:
    packet = build_v1(1, payload, 2, acknowledgement)
    header = len(packet) - len(payload)
    for end in range(len(packet)):
        assert refusal(packet[:end]) is (WireCause.TRUNCATED if end < header else WireCause.BAD_LENGTH)
    for end in range(4):
        assert refusal(build_v0(payload)[:end]) is WireCause.TRUNCATED


def test_padding_is_ignored_and_a_length_beyond_the_packet_refused() -> None:
    packet = build_v1(1, b"abc", 2, 3)
    assert parse(packet + bytes(30)) == parse(packet)
    for length in (4, 0x8000, 0xFFFF):
        assert refusal(packet[:4] + struct.pack("!H", length) + packet[6:]) is WireCause.BAD_LENGTH


def test_every_flag_bit_is_looked_at() -> None:
    allowed = {0x2001, 0x2081, 0x3001, 0x3081}
    for bits in range(0x10000):
        packet = struct.pack("!HHHHII", bits, PROTOCOL_PPP, 0, 7, 8, 9)
        version = bits & 7
        if bits in allowed or bits == 0:
            assert parse(packet).version == version
        elif version > 1:
            assert refusal(packet) is WireCause.BAD_VERSION
        else:
            assert refusal(packet) is WireCause.BAD_FLAGS


def test_a_payload_needs_a_sequence_number() -> None:
    assert refusal(bytes.fromhex("2081880b0001000000000003ff")) is WireCause.BAD_FLAGS
    with pytest.raises(UsageError):
        build_v1(0, b"x")


@pytest.mark.parametrize("protocol", [0x0800, 0x880A, 0x880C, 0x6558, 0])
def test_other_protocol_types_are_refused(protocol: int) -> None:
    for bits in (0x0000, 0x3001):
        assert refusal(struct.pack("!HHHHI", bits, protocol, 0, 0, 0)) is WireCause.BAD_TYPE


@pytest.mark.parametrize("call_id", [-1, 0x10000])
def test_values_that_do_not_fit_are_our_bug(call_id: int) -> None:
    for arguments in ((b"", None, None), (b"", 0, None), (b"", None, 0), (b"", 0, 0)):
        with pytest.raises(UsageError):
            build_v1(call_id, *arguments)
    with pytest.raises(UsageError):
        build_v1(0, bytes(0x10000), 0)


# Recorded from pptp-linux 1.10 with pppd 2.4.9 (client) and pptpd 1.4.0 with pppd 2.4.9 (server).
RECORDED = {
    "pptp-linux LCP Configure-Request, first sequence number 1": (
        "3001880b0018000000000001ff03c021010100140206000000000506a6ac7da107020802",
        (0, 1, None),
    ),
    "pptpd LCP Configure-Request, first sequence number 0": (
        "3001880b001dfeef00000000ff03c021010100190206000000000305c2230505069542090a07020802",
        (0xFEEF, 0, None),
    ),
    "pptpd LCP Configure-Ack with an acknowledgement": (
        "3081880b0018feef0000000100000001ff03c021020100140206000000000506a6ac7da107020802",
        (0xFEEF, 1, 1),
    ),
    "pptp-linux acknowledgement alone": ("2081880b0000000000000003", (0, None, 3)),
    "pptpd IPv6 router solicitation": (
        "3001880b0031feef0000000f576000000000083afffe8000000000000091e2b9f58ecb49abff02000000000000000000000000000285"
        "0058e800000000",
        (0xFEEF, 15, None),
    ),
    "pptpd MPPE frame": (
        "3081880b003557c40000000b0000000bfd900098639972b0c2a8c17121515b2a39a66437945a990c53d5e3cfbb962c7ead338916"
        "b2bec58cdfa57d66b2ba51556a8321c42d",
        (0x57C4, 11, 11),
    ),
}


@pytest.mark.parametrize(("octets", "numbers"), RECORDED.values(), ids=RECORDED.keys())
def test_recorded_packets_parse_and_rebuild_identically(
    octets: str, numbers: tuple[int, int | None, int | None]
) -> None:
    data = bytes.fromhex(octets)
    announced = struct.unpack_from("!H", data, 4)[0]
    offset = 8 + 4 * sum(number is not None for number in numbers[1:])
    payload = data[offset:]
    packet = parse(data)
    assert packet == GrePacket(1, payload, *numbers)
    assert len(payload) == announced
    assert build_v1(packet.call_id, packet.payload, packet.sequence, packet.acknowledgement) == data


@settings(max_examples=400, deadline=None)
@given(
    st.binary(max_size=40)
    | st.tuples(
        st.sampled_from(["3001880b", "3081880b", "2081880b", "2001880b", "0000880b"]), st.binary(max_size=40)
    ).map(lambda parts: bytes.fromhex(parts[0]) + parts[1])
)
def test_any_octets_parse_to_what_rebuilds_them_or_are_refused(octets: bytes) -> None:
    try:
        packet = parse(octets)
    except WireError:
        return
    if packet.version == 0:
        rebuilt = build_v0(packet.payload)
    else:
        rebuilt = build_v1(packet.call_id, packet.payload, packet.sequence, packet.acknowledgement)
    assert octets.startswith(rebuilt)
