"""One endpoint, several peers on one interface: each is reached, each leaves alone, none may speak for another."""

from __future__ import annotations

import socket
import struct
import time
from ipaddress import IPv4Address
from typing import Any

from grepunch.lab.topology import Lab, SidePlan
from grepunch.scenario import INNER, Scenario
from tests.live.endpoint_support import BEHIND, THIRD, add_third_peer, ping, running, status
from tests.live.live_support import RunInLab

FORGED = 50


def udp(source: IPv4Address, destination: IPv4Address) -> bytes:
    """A whole IPv4 packet with UDP; the kernel fills in what is zero."""
    datagram = struct.pack("!HHHH", 4000, 4001, 12, 0) + b"spoof"[:4]
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0, source.packed, destination.packed) + datagram  # fmt: skip  # noqa: E501


def speak_for_another(scenario: Scenario) -> None:
    """Peer c sends through its own tunnel under the inner address of peer b."""
    with (
        scenario.peers["c"].host.entered(),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
    ):
        for _ in range(FORGED):
            raw.sendto(udp(INNER["b"], INNER["a"]), (str(INNER["a"]), 0))
            time.sleep(0.002)


def three_peers() -> dict[str, Any]:
    """a serves; b dials from the other side, c from a's own LAN."""
    with Lab(SidePlan.of("G2S", hosts=2), "G2S") as lab:
        scenario = Scenario(lab)
        add_third_peer(scenario, lab.a.hosts[1])
        scenario.start_rendezvous()
        for name in "abc":
            scenario.start(name)
        a = scenario.peers["a"].host
        for peer in "bc":
            scenario.wait_for("a", "peer_up", 25, peer=peer)
            scenario.wait_for(peer, "peer_up", 5)
        reached = [ping(a, INNER["b"]), ping(a, THIRD), *(ping(scenario.peers[n].host, INNER["a"]) for n in "bc")]
        before = {peer["name"]: peer for peer in status(scenario, "a")["peers"]}
        speak_for_another(scenario)
        time.sleep(0.3)
        after = {peer["name"]: peer for peer in status(scenario, "a")["peers"]}
        routes = [a.ip("route", "show", "proto", "171")]
        running(scenario, "c").stop()
        scenario.wait_for("a", "peer_down", 5, peer="c")
        routes.append(a.ip("route", "show", "proto", "171"))
        return {
            "reached": reached,
            "before": before,
            "after": after,
            "routes": routes,
            "b_stays": ping(a, INNER["b"]),
            "c_gone": not ping(a, THIRD),
            "events": [e for e in scenario.events("a") if e["event"] == "peer_down"],
            "left": scenario.remains("c"),
        }


def test_each_of_several_peers_is_reached_alone_and_held_to_its_own_addresses(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(three_peers)
    assert all(seen["reached"])
    b, c = (BEHIND[name] for name in "bc")
    assert b in seen["routes"][0]
    assert c in seen["routes"][0]
    assert b in seen["routes"][1], "the goodbye of c took b's route along"
    assert c not in seen["routes"][1]
    assert seen["b_stays"]
    assert seen["c_gone"]
    assert [event["peer"] for event in seen["events"]] == ["c"]
    assert seen["left"] == []
    before, after = seen["before"], seen["after"]
    assert after["c"]["drops"]["not_allowed"] - before["c"]["drops"].get("not_allowed", 0) == FORGED
    assert after["c"]["rx_packets"] == before["c"]["rx_packets"]
    assert after["b"]["rx_packets"] == before["b"]["rx_packets"]


def claimed_address() -> dict[str, Any]:
    """a leaves both addresses to b, and b claims one in the network of a's own LAN."""
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        a, b = (scenario.peers[name] for name in "ab")
        text = a.profile.read_text()
        for line in (f'address = "{INNER["a"]}/24"\n', f'address = "{INNER["b"]}"\n'):
            text = text.replace(line, "")
        a.profile.write_text(text)
        honest = b.profile.read_text()
        b.profile.write_text(honest.replace(f'"{INNER["b"]}/24"', f'"{lab.a.address + 100}/32"'))
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        claimed = f"{lab.a.address + 100}/32"
        refused = scenario.wait_for("a", "notice", 25, peer="b", level="warning")
        running(scenario, "b").stop()
        lan = a.host.ip("route", "show", "proto", "171")
        b.profile.write_text(honest)
        scenario.start("b")
        scenario.up(25)
        return {
            "refused": claimed in refused["text"],
            "routes": lan,
            "reached": ping(a.host, INNER["b"]),
            "end": scenario.end(),
        }


def test_an_address_that_clashes_ends_the_session_of_who_claims_it_and_nothing_else(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(claimed_address)
    assert seen["refused"]
    assert seen["routes"] == ""
    assert seen["reached"], "the same peer, with an address of its own"
    assert seen["end"] == []
