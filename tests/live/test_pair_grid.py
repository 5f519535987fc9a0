"""A dozen cells of the grid in every run: two real endpoints behind two real NATs, with their hand-written outcome."""

from __future__ import annotations

from typing import Any

import pytest

from grepunch.lab.topology import Lab, SidePlan
from grepunch.scenario import Scenario
from tests.live import grid_expected as expected
from tests.live.grid import Cell, judge, run_cell
from tests.live.live_support import RunInLab


@pytest.mark.parametrize(
    ("nat_a", "nat_b", "skew"),
    [
        ("G2S", "G2S", 0.0),
        ("G2S", "G2S", 0.5),
        ("G13", "G13", -0.5),
        ("G1", "G13", 0.0),
        ("G1", "G1L", 0.5),
        ("G15", "G2S", 0.0),
        ("G0", "G2", -0.5),
        ("G13", "G15", 0.5),
    ],
)
def test_a_pair_comes_up_with_a_rendezvous(run_in_lab: RunInLab, nat_a: str, nat_b: str, skew: float) -> None:
    cell = Cell(nat_a, nat_b, skew, rendezvous=True)
    row = judge(cell, run_in_lab(run_cell, nat_a=nat_a, nat_b=nat_b, skew=skew, rendezvous=True))
    assert row.ok, row


@pytest.mark.parametrize(("nat_a", "nat_b", "skew"), [("G2S", "G2S", 0.5), ("G1", "G15", -0.5)])
def test_a_pair_comes_up_without_a_rendezvous(run_in_lab: RunInLab, nat_a: str, nat_b: str, skew: float) -> None:
    cell = Cell(nat_a, nat_b, skew, rendezvous=False)
    seen = run_in_lab(run_cell, nat_a=nat_a, nat_b=nat_b, skew=skew, rendezvous=False, timeout=120)
    row = judge(cell, seen)
    assert row.ok, row


def blocked(nat_a: str, nat_b: str) -> dict[str, Any]:
    with Lab(nat_a, nat_b) as lab:
        scenario = Scenario(lab, punch="window = 5")
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b", "--wait", "15s")
        verdict, code = scenario.verdict("b", 40)
        return {"verdict": verdict, "code": code}


@pytest.mark.parametrize(("nat_a", "nat_b", "side"), [("G4", "G2S", "peer"), ("G2S", "G4", "here")])
def test_blocked_gre_ends_with_where_it_died(run_in_lab: RunInLab, nat_a: str, nat_b: str, side: str) -> None:
    seen = run_in_lab(blocked, nat_a=nat_a, nat_b=nat_b)
    verdict = seen["verdict"]
    assert seen["code"] == 12
    assert verdict["result"] == expected.expected_result(nat_a, nat_b)
    assert verdict["facts"] == {"direction": "both", "side": side}
    place = {"here": "on this side", "peer": "on the peer's side"}[side]
    assert verdict["detail"].startswith(f"GRE is dropped {place}, in both directions")


def same_lan() -> dict[str, Any]:
    with Lab(SidePlan.of("G2S", hosts=2)) as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        up = scenario.up(20)
        return {"up": up, "ping": scenario.ping("b", 5), "lan": [str(address) for address in lab.a.addresses]}


def test_two_peers_behind_one_nat_meet_on_their_lan(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(same_lan)
    assert [event["path"] for event in seen["up"]] == [seen["lan"][1], seen["lan"][0]]
    assert all(event["same_lan"] for event in seen["up"])
    assert seen["ping"]["lost"] == 0
