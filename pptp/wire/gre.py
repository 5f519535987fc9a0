"""GRE as PPTP uses it: the enhanced header (version 1) of RFC 2637 section 4.1, and the plain one (version 0).

The enhanced header is 8 octets, then 4 for a sequence number (S) and 4 for an acknowledgement number (A)::

     0                   1                   2                   3
    |C|R|K|S|s|Recur|A| Flags | Ver |         Protocol Type         |
    |    Key (HW) Payload Length    |       Key (LW) Call ID        |
    |                  Sequence Number (if S is set)                |
    |               Acknowledgment Number (if A is set)             |

The Call ID is the one the *receiver* of the packet assigned. A packet without S carries no payload; a packet with
neither S nor A says nothing and is legal.

Version 0 is the four-octet header of RFC 2784 with the same protocol type. Deviation: RFC 2784 section 2.1 lets a
sender add a checksum; nobody who puts 0x880B behind version 0 does, so here every flag bit is refused.
"""

from __future__ import annotations

import struct

from pptp.errors import UsageError, WireCause, WireError
from pptp.value import value

# RFC 2637 section 4.1
PROTOCOL_PPP = 0x880B
_KEY = 0x2000
_SEQUENCE = 0x1000
_ACKNOWLEDGEMENT = 0x0080
_VERSION_MASK = 0x0007
_MUST_BE_ZERO = 0xCF78  # C, R, s, Recur and Flags
LARGEST_PAYLOAD = 0xFFFF

_DATA = _KEY | _SEQUENCE | 1
_ACKNOWLEDGING = _DATA | _ACKNOWLEDGEMENT

_V0 = struct.Struct("!HH")  # flags and version, protocol type
_V1 = struct.Struct("!HHHH")  # the same, payload length, Call ID
_V1_ONE = struct.Struct("!HHHHI")  # with a sequence or an acknowledgement number
_V1_BOTH = struct.Struct("!HHHHII")
_NUMBER = struct.Struct("!I")


Located = tuple[int, int, int | None, int | None, int, int]
"""Version, Call ID, sequence and acknowledgement number, start and end of the payload: see :class:`GrePacket`."""


@value
class GrePacket:
    """A GRE packet that carries PPP. In version 0 ``call_id`` is 0 and the numbers are ``None``.

    ``payload`` is a slice of what was parsed: a view where a view was given, valid as long as its buffer is.
    """

    version: int
    payload: bytes | memoryview
    call_id: int = 0
    sequence: int | None = None
    acknowledgement: int | None = None


def parse(packet: bytes | memoryview) -> GrePacket:
    """Parse a GRE packet (without its IP header); raises :class:`WireError`.

    Octets after the announced payload are padding of the link and ignored; fewer than announced are refused.
    """
    version, call_id, sequence, acknowledgement, start, end = locate(packet)
    return GrePacket(version, packet[start:end], call_id, sequence, acknowledgement)


def locate(packet: bytes | memoryview) -> Located:
    """The same for every packet of a channel, with where the payload begins and ends in place of the payload."""
    size = len(packet)
    if size >= _V1_BOTH.size:
        bits, protocol, length, call_id, first, second = _V1_BOTH.unpack_from(packet)
        if protocol == PROTOCOL_PPP:  # nearly all there are
            if bits == _DATA and length <= size - _V1_ONE.size:
                return 1, call_id, first, None, _V1_ONE.size, _V1_ONE.size + length
            if bits == _ACKNOWLEDGING and length <= size - _V1_BOTH.size:
                return 1, call_id, first, second, _V1_BOTH.size, _V1_BOTH.size + length
    if size < _V0.size:
        raise WireError("GRE", WireCause.TRUNCATED, f"{size} octets")
    bits, protocol = _V0.unpack_from(packet)
    version = bits & _VERSION_MASK
    if version > 1:
        raise WireError("GRE", WireCause.BAD_VERSION, f"version {version}")
    if protocol != PROTOCOL_PPP:
        raise WireError("GRE", WireCause.BAD_TYPE, f"protocol 0x{protocol:04x}")
    if version == 1:
        return _locate_v1(packet, bits)
    if bits:
        raise WireError("GRE", WireCause.BAD_FLAGS, f"0x{bits:04x}")
    return 0, 0, None, None, _V0.size, size


def _locate_v1(packet: bytes | memoryview, bits: int) -> Located:
    if not bits & _KEY or bits & _MUST_BE_ZERO:
        raise WireError("GRE", WireCause.BAD_FLAGS, f"0x{bits:04x}")
    offset = _V1.size + (4 if bits & _SEQUENCE else 0) + (4 if bits & _ACKNOWLEDGEMENT else 0)
    if len(packet) < offset:
        raise WireError("GRE", WireCause.TRUNCATED, f"{len(packet)} octets")
    _, _, length, call_id = _V1.unpack_from(packet)
    if length > len(packet) - offset:
        raise WireError("GRE", WireCause.BAD_LENGTH, f"payload of {length} octets, {len(packet) - offset} present")
    sequence = acknowledgement = None
    if bits & _ACKNOWLEDGEMENT:
        (acknowledgement,) = _NUMBER.unpack_from(packet, offset - 4)
    if bits & _SEQUENCE:
        (sequence,) = _NUMBER.unpack_from(packet, _V1.size)
    elif length:
        raise WireError("GRE", WireCause.BAD_FLAGS, "a payload without a sequence number")
    return 1, call_id, sequence, acknowledgement, offset, offset + length


def build_v1(
    call_id: int,
    payload: bytes | memoryview = b"",
    sequence: int | None = None,
    acknowledgement: int | None = None,
) -> bytes:
    """An enhanced GRE packet for the receiver that assigned ``call_id``.

    Raises :class:`UsageError` for a payload without a sequence number or longer than 65535 octets, and for numbers
    outside their fields.
    """
    length = len(payload)
    if length > LARGEST_PAYLOAD or (length and sequence is None):
        raise UsageError(f"GRE payload of {length} octets, sequence number {sequence}")
    try:
        if sequence is not None and acknowledgement is not None:
            return _V1_BOTH.pack(_ACKNOWLEDGING, PROTOCOL_PPP, length, call_id, sequence, acknowledgement) + payload
        if sequence is not None:
            return _V1_ONE.pack(_DATA, PROTOCOL_PPP, length, call_id, sequence) + payload
        if acknowledgement is not None:
            return _V1_ONE.pack(_KEY | _ACKNOWLEDGEMENT | 1, PROTOCOL_PPP, 0, call_id, acknowledgement)
        return _V1.pack(_KEY | 1, PROTOCOL_PPP, 0, call_id)
    except struct.error as error:
        raise UsageError(f"GRE header: {error}") from None


def build_v0(payload: bytes | memoryview) -> bytes:
    """A plain GRE packet of protocol type 0x880B."""
    return _V0.pack(0, PROTOCOL_PPP) + payload
