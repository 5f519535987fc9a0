"""The real programs at a rendezvous that lies about addresses and repeats blobs: what a stranger gets to see of it."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from grepunch.lab.requirements import program
from grepunch.lab.topology import MEET_ADDRESSES, Lab
from grepunch.punch.plan import BUDGET_PACKETS
from grepunch.scenario import MEET_PORT, Scenario
from tests.live.live_support import RunInLab

THIRD = MEET_ADDRESSES[1]  # another address of the public host, where nothing listens and the kernel refuses
LARGEST_PROBE = 100  # octets
WATCHED = 7.0  # seconds; the packets of a window are nearly all sent in the first three
_COUNT = f"""
table ip stranger {{
    counter everything {{ }}
    counter calls {{ }}
    counter large {{ }}
    chain in {{
        type filter hook input priority -10
        ip daddr {THIRD} counter name everything
        ip daddr {THIRD} tcp flags syn counter name calls
        ip daddr {THIRD} meta length > {LARGEST_PROBE} counter name large
    }}
}}
"""


def start_liar(scenario: Scenario) -> None:
    """A rendezvous that has seen peer a come from the stranger."""
    lab, directory = scenario.lab, scenario.directory
    scenario.meeting = lab.meet.start(
        [
            *(sys.executable, "-m", "tests.live.evil_rendezvous", str(lab.a.external), str(THIRD)),
            *("--listen", f"{MEET_ADDRESSES[0]}:{MEET_PORT}"),
            *("--cert", str(directory / "meet.crt"), "--key", str(directory / "meet.key")),
        ],
        label="rendezvous",
    )
    scenario.meeting.wait_for(r"listening", 10.0)


def be_lied_to() -> dict[str, Any]:
    with Lab("G2", "G2") as lab:
        lab.meet.nft(_COUNT)
        scenario = Scenario(lab)
        start_liar(scenario)
        scenario.start("a")
        scenario.start("b")
        scenario.wait_for("b", "state_changed", 20.0, stage="punching")
        time.sleep(WATCHED)
        listed = json.loads(lab.meet.run(program("nft"), "-j", "list", "counters"))["nftables"]
        counted = {item["counter"]["name"]: item["counter"]["packets"] for item in listed if "counter" in item}
        told = {name: [event["event"] for event in scenario.events(name)] for name in "ab"}
        return {"counted": counted, "told": told, "end": scenario.end()}


def test_a_stranger_gets_few_small_packets_and_nobody_is_paired_with_him(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(be_lied_to, timeout=60)
    print(seen["counted"])
    assert 0 < seen["counted"]["everything"] <= BUDGET_PACKETS
    assert seen["counted"]["calls"] > 0, "calls count as well"
    assert seen["counted"]["large"] == 0
    for told in seen["told"].values():
        assert "peer_up" not in told
    assert seen["end"] == []
