"""A packet out of the device that one call cannot carry, because its peer wants smaller ones than the others.

The device has one MTU for all calls. Where a peer's is smaller, this does what a router does between two links of
different size: it says so to the sender (RFC 1191, RFC 4443 section 3.2), or cuts the packet where it may be cut.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from grepunch.ordinary.dhcpinform import checksum

# RFC 791 section 3.1
_IPV4_HEADER = 20
_DONT_FRAGMENT, _MORE_FRAGMENTS, _OFFSET = 0x4000, 0x2000, 0x1FFF
_UNIT = 8  # octets of a fragment's offset
_LARGEST_HEADER = 60
_TTL = 64
# RFC 792, RFC 1191 section 4; RFC 4443 sections 2.4, 3.2
_ICMP, _ICMPV6 = 1, 58
_UNREACHABLE, _FRAGMENTATION_NEEDED = 3, 4
_PACKET_TOO_BIG = 2
_QUOTED_IPV4 = 28  # the quoted header's options left out: header and 8 octets
_LARGEST_ICMPV6 = 1280
_IPV6_HEADER = 40
_ICMPV6_ERRORS = range(128)


def fragments(packet: bytes, mtu: int) -> list[bytes]:
    """An IPv4 packet that may be fragmented, in parts of at most ``mtu`` octets; empty where it may not be."""
    header = (packet[0] & 0x0F) * 4
    flags = int.from_bytes(packet[6:8], "big")
    if packet[0] >> 4 != 4 or flags & _DONT_FRAGMENT or not _IPV4_HEADER <= header <= len(packet):
        return []
    room = (mtu - header) // _UNIT * _UNIT
    if room <= 0:
        return []
    data, first = packet[header:], flags & _OFFSET
    parts = []
    for at in range(0, len(data), room):
        piece = data[at : at + room]
        more = _MORE_FRAGMENTS if at + room < len(data) else flags & _MORE_FRAGMENTS
        start = bytearray(packet[:header])
        struct.pack_into("!HxxH", start, 2, header + len(piece), more | (first + at // _UNIT))
        start[10:12] = bytes(2)
        struct.pack_into("!H", start, 10, checksum(bytes(start)))
        parts.append(bytes(start) + piece)
    return parts


def too_big(packet: bytes, mtu: int, own: IPv4Address, own_link_local: bytes) -> bytes | None:
    """The ICMP error to the sender of ``packet``, from our address inside; None where none may be sent."""
    if packet[0] >> 4 == 6:
        return _too_big_v6(packet, mtu, own_link_local)
    fragment = int.from_bytes(packet[6:8], "big") & _OFFSET
    if fragment or (packet[9] == _ICMP and packet[20:21] != b"\x08"):  # RFC 1122 section 3.2.2: no error about errors
        return None
    body = struct.pack("!BBHHH", _UNREACHABLE, _FRAGMENTATION_NEEDED, 0, 0, mtu) + packet[:_QUOTED_IPV4]
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    head = (0x45, 0, _IPV4_HEADER + len(body), 0, 0, _TTL, _ICMP)
    pack = struct.Struct("!BBHHHBBH4s4s").pack
    return pack(*head, checksum(pack(*head, 0, own.packed, packet[12:16])), own.packed, packet[12:16]) + body


def _too_big_v6(packet: bytes, mtu: int, own: bytes) -> bytes | None:
    if packet[6] == _ICMPV6 and any(kind in _ICMPV6_ERRORS for kind in packet[40:41]):
        return None
    body = struct.pack("!BBHI", _PACKET_TOO_BIG, 0, 0, mtu) + packet[: _LARGEST_ICMPV6 - _IPV6_HEADER - 8]
    destination = packet[8:24]
    pseudo = own + destination + struct.pack("!IxxxB", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + own + destination + body
