"""TCP port 1723 of this host, for the calls of punched peers.

Several listeners at one port share its callers out among themselves by chance, and what a filter then drops is lost for
good: the caller repeats its SYN to the same one. So all who await a peer's mirrored handshake do that at one listener;
and where this process serves ordinary PPTP at the same place, at that server's, which hands over the calls meant here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address

from grepunch.config import Profile
from grepunch.io.errors import HostError
from grepunch.io.simultaneous import Connection, Listener, adopt
from grepunch.io.streams import Stream
from pptp.value import value
from pptp.wire.control import TCP_PORT

_EVERYWHERE = IPv4Address(0)

Taker = Callable[[Connection], None]


@value
class _Awaited:
    address: IPv4Address
    taker: Taker


class Entrance:
    """One of a process. ``served``: an ordinary server listens at this port of every address, and asks :meth:`take`."""

    def __init__(self, *, served: bool = False, port: int = TCP_PORT) -> None:
        self._served = served
        self._port = port
        self._awaited: dict[str, _Awaited] = {}
        self._listener: Listener | None = None

    @classmethod
    def of(cls, profile: Profile) -> Entrance:
        """As the profile's server leaves it."""
        listeners = profile.listen.tcp if profile.listen is not None else ()
        return cls(served=any((one.address, one.port) == (_EVERYWHERE, TCP_PORT) for one in listeners))

    def expect(self, name: str, address: IPv4Address, taker: Taker) -> None:
        """Whoever calls from ``address`` is ``taker``'s, until :meth:`forget`.

        Raises :class:`Refused`, and then nobody is awaited.
        """
        self._awaited[name] = _Awaited(address, taker)
        if self._served:
            return
        try:
            self._listen()
        except HostError:
            del self._awaited[name]
            raise

    def forget(self, name: str) -> None:
        """The peer of this name is awaited no longer; harmless where it was not."""
        if self._awaited.pop(name, None) is not None and not self._served:
            self._listen()

    def take(self, stream: Stream) -> bool:
        """Hand a connection over that a server has accepted; False where nobody awaits it, and it is the server's."""
        taker = self._taker(stream.ends.remote)
        if taker is None:
            return False
        try:
            connection = adopt(stream.detach())
        except OSError:  # no descriptor is left: the peer calls again
            return True
        taker(connection)
        return True

    def _taker(self, source: IPv4Address) -> Taker | None:
        return next((one.taker for one in self._awaited.values() if one.address == source), None)

    def _listen(self) -> None:
        """Open the listener, close it, or change whom it hears."""
        addresses = {one.address for one in self._awaited.values()}
        if self._listener is not None and addresses:
            self._listener.hear(addresses)
        elif self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        elif addresses:
            self._listener = Listener(addresses, self._port)
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._called)

    def _called(self) -> None:
        accepted = self._listener.accept() if self._listener is not None else None
        if accepted is None:
            return
        source, connection = accepted
        taker = self._taker(source)
        if taker is not None:
            taker(connection)
        else:
            connection.close()
