"""What a tunnel survives: flushed NATs, killed peers, a rendezvous that goes away; and what it leaves behind."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from tests.live.endpoint_support import both_up, running
from tests.live.live_support import RunInLab

SEED = 47
RUNS = 6  # of two endpoints each: with SIGTERM and with SIGKILL 24 instants in all; `make soak` tries 200
LATEST = 3.0  # seconds after its start that an endpoint is ended


def flush_during_transfer(size: int, seconds: float) -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = both_up(lab)
        scenario.start_transfer_server()
        transfer = scenario.start_transfer(size, seconds=seconds)
        for _ in range(3):
            time.sleep(0.5)
            for side in (lab.a, lab.b):
                side.boxes[-1].node.forget_flows()
        still_running = transfer.process.poll() is None
        return {"during": still_running, "result": scenario.finish_transfer(transfer, 100), "end": scenario.end()}


def test_a_transfer_survives_both_nats_forgetting_everything(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(flush_during_transfer, size=12_000_000, seconds=4.0, timeout=110)
    assert seen["during"], "the transfer was over before the NATs forgot"
    assert seen["result"]["sha256_match"]
    assert seen["end"] == []


def flush_while_idle() -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = both_up(lab)
        time.sleep(1)
        for side in (lab.a, lab.b):
            side.boxes[-1].node.forget_flows()
        began = time.monotonic()
        while scenario.ping("b", 1)["lost"]:
            if time.monotonic() - began > 30:
                return {"back": False}
        return {"back": True, "events": [e["event"] for e in scenario.events("b")], "end": scenario.end()}


def test_an_idle_tunnel_is_back_after_both_nats_forgot(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(flush_while_idle)
    assert seen["back"]
    assert "peer_down" not in seen["events"]


def kill_and_restart(victim: str) -> dict[str, Any]:
    other = "b" if victim == "a" else "a"
    with Lab("G2S", "G2S") as lab:
        scenario = both_up(lab)
        process = running(scenario, victim).process
        process.kill()
        process.wait()
        began = time.monotonic()
        scenario.start(victim)
        scenario.wait_for(victim, "peer_up", 30)
        scenario.wait_for(other, "peer_up", 30, count=2)
        return {
            "seconds": time.monotonic() - began,
            "ping": scenario.ping("b", 5),
            "back": scenario.ping("a", 5),
            "end": scenario.end(),
        }


@pytest.mark.parametrize("victim", ["a", "b"])
def test_a_killed_peer_that_comes_back_is_up_without_help(run_in_lab: RunInLab, victim: str) -> None:
    seen = run_in_lab(kill_and_restart, victim=victim)
    assert seen["ping"]["lost"] == seen["back"]["lost"] == 0
    assert seen["seconds"] < 15
    assert seen["end"] == []


def lose_the_rendezvous() -> dict[str, Any]:
    with Lab("G2S", "G13") as lab:
        scenario = both_up(lab)
        assert scenario.meeting is not None
        scenario.meeting.process.kill()
        scenario.meeting.process.wait()
        ping = scenario.ping("b", 100, interval=0.05)
        stages = [event["stage"] for event in scenario.events("b") if event["event"] == "state_changed"]
        for side in (lab.a, lab.b):
            side.boxes[-1].node.forget_flows()
        scenario.start_rendezvous()
        running(scenario, "b").stop()
        scenario.start("b")
        scenario.wait_for("b", "peer_up", 20)
        return {"ping": ping, "stages": stages, "again": scenario.ping("b", 3)}


def test_the_tunnel_does_not_notice_that_the_rendezvous_is_gone(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(lose_the_rendezvous)
    assert seen["ping"]["lost"] == 0
    assert seen["stages"][-1] == "up"
    assert seen["again"]["lost"] == 0


def end_at_random(number: str, times: int, seed: int) -> list[dict[str, Any]]:
    """Start both, end each at a random instant of its own; what is left, and what of a killed run is cleaned up."""
    rng = random.Random(seed)
    seen = []
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        for _ in range(times):
            delays = {name: LATEST * rng.random() ** 2 for name in "ab"}  # the early instants are the eventful ones
            began = time.monotonic()
            for name in "ab":
                scenario.start(name)
            for name in sorted(delays, key=lambda n: delays[n]):
                time.sleep(max(0.0, began + delays[name] - time.monotonic()))
                running(scenario, name).process.send_signal(signal.Signals[number])
            codes = {name: running(scenario, name).wait(5) for name in "ab"}
            run: dict[str, Any] = {"delays": delays, "codes": codes}
            run["left"] = [what for name in "ab" for what in scenario.remains(name)]
            if number == "SIGKILL":
                run["cleaned"] = clean_up(scenario, rng.choice("ab"))
            seen.append(run)
    return seen


def clean_up(scenario: Scenario, name: str) -> list[str]:
    """One peer runs `--cleanup`, the other is started again and ended; what then still is left."""
    other = "b" if name == "a" else "a"
    scenario.start(name, "--cleanup")
    scenario.start(other)
    scenario.wait_for(other, "state_changed", 10, stage="starting")
    code, ended = running(scenario, name).wait(10), running(scenario, other).stop()
    left = [what for side in "ab" for what in scenario.remains(side)]
    return left + ([] if (code, ended) == (0, 143) else [f"exit codes {code} and {ended}"])


def test_nothing_is_left_after_sigterm_at_any_instant(run_in_lab: RunInLab) -> None:
    judge_terminated(run_in_lab(end_at_random, number="SIGTERM", times=RUNS, seed=SEED, timeout=110))


def judge_terminated(runs: list[dict[str, Any]]) -> None:
    for run in runs:
        assert run["left"] == [], run
        # before the program has its handlers a signal ends it as it ends any program, which a shell calls 143 too
        assert set(run["codes"].values()) <= {143, -signal.SIGTERM}, run


def test_nothing_is_left_of_a_killed_run_after_the_next_start_or_cleanup(run_in_lab: RunInLab) -> None:
    judge_killed(run_in_lab(end_at_random, number="SIGKILL", times=RUNS, seed=SEED + 1, timeout=110))


def judge_killed(runs: list[dict[str, Any]]) -> None:
    assert [run for run in runs if run["cleaned"]] == []
    assert any(run["left"] for run in runs), "no run was killed at an instant that leaves anything"
