"""The replay window against a model that simply remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pptp.crypto.replay import DEFAULT_SIZE, ReplayWindow
from pptp.errors import Drop, UsageError


class Model:
    """The definition: a set of what was seen, and the highest of it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: set[int] = set()

    def test(self, counter: int) -> Drop | None:
        if self.seen and counter <= max(self.seen) - self.size:
            return Drop.TOO_OLD
        return Drop.REPLAYED if counter in self.seen else None


def take(window: ReplayWindow, counter: int) -> Drop | None:
    cause = window.test(counter)
    if cause is None:
        window.advance(counter)
    return cause


SIZES = st.sampled_from([1, 2, 8, 64])
MOVES = st.lists(
    st.one_of(
        st.integers(-70, 70),  # around the highest
        st.integers(60, 10_000),  # jumps over one or many windows
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(size=SIZES, moves=MOVES)
def test_window_agrees_with_the_model(size: int, moves: list[int]) -> None:
    window, model = ReplayWindow(size), Model(size)
    for move in moves:
        counter = max(0, window.highest + move)
        cause = take(window, counter)
        assert cause == model.test(counter)
        if cause is None:
            model.seen.add(counter)
        assert window.highest == max(model.seen, default=-1)


@settings(max_examples=50, deadline=None)
@given(size=SIZES, moves=MOVES, probes=st.lists(st.integers(-70, 70), max_size=40))
def test_testing_changes_nothing(size: int, moves: list[int], probes: list[int]) -> None:
    window = ReplayWindow(size)
    for move in moves:
        take(window, max(0, window.highest + move))
    counters = [max(0, window.highest + probe) for probe in probes]
    first = [window.test(counter) for counter in counters]
    assert [window.test(counter) for counter in counters] == first


def test_the_default_remembers_exactly_8192() -> None:
    window = ReplayWindow()
    assert DEFAULT_SIZE == 8192
    window.advance(10_000)
    assert window.test(10_000 - 8191) is None
    assert window.test(10_000 - 8192) is Drop.TOO_OLD
    assert window.test(10_000) is Drop.REPLAYED
    assert window.test(2**64 - 1) is None


def test_every_counter_once_in_any_order() -> None:
    window = ReplayWindow(64)
    order = [block * 64 + (offset * 37) % 64 for block in range(50) for offset in range(64)]
    first = [take(window, counter) for counter in order]
    assert first.count(Drop.REPLAYED) == 0
    again = [take(window, counter) for counter in order]
    assert None not in again


@pytest.mark.parametrize("size", [0, -1, 3, 8191])
def test_a_size_that_is_no_power_of_two_is_our_bug(size: int) -> None:
    with pytest.raises(UsageError):
        ReplayWindow(size)
