"""NAT class against NAT class on a virtual clock: which path is proven, and how soon."""

from __future__ import annotations

from itertools import product

import pytest

from grepunch.ports import Form
from grepunch.punch import plan
from grepunch.punch.plan import Schedule
from grepunch.punch.puncher import Phase, WindowEnded
from grepunch.punch.report import Direction, Fate, diagnose
from tests.punch.simnat import CLASSES, Blocked, Nat, World, both_proven, find_each_other, meet

START = 0.3
IMPOSSIBLE = {("G7V0", "G7V1"), ("G7V1", "G7V0")}  # no form is left
PAIRS = [pair for pair in product(CLASSES, CLASSES) if pair not in IMPOSSIBLE]
SYNCHRONISED = Schedule.with_rendezvous(0.05)
SEEDS = range(50)


def seconds(world: World) -> float:
    """From the common start until both have proven a path."""
    return max(world.a.proven[0][0], world.b.proven[0][0]) - START


@pytest.mark.parametrize("skew", [0.0, 0.5, -0.5, 5.0, -5.0])
def test_every_pair_proves_a_path_with_a_rendezvous(skew: float) -> None:
    times = {}
    for pair in PAIRS:
        world = World(*pair, seed=1)
        meet(world, SYNCHRONISED, skew=skew)
        assert both_proven(world), pair
        times[pair] = seconds(world)
    worst = max(times, key=lambda pair: times[pair])
    print(f"skew {skew:+}: median {sorted(times.values())[len(times) // 2]:.3f} s, worst {times[worst]:.3f} s {worst}")
    assert times[worst] < 1.0


@pytest.mark.parametrize("routers", [1, 3])
def test_lost_packets_and_lost_answers_cost_little(routers: int) -> None:
    times = []
    for pair, seed in product(PAIRS, range(4)):
        world = World(*pair, seed=seed, loss=0.02, routers=routers)
        meet(world, SYNCHRONISED, skew=0.1)
        assert both_proven(world), (pair, seed)
        times.append(seconds(world))
    times.sort()
    print(f"{routers} routers: p50 {times[len(times) // 2]:.3f} s, p99 {times[int(len(times) * 0.99)]:.3f} s")
    assert times[len(times) // 2] < 0.5
    assert times[int(len(times) * 0.99)] < 1.5


def test_routers_that_never_answer_cost_the_lead() -> None:
    for pair in PAIRS:
        world = World(*pair, seed=2, routers_answer=False)
        meet(world, SYNCHRONISED, skew=0.1)
        assert both_proven(world), pair
        assert seconds(world) < 1.0, pair


def test_the_common_start_suffices_when_open_never_arrives() -> None:
    for pair in PAIRS:
        world = World(*pair, seed=3)
        meet(world, SYNCHRONISED, skew=0.1, signalling=False)
        assert both_proven(world), pair
        assert seconds(world) < 1.0, pair


def test_a_poisoned_start_is_healed_by_silence_and_a_new_common_start() -> None:
    world = World("G13", "G13", seed=4)
    schedule = Schedule.with_rendezvous(0.05)
    meet(world, schedule, skew=5.0, signalling=False)  # nobody says "open": a poisons b's NAT
    assert not world.a.proven
    assert not world.b.proven
    before = world.now
    meet(world, schedule, skew=0.0)
    assert both_proven(world)
    assert max(world.a.proven[0][0], world.b.proven[0][0]) - before < 1.5


def test_both_forms_are_proven_where_both_pass_and_one_where_one_does() -> None:
    for pair, forms in [(("G2", "G2"), set(Form)), (("G2", "G7V0"), {Form.V1}), (("G7V1", "G13"), {Form.V0})]:
        world = World(*pair, seed=5)
        meet(world, SYNCHRONISED)
        world.run(world.now + 2.0)
        assert {path.form for _, path in world.a.proven} == forms, pair
        assert {path.form for _, path in world.b.proven} == forms, pair


def test_both_sides_fall_silent_when_both_know() -> None:
    world = World("G2", "G13", seed=6)
    meet(world, SYNCHRONISED)
    world.run(world.now + 1.0)
    sent = len(world.a.full_sent) + len(world.b.full_sent)
    world.run(world.now + 20.0)
    assert len(world.a.full_sent) + len(world.b.full_sent) == sent
    assert world.a.puncher is not None
    assert world.a.puncher.phase is Phase.FULL


def test_blocked_gre_ends_in_a_report_that_says_where() -> None:
    world = World((Nat,), (Blocked,), seed=7)
    meet(world, SYNCHRONISED)
    reports = [event.report for side in (world.a, world.b) for _, event in side.ended]
    assert len(reports) == 2
    ours, theirs = (report.summaries() for report in reports)
    assert {(f.direction, f.fate) for f in diagnose(ours, theirs)} == {
        (Direction.OUTWARD, Fate.DIED_ON_PEER_SIDE),
        (Direction.INWARD, Fate.DIED),
    }


def test_lead_packets_never_reach_the_other_nat() -> None:
    for pair in PAIRS:
        world = World(*pair, seed=8)
        meet(world, SYNCHRONISED)
        assert max(world.a.lead_ttls, default=0) <= len(world.a.nats) + len(world.routers)


def test_the_budget_is_never_exceeded() -> None:
    worlds = []
    for pair, seed in product([("G13", "G13"), ("G2", "G4"), ("G15", "G7V0")], range(3)):
        classes = [(Blocked,) if name == "G4" else CLASSES[name] for name in pair]
        world = World(*classes, seed=seed, loss=0.3)
        meet(world, SYNCHRONISED, skew=0.3, windows=6)
        worlds.append(world)
    for side in (side for world in worlds for side in (world.a, world.b)):
        times = side.full_sent
        assert all(b - a >= plan.BUDGET_PERIOD for a, b in zip(times, times[plan.BUDGET_PACKETS :], strict=False))
        assert side.proven or len(times) <= plan.BUDGET_HOURLY_PACKETS


@pytest.mark.parametrize("skews", [(0.2, 20.0), (60.0, 600.0)])
def test_two_poisonable_nats_meet_without_a_rendezvous(skews: tuple[float, float]) -> None:
    times = []
    for seed in SEEDS:
        world = World("G13", "G13", seed=seed, loss=0.02)
        found = find_each_other(world, skew=world.random.uniform(*skews), limit=180.0)
        assert found is not None, f"seed {seed}"
        times.append(found)
        for side in (world.a, world.b):
            sent = side.full_sent
            assert all(b - a >= plan.BUDGET_PERIOD for a, b in zip(sent, sent[plan.BUDGET_PACKETS :], strict=False))
    times.sort()
    print(f"skew {skews}: p50 {times[25]:.1f} s, p90 {times[45]:.1f} s, max {times[-1]:.1f} s")


def test_every_pair_meets_without_a_rendezvous() -> None:
    for number, pair in enumerate(PAIRS):
        world = World(*pair, seed=number)
        found = find_each_other(world, skew=world.random.uniform(0.2, 40.0), limit=180.0)
        assert found is not None, pair


def test_long_timers_of_the_nat_are_served_by_long_gaps() -> None:
    for seed in range(10):
        world = World("G13", "G13", seed=seed)
        for side in (world.a, world.b):
            side.nats[0].unreplied = 60.0
        found = find_each_other(world, skew=3.0, limit=300.0, schedule=Schedule.alone(long_timers=True))
        assert found is not None, f"seed {seed}"


def test_the_window_is_reported_without_a_rendezvous_too() -> None:
    world = World((Nat,), (Blocked,), seed=9)
    assert find_each_other(world, skew=0.0, limit=100.0) is None
    assert [event.silent_for for _, event in world.a.ended if isinstance(event, WindowEnded)] == [None]
