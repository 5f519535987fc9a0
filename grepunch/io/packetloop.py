"""An event loop that serves packets before anything else.

asyncio takes three steps from a readable descriptor to its reader: an entry in a queue, a look at all timers, a call in
a context. After a pause each of them is cold, and together they are as long as all else that a single packet needs. So
the selector of this loop calls the readers of packets itself, as soon as the kernel says that there are any, and comes
back to asyncio only when that has something to do: another descriptor is readable, a timer is due, or a reader has
called for it. What has to be noted of the packets is noted when nothing has come for a moment: an answer is often on
its way already, and who makes it may need this processor. Under load it is noted every few milliseconds.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import time
from collections.abc import Callable
from contextvars import Context
from itertools import count
from typing import TypeVarTuple

from grepunch.io.engine.rounds import Rounds

_Arguments = TypeVarTuple("_Arguments")

# ours, in seconds: how long nothing has to come, and how long something may go on coming. To sleep for less than the
# kernel's own tick takes the kernel longer than to send a packet.
LULL = 0.01
LONGEST_ROUNDS = 0.005


class _Selector(selectors.EpollSelector):
    """asyncio's selector, and beside it the descriptors of packets: all of them stand in an epoll of their own."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        super().__init__()
        self.summoned = False  # asyncio has something to do that it had not when it last asked
        self._failed = failed
        self._readers: dict[int, Callable[[], None]] = {}
        self._ranks: dict[int, int] = {}
        self._next_rank = count()
        self._rounds: list[Rounds] = []
        self._epoll = select.epoll()
        self._epoll.register(self.fileno(), select.EPOLLIN)
        self._poll = self._epoll.poll

    def serve(self, rounds: Rounds) -> None:
        self._rounds.append(rounds)
        for descriptor, reader in rounds.readers.items():
            self._readers[descriptor] = reader
            self._ranks[descriptor] = next(self._next_rank)
            self._epoll.register(descriptor, select.EPOLLIN)

    def leave(self, rounds: Rounds) -> None:
        self._rounds.remove(rounds)
        for descriptor in rounds.readers:
            del self._readers[descriptor], self._ranks[descriptor]
            self._epoll.unregister(descriptor)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._rounds:
            return super().select(timeout)
        self.summoned, due = False, None if timeout is None else time.monotonic() + timeout
        while True:
            ready = self._poll(timeout)
            if not ready:
                return []
            others = self._serve(ready, due)
            for rounds in self._rounds:
                try:
                    rounds.settle()
                except Exception as error:
                    self._failed(error)
            if others or self.summoned:
                return super().select(0) if others else []
            if due is not None:
                timeout = due - time.monotonic()
                if timeout <= 0:
                    return []

    def _serve(self, ready: list[tuple[int, int]], due: float | None) -> bool:
        """Call the readers of what is ready, and then of whatever else is, until nothing comes for a moment, or until
        asyncio has something to do; whether that is because one of its own descriptors is ready."""
        poll, clock, readers, others = self._poll, time.monotonic, self._readers, False
        until = clock() + LONGEST_ROUNDS
        while True:
            last = None
            if len(ready) > 1:
                ready.sort(key=self._rank)
            for descriptor, _event in ready:
                reader = readers.get(descriptor)
                if reader is None:
                    others = True
                elif reader is not last:
                    last = reader
                    try:
                        reader()
                    except Exception as error:  # as asyncio does with what a callback raises
                        self._failed(error)
            now = clock()
            if others or self.summoned or now >= until or (due is not None and now >= due):
                return others
            ready = poll(0)
            if not ready:
                for rounds in self._rounds:
                    rounds.pause()
                ready = poll(LULL if due is None or due - now > LULL else due - now)
                if not ready:
                    return False

    def _rank(self, ready: tuple[int, int]) -> int:
        return self._ranks.get(ready[0], -1)

    def close(self) -> None:
        self._epoll.close()
        super().close()


class PacketLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._packets = _Selector(self._failed)
        super().__init__(self._packets)

    def serve(self, rounds: Rounds) -> None:
        """Let ``rounds`` take in packets until :meth:`leave`. What it raises goes to the exception handler."""
        self._packets.serve(rounds)

    def leave(self, rounds: Rounds) -> None:
        """Call it no more."""
        self._packets.leave(rounds)

    def stop(self) -> None:
        """As any loop's."""
        self._packets.summoned = True
        super().stop()

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As any loop's."""
        self._packets.summoned = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As any loop's."""
        self._packets.summoned = True
        return super().call_at(when, callback, *args, context=context)

    def _failed(self, error: Exception) -> None:
        self.call_exception_handler({"message": "packets were not taken in", "exception": error})


def serve(rounds: Rounds) -> Callable[[], None]:
    """Have the running event loop, of whatever kind, serve ``rounds``; what to call for the end of it."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, PacketLoop):
        loop.serve(rounds)
        return lambda: loop.leave(rounds)
    loop.add_reader(rounds.fileno(), rounds.run)

    def leave() -> None:
        loop.remove_reader(rounds.fileno())

    return leave
