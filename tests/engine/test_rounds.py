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
from grepunch.io.packetloop import LONGEST_ROUNDS, PacketLoop, serve


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


@pytest.mark.parametrize("factory", [PacketLoop, asyncio.SelectorEventLoop])
@pytest.mark.parametrize("first_to_come", [0, 1])
def test_they_are_served_in_the_order_in_which_they_were_given(
    pairs: list[tuple[socket.socket, socket.socket]],
    factory: Callable[[], asyncio.AbstractEventLoop],
    first_to_come: int,
) -> None:
    served: list[int] = []

    def reader(number: int) -> None:
        pairs[number][0].recv(10)
        served.append(number)

    async def work() -> None:
        rounds = Rounds({pair[0].fileno(): partial(reader, number) for number, pair in enumerate(pairs)})
        leave = serve(rounds)
        for number in (first_to_come, 1 - first_to_come):
            pairs[number][1].send(b"x")
        await until_true(lambda: len(served) == 2)
        leave()
        rounds.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())
    assert served == [0, 1]


@pytest.mark.parametrize("factory", [PacketLoop, asyncio.SelectorEventLoop])
def test_one_with_two_descriptors_has_its_turn_once(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    made = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3)]
    own, other, also_own = (pair[0] for pair in made)
    turns: list[str] = []

    def take(name: str, *sockets: socket.socket) -> None:
        turns.append(name)
        for one in sockets:
            one.recv(10)

    async def work() -> None:
        both = partial(take, "both", own, also_own)
        rounds = Rounds({own.fileno(): both, also_own.fileno(): both, other.fileno(): partial(take, "other", other)})
        leave = serve(rounds)
        for pair in made:
            pair[1].send(b"x")
        await until_true(lambda: len(turns) == 2)
        leave()
        rounds.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())
    assert turns == ["both", "other"]
    for pair in made:
        for one in pair:
            one.close()


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


def test_all_is_settled_once_after_a_pause(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    seen: list[int | str] = []

    def reader(number: int) -> None:
        pairs[number][0].recv(10)
        seen.append(number)

    readers = {pair[0].fileno(): partial(reader, number) for number, pair in enumerate(pairs)}
    rounds = Rounds(readers, pause=partial(seen.append, "pause"), settle=partial(seen.append, "settled"))
    for pair in pairs:
        pair[1].send(b"x")
    rounds.run()
    assert sorted(seen[:2], key=str) == [0, 1]
    assert seen[2:] == ["pause", "settled"]
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


async def until_true(condition: Callable[[], bool]) -> None:
    """Let the loop turn until then."""
    turn = asyncio.Event()
    while not condition():
        asyncio.get_running_loop().call_later(0.001, turn.set)
        await turn.wait()
        turn.clear()


class Wakes:
    """A packet loop with one descriptor of packets, and what happens in it, in order."""

    def __init__(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self.here, self.there = pair
        self.seen: list[str] = []
        self.on_packet: Callable[[], object] = lambda: None

    def read(self) -> None:
        self.seen.append(self.here.recv(10).decode())
        self.on_packet()

    async def run(self, until: Callable[[], bool], *, packets: str = "") -> list[str]:
        rounds = Rounds(
            {self.here.fileno(): self.read},
            pause=partial(self.seen.append, "pause"),
            settle=partial(self.seen.append, "settled"),
        )
        leave = serve(rounds)
        for packet in packets:
            self.there.send(packet.encode())
        await until_true(until)
        leave()
        rounds.close()
        return self.seen


@pytest.fixture
def wakes(pairs: list[tuple[socket.socket, socket.socket]]) -> Wakes:
    return Wakes(pairs[0])


def test_what_is_noted_of_packets_waits_for_a_pause(wakes: Wakes) -> None:
    with asyncio.Runner(loop_factory=PacketLoop) as runner:
        seen = runner.run(wakes.run(lambda: "settled" in wakes.seen, packets="abc"))
    assert seen[:3] == ["a", "b", "c"]
    assert seen.count("settled") == 1


def test_a_reader_that_calls_for_asyncio_is_heard_at_once(wakes: Wakes) -> None:
    async def work() -> list[str]:
        loop = asyncio.get_running_loop()
        wakes.on_packet = lambda: loop.call_soon(wakes.seen.append, "called")
        return await wakes.run(lambda: wakes.seen.count("called") == 2, packets="ab")

    with asyncio.Runner(loop_factory=PacketLoop) as runner:
        seen = [what for what in runner.run(work()) if what != "pause"]
    assert seen == ["a", "settled", "called", "b", "settled", "called"]


def test_a_reader_may_stop_the_loop(wakes: Wakes) -> None:
    loop = PacketLoop()
    wakes.on_packet = loop.stop
    rounds = Rounds({wakes.here.fileno(): wakes.read})
    loop.serve(rounds)
    late = loop.call_later(5, wakes.seen.append, "stopped too late")
    late_stop = loop.call_later(5, loop.stop)
    wakes.there.send(b"a")
    loop.run_forever()
    assert wakes.seen == ["a"]
    late.cancel()
    late_stop.cancel()
    loop.leave(rounds)
    rounds.close()
    loop.close()


def test_a_flood_holds_up_neither_timers_nor_what_is_noted(wakes: Wakes) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        wakes.on_packet = lambda: wakes.there.send(b"x")  # each brings the next
        loop.call_later(3 * LONGEST_ROUNDS, wakes.seen.append, "timer")
        await wakes.run(lambda: "timer" in wakes.seen, packets="x")
        wakes.here.recv(10)

    with asyncio.Runner(loop_factory=PacketLoop) as runner:
        runner.run(work())
    assert "settled" in wakes.seen[: wakes.seen.index("timer")]


def test_what_settling_raises_is_told_and_ends_nothing(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    told: list[object] = []
    here, there = pairs[0]

    def read() -> None:
        here.recv(10)

    def fail() -> None:
        raise ZeroDivisionError

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
        rounds = Rounds({here.fileno(): read}, settle=fail)
        leave = serve(rounds)
        there.send(b"x")
        await until_true(lambda: bool(told))
        leave()
        rounds.close()

    with asyncio.Runner(loop_factory=PacketLoop) as runner:
        runner.run(work())
    assert told == [ZeroDivisionError]
