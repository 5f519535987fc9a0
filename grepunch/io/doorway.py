"""The listening sockets of the rendezvous server, with a limit to those who have entered and not yet said what for.

The broker's limits begin with a whole WebSocket handshake. What comes before, TLS and an HTTP request, can be held up
by anybody for as long as the server is patient; here is counted how many do so, in all and from one source.
"""

from __future__ import annotations

import socket
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Address = tuple[Any, ...]  # as the socket module has it: host, port and, for IPv6, two more


@dataclass(slots=True)
class _Entered:
    connection: socket.socket
    source: object
    at: float


class Doorway:
    """Counts the unfinished handshakes of all listeners.

    ``source_of`` says what counts as one source, None for those who vouch for others: only the limit in all is theirs.
    Whoever would go over ``per_source`` is sent away. Who comes when there are ``in_all`` pushes the oldest out: an
    honest handshake is over in a second or two. ``patience``: after so many seconds nobody is unfinished any more.
    """

    def __init__(
        self,
        source_of: Callable[[str], object | None],
        now: Callable[[], float],
        *,
        in_all: int,
        per_source: int,
        patience: float,
    ) -> None:
        self._source_of = source_of
        self._now = now
        self._in_all, self._per_source, self._patience = in_all, per_source, patience
        self._entered: OrderedDict[Address, _Entered] = OrderedDict()
        self._sources: Counter[object] = Counter()

    @property
    def unfinished(self) -> int:
        """How many are counted."""
        return len(self._entered)

    def listen(self, addresses: list[tuple[int, Address]], backlog: int) -> list[socket.socket]:
        """A listening socket for each (family, address); raises :class:`OSError`, and then leaves none open."""
        doors: list[socket.socket] = []
        try:
            for family, address in addresses:
                door = _Door(family, self)
                doors.append(door)
                door.bind(address)
                door.listen(backlog)
        except OSError:
            for opened in doors:
                opened.close()
            raise
        return doors

    def enter(self, connection: socket.socket, address: Address) -> bool:
        """Somebody has connected; False: send him away."""
        now = self._now()
        while self._entered and now - next(iter(self._entered.values())).at >= self._patience:
            self._forget(next(iter(self._entered)))
        source = self._source_of(str(address[0]))
        if source is not None and self._sources[source] >= self._per_source:
            return False
        if len(self._entered) >= self._in_all:
            with suppress(OSError):  # it has closed by itself
                self._forget(next(iter(self._entered))).shutdown(socket.SHUT_RDWR)
        self.finished(address)  # the same port again: the earlier connection is gone
        self._entered[address[:2]] = _Entered(connection, source, now)
        self._sources[source] += 1
        return True

    def finished(self, address: Address) -> None:
        """The handshake from this address has come to its end; harmless where none is counted."""
        if address[:2] in self._entered:
            self._forget(address[:2])

    def _forget(self, key: Address) -> socket.socket:
        entered = self._entered.pop(key)
        self._sources[entered.source] -= 1
        if not self._sources[entered.source]:
            del self._sources[entered.source]
        return entered.connection


class _Door(socket.socket):
    """A listening socket that asks the doorway about everyone; asyncio takes the refusal for a connection aborted."""

    def __init__(self, family: int, doorway: Doorway) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._doorway = doorway
        self.setblocking(False)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

    def accept(self) -> tuple[socket.socket, Address]:
        connection, address = super().accept()
        if not self._doorway.enter(connection, address):
            connection.close()
            raise ConnectionAbortedError
        return connection, address
