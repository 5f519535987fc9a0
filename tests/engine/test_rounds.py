"""The loop under load: who is served, in which order, and when it stops for others."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from grepunch.io.engine.rounds import MOST_ROUNDS, Rounds


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
