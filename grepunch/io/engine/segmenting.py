"""Cutting a train of segments that the kernel handed over in one piece (TSO, USO), in the buffer it was read into.

Each segment's headers are written straight before its payload, over the end of the segment before, which must have
been used by then: that is why :func:`segments` is a generator. Nothing is copied but headers. What comes out is octet
for octet what the kernel would have sent to a device without offload (net/ipv4/tcp_offload.c, udp_offload.c), but for
the transport checksum, which holds the pseudo-header's sum of the segment until somebody completes it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

from grepunch.io.engine.checksum import (
    IPV4_HEADER,
    IPV6_HEADER,
    TCP_CHECKSUM,
    TCP_HEADER,
    UDP_CHECKSUM,
    UDP_HEADER,
    ChecksumPlace,
)
from grepunch.io.engine.virtio import GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP

# RFC 9293 section 3.1, RFC 3168 section 6.1
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80

_TCP_TYPES = ((GSO_TCPV4, 4), (GSO_TCPV6, 6))

PREFIX = 3  # octets before each IP packet that belong to the caller: the sealed frame's inner header


@cache
def tcp_layout(version: int, transport: int, header: int) -> struct.Struct:
    """The prefix and the headers of a TCP segment, divided where segments of one train differ.

    IPv4: prefix, version and TOS, *total length*, *identification*, fragment to protocol, *header checksum*, addresses
    to ports, *sequence number*, acknowledgement and data offset, *flags*, window, *checksum*, the rest.
    IPv6: prefix, version to flow label, *payload length*, next header to ports, and on as above.
    ``transport`` is where the TCP header begins and ``header`` where it ends, from the IP header on.
    """
    tcp = f"I5sB2sH{header - transport - 18}s"
    if version == 4:
        return struct.Struct(f"!{PREFIX}s2sHH4sH{transport - 8}s{tcp}")
    return struct.Struct(f"!{PREFIX}s4sH{transport - 2}s{tcp}")


@cache
def udp_layout(version: int, transport: int) -> struct.Struct:
    """The prefix and the headers of a UDP datagram likewise: as :func:`tcp_layout`, then *length* and *checksum*."""
    if version == 4:
        return struct.Struct(f"!{PREFIX}s2sHH4sH{transport - 8}sHH")
    return struct.Struct(f"!{PREFIX}s4sH{transport - 2}sHH")


def header_end(
    packet: bytes | bytearray | memoryview, start: int, end: int, gso_type: int, place: ChecksumPlace
) -> int | None:
    """Where the payload of the train in ``packet[start:end]`` begins, from ``start`` on.

    None where headers, type and the place of the checksum do not fit each other, or nothing is left for a payload.
    """
    version, kind = packet[start] >> 4, gso_type & ~GSO_ECN
    if place.start < (IPV4_HEADER if version == 4 else IPV6_HEADER):
        return None
    if kind == GSO_UDP and place.offset == UDP_CHECKSUM:
        header = place.start + UDP_HEADER
    elif (kind, version) in _TCP_TYPES and place.offset == TCP_CHECKSUM and start + place.start + TCP_HEADER <= end:
        header = place.start + (packet[start + place.start + 12] >> 4) * 4
        if header < place.start + TCP_HEADER:
            return None
    else:
        return None
    return header if start + header < end else None


def segments(
    buffer: bytearray, start: int, end: int, *, place: ChecksumPlace, header: int, size: int, prefix: bytes
) -> Iterator[tuple[int, int]]:
    """Cut the train in ``buffer[start:end]`` and yield where each segment is, its prefix included.

    ``header`` is what :func:`header_end` says, ``size`` that of a segment's payload; ``start`` is at least ``PREFIX``.
    A segment lasts until the next is asked for.
    """
    tcp, version = place.offset == TCP_CHECKSUM, buffer[start] >> 4
    cut = (_tcp4 if version == 4 else _tcp6) if tcp else (_udp4 if version == 4 else _udp6)
    return cut(buffer, start, end, place.start, header, size, prefix)


def _flags_of(flags: int, *, first: bool, last: bool) -> int:
    """PSH and FIN belong to the last segment of a train, CWR to the first."""
    return flags & ~((0 if last else PSH | FIN) | (0 if first else CWR))


def _tcp4(
    buffer: bytearray, start: int, end: int, transport: int, header: int, size: int, prefix: bytes
) -> Iterator[tuple[int, int]]:
    layout = tcp_layout(4, transport, header)
    pack_into, length = layout.pack_into, layout.size
    (_, tos, total, identification, fragment, header_sum, ends, sequence, acknowledgement, flags, window, partial,
     rest) = layout.unpack_from(buffer, start - PREFIX)  # fmt: skip
    header_sum += total + identification  # what the fields that change have taken from it
    partial -= total
    at = start + header
    middle = _flags_of(flags, first=False, last=False)
    now = _flags_of(flags, first=True, last=False)
    while at < end:
        stop = at + size
        if stop >= end:
            stop = end
            now = _flags_of(flags, first=at == start + header, last=True)
        total = header + stop - at
        pack_into(
            buffer, at - length, prefix, tos, total, identification, fragment,
            (header_sum - total - identification) % 0xFFFF, ends, sequence, acknowledgement, now, window,
            (partial + total) % 0xFFFF, rest,
        )  # fmt: skip
        yield at - length, stop
        identification = identification + 1 & 0xFFFF
        sequence = sequence + size & 0xFFFFFFFF
        now = middle
        at = stop


def _tcp6(
    buffer: bytearray, start: int, end: int, transport: int, header: int, size: int, prefix: bytes
) -> Iterator[tuple[int, int]]:
    layout = tcp_layout(6, transport, header)
    pack_into, length = layout.pack_into, layout.size
    (_, flow, payload, ends, sequence, acknowledgement, flags, window, partial, rest) = layout.unpack_from(
        buffer, start - PREFIX
    )
    partial -= payload
    at = start + header
    middle = _flags_of(flags, first=False, last=False)
    now = _flags_of(flags, first=True, last=False)
    while at < end:
        stop = at + size
        if stop >= end:
            stop = end
            now = _flags_of(flags, first=at == start + header, last=True)
        payload = header - IPV6_HEADER + stop - at
        pack_into(
            buffer, at - length, prefix, flow, payload, ends, sequence, acknowledgement, now, window,
            (partial + payload) % 0xFFFF, rest,
        )  # fmt: skip
        yield at - length, stop
        sequence = sequence + size & 0xFFFFFFFF
        now = middle
        at = stop


def _udp4(
    buffer: bytearray, start: int, end: int, transport: int, header: int, size: int, prefix: bytes
) -> Iterator[tuple[int, int]]:
    layout = udp_layout(4, transport)
    pack_into, length = layout.pack_into, layout.size
    (_, tos, total, identification, fragment, header_sum, ends, datagram, partial) = layout.unpack_from(
        buffer, start - PREFIX
    )
    header_sum += total + identification
    partial -= datagram
    at = start + header
    while at < end:
        stop = min(at + size, end)
        total = header + stop - at
        datagram = total - transport
        pack_into(
            buffer, at - length, prefix, tos, total, identification, fragment,
            (header_sum - total - identification) % 0xFFFF, ends, datagram, (partial + datagram) % 0xFFFF,
        )  # fmt: skip
        yield at - length, stop
        identification = identification + 1 & 0xFFFF
        at = stop


def _udp6(
    buffer: bytearray, start: int, end: int, transport: int, header: int, size: int, prefix: bytes
) -> Iterator[tuple[int, int]]:
    layout = udp_layout(6, transport)
    pack_into, length = layout.pack_into, layout.size
    (_, flow, payload, ends, datagram, partial) = layout.unpack_from(buffer, start - PREFIX)
    partial -= datagram
    at = start + header
    while at < end:
        stop = min(at + size, end)
        payload = header - IPV6_HEADER + stop - at
        datagram = payload + IPV6_HEADER - transport
        pack_into(buffer, at - length, prefix, flow, payload, ends, datagram, (partial + datagram) % 0xFFFF)
        yield at - length, stop
        at = stop
