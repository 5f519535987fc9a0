"""Keys that change several times a second in real endpoints under load: no packet is lost for it, none comes twice."""

from __future__ import annotations

import os
import time
from typing import Any

from grepunch.lab.node import LabError
from grepunch.lab.topology import Lab
from grepunch.scenario import INNER
from tests.live import counted
from tests.live.endpoint_support import both_up
from tests.live.live_support import RunInLab

EVERY = 0.12  # seconds between changes, instead of 120
RATE = 400.0  # counted packets a second, each way
MOST_TIME = 1.0  # seconds a change may take on a busy machine before the test gives up

# What the endpoints alone run before their own code: other ages of keys, and a note of each that goes into use.
HURRY = """
from pathlib import Path

from grepunch.secure import exchange

exchange.REKEY_INITIATOR, exchange.REKEY_RESPONDER = {every}, {every} * 20
_go_live = exchange.KeyExchange._go_live


def _note(self, keys, now):
    with Path({changes!r}).open("a") as changes:
        changes.write("i" if keys.initiator else "r")
    _go_live(self, keys, now)


exchange.KeyExchange._go_live = _note
"""


def change_keys(times: int) -> dict[str, Any]:
    """Counted packets both ways until the keys have changed so often on either side."""
    with Lab("G2S", "G2") as lab:
        changes = lab.directory / "changes"
        changes.touch()
        (lab.directory / "sitecustomize.py").write_text(HURRY.format(every=EVERY, changes=str(changes)))
        usual = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = f"{lab.directory}:{usual}"
        scenario = both_up(lab)
        os.environ["PYTHONPATH"] = usual
        ends = [
            counted.start(scenario.peers[name].host, INNER[name], INNER[other], RATE) for name, other in ("ab", "ba")
        ]
        began = time.monotonic()  # from here on both listen
        before = changes.read_text()
        while min(changed := [changes.read_text().count(side) - before.count(side) for side in "ir"]) < times:
            if time.monotonic() - began > times * MOST_TIME:
                raise LabError(f"the keys changed {changed} times only")
            time.sleep(0.1)
        seconds = time.monotonic() - began
        ways = counted.finish(ends[0], ends[1], 60)
        return {
            "changed": changed,
            "seconds": seconds,
            "sent": [way["sent"] for way in ways],
            "lost": [sum(at >= began for at in way["lost"]) for way in ways],
            "repeated": [way["repeated"] for way in ways],
            "down": [e for name in "ab" for e in scenario.events(name) if e["event"] == "peer_down"],
            "left": scenario.end(),
        }


def judge_changes(seen: dict[str, Any], times: int) -> None:
    assert min(seen["changed"]) >= times, seen
    assert min(seen["sent"]) > seen["seconds"] * RATE / 4, seen
    assert seen["lost"] == seen["repeated"] == [0, 0], seen
    assert seen["down"] == seen["left"] == [], seen


def test_fifty_changes_of_keys_under_load_lose_nothing(run_in_lab: RunInLab) -> None:
    judge_changes(run_in_lab(change_keys, times=50), 50)
