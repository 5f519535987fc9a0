"""What two grepunch peers say outside the standard protocols, in the two envelopes PPP has for vendors.

* In the clear, in the hole: LCP Vendor-Specific packets (RFC 2153 section 2, code 0). A stock peer merely
  answers with Code-Reject. They carry probes and handshake fragments.
* Inside the seal: packets of the vendor network protocol 0x005B (RFC 3772). Deviation: no VSNCP, because
  the sealed handshake has already negotiated everything there is to negotiate.

Both name the vendor by our OUI, which has the locally-administered bit set because none was registered.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from pptp.errors import WireCause, WireError
from pptp.value import value

# RFC 2153 section 2
LCP_PROTOCOL = 0xC021
VENDOR_SPECIFIC_CODE = 0
_LCP_VENDOR = struct.Struct("!BBHI3sB")  # code, identifier, length, magic number, OUI, kind

# RFC 3772
VENDOR_NETWORK_PROTOCOL = 0x005B
_VENDOR_NETWORK = struct.Struct("!3sB")  # OUI, kind
VENDOR_HEADER_SIZE = _VENDOR_NETWORK.size

# ours, because no OUI was registered: locally administered
OUI = b"\x02gp"

# RFC 1662 section 3.1: LCP is always sent uncompressed
_FRAME_PREFIX = b"\xff\x03\xc0\x21"
CLEAR_OVERHEAD = len(_FRAME_PREFIX) + _LCP_VENDOR.size  # 16


class ClearKind(IntEnum):
    """What a Vendor-Specific packet in the hole carries."""

    PROBE = 1
    HANDSHAKE_FRAGMENT = 2
    ECHO = 3  # of a probe, to and from a GRE echo server


@value
class ClearPacket:
    """One Vendor-Specific packet of ours."""

    kind: ClearKind
    body: bytes
    identifier: int = 0


def build_clear(packet: ClearPacket) -> bytes:
    """The whole PPP frame (FF 03 C0 21 ...) of a Vendor-Specific packet."""
    header = _LCP_VENDOR.pack(
        VENDOR_SPECIFIC_CODE, packet.identifier, _LCP_VENDOR.size + len(packet.body), 0, OUI, packet.kind
    )
    return _FRAME_PREFIX + header + packet.body


def parse_clear(frame: bytes | memoryview) -> ClearPacket:
    """Parse a whole PPP frame as a Vendor-Specific packet of ours; raises :class:`WireError`."""
    if len(frame) < CLEAR_OVERHEAD:
        raise WireError("vendor-specific", WireCause.TRUNCATED, f"{len(frame)} octets")
    if bytes(frame[:4]) != _FRAME_PREFIX:
        raise WireError("vendor-specific", WireCause.BAD_TYPE, "not an uncompressed LCP frame")
    code, identifier, length, magic, oui, kind = _LCP_VENDOR.unpack_from(frame, 4)
    if code != VENDOR_SPECIFIC_CODE:
        raise WireError("vendor-specific", WireCause.BAD_TYPE, f"LCP code {code}")
    if oui != OUI or magic != 0:
        raise WireError("vendor-specific", WireCause.BAD_MAGIC, "another vendor's OUI or a magic number")
    if length > len(frame) - 4:
        raise WireError("vendor-specific", WireCause.TRUNCATED, f"length {length}, {len(frame) - 4} octets")
    if length < _LCP_VENDOR.size:
        raise WireError("vendor-specific", WireCause.BAD_LENGTH, f"length {length}")
    if length < len(frame) - 4:
        raise WireError("vendor-specific", WireCause.TRAILING, f"length {length}, {len(frame) - 4} octets")
    try:
        known = ClearKind(kind)
    except ValueError:
        raise WireError("vendor-specific", WireCause.BAD_TYPE, f"kind {kind}") from None
    return ClearPacket(known, bytes(frame[CLEAR_OVERHEAD:]), identifier)


class SealedKind(IntEnum):
    """What a packet of inner protocol 0x005B carries."""

    SEGMENT = 1  # a segment of the reliable stream of control messages
    MTU_PROBE = 2  # padded; answered by MTU_REPLY
    MTU_REPLY = 3
    PATH_CHALLENGE = 4  # 8 octets, answered with the same by PATH_RESPONSE
    PATH_RESPONSE = 5


def build_vendor_network(kind: SealedKind, body: bytes) -> bytes:
    """The information field of a 0x005B packet."""
    return _VENDOR_NETWORK.pack(OUI, kind) + body


def parse_vendor_network(data: bytes | memoryview) -> tuple[SealedKind, bytes]:
    """Kind and body of a 0x005B packet; raises :class:`WireError`."""
    if len(data) < _VENDOR_NETWORK.size:
        raise WireError("vendor network packet", WireCause.TRUNCATED, f"{len(data)} octets")
    oui, kind = _VENDOR_NETWORK.unpack_from(data)
    if oui != OUI:
        raise WireError("vendor network packet", WireCause.BAD_MAGIC, "another vendor's OUI")
    try:
        known = SealedKind(kind)
    except ValueError:
        raise WireError("vendor network packet", WireCause.BAD_TYPE, f"kind {kind}") from None
    return known, bytes(data[_VENDOR_NETWORK.size :])
