"""An endpoint as a process: its clock, its signals, its command, its faults."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from tests.live.endpoint_support import running, status
from tests.live.live_support import RunInLab

SHIFTED_CLOCK = """
import sys, time
from pathlib import Path

_file, _time, _time_ns = Path({file!r}), time.time, time.time_ns
_callers = _file.with_name("clock-readers")
with _callers.open("a") as readers:
    print("started", file=readers)


def _shift():
    with _callers.open("a") as readers:
        print(sys._getframe(2).f_globals.get("__name__"), file=readers)
    return float(_file.read_text())


time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + int(_shift() * 1e9)
"""
DAY, YEAR = 86_400, 365 * 86_400


def clock_runs_wild() -> dict[str, Any]:
    """The wall clock of both endpoints alone is moved: a sandbox may not move the machine's, nor would it want to."""
    with Lab("G2S", "G2S") as lab:
        shift = lab.directory / "shift"
        shift.write_text("0")
        (lab.directory / "sitecustomize.py").write_text(SHIFTED_CLOCK.format(file=str(shift)))
        scenario = Scenario(lab)
        scenario.start_rendezvous()  # which does read the wall clock: the day is its to tell
        os.environ["PYTHONPATH"] = f"{lab.directory}:{os.environ.get('PYTHONPATH', '')}"
        scenario.start("a")
        scenario.start("b")
        scenario.up(20)
        lost = 0
        for offset in (DAY, -DAY, 10 * YEAR, -10 * YEAR):
            shift.write_text(str(offset))
            lost += scenario.ping("b", 15, interval=0.05)["lost"]
        readers = (lab.directory / "clock-readers").read_text().split()
        return {
            "lost": lost,
            "stages": [e["stage"] for n in "ab" for e in scenario.events(n) if e["event"] == "state_changed"],
            "uptime": [status(scenario, name)["uptime"] for name in "ab"],
            "readers": readers,
            "end": scenario.end(),
        }


def test_nothing_happens_when_the_wall_clock_jumps(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(clock_runs_wild)
    assert seen["lost"] == 0
    assert "lost" not in seen["stages"]
    assert all(0 < uptime < DAY / 2 for uptime in seen["uptime"])
    assert seen["readers"].count("started") == 2
    assert [reader for reader in seen["readers"] if reader.split(".")[0] in ("grepunch", "pptp")] == []
    assert seen["end"] == []


def remove_interface(scenario: Scenario) -> None:
    scenario.peers["b"].host.ip("link", "delete", "gp-b")


def two_signals(scenario: Scenario) -> None:
    """The peer is gone, so that a goodbye waits in vain; the second signal does not."""
    running(scenario, "a").process.kill()
    for _ in range(2):
        running(scenario, "b").process.send_signal(signal.SIGTERM)
        time.sleep(0.1)


def one_signal_to_the_command(scenario: Scenario) -> None:
    running(scenario, "b").process.send_signal(signal.SIGTERM)


COMMAND = "trap 'echo heard >&2; exit 9' TERM; echo runs >&2; while :; do sleep 0.1; done"
ENDS: dict[str, tuple[Callable[[Scenario], None], tuple[str, ...]]] = {
    "interface": (remove_interface, ()),
    "two_signals": (two_signals, ()),
    "command": (one_signal_to_the_command, ("--exec", "sh", "-c", COMMAND)),
}


def ended_by(what: str) -> dict[str, Any]:
    end, arguments = ENDS[what]
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b", *arguments)
        scenario.up(20)
        if arguments:
            running(scenario, "b").wait_for("runs", 5)
        began = time.monotonic()
        end(scenario)
        code = running(scenario, "b").wait(10)
        seconds = time.monotonic() - began
        verdict = next(e for e in scenario.events("b") if e["event"] == "verdict")
        return {
            "code": code,
            "seconds": seconds,
            "verdict": verdict,
            "stderr": running(scenario, "b").stderr,
            "left": scenario.remains("b"),
        }


@pytest.mark.parametrize(
    ("what", "code", "result"),
    [("interface", 15, "link_lost"), ("two_signals", 143, "terminated"), ("command", 143, "terminated")],
)
def test_it_ends_at_once_with_its_verdict_and_leaves_nothing(
    run_in_lab: RunInLab, what: str, code: int, result: str
) -> None:
    seen = run_in_lab(ended_by, what=what)
    assert (seen["code"], seen["verdict"]["result"]) == (code, result), seen
    assert seen["seconds"] < 8
    assert seen["left"] == []
    assert "Traceback" not in seen["stderr"]
    assert "asyncio" not in seen["stderr"]
    if what == "interface":
        assert "gp-b" in seen["verdict"]["detail"]
    if what == "command":
        assert "heard" in seen["stderr"]
