"""The control packet and option codecs, alone, against scapy, and against what a real pppd sent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.ppp import (
    PPP_IPCP,
    PPP_LCP,
    PPP_IPCP_Option_DNS1,
    PPP_IPCP_Option_IPAddress,
    PPP_LCP_ACCM_Option,
    PPP_LCP_Configure,
    PPP_LCP_Echo,
    PPP_LCP_Magic_Number_Option,
    PPP_LCP_MRU_Option,
    PPP_LCP_Protocol_Reject,
)

from pptp.errors import UsageError, WireCause, WireError
from pptp.wire.cp import (
    Code,
    CpPacket,
    MagicBody,
    Option,
    ProtocolRejectBody,
    TimeRemainingBody,
    VendorSpecificBody,
    build_magic,
    build_options,
    build_packet,
    build_protocol_reject,
    build_time_remaining,
    parse_magic,
    parse_options,
    parse_packet,
    parse_protocol_reject,
    parse_time_remaining,
    parse_vendor_specific,
    printable,
)
from pptp.wire.ppp import Protocol, parse

PACKETS = st.builds(CpPacket, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=200))
OPTIONS = st.lists(st.builds(Option, st.integers(0, 255), st.binary(max_size=253)), max_size=8).map(tuple)

# Frames recorded from pppd 2.4.9 (client behind pptp-linux, server behind pptpd), as they stood in the GRE payload.
PPPD_LCP_REQUEST = "ff03c021010100190206000000000305c2230505069542090a07020802"
PPPD_LCP_ACK = "ff03c021020100140206000000000506a6ac7da107020802"
PPPD_ECHO_REQUEST = "c02109000008a6ac7da1"  # identifier 0, address and control field compressed
PPPD_ECHO_REPLY = "c0210a0000089542090a"
PPPD_IPCP_REQUEST = "8021010100100206002d0f0103060a630001"
PPPD_IPCP_NAK = "80210301000a03060a63000a"
PPPD_IPV6CP_REQUEST = "80570101000e010a91e2b9f58ecb49ab"


@settings(max_examples=200, deadline=None)
@given(PACKETS, st.binary(max_size=8))
def test_a_packet_is_read_back_and_padding_ignored(packet: CpPacket, padding: bytes) -> None:
    assert parse_packet(build_packet(packet) + padding) == packet
    assert parse_packet(memoryview(build_packet(packet))) == packet


@pytest.mark.parametrize(
    ("information", "cause"),
    [
        (b"", WireCause.TRUNCATED),
        (b"\x01\x00\x00", WireCause.TRUNCATED),
        (b"\x01\x00\x00\x00", WireCause.BAD_LENGTH),
        (b"\x01\x00\x00\x03", WireCause.BAD_LENGTH),
        (b"\x01\x00\x00\x05", WireCause.TRUNCATED),
        (b"\x01\x00\xff\xff", WireCause.TRUNCATED),
    ],
)
def test_refuses_a_packet_with_its_cause(information: bytes, cause: WireCause) -> None:
    with pytest.raises(WireError) as refusal:
        parse_packet(information)
    assert refusal.value.cause is cause


@settings(max_examples=200, deadline=None)
@given(OPTIONS)
def test_options_are_read_back_in_order(options: tuple[Option, ...]) -> None:
    assert parse_options(build_options(options)) == options


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"\x01", WireCause.TRUNCATED),
        (b"\x01\x00", WireCause.BAD_LENGTH),
        (b"\x01\x01", WireCause.BAD_LENGTH),
        (b"\x01\x05\x05\xdc", WireCause.TRUNCATED),
        (b"\x07\x02\x08", WireCause.TRUNCATED),
        (b"\x07\x02\x08\x00", WireCause.BAD_LENGTH),
        (b"\x01\xff" + bytes(252), WireCause.TRUNCATED),
    ],
)
def test_refuses_options_with_their_cause(data: bytes, cause: WireCause) -> None:
    with pytest.raises(WireError) as refusal:
        parse_options(data)
    assert refusal.value.cause is cause


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_the_codecs_are_total(data: bytes) -> None:
    for parse_any in (parse_magic, parse_time_remaining, parse_vendor_specific, parse_protocol_reject):
        try:
            parse_any(data)
        except WireError:
            pass
    try:
        assert build_options(parse_options(data)) == data
    except WireError:
        pass
    try:
        packet = parse_packet(data)
    except WireError:
        return
    assert data.startswith(build_packet(packet))


def test_an_option_or_packet_without_encoding_is_our_own_fault() -> None:
    for option in (Option(1, bytes(254)), Option(256), Option(-1)):
        with pytest.raises(UsageError):
            build_options([option])
    for packet in (CpPacket(256, 0), CpPacket(1, 256), CpPacket(1, 1, bytes(0xFFFF))):
        with pytest.raises(UsageError):
            build_packet(packet)


def test_bodies_are_read_back() -> None:
    magic = MagicBody(0xDEADBEEF, b"payload")
    assert parse_magic(build_magic(magic)) == magic
    remaining = TimeRemainingBody(7, 3600, b"lunch")
    assert parse_time_remaining(build_time_remaining(remaining)) == remaining
    reject = ProtocolRejectBody(Protocol.CCP, b"\x01\x01\x00\x04")
    assert parse_protocol_reject(build_protocol_reject(reject)) == reject
    assert parse_vendor_specific(b"\0\0\0\x01\x02gp\x05xy") == VendorSpecificBody(1, b"\x02gp", 5, b"xy")


def test_a_log_line_survives_what_a_peer_calls_itself() -> None:
    assert printable(b"MSRASV5.20") == "MSRASV5.20"
    assert printable(b"\x1b[2J\\\n\xff") == r"\x1b[2J\x5c\x0a\xff"
    assert len(printable(b"A" * 5000)) < 140


def test_scapy_reads_our_lcp() -> None:
    options = build_options([Option(1, b"\x05\x78"), Option(2, bytes(4)), Option(5, b"\x01\x02\x03\x04")])
    read = PPP_LCP(build_packet(CpPacket(Code.CONFIGURE_REQUEST, 7, options)))
    assert isinstance(read, PPP_LCP_Configure)
    assert (read.code, read.id, read.len) == (1, 7, 4 + len(options))
    assert read.options[0].max_recv_unit == 1400
    assert read.options[2].magic_number == 0x01020304

    echo = PPP_LCP(build_packet(CpPacket(Code.ECHO_REQUEST, 3, build_magic(MagicBody(0xCAFE, b"hello")))))
    assert isinstance(echo, PPP_LCP_Echo)
    assert (echo.magic_number, bytes(echo.data)) == (0xCAFE, b"hello")

    body = build_protocol_reject(ProtocolRejectBody(Protocol.CCP, b"\x01\x01\x00\x04"))
    reject = PPP_LCP(build_packet(CpPacket(Code.PROTOCOL_REJECT, 9, body)))
    assert isinstance(reject, PPP_LCP_Protocol_Reject)
    assert reject.rejected_protocol == Protocol.CCP


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 65535), st.integers(0, 2**32 - 1), st.integers(0, 255))
def test_we_read_scapys_lcp(mru: int, magic_number: int, identifier: int) -> None:
    options = [
        PPP_LCP_MRU_Option(max_recv_unit=mru),
        PPP_LCP_ACCM_Option(accm=0),
        PPP_LCP_Magic_Number_Option(magic_number=magic_number),
    ]
    packet = parse_packet(bytes(PPP_LCP_Configure(code=1, id=identifier, options=options)))
    assert (packet.code, packet.identifier) == (Code.CONFIGURE_REQUEST, identifier)
    assert parse_options(packet.data) == (
        Option(1, mru.to_bytes(2, "big")),
        Option(2, bytes(4)),
        Option(5, magic_number.to_bytes(4, "big")),
    )


def test_scapy_and_we_agree_on_ipcp() -> None:
    ours = build_packet(
        CpPacket(Code.CONFIGURE_NAK, 4, build_options([Option(3, b"\x0a\x63\0\x0a"), Option(129, b"\x0a\x63\0\x01")]))
    )
    options = [PPP_IPCP_Option_IPAddress(data="10.99.0.10"), PPP_IPCP_Option_DNS1(data="10.99.0.1")]
    assert ours == bytes(PPP_IPCP(code=3, id=4, options=options))
    assert [option.data for option in PPP_IPCP(ours).options] == ["10.99.0.10", "10.99.0.1"]


def recorded(frame: str) -> tuple[int, CpPacket]:
    read = parse(bytes.fromhex(frame))
    return read.protocol, parse_packet(read.information)


def test_reads_pppd_lcp() -> None:
    protocol, packet = recorded(PPPD_LCP_REQUEST)
    assert (protocol, packet.code, packet.identifier) == (Protocol.LCP, Code.CONFIGURE_REQUEST, 1)
    assert parse_options(packet.data) == (
        Option(2, bytes(4)),
        Option(3, b"\xc2\x23\x05"),
        Option(5, b"\x95\x42\x09\x0a"),
        Option(7),
        Option(8),
    )
    protocol, packet = recorded(PPPD_LCP_ACK)
    assert (protocol, packet.code) == (Protocol.LCP, Code.CONFIGURE_ACK)
    assert build_packet(packet) == bytes.fromhex(PPPD_LCP_ACK)[4:]
    assert recorded(PPPD_ECHO_REQUEST) == (Protocol.LCP, CpPacket(Code.ECHO_REQUEST, 0, b"\xa6\xac\x7d\xa1"))
    assert recorded(PPPD_ECHO_REPLY) == (Protocol.LCP, CpPacket(Code.ECHO_REPLY, 0, b"\x95\x42\x09\x0a"))


def test_reads_pppd_network_control() -> None:
    protocol, packet = recorded(PPPD_IPCP_REQUEST)
    assert (protocol, packet.code) == (Protocol.IPCP, Code.CONFIGURE_REQUEST)
    assert parse_options(packet.data) == (Option(2, b"\x00\x2d\x0f\x01"), Option(3, bytes((10, 99, 0, 1))))
    assert recorded(PPPD_IPCP_NAK) == (
        Protocol.IPCP,
        CpPacket(Code.CONFIGURE_NAK, 1, build_options([Option(3, bytes((10, 99, 0, 10)))])),
    )
    protocol, packet = recorded(PPPD_IPV6CP_REQUEST)
    assert (protocol, parse_options(packet.data)) == (
        Protocol.IPV6CP,
        (Option(1, bytes.fromhex("91e2b9f58ecb49ab")),),
    )
