"""An event loop that serves packets before anything else.

asyncio takes three steps from a readable descriptor to its reader: an entry in a queue, a look at all timers, a call in
a context. After a pause each of them is cold, and together they are as long as all else that a single packet needs. So
the selector of this loop calls the reader of packets itself, as soon as the kernel says that there are any. Everything
else is asyncio's as ever, and has its turn after each wake-up.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable

from grepunch.io.engine.rounds import Rounds
from pptp.value import value


@value
class _Packets:
    """What a descriptor of packets is registered with, where asyncio has its own."""

    serve: Callable[[int], None]
    failed: Callable[[Exception], None]


class _Selector(selectors.EpollSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        others, served = [], None
        for ready in super().select(timeout):
            key = ready[0]
            if type(key.data) is not _Packets:
                others.append(ready)
                continue
            if key.data is served:  # it has looked at all its descriptors
                continue
            served = key.data
            try:
                key.data.serve(key.fd)
            except Exception as error:  # as asyncio does with what a callback raises
                key.data.failed(error)
        return others


class PacketLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._packets = _Selector()
        super().__init__(self._packets)

    def serve(self, rounds: Rounds) -> None:
        """Let ``rounds`` take in packets until :meth:`leave`. What it raises goes to the exception handler."""
        packets = _Packets(rounds.serve, self._failed)
        for descriptor in rounds.descriptors:
            self._packets.register(descriptor, selectors.EVENT_READ, packets)

    def leave(self, rounds: Rounds) -> None:
        """Call it no more."""
        for descriptor in rounds.descriptors:
            self._packets.unregister(descriptor)

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
