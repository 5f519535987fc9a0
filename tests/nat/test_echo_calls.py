"""The echo server's PPTP port over loopback: calls for those who probe, and nothing for strangers to hold on to."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

import pytest

from grepunch.io import streams
from grepunch.io.echo_calls import MOST_MESSAGES, MOST_PER_SOURCE, CallPort
from pptp.wire.control import (
    EchoRequest,
    OutgoingCallReply,
    OutgoingCallRequest,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    build_message,
    parse_message,
)

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
IDENTIFIER = 0xC0FFEE11
START = build_message(StartControlConnectionRequest())


class Port:
    """A call port that knows one address, and one client behind it."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind((HERE, 0))
            self.number = probe.getsockname()[1]
        self.calls: list[tuple[int, IPv4Address, int, int]] = []
        self.port = CallPort(lambda source: source == IPv4Address(HERE), self._placed)

    def _placed(self, identifier: int, source: IPv4Address, call_id: int, given: int) -> bool:
        self.calls.append((identifier, source, call_id, given))
        return identifier == IDENTIFIER

    async def connect(self, source: str = HERE) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HERE, self.number, local_addr=(source, 0))


def run(work: Callable[[Port], Awaitable[None]], *hosts: str) -> None:
    async def whole() -> None:
        port = Port()
        await port.port.open(hosts or (HERE,), port.number)
        try:
            async with asyncio.timeout(20.0):
                await work(port)
        finally:
            port.port.close()

    asyncio.run(whole())


async def hears(reader: asyncio.StreamReader) -> bytes:
    """Everything until the end, however that comes."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_a_client_s_call_is_answered_and_told() -> None:
    async def work(port: Port) -> None:
        reader, writer = await port.connect()
        number = f"{IDENTIFIER:08x}".encode()
        writer.write(START + build_message(OutgoingCallRequest(9, phone_number=number)))
        start = parse_message(await reader.readexactly(156))
        reply = parse_message(await reader.readexactly(32))
        assert isinstance(start, StartControlConnectionReply)
        assert isinstance(reply, OutgoingCallReply)
        assert port.calls == [(IDENTIFIER, IPv4Address(HERE), 9, reply.call_id)]
        writer.close()

    run(work)


def test_who_does_not_probe_hears_nothing() -> None:
    async def work(port: Port) -> None:
        reader, writer = await port.connect(ELSEWHERE)
        writer.write(START)
        assert await hears(reader) == b""
        writer.close()

    run(work)


def test_one_address_does_not_take_every_connection() -> None:
    async def work(port: Port) -> None:
        held = [await port.connect() for _ in range(MOST_PER_SOURCE)]
        for reader, writer in held:
            writer.write(START)
            assert len(await reader.readexactly(156)) == 156
        reader, writer = await port.connect()
        assert await hears(reader) == b""
        for _, other in [*held, (reader, writer)]:
            other.close()

    run(work)


@pytest.mark.parametrize(
    "question",
    [
        build_message(EchoRequest(1)) * (MOST_MESSAGES + 1),
        START[:-1] + b"\0" + bytes(16),
        build_message(OutgoingCallRequest(9, phone_number=b"nonsense")),
        build_message(OutgoingCallRequest(9, phone_number=b"00000001")),
    ],
)
def test_more_than_a_probe_says_ends_the_connection(question: bytes) -> None:
    async def work(port: Port) -> None:
        reader, writer = await port.connect()
        writer.write(question)
        assert len(await hears(reader)) <= 20 * MOST_MESSAGES + 156
        writer.close()

    run(work)


def test_who_reads_nothing_costs_no_memory() -> None:
    """As many answers as a connection can ask for are less than may wait for it."""
    assert MOST_MESSAGES * len(START) < streams.MOST_UNREAD


def test_only_ipv4_is_listened_at_and_all_of_it_once(caplog: pytest.LogCaptureFixture) -> None:
    async def work(port: Port) -> None:
        _, writer = await port.connect()
        writer.close()

    with caplog.at_level(logging.ERROR):
        run(work, "::1", "", HERE)
    assert caplog.records == []
