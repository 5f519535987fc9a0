"""Our `dial` against our `serve`, for every way of authentication and encryption."""

from __future__ import annotations

from typing import Any

import pytest

from grepunch.lab.topology import Lab
from tests.live.live_support import RunInLab
from tests.live.ordinary_support import CELLS, INNER, Ordinary, link_local, ping, transfer

OCTETS = 2_000_000
SEEN = {
    "pap": ("pap", "none"),
    "chap": ("chap", "none"),
    "mschapv2": ("mschapv2", "none"),
    "mppe128": ("mschapv2", "mppe128 stateless"),
    "mppe128-stateful": ("mschapv2", "mppe128 stateful"),
    "mppe56": ("mschapv2", "mppe56 stateless"),
    "mppe40": ("mschapv2", "mppe40 stateless"),
}


def one_cell(cell: str) -> dict[str, Any]:
    """Up, pinged from both ends over IPv4 and IPv6, a transfer both ways, and a goodbye."""
    with Lab("G2") as lab:
        world = Ordinary(lab, CELLS[cell])
        server = world.serve()
        client = world.dial(lab.wan)
        up = client.wait("session_up")
        seen = server.wait("session_up")
        inner = seen["address"]
        fe80 = {"server": link_local(lab.meet, "pptp-srv"), "client": link_local(lab.wan, "pptp-cli1")}
        pings = [
            ping(host, address, size)
            for size in (56, 1300)
            for host, address in (
                (lab.wan, str(INNER)),
                (lab.meet, inner),
                (lab.wan, f"{fe80['server']}%pptp-cli1"),
                (lab.meet, f"{fe80['client']}%pptp-srv"),
            )
        ]
        moved = transfer(lab.meet, lab.wan, OCTETS)
        status = server.status()
        client.running.stop()
        down = server.wait("session_down")
        left = lab.wan.ip("-oneline", "link", "show"), lab.wan.ip("route", "show", "proto", "171")
        return {
            "client": up, "server": seen, "pings": pings, "moved": moved, "status": status, "down": down,
            "left": "pptp" in left[0] or left[1], "after": server.status()["ordinary"],
        }  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_comes_up_carries_and_ends(run_in_lab: RunInLab, cell: str) -> None:
    seen = run_in_lab(one_cell, cell=cell)
    authentication, encryption = SEEN[cell]
    for side in ("client", "server"):
        assert (seen[side]["authentication"], seen[side]["encryption"]) == (authentication, encryption)
    assert seen["server"]["peer"] == "alice"
    assert all(seen["pings"]), seen["pings"]
    assert seen["moved"]["sha256_match"]
    (session,) = seen["status"]["ordinary"]["sessions"]
    assert (session["name"], session["stage"], session["encryption"]) == ("alice", "up", encryption)
    assert session["rx_bytes"] > OCTETS
    assert session["tx_bytes"] > OCTETS
    assert seen["down"]["cause"] == "peer_request"
    assert not seen["left"]
    assert seen["after"]["sessions"] == []
    assert (seen["after"]["connections"], seen["after"]["pool_leased"]) == (0, 0)
