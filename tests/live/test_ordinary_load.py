"""Many ordinary clients at once: how long they take to come up, what each costs, and that none leaves anything."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from grepunch.lab.topology import Lab
from tests.live.live_support import RunInLab
from tests.live.ordinary_load import Order
from tests.live.ordinary_support import CELLS, PASSWORD, SERVER, Ordinary

SESSIONS = 200
RATE = 20.0  # a second
CUTS = 200  # a thousand in `make soak`
CUT_RATE = 45.0  # a second: the server slows down a source that connects more often
SEED = 1723


def resident(pid: int) -> int:
    """Octets of memory a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def held(world: Ordinary) -> dict[str, Any]:
    """What the server has in hand: what it says itself, its descriptors, the routes of its host."""
    server = world.server
    assert server is not None
    ordinary = server.status()["ordinary"]
    return {
        "connections": ordinary["connections"],
        "sessions": len(ordinary["sessions"]),
        "leased": ordinary["pool_leased"],
        "descriptors": len(list(Path(f"/proc/{server.running.process.pid}/fd").iterdir())),
        "routes": len(server.host.ip("route").splitlines()) + len(server.host.ip("-6", "route").splitlines()),
    }


def settled(world: Ordinary, before: dict[str, Any]) -> dict[str, Any]:
    """The same once the server has done with everybody, or after a while."""
    deadline = time.monotonic() + 20
    while (after := held(world)) != before and time.monotonic() < deadline:
        time.sleep(0.2)
    return after


def run_load(world: Ordinary, name: str, count: int, rate: float, *, cut: bool = False) -> dict[str, Any]:
    """Run a load; what it saw, with the server's memory while all sessions were there."""
    server = world.server
    assert server is not None
    order = Order(str(SERVER), "alice", PASSWORD, count, rate, SEED, cut)
    running = world.lab.wan.start_python("tests.live.ordinary_load", json.dumps(asdict(order)), label=name)
    memory = 0
    if not cut:
        running.wait_for(r"^up$", 90.0)
        memory = resident(server.running.process.pid)
        running.process.send_signal(signal.SIGUSR1)
    running.wait_for(r"^\{.*\}$", 90.0)
    found: dict[str, Any] = json.loads(running.stdout.splitlines()[-1])
    return {**found, "memory": memory}


def many_clients(cuts: int) -> dict[str, Any]:
    with Lab("G2") as lab:
        world = Ordinary(
            lab,
            CELLS["mppe128"],
            listen={"max_sessions": 250, "max_sessions_per_source": 250},
            interface={"pool": "10.77.0.0/23"},
            auth={"session_policy": "allow"},
        )
        server = world.serve()
        seen: dict[str, Any] = {}
        run_load(world, "warm", 1, 0.0)
        seen["empty"] = settled(world, {})
        seen["memory_empty"] = resident(server.running.process.pid)
        seen["steady"] = run_load(world, "steady", SESSIONS, RATE)
        seen["after_steady"] = settled(world, seen["empty"])
        seen["burst"] = run_load(world, "burst", SESSIONS, 0.0)
        seen["after_burst"] = settled(world, seen["empty"])
        seen["cut"] = run_load(world, "cut", cuts, CUT_RATE, cut=True)
        seen["after_cut"] = settled(world, seen["empty"])
        seen["again"] = run_load(world, "again", 1, 0.0)
        return seen


@pytest.mark.alone
def test_two_hundred_sessions_come_up_carry_and_leave_nothing(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(many_clients, cuts=CUTS, timeout=110)
    judge_many_clients(seen, CUTS)


def judge_many_clients(seen: dict[str, Any], cuts: int) -> None:
    steady, burst = seen["steady"], seen["burst"]
    each = (steady["memory"] - seen["memory_empty"]) / SESSIONS
    print({"p50": steady["p50"], "p99": steady["p99"], "burst": burst["all_up_after"], "octets_each": each})
    print(seen)
    for load in (steady, burst):
        assert (load["up"], load["answered"]) == (SESSIONS, SESSIONS), load
    assert seen["after_steady"] == seen["after_burst"] == seen["after_cut"] == seen["empty"]
    assert seen["cut"]["cut"] == cuts
    assert 0 < seen["cut"]["came_up"] < cuts, "the cuts came too early or too late"
    assert seen["again"]["answered"] == 1
