"""From the TUN device to the wire: cut, seal into the send slots, hand over in batches.

A wake-up takes packets until the device has no more or ``SLOTS`` frames are made, and then sends what it has: a
single packet waits for nothing.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import IPPROTO_TCP, IPPROTO_UDP
from typing import Generic, TypeVar

from grepunch.io.engine.batches import SLOT_SIZE, SLOTS, GreBatches, Lane
from grepunch.io.engine.checksum import TCP_CHECKSUM, UDP_CHECKSUM, ChecksumPlace, complete, completed
from grepunch.io.engine.ports import Carrier, Device, Traffic
from grepunch.io.engine.segmenting import PREFIX, header_end, segments
from grepunch.io.engine.virtio import HEADER, NEEDS_CSUM
from grepunch.io.grefilter import GRE_PROTOCOL_PPP, GRE_V0_FLAGS, GRE_V1_FLAGS
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
_PACKET = HEADER.size  # where an IP packet begins in the read buffer
_BUFFER = _PACKET + 0xFFFF + 1
_IPV4_SIZE, _IPV6_SIZE = 20, 40

# The header of virtio, and of IPv4: version and header length, fragment (in the host's order), protocol, destination.
_START = struct.Struct("=BBHHHHB5xHxB6x4s")
_FRAGMENT_MASK = int.from_bytes(b"\x3f\xff", sys.byteorder)
_IPV6_NEXT_HEADER = _PACKET + 6
_IPV6_DESTINATION = slice(_PACKET + 24, _PACKET + 40)
_CHECKSUM_OFFSETS = {IPPROTO_TCP: TCP_CHECKSUM, IPPROTO_UDP: UDP_CHECKSUM}

# GRE (RFC 2637 section 4.1, RFC 2784 section 2) and the header of the sealed frame behind it
_V1 = struct.Struct("!HHHHIHIQ")
_V0 = struct.Struct("!HHHIQ")
_SEALED_AT = _V1.size - SEALED_HEADER  # in a slot, in both forms
_SEALED_MORE = SEALED_HEADER + AEAD_TAG
_LARGEST_PLAINTEXT = SLOT_SIZE - _V1.size - AEAD_TAG

# ours: sizes whose views a slot remembers; a transfer has two or three
_REMEMBERED_SIZES = 8


@dataclass(slots=True, eq=False)
class _Route(Generic[TrafficT]):
    """What sealing for one peer needs, compiled; good while the peer has this place and these keys."""

    traffic: TrafficT
    carrier: Carrier
    pair: SealedPair
    lane: Lane | None  # None: the relay
    overhead: int
    frames: int = field(default=0)


class Outbound(Generic[TrafficT]):
    """See the module."""

    def __init__(
        self,
        batches: GreBatches,
        device: Device,
        owner_of: Callable[[bytes], TrafficT | None],
        relay: Callable[[TrafficT, bytes], bool],
        drops: Counter[Drop],
    ) -> None:
        """``owner_of`` says whose an inner destination is; ``relay`` has a frame relayed; ``drops`` counts what is
        nobody's."""
        self._batches = batches
        self._ring = batches.outgoing
        self._device = device
        self._owner_of = owner_of
        self._relay = relay
        self._drops = drops
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._routes: dict[str, _Route[TrafficT]] = {}
        self._owners: list[tuple[TrafficT, int] | None] = [None] * SLOTS
        starts = [slot * SLOT_SIZE + _SEALED_AT for slot in range(SLOTS)]
        self._headers = [self._ring.view[at : at + SEALED_HEADER] for at in starts]
        self._outs: list[dict[int, memoryview]] = [{} for _ in range(SLOTS)]
        self._touched: list[TrafficT] = []
        self._frames = 0

    def run(self) -> list[TrafficT]:
        """One wake-up; the peers that something was sent to."""
        self._frames = 0
        read_into, buffer = self._device.read_into, self._buffer
        for _ in range(SLOTS):
            size = read_into(buffer)
            if not size:
                break
            self._packet(size)
            if self._frames >= SLOTS:
                break
        self._flush()
        touched, self._touched = self._touched, []
        return touched

    def _packet(self, end: int) -> None:
        """Whatever the buffer holds, up to ``end``."""
        flags, gso_type, _, size, start, offset, first, fragment, kind, destination = _START.unpack_from(self._buffer)
        if first >> 4 == 4 and end >= _PACKET + _IPV4_SIZE:
            protocol = _IPV4
            direct = start == (first & 0x0F) * 4 and not fragment & _FRAGMENT_MASK
        elif first >> 4 == 6 and end >= _PACKET + _IPV6_SIZE:
            protocol, destination = _IPV6, bytes(self._view[_IPV6_DESTINATION])
            kind, direct = self._buffer[_IPV6_NEXT_HEADER], start == _IPV6_SIZE
        else:
            self._drops[Drop.MALFORMED] += 1
            return
        traffic = self._owner_of(destination)
        if traffic is None:
            self._drops[Drop.NO_ROUTE] += 1
            return
        route = self._find_route(traffic)
        if route is None or protocol not in traffic.machine.networks:
            traffic.drops[Drop.WRONG_PHASE] += 1
            return
        place = ChecksumPlace(start, offset) if flags & NEEDS_CSUM else None
        elided = place is not None and direct and offset == _CHECKSUM_OFFSETS.get(kind) and route.pair.elides
        prefix = INNER_HEADER.pack(FLAG_CHECKSUM_ELIDED if elided else 0, protocol)
        if gso_type:
            self._train(route, end, gso_type, size, place, elided, prefix)
            return
        if end - _PACKET + PREFIX > _LARGEST_PLAINTEXT:
            traffic.drops[Drop.TOO_BIG] += 1
            return
        if place is not None and not elided:
            if _PACKET + start + offset + 2 > end:
                traffic.drops[Drop.MALFORMED] += 1
                return
            complete(self._view[_PACKET:end], place)
        self._buffer[_PACKET - PREFIX : _PACKET] = prefix
        self._seal(route, _PACKET - PREFIX, end)
        if traffic.tap is not None:
            self._show(traffic, protocol, _PACKET, end, place if elided else None)

    def _train(
        self,
        route: _Route[TrafficT],
        end: int,
        gso_type: int,
        size: int,
        place: ChecksumPlace | None,
        elided: bool,
        prefix: bytes,
    ) -> None:
        """A train of segments, each with ``size`` octets of payload."""
        traffic, buffer = route.traffic, self._buffer
        header = header_end(buffer, _PACKET, end, gso_type, place) if place is not None else None
        if place is None or header is None or not 0 < size <= _LARGEST_PLAINTEXT - PREFIX - header:
            traffic.drops[Drop.MALFORMED] += 1
            return
        cut = segments(buffer, _PACKET, end, place=place, header=header, size=size, prefix=prefix)
        for at, stop in cut:
            if not elided:
                complete(self._view[at + PREFIX : stop], place)
            self._seal(route, at, stop)
            if traffic.tap is not None:
                protocol = int.from_bytes(prefix[1:], "big")
                self._show(traffic, protocol, at + PREFIX, stop, place if elided else None)

    def _seal(self, route: _Route[TrafficT], at: int, end: int) -> None:
        """Seal a plaintext of the read buffer into the next slot."""
        pair, lane = route.pair, route.lane
        if lane is None:
            self._seal_for_relay(route, at, end)
            return
        ring = self._ring
        slot = ring.count
        if slot == SLOTS:
            self._flush()
            slot = 0
        size = end - at
        counter = pair.sent_frames
        pair.sent_frames = counter + 1
        if lane.start:
            _V0.pack_into(
                ring.memory, slot * SLOT_SIZE + lane.start, GRE_V0_FLAGS, GRE_PROTOCOL_PPP,
                ENCRYPTED_PROTOCOL, pair.remote_index, counter,
            )  # fmt: skip
            length = _V0.size + size + AEAD_TAG
        else:
            destination = lane.destination
            sequence = destination.sequence
            destination.sequence = sequence + 1 & 0xFFFFFFFF
            _V1.pack_into(
                ring.memory, slot * SLOT_SIZE, GRE_V1_FLAGS, GRE_PROTOCOL_PPP, size + _SEALED_MORE, 0, sequence,
                ENCRYPTED_PROTOCOL, pair.remote_index, counter,
            )  # fmt: skip
            length = _V1.size + size + AEAD_TAG
        outs = self._outs[slot]
        out = outs.get(size)
        if out is None:
            out = self._make_out(slot, size)
        pair.seal_into(counter.to_bytes(NONCE_SIZE, "big"), self._view[at:end], self._headers[slot], out)
        ring.put(lane, length)
        self._frames += 1
        traffic = route.traffic
        self._owners[slot] = (traffic, size - PREFIX)
        traffic.tx_packets += 1
        traffic.tx_bytes += size - PREFIX
        if size + route.overhead > traffic.largest:
            if not traffic.largest:
                self._touched.append(traffic)
            traffic.largest = size + route.overhead

    def _seal_for_relay(self, route: _Route[TrafficT], at: int, end: int) -> None:
        """Seal a plaintext of the read buffer into a frame of its own, and hand it to the relay."""
        flags, protocol = INNER_HEADER.unpack_from(self._buffer, at)
        traffic = route.traffic
        self._frames += 1
        if self._relay(traffic, route.pair.seal(protocol, bytes(self._view[at + PREFIX : end]), flags)):
            traffic.tx_packets += 1
            traffic.tx_bytes += end - at - PREFIX
        else:
            traffic.drops[Drop.QUEUE_FULL] += 1

    def _make_out(self, slot: int, size: int) -> memoryview:
        outs = self._outs[slot]
        if len(outs) >= _REMEMBERED_SIZES:
            outs.clear()
        start = slot * SLOT_SIZE + _V1.size
        out = outs[size] = self._ring.view[start : start + size + AEAD_TAG]
        return out

    def _find_route(self, traffic: TrafficT) -> _Route[TrafficT] | None:
        machine = traffic.machine
        carrier, pair = machine.carrier, machine.sending_pair
        if carrier is None or pair is None:
            return None
        route = self._routes.get(traffic.name)
        if route is None or route.carrier is not carrier or route.pair is not pair:
            lane, overhead = None, 0
            if not isinstance(carrier, Way):
                lane = self._batches.lane(carrier)
                overhead = _IPV4_SIZE + AEAD_TAG + (_V1.size if carrier[1] is Form.V1 else _V0.size)
            route = self._routes[traffic.name] = _Route(traffic, carrier, pair, lane, overhead)
        return route

    def _flush(self) -> None:
        if not self._ring.count:
            return
        for slot in self._batches.flush():
            owner = self._owners[slot]
            if owner is not None:
                traffic, size = owner
                traffic.drops[Drop.QUEUE_FULL] += 1
                traffic.tx_packets -= 1
                traffic.tx_bytes -= size

    def _show(self, traffic: TrafficT, protocol: int, at: int, end: int, elided: ChecksumPlace | None) -> None:
        """Tell a capture of the inside what was sent, whole."""
        if traffic.tap is not None:
            packet = self._view[at:end]
            traffic.tap(protocol, bytes(packet) if elided is None else completed(packet, elided), True)
