"""An ordinary server and its clients in one process, joined by fakes: no socket, no device, no privilege.

The machines, connections, tables and pumps are the real ones. Streams and GRE are queues that the event loop empties.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, cast

from grepunch.io.callgre import CallGre, Note, Sender, call_key
from grepunch.io.clock import entropy, now
from grepunch.io.streams import Ends, Stream
from grepunch.ordinary.calls import Call, CallPump, CallTable
from grepunch.ordinary.connection import Connection
from grepunch.ordinary.server import OrdinaryServer
from grepunch.ordinary.terms import dialling_terms
from grepunch.ordinary.users import User, write_users
from grepunch.progress import Event
from grepunch.recording import Recording
from pptp.errors import Terminated
from pptp.ordinary import Admission, CallOver, Ipv4Up, Ipv6Up, OrdinaryEvent
from tests.config.ordinary_profiles import CLIENT, SERVER
from tests.config.profiles import read

SERVER_ADDRESS = IPv4Address("192.0.2.10")
PASSWORD = "pässwörd"


@dataclass
class Heard:
    """A reporter that keeps what it is told."""

    told: list[Event] = field(default_factory=list)

    def report(self, event: Event) -> None:
        self.told.append(event)

    def finish(self, verdict: object) -> None:
        raise AssertionError("nobody ends here")


class FakeStream:
    """One end of a TCP connection. ``budget`` octets pass from here, then it is cut."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.user: Connection | None = None
        self.other: FakeStream
        self.budget: int | None = None
        self.closed = False

    def write(self, data: bytes) -> None:
        if self.closed or self.other.closed:
            return
        if self.budget is not None:
            data, self.budget = data[: self.budget], self.budget - len(data)
        if data:
            asyncio.get_running_loop().call_soon(self.other.arrive, data)
        if self.budget is not None and self.budget <= 0:
            asyncio.get_running_loop().call_soon(self.abort)

    def arrive(self, data: bytes) -> None:
        if not self.closed and self.user is not None:
            self.user.data_received(data)

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self.abort)

    def abort(self) -> None:
        for end in (self, self.other):
            if not end.closed:
                end.closed = True
                if end.user is not None:
                    end.user.stream_closed("")


class FakeGre:
    """One host's raw socket. ``budget`` packets leave it, then the connection's stream is cut."""

    def __init__(self, deliver: Callable[[bytes, bytes], None]) -> None:
        self.waiting: list[tuple[bytes, bytes]] = []
        self.queued: list[tuple[Callable[[bytes], bool], bytes]] = []
        self._deliver = deliver

    def sender(self, local: IPv4Address, remote: IPv4Address) -> Sender:
        return FakeSender(self, local, self._deliver)

    def receive(self) -> list[tuple[bytes, bytes]]:
        taken, self.waiting = self.waiting, []
        return taken

    def flush(self) -> list[Note]:
        queued, self.queued = self.queued, []
        for send, gre in queued:
            send(gre)
        return []


class FakeSender(Sender):
    """What is queued leaves with the flush."""

    def __init__(self, gre: FakeGre, local: IPv4Address, deliver: Callable[[bytes, bytes], None]) -> None:
        self._gre, self._local, self._deliver = gre, local, deliver

    def send(self, gre: bytes) -> bool:
        self._deliver(self._local.packed + gre[6:8], gre)
        return True

    def queue(self, gre: bytes, note: Note) -> None:
        self._gre.queued.append((self.send, gre))


@dataclass
class FakeInterface:
    """The device: what it was asked for, and what was written to it."""

    networks: tuple[IPv4Network, ...] = (IPv4Network("10.77.0.0/24"),)
    mtu: int = 1300
    routes: list[IPv4Network] = field(default_factory=list)
    identifiers: list[bytes] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)

    def add_routes(self, routes: tuple[IPv4Network, ...]) -> None:
        self.routes += routes

    def remove_routes(self, routes: tuple[IPv4Network, ...]) -> None:
        for route in routes:
            self.routes.remove(route)

    def add_identifier(self, identifier: bytes) -> None:
        self.identifiers.append(identifier)

    def remove_identifier(self, identifier: bytes) -> None:
        self.identifiers.remove(identifier)

    def read(self, limit: int) -> list[bytes]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def write(self, packet: bytes) -> bool:
        self.written.append(packet)
        return True

    def flush(self) -> None:
        pass


class Client:
    """One client: a connection that dials, with a table of its own."""

    def __init__(
        self, world: World, source: IPv4Address, user: str, password: str, identifier: bytes | None = None
    ) -> None:
        self.world = world
        self.source = source
        self.up: Ipv4Up | None = None
        self.up_v6: Ipv6Up | None = None
        self.cause: Terminated | None = None
        self.changed = asyncio.Event()
        self.gre_budget: int | None = None
        self.gre = FakeGre(self._to_server)
        self.table = CallTable(cast(CallGre, self.gre), entropy)
        self.tun = FakeInterface()
        self.pump = CallPump(self.table, self.tun, mss_clamp=True, asks_us=lambda call, packet: None, now=now)
        ours, theirs = FakeStream(Ends(source, SERVER_ADDRESS, 1723)), FakeStream(Ends(SERVER_ADDRESS, source, 40000))
        ours.other, theirs.other = theirs, ours
        self.stream, self.server_stream = ours, theirs
        profile = read(CLIENT.replace('"alice"', f'"{user}"').replace('"pap", "mppe128", "cleartext"', '"mppe128"'))
        theirs.user = cast(Any, world.server)._accept(cast(Stream, theirs))
        if theirs.user is None:
            ours.closed = theirs.closed = True
            return
        config = dialling_terms(profile, password)
        config = replace(config, terms=replace(config.terms, interface_identifier=identifier))
        ours.user = Connection(cast(Stream, ours), config, self.table, self)
        world.clients[source] = self
        asyncio.get_running_loop().call_soon(ours.user.open)

    def _to_server(self, key: bytes, gre: bytes) -> None:
        if self.gre_budget is not None:
            self.gre_budget -= 1
            if self.gre_budget < 0:
                asyncio.get_running_loop().call_soon(self.stream.abort)
                return
        self.world.gre.waiting.append((key, gre))
        asyncio.get_running_loop().call_soon(self.world.pump.gre_readable)

    def admit(self, connection: Connection, call_id: int, user: str) -> Admission | Terminated:
        raise AssertionError("a client admits nobody")

    def happened(self, connection: Connection, event: OrdinaryEvent) -> None:
        match event:
            case Ipv4Up():
                self.up = event
            case Ipv6Up():
                self.up_v6 = event
            case CallOver(cause=cause):
                self.cause = cause
            case Terminated():
                self.cause = self.cause or event
            case _:
                pass
        self.changed.set()

    def deliver(self, call: Call, protocol: int, packet: bytes | memoryview) -> None:
        self.pump.deliver(call, protocol, bytes(packet), now())

    def connection_lost(self, connection: Connection) -> None:
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def come_up(self) -> Ipv4Up:
        await self.until(lambda: self.up is not None or self.cause is not None)
        assert self.up is not None, self.cause
        return self.up

    async def end(self) -> None:
        await self.until(lambda: self.stream.closed)

    def hang_up(self) -> None:
        assert self.stream.user is not None
        self.stream.user.close()


class World:
    """A server with the users alice, bob and carol. Made inside a running loop."""

    def __init__(self, directory: Path, *overrides: str) -> None:
        write_users(
            directory / "users.toml",
            [
                User.of_password("alice", PASSWORD),
                User.of_password("bob", PASSWORD, address=IPv4Address("10.99.0.9")),
                User.of_password("carol", PASSWORD),
            ],
        )
        self.heard = Heard()
        settings = (f"auth.users={directory}/users.toml", "listen.max_sessions_per_source=100", *overrides)
        self.server = OrdinaryServer(read(SERVER, *settings), self.heard, Recording(None, None))
        self.clients: dict[IPv4Address, Client] = {}
        self.gre = FakeGre(self._to_client)
        self.tun = FakeInterface()
        inside = cast(Any, self.server)
        inside._interface = self.tun
        self.table = inside._table = CallTable(cast(CallGre, self.gre), entropy)
        self.pump = inside._pump = CallPump(
            self.table, self.tun, mss_clamp=True, asks_us=inside._answer_inform, now=now
        )

    def _to_client(self, key: bytes, gre: bytes) -> None:
        """By the Call ID alone: each client's is its own here."""
        call_id = int.from_bytes(key[4:], "big")
        for client in self.clients.values():
            if call_key(SERVER_ADDRESS, call_id) in client.table.by_key:
                client.gre.waiting.append((key, gre))
                asyncio.get_running_loop().call_soon(client.pump.gre_readable)
                return

    def dial(
        self, user: str = "alice", password: str = PASSWORD, source: int = 1, identifier: bytes | None = None
    ) -> Client:
        return Client(self, IPv4Address(f"198.51.100.{source}"), user, password, identifier)

    def leftovers(self) -> dict[str, object]:
        """What is not as it was before the first client."""
        inside = cast(Any, self.server)
        kept = {
            "connections": inside._connections,
            "counted": inside._book.connections,
            "entered": inside._book._sessions,
            "sessions": inside._sessions,
            "leases": dict(inside._pool.leases),
            "calls": self.table.calls,
            "keys": self.table.by_key,
            "addresses": self.table.by_address,
            "routes": self.tun.routes,
            "identifiers": self.tun.identifiers,
        }
        return {name: value for name, value in kept.items() if value}
