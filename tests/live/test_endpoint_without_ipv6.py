"""A host whose administrator has switched IPv6 off, as containers often are: peers come up over IPv4 alone."""

from __future__ import annotations

from typing import Any

from grepunch.lab.topology import Lab
from grepunch.scenario import INNER
from tests.live.endpoint_support import both_up, ping, status
from tests.live.live_support import RunInLab


def one_side_without() -> dict[str, Any]:
    with Lab("G2", "G2") as lab:
        lab.a.host.set_sysctls({"net.ipv6.conf.default.disable_ipv6": 1})
        scenario = both_up(lab, rendezvous=False)
        return {
            "pings": [ping(lab.a.host, INNER["b"]), ping(lab.b.host, INNER["a"])],
            "stages": [peer["stage"] for name in "ab" for peer in status(scenario, name)["peers"]],
            "left": scenario.end(),
        }


def test_peers_come_up_where_one_has_no_ipv6(run_in_lab: RunInLab) -> None:
    assert run_in_lab(one_side_without) == {"pings": [True, True], "stages": ["up", "up"], "left": []}
