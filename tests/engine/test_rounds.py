"""The loop under load: who is served, in which order, and when it stops for others."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from grepunch.io.engine.rounds import MOST_ROUNDS, Rounds
from grepunch.io.packetloop import PacketLoop, serve


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    yield made
    for pair in made:
        for one in pair:
            one.close()


def test_both_are_served_in_turn_until_nothing_is_left(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    served: list[int] = []

    def reader(number: int) -> None:
        pairs[number][0].recv(10)
        served.append(number)

    rounds = Rounds({pair[0].fileno(): partial(reader, number) for number, pair in enumerate(pairs)})
    assert not select.select([rounds], [], [], 0)[0]
    for number, pair in enumerate(pairs):
        for _ in range(3 - number):
            pair[1].send(b"x")
    assert select.select([rounds], [], [], 0)[0]
    rounds.run()
    assert sorted(served[:4]) == [0, 0, 1, 1]
    assert served[4:] == [0]
    rounds.run()
    assert len(served) == 5
    rounds.close()


def test_an_endless_flood_leaves_time_for_others(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    calls = 0

    def reader() -> None:
        nonlocal calls
        calls += 1  # and what is there stays there

    rounds = Rounds({pairs[0][0].fileno(): reader})
    pairs[0][1].send(b"x")
    rounds.run()
    assert calls == MOST_ROUNDS
    rounds.close()


def test_whoever_woke_it_is_served_first_and_all_is_settled_once(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    seen: list[int | str] = []

    def reader(number: int) -> None:
        pairs[number][0].recv(10)
        seen.append(number)

    descriptors = [pair[0].fileno() for pair in pairs]
    readers = {descriptor: partial(reader, number) for number, descriptor in enumerate(descriptors)}
    rounds = Rounds(readers, settle=partial(seen.append, "settled"))
    for pair in pairs:
        pair[1].send(b"x")
    rounds.serve(descriptors[1])
    assert seen == [1, 0, "settled"]
    rounds.close()


def test_the_packet_loop_serves_packets_and_everything_else(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    seen: list[str] = []
    told: list[object] = []

    def read(number: int, what: str) -> None:
        pairs[number][0].recv(10)
        seen.append(what)

    def fail() -> None:
        read(0, "failed")
        raise ZeroDivisionError

    async def work(served: dict[int, Callable[[], None]]) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
        rounds = Rounds(served)
        leave = serve(rounds)
        other = pairs[1][0].fileno()
        loop.add_reader(other, read, 1, "other")
        for pair in pairs:
            pair[1].send(b"x")
        for _ in range(3):
            await asyncio.sleep(0)
        leave()
        loop.remove_reader(other)
        pairs[0][1].send(b"x")
        for _ in range(3):
            await asyncio.sleep(0)
        pairs[0][0].recv(10)  # nobody else has
        rounds.close()

    here = pairs[0][0].fileno()
    for factory in (PacketLoop, asyncio.SelectorEventLoop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work({here: partial(read, 0, "packet")}))
        assert sorted(seen) == ["other", "packet"]
        seen.clear()
    with asyncio.Runner(loop_factory=PacketLoop) as runner:
        runner.run(work({here: fail}))
    assert (sorted(seen), told) == (["failed", "other"], [ZeroDivisionError])


def test_what_a_reader_raises_comes_out() -> None:
    here, there = os.pipe()
    os.write(there, b"x")

    def reader() -> None:
        raise ZeroDivisionError

    rounds = Rounds({here: reader})
    with pytest.raises(ZeroDivisionError):
        rounds.run()
    rounds.close()
    os.close(here)
    os.close(there)
