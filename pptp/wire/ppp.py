"""PPP encapsulation: the protocol field and what may stand before it (RFC 1661 section 2, RFC 1662 section 3.1).

GRE carries PPP frames without flags, byte stuffing or FCS (RFC 2637 section 4.1), so that a frame is an optional
address and control field (``FF 03``), a protocol field of one or two octets, and the information field.
"""

from __future__ import annotations

from enum import IntEnum

from pptp.errors import UsageError, WireCause, WireError
from pptp.value import value

# RFC 1662 section 3.1
ADDRESS_ALL_STATIONS = 0xFF
CONTROL_UNNUMBERED = 0x03
_ADDRESS_AND_CONTROL = b"\xff\x03"

# RFC 1661 section 6.1
DEFAULT_MRU = 1500

# RFC 1662 section 3.2: one octet of FF begins an address field, so that 00FF is not compressed
_NEVER_COMPRESSED = 0x00FF


class Protocol(IntEnum):
    """Values of the PPP protocol field that this project names."""

    IPV4 = 0x0021
    ENCRYPTED = 0x0053  # RFC 1968
    IPV6 = 0x0057
    VENDOR_NETWORK = 0x005B  # RFC 3772
    MPPE = 0x00FD  # compressed datagram, RFC 1962
    IPCP = 0x8021
    ECP = 0x8053
    IPV6CP = 0x8057
    CCP = 0x80FD
    LCP = 0xC021
    PAP = 0xC023
    CHAP = 0xC223


@value
class PppFrame:
    """One PPP frame: its protocol number, and the information field as it is on the wire."""

    protocol: int
    information: bytes | memoryview


def parse(frame: bytes | memoryview) -> PppFrame:
    """A frame in any of the four forms; raises :class:`WireError` as :func:`split`."""
    return PppFrame(*split(frame))


def split(frame: bytes | memoryview) -> tuple[int, bytes | memoryview]:
    """Protocol and information field of a frame in any form, negotiated or not.

    It may begin with FF 03 or not, and the protocol have 1 octet or 2. The information field is a slice of what was
    given: no copy of a memoryview is made. Raises :class:`WireError`: ``TRUNCATED`` where the frame ends before the
    protocol does, ``BAD_VALUE`` for an address field without its control field, ``BAD_TYPE`` for a protocol number
    that RFC 1661 section 2 rules out.
    """
    length = len(frame)
    at = 0
    if length and frame[0] == ADDRESS_ALL_STATIONS:
        if length > 1 and frame[1] != CONTROL_UNNUMBERED:
            raise WireError("PPP frame", WireCause.BAD_VALUE, f"address FF, control {frame[1]:02X}")
        at = 2
    if at >= length:
        raise WireError("PPP frame", WireCause.TRUNCATED, f"{length} octets")
    first = frame[at]
    if first & 1:
        if first == _NEVER_COMPRESSED:
            raise WireError("PPP frame", WireCause.BAD_TYPE, "protocol FF in one octet")
        return first, frame[at + 1 :]
    if at + 1 >= length:
        raise WireError("PPP frame", WireCause.TRUNCATED, f"{length} octets, half a protocol field")
    protocol = first << 8 | frame[at + 1]
    if not protocol & 1:
        raise WireError("PPP frame", WireCause.BAD_TYPE, f"protocol {protocol:04X} is even")
    return protocol, frame[at + 2 :]


def build(protocol: int, information: bytes | memoryview, *, acfc: bool = False, pfc: bool = False) -> bytes:
    """The octets of a frame; ``acfc`` and ``pfc`` are what the *peer* said it can receive.

    LCP is always sent in full, whatever was negotiated (RFC 1661 section 6.5, 6.6). Raises :class:`UsageError` for
    a number that no protocol field can hold.
    """
    if not 0 < protocol <= 0xFFFF or protocol & 0x0101 != 1:
        raise UsageError(f"{protocol:#06x} is not a PPP protocol number")
    prefix = b"" if acfc and protocol != Protocol.LCP else _ADDRESS_AND_CONTROL
    octets = 1 if pfc and protocol < _NEVER_COMPRESSED else 2
    return prefix + protocol.to_bytes(octets, "big") + information
