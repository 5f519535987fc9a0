"""NATs that pass GRE only for a PPTP call they have seen: the real programs come up through them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from tests.live.live_support import RunInLab


def come_up(nat_a: str, nat_b: str) -> dict[str, Any]:
    with Lab(nat_a, nat_b) as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        scenario.up(30)
        (up,) = [event for event in scenario.events("b") if event["event"] == "peer_up"]
        ping, transfer = scenario.ping("b", 5), scenario.transfer(1_000_000)
        flows = [asdict(flow) for side in (lab.a, lab.b) for flow in side.boxes[-1].node.flows()]
        return {
            "up": up,
            "ping": ping,
            "transfer": transfer,
            "flows": [{k: flow[k] for k in ("protocol", "helper", "expected", "assured")} for flow in flows],
            "end": scenario.end(),
        }


@pytest.mark.parametrize(("nat_a", "nat_b"), [("G5", "G5"), ("G5", "G2"), ("G3", "G5")])
def test_a_mirrored_handshake_passes_nats_that_want_to_see_a_call(run_in_lab: RunInLab, nat_a: str, nat_b: str) -> None:
    seen = run_in_lab(come_up, nat_a=nat_a, nat_b=nat_b, timeout=60)
    print(seen)
    assert seen["up"]["mirrored"]
    assert seen["up"]["form"] == "v1-0/0"
    assert seen["ping"]["lost"] == 0
    assert seen["transfer"]["sha256_match"]
    assert seen["end"] == []
    helped = [flow for flow in seen["flows"] if flow["helper"] == "pptp"]
    admitted = [flow for flow in seen["flows"] if flow["protocol"] == 47 and flow["expected"]]
    assert len(helped) == sum(nat in ("G3", "G5") for nat in (nat_a, nat_b))
    # G3 passes probes of its own accord, and what it knows already it need not expect
    assert len(admitted) == [nat_a, nat_b].count("G5")
    assert all(flow["assured"] for flow in helped + admitted)
