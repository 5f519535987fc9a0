"""Who only ever calls, and authenticates nobody: neither guesses, nor fills the log, nor stays for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

from grepunch.io.streams import Ends, Stream
from grepunch.ordinary.admission import MOST_FAILURES
from grepunch.ordinary.reporting import MOST_CALLS, MOST_NOTICES
from grepunch.ordinary.server import CALLS_IN_VAIN
from pptp.errors import TerminationCause
from pptp.ppp.link import Phase
from pptp.wire.control import (
    CallClearRequest,
    ControlMessage,
    OutgoingCallRequest,
    StartControlConnectionRequest,
    build_message,
)
from tests.ordinary.server_world import SERVER_ADDRESS, FakeStream, World

CALLS = 400


class Stranger:
    """One connection that says what it is told to."""

    def __init__(self, world: World, source: IPv4Address) -> None:
        ours, theirs = FakeStream(Ends(source, SERVER_ADDRESS, 1723)), FakeStream(Ends(SERVER_ADDRESS, source, 40000))
        ours.other, theirs.other = theirs, ours
        self.stream, self.gone = ours, asyncio.Event()
        ours.user = cast(Any, self)
        theirs.user = cast(Any, world.server)._accept(cast(Stream, theirs))

    def data_received(self, data: bytes) -> None:
        """What it hears is nothing to it."""

    def stream_closed(self, why: str) -> None:
        """It was sent away."""
        self.gone.set()

    async def say(self, *messages: ControlMessage) -> None:
        self.stream.write(b"".join(map(build_message, messages)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def run(work: Callable[[World], Awaitable[None]], directory: Path) -> None:
    async def whole() -> None:
        await work(World(directory))

    asyncio.run(whole())


async def sent_away(stranger: Stranger) -> None:
    """Goodbyes and all."""
    async with asyncio.timeout(20.0):
        await stranger.gone.wait()


def test_a_barred_source_gets_no_call_on_a_connection_it_has_already(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        source = IPv4Address("198.51.100.1")
        waiting = Stranger(world, source)
        await waiting.say(StartControlConnectionRequest())
        for _ in range(MOST_FAILURES):
            client = world.dial(password="wrong")
            await client.end()
            assert client.cause is not None
            assert client.cause.cause is TerminationCause.AUTHENTICATION
        assert not waiting.stream.closed
        for number in range(CALLS_IN_VAIN):
            await waiting.say(OutgoingCallRequest(number + 1))
            (call,) = world.table.calls.values() or [None]
            assert call is None or call.connection.machine.status().calls[0].phase in (Phase.DEAD, Phase.TERMINATE)
            await waiting.say(CallClearRequest(number + 1))
        await sent_away(waiting)
        assert world.leftovers() == {}

    run(work, tmp_path)


def test_who_is_in_stays_in_whoever_else_calls_in_vain_from_there(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        client = world.dial()
        await client.come_up()
        for _ in range(MOST_FAILURES):
            await world.dial("carol", password="wrong").end()
        for number in range(2 * CALLS_IN_VAIN):
            client.stream.write(build_message(OutgoingCallRequest(1000 + number)))
            await asyncio.sleep(0.01)
            client.stream.write(build_message(CallClearRequest(1000 + number)))
            await asyncio.sleep(0.01)
        (call,) = [call for call in world.table.calls.values() if call.user]
        assert call.connection.machine.status().calls[0].phase is Phase.NETWORK
        assert client.cause is None
        client.stream.abort()
        assert world.leftovers() == {}

    run(work, tmp_path)


def test_calls_in_vain_end_the_connection(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        stranger = Stranger(world, IPv4Address("198.51.100.2"))
        await stranger.say(StartControlConnectionRequest())
        for number in range(CALLS_IN_VAIN):
            await stranger.say(OutgoingCallRequest(number + 1), CallClearRequest(number + 1))
        await sent_away(stranger)
        assert world.leftovers() == {}

    run(work, tmp_path)


def test_calls_of_strangers_do_not_fill_the_log(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        for source in range(1, CALLS // CALLS_IN_VAIN + 1):
            stranger = Stranger(world, IPv4Address(f"198.51.100.{source}"))
            await stranger.say(StartControlConnectionRequest())
            for number in range(CALLS_IN_VAIN):
                await stranger.say(OutgoingCallRequest(number + 1), CallClearRequest(number + 1))
        assert len(world.heard.told) <= MOST_CALLS + MOST_NOTICES

    run(work, tmp_path)
