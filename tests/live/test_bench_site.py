"""What the benchmark stands on works here: two hosts, a line that can lose packets, and a tunnel between them."""

from __future__ import annotations

from typing import Any

from grepunch.lab.namespaces import LOGS
from tests.bench import loads
from tests.bench.own import Original, Ours, Veth
from tests.bench.parsing import LoadFailed
from tests.bench.wire import Site
from tests.live.live_support import RunInLab


def line() -> dict[str, Any]:
    """Pings over the bare line: with nothing lost, with everything lost, and with nothing lost again."""
    site = Site("line", LOGS / "line")
    site.build()
    Veth().prepare(site)
    site.await_echo(10.0)
    found: dict[str, Any] = {"mtu": site.link_attribute("left", "mtu"), "packets": site.wire_packets()}
    for name, fraction in (("whole", 0.0), ("cut", 1.0), ("mended", 0.0)):
        site.set_loss(fraction)
        try:
            found[name] = len(loads.ping(site, 5, 0.02).times)
        except LoadFailed:
            found[name] = 0
    found["later"], found["fragments"] = site.wire_packets(), site.fragments()
    site.close()
    return found


def tunnels() -> dict[str, Any]:
    """The contenders that are ours, brought up and asked what they cost."""
    found: dict[str, Any] = {}
    for contender in (Original(), Ours()):
        site = Site(contender.name, LOGS / contender.name)
        site.build()
        contender.prepare(site)
        contender.start(site)
        site.await_echo(20.0)
        site.check_endpoints()
        user, system = loads.cpu_seconds(site)
        found[contender.name] = {
            "answers": len(loads.ping(site, 5, 0.02).times),
            "cpu": user + system,
            "resident": loads.resident(site),
            "mtu": site.link_attribute("left", "mtu"),
            "queue": site.link_attribute("left", "txqlen"),
            "largest": site.link_attribute("left", "gso_max_size"),
        }
        site.close()
    return found


def test_a_line_loses_what_it_is_told_to(run_in_lab: RunInLab) -> None:
    found = run_in_lab(line)
    assert found["mtu"] == 1500
    assert (found["whole"], found["cut"], found["mended"]) == (5, 0, 5)
    assert found["later"] > found["packets"]
    assert found["fragments"] == 0


def test_our_contenders_come_up_and_are_measured(run_in_lab: RunInLab) -> None:
    found = run_in_lab(tunnels)
    for name in ("original", "ours"):
        assert found[name]["answers"] == 5, name
        assert found[name]["resident"] > 1e6, name
        assert found[name]["queue"] > 0, name
        assert found[name]["largest"] >= 1500, name
    assert found["original"]["mtu"] == 1400
    assert found["ours"]["mtu"] > 1280
    assert found["ours"]["cpu"] > 0
