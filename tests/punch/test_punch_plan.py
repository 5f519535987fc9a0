"""The punch plan's arithmetic: common start, schedule, budget, nomination."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from grepunch.peer.mirror import DIAL_PACKETS
from grepunch.ports import Form
from grepunch.punch import plan
from grepunch.punch.plan import Budget, Proven, Schedule, acceptable_start, nominate, propose_start

TARGET = IPv4Address("198.51.100.7")


def test_the_start_leaves_the_slower_side_two_round_trips_and_a_margin() -> None:
    assert propose_start(100.0, 0.05, 0.2) == 100.0 + 2 * 0.2 + 0.3
    assert propose_start(100.0, 0.2, 0.05) == propose_start(100.0, 0.05, 0.2)


def test_a_start_more_than_five_seconds_away_is_refused() -> None:
    assert acceptable_start(105.0, 100.0)
    assert not acceptable_start(105.001, 100.0)
    assert acceptable_start(99.5, 100.0)  # just missed: start at once
    assert not acceptable_start(94.9, 100.0)


def test_a_sure_clock_shortens_the_lead() -> None:
    assert Schedule.with_rendezvous(0.05).lead_packets == 3
    assert Schedule.with_rendezvous(0.2).lead_packets == 8
    assert Schedule.alone().lead_packets == 8


def test_the_silence_outlasts_the_timer_it_is_for() -> None:
    assert Schedule.with_rendezvous(0.0).silence == 35.0
    assert Schedule.with_rendezvous(0.0, long_timers=True).silence == 65.0


def test_one_window_of_two_forms_and_a_call_is_the_budget() -> None:
    at, packets = 0.0, 0
    while at <= plan.WINDOW:
        packets += 1
        at += plan.full_interval(packets)
    assert plan.BUDGET_PACKETS - 2 <= 2 * packets + DIAL_PACKETS <= plan.BUDGET_PACKETS


@given(st.binary(min_size=4, max_size=4), st.booleans())
def test_burst_gaps_stay_in_their_range(octets: bytes, long_timers: bool) -> None:
    schedule = Schedule.alone(long_timers=long_timers)
    low, high = schedule.burst_gaps
    assert low <= schedule.burst_gap(lambda _: octets) < high


@given(
    st.lists(st.tuples(st.floats(0, 30, allow_nan=False), st.sampled_from([1, 1, 2, 6])), min_size=100, max_size=600),
    st.booleans(),
)
def test_the_budget_holds_in_every_window(wishes: list[tuple[float, int]], hourly: bool) -> None:
    budget, now, spent = Budget(), 0.0, list[float]()
    for gap, packets in wishes:
        now += gap / 20
        if budget.spend(TARGET, now, hourly=hourly, packets=packets):
            spent += [now] * packets
    for first, after in zip(spent, spent[plan.BUDGET_PACKETS :], strict=False):
        assert after - first >= plan.BUDGET_PERIOD
    assert not hourly or len(spent) <= plan.BUDGET_HOURLY_PACKETS


def test_a_wish_that_is_too_large_takes_nothing() -> None:
    budget = Budget()
    assert budget.spend(TARGET, 0.0, hourly=True, packets=plan.BUDGET_PACKETS - 2)
    assert not budget.spend(TARGET, 1.0, hourly=True, packets=3)
    assert [budget.spend(TARGET, 2.0, hourly=True) for _ in range(3)] == [True, True, False]
    assert budget.spend(TARGET, plan.BUDGET_PERIOD, hourly=True, packets=3)


def test_who_has_answered_can_be_looked_for_again_at_once() -> None:
    """A path that is lost as soon as it was found must not wait for the budget of the half minute before."""
    budget = Budget()
    assert budget.spend(TARGET, 0.0, hourly=True, packets=plan.BUDGET_PACKETS)
    assert not budget.spend(TARGET, 1.0, hourly=True)
    budget.prove(TARGET, 1.0)
    assert budget.spend(TARGET, 2.0, hourly=True, packets=plan.BUDGET_PACKETS)
    assert not budget.spend(TARGET, 3.0, hourly=True)
    assert budget.spend(TARGET, plan.BUDGET_PERIOD, hourly=True)


def spend_windows(budget: Budget, windows: int, *, hourly: bool) -> int:
    return sum(
        budget.spend(TARGET, 65.0 * window + packet * 0.2, hourly=hourly)
        for window in range(windows)
        for packet in range(80)
    )


def test_the_hourly_limit_ends_after_four_windows_unless_proven_or_configured() -> None:
    assert spend_windows(Budget(), 10, hourly=True) == 256
    assert spend_windows(Budget(), 10, hourly=False) == 640
    proven = Budget()
    proven.spend(TARGET, 0.0, hourly=True)
    proven.prove(TARGET, 0.0)
    assert spend_windows(proven, 10, hourly=True) > 600


def test_lead_packets_have_a_budget_of_the_same_size() -> None:
    budget = Budget()
    assert spend_windows(budget, 10, hourly=True) == 256
    led = [budget.spend(TARGET, 650.0 + number * 0.01, hourly=True, lead=True) for number in range(200)]
    assert led.count(True) == plan.BUDGET_PACKETS
    assert not budget.spend(TARGET, 700.0, hourly=True)
    for window in range(10):
        led += [budget.spend(TARGET, 700.0 + 65.0 * window + n * 0.2, hourly=True, lead=True) for n in range(80)]
    assert led.count(True) == plan.BUDGET_HOURLY_PACKETS


def test_the_budget_comes_back_after_an_hour() -> None:
    budget = Budget()
    spend_windows(budget, 4, hourly=True)
    assert not budget.spend(TARGET, 3000.0, hourly=True)
    assert budget.spend(TARGET, 3600.0, hourly=True)


def test_budgets_are_per_target_and_their_number_is_capped() -> None:
    budget = Budget()
    targets = [IPv4Address(int(TARGET) + n) for n in range(plan.BUDGET_MAX_TARGETS + 1)]
    assert [budget.spend(target, 0.0, hourly=True) for target in targets] == [True] * plan.BUDGET_MAX_TARGETS + [False]
    assert budget.spend(targets[-1], plan.HOUR, hourly=True)


V1 = Proven(TARGET, Form.V1, 0.02)
V0 = Proven(TARGET, Form.V0, 0.01)


def test_nomination_prefers_enhanced_gre_and_waits_a_little_for_it() -> None:
    assert nominate([], 1.0) is None
    assert nominate([V0], 0.01) is None
    assert nominate([V0, V1], 0.01) is V1
    assert nominate([V1], 0.0) is V1
    assert nominate([V0], 0.06) is V0


def test_nomination_prefers_what_won_the_last_time() -> None:
    assert nominate([V1], 0.01, Form.V0) is None
    assert nominate([V1, V0], 0.01, Form.V0) is V0
    assert nominate([V1], 0.06, Form.V0) is V1
