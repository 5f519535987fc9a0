"""What a tunnel survives: flushed NATs, killed peers, a rendezvous that goes away; and what it leaves behind."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from tests.live.live_support import RunInLab

SEED = 47


def started(lab: Lab) -> Scenario:
    """Both peers up through a rendezvous."""
    scenario = Scenario(lab)
    scenario.start_rendezvous()
    scenario.start("a")
    scenario.start("b")
    scenario.up(20)
    return scenario


def flush_during_transfer(size: int) -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = started(lab)
        scenario.start_transfer_server()
        running = scenario.start_transfer(size)
        for _ in range(3):
            time.sleep(0.7)
            for side in (lab.a, lab.b):
                side.boxes[-1].node.forget_flows()
        still_running = running.process.poll() is None
        return {"during": still_running, "result": scenario.finish_transfer(running, 100), "end": scenario.end()}


def test_a_transfer_survives_both_nats_forgetting_everything(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(flush_during_transfer, size=60_000_000, timeout=130)
    assert seen["during"], "the transfer was over before the NATs forgot: make it larger"
    assert seen["result"]["sha256_match"]
    assert seen["end"] == []


def flush_while_idle() -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = started(lab)
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
        scenario = started(lab)
        running = scenario.peers[victim].running
        assert running is not None
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
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
        scenario = started(lab)
        meeting = scenario.meeting
        assert meeting is not None
        meeting.process.send_signal(signal.SIGKILL)
        meeting.process.wait()
        ping = scenario.ping("b", 100, interval=0.05)
        stages = [event["stage"] for event in scenario.events("b") if event["event"] == "state_changed"]
        for side in (lab.a, lab.b):
            side.boxes[-1].node.forget_flows()
        scenario.start_rendezvous()
        scenario.peers["b"].running.stop()  # type: ignore[union-attr]
        scenario.start("b")
        scenario.wait_for("b", "peer_up", 20)
        return {"ping": ping, "stages": stages, "again": scenario.ping("b", 3)}


def test_the_tunnel_does_not_notice_that_the_rendezvous_is_gone(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(lose_the_rendezvous)
    assert seen["ping"]["lost"] == 0
    assert seen["stages"][-1] == "up"
    assert seen["again"]["lost"] == 0


def end_at_random(number: str, times: int, seed: int) -> list[dict[str, Any]]:
    """Start both, end one or both at a random instant; what is left, and what is left after ``--cleanup``."""
    rng = random.Random(seed)
    seen = []
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        for _ in range(times):
            delay = rng.uniform(0.0, 1.6)
            for name in "ab":
                scenario.start(name)
            time.sleep(delay)
            for name in "ab":
                scenario.peers[name].running.process.send_signal(signal.Signals[number])  # type: ignore[union-attr]
            codes = [scenario.peers[name].running.wait(5) for name in "ab"]  # type: ignore[union-attr]
            left = [what for name in "ab" for what in scenario.remains(name)]
            if number == "SIGKILL":
                for name, peer in scenario.peers.items():
                    scenario.command(name, peer.role, str(peer.profile), "--cleanup")
            cleaned = [what for name in "ab" for what in scenario.remains(name)]
            seen.append({"delay": delay, "codes": codes, "left": left, "cleaned": cleaned})
    return seen


def test_nothing_is_left_after_sigterm_at_any_instant(run_in_lab: RunInLab) -> None:
    for run in run_in_lab(end_at_random, number="SIGTERM", times=12, seed=SEED, timeout=100):
        assert run["left"] == [], run
        # before the program has its handlers a signal ends it as it ends any program
        assert set(run["codes"]) <= {143, -signal.SIGTERM}, run


def test_nothing_is_left_of_a_killed_run_after_cleanup(run_in_lab: RunInLab) -> None:
    for run in run_in_lab(end_at_random, number="SIGKILL", times=8, seed=SEED, timeout=100):
        assert run["cleaned"] == [], run
