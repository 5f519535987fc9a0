"""Who calls TCP port 1723, over loopback: each peer's call reaches its own taker, and a server loses none of its."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import cast

import pytest

from grepunch.entrance import Entrance
from grepunch.io import simultaneous
from grepunch.io.errors import Refused
from grepunch.io.simultaneous import Connection
from grepunch.io.streams import Ends, Stream, listen

HERE = IPv4Address("127.0.0.1")
PEERS = {name: IPv4Address(f"127.0.1.{number}") for number, name in enumerate(("alice", "bob", "carol"), 1)}
STRANGER = IPv4Address("127.0.2.1")
CALLS = 12


class Place:
    """A port, the entrance to it, and what came of the calls."""

    def __init__(self, *, served: bool) -> None:
        with socket.socket() as probe:
            probe.bind((str(HERE), 0))
            self.port = probe.getsockname()[1]
        self.entrance = Entrance(served=served, port=self.port)
        self.taken: Counter[str] = Counter()
        self.connections: list[Connection] = []
        self.served = 0

    def await_peer(self, name: str) -> None:
        def take(connection: Connection) -> None:
            self.taken[name] += 1
            assert connection.send(name.encode())
            self.connections.append(connection)

        self.entrance.expect(name, PEERS[name], take)

    def accept(self, stream: Stream) -> None:
        """As a server does, that has nothing to say."""
        if not self.entrance.take(stream):
            self.served += 1

    async def call(self, source: IPv4Address) -> bytes:
        """What a caller is told."""
        reader, writer = await asyncio.open_connection(str(HERE), self.port, local_addr=(str(source), 0))
        try:
            return await reader.read(64)
        except ConnectionError:
            return b""
        finally:
            writer.close()


def run(place_of: Callable[[], Place], work: Callable[[Place], Awaitable[None]]) -> None:
    async def whole() -> None:
        place = place_of()
        async with asyncio.timeout(30.0):
            await work(place)
        for connection in place.connections:
            connection.close()
        for name in PEERS:
            place.entrance.forget(name)

    asyncio.run(whole())


async def all_call(place: Place) -> None:
    for name, source in PEERS.items():
        for _ in range(CALLS):
            assert await place.call(source) == name.encode()
    assert place.taken == dict.fromkeys(PEERS, CALLS)


def test_a_server_of_this_process_keeps_its_clients_and_hands_over_the_peers() -> None:
    async def work(place: Place) -> None:
        server = await listen(HERE, place.port, place.accept, shared=True)
        for name in PEERS:
            place.await_peer(name)
        for _ in range(CALLS):
            assert await place.call(STRANGER) == b""
        assert place.served == CALLS
        await all_call(place)
        place.entrance.forget("alice")
        assert await place.call(PEERS["alice"]) == b"", "awaited no longer: one of the server's"
        assert place.served == CALLS + 1
        server.close()

    run(lambda: Place(served=True), work)


def test_a_call_for_which_no_descriptor_is_left_is_lost_and_no_more() -> None:
    class Exhausted:
        ends = Ends(HERE, PEERS["bob"], 1723)

        def detach(self) -> socket.socket:
            raise OSError(errno.EMFILE, "too many open files")

    async def work(place: Place) -> None:
        place.await_peer("bob")
        assert place.entrance.take(cast(Stream, Exhausted()))
        assert place.taken["bob"] == 0

    run(lambda: Place(served=True), work)


async def refuse_all(place: Place) -> None:
    """Another program has the port to itself."""
    with socket.socket() as other:
        other.bind(("", place.port))
        other.listen()
        for name in PEERS:
            with pytest.raises(Refused, match="cannot be used"):
                place.await_peer(name)
            place.entrance.forget(name)


def test_a_port_that_another_program_has_to_itself_is_a_refusal() -> None:
    run(lambda: Place(served=False), refuse_all)


def test_no_descriptor_left_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socket", exhausted)
    with pytest.raises(Refused, match="too many open files"):
        simultaneous.connect(HERE, 1723, from_same=False)
