"""Twenty cells of the grid in every run: two real endpoints behind two real NATs, with their hand-written outcome."""

from __future__ import annotations

from socket import IPPROTO_GRE
from typing import Any

import pytest

from grepunch.lab import capture as pcap
from grepunch.lab.topology import Lab, SidePlan
from grepunch.scenario import Scenario
from tests.live.grid import Cell, judge, run_cell
from tests.live.grid_expected import expected
from tests.live.live_support import RunInLab


@pytest.mark.parametrize(
    ("nat_a", "nat_b", "skew", "rendezvous"),
    [
        ("G2S", "G2S", 0.0, True),
        ("G13", "G13", 0.0, True),
        ("G13", "G13", -0.5, True),
        ("G15", "G2S", 0.0, True),
        ("G1", "G1L", 0.5, True),
        ("G0", "G2", -0.5, True),
        ("G15", "G7V1", 0.0, True),
        ("G12", "G16", 0.0, True),
        ("G1", "G15", -0.5, False),
        ("G9", "G2S", 0.0, True),
        ("G7V1", "G9", 0.0, True),
        ("G3", "G7V0", 0.5, True),
        ("G5", "G2S", 0.0, True),
        ("G2", "G12", 0.5, True),
        ("G7K", "G1", 0.0, True),
        ("G13", "G16", -0.5, True),
        ("G7V1", "G5", 0.0, True),
        ("G19", "G19", 0.0, True),
        ("G5", "G19", 0.0, True),
        ("G4", "G6", 0.0, True),
    ],
)
def test_a_pair_comes_up(run_in_lab: RunInLab, nat_a: str, nat_b: str, skew: float, rendezvous: bool) -> None:
    cell = Cell(nat_a, nat_b, skew, rendezvous)
    row = judge(cell, run_in_lab(run_cell, nat_a=nat_a, nat_b=nat_b, skew=skew, rendezvous=rendezvous))
    assert row.ok, row


def blocked(nat_a: str, nat_b: str) -> dict[str, Any]:
    with Lab(nat_a, nat_b) as lab:
        scenario = Scenario(lab, punch="window = 5")
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b", "--wait", "15s")
        verdict, code = scenario.verdict("b", 40)
        return {"verdict": verdict, "code": code}


@pytest.mark.parametrize(
    ("nat_a", "nat_b", "words"),
    [
        ("G4", "G2S", "GRE is dropped on the peer's side, in both directions"),
        ("G2S", "G4", "GRE is dropped on this side, in both directions"),
    ],
)
def test_blocked_gre_ends_with_where_it_died(run_in_lab: RunInLab, nat_a: str, nat_b: str, words: str) -> None:
    seen = run_in_lab(blocked, nat_a=nat_a, nat_b=nat_b)
    verdict, expectation = seen["verdict"], expected(nat_a, nat_b, rendezvous=True, able=())
    assert seen["code"] == 12
    assert verdict["result"] == expectation.result
    assert verdict["facts"] == {"direction": expectation.direction, "side": expectation.side}
    assert verdict["detail"].startswith(words)


def same_lan() -> dict[str, Any]:
    with Lab(SidePlan.of("G2S", hosts=2)) as lab:
        scenario = Scenario(lab)
        wan = lab.wan.capture("a")
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        up = scenario.up(20)
        ping = scenario.ping("b", 5)
        wan.stop()
        gre = sum(packet[9] == IPPROTO_GRE for _, packet in pcap.read(lab.directory / "wan-a.pcap"))
        lan = [str(address) for address in lab.a.addresses]
        return {"up": up, "ping": ping, "lan": lan, "gre_outside": gre, "left": scenario.end()}


def test_two_peers_behind_one_nat_meet_on_their_lan(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(same_lan)
    assert [event["path"] for event in seen["up"]] == [seen["lan"][1], seen["lan"][0]]
    assert all(event["same_lan"] for event in seen["up"])
    assert seen["ping"]["lost"] == 0
    assert seen["gre_outside"] == 0
    assert seen["left"] == []
