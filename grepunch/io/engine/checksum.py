"""The Internet checksum (RFC 1071) and its elision.

A kernel that offloads hands over a packet whose transport checksum field holds only the pseudo-header's sum. Between
two peers that have agreed on it such a packet travels as it is, with a flag inside the seal: the seal protects more
than the checksum would. Only a checksum that was *never made* is elided. One that was made, right or wrong, is
carried and left to the receiving kernel, so that a bad one is never turned into a good one.
"""

from __future__ import annotations

import struct
from socket import IPPROTO_TCP, IPPROTO_UDP
from typing import NamedTuple

# RFC 791 section 3.1, RFC 8200 section 3, RFC 9293 section 3.1, RFC 768
IPV4_HEADER = 20
IPV6_HEADER = 40
TCP_HEADER = 20
UDP_HEADER = 8
TCP_CHECKSUM = 16  # where the field is in the transport header
UDP_CHECKSUM = 6

_IPV4_START = struct.Struct("!BxH2xHxB")  # version and length, total length, fragment, protocol
_IPV6_START = struct.Struct("!4xHB")  # payload length, next header
_FRAGMENT_MASK = 0x3FFF  # more fragments, and the offset
_FIELD = struct.Struct("!H")


class ChecksumPlace(NamedTuple):
    """Where the transport header begins in a packet, and where its checksum is in that header."""

    start: int
    offset: int


def ones_sum(data: bytes | bytearray | memoryview) -> int:
    """The one's complement sum of 16-bit words modulo 65535: 0 stands for 0xFFFF too.

    A number in base 65536 is congruent to the sum of its digits modulo 65535, and long division is native code.
    """
    value = int.from_bytes(data, "big")
    return (value << 8 if len(data) & 1 else value) % 0xFFFF


def complete(packet: bytearray | memoryview, place: ChecksumPlace) -> None:
    """Make the checksum whose field holds the pseudo-header's sum, as the kernel does for a device without offload."""
    made = 0xFFFF - ones_sum(memoryview(packet)[place.start :])
    if made == 0xFFFF and place.offset == TCP_CHECKSUM:
        made = 0  # its other form means the same, but only UDP, to which 0 is "no checksum", sends that (RFC 768)
    _FIELD.pack_into(packet, place.start + place.offset, made)


def completed(packet: bytes | memoryview, place: ChecksumPlace) -> bytes:
    """A copy of ``packet`` with its checksum made."""
    copy = bytearray(packet)
    complete(copy, place)
    return bytes(copy)


def find(packet: bytes | bytearray | memoryview) -> ChecksumPlace | None:
    """Where a packet's checksum is, if it is one that may travel elided; else None.

    That is so of TCP and UDP directly behind an unfragmented IP header that tells the packet's true length.
    """
    size = len(packet)
    if size < IPV4_HEADER:
        return None
    if packet[0] >> 4 == 4:
        first, total, fragment, protocol = _IPV4_START.unpack_from(packet)
        start = (first & 0x0F) * 4
        if start < IPV4_HEADER or total != size or fragment & _FRAGMENT_MASK:
            return None
    elif packet[0] >> 4 == 6 and size >= IPV6_HEADER:
        payload, protocol = _IPV6_START.unpack_from(packet)
        start = IPV6_HEADER
        if payload + IPV6_HEADER != size:
            return None
    else:
        return None
    if protocol == IPPROTO_TCP and size >= start + TCP_HEADER:
        return ChecksumPlace(start, TCP_CHECKSUM)
    if protocol == IPPROTO_UDP and size >= start + UDP_HEADER:
        return ChecksumPlace(start, UDP_CHECKSUM)
    return None
