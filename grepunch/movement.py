"""Notices that this host has moved or slept, so that paths are looked after at once and not after a silence.

Moved: packets to a peer or a rendezvous take another way than before, from another address, through another interface
or by another next hop. Other changes of the network (a container starts, our own tunnel gets its routes) are none of
ours. Slept: the clock that counts suspend is ahead of the event loop's.

The endpoint makes one, enters it inside its event loop, and calls :meth:`Movement.tick` a few times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Self

from grepunch.io.netwatch import NetworkWatch, way_to
from grepunch.io.rtnetlink import WayOut

# ours, because a change of network is a handful of messages within milliseconds
SETTLING = 0.05
# ours: a loop that was merely busy is late by less
SLEPT = 2.0


class Movement:
    """See the module. ``destinations`` are the outer addresses that matter now; ``moved`` and ``slept`` are called."""

    def __init__(
        self,
        destinations: Callable[[], Iterable[IPv4Address]],
        *,
        moved: Callable[[], None],
        slept: Callable[[], None],
        now: Callable[[], float],
        look: Callable[[IPv4Address], WayOut | None] = way_to,
    ) -> None:
        self._destinations = destinations
        self._moved = moved
        self._slept = slept
        self._now = now
        self._look = look
        self._ways: dict[IPv4Address, WayOut | None] = {}
        self._ticked_at = now()
        self._pending: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._watch = NetworkWatch()
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._changed)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._watch.fileno())
        self._watch.close()
        if self._pending is not None:
            self._pending.cancel()

    def tick(self) -> None:
        """Time has passed: remember the ways to new destinations, and see whether the host slept meanwhile."""
        late = self._now() - self._ticked_at > SLEPT
        self._ticked_at = self._now()
        if late:
            self._slept()
            self.look_again()
        else:
            self._remember()

    def look_again(self) -> None:
        """Something may have changed: tell when a way has, and also when there is none to judge by."""
        self._pending = None
        before, self._ways = self._ways, {}
        self._remember()
        known = [destination for destination in before if destination in self._ways]
        if not known or any(before[d] != self._ways[d] and self._ways[d] is not None for d in known):
            self._moved()
        # What has no way now is still compared with the way it had when it gets one again.
        self._ways.update({d: before[d] for d in known if self._ways[d] is None})

    def _remember(self) -> None:
        wanted = set(self._destinations())
        self._ways = {d: self._ways[d] if d in self._ways else self._look(d) for d in wanted}

    def _changed(self) -> None:
        self._watch.drain()
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_later(SETTLING, self.look_again)
