"""Two networks joined by one host each: their other hosts know nothing of tunnels, and reach one another."""

from __future__ import annotations

import json
import sys
from typing import Any

from grepunch.lab.node import Node
from grepunch.lab.topology import Lab, Side, SidePlan
from grepunch.scenario import INNER, TRANSFER_PORT, Scenario
from tests.live.endpoint_support import ping, running, status
from tests.live.live_support import RunInLab

OCTETS = 3_000_000
STRANGER = "172.31.9.9"  # an address that nobody allows the gateway of side b to speak for


def join(scenario: Scenario, sides: dict[str, Side]) -> None:
    """Let each gateway route the other's network into the tunnel, and allow the other to speak for it."""
    for name, other in ("ab", "ba"):
        profile, network = scenario.peers[name].profile, sides[other].boxes[0].inside
        text = profile.read_text().replace("[identity]", f'routes = ["{network}"]\n[identity]')
        inner = f'address = "{INNER[other]}"'
        profile.write_text(text.replace(inner, f'{inner}\nallowed = ["{network}"]'))


def lead(side: Side, other: Side) -> None:
    """Tell the second host of a side that the first one is the way to the other side's network."""
    side.hosts[1].ip("route", "add", str(other.boxes[0].inside), "via", str(side.address))


def transfer(source: Node, side: Side) -> dict[str, Any]:
    """A transfer from ``source`` to the second host of a side, both ways."""
    address = str(side.addresses[1])
    server = side.hosts[1].start_python("grepunch.lab.transfer", "serve", address, str(TRANSFER_PORT))
    server.wait_for("ready", 10)
    seen: dict[str, Any] = json.loads(
        source.run(
            *(sys.executable, "-m", "grepunch.lab.transfer", "run", address, str(TRANSFER_PORT), str(OCTETS), "0"),
            timeout=40,
        )
    )
    return seen


def dropped(scenario: Scenario) -> int:
    """How many packets of sources that are not the peer's the endpoint on side a has dropped."""
    count: int = status(scenario, "a")["peers"][0].get("drops", {}).get("not_allowed", 0)
    return count


def two_networks() -> dict[str, Any]:
    with Lab(SidePlan.of("G2S", hosts=2), SidePlan.of("G15", hosts=2)) as lab:
        scenario = Scenario(lab)
        join(scenario, lab.sides)
        scenario.start_rendezvous()
        for name in "ab":
            scenario.start(name)
        scenario.up(25)
        near, far = lab.a.hosts[1], lab.b.hosts[1]
        lead(lab.a, lab.b)
        lead(lab.b, lab.a)
        seen: dict[str, Any] = {"before": ping(near, lab.b.addresses[1])}
        notices = [event["text"] for event in scenario.events("a") if event["event"] == "notice"]
        for side in (lab.a, lab.b):
            side.host.set_sysctls({"net.ipv4.ip_forward": 1})
        seen["notices"] = notices
        seen["routes"] = status(scenario, "a")["peers"][0]["routes"]
        seen["after"] = ping(near, lab.b.addresses[1]) and ping(far, lab.a.addresses[1])
        seen["large"] = ping(near, lab.b.addresses[1], "-s", "1300")
        seen["transfer"] = transfer(near, lab.b)
        seen["from_the_gateway"] = ping(lab.a.host, lab.b.addresses[1], "-I", str(lab.a.address))
        far.ip("address", "add", f"{STRANGER}/32", "dev", "lo")
        refused = dropped(scenario)
        seen["stranger"] = ping(far, lab.a.addresses[1], "-I", STRANGER)
        seen["dropped"] = dropped(scenario) - refused
        running(scenario, "b").stop()
        seen["gone"] = scenario.remains("b")
        seen["left"] = scenario.end()
        return seen


def test_neighbours_reach_one_another_through_a_gateway_on_each_side(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(two_networks, timeout=90)
    assert not seen["before"], "hosts forward only where their owner lets them"
    assert any("IPv4 forwarding is off" in text and "10.1.1.0/24" in text for text in seen["notices"]), seen["notices"]
    assert seen["routes"] == ["10.1.1.0/24"]
    assert seen["after"]
    assert seen["large"]
    assert seen["transfer"]["sha256_match"], seen["transfer"]
    assert seen["from_the_gateway"]
    assert not seen["stranger"], "the peer spoke for an address that is not its own"
    assert seen["dropped"] >= 3
    assert (seen["gone"], seen["left"]) == ([], [])
