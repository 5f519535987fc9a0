"""Strangers who connect to the rendezvous server and say nothing: a few of them, and never instead of others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from grepunch.io.doorway import Doorway
from grepunch.io.meeting_server import HEALTH, UNFINISHED_PER_SOURCE
from grepunch.rendezvous.messages import SUBPROTOCOL
from tests.rendezvous.meeting_support import PATIENCE, PLAIN, run, serving

PROXY = "10.0.0.1"


class Hall:
    """A doorway, a clock, and sockets whose other ends are kept open."""

    def __init__(self) -> None:
        self.now = 0.0
        self.doorway = Doorway(
            lambda host: None if host == PROXY else host, lambda: self.now, in_all=20, per_source=5, patience=10.0
        )
        self.stack = contextlib.ExitStack()
        self.port = 0

    def enter(self, host: str) -> tuple[bool, socket.socket, tuple[str, int]]:
        ours, theirs = (self.stack.enter_context(end) for end in socket.socketpair())
        theirs.setblocking(False)
        self.port += 1
        return self.doorway.enter(ours, (host, self.port)), theirs, (host, self.port)


@pytest.fixture
def hall() -> Iterator[Hall]:
    made = Hall()
    with made.stack:
        yield made


def closed(end: socket.socket) -> bool:
    try:
        return end.recv(1) == b""
    except BlockingIOError:
        return False


def test_one_source_has_its_share_and_no_more(hall: Hall) -> None:
    entered = [hall.enter("192.0.2.1") for _ in range(8)]
    assert [let_in for let_in, _, _ in entered] == 5 * [True] + 3 * [False]
    assert hall.enter("192.0.2.2")[0]
    hall.doorway.finished(entered[0][2])
    hall.doorway.finished(entered[0][2])
    assert [hall.enter("192.0.2.1")[0] for _ in range(2)] == [True, False]


def test_many_sources_push_out_the_oldest(hall: Hall) -> None:
    entered = [hall.enter(f"192.0.2.{number}") for number in range(25)]
    assert all(let_in for let_in, _, _ in entered)
    assert [closed(end) for _, end, _ in entered] == 5 * [True] + 20 * [False]
    assert hall.doorway.unfinished == 20


def test_a_proxy_brings_everybody_from_one_address(hall: Hall) -> None:
    assert all(hall.enter(PROXY)[0] for _ in range(20))


def test_nobody_is_unfinished_for_ever(hall: Hall) -> None:
    for _ in range(5):
        hall.enter("192.0.2.1")
    hall.now = 9.9
    assert not hall.enter("192.0.2.1")[0]
    hall.now = 10.0
    assert hall.enter("192.0.2.1")[0]
    assert hall.doorway.unfinished == 1


def test_a_server_sends_the_silent_away_and_serves_the_others() -> None:
    async def until_closed(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.read(1)
        writer.close()

    async def test() -> None:
        async with serving(PLAIN) as port:
            health = []
            for _ in range(UNFINISHED_PER_SOURCE + 5):  # what is answered is finished
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                health.append(HEALTH.encode() in await reader.read())
                writer.close()
            assert all(health)
            silent = {asyncio.create_task(until_closed(port)) for _ in range(UNFINISHED_PER_SOURCE + 10)}
            away: set[asyncio.Task[None]] = set()
            async with asyncio.timeout(PATIENCE):
                while len(away) < 10:
                    away |= (await asyncio.wait(silent - away, return_when=asyncio.FIRST_COMPLETED))[0]
            assert len(away) == 10
            async with (
                asyncio.timeout(PATIENCE),
                connect(
                    f"ws://127.0.0.1:{port}",
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    local_addr=("127.0.0.2", 0),
                    proxy=None,
                ) as connection,
            ):
                assert "hello" in str(await connection.recv())
            for task in silent:
                task.cancel()

    run(test())
