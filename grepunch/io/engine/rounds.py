"""The loop under load: asyncio is woken once, and then both directions are served in turn while there is anything.

A round through asyncio costs about as much as ten packets. So it waits for one descriptor, an epoll of its own with
the socket and the device in it, and a wake-up goes on for several rounds. It ends when nothing is left, or soon
enough for timers, the rendezvous and everything else that waits.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping

# ours: up to 16 batches each way, a few milliseconds
MOST_ROUNDS = 16


class Rounds:
    """Register :meth:`fileno` with the event loop for reading, and :meth:`run` as what it calls."""

    def __init__(self, readers: Mapping[int, Callable[[], None]]) -> None:
        """``readers``: what takes in something, by descriptor; served in this order."""
        self._readers = dict(readers)
        self._epoll = select.epoll()
        for descriptor in self._readers:
            self._epoll.register(descriptor, select.EPOLLIN)

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._epoll.fileno()

    def run(self) -> None:
        """Serve whoever has something, until nobody has."""
        poll, readers = self._epoll.poll, self._readers
        for _ in range(MOST_ROUNDS):
            ready = poll(0)
            if not ready:
                return
            for descriptor, _event in ready:
                readers[descriptor]()

    def close(self) -> None:
        """Watch nothing any more; harmless when it is closed."""
        self._epoll.close()
