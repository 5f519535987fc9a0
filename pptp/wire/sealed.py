"""The sealed frame: a PPP frame of protocol 0x0053, encrypted datagram (RFC 1968 section 4).

    00 53 | receiver index 4 | counter 8 | AEAD( flags 1 | PPP protocol 2 | data ) | tag 16

Deviation: RFC 1968 puts a sequence number of 2 octets after the protocol and leaves the rest to the method that
ECP has negotiated; here the layout is ours and the keys come from a handshake, so ECP never runs. The first 14
octets are the associated data. No field of GRE is, because NATs rewrite them. The receiver index is what the
receiver named in the handshake: by it, not by an address, it finds the key.
"""

from __future__ import annotations

import struct

from pptp.errors import WireCause, WireError
from pptp.wire.ppp import Protocol

# RFC 1968 section 4
ENCRYPTED_PROTOCOL = 0x0053

# ours
SEALED_HEADER = struct.Struct("!HIQ")  # PPP protocol, receiver index, counter
INNER_HEADER = struct.Struct("!BH")  # flags, PPP protocol
TAG_SIZE = 16
SMALLEST_FRAME = SEALED_HEADER.size + INNER_HEADER.size + TAG_SIZE  # 33

# The inner transport checksum holds only the pseudo-header's sum: the seal protects what the rest of it would. Of TCP
# and UDP directly behind an unfragmented IP header only, and only between peers that have both said the capability.
FLAG_CHECKSUM_ELIDED = 0x01
MAY_ELIDE = frozenset({int(Protocol.IPV4), int(Protocol.IPV6)})
CAPABILITY_CHECKSUM_ELISION = 0x00000001  # bit 0 of the capabilities in the handshake

# An empty sealed frame (keepalive, key confirmation) has no data and protocol 0, which no PPP protocol can be:
# RFC 1661 section 2 makes the last bit of every protocol number a one.
EMPTY_PROTOCOL = 0


def is_sealed(frame: bytes | memoryview) -> bool:
    """Whether a PPP frame is of protocol 0x0053, uncompressed and without an HDLC header: the only form we send."""
    return len(frame) >= 2 and frame[0] == 0x00 and frame[1] == ENCRYPTED_PROTOCOL


def parse_header(frame: bytes | memoryview) -> tuple[int, int]:
    """Receiver index and counter of a sealed frame, both still unauthenticated; raises :class:`WireError`."""
    if len(frame) < SMALLEST_FRAME:
        raise WireError("sealed frame", WireCause.TRUNCATED, f"{len(frame)} octets")
    protocol, index, counter = SEALED_HEADER.unpack_from(frame)
    if protocol != ENCRYPTED_PROTOCOL:
        raise WireError("sealed frame", WireCause.BAD_TYPE, f"PPP protocol {protocol:#06x}")
    return index, counter


def receiver_index(frame: bytes | memoryview) -> int:
    """The receiver index of a sealed frame, for demultiplexing; raises :class:`WireError`."""
    return parse_header(frame)[0]
