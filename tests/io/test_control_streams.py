"""TCP streams over loopback: octets both ways, every end told once, and sentences for what cannot be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import pytest

from grepunch.io.errors import AddressClash, Refused
from grepunch.io.streams import MOST_UNREAD, ConnectFailed, Stream, connect, listen

HERE = IPv4Address("127.0.0.1")


@dataclass
class User:
    """Notes what it is told."""

    stream: Stream
    data: bytearray = field(default_factory=bytearray)
    ends: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.changed.set()

    def stream_closed(self, why: str) -> None:
        self.ends.append(why)
        self.changed.set()

    async def until(self, size: int) -> None:
        while len(self.data) < size:
            self.changed.clear()
            await self.changed.wait()

    async def over(self) -> None:
        while not self.ends:
            self.changed.clear()
            await self.changed.wait()


class Pair:
    """A listener on a free port, and the users of its connections."""

    def __init__(self) -> None:
        self.users: asyncio.Queue[User] = asyncio.Queue()
        self.clients: list[User] = []
        self.welcome = True

    async def __aenter__(self) -> Pair:
        with socket.socket() as probe:
            probe.bind((str(HERE), 0))
            self.port = probe.getsockname()[1]
        self.server = await listen(HERE, self.port, self._accept, shared=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for user in self.clients:
            user.stream.abort()

    def _accept(self, stream: Stream) -> User | None:
        if not self.welcome:
            return None
        user = User(stream)
        self.users.put_nowait(user)
        return user

    def _open(self, stream: Stream) -> User:
        user = User(stream)
        self.clients.append(user)
        return user

    async def dial(self) -> User:
        await connect("localhost", self.port, self._open, within=5.0)
        return self.clients[-1]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_octets_go_both_ways_and_an_orderly_end_is_told_once() -> None:
    async def work() -> None:
        async with Pair() as pair:
            client = await pair.dial()
            server = await pair.users.get()
            assert (server.stream.ends.remote, client.stream.ends.remote_port) == (HERE, pair.port)
            client.stream.write(b"a" * 1000)
            server.stream.write(b"b" * 10)
            await server.until(1000)
            await client.until(10)
            client.stream.close()
            await server.over()
            await client.over()
            client.stream.write(b"late")
            client.stream.close()
            assert (client.ends, server.ends) == ([""], [""])

    run(work())


def test_who_does_not_read_is_cut_off() -> None:
    async def work() -> None:
        async with Pair() as pair:
            with socket.create_connection((str(HERE), pair.port)):
                server = await pair.users.get()
                for _ in range(200):
                    server.stream.write(bytes(MOST_UNREAD))
                await server.over()

    run(work())


def test_who_is_not_wanted_hears_nothing() -> None:
    async def work() -> None:
        async with Pair() as pair:
            pair.welcome = False
            client = await pair.dial()
            await client.over()
            assert client.data == b""

    run(work())


def test_a_port_in_use_and_an_address_of_somebody_else_are_said() -> None:
    async def work() -> None:
        async with Pair() as pair:
            with pytest.raises(AddressClash, match=f"TCP port {pair.port} of 127.0.0.1 cannot be listened at"):
                await listen(HERE, pair.port, pair._accept, shared=False)
        with pytest.raises(Refused, match=r"192.0.2.1"):
            await listen(IPv4Address("192.0.2.1"), 1723, pair._accept, shared=False)

    run(work())


def test_a_server_that_does_not_answer_is_said() -> None:
    async def work() -> None:
        async with Pair() as pair:
            pass
        with pytest.raises(ConnectFailed, match=f"TCP port {pair.port} of 127.0.0.1: connection refused"):
            await connect(str(HERE), pair.port, pair._open, within=5.0)
        with pytest.raises(ConnectFailed, match=r"no-such-host\.invalid"):
            await connect("no-such-host.invalid", pair.port, pair._open, within=10.0)

    run(work())
