"""A tunnel under load while its NATs reboot, its addresses change, its host moves or sleeps."""

from __future__ import annotations

import signal
import time
from ipaddress import IPv4Address
from typing import Any

import pytest

from grepunch.lab.nat import GreTimers
from grepunch.lab.topology import Lab, SidePlan
from grepunch.scenario import Scenario
from tests.live.endpoint_support import both_up, running
from tests.live.live_support import RunInLab

NEW = {"a": IPv4Address("198.51.100.77"), "b": IPv4Address("203.0.113.77")}


class Load:
    """A transfer and a pulse through a tunnel that is up, and what they say in the end."""

    def __init__(self, scenario: Scenario, seconds: float, octets: int = 4_000_000) -> None:
        self.scenario = scenario
        self.server = scenario.start_transfer_server()
        self.transfer = scenario.start_transfer(octets, seconds=seconds / 2)
        self.pulse = scenario.start_pulse()
        self.marks: list[float] = []
        time.sleep(0.5)

    def mark(self) -> None:
        """Something happens now."""
        self.marks.append(time.monotonic())

    def end(self, timeout: float = 120.0) -> dict[str, Any]:
        """How long each mark's outage lasted on either side, whether the transfer was whole, and what was said."""
        result = self.scenario.finish_transfer(self.transfer, timeout)
        pulses = self.scenario.finish_pulse(self.pulse)
        untils = [*self.marks[1:], float("inf")]
        spans = list(zip(self.marks, untils, strict=True))
        return {
            "outages": [max(pulse.outage(*span) for pulse in pulses.values()) for span in spans],
            "whole": result["sha256_match"],
            "altered": sum(pulse.altered for pulse in pulses.values()),
            "down": [e for name in "ab" for e in self.scenario.events(name) if e["event"] == "peer_down"],
            "left": self.scenario.end(),
        }


def intact(seen: dict[str, Any]) -> bool:
    """Whether the transfer came through, and the session never ended."""
    return seen["whole"] and not seen["altered"] and seen["down"] == [] and seen["left"] == []


def reboots(nat_a: str, nat_b: str, times: int, pause: float) -> dict[str, Any]:
    with Lab(nat_a, nat_b) as lab:
        load = Load(both_up(lab), seconds=times * pause + 2)
        for number in range(times):
            load.mark()
            side = lab.b if number % 2 else lab.a
            for box in side.boxes:
                box.reboot()
            time.sleep(pause)
        return load.end()


@pytest.mark.parametrize(("nat_a", "nat_b"), [("G2S", "G15")])
def test_a_transfer_outlives_ten_reboots_of_nats(run_in_lab: RunInLab, nat_a: str, nat_b: str) -> None:
    seen = run_in_lab(reboots, nat_a=nat_a, nat_b=nat_b, times=10, pause=0.7)
    assert len(seen["outages"]) == 10
    assert max(seen["outages"]) <= 5.0, seen
    assert intact(seen), seen


def new_addresses(pause: float) -> dict[str, Any]:
    """On side a, then on side b, then on both at once."""
    with Lab("G2S", "G2") as lab:
        load = Load(both_up(lab), seconds=3 * pause + 2)
        for number, sides in enumerate(("a", "b", "ab")):
            load.mark()
            for side in sides:
                lab.change_external_address(side, NEW[side] + number)
            time.sleep(pause)
        return load.end()


def test_a_transfer_outlives_new_external_addresses(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(new_addresses, pause=5.0)
    assert max(seen["outages"]) <= 10.0, seen  # the longest pause of all, should it outlast the one after a change
    assert intact(seen), seen


def roam(name: str) -> dict[str, Any]:
    with Lab("G2S", "G2", c="G15") as lab:
        load = Load(both_up(lab), seconds=6)
        load.mark()
        lab.move(load.scenario.peers[name].host, "c")
        time.sleep(4)
        return load.end()


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_transfer_outlives_its_host_moving_to_another_network(run_in_lab: RunInLab, name: str) -> None:
    seen = run_in_lab(roam, name=name)
    assert max(seen["outages"]) <= 3.0, seen
    assert intact(seen), seen


def sleep_and_wake(name: str, seconds: float) -> dict[str, Any]:
    with Lab("G2S", "G2") as lab:
        load = Load(both_up(lab), seconds=seconds + 4)
        process = running(load.scenario, name).process
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        load.mark()
        process.send_signal(signal.SIGCONT)
        time.sleep(3)
        return load.end()


@pytest.mark.alone
def test_a_transfer_outlives_a_stopped_endpoint(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(sleep_and_wake, name="a", seconds=7.0)
    assert max(seen["outages"]) <= 2.0, seen
    assert intact(seen), seen


def idle(unreplied: int, replied: int, seconds: float) -> dict[str, Any]:
    """Nothing to send through NATs that remember GRE for so many seconds; then a ping each way."""
    timers = GreTimers(unreplied, replied)
    with Lab(SidePlan.of("G2S", gre_timers=timers), SidePlan.of("G2", gre_timers=timers)) as lab:
        scenario = both_up(lab)
        time.sleep(seconds)
        stages = [e["stage"] for n in "ab" for e in scenario.events(n) if e["event"] == "state_changed"]
        ping, back = scenario.ping("a", 3), scenario.ping("b", 3)
        return {"stages": stages, "ping": {"lost": ping["lost"] + back["lost"]}, "end": scenario.end()}


def test_an_idle_tunnel_stays_up_through_nats_with_short_memory(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(idle, unreplied=5, replied=6, seconds=12.0)
    assert seen["stages"][-1] == "up"
    assert "lost" not in seen["stages"]
    assert seen["ping"]["lost"] == 0
    assert seen["end"] == []
