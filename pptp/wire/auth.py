"""Packets of the authentication protocols: PAP (RFC 1334 section 2), CHAP (RFC 1994), MS-CHAPv2 (RFC 2759).

All have the form of the control packets: code, identifier, length, data; octets beyond the length are padding. What
MS-CHAPv2 puts into CHAP's Response value and into the text of Success and Failure has its own codecs below.
"""

from __future__ import annotations

import re
import struct
from dataclasses import field
from enum import IntEnum

from pptp.errors import UsageError, WireCause, WireError
from pptp.value import value
from pptp.wire.cp import CpPacket, build_packet, parse_packet

# RFC 1994 section 4.1, RFC 1334 section 2.2.1: what a length of one octet can say
_OCTET_MAXIMUM = 255

# ours, because RFC 2759 section 4 thinks of 256 characters at most, and no peer needs as many
NAME_MAXIMUM = 255

# RFC 2759 section 4
MSCHAPV2_CHALLENGE_SIZE = 16
_MSCHAPV2_RESPONSE = struct.Struct("!16s8x24sB")  # Peer-Challenge, reserved, NT-Response, Flags
AUTHENTICATOR_RESPONSE_SIZE = 20

# ours, because clients of the Windows 98 age set it and fail at a Success with a message (pppd knows them by it)
FLAG_NO_MESSAGE = 0x04

# RFC 2759 section 5 and 6, read as loosely as peers write it
_SUCCESS = re.compile(rb"S=([0-9A-Fa-f]{40})(?:\s*M=(.*)|\s*)", re.DOTALL)
_FAILURE = re.compile(
    rb"E=(\d{1,10})(?: R=([01]))?(?: C=([0-9A-Fa-f]{32}))?(?: V=(\d{1,10}))?(?:\s*M=(.*)|\s*)", re.DOTALL
)
MSCHAPV2_VERSION = 3


class PapCode(IntEnum):
    """RFC 1334 section 2.2."""

    AUTHENTICATE_REQUEST = 1
    AUTHENTICATE_ACK = 2
    AUTHENTICATE_NAK = 3


class ChapCode(IntEnum):
    """RFC 1994 section 4, and RFC 2759 section 7."""

    CHALLENGE = 1
    RESPONSE = 2
    SUCCESS = 3
    FAILURE = 4
    CHANGE_PASSWORD = 7


class MsError(IntEnum):
    """Error codes of an MS-CHAPv2 Failure (RFC 2759 section 6)."""

    RESTRICTED_LOGON_HOURS = 646
    ACCOUNT_DISABLED = 647
    PASSWORD_EXPIRED = 648
    NO_DIALIN_PERMISSION = 649
    AUTHENTICATION_FAILURE = 691
    CHANGING_PASSWORD = 709


@value
class PapRequest:
    """Authenticate-Request: who the peer is, and its password in clear. Either may be empty on the wire."""

    identifier: int
    name: bytes
    password: bytes = field(repr=False)


@value
class PapReply:
    """Authenticate-Ack or Authenticate-Nak."""

    identifier: int
    accepted: bool
    message: bytes = b""


@value
class ChapChallenge:
    """Challenge: 1 to 255 octets to be answered, and the authenticator's name."""

    identifier: int
    value: bytes
    name: bytes = b""


@value
class ChapResponse:
    """Response: 1 to 255 octets, and the peer's name."""

    identifier: int
    value: bytes
    name: bytes = b""


@value
class ChapResult:
    """Success or Failure, under the identifier of the Response it answers."""

    identifier: int
    success: bool
    message: bytes = b""


@value
class ChapChangePassword:
    """Change-Password (RFC 2759 section 7), unread: it is never granted here."""

    identifier: int


PapPacket = PapRequest | PapReply
ChapPacket = ChapChallenge | ChapResponse | ChapResult | ChapChangePassword


@value
class MsResponse:
    """What MS-CHAPv2 puts into the value of a Response (RFC 2759 section 4)."""

    peer_challenge: bytes
    nt_response: bytes
    flags: int = 0


@value
class MsSuccess:
    """The text of an MS-CHAPv2 Success: 20 octets of proof, and a message or ``None``."""

    authenticator_response: bytes
    message: bytes | None = None


@value
class MsFailure:
    """The text of an MS-CHAPv2 Failure; ``error`` may be any number, ``challenge`` is for another try."""

    error: int
    retry: bool
    challenge: bytes | None
    version: int = MSCHAPV2_VERSION
    message: bytes = b""


def parse_pap(information: bytes | memoryview) -> PapPacket:
    """Read a PAP packet.

    An Ack or Nak without its message length is taken, because there are peers that leave it out. Raises
    :class:`WireError`: ``BAD_TYPE`` for another code, ``TRUNCATED`` for a field that runs over the end, ``TRAILING``
    for octets after the last field, and what :func:`~pptp.wire.cp.parse_packet` raises.
    """
    packet = parse_packet(information)
    data = packet.data
    match packet.code:
        case PapCode.AUTHENTICATE_REQUEST:
            name, rest = _counted("PAP name", data)
            password, rest = _counted("PAP password", rest)
            _ends("Authenticate-Request", rest)
            return PapRequest(packet.identifier, name, password)
        case PapCode.AUTHENTICATE_ACK | PapCode.AUTHENTICATE_NAK:
            message, rest = _counted("PAP message", data) if data else (b"", b"")
            _ends("Authenticate-Ack or Nak", rest)
            return PapReply(packet.identifier, packet.code == PapCode.AUTHENTICATE_ACK, message)
    raise WireError("PAP packet", WireCause.BAD_TYPE, f"code {packet.code}")


def build_pap(packet: PapPacket) -> bytes:
    """The octets of a PAP packet; raises :class:`UsageError` where a field does not hold its value."""
    match packet:
        case PapRequest(identifier, name, password):
            data = _with_count(name) + _with_count(password)
            return build_packet(CpPacket(PapCode.AUTHENTICATE_REQUEST, identifier, data))
        case PapReply(identifier, accepted, message):
            code = PapCode.AUTHENTICATE_ACK if accepted else PapCode.AUTHENTICATE_NAK
            return build_packet(CpPacket(code, identifier, _with_count(message)))


def parse_chap(information: bytes | memoryview) -> ChapPacket:
    """Read a CHAP packet.

    Raises :class:`WireError`: ``BAD_TYPE`` for another code, ``BAD_LENGTH`` for a value size of 0, ``TRUNCATED`` for
    a value that runs over the end, ``OVERSIZE`` for a name of more than 255 octets, and what
    :func:`~pptp.wire.cp.parse_packet` raises.
    """
    packet = parse_packet(information)
    match packet.code:
        case ChapCode.CHALLENGE:
            return ChapChallenge(packet.identifier, *_value_and_name(packet.data))
        case ChapCode.RESPONSE:
            return ChapResponse(packet.identifier, *_value_and_name(packet.data))
        case ChapCode.SUCCESS | ChapCode.FAILURE:
            return ChapResult(packet.identifier, packet.code == ChapCode.SUCCESS, packet.data)
        case ChapCode.CHANGE_PASSWORD:
            return ChapChangePassword(packet.identifier)
    raise WireError("CHAP packet", WireCause.BAD_TYPE, f"code {packet.code}")


def build_chap(packet: ChapChallenge | ChapResponse | ChapResult) -> bytes:
    """The octets of a CHAP packet; raises :class:`UsageError` where a field does not hold its value."""
    match packet:
        case ChapChallenge(identifier, value, name):
            return build_packet(CpPacket(ChapCode.CHALLENGE, identifier, _build_value_and_name(value, name)))
        case ChapResponse(identifier, value, name):
            return build_packet(CpPacket(ChapCode.RESPONSE, identifier, _build_value_and_name(value, name)))
        case ChapResult(identifier, success, message):
            code = ChapCode.SUCCESS if success else ChapCode.FAILURE
            return build_packet(CpPacket(code, identifier, message))


def parse_ms_response(value: bytes) -> MsResponse:
    """Read the value of an MS-CHAPv2 Response; raises :class:`WireError` ``BAD_LENGTH`` unless it has 49 octets.

    The eight reserved octets are not looked at, because there are clients that leave something there.
    """
    if len(value) != _MSCHAPV2_RESPONSE.size:
        raise WireError("MS-CHAPv2 response", WireCause.BAD_LENGTH, f"{len(value)} octets")
    return MsResponse(*_MSCHAPV2_RESPONSE.unpack(value))


def build_ms_response(response: MsResponse) -> bytes:
    """The value of an MS-CHAPv2 Response; raises :class:`UsageError` where a field does not hold its value."""
    if (len(response.peer_challenge), len(response.nt_response)) != (MSCHAPV2_CHALLENGE_SIZE, 24):
        raise UsageError("an MS-CHAPv2 response has a challenge of 16 octets and an NT-Response of 24")
    return _MSCHAPV2_RESPONSE.pack(response.peer_challenge, response.nt_response, response.flags)


def parse_ms_success(message: bytes) -> MsSuccess:
    """Read the text of a Success, with or without a message; raises :class:`WireError` ``BAD_VALUE``."""
    read = _SUCCESS.fullmatch(message)
    if read is None:
        raise WireError("MS-CHAPv2 success", WireCause.BAD_VALUE, "not S= and 40 digits")
    return MsSuccess(bytes.fromhex(read[1].decode()), read[2])


def build_ms_success(success: MsSuccess) -> bytes:
    """The text of a Success: upper-case digits, because the RFC says so and clients insist."""
    text = b"S=" + success.authenticator_response.hex().upper().encode()
    return text if success.message is None else text + b" M=" + success.message


def parse_ms_failure(message: bytes) -> MsFailure:
    """Read the text of a Failure; anything after ``E=`` may be missing. Raises :class:`WireError` ``BAD_VALUE``."""
    read = _FAILURE.fullmatch(message)
    if read is None:
        raise WireError("MS-CHAPv2 failure", WireCause.BAD_VALUE, "not E= and a number")
    error, retry, challenge, version, text = read.groups()
    return MsFailure(
        int(error),
        retry == b"1",
        bytes.fromhex(challenge.decode()) if challenge else None,
        int(version) if version else 0,
        text or b"",
    )


def build_ms_failure(failure: MsFailure) -> bytes:
    """The text of a Failure, every field in its place (RFC 2759 section 6)."""
    challenge = failure.challenge or bytes(MSCHAPV2_CHALLENGE_SIZE)
    fields = f"E={failure.error} R={failure.retry:d} C={challenge.hex().upper()} V={failure.version} M="
    return fields.encode() + failure.message


def _counted(what: str, data: bytes) -> tuple[bytes, bytes]:
    """A field behind its length octet, and what follows it."""
    if not data:
        raise WireError(what, WireCause.TRUNCATED, "no length")
    end = 1 + data[0]
    if end > len(data):
        raise WireError(what, WireCause.TRUNCATED, f"length {data[0]}, {len(data) - 1} octets left")
    return data[1:end], data[end:]


def _with_count(value: bytes) -> bytes:
    if len(value) > _OCTET_MAXIMUM:
        raise UsageError(f"a field of {len(value)} octets has no length octet")
    return bytes((len(value),)) + value


def _ends(what: str, rest: bytes) -> None:
    if rest:
        raise WireError(what, WireCause.TRAILING, f"{len(rest)} octets")


def _value_and_name(data: bytes) -> tuple[bytes, bytes]:
    value, name = _counted("CHAP value", data)
    if not value:
        raise WireError("CHAP value", WireCause.BAD_LENGTH, "0 octets")
    if len(name) > NAME_MAXIMUM:
        raise WireError("CHAP name", WireCause.OVERSIZE, f"{len(name)} octets")
    return value, name


def _build_value_and_name(value: bytes, name: bytes) -> bytes:
    if not value or len(name) > NAME_MAXIMUM:
        raise UsageError(f"CHAP value of {len(value)} octets, name of {len(name)}")
    return _with_count(value) + name
