"""From the relay to the TUN device: frames come one at a time, and go into the device as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from grepunch.io.engine.checksum import completed, find
from grepunch.io.engine.ports import Device, Traffic
from grepunch.io.engine.virtio import GSO_NONE, HEADER, NEEDS_CSUM
from grepunch.ports import RELAY
from pptp.datapath import SealedPair
from pptp.errors import Drop, DropError, WireError
from pptp.wire.ppp import Protocol
from pptp.wire.sealed import is_sealed, receiver_index

TrafficT = TypeVar("TrafficT", bound=Traffic)

_NETWORK = frozenset({int(Protocol.IPV4), int(Protocol.IPV6)})
_WHOLE = HEADER.pack(0, GSO_NONE, 0, 0, 0, 0)


class Relayed(Generic[TrafficT]):
    """See the module; the arguments are those of the engine."""

    def __init__(
        self,
        device: Device,
        *,
        find_pair: Callable[[int], tuple[TrafficT, SealedPair] | None],
        refusal: Callable[[TrafficT, int, memoryview], Drop | None],
        now: Callable[[], float],
        drops: Counter[Drop],
    ) -> None:
        self._device = device
        self._find_pair = find_pair
        self._refusal = refusal
        self._now = now
        self._drops = drops

    def take(self, traffic: TrafficT, frame: bytes) -> bool:
        """A frame of this peer's mailbox; True when the peer's machine was called, and may have something to send."""
        machine = traffic.machine
        if not machine.relay.takes:
            traffic.drops[Drop.NOT_ALLOWED] += 1
            return False
        try:
            found = self._find_pair(receiver_index(frame)) if is_sealed(frame) else None
            if found is None or found[0] is not traffic:  # a server that mixes mailboxes mixes no peers
                self._drops[Drop.UNKNOWN_SESSION] += 1
                return False
            pair = found[1]
            protocol, data, flags = pair.open(frame)
        except WireError:
            self._drops[Drop.MALFORMED] += 1
            return False
        except DropError:
            return False  # counted by the pair
        if protocol not in _NETWORK:
            machine.receive_opened(pair, protocol, bytes(data), RELAY, self._now())
            return True
        ordinary = machine.settled_on(pair, RELAY)
        if ordinary:
            machine.relay.heard(self._now())
        elif not machine.receive_opened(pair, protocol, b"", RELAY, self._now()):
            return True
        self._write(traffic, protocol, data, elided=flags != 0)
        return not ordinary

    def _write(self, traffic: TrafficT, protocol: int, data: bytes, *, elided: bool) -> None:
        cause = self._refusal(traffic, protocol, memoryview(data))
        place = find(data) if elided else None
        if cause is None and elided and place is None:
            cause = Drop.MALFORMED
        if cause is not None:
            traffic.drops[cause] += 1
            return
        if traffic.tap is not None:
            traffic.tap(protocol, data if place is None else completed(data, place), False)
        header = _WHOLE if place is None else HEADER.pack(NEEDS_CSUM, GSO_NONE, 0, 0, *place)
        if self._device.write((memoryview(header + data),)):
            traffic.rx_packets += 1
            traffic.rx_bytes += len(data)
        else:
            traffic.drops[Drop.QUEUE_FULL] += 1
