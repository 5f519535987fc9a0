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

# ours: up to a megabyte. Four TCP streams through a pair of endpoints make 574 Mbit/s and a ping 6.7 ms with 16 of
# them, 560 and 8.5 ms with 32, and 513 and 20 ms in the device's order (medians of 6 rounds on a busy machine).
MOST_WAITING = 16

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
        """Keep what is in ``buffer``, and give another to read into; None, with nothing kept, when it is full."""
        if len(self.waiting) >= MOST_WAITING:
            return None
        self.waiting.append(Waiting(buffer, end, flow))
        self._flows[flow] = self._flows.get(flow, 0) + 1
        return self._spare.pop() if self._spare else bytearray(BUFFER_SIZE)

    def take(self) -> Waiting:
        """Take out what has waited longest. Its buffer is to be given back to :meth:`spare`."""
        one = self.waiting.popleft()
        left = self._flows[one.flow] - 1
        if left:
            self._flows[one.flow] = left
        else:
            del self._flows[one.flow]
        return one

    def spare(self, buffer: bytearray) -> None:
        """This one is free again."""
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
