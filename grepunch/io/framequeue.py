"""The relayed frames that wait for one connection: few, and none of them old.

A relay is a tunnel inside a TCP connection. What waits there waits behind everything else, and TCP inside the tunnel
takes seconds of waiting for seconds of distance. So frames wait here and not in the socket, at most
:data:`MOST_WAITING` octets of them for at most :data:`OLDEST`; the oldest are dropped. The kernel is asked to keep at
most :data:`UNSENT` octets that are not on their way yet. Used by both ends of a rendezvous connection.
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
MOST_WAITING = 1_048_576  # octets: 80 ms at 100 Mbit/s; at the usual rates what is older than 0.2 s is less
OLDEST = 0.2  # seconds a frame may wait; TCP inside makes do with what comes after it
UNSENT = 32_768  # octets the kernel may hold back: 13 ms at 20 Mbit/s
LOOK_AGAIN = 0.05  # seconds until frames that wait are looked through for old ones


class FrameQueue:
    """One connection's messages of frames, from its opening to :meth:`close`. ``dropped`` counts the frames that never
    left."""

    def __init__(self, connection: Connection, clock: Callable[[], float], count: Callable[[bytes], int]) -> None:
        """``count`` says how many frames a message carries."""
        self.dropped = 0
        self._count = count
        self._connection = connection
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._octets = 0
        self._timer: asyncio.TimerHandle | None = None
        self._poll = select.poll()
        self._descriptor = -1
        self._room: select.epoll | None = None
        sock: socket.socket | None = connection.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
            self._descriptor = sock.fileno()
            self._poll.register(self._descriptor, select.POLLOUT)

    def send(self, message: bytes) -> None:
        """Send now or soon, or drop what has waited longest."""
        if self._connection.transport.is_closing():  # its socket may be closed already
            self.dropped += self._count(message)
            return
        if not self._waiting and self._takes():
            broadcast([self._connection], message)  # the library's way to send from a place that cannot wait
            return
        while self._waiting and self._octets + len(message) > MOST_WAITING:
            self._drop()
        self._waiting.append((self._clock() + OLDEST, message))
        self._octets += len(message)
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_AGAIN, self._look)
            if self._descriptor >= 0:  # asyncio lets nobody else watch the sockets of its transports
                self._room = select.epoll()
                self._room.register(self._descriptor, select.EPOLLOUT)
                self._loop.add_reader(self._room.fileno(), self._drain)

    def close(self) -> None:
        """The connection is over; what waited is lost."""
        while self._waiting:
            self._drop()
        self._rest()

    def _takes(self) -> bool:
        """Whether the socket would put a message on its way: nothing waits before it in this process or the kernel."""
        transport = self._connection.transport
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        return bool(self._poll.poll(0))

    def _drop(self) -> None:
        _, message = self._waiting.popleft()
        self._octets -= len(message)
        self.dropped += self._count(message)

    def _drain(self) -> None:
        """The socket may take more."""
        while self._waiting and self._takes():
            _, message = self._waiting.popleft()
            self._octets -= len(message)
            broadcast([self._connection], message)
        if not self._waiting:
            self._rest()

    def _look(self) -> None:
        """Drop what is old."""
        now = self._clock()
        while self._waiting and self._waiting[0][0] <= now:
            self._drop()
        self._timer = self._loop.call_later(LOOK_AGAIN, self._look)
        self._drain()

    def _rest(self) -> None:
        """Nothing waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._room is not None:
            self._loop.remove_reader(self._room.fileno())
            self._room.close()
            self._room = None
