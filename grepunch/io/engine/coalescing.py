"""Putting segments together again that arrived one by one: the inverse of :mod:`grepunch.io.engine.segmenting`.

The kernel takes a train of segments as quickly as one of them. Only packets whose checksum was elided are put
together, and only while each header is, octet for octet, what cutting the train again gives; anything else ends it.
The header that the next segment must have is one big integer: the last one's, plus a step that counts up
identification and sequence number and takes as much from the header checksum. Where a field would wrap, the sum
spills into its neighbour and differs, and the slow comparison, in :meth:`Train.take`, decides.
"""

from __future__ import annotations

from grepunch.io.engine.checksum import IPV6_HEADER, TCP_CHECKSUM, TCP_HEADER, UDP_HEADER, ChecksumPlace
from grepunch.io.engine.segmenting import ACK, CWR, ECE, FIN, PREFIX, PSH, tcp_layout, udp_layout
from grepunch.io.engine.virtio import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, HEADER, NEEDS_CSUM

_LARGEST = 0xFFFF  # RFC 791, RFC 8200: what a length field can say
_PLAIN_FLAGS = ACK | ECE | CWR

HEADROOM = HEADER.size - PREFIX  # octets before a frame's plaintext that :meth:`Train.finish` writes into


def begin(buffer: bytearray, view: memoryview, at: int, end: int, place: ChecksumPlace, *, udp: bool) -> Train | None:
    """A train that begins with the elided packet whose plaintext is ``buffer[at:end]``; None where it cannot.

    ``view`` is of ``buffer``, ``place`` what :func:`checksum.find` says, ``udp`` whether the device takes UDP trains.
    """
    transport = at + PREFIX + place.start
    if place.offset == TCP_CHECKSUM:
        size = (buffer[transport + 12] >> 4) * 4
        if size < TCP_HEADER or buffer[transport + 13] & ~_PLAIN_FLAGS or not buffer[transport + 13] & ACK:
            return None
    elif udp and int.from_bytes(view[transport + 4 : transport + 6], "big") == end - transport:
        size = UDP_HEADER
    else:
        return None
    return Train(buffer, view, at, end, place, transport + size - at) if transport + size < end else None


class Train:
    """Segments of one flow, in order, in the buffer that they were decrypted into. Made by :func:`begin`.

    A loop may append by itself what has the ``size`` and header it expects, while ``parts`` are fewer than ``most``::

        if end - at == train.size and int.from_bytes(view[at : at + train.head], "big") == train.expected:
            train.expected += train.step
            train.parts.append(view[at + train.head : end])
    """

    __slots__ = ("_at", "_buffer", "_ending", "_fields", "_layout", "_place", "_tcp", "_version", "_view",
                 "closed", "expected", "head", "most", "parts", "size", "step")  # fmt: skip

    def __init__(self, buffer: bytearray, view: memoryview, at: int, end: int, place: ChecksumPlace, head: int) -> None:
        """``head``: how many octets of the plaintext are before the payload."""
        self._buffer, self._view, self._at, self._place = buffer, view, at, place
        self._tcp = place.offset == TCP_CHECKSUM
        self._version = buffer[at + PREFIX] >> 4
        header = head - PREFIX
        layout = tcp_layout(self._version, place.start, header) if self._tcp else udp_layout(self._version, place.start)
        self._layout = layout
        self._fields = layout.unpack_from(buffer, at)
        self._ending = 0  # PSH and FIN, of the last segment
        self.size = end - at  # of a segment's plaintext
        self.head = head
        payload = end - at - head
        self.most = (_LARGEST - header) // payload
        self.parts = [view[at + head : end]]
        self.closed = False
        step = payload << self._shift(place.start + 4, 4) if self._tcp else 0
        if self._version == 4:
            step += (1 << self._shift(4, 2)) - (1 << self._shift(10, 2))
        self.step = step
        expected = int.from_bytes(view[at : at + head], "big")
        if self._tcp:
            expected &= ~(CWR << self._shift(place.start + 13, 1))
        self.expected = expected + step

    def take(self, at: int, end: int) -> bool:
        """Append the plaintext at ``at`` if it goes on or ends this train; False, with nothing changed, if not."""
        payload, full = end - at - self.head, self.size - self.head
        if self.closed or not 0 < payload <= full or len(self.parts) >= self.most:
            return False
        ending = self._buffer[at + PREFIX + self._place.start + 13] & (PSH | FIN) if self._tcp else 0
        header = self._header(len(self.parts), payload, ending)
        if self._view[at : at + self.head] != header:
            return False
        self.parts.append(self._view[at + self.head : end])
        self._ending = ending
        self.closed = payload < full or ending != 0
        self.expected = int.from_bytes(header, "big") + self.step
        return True

    def finish(self) -> list[memoryview]:
        """What to write to the device in one go: a header of virtio, then the train. The end of this object's use."""
        start, place, header = self._at + PREFIX, self._place, self.head - PREFIX
        vnet = start - HEADER.size
        if len(self.parts) == 1:
            HEADER.pack_into(self._buffer, vnet, NEEDS_CSUM, GSO_NONE, 0, 0, *place)
        else:
            kind = (GSO_TCPV4 if self._version == 4 else GSO_TCPV6) if self._tcp else GSO_UDP
            if self._tcp and self._buffer[start + place.start + 13] & CWR:
                kind |= GSO_ECN
            whole = self._header(0, sum(map(len, self.parts)), self._ending)
            self._buffer[self._at : self._at + self.head] = whole
            HEADER.pack_into(self._buffer, vnet, NEEDS_CSUM, kind, header, self.size - self.head, *place)
        return [self._view[vnet : self._at + self.size], *self.parts[1:]]

    def _shift(self, offset: int, width: int) -> int:
        """By how many bits a field, ``offset`` octets into the IP packet, stands left in the header as a number."""
        return 8 * (self.head - PREFIX - offset - width)

    def _header(self, index: int, payload: int, ending: int) -> bytes:
        """Prefix and headers of the segment number ``index``, with so much payload and these of PSH and FIN."""
        if self._version == 4:
            prefix, tos, old, identification, fragment, header_sum, *transport = self._fields
            length = self.head - PREFIX + payload
            counted = identification + index & 0xFFFF
            header_sum = (header_sum + old + identification - length - counted) % 0xFFFF
            network: tuple[object, ...] = (prefix, tos, length, counted, fragment, header_sum)
        else:
            prefix, flow, old, *transport = self._fields
            length = self.head - PREFIX - IPV6_HEADER + payload
            network = (prefix, flow, length)
        more = length - old
        if not self._tcp:
            ends, datagram, partial = transport
            return self._layout.pack(*network, ends, datagram + more, (partial + more) % 0xFFFF)
        ends, sequence, acknowledgement, flags, window, partial, rest = transport
        sequence = sequence + index * (self.size - self.head) & 0xFFFFFFFF
        flags = (flags & ~CWR if index else flags) | ending
        return self._layout.pack(
            *network, ends, sequence, acknowledgement, flags, window, (partial + more) % 0xFFFF, rest
        )
