"""The codecs of PAP, CHAP and MS-CHAPv2: alone, against scapy, and against what a real pppd sent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.ppp import PPP_CHAP_ChallengeResponse, PPP_PAP_Request, PPP_PAP_Response

from pptp.errors import UsageError, WireCause, WireError
from pptp.wire.auth import (
    ChapChallenge,
    ChapChangePassword,
    ChapPacket,
    ChapResponse,
    ChapResult,
    MsFailure,
    MsResponse,
    MsSuccess,
    PapPacket,
    PapReply,
    PapRequest,
    build_chap,
    build_ms_failure,
    build_ms_response,
    build_ms_success,
    build_pap,
    parse_chap,
    parse_ms_failure,
    parse_ms_response,
    parse_ms_success,
    parse_pap,
)

OCTET = st.integers(0, 255)
FIELD = st.binary(max_size=255)
PAP = st.one_of(st.builds(PapRequest, OCTET, FIELD, FIELD), st.builds(PapReply, OCTET, st.booleans(), FIELD))
VALUE = st.binary(min_size=1, max_size=255)
CHAP = st.one_of(
    st.builds(ChapChallenge, OCTET, VALUE, FIELD),
    st.builds(ChapResponse, OCTET, VALUE, FIELD),
    st.builds(ChapResult, OCTET, st.booleans(), st.binary(max_size=600)),
)

# recorded from pppd 2.4.9, the information fields of CHAP frames
PPPD_CHALLENGE = "0191001a10f57954550031ddc153e145d96dee1df97070747064"
PPPD_RESPONSE = (
    "0291003d3123ac92ead367c98a630d798c626ab0a0000000000000000074dd1fe3e34aa3737b41fefaf4a911c0e479f2f2cb3e554500"
    "76706e75736572"
)
PPPD_SUCCESS = (
    "0391003f533d39364146443734334439333335323246373245333634454431463830433243393332313837383941204d3d4163636573"
    "73206772616e746564"
)


def cause(data: bytes | str) -> WireCause:
    information = bytes.fromhex(data) if isinstance(data, str) else data
    with pytest.raises(WireError) as refused:
        parse_chap(information)
    return refused.value.cause


def pap_cause(data: str) -> WireCause:
    with pytest.raises(WireError) as refused:
        parse_pap(bytes.fromhex(data))
    return refused.value.cause


@settings(max_examples=150, deadline=None)
@given(PAP, st.binary(max_size=8))
def test_pap_packets_are_read_back_and_padding_ignored(packet: PapPacket, padding: bytes) -> None:
    assert parse_pap(build_pap(packet) + padding) == packet


@settings(max_examples=150, deadline=None)
@given(CHAP, st.binary(max_size=8))
def test_chap_packets_are_read_back_and_padding_ignored(
    packet: ChapChallenge | ChapResponse | ChapResult, padding: bytes
) -> None:
    assert parse_chap(build_chap(packet) + padding) == packet


@settings(max_examples=300, deadline=None)
@given(OCTET, st.integers(0, 40), st.binary(max_size=40))
def test_any_octets_are_a_packet_or_a_wire_error(code: int, length: int, data: bytes) -> None:
    information = bytes((code % 10, 1, 0, length)) + data
    for parse in (parse_pap, parse_chap):
        try:
            packet: PapPacket | ChapPacket = parse(information)
        except WireError:
            continue
        assert packet.identifier == 1


def test_pap_as_scapy_writes_it() -> None:
    request = PPP_PAP_Request(id=7, username=b"alice", password=b"secret")
    assert build_pap(PapRequest(7, b"alice", b"secret")) == bytes(request)
    reply = PPP_PAP_Response(code=3, id=7, message=b"no")
    assert parse_pap(bytes(reply)) == PapReply(7, False, b"no")


def test_chap_as_scapy_reads_it() -> None:
    challenge = PPP_CHAP_ChallengeResponse(build_chap(ChapChallenge(9, b"\1\2\3", b"server")))
    assert (challenge.code, challenge.id, challenge.value_size) == (1, 9, 3)
    assert (challenge.value, challenge.optional_name) == (b"\1\2\3", b"server")


def test_what_pppd_sent() -> None:
    challenge = parse_chap(bytes.fromhex(PPPD_CHALLENGE))
    assert isinstance(challenge, ChapChallenge)
    assert (challenge.identifier, len(challenge.value), challenge.name) == (0x91, 16, b"pptpd")
    response = parse_chap(bytes.fromhex(PPPD_RESPONSE))
    assert isinstance(response, ChapResponse)
    assert response.name == b"vpnuser"
    read = parse_ms_response(response.value)
    assert (read.peer_challenge.hex(), read.flags) == ("23ac92ead367c98a630d798c626ab0a0", 0)
    assert build_ms_response(read) == response.value
    success = parse_chap(bytes.fromhex(PPPD_SUCCESS))
    assert isinstance(success, ChapResult)
    proof = parse_ms_success(success.message)
    assert (proof.authenticator_response[:2].hex(), proof.message) == ("96af", b"Access granted")
    assert build_ms_success(proof) == success.message
    for information in (PPPD_CHALLENGE, PPPD_RESPONSE, PPPD_SUCCESS):
        packet = parse_chap(bytes.fromhex(information))
        assert not isinstance(packet, ChapChangePassword)
        assert build_chap(packet).hex() == information


def test_broken_chap_packets() -> None:
    assert cause("") is WireCause.TRUNCATED
    assert cause("01010004") is WireCause.TRUNCATED  # no value size
    assert cause("010100050061") is WireCause.BAD_LENGTH  # value size 0
    assert cause("0101000900414243") is WireCause.TRUNCATED  # a length beyond the packet
    assert cause("02010008100102 03".replace(" ", "")) is WireCause.TRUNCATED  # value size beyond it
    assert cause("0101000301") is WireCause.BAD_LENGTH
    assert cause(b"\x02\x01\x01\x06\x01x" + bytes(256)) is WireCause.OVERSIZE  # a name of 256 octets
    assert parse_chap(b"\x02\x01\x01\x05\x01x" + b"n" * 255) == ChapResponse(1, b"x", b"n" * 255)
    for code in (0, 5, 6, 8, 255):
        assert cause(bytes((code, 1, 0, 6, 1, 1))) is WireCause.BAD_TYPE


def test_broken_pap_packets() -> None:
    assert pap_cause("01010004") is WireCause.TRUNCATED
    assert pap_cause("01010005ff") is WireCause.TRUNCATED
    assert pap_cause("0101000600") is WireCause.TRUNCATED
    assert pap_cause("010100050000") is WireCause.TRUNCATED  # a name, and no password's length
    assert pap_cause("01010007000041") is WireCause.TRAILING
    assert pap_cause("020100060300") is WireCause.TRUNCATED
    assert pap_cause("040100050000") is WireCause.BAD_TYPE
    assert parse_pap(bytes.fromhex("010100060000")) == PapRequest(1, b"", b"")  # for the authenticator to refuse
    assert parse_pap(bytes.fromhex("02010004")) == PapReply(1, True, b"")


def test_secrets_are_not_printed() -> None:
    assert "sesame" not in repr(PapRequest(1, b"ali", b"open sesame"))


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=20, max_size=20), st.one_of(st.none(), st.binary(max_size=40)))
def test_success_texts_are_read_back(proof: bytes, message: bytes | None) -> None:
    assert parse_ms_success(build_ms_success(MsSuccess(proof, message))) == MsSuccess(proof, message)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 9999), st.booleans(), st.binary(min_size=16, max_size=16), st.binary(max_size=40))
def test_failure_texts_are_read_back(error: int, retry: bool, challenge: bytes, message: bytes) -> None:
    failure = MsFailure(error, retry, challenge, message=message)
    assert parse_ms_failure(build_ms_failure(failure)) == failure


PROOF = bytes(range(0xA0, 0xB4))


def test_interop_32_success_is_s_and_forty_upper_case_digits() -> None:
    text = b"S=A0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3"
    assert build_ms_success(MsSuccess(PROOF)) == text
    assert build_ms_success(MsSuccess(PROOF, b"Welcome")) == text + b" M=Welcome"
    for after, message in ((b"", None), (b" ", None), (b" M=", b""), (b"M=", b""), (b" M=Hi\nM=x", b"Hi\nM=x")):
        assert parse_ms_success(text + after) == MsSuccess(PROOF, message)
    assert parse_ms_success(text.lower().replace(b"s=", b"S=")) == MsSuccess(PROOF)
    for wrong in (b"", b"S=", text[:-1], text + b"0", b" " + text, b"S= " + text[3:], text + b" N=", text[2:]):
        with pytest.raises(WireError):
            parse_ms_success(wrong)


def test_interop_33_failures_as_different_servers_write_them() -> None:
    challenge = bytes(range(16))
    written = build_ms_failure(MsFailure(691, True, challenge, message=b"Access denied"))
    assert written == b"E=691 R=1 C=000102030405060708090A0B0C0D0E0F V=3 M=Access denied"
    assert parse_ms_failure(b"E=691 R=0 V=3") == MsFailure(691, False, None, 3)  # accel-ppp
    pppd = b"E=691 R=1 C=000102030405060708090a0b0c0d0e0f V=0 M=Access denied"
    assert parse_ms_failure(pppd) == MsFailure(691, True, challenge, 0, b"Access denied")
    assert parse_ms_failure(b"E=648") == MsFailure(648, False, None, 0)
    for wrong in (b"", b"E=", b"no", b"E=691 R=2", b"E=691 C=00"):
        with pytest.raises(WireError):
            parse_ms_failure(wrong)


@pytest.mark.parametrize("size", [0, 16, 48, 50, 255])
def test_an_ms_response_has_49_octets(size: int) -> None:
    with pytest.raises(WireError) as refused:
        parse_ms_response(bytes(size))
    assert refused.value.cause is WireCause.BAD_LENGTH


def test_reserved_octets_of_an_ms_response_are_ignored() -> None:
    value = bytes(16) + b"reserved" + bytes(24) + b"\x04"
    assert parse_ms_response(value) == MsResponse(bytes(16), bytes(24), 4)


def test_what_has_no_encoding_is_our_bug() -> None:
    with pytest.raises(UsageError):
        build_pap(PapRequest(1, bytes(256), b"x"))
    with pytest.raises(UsageError):
        build_chap(ChapChallenge(1, b""))
    with pytest.raises(UsageError):
        build_chap(ChapResponse(1, b"x", bytes(256)))
    with pytest.raises(UsageError):
        build_chap(ChapResult(256, True))
    with pytest.raises(UsageError):
        build_ms_response(MsResponse(b"", b""))
