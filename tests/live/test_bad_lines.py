"""A tunnel over lines that lose, repeat, reorder, alter and delay, and over links that become narrow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from grepunch.lab.capture import read
from grepunch.lab.impairment import Impairment
from grepunch.lab.topology import Lab, SidePlan
from grepunch.scenario import Scenario
from tests.live.endpoint_support import both_up, memory, running
from tests.live.live_support import RunInLab

BAD = Impairment(loss=0.05, duplication=0.02, reorder=0.10, corruption=0.01, delay=0.020, jitter=0.005)
GRE = 47
FRAGMENT = 0x3FFF  # RFC 791: more fragments, and the offset
SILENT = (
    "table ip mute { chain output { type filter hook output priority filter; "
    "icmp type destination-unreachable icmp code frag-needed drop; }; }"
)


def weigh(scenario: Scenario) -> dict[str, tuple[int, int]]:
    """Memory in octets and open descriptors of both endpoints."""
    pids = {name: running(scenario, name).process.pid for name in "ab"}
    return {name: (memory(pid), sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())) for name, pid in pids.items()}


def endure(seconds: float, at_once: int, octets: int, warm_up: float) -> dict[str, Any]:
    """Hashed streams one after the other, ``at_once`` at a time, for so long, with a pulse beside them."""
    with Lab(SidePlan.of("G2S", line=BAD), "G2") as lab:
        scenario = both_up(lab, timeout=40)
        scenario.start_transfer_server()
        pulse = scenario.start_pulse(octets=1200)
        before: dict[str, tuple[int, int]] = {}
        results: list[dict[str, Any]] = []
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if not before and time.monotonic() - began > warm_up:
                before = weigh(scenario)
            transfers = [scenario.start_transfer(octets) for _ in range(at_once)]
            results += [scenario.finish_transfer(transfer, 120) for transfer in transfers]
        after = weigh(scenario)
        before = before or after
        pulses = scenario.finish_pulse(pulse)
        assert lab.a.line is not None
        return {
            "streams": 2 * sum(result["sha256_match"] for result in results),
            "wrong": sum(not result["sha256_match"] for result in results),
            "altered": sum(p.altered for p in pulses.values()),
            "repeated": sum(p.repeated for p in pulses.values()),
            "lost": [p.sent - pulses["b" if n == "a" else "a"].received for n, p in pulses.items()],
            "sent": [p.sent for p in pulses.values()],
            "grown": {name: after[name][0] - before[name][0] for name in "ab"},
            "descriptors": {name: [before[name][1], after[name][1]] for name in "ab"},
            "states": [e for n in "ab" for e in scenario.events(n) if e["event"] == "peer_down"],
            "line": lab.a.line.end(),
            "left": scenario.end(),
        }


def judge_endurance(seen: dict[str, Any], streams: int) -> None:
    assert seen["streams"] >= streams, seen
    assert seen["wrong"] == seen["altered"] == seen["repeated"] == 0, seen
    assert seen["states"] == [], seen
    assert seen["left"] == [], seen
    assert max(seen["grown"].values()) < 2_000_000, seen
    assert all(before == after for before, after in seen["descriptors"].values()), seen
    assert all(min(line[harm] for harm in ("lost", "corrupted", "duplicated", "reordered")) for line in seen["line"])


@pytest.mark.alone
def test_a_bad_line_costs_time_and_nothing_else(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(endure, seconds=10.0, at_once=4, octets=60_000, warm_up=2.0, timeout=110)
    judge_endurance(seen, streams=8)


def narrow(sizes: list[int], muted: bool, pause: float) -> dict[str, Any]:
    """The link before b becomes as wide as each of the sizes in turn, under a steady load of large packets."""
    with Lab("G2", "G2S") as lab:
        if muted:
            for node in (lab.wan, *(box.node for box in (*lab.a.boxes, *lab.b.boxes))):
                node.nft(SILENT)
        scenario = both_up(lab)
        scenario.start_transfer_server()
        transfer = scenario.start_transfer(2_000_000, seconds=(len(sizes) * pause + 2) / 2)
        capturing = [lab.wan.capture(interface) for interface in ("a", "b")]
        pulse = scenario.start_pulse(octets=1300)
        time.sleep(2.0)
        marks = []
        for size in sizes:
            marks.append(time.monotonic())
            lab.set_link_mtu(lab.wan, "b", size)
            time.sleep(pause)
        result = scenario.finish_transfer(transfer, 100)
        pulses = scenario.finish_pulse(pulse)
        for program in capturing:
            program.stop()
        packets = [p for side in "ab" for _, p in read(lab.directory / f"wan-{side}.pcap") if p[9] == GRE]
        spans = list(zip(marks, [*marks[1:], float("inf")], strict=True))
        return {
            "holes": [max(p.outage(*span) for p in pulses.values()) for span in spans],
            "fragments": sum(int.from_bytes(p[6:8], "big") & FRAGMENT != 0 for p in packets),
            "packets": len(packets),
            "whole": result["sha256_match"],
            "altered": sum(p.altered for p in pulses.values()),
            "left": scenario.end(),
        }


@pytest.mark.alone
@pytest.mark.parametrize("muted", [False, True])
def test_a_path_that_becomes_narrow_is_black_for_two_seconds_at_most(run_in_lab: RunInLab, muted: bool) -> None:
    seen = run_in_lab(narrow, sizes=[1280, 1000, 1500], muted=muted, pause=3.0)
    assert max(seen["holes"]) <= 2.0, seen
    assert seen["fragments"] == 0, seen
    assert seen["packets"] > 100
    assert seen["whole"], seen
    assert seen["altered"] == 0
    assert seen["left"] == []
