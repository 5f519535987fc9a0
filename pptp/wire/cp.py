"""Packets of the PPP control protocols: LCP, the NCPs, CCP (RFC 1661 sections 5 and 6, RFC 1570, RFC 2153).

One form serves them all: code, identifier, length, data. The data of Configure packets is a list of options; that of
the other codes has the small bodies below.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

from pptp.errors import UsageError, WireCause, WireError
from pptp.value import value

# RFC 1661 section 5
_HEADER = struct.Struct("!BBH")  # code, identifier, length
PACKET_HEADER = _HEADER.size
_MAGIC_NUMBER = struct.Struct("!I")
_PROTOCOL = struct.Struct("!H")

# RFC 1661 section 6
_OPTION_HEADER = 2  # type, length
_OPTION_MAXIMUM = 255

# RFC 1570 section 2.2, RFC 2153 section 2.1
_TIME_REMAINING = struct.Struct("!II")  # magic number, seconds
_VENDOR_SPECIFIC = struct.Struct("!I3sB")  # magic number, OUI, kind

# ours, because a log line has an end
_PRINTABLE_MAXIMUM = 128


class Code(IntEnum):
    """Codes of control packets. 1 to 7 belong to every control protocol, the others to LCP or CCP alone."""

    VENDOR_SPECIFIC = 0
    CONFIGURE_REQUEST = 1
    CONFIGURE_ACK = 2
    CONFIGURE_NAK = 3
    CONFIGURE_REJECT = 4
    TERMINATE_REQUEST = 5
    TERMINATE_ACK = 6
    CODE_REJECT = 7
    PROTOCOL_REJECT = 8
    ECHO_REQUEST = 9
    ECHO_REPLY = 10
    DISCARD_REQUEST = 11
    IDENTIFICATION = 12
    TIME_REMAINING = 13
    RESET_REQUEST = 14
    RESET_ACK = 15


@value
class CpPacket:
    """One control packet. ``code`` may be any octet: the unknown ones are answered with Code-Reject."""

    code: int
    identifier: int
    data: bytes = b""


@value
class Option:
    """One configuration option without its length octet."""

    type: int
    value: bytes = b""


@value
class MagicBody:
    """Body of Echo-Request, Echo-Reply, Discard-Request and Identification."""

    magic_number: int
    data: bytes = b""


@value
class TimeRemainingBody:
    """Body of Time-Remaining (RFC 1570 section 2.2)."""

    magic_number: int
    seconds: int
    message: bytes = b""


@value
class VendorSpecificBody:
    """Body of Vendor-Specific (RFC 2153 section 2.1)."""

    magic_number: int
    oui: bytes
    kind: int
    value: bytes = b""


@value
class ProtocolRejectBody:
    """Body of Protocol-Reject: the protocol refused, and the beginning of what it carried."""

    protocol: int
    information: bytes = b""


def parse_packet(information: bytes | memoryview) -> CpPacket:
    """Read the information field of a control frame.

    Octets beyond the length field are padding and are ignored (RFC 1661 section 5). Raises :class:`WireError`:
    ``TRUNCATED`` for less than a header or less than the length says, ``BAD_LENGTH`` for a length below the header's.
    """
    if len(information) < PACKET_HEADER:
        raise WireError("control packet", WireCause.TRUNCATED, f"{len(information)} octets")
    code, identifier, length = _HEADER.unpack_from(information)
    if length < PACKET_HEADER:
        raise WireError("control packet", WireCause.BAD_LENGTH, f"length {length}")
    if length > len(information):
        raise WireError("control packet", WireCause.TRUNCATED, f"length {length}, {len(information)} octets")
    return CpPacket(code, identifier, bytes(information[PACKET_HEADER:length]))


def build_packet(packet: CpPacket) -> bytes:
    """The octets of a control packet; raises :class:`UsageError` where a field does not hold its value."""
    try:
        return _HEADER.pack(packet.code, packet.identifier, PACKET_HEADER + len(packet.data)) + packet.data
    except struct.error as error:
        raise UsageError(f"control packet: {error}") from None


def parse_options(data: bytes) -> tuple[Option, ...]:
    """Read an option list in order, repeats included.

    Raises :class:`WireError`: ``TRUNCATED`` where an option runs over the end, ``BAD_LENGTH`` for a length of 0 or 1.
    """
    options = []
    at = 0
    while at < len(data):
        if at + _OPTION_HEADER > len(data):
            raise WireError("configuration option", WireCause.TRUNCATED, f"1 octet at {at}")
        length = data[at + 1]
        if length < _OPTION_HEADER:
            raise WireError("configuration option", WireCause.BAD_LENGTH, f"type {data[at]}, length {length}")
        if at + length > len(data):
            raise WireError(
                "configuration option",
                WireCause.TRUNCATED,
                f"type {data[at]}, length {length}, {len(data) - at} octets left",
            )
        options.append(Option(data[at], data[at + _OPTION_HEADER : at + length]))
        at += length
    return tuple(options)


def build_options(options: Iterable[Option]) -> bytes:
    """The octets of an option list; raises :class:`UsageError` where a field does not hold its value."""
    parts = []
    for option in options:
        length = _OPTION_HEADER + len(option.value)
        if length > _OPTION_MAXIMUM or not 0 <= option.type <= 0xFF:
            raise UsageError(f"option {option.type} with {len(option.value)} octets has no encoding")
        parts.append(bytes((option.type, length)) + option.value)
    return b"".join(parts)


def parse_magic(data: bytes) -> MagicBody:
    """Read the body of an Echo, Discard or Identification packet; raises :class:`WireError` ``TRUNCATED``."""
    _at_least("magic number", data, _MAGIC_NUMBER.size)
    return MagicBody(_MAGIC_NUMBER.unpack_from(data)[0], data[_MAGIC_NUMBER.size :])


def build_magic(body: MagicBody) -> bytes:
    """The octets of a body that begins with a magic number."""
    return _MAGIC_NUMBER.pack(body.magic_number) + body.data


def parse_time_remaining(data: bytes) -> TimeRemainingBody:
    """Read the body of a Time-Remaining packet; raises :class:`WireError` ``TRUNCATED``."""
    _at_least("Time-Remaining", data, _TIME_REMAINING.size)
    magic_number, seconds = _TIME_REMAINING.unpack_from(data)
    return TimeRemainingBody(magic_number, seconds, data[_TIME_REMAINING.size :])


def build_time_remaining(body: TimeRemainingBody) -> bytes:
    """The octets of the body of a Time-Remaining packet."""
    return _TIME_REMAINING.pack(body.magic_number, body.seconds) + body.message


def parse_vendor_specific(data: bytes) -> VendorSpecificBody:
    """Read the body of a Vendor-Specific packet of any vendor; raises :class:`WireError` ``TRUNCATED``."""
    _at_least("Vendor-Specific", data, _VENDOR_SPECIFIC.size)
    magic_number, oui, kind = _VENDOR_SPECIFIC.unpack_from(data)
    return VendorSpecificBody(magic_number, oui, kind, data[_VENDOR_SPECIFIC.size :])


def parse_protocol_reject(data: bytes) -> ProtocolRejectBody:
    """Read the body of a Protocol-Reject packet; raises :class:`WireError` ``TRUNCATED``."""
    _at_least("Protocol-Reject", data, _PROTOCOL.size)
    return ProtocolRejectBody(_PROTOCOL.unpack_from(data)[0], data[_PROTOCOL.size :])


def build_protocol_reject(body: ProtocolRejectBody) -> bytes:
    """The octets of the body of a Protocol-Reject packet."""
    return _PROTOCOL.pack(body.protocol) + body.information


def printable(data: bytes) -> str:
    """A peer's octets as text that is safe in a log line: printable ASCII, the rest as ``\\xNN``, cut at 128 octets."""
    shown = data[:_PRINTABLE_MAXIMUM]
    text = "".join(chr(octet) if 0x20 <= octet < 0x7F and octet != 0x5C else f"\\x{octet:02x}" for octet in shown)
    return text + ("..." if len(data) > len(shown) else "")


def _at_least(what: str, data: bytes, size: int) -> None:
    if len(data) < size:
        raise WireError(what, WireCause.TRUNCATED, f"{len(data)} octets")
