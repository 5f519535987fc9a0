"""Two hosts behind one NAT call the same peer: the second is told why it cannot, harms nobody, and has the relay."""

from __future__ import annotations

import time
from typing import Any

from grepunch.lab.topology import Lab, SidePlan
from grepunch.scenario import Scenario
from tests.live.endpoint_support import THIRD, add_third_peer, ping
from tests.live.live_support import RunInLab


def moves_of(scenario: Scenario) -> list[dict[str, Any]]:
    return [e for e in scenario.events("b") if e["event"] in ("path_changed", "peer_down")]


def two_behind_one(nat: str) -> dict[str, Any]:
    with Lab("G2S", SidePlan.of(nat, hosts=2)) as lab:
        scenario = Scenario(lab, punch='relay = "auto"', relay=100.0)
        add_third_peer(scenario, lab.b.hosts[1])
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        scenario.wait_for("b", "peer_up", 20)
        deadline = time.monotonic() + 20
        while scenario.status("b")["peers"][0]["carrier"] != "direct" and time.monotonic() < deadline:
            time.sleep(0.2)
        moves = moves_of(scenario)
        scenario.start("c", "--set", "punch.relay=never", "--wait", "6s")
        beside = scenario.ping("b", 40, interval=0.1)
        verdict, code = scenario.verdict("c", 30)
        scenario.start("c")
        up = scenario.wait_for("c", "peer_up", 20)
        reached = ping(scenario.peers["a"].host, THIRD)
        changes = moves_of(scenario)[len(moves) :]
        reason = scenario.status("c")["peers"][0].get("relay_reason", "")
        return {
            "verdict": verdict, "code": code, "beside": beside, "up": up, "reached": reached, "changes": changes,
            "reason": reason,
        }  # fmt: skip


def test_the_second_host_is_told_so_and_gets_the_relay(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(two_behind_one, nat="G2", timeout=110)
    assert (seen["verdict"]["result"], seen["code"]) == ("same_slot_taken", 12)
    assert "another host behind the same NAT" in seen["verdict"]["detail"]
    assert seen["beside"]["lost"] == 0, "the first host's tunnel was troubled"
    assert seen["changes"] == [], "and it did not move"
    assert seen["up"]["carrier"] == "relay"
    assert seen["reached"]
    assert "another host behind the same NAT" in seen["reason"]
