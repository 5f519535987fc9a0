"""The GRE echo server's runner: a raw socket, a small PPTP port, and the WebSocket connections of those who probe.

Created by the rendezvous server where it was asked for. It needs CAP_NET_RAW.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from ipaddress import IPv4Address

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from grepunch.io import clock
from grepunch.io.echo_calls import CallPort
from grepunch.io.echogre import EchoGre
from grepunch.io.meeting_link import send_or_drop
from grepunch.nat.echo import Answer, Dismissed, EchoDesk, Told


class EchoService:
    """See the module; :meth:`open` before the first connection, :meth:`close` at the end."""

    def __init__(self) -> None:
        self._gre = EchoGre()
        self.desk = EchoDesk(entropy=clock.entropy, now=clock.now())
        self._connections: dict[int, ServerConnection] = {}
        self._ids = itertools.count(1)
        self._calls = CallPort(self.desk.knows, self._placed)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, hosts: Sequence[str]) -> None:
        """Listen for calls on these addresses; raises :class:`~grepunch.io.errors.HostError`."""
        await self._calls.open(hosts)
        asyncio.get_running_loop().add_reader(self._gre.fileno(), self._gre_readable)

    def close(self) -> None:
        """Stop listening and answering."""
        self._calls.close()
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self._gre.fileno())
        self._gre.close()

    async def serve(self, connection: ServerConnection, address: IPv4Address, port: int) -> None:
        """The life of one client's connection; ``port`` 0 where it is not the client's own."""
        number = next(self._ids)
        self._connections[number] = connection
        self.desk.connect(number, address, port, clock.now())
        self._flush()
        try:
            while True:
                message = await connection.recv()
                self.desk.receive(number, message if isinstance(message, str) else "", clock.now())
                self._flush()
        except ConnectionClosed:
            pass  # the ordinary end
        finally:
            del self._connections[number]
            self.desk.disconnect(number)

    def _placed(self, identifier: int, source: IPv4Address, call_id: int, given: int) -> bool:
        placed = self.desk.call_placed(identifier, source, call_id, given)
        self._flush()
        return placed

    # -- the one exit -----------------------------------------------------------------------------------------

    def _gre_readable(self) -> None:
        for source, local, packet in self._gre.receive():
            self.desk.receive_gre(source, local, packet, clock.now())
        self._flush()

    def _flush(self) -> None:
        for item in self.desk.transmits():
            match item:
                case Answer(source=source, destination=destination, packet=packet):
                    self._gre.send(destination, packet, source)
                case Told(client=client, text=text):
                    connection = self._connections.get(client)
                    if connection is not None:
                        send_or_drop(connection, text)
                case Dismissed(client=client):
                    connection = self._connections.get(client)
                    if connection is not None:
                        closing = asyncio.get_running_loop().create_task(connection.close(1008))
                        self._tasks.add(closing)
                        closing.add_done_callback(self._tasks.discard)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.desk.deadline()
        if deadline is not None:
            delay = max(0.0, deadline - clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self.desk.handle_timeout(clock.now())
        self._flush()
