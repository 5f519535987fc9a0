"""From the TUN device to the wire: cut, seal into the send slots, hand over in batches.

A batch is single packets until the device has no more or ``SLOTS`` frames are made, and a train or a few short ones;
then it is sent. A single packet waits for nothing: neither for the question whether it is the only one, nor for the
long trains that came before it.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from socket import IPPROTO_TCP, IPPROTO_UDP
from typing import Generic, TypeVar

from grepunch.io.engine.backlog import BUFFER_SIZE, PACKET, Backlog, flow_of
from grepunch.io.engine.batches import SLOT_SIZE, SLOTS, GreBatches, Lane
from grepunch.io.engine.checksum import TCP_CHECKSUM, UDP_CHECKSUM, ChecksumPlace, complete, completed
from grepunch.io.engine.ports import Carrier, Device, Traffic
from grepunch.io.engine.segmenting import PREFIX, header_end, segments
from grepunch.io.engine.virtio import NEEDS_CSUM
from grepunch.io.grefilter import GRE_PROTOCOL_PPP, GRE_V0_FLAGS, GRE_V1_FLAGS
from grepunch.io.rawgre import Destination
from grepunch.ports import Form, Way
from pptp.crypto.aead import NONCE_SIZE
from pptp.datapath import SealedPair
from pptp.errors import Drop
from pptp.mtu import AEAD_TAG, SEALED_HEADER
from pptp.wire.ppp import Protocol
from pptp.wire.sealed import ENCRYPTED_PROTOCOL, FLAG_CHECKSUM_ELIDED, INNER_HEADER

TrafficT = TypeVar("TrafficT", bound=Traffic)

_IPV4 = int(Protocol.IPV4)
_IPV6 = int(Protocol.IPV6)
_GSO_TYPE = 1  # where virtio's header says whether this is a train
_IPV4_SIZE, _IPV6_SIZE = 20, 40

# The header of virtio, and of IPv4: version and header length, fragment (in the host's order), protocol, destination.
_START = struct.Struct("=BBHHHHB5xHxB6x4s")
_FRAGMENT_MASK = int.from_bytes(b"\x3f\xff", sys.byteorder)
_IPV4_DESTINATION = slice(PACKET + 16, PACKET + 20)
_IPV6_NEXT_HEADER = PACKET + 6
_IPV6_DESTINATION = slice(PACKET + 24, PACKET + 40)
_CHECKSUM_OFFSETS = {IPPROTO_TCP: TCP_CHECKSUM, IPPROTO_UDP: UDP_CHECKSUM}

# GRE (RFC 2637 section 4.1) and the header of the sealed frame behind it. The plain form (RFC 2784 section 2) has its
# whole header where the sequence number would be: the lane says where in the slot it begins.
_HEADERS = struct.Struct("!HHHHIHIQ")
_V0_HEADER = GRE_V0_FLAGS << 16 | GRE_PROTOCOL_PPP
_SEALED_AT = _HEADERS.size - SEALED_HEADER
_SEALED_MORE = SEALED_HEADER + AEAD_TAG
_LARGEST_PLAINTEXT = SLOT_SIZE - _HEADERS.size - AEAD_TAG
_PLAIN_IPV4 = 0x45  # version 4, no options
_WHOLE = {protocol: INNER_HEADER.pack(0, protocol) for protocol in (_IPV4, _IPV6)}
_ELIDED = {protocol: INNER_HEADER.pack(FLAG_CHECKSUM_ELIDED, protocol) for protocol in (_IPV4, _IPV6)}

# ours: about a millisecond's reading; what drops for longer than that in one go sends nothing meanwhile
_MOST_DROPS = 50

# ours: more than that without a pause in between are no packets one by one
_MOST_ALONE = 3

# ours, in segments: so many of trains, and then it is the other direction's turn, where a ping's answer may wait. Under
# four TCP streams a ping takes 5.2 ms with 64, 3.0 with 32 and 2.4 with 16 (579, 563 and 550 Mbit/s)
_TURN = 24

# ours, in octets: cut and sealed in a tenth of a millisecond
SHORT_TRAIN = 8192

# ours: sizes whose views a slot remembers; a transfer has two or three
_REMEMBERED_SIZES = 8


@dataclass(slots=True, eq=False)
class _Route(Generic[TrafficT]):
    """What sealing for one peer needs, compiled; good while the peer has this carrier and these keys.

    ``more`` is what the ring's packet has beyond the plaintext, ``outer`` what the packet on the wire has.
    """

    traffic: TrafficT
    carrier: Carrier
    pair: SealedPair
    lane: Lane | None  # None: the relay
    more: int
    outer: int


class Outbound(Generic[TrafficT]):
    """See the module."""

    def __init__(
        self,
        batches: GreBatches,
        device: Device,
        owner_of: Callable[[bytes], TrafficT | None],
        relay: Callable[[TrafficT, bytes], bool],
        drops: Counter[Drop],
        backlog: Backlog,
    ) -> None:
        """``owner_of`` says whose an inner destination is; ``relay`` has a frame relayed; ``drops`` counts what is
        nobody's."""
        self._batches = batches
        self._ring = batches.outgoing
        self._device = device
        self._owner_of = owner_of
        self._relay = relay
        self._drops = drops
        self._backlog = backlog
        self._empty = bytearray(BUFFER_SIZE)  # to read into
        self._use(self._empty)
        self._routes: dict[str, _Route[TrafficT]] = {}
        self._route: _Route[TrafficT] | None = None  # of the plaintext that is being sealed
        # where the last packet went: inner destination, way, lane, and the latter's numbers if its form has any
        self._latest: tuple[bytes, _Route[TrafficT], Lane, Destination | None] | None = None
        self._left_alone = _MOST_ALONE  # how many packets until the next pause may go each on its own
        self._owners: list[_Route[TrafficT] | None] = [None] * SLOTS
        starts = [slot * SLOT_SIZE + _SEALED_AT for slot in range(SLOTS)]
        self._headers = [self._ring.view[at : at + SEALED_HEADER] for at in starts]
        self._outs: list[dict[int, memoryview]] = [{} for _ in range(SLOTS)]
        self._touched: list[TrafficT] = []

    def pause(self) -> None:
        """There is nothing more to take at the moment: what comes next may be single."""
        self._left_alone = _MOST_ALONE

    def review(self) -> None:
        """A peer's machine has been called: forget the last packet's way if the next has another."""
        if self._latest is not None:
            destination, route, *_ = self._latest
            machine = route.traffic.machine
            if (
                machine.carrier is not route.carrier
                or machine.sending_pair is not route.pair
                or _IPV4 not in machine.networks
                or self._owner_of(destination) is not route.traffic
            ):
                self._latest = None

    def take_touched(self) -> list[TrafficT]:
        """Drain the peers that something was sent to; their ``largest`` is the caller's to clear."""
        touched, self._touched = self._touched, []
        return touched

    def run(self) -> None:
        """Send one batch; after a pause, each of the first packets or the first short train at once."""
        if not self._left_alone or self._backlog.waiting:
            self._batch(0, at_once=False)
            return
        end = self._device.read_into(self._empty)
        if not end:
            return
        self._left_alone -= 1
        if not self._alone(end):
            self._left_alone = 0
            self._batch(end, at_once=True)

    def _alone(self, end: int) -> bool:
        """Send the packet just read, if it is one like the last, in as few steps as can be: after a pause every line
        and every object has to come from memory first. False, with nothing done: it is for :meth:`_batch`."""
        latest, buffer = self._latest, self._empty
        if latest is None:
            return False
        flags, gso_type, _, _, start, offset, first, fragment, kind, destination = _START.unpack_from(buffer)
        known, route, lane, numbers = latest
        size = end - PACKET + PREFIX
        if (
            gso_type
            or first != _PLAIN_IPV4
            or destination != known
            or not PREFIX + _IPV4_SIZE <= size <= _LARGEST_PLAINTEXT
        ):
            return False
        pair, traffic, elided = route.pair, route.traffic, flags & NEEDS_CSUM
        if elided:
            plain = start == _IPV4_SIZE and not fragment & _FRAGMENT_MASK and offset == _CHECKSUM_OFFSETS.get(kind)
            if not plain or not pair.elides:
                return False
        if traffic.tap is not None:
            return False
        buffer[PACKET - PREFIX : PACKET] = (_ELIDED if elided else _WHOLE)[_IPV4]
        if buffer is not self._buffer:
            self._use(buffer)
        ring, counter, call_id, sequence = self._ring, pair.sent_frames, 0, _V0_HEADER
        pair.sent_frames = counter + 1  # a counter is never used twice
        if numbers is not None:
            call_id, sequence = numbers.call_id, numbers.sequence
            numbers.sequence = sequence + 1 & 0xFFFFFFFF
        _HEADERS.pack_into(
            ring.memory, 0, GRE_V1_FLAGS, GRE_PROTOCOL_PPP, size + _SEALED_MORE, call_id, sequence,
            ENCRYPTED_PROTOCOL, pair.remote_index, counter,
        )  # fmt: skip
        out = self._outs[0].get(size)
        if out is None:
            out = self._make_out(0, size)
        pair.seal_into(counter.to_bytes(NONCE_SIZE, "big"), self._view[PACKET - PREFIX : end], self._headers[0], out)
        ring.lengths[0] = size + route.more
        if ring.lanes[0] is not lane:
            ring.direct(0, lane)
        self._owners[0] = route
        ring.count = 1
        if not self._batches.flush_one():
            self._flush()
        self._count(route, 1, size, size)
        return True

    def _batch(self, end: int, *, at_once: bool) -> None:
        """Send one batch, beginning with the packet that ends at ``end`` of what was read, if that is not 0."""
        ring, owners = self._ring, self._owners
        memory, lengths, lanes, headers, all_outs = ring.memory, ring.lengths, ring.lanes, self._headers, self._outs
        pack_into = _HEADERS.pack_into
        route: _Route[TrafficT] | None = None
        frames = octets = largest = counter = call_id = sequence = step = 0
        try:
            for at, stop in self._plaintexts(end, at_once=at_once):
                if route is None or route is not self._route:
                    self._leave(route, frames, octets, largest, counter, sequence)
                    route = self._route
                    if route is None:
                        raise ValueError("a plaintext for nobody")
                    frames = octets = largest = 0
                    pair, lane, more = route.pair, route.lane, route.more
                    seal_into, index, counter = pair.seal_into, pair.remote_index, pair.sent_frames
                    sequence, step = _V0_HEADER, 0
                    if lane is not None and lane.form is Form.V1:
                        call_id, sequence, step = lane.destination.call_id, lane.destination.sequence, 1
                if lane is None:
                    self._seal_for_relay(route, at, stop)
                    continue
                slot = ring.count
                if slot == SLOTS:
                    self._flush()
                    slot = 0
                size = stop - at
                pack_into(
                    memory, slot * SLOT_SIZE, GRE_V1_FLAGS, GRE_PROTOCOL_PPP, size + _SEALED_MORE, call_id, sequence,
                    ENCRYPTED_PROTOCOL, index, counter,
                )  # fmt: skip
                out = all_outs[slot].get(size)
                if out is None:
                    out = self._make_out(slot, size)
                seal_into(counter.to_bytes(NONCE_SIZE, "big"), self._view[at:stop], headers[slot], out)
                counter += 1
                sequence = sequence + step & 0xFFFFFFFF
                lengths[slot] = size + more
                if lanes[slot] is not lane:
                    ring.direct(slot, lane)
                owners[slot] = route
                ring.count = slot + 1
                frames += 1
                octets += size
                if size > largest:
                    largest = size
        finally:
            self._leave(route, frames, octets, largest, counter, sequence)  # a counter is never used twice
        self._flush()
        self._backlog.announce()

    def _leave(
        self, route: _Route[TrafficT] | None, frames: int, octets: int, largest: int, counter: int, sequence: int
    ) -> None:
        """Note what was sealed for a peer."""
        if route is None or not frames:
            return
        route.pair.sent_frames = counter
        if route.lane is not None and route.lane.form is Form.V1:
            route.lane.destination.sequence = sequence
        self._count(route, frames, octets, largest)

    def _count(self, route: _Route[TrafficT], frames: int, octets: int, largest: int) -> None:
        """Note what was sealed for a peer: how many plaintexts, their octets, and the largest."""
        traffic = route.traffic
        traffic.tx_packets += frames
        traffic.tx_bytes += octets - PREFIX * frames
        if not traffic.largest:
            self._touched.append(traffic)
        traffic.largest = max(traffic.largest, largest + route.outer)

    def _seal_for_relay(self, route: _Route[TrafficT], at: int, end: int) -> None:
        """Seal a plaintext of the read buffer into a frame of its own, and hand it to the relay."""
        flags, protocol = INNER_HEADER.unpack_from(self._buffer, at)
        traffic = route.traffic
        if self._relay(traffic, route.pair.seal(protocol, bytes(self._view[at + PREFIX : end]), flags)):
            traffic.tx_packets += 1
            traffic.tx_bytes += end - at - PREFIX
        else:
            traffic.drops[Drop.QUEUE_FULL] += 1

    def _plaintexts(self, first_end: int, *, at_once: bool) -> Iterator[tuple[int, int]]:
        """What there is to send, as plaintexts in ``_buffer``, each good until the next is asked for.

        ``_route`` says whom each is for. First what is single on the device, then a train, and so in turn until there
        is no more, or enough for one batch. ``first_end``, if not 0: the first has been read already, and ends there.
        """
        read_into, unpack_from = self._device.read_into, _START.unpack_from
        backlog, waiting = self._backlog, self._backlog.waiting
        route: _Route[TrafficT] | None = None
        last_destination, elides, tap = b"", False, None
        taken = dropped = 0
        reading, single, served = True, False, False
        while True:
            if reading:
                buffer = self._empty
                end, first_end = first_end or read_into(buffer), 0
                if not end:
                    reading = False
                    continue
                long = buffer[_GSO_TYPE] and (waiting or not at_once or end > SHORT_TRAIN)
                if long or (waiting and backlog.holds(flow_of(buffer))):
                    if not self._keep(buffer, end):
                        dropped += 1
                        reading = dropped < _MOST_DROPS
                    continue
                single = True
            elif not waiting or (taken >= _TURN and served):
                return
            else:
                if single:
                    self._flush()
                single, served = False, True
                buffer, end, _ = backlog.take()
                backlog.spare(buffer)  # it is not asked for before the next reading
            if buffer is not self._buffer:
                self._use(buffer)
            taken += 1
            reading = taken < SLOTS
            flags, gso_type, _, size, start, offset, first, fragment, kind, destination = unpack_from(buffer)
            if first >> 4 == 4 and end >= PACKET + _IPV4_SIZE:
                protocol = _IPV4
                direct = start == (first & 0x0F) * 4 and not fragment & _FRAGMENT_MASK
            elif first >> 4 == 6 and end >= PACKET + _IPV6_SIZE:
                protocol, destination = _IPV6, bytes(self._view[_IPV6_DESTINATION])
                kind, direct = buffer[_IPV6_NEXT_HEADER], start == _IPV6_SIZE
            else:
                self._drops[Drop.MALFORMED] += 1
                continue
            if route is None or destination != last_destination:
                route = self._find_route(destination, protocol)
                if route is None:
                    continue
                self._route, last_destination, elides, tap = route, destination, route.pair.elides, route.traffic.tap
                lane = route.lane
                if lane is not None and protocol == _IPV4:
                    numbers = lane.destination if lane.form is Form.V1 else None
                    self._latest = destination, route, lane, numbers
            elided = flags & NEEDS_CSUM and direct and elides and offset == _CHECKSUM_OFFSETS.get(kind)
            if gso_type:
                cut = self._cut(route, end, gso_type, size, ChecksumPlace(start, offset), elided=bool(elided))
                for at, stop in cut:
                    taken += 1
                    yield at, stop
                if at_once and not served:
                    return
                reading = taken < _TURN
                continue
            if end - PACKET + PREFIX > _LARGEST_PLAINTEXT:
                route.traffic.drops[Drop.TOO_BIG] += 1
            elif elided and tap is None:
                buffer[PACKET - PREFIX : PACKET] = _ELIDED[protocol]
                yield PACKET - PREFIX, end
            elif self._make_whole(route, end, flags, ChecksumPlace(start, offset), elided=bool(elided)):
                yield PACKET - PREFIX, end
            if at_once:
                return

    def _use(self, buffer: bytearray) -> None:
        """Plaintexts are in this one from now on."""
        self._buffer, self._view = buffer, memoryview(buffer)

    def _keep(self, buffer: bytearray, end: int) -> bool:
        """Put a train, or what is behind one, aside; False where there is no room, and it is dropped and counted."""
        empty = self._backlog.put(buffer, end, flow_of(buffer))
        if empty is not None:
            self._empty = empty
            return True
        at = _IPV4_DESTINATION if buffer[PACKET] >> 4 == 4 else _IPV6_DESTINATION
        traffic = self._owner_of(bytes(buffer[at]))
        (self._drops if traffic is None else traffic.drops)[Drop.QUEUE_FULL] += 1
        return False

    def _make_whole(self, route: _Route[TrafficT], end: int, flags: int, place: ChecksumPlace, *, elided: bool) -> bool:
        """Finish a single packet in the read buffer; False, counted, where it cannot be."""
        buffer = self._buffer
        protocol = _IPV4 if buffer[PACKET] >> 4 == 4 else _IPV6
        if flags & NEEDS_CSUM and not elided:
            if PACKET + place.start + place.offset + 2 > end:
                route.traffic.drops[Drop.MALFORMED] += 1
                return False
            complete(self._view[PACKET:end], place)
        buffer[PACKET - PREFIX : PACKET] = (_ELIDED if elided else _WHOLE)[protocol]
        self._show(route, PACKET, end, place if elided else None)
        return True

    def _cut(
        self, route: _Route[TrafficT], end: int, gso_type: int, size: int, place: ChecksumPlace, *, elided: bool
    ) -> Iterator[tuple[int, int]]:
        """The segments of a train in the read buffer, each with ``size`` octets of payload."""
        buffer = self._buffer
        header = header_end(buffer, PACKET, end, gso_type, place) if buffer[0] & NEEDS_CSUM else None
        if header is None or not 0 < size <= _LARGEST_PLAINTEXT - PREFIX - header:
            route.traffic.drops[Drop.MALFORMED] += 1
            return iter(())
        protocol = _IPV4 if buffer[PACKET] >> 4 == 4 else _IPV6
        prefix = (_ELIDED if elided else _WHOLE)[protocol]
        cut = segments(buffer, PACKET, end, place=place, header=header, size=size, prefix=prefix)
        if elided and route.traffic.tap is None:
            return cut
        return self._finished(route, cut, place, elided=elided)

    def _finished(
        self, route: _Route[TrafficT], cut: Iterator[tuple[int, int]], place: ChecksumPlace, *, elided: bool
    ) -> Iterator[tuple[int, int]]:
        """The same segments, with their checksums made where they are not elided, and shown to a capture."""
        for at, stop in cut:
            if not elided:
                complete(self._view[at + PREFIX : stop], place)
            self._show(route, at + PREFIX, stop, place if elided else None)
            yield at, stop

    def _show(self, route: _Route[TrafficT], at: int, end: int, elided: ChecksumPlace | None) -> None:
        """Tell a capture of the inside what is sent, whole."""
        if route.traffic.tap is not None:
            packet = self._view[at:end]
            protocol = _IPV4 if packet[0] >> 4 == 4 else _IPV6
            route.traffic.tap(protocol, bytes(packet) if elided is None else completed(packet, elided), True)

    def _find_route(self, destination: bytes, protocol: int) -> _Route[TrafficT] | None:
        """The way to an inner destination; None, counted, where there is none now."""
        traffic = self._owner_of(destination)
        if traffic is None:
            self._drops[Drop.NO_ROUTE] += 1
            return None
        machine = traffic.machine
        carrier, pair = machine.carrier, machine.sending_pair
        if carrier is None or pair is None or protocol not in machine.networks:
            traffic.drops[Drop.WRONG_PHASE] += 1
            return None
        route = self._routes.get(traffic.name)
        if route is None or route.carrier is not carrier or route.pair is not pair:
            lane = None if isinstance(carrier, Way) else self._batches.lane(carrier)
            more = _HEADERS.size + AEAD_TAG - (lane.start if lane is not None else 0)
            route = self._routes[traffic.name] = _Route(traffic, carrier, pair, lane, more, more + _IPV4_SIZE)
        return route

    def _make_out(self, slot: int, size: int) -> memoryview:
        outs = self._outs[slot]
        if len(outs) >= _REMEMBERED_SIZES:
            outs.clear()
        start = slot * SLOT_SIZE + _HEADERS.size
        out = outs[size] = self._ring.view[start : start + size + AEAD_TAG]
        return out

    def _flush(self) -> None:
        """Send what is in the ring."""
        if not self._ring.count:
            return
        for slot in self._batches.flush():
            route = self._owners[slot]
            if route is not None:
                traffic = route.traffic
                traffic.drops[Drop.QUEUE_FULL] += 1
                traffic.tx_packets -= 1
                traffic.tx_bytes -= self._ring.lengths[slot] - route.more - PREFIX
