"""What won is tried first the next time: the real programs, started anew, on NATs that pass one thing only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from grepunch.lab import capture
from grepunch.lab.inside import STATE
from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from pptp.wire.control import TCP_PORT
from tests.live.live_support import RunInLab

GRE, TCP = 47, 6
LED = 16  # a TTL below is of the lead: it ends between the NATs


def attempts(packets: Iterable[bytes], source: bytes) -> list[str]:
    """What left a host, up to its first sealed frame: probes of full TTL by form, and calls."""
    seen = []
    for packet in packets:
        inner = packet[(packet[0] & 15) * 4 :]
        if packet[12:16] != source:
            continue
        if packet[9] == TCP and int.from_bytes(inner[2:4]) == TCP_PORT and inner[13] == 2:  # SYN
            seen.append("call")
        elif packet[9] == GRE and packet[8] > LED:
            enhanced = inner[1] & 7 == 1
            if inner[12 if enhanced else 4 :][:2] == b"\x00\x53":
                break
            seen.append("v1" if enhanced else "v0")
    return seen


def dial_twice(nat_a: str, nat_b: str) -> dict[str, Any]:
    """Both endpoints come up, end, and come up again; what the dialling one sent to get there."""
    with Lab(nat_a, nat_b) as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        tried, ups, status = [], [], {}
        for _ in range(2):
            capturing = lab.b.host.capture("eth0")
            scenario.start("a")
            scenario.start("b")
            scenario.up(30)
            status = scenario.status("b")["peers"][0]
            left = scenario.end()
            capturing.stop()
            recorded = lab.directory / f"{lab.b.host.name}-eth0.pcap"
            tried.append(attempts((packet for _, packet in capture.read(recorded)), lab.b.address.packed))
            ups.append(next(event for event in scenario.events("b") if event["event"] == "peer_up"))
        files = {path.name: (path.stat().st_mode & 0o777, path.read_text()) for path in Path(STATE).iterdir()}
        return {"tried": tried, "ups": ups, "status": status, "left": left, "files": files}


@pytest.mark.parametrize(
    ("nat_a", "nat_b", "first", "not_tried", "remembered"),
    [("G7V1", "G2", "v0", "v1", "v0"), ("G5", "G5", "call", "", "v1-0/0, mirrored")],
)
def test_the_second_dial_goes_straight_to_what_won_the_first(
    run_in_lab: RunInLab, nat_a: str, nat_b: str, first: str, not_tried: str, remembered: str
) -> None:
    seen = run_in_lab(dial_twice, nat_a=nat_a, nat_b=nat_b, timeout=60)
    before, after = seen["tried"]
    print(before, after)
    assert after[0] == first
    if not_tried:
        assert not_tried in before
        assert not_tried not in after
    else:
        assert before.index(first) > 0, "it was tried after everything else"
    assert [up["form"] for up in seen["ups"]] == [remembered.partition(",")[0]] * 2
    assert all(up.get("mirrored", False) == ("mirrored" in remembered) for up in seen["ups"])
    assert seen["status"]["remembered"] == remembered
    assert seen["left"] == []
    assert set(seen["files"]) == {"peer-a.paths", "peer-b.paths"}
    for mode, text in seen["files"].values():
        assert mode == 0o600
        assert len(json.loads(text)["winners"]) == 1
