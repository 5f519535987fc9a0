"""The relayed frames that wait for one connection: few, and none of them old.

A relay is a tunnel inside a TCP connection. What waits there waits behind everything else, and TCP inside the tunnel
takes seconds of waiting for seconds of distance. So frames wait here and not in the socket, at most
:data:`LONGEST` of them for at most :data:`OLDEST`; the oldest is dropped. The kernel is asked to keep at most
:data:`UNSENT` octets that are not on their way yet. Used by both ends of a rendezvous connection.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable

from websockets.asyncio.connection import Connection
from websockets.asyncio.server import broadcast

# ours
LONGEST = 64  # frames
OLDEST = 0.2  # seconds a frame may wait; TCP inside makes do with what comes after it
UNSENT = 32_768  # octets the kernel may hold back: 13 ms at 20 Mbit/s, and a write for every dozen frames
LOOK_AGAIN = 0.004  # seconds until the socket is looked at again while frames wait


class FrameQueue:
    """One connection's frames, from its opening to :meth:`close`. ``dropped`` counts those that never left."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self.dropped = 0
        self._connection = connection
        self._clock = clock
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._poll = select.poll()
        sock: socket.socket | None = connection.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
            self._poll.register(sock.fileno(), select.POLLOUT)

    def send(self, message: bytes) -> None:
        """Send now or soon, or drop what has waited longest."""
        if not self._waiting and self._takes():
            broadcast([self._connection], message)  # the library's way to send from a place that cannot wait
            return
        if len(self._waiting) >= LONGEST:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((self._clock() + OLDEST, message))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look)

    def close(self) -> None:
        """The connection is over; what waited is lost."""
        self.dropped += len(self._waiting)
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _takes(self) -> bool:
        """Whether the socket would put a frame on its way: nothing waits before it in this process or the kernel."""
        transport = self._connection.transport
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        return bool(self._poll.poll(0))

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.popleft()
            self.dropped += 1
        while self._waiting and self._takes():
            broadcast([self._connection], self._waiting.popleft()[1])
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look)
