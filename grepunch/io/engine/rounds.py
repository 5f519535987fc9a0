"""The loop under load: it is woken once, and then both directions are served in turn while there is anything.

A round through asyncio costs about as much as ten packets. So a wake-up goes on for several rounds. It ends when
nothing is left, or soon enough for timers, the rendezvous and everything else that waits. What has to be noted of the
packets is noted then, and not between a packet and its answer.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping

# ours: up to 16 batches each way, a few milliseconds
MOST_ROUNDS = 16


class Rounds:
    """What takes in packets, by descriptor. :class:`grepunch.io.packetloop.PacketLoop` knows what to do with it; for
    any other event loop there is :meth:`fileno`, to be watched for reading, and :meth:`run`."""

    def __init__(
        self,
        readers: Mapping[int, Callable[[], None]],
        *,
        pause: Callable[[], None] = lambda: None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        """``readers`` by descriptor, one maybe for several; where there is something for more than one, they are served
        in this order. ``pause`` is called when there is nothing more at the moment, ``settle`` at the end of a wake-up.
        """
        self.readers = dict(readers)
        self.pause = pause
        self.settle = settle
        self._epoll = select.epoll()
        for descriptor in self.readers:
            self._epoll.register(descriptor, select.EPOLLIN)

    def fileno(self) -> int:
        """A descriptor that is readable while any of them is."""
        return self._epoll.fileno()

    def run(self) -> None:
        """Serve whoever has something, until nobody has."""
        poll, readers = self._epoll.poll, self.readers
        for _ in range(MOST_ROUNDS):
            ready = dict(poll(0))
            if not ready:
                break
            for reader in dict.fromkeys(reader for descriptor, reader in readers.items() if descriptor in ready):
                reader()
        self.pause()
        self.settle()

    def close(self) -> None:
        """Watch nothing any more; harmless when it is closed."""
        self._epoll.close()
