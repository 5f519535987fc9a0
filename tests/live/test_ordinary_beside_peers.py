"""Punched peers and ordinary clients in one `serve`: a device each, and neither in the other's way."""

from __future__ import annotations

import json
from typing import Any

from grepunch.lab.topology import Lab, SidePlan
from grepunch.ordinary.users import User, write_users
from grepunch.scenario import INNER, Scenario
from tests.live.endpoint_support import running, status, status_text
from tests.live.live_support import RunInLab
from tests.live.ordinary_support import CELLS, PASSWORD, Ordinary, ping, toml
from tests.live.ordinary_support import INNER as POOL_INNER


def both_kinds() -> dict[str, Any]:
    """a serves: b comes through two NATs, and a client from a's own LAN by ordinary PPTP."""
    with Lab(SidePlan.of("G2S", hosts=2), "G2S") as lab:
        scenario = Scenario(lab)
        profile = scenario.peers["a"].profile
        text = profile.read_text().replace("[identity]", 'pool = "10.77.0.0/24"\n[identity]')
        write_users(scenario.directory / "users.toml", [User.of_password("alice", PASSWORD)])
        profile.write_text(text + '[listen]\n[auth]\nusers = "users.toml"\n[legacy]\n' + toml(CELLS["mppe128"]))
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        scenario.up(25)
        client = Ordinary(lab).dial(lab.a.hosts[1], server=lab.a.address)
        up = client.wait("session_up")
        a, b = scenario.peers["a"].host, scenario.peers["b"].host
        seen = {
            "pings": [
                ping(a, str(INNER["b"])),
                ping(b, str(INNER["a"])),
                ping(a, up["own_address"]),
                ping(lab.a.hosts[1], str(POOL_INNER)),
            ],
            "status": status(scenario, "a"),
            "text": status_text(scenario, "a"),
            "devices": [line.split()[1] for line in a.ip("-oneline", "link", "show").splitlines()],
            "dry": scenario.command("a", "serve", str(profile), "--dry-run"),
            "check": scenario.command("a", "serve", str(profile), "--check"),
        }
        running(scenario, "a").stop()
        seen["verdict"] = client.verdict()
        seen["remains"] = [line for line in a.ip("-oneline", "link", "show").splitlines() if "gp-a" in line]
        return seen


def test_peers_and_clients_share_a_process_and_nothing_else(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(both_kinds)
    assert all(seen["pings"]), seen["pings"]
    assert {"gp-a:", "gp-a-pptp:"} <= set(seen["devices"])
    shown = seen["status"]
    assert [peer["stage"] for peer in shown["peers"]] == ["up"]
    assert [session["name"] for session in shown["ordinary"]["sessions"]] == ["alice"]
    assert "mppe128" in json.dumps(shown["ordinary"]["allowed"])
    for word in ("gp-a-pptp", "breakable", "alice", "mppe128 stateless"):
        assert word in seen["text"]
    assert "dev gp-a-pptp" in seen["dry"]
    assert "TCP 0.0.0.0:1723" in seen["dry"]
    assert "in order" in seen["check"]
    assert seen["verdict"]["result"] == "link_lost"
    assert seen["remains"] == []
