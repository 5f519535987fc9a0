"""`make soak`: what the live tests try for seconds, at full length."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from grepunch.lab.topology import Lab
from tests.live.endpoint_support import both_up, running
from tests.live.live_support import RunInLab
from tests.live.test_bad_lines import endure, judge_endurance, narrow
from tests.live.test_endpoint_survival import end_at_random, judge_killed, judge_terminated
from tests.live.test_movement import Load, idle, intact, new_addresses, reboots, sleep_and_wake
from tests.live.test_ordinary_load import judge_many_clients, many_clients
from tests.live.test_rekeys_under_load import change_keys, judge_changes
from tests.live.test_relay import AUTO, FAST, judge_there_and_back, there_and_back
from tests.sim.test_sim_rekeys import change_keys_under_load

MINUTE = 60.0


def test_ten_minutes_on_a_bad_line(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(endure, seconds=10 * MINUTE, at_once=5, octets=200_000, warm_up=2 * MINUTE, timeout=15 * MINUTE)
    print(seen)
    judge_endurance(seen, streams=100)


@pytest.mark.parametrize("name", ["a", "b"])
def test_an_endpoint_that_was_stopped_for_a_minute(run_in_lab: RunInLab, name: str) -> None:
    seen = run_in_lab(sleep_and_wake, name=name, seconds=MINUTE, timeout=4 * MINUTE)
    print(seen)
    assert max(seen["outages"]) <= 2.0, seen
    assert intact(seen), seen


@pytest.mark.parametrize(("nat_a", "nat_b"), [("G2", "G2"), ("G2S", "G1"), ("G15", "G3"), ("G1L", "G12")])
def test_thirty_reboots(run_in_lab: RunInLab, nat_a: str, nat_b: str) -> None:
    seen = run_in_lab(reboots, nat_a=nat_a, nat_b=nat_b, times=30, pause=1.0, timeout=4 * MINUTE)
    print(seen)
    assert max(seen["outages"]) <= 5.0, seen
    assert intact(seen), seen


def test_new_external_addresses_with_time_between(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(new_addresses, pause=20.0, timeout=4 * MINUTE)
    print(seen)
    assert max(seen["outages"]) <= 10.0, seen
    assert intact(seen), seen


@pytest.mark.parametrize("muted", [False, True])
def test_a_path_that_becomes_narrow_again_and_again(run_in_lab: RunInLab, muted: bool) -> None:
    sizes = [1280, 1000, 1500, 1400, 600, 1500, 1280]
    seen = run_in_lab(narrow, sizes=sizes, muted=muted, pause=10.0, timeout=4 * MINUTE)
    print(seen)
    assert max(seen["holes"]) <= 2.0, seen
    assert seen["fragments"] == 0, seen
    assert seen["whole"], seen


def test_ten_minutes_through_a_nat_with_short_memory(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(idle, unreplied=5, replied=30, seconds=10 * MINUTE, timeout=12 * MINUTE)
    assert seen["stages"][-1] == "up"
    assert "lost" not in seen["stages"]
    assert seen["ping"]["lost"] == 0


def live_in_a_call(busy: float, quiet: float) -> dict[str, Any]:
    """A tunnel through NATs that admit GRE for a PPTP call alone, with traffic and then without."""
    with Lab("G5", "G5") as lab:
        scenario = both_up(lab, timeout=40)
        load = Load(scenario, seconds=busy, octets=20_000_000)
        load.mark()
        result = scenario.finish_transfer(load.transfer, busy + MINUTE)
        pulses = scenario.finish_pulse(load.pulse)
        time.sleep(quiet)
        stages = [e["stage"] for n in "ab" for e in scenario.events(n) if e["event"] == "state_changed"]
        mirrored = [e["mirrored"] for e in scenario.events("b") if e["event"] == "peer_up"]
        lost = [scenario.ping(name, 5)["lost"] for name in "ab"]
        return {
            "whole": result["sha256_match"],
            "outages": [pulse.outage(load.marks[0]) for pulse in pulses.values()],
            "stages": stages,
            "mirrored": mirrored,
            "lost": lost,
            "left": scenario.end(),
        }


def test_ten_minutes_of_traffic_and_fifteen_of_none_in_a_mirrored_call(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(live_in_a_call, busy=10 * MINUTE, quiet=15 * MINUTE, timeout=29 * MINUTE)
    print(seen)
    assert seen["mirrored"] == [True], seen
    assert seen["whole"], seen
    assert max(seen["outages"]) <= 2.0, seen
    assert seen["stages"][-1] == "up", seen
    assert "lost" not in seen["stages"], seen
    assert seen["lost"] == [0, 0], seen
    assert seen["left"] == [], seen


def shut_in(times: int, pause: float, options: dict[str, Any]) -> dict[str, Any]:
    """Reboots of a NAT that takes strays, where it is always the peer's packets that come first afterwards."""
    with Lab("G13", "G2") as lab:
        load = Load(both_up(lab, **options), seconds=times * pause + 2)
        process = running(load.scenario, "a").process
        for _ in range(times):
            load.mark()
            process.send_signal(signal.SIGSTOP)
            for box in lab.a.boxes:
                box.reboot()
            time.sleep(0.3)
            process.send_signal(signal.SIGCONT)
            time.sleep(pause)
        return load.end(4 * MINUTE)


# such a NAT lets nothing out for 30 s, whatever anybody does; TCP inside, which knows nothing, tries again ever later
@pytest.mark.parametrize(
    ("pause", "options", "longest"),
    [(100.0, {}, 40.0), (45.0, {"punch": AUTO, "relay": FAST}, 10.0)],
    ids=["alone", "with the relay"],
)
def test_reboots_of_a_nat_that_takes_strays(
    run_in_lab: RunInLab, pause: float, options: dict[str, Any], longest: float
) -> None:
    seen = run_in_lab(shut_in, times=3, pause=pause, options=options, timeout=10 * MINUTE)
    print(seen)
    assert max(seen["outages"]) <= longest, seen
    assert intact(seen), seen


def test_a_hundred_megabits_a_second_move_from_the_relay_to_gre_and_back(run_in_lab: RunInLab) -> None:
    """For a machine at leisure: two cores of 2020 relay little more, and drop what is more."""
    rate, size = 9700.0, 1300
    seen = run_in_lab(there_and_back, rates=(rate, 100.0), size=size, timeout=110)
    print({"mbit_s": [8e-6 * size * way["sent"] / way["seconds"] for way in seen["ways"]]})
    print({"in the hole": [len([at for at in way["lost"] if at >= seen["began"]]) for way in seen["ways"]]})
    judge_there_and_back(seen)
    way = seen["ways"][0]
    assert way["sent"] * size * 8 >= 100e6 * way["seconds"], "the sender did not keep the rate"


def test_a_hundred_instants_of_sigterm(run_in_lab: RunInLab) -> None:
    judge_terminated(run_in_lab(end_at_random, number="SIGTERM", times=50, seed=48, timeout=15 * MINUTE))


def test_a_hundred_instants_of_sigkill(run_in_lab: RunInLab) -> None:
    judge_killed(run_in_lab(end_at_random, number="SIGKILL", times=50, seed=49, timeout=25 * MINUTE))


def test_a_thousand_clients_cut_off_wherever_they_stand(run_in_lab: RunInLab) -> None:
    judge_many_clients(run_in_lab(many_clients, cuts=1000, timeout=4 * MINUTE), 1000)


def test_a_thousand_changes_of_keys_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    change_keys_under_load(monkeypatch, 1000)


def test_a_thousand_changes_of_keys_of_real_endpoints_under_load(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(change_keys, times=1000, timeout=25 * MINUTE)
    print(seen)
    judge_changes(seen, 1000)
