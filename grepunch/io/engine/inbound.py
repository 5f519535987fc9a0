"""From the wire to the TUN device: take in a batch, open it, put segments together, write.

What does not decide itself at a glance (a frame of PPP or control, a frame from another source, keys seen for the
first time) goes to the peer's machine, in the order of arrival.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from grepunch.io.engine.batches import SLOT_SIZE, SLOTS, GreBatches
from grepunch.io.engine.checksum import ChecksumPlace, completed, find
from grepunch.io.engine.coalescing import Train, begin
from grepunch.io.engine.ports import Device, Place, Traffic
from grepunch.io.engine.segmenting import PREFIX
from grepunch.io.engine.virtio import GSO_NONE, HEADER, NEEDS_CSUM
from grepunch.io.rawgre import locate_frame
from grepunch.io.rawsocket import SocketDrop, WireTap
from grepunch.ports import Form, GreFrame
from pptp.datapath import SealedPair
from pptp.errors import Drop, WireError
from pptp.mtu import AEAD_TAG, GRE_V0_HEADER, GRE_V1_HEADER, IPV4_HEADER, SEALED_HEADER
from pptp.wire.ppp import Protocol
from pptp.wire.sealed import (
    ENCRYPTED_PROTOCOL,
    FLAG_CHECKSUM_ELIDED,
    INNER_HEADER,
    SMALLEST_FRAME,
    is_sealed,
    parse_header,
)

TrafficT = TypeVar("TrafficT", bound=Traffic)


class _Layout(NamedTuple):
    """How an ordinary packet of one form is divided: IPv4 without options, GRE, the header of the sealed frame.

    Version and header length, total length, *source to GRE's protocol type*, GRE's payload length, *PPP protocol and
    receiver index*, counter. The plain form has no payload length: there it is the PPP protocol.
    """

    header: struct.Struct
    start: int  # of the sealed frame
    enhanced: bool


_V1 = _Layout(struct.Struct("!BxH8x12sH6x6sQ"), IPV4_HEADER + GRE_V1_HEADER, enhanced=True)
_V0 = _Layout(struct.Struct("!BxH8x12sH4sQ"), IPV4_HEADER + GRE_V0_HEADER, enhanced=False)
_PLAIN_IPV4 = 0x45  # version 4, no options
_INNER_SOURCE = slice(12, 16)
_SEALED_MORE = SEALED_HEADER + AEAD_TAG
_LARGEST_FRAME = SLOT_SIZE - _V1.start

_IPV4 = int(Protocol.IPV4)
_NETWORK = frozenset({_IPV4, int(Protocol.IPV6)})
_Cut = tuple[memoryview, memoryview, memoryview]
_PLAINTEXT = 16  # where a plaintext begins in its slot: there is room for what `Train.finish` writes before it
_REMEMBERED_SIZES = 8  # ours: as on the way out


@dataclass(frozen=True, slots=True, eq=False)
class _Origin(Generic[TrafficT]):
    """Whose frames are that come with this index from this source in this form, found once for many of a batch.

    ``ordinary``: they tell the peer's machine nothing new about keys or path.
    """

    traffic: TrafficT
    pair: SealedPair
    place: Place
    ordinary: bool


class _Known(NamedTuple, Generic[TrafficT]):
    """What is known of the last packet, an inner IPv4 one that was let in, and so of the next if that is like it."""

    origin: _Origin[TrafficT]
    layout: _Layout
    flow: bytes  # as the layout has it
    key: bytes
    source: bytes
    header: memoryview  # the inner one


class Inbound(Generic[TrafficT]):
    """See the module."""

    def __init__(
        self,
        batches: GreBatches,
        device: Device,
        *,
        find_pair: Callable[[int], tuple[TrafficT, SealedPair] | None],
        clear_frame: Callable[[GreFrame], None],
        refusal: Callable[[TrafficT, int, memoryview], Drop | None],
        settled: Callable[[TrafficT], None],
        news: Callable[[], None],
        now: Callable[[], float],
        drops: Counter[Drop],
    ) -> None:
        """``find_pair`` gives peer and keys of a receiver index, ``clear_frame`` takes what is not sealed, ``refusal``
        says why an authentic packet is not let in, ``drops`` counts what is nobody's. After a batch ``settled`` is
        called for each peer whose machine was, and ``news`` when the socket has told of an error."""
        self._raw = batches.raw
        self._ring = batches.incoming
        self._device = device
        self._find_pair = find_pair
        self._clear_frame = clear_frame
        self._refusal = refusal
        self._settled = settled
        self._news = news
        self._now = now
        self._drops = drops
        self._plain = bytearray(SLOTS * SLOT_SIZE + _PLAINTEXT)
        self._view = memoryview(self._plain)
        self._cuts: list[dict[int, _Cut]] = [{} for _ in range(SLOTS)]
        self._train: Train | None = None
        self._train_origin: _Origin[TrafficT] | None = None
        self._touched: list[TrafficT] = []
        self._called: dict[str, TrafficT] = {}
        self._latest: _Known[TrafficT] | None = None
        # of the last IPv4 packet let in: origin and inner header
        self._admitted: tuple[_Origin[TrafficT], bytes] | None = None
        self._single = False  # nothing was taken since the last pause, and one packet at most since the one before
        self._since_pause = 0

    def pause(self) -> None:
        """There is nothing more to take at the moment: what comes next may be single, if it was so before."""
        self._single, self._since_pause = self._since_pause <= 1, 0

    def review(self) -> None:
        """A peer's machine has been called: forget the last packet's origin if the next like it tells something new,
        or is not to be let in."""
        if self._latest is None:
            return
        origin, header = self._latest.origin, self._latest.header
        if (
            not origin.traffic.machine.settled_on(origin.pair, origin.place)
            or self._refusal(origin.traffic, _IPV4, header) is not None
        ):
            self._latest = None

    def take_touched(self) -> list[TrafficT]:
        """Drain the peers that authentic frames came from; their ``touched`` is the caller's to clear."""
        touched, self._touched = self._touched, []
        return touched

    def run(self) -> None:
        """Take in one batch; after a pause, where packets come one by one, one."""
        ring, single, self._single = self._ring, self._single, False
        count = ring.receive_one() if single else ring.receive()
        if count:
            if self._raw.tap is not None:
                self._record(self._raw.tap, count)
            self._raw.received += count
            self._since_pause += count
            if count > 1 or not self._alone(ring.sizes[0]):
                self._take(count)
                self._flush()
        if self._called:
            called = tuple(self._called.values())
            self._called.clear()
            for traffic in called:
                self._settled(traffic)
        if ring.errors:
            ring.errors = False
            self._news()

    def _alone(self, size: int) -> bool:
        """Let in the packet in the first slot if it is one like the last, in as few steps as can be: after a pause
        every line and every object has to come from memory first. False: it is for :meth:`_take`."""
        latest = self._latest
        if latest is None:
            return False
        origin, layout, known_flow, known_key, source, _ = latest
        first, total, flow, announced, key, counter = layout.header.unpack_from(self._ring.memory)
        length = size - layout.start
        if (
            flow != known_flow
            or key != known_key
            or first != _PLAIN_IPV4
            or total != size
            or announced != (length if layout.enhanced else ENCRYPTED_PROTOCOL)
            or not SMALLEST_FRAME + IPV4_HEADER <= length <= _LARGEST_FRAME
        ):
            return False
        cut = self._cuts[0].get(layout.start << 16 | length)
        if cut is None:
            cut = self._cut(0, layout.start, length)
        if origin.pair.open_into(counter, *cut) is not None:
            return True  # counted by the pair
        packet, traffic = cut[2][PREFIX:], origin.traffic
        flags, protocol = INNER_HEADER.unpack_from(self._plain, _PLAINTEXT)
        place = find(packet) if flags else None
        if (
            protocol != _IPV4
            or packet[0] != _PLAIN_IPV4
            or packet[_INNER_SOURCE] != source
            or traffic.tap is not None
            or (flags and (place is None or flags != FLAG_CHECKSUM_ELIDED or not origin.pair.elides))
        ):
            self._opened(origin, _PLAINTEXT, _PLAINTEXT + length - _SEALED_MORE)
            self._flush()
            return True
        self._write(traffic, _PLAINTEXT + PREFIX, _PLAINTEXT + length - _SEALED_MORE, place)
        if not traffic.touched:
            traffic.touched = True
            self._touched.append(traffic)
        traffic.heard = True
        return True

    def _take(self, count: int) -> None:
        """Open a batch. What goes on the train is dealt with here, everything else in :meth:`_opened`."""
        memory, sizes, plain, all_cuts = self._ring.memory, self._ring.sizes, self._view, self._cuts
        from_bytes = int.from_bytes
        layout = _V1
        unpack_from, start, enhanced = layout.header.unpack_from, layout.start, layout.enhanced
        origin = train_origin = None
        last_flow = last_key = b""
        train_length = head = expected = step = room = 0
        parts: list[memoryview] = []
        self._latest = self._admitted = None
        for slot in range(count):
            base, size = slot * SLOT_SIZE, sizes[slot]
            first, total, flow, announced, key, counter = unpack_from(memory, base)
            length = size - start
            if (
                origin is None
                or flow != last_flow
                or key != last_key
                or first != _PLAIN_IPV4
                or total != size
                or announced != (length if enhanced else ENCRYPTED_PROTOCOL)
                or not SMALLEST_FRAME <= length <= _LARGEST_FRAME
            ):
                found = self._find(base, size)
                if found is None:
                    origin = None  # a machine may have been called
                    continue
                origin, frame_start, length, counter = found
                layout = _V1 if origin.place[1] is Form.V1 else _V0
                unpack_from, start, enhanced = layout.header.unpack_from, layout.start, layout.enhanced
                _, _, last_flow, _, last_key, _ = unpack_from(memory, base)
                if frame_start != start:
                    last_flow = b""  # the next one like it has to be looked at like this one
            else:
                frame_start = start
            cut = all_cuts[slot].get(frame_start << 16 | length)
            if cut is None:
                cut = self._cut(slot, frame_start, length)
            if origin.pair.open_into(counter, *cut) is not None:
                continue  # counted by the pair
            at = base + _PLAINTEXT
            if length == train_length and room and origin is train_origin:
                header = from_bytes(plain[at : at + head], "big")
                if header == expected:
                    expected = header + step
                    room -= 1
                    parts.append(plain[at + head : at + length - _SEALED_MORE])
                    continue
            if not self._opened(origin, at, at + length - _SEALED_MORE):
                origin = None
            train, train_origin, train_length = self._train, self._train_origin, 0
            if train is not None and not train.closed:
                train_length, head, expected, step = train.size + _SEALED_MORE, train.head, train.expected, train.step
                parts, room = train.parts, train.most - len(train.parts)
        if self._admitted is not None and self._admitted[0] is origin and origin.ordinary:
            header = self._admitted[1]
            self._latest = _Known(origin, layout, last_flow, last_key, header[_INNER_SOURCE], memoryview(header))

    def _opened(self, origin: _Origin[TrafficT], at: int, end: int) -> bool:
        """An authentic frame, decrypted to ``at``. False: the peer's machine was called, and may have changed."""
        traffic, pair = origin.traffic, origin.pair
        if not traffic.touched:
            traffic.touched = True
            self._touched.append(traffic)
        flags, protocol = INNER_HEADER.unpack_from(self._plain, at)
        if flags and pair.refuses(flags, protocol):
            return True
        if protocol not in _NETWORK:
            data = bytes(self._view[at + PREFIX : end])
            self._called[traffic.name] = traffic
            traffic.machine.receive_opened(pair, protocol, data, origin.place, self._now())
            return False
        if origin.ordinary:
            traffic.heard = True
        else:
            self._called[traffic.name] = traffic
            if not traffic.machine.receive_opened(pair, protocol, b"", origin.place, self._now()):
                return False
        if self._train is not None:
            if self._train_origin is origin and self._train.take(at, end):
                return True
            self._flush()
        self._packet(origin, at, end, protocol, elided=flags != 0)
        return origin.ordinary

    def _packet(self, origin: _Origin[TrafficT], at: int, end: int, protocol: int, *, elided: bool) -> None:
        """A packet that goes on no train: let it in, or begin one with it."""
        traffic, start = origin.traffic, at + PREFIX
        packet = self._view[start:end]
        cause = self._refusal(traffic, protocol, packet)
        place = find(packet) if elided else None
        if cause is None and elided and place is None:
            cause = Drop.MALFORMED
        if cause is not None:
            traffic.drops[cause] += 1
            return
        if protocol == _IPV4:
            self._admitted = origin, bytes(packet[:IPV4_HEADER])
        if traffic.tap is not None:
            traffic.tap(protocol, bytes(packet) if place is None else completed(packet, place), False)
        elif place is not None and origin.ordinary:
            train = begin(self._plain, self._view, at, end, place, udp=self._device.udp)
            if train is not None:
                self._train, self._train_origin = train, origin
                return
        self._write(traffic, start, end, place)

    def _write(self, traffic: TrafficT, start: int, end: int, place: ChecksumPlace | None) -> None:
        """Hand the kernel a packet that goes on no train; with ``place`` its checksum is the kernel's to make."""
        if place is None:
            HEADER.pack_into(self._plain, start - HEADER.size, 0, GSO_NONE, 0, 0, 0, 0)
        else:
            HEADER.pack_into(self._plain, start - HEADER.size, NEEDS_CSUM, GSO_NONE, 0, 0, *place)
        if self._device.write((self._view[start - HEADER.size : end],)):
            traffic.rx_packets += 1
            traffic.rx_bytes += end - start
        else:
            traffic.drops[Drop.QUEUE_FULL] += 1

    def _flush(self) -> None:
        """Write the open train."""
        train, origin = self._train, self._train_origin
        if train is None or origin is None:
            return
        self._train = self._train_origin = None
        count = len(train.parts)
        if self._device.write(train.finish()):
            origin.traffic.rx_packets += count
            origin.traffic.rx_bytes += count * (train.head - PREFIX) + sum(map(len, train.parts))
        else:
            origin.traffic.drops[Drop.QUEUE_FULL] += count

    def _find(self, base: int, size: int) -> tuple[_Origin[TrafficT], int, int, int] | None:
        """Origin, start, length and counter of the sealed frame in the packet at ``base``; None where there is none.

        A clear frame is handed over, anything else counted.
        """
        if size > SLOT_SIZE:
            self._raw.drops[SocketDrop.TRUNCATED] += 1
            self._raw.received -= 1
            return None
        packet = self._ring.view[base : base + size]
        found = locate_frame(packet)
        if found is None:
            self._raw.drops[SocketDrop.MALFORMED] += 1
            self._raw.received -= 1
            return None
        source, form, start, end, ttl = found
        frame = packet[start:end]
        if not is_sealed(frame):
            self._clear_frame(GreFrame(self._raw.address(source), form, bytes(frame), ttl))
            return None
        try:
            index, counter = parse_header(frame)
        except WireError:
            self._drops[Drop.MALFORMED] += 1
            return None
        known = self._find_pair(index)
        if known is None:
            self._drops[Drop.UNKNOWN_SESSION] += 1
            return None
        traffic, pair = known
        place = (self._raw.address(source), form)
        origin = _Origin(traffic, pair, place, traffic.machine.settled_on(pair, place))
        return origin, start, end - start, counter

    def _cut(self, slot: int, start: int, length: int) -> _Cut:
        """Views of a sealed frame's header and ciphertext in its slot, and of where its plaintext goes."""
        cuts = self._cuts[slot]
        if len(cuts) >= _REMEMBERED_SIZES:
            cuts.clear()
        at, plain = slot * SLOT_SIZE + start, slot * SLOT_SIZE + _PLAINTEXT
        sealed = self._ring.view
        cut = cuts[start << 16 | length] = (
            sealed[at : at + SEALED_HEADER],
            sealed[at + SEALED_HEADER : at + length],
            self._view[plain : plain + length - _SEALED_MORE],
        )
        return cut

    def _record(self, tap: WireTap, count: int) -> None:
        for slot in range(count):
            base, size = slot * SLOT_SIZE, self._ring.sizes[slot]
            if size <= SLOT_SIZE:
                tap.received(bytes(self._ring.view[base : base + size]))
