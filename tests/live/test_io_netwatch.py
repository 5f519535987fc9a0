"""What a host's kernel says about its network, while that changes."""

from __future__ import annotations

import select
import time
from typing import Any

from grepunch.io.netconf import host_interfaces
from grepunch.io.netwatch import NetworkWatch, way_to
from grepunch.lab.topology import MEET_ADDRESSES, Lab
from tests.live.live_support import RunInLab

FLAPPING = (
    "while :; do for n in $(seq 60); do echo address add 172.30.$n.1/24 dev eth0; done | ip -batch -;"
    " ip address flush dev eth0 to 172.30.0.0/16; done"
)


def look_while_addresses_flap(seconds: float) -> dict[str, Any]:
    with Lab("G2") as lab:
        host = lab.a.host
        host.start(["sh", "-c", FLAPPING], label="flapping")
        seen, looks = set(), 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with host.entered():
                addresses = host_interfaces("gp-none")
            looks += 1
            seen.add(len(addresses))
            assert lab.a.address in [interface.ip for interface in addresses]
        return {"looks": looks, "seen": len(seen)}


def test_addresses_that_change_during_the_look_are_no_fault(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(look_while_addresses_flap, seconds=4.0)
    assert seen["looks"] > 10
    assert seen["seen"] > 3  # they really changed meanwhile


def watch_a_move() -> dict[str, Any]:
    with Lab("G2", c="G2S") as lab:
        host, server = lab.a.host, MEET_ADDRESSES[0]
        with host.entered():
            watch, before = NetworkWatch(), way_to(server)
        quiet = select.select([watch], [], [], 0.2)[0] == []
        lab.move(host, "c")
        woken = select.select([watch], [], [], 2.0)[0] != []
        watch.drain()
        with host.entered():
            after = way_to(server)
            host.ip("route", "del", "default")
            gone = way_to(server)
        watch.close()
        return {"quiet": quiet, "woken": woken, "ways": [str(way) for way in (before, after, gone)]}


def test_a_move_wakes_the_watch_and_changes_the_way(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(watch_a_move)
    assert seen["quiet"]
    assert seen["woken"]
    before, after, gone = seen["ways"]
    assert "192.168.1.100" in before
    assert "192.168.1.1'" in before
    assert "172.16.1.130" in after
    assert gone == "None"
