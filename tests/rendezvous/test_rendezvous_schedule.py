"""When a peer joins which days' mailboxes, and how long it waits to come back: tables and properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grepunch.rendezvous.schedule import DayClock, retry_delay

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("later", "days"),
    [
        (0.0, (100,)),
        (9.0 * HOUR - 1, (100,)),
        (9.0 * HOUR, (100, 101)),
        (10.0 * HOUR - 1, (100, 101)),
        (10.0 * HOUR, (100, 101)),
        (11.0 * HOUR - 1, (100, 101)),
        (11.0 * HOUR, (101,)),
        (33.0 * HOUR - 1, (101,)),
        (33.0 * HOUR, (101, 102)),
        (10 * HOUR + 7 * DAY + HOUR, (108,)),
    ],
)
def test_the_neighbouring_day_is_joined_within_an_hour_of_midnight(later: float, days: tuple[int, ...]) -> None:
    clock = DayClock(100, 10 * HOUR, at=5000.0)
    assert clock.days(5000.0 + later) == days


@given(st.floats(1, DAY), st.floats(0, 10 * DAY), st.floats(0, 1))
def test_between_now_and_the_next_change_the_days_stay(left: float, later: float, share: float) -> None:
    clock = DayClock(100, left, at=1e6)
    now = 1e6 + later
    change = clock.next_change(now)
    assert now + 1.0 <= change <= now + DAY - 2 * HOUR + 1.0 + 1e-6
    days = clock.days(now)
    last = now + (change - 1.0 - now) * share
    assert clock.days(max(now, last - 1e-3)) == days


def test_two_peers_greeted_at_any_time_always_share_a_day() -> None:
    early, late = DayClock(7, HOUR, at=0.0), DayClock(7, HOUR + 3500.0, at=0.0)  # wall clocks 3500 s apart
    for minute in range(0, 3 * 24 * 60, 7):
        assert set(early.days(minute * 60.0)) & set(late.days(minute * 60.0))


@pytest.mark.parametrize(
    ("failures", "down_for", "chance", "overloaded", "delay"),
    [
        (1, 0.0, 0.0, False, 0.2),
        (2, 1.0, 0.5, False, 0.6),
        (9, 60.0, 0.99, False, 1.4925),
        (9, 121.0, 0.0, False, 5.0),
        (5000, 9e9, 0.999, False, 9.995),
        (5, 3.0, 0.0, True, 3.2),
        (9, 3.0, 0.0, True, 5.0),
    ],
)
def test_retries_are_quick_at_first_and_rare_later(
    failures: int, down_for: float, chance: float, overloaded: bool, delay: float
) -> None:
    assert retry_delay(failures, down_for, chance, overloaded=overloaded) == pytest.approx(delay)
