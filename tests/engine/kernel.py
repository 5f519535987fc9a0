"""What a kernel does at the other side of a TUN device with offload, by the RFCs and by the longest way.

Nothing here is shared with what it judges: every segment is built from its fields, every checksum summed up word by
word.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
NEEDS_CSUM, TCPV4, TCPV6, UDP_L4, ECN = 1, 1, 4, 5, 0x80
CHECKSUM_AT = {TCP: 16, UDP: 6}


def words_sum(data: bytes) -> int:
    """RFC 1071: the one's complement sum, as it is before its complement."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def made(total: int, offset: int) -> int:
    """The checksum of what adds up to ``total``: 0 means "none" to UDP (RFC 768), and is all ones there."""
    return ~total & 0xFFFF or (0xFFFF if offset == CHECKSUM_AT[UDP] else 0)


@dataclass(frozen=True)
class Flow:
    """What the packets of one flow have in common."""

    version: int = 4
    protocol: int = TCP
    tos: int = 0
    ip_options: bytes = b""  # IPv4
    extensions: bytes = b""  # IPv6: a chain, from `next_header` to the transport protocol
    next_header: int | None = None
    source: bytes = bytes([10, 66, 0, 1])
    destination: bytes = bytes([10, 66, 0, 2])
    source6: bytes = b"\xfd" + bytes(14) + b"\1"
    destination6: bytes = b"\xfd" + bytes(14) + b"\2"
    tcp_options: bytes = b""
    window: int = 501
    urgent: int = 0
    ttl: int = 64
    fragment: int = 0x4000

    @property
    def transport(self) -> int:
        """Where the transport header begins."""
        return 20 + len(self.ip_options) if self.version == 4 else 40 + len(self.extensions)

    @property
    def header(self) -> int:
        """Where the payload begins."""
        return self.transport + (20 + len(self.tcp_options) if self.protocol == TCP else 8)

    @property
    def checksum_at(self) -> int:
        """Where the transport checksum is."""
        return self.transport + CHECKSUM_AT[self.protocol]

    def packet(
        self,
        payload: bytes,
        *,
        sequence: int = 0,
        acknowledgement: int = 77,
        flags: int = ACK,
        identification: int = 0,
        partial: bool = True,
    ) -> bytes:
        """One packet, or a whole train as the kernel hands it over. ``partial``: the checksum is still to be made."""
        if self.protocol == TCP:
            length = 20 + len(self.tcp_options)
            head = struct.pack(
                "!HHIIBBHHH", 5001, 40000, sequence & 0xFFFFFFFF, acknowledgement, length // 4 << 4, flags,
                self.window, 0, self.urgent,
            )  # fmt: skip
            transport = head + self.tcp_options + payload
        else:
            transport = struct.pack("!HHHH", 5001, 40000, 8 + len(payload), 0) + payload
        ends = self.source + self.destination if self.version == 4 else self.source6 + self.destination6
        pseudo = words_sum(ends + struct.pack("!II", len(transport), self.protocol))
        at = CHECKSUM_AT[self.protocol]
        value = pseudo
        if not partial:
            value = made(words_sum(struct.pack("!H", pseudo) + transport), at)
        transport = transport[:at] + struct.pack("!H", value) + transport[at + 2 :]
        return self._network(transport, identification) + transport

    def _network(self, transport: bytes, identification: int) -> bytes:
        if self.version == 6:
            first = self.protocol if self.next_header is None else self.next_header
            head = struct.pack(
                "!IHBB", 6 << 28 | self.tos << 20, len(self.extensions) + len(transport), first, self.ttl
            )
            return head + self.source6 + self.destination6 + self.extensions
        size = 20 + len(self.ip_options)

        def header(checksum: int) -> bytes:
            return struct.pack(
                "!BBHHHBBH4s4s", 0x40 | size // 4, self.tos, size + len(transport), identification & 0xFFFF,
                self.fragment, self.ttl, self.protocol, checksum, self.source, self.destination,
            ) + self.ip_options  # fmt: skip

        return header(~words_sum(header(0)) & 0xFFFF)


@dataclass(frozen=True)
class Train:
    """A payload that the kernel would cut into segments of ``size``, with what differs between packets of a flow."""

    flow: Flow
    payload: bytes = field(repr=False)
    size: int
    sequence: int = 0
    flags: int = ACK
    identification: int = 0

    def read(self) -> bytes:
        """What reading a device with offload gives."""
        flow = self.flow
        whole = flow.packet(self.payload, sequence=self.sequence, flags=self.flags, identification=self.identification)
        offset = CHECKSUM_AT[flow.protocol]
        if len(self.payload) <= self.size:
            return vnet(NEEDS_CSUM, 0, 0, 0, flow.transport, offset) + whole
        kind = UDP_L4 if flow.protocol == UDP else (TCPV4 if flow.version == 4 else TCPV6)
        if flow.protocol == TCP and self.flags & CWR:
            kind |= ECN
        return vnet(NEEDS_CSUM, kind, flow.header, self.size, flow.transport, offset) + whole

    def packets(self) -> list[bytes]:
        """What reading a plain device gives: segments with their checksums made (RFC 9293, RFC 3168 section 6.1)."""
        found = []
        for at in range(0, len(self.payload) or 1, self.size):
            last = at + self.size >= len(self.payload)
            flags = self.flags
            if not last:
                flags &= ~(PSH | FIN)
            if at:
                flags &= ~CWR
            found.append(
                self.flow.packet(
                    self.payload[at : at + self.size],
                    sequence=self.sequence + at,
                    flags=flags,
                    identification=self.identification + at // self.size,
                    partial=False,
                )
            )
        return found


def vnet(flags: int, kind: int, header: int, size: int, start: int, offset: int) -> bytes:
    """A header of virtio, in this host's byte order."""
    return struct.pack("=BBHHHH", flags, kind, header, size, start, offset)


def take(written: bytes) -> list[bytes]:
    """The packets that a kernel sees in what was written to a device with offload; raises where it would refuse."""
    flags, kind, _, size, start, offset = struct.unpack_from("=BBHHHH", written)
    packet = written[10:]
    if kind == 0:
        return [complete(packet, start, offset) if flags & NEEDS_CSUM else packet]
    assert flags & NEEDS_CSUM, "a train without a checksum to be made"
    udp = kind & ~ECN == UDP_L4
    version = packet[0] >> 4
    assert kind & ~ECN == (UDP_L4 if udp else {4: TCPV4, 6: TCPV6}[version])
    assert (int.from_bytes(packet[2:4], "big") if version == 4 else 40 + int.from_bytes(packet[4:6], "big")) == len(
        packet
    )
    assert offset == CHECKSUM_AT[UDP if udp else TCP]
    assert bool(kind & ECN) == bool(not udp and packet[start + 13] & CWR)
    header = start + (8 if udp else (packet[start + 12] >> 4) * 4)
    found = []
    for at in range(header, len(packet), size):
        piece = bytearray(packet[:header] + packet[at : at + size])
        index, less = (at - header) // size, len(packet) - header - len(packet[at : at + size])
        if version == 4:
            _add(piece, 2, 2, -less)
            _add(piece, 4, 2, index)
            # RFC 1624: the header checksum is adjusted, not made anew: what was wrong stays wrong
            old = int.from_bytes(packet[10:12], "big") + int.from_bytes(packet[2:4], "big")
            new = old + int.from_bytes(packet[4:6], "big")
            new -= int.from_bytes(piece[2:4], "big") + int.from_bytes(piece[4:6], "big")
            piece[10:12] = (new % 0xFFFF).to_bytes(2, "big")
        else:
            _add(piece, 4, 2, -less)
        partial = (int.from_bytes(piece[start + offset : start + offset + 2], "big") - less) % 0xFFFF
        piece[start + offset : start + offset + 2] = partial.to_bytes(2, "big")
        if udp:
            _add(piece, start + 4, 2, -less)
        else:
            _add(piece, start + 4, 4, at - header)
            if at + size < len(packet):
                piece[start + 13] &= ~(PSH | FIN)
            if at > header:
                piece[start + 13] &= ~CWR
        found.append(complete(bytes(piece), start, offset))
    return found


def complete(packet: bytes, start: int, offset: int) -> bytes:
    """Make the transport checksum of a packet whose field holds the pseudo-header's sum."""
    value = made(words_sum(packet[start:]), offset)
    return packet[: start + offset] + value.to_bytes(2, "big") + packet[start + offset + 2 :]


def _add(packet: bytearray, at: int, width: int, number: int) -> None:
    value = int.from_bytes(packet[at : at + width], "big") + number
    packet[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "big")
