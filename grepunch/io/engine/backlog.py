"""What waits on the way out: trains of segments, each of which takes as long to seal as fifty packets.

The device gives them in the order of their making, and so a ping would wait behind all that a transfer has in flight.
Here it does not: the loop takes everything off the device, sends what is single at once, and keeps the trains, which
get their turns in between. Within one flow nothing overtakes anything. What finds no room is dropped, as the device
does when its own queue is full; that is how TCP learns of its share.
"""

from __future__ import annotations

import os
from collections import deque
from typing import NamedTuple

from grepunch.io.engine.virtio import HEADER

PACKET = HEADER.size  # where an IP packet begins in a buffer, behind virtio's header
BUFFER_SIZE = PACKET + 0xFFFF + 1

# ours, in octets: four TCP streams through a pair of endpoints make 532 Mbit/s and a ping 3.9 ms with 16 trains of any
# length, 567 and 4.6 with 640 KiB, 578 and 4.5 with 768, 571 and 5.8 with 1024 (medians of 7 rounds); the more there
# is room for, the longer the trains become, and those are cheap
MOST_WAITING = 786_432
# ours, in octets: to copy that much costs less than the room that a whole buffer takes
_COPIED = 16_384
_COPIED_AT_LEAST = PACKET + 60  # a header is looked at before the length is

# addresses, and the ports where a header of the usual length is before them
_FLOW_IPV4 = slice(PACKET + 12, PACKET + 24)
_FLOW_IPV6 = slice(PACKET + 8, PACKET + 44)


class Waiting(NamedTuple):
    """A train, or a packet behind one, in a buffer of its own; it ends at ``end``."""

    buffer: bytearray
    end: int
    flow: bytes


def flow_of(buffer: bytearray) -> bytes:
    """What tells flows apart: packets of one flow have it in common, and of two hardly ever."""
    return bytes(buffer[_FLOW_IPV4 if buffer[PACKET] >> 4 == 4 else _FLOW_IPV6])


class Backlog:
    """See the module. Its descriptor is readable while it is :meth:`announced <announce>` to hold something."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self._octets = 0
        self._flows: dict[bytes, int] = {}
        self._spare: list[bytearray] = []
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._announced = False

    def fileno(self) -> int:
        """The descriptor, for whoever serves it."""
        return self._event

    def close(self) -> None:
        """Close the descriptor; harmless when it is closed."""
        if self._event >= 0:
            os.close(self._event)
            self._event = -1

    def __del__(self) -> None:
        self.close()

    def holds(self, flow: bytes) -> bool:
        """Whether something of this flow waits."""
        return flow in self._flows

    def put(self, buffer: bytearray, end: int, flow: bytes) -> bytearray | None:
        """Keep what is in ``buffer``, and give one to read into; None, with nothing kept, when there is no room."""
        if self._octets + end > MOST_WAITING:
            return None
        self._octets += end
        self._flows[flow] = self._flows.get(flow, 0) + 1
        if end <= _COPIED:
            self.waiting.append(Waiting(buffer[: max(end, _COPIED_AT_LEAST)], end, flow))
            return buffer
        self.waiting.append(Waiting(buffer, end, flow))
        return self._spare.pop() if self._spare else bytearray(BUFFER_SIZE)

    def take(self) -> Waiting:
        """Take out what has waited longest. Its buffer is to be given back to :meth:`spare`."""
        one = self.waiting.popleft()
        self._octets -= one.end
        left = self._flows[one.flow] - 1
        if left:
            self._flows[one.flow] = left
        else:
            del self._flows[one.flow]
        return one

    def spare(self, buffer: bytearray) -> None:
        """This one is free again."""
        if len(buffer) == BUFFER_SIZE:
            self._spare.append(buffer)

    def announce(self) -> None:
        """Let the descriptor say whether anything waits."""
        waits = bool(self.waiting)
        if waits is not self._announced:
            self._announced = waits
            if waits:
                os.eventfd_write(self._event, 1)
            else:
                os.eventfd_read(self._event)
