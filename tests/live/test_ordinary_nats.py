"""Ordinary PPTP through NATs with a PPTP helper: the kernel's own has to be satisfied with what we say and when."""

from __future__ import annotations

from typing import Any

import pytest

from grepunch.lab.topology import Lab, SidePlan
from tests.live.live_support import RunInLab
from tests.live.ordinary_support import CELLS, INNER, Ordinary, link_local, ping, transfer


def behind(nat: str) -> dict[str, Any]:
    """One client behind a NAT, with data both ways."""
    with Lab(nat) as lab:
        world = Ordinary(lab)
        server = world.serve()
        client = world.dial(lab.a.host)
        up = client.wait("session_up")
        flows = [str(flow) for flow in lab.a.boxes[0].node.flows()]
        return {
            "source": server.wait("session_up")["source"] == str(lab.a.external),
            "up": up["encryption"],
            "pinged": ping(lab.a.host, str(INNER), 1300) and ping(lab.meet, up["own_address"]),
            "moved": transfer(lab.meet, lab.a.host, 500_000)["sha256_match"],
            "flows": flows,
        }


@pytest.mark.parametrize("nat", ["G3", "G5"])
def test_a_client_behind_a_helper_comes_up_and_carries(run_in_lab: RunInLab, nat: str) -> None:
    seen = run_in_lab(behind, nat=nat)
    assert seen["source"]
    assert seen["up"] == "mppe128 stateless"
    assert seen["pinged"]
    assert seen["moved"]


def two_behind_one() -> dict[str, Any]:
    """Two hosts behind one NAT, at the same time, over IPv4 and IPv6; one goes, the other stays."""
    with Lab(SidePlan.of("G3", hosts=2)) as lab:
        world = Ordinary(lab, CELLS["mppe128"])
        server = world.serve()
        clients = [world.dial(host, user=user) for host, user in zip(lab.a.hosts, ("alice", "bob"), strict=True)]
        inner = [client.wait("session_up")["own_address"] for client in clients]
        pinged = [ping(host, str(INNER)) for host in lab.a.hosts] + [ping(lab.meet, one) for one in inner]
        served = link_local(lab.meet, "pptp-srv")
        for number, host in enumerate(lab.a.hosts, 1):
            pinged.append(ping(host, f"{served}%pptp-cli{number}"))
            pinged.append(ping(lab.meet, f"{link_local(host, f'pptp-cli{number}')}%pptp-srv", 1300))
        sources = {session["source"] for session in server.status()["ordinary"]["sessions"]}
        clients[0].running.stop()
        server.wait("session_down", peer="alice")
        return {
            "different": inner[0] != inner[1], "pinged": pinged, "sources": sorted(sources),
            "expected": [str(lab.a.external)], "stays": ping(lab.a.hosts[1], str(INNER)),
        }  # fmt: skip


def test_two_clients_behind_one_nat_are_told_apart(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(two_behind_one)
    assert seen["different"]
    assert all(seen["pinged"])
    assert seen["sources"] == seen["expected"]
    assert seen["stays"]


def call_after_call(count: int) -> dict[str, Any]:
    """So many calls one after the other through one NAT's helper."""
    with Lab("G5") as lab:
        world = Ordinary(lab, CELLS["mschapv2"])
        server = world.serve()
        addresses = []
        for number in range(count):
            client = world.dial(lab.a.host)
            addresses.append(client.wait("session_up")["own_address"])
            client.running.stop()
            server.wait("session_down", count=number + 1)
        status = server.status()["ordinary"]
        return {"addresses": addresses, "left": (status["connections"], status["pool_leased"])}


def test_one_call_after_the_other_comes_up(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(call_after_call, count=5)
    assert set(seen["addresses"]) == {seen["addresses"][0]}, "who comes back keeps the address"
    assert seen["left"] == [0, 0]
