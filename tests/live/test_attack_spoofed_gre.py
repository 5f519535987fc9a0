"""An off-path attacker with the right addresses, the right Call ID and a recording of the session, at full speed."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict, replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from grepunch.lab.capture import read
from grepunch.lab.node import Node, Program
from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from pptp.wire.sealed import is_sealed
from tests.live.attack_spoofer import Order
from tests.live.endpoint_support import both_up, cpu_seconds, running, status
from tests.live.live_support import RunInLab

SEED = 4747
OVERHEARD = ["replayed", "mutated"]
MADE_UP = ["forged", "stranger", "forged", "unsealed", "probe", "fragment", "half"]
RATE = 20_000.0  # packets a second
QUIET, LOADED = 8_000, 100_000  # packets: without inner traffic, where every answer would be seen; and with it
TRANSFER = 8_000_000  # octets each way

FLOOD_RATE = 4_000.0  # parts a second, of 2,000 handshakes
FLOOD_SECONDS = 60.0  # at most: it ends when the dial has succeeded
UP_UNDER_FLOOD = 12.0  # seconds; without a rendezvous and without a flood it takes up to 6
ATTEMPT_LIMIT = 20  # sealed frames of the victim's own that a quiet second or two may see


def launch(router: Node, order: Order) -> Program:
    """The attack begins; it goes on by itself."""
    return router.start_python("tests.live.attack_spoofer", json.dumps(asdict(order)), label="attacker")


def finish(attacker: Program) -> dict[str, Any]:
    """What was sent."""
    attacker.wait_for(r"^\{.*\}$", 60)
    found: dict[str, Any] = json.loads(attacker.stdout)
    return found


def overhear(scenario: Scenario) -> str:
    """Record some of the session where the victim's packets pass; the file."""
    host = scenario.lab.b.host
    capturing = host.capture("eth0")
    scenario.ping("b", 100, interval=0.01)
    capturing.stop()
    path = host.directory / f"{host.name}-eth0.pcap"
    return str(path.rename(path.with_name("overheard.pcap")))


def sent_meanwhile(scenario: Scenario, order: Order) -> list[bytes]:
    """Attack; every IPv4 packet that the victim sends to the attack's source while it lasts, and a moment longer."""
    host = scenario.lab.b.host
    capturing = host.capture("eth0")
    finish(launch(scenario.lab.wan, order))
    time.sleep(0.3)
    capturing.stop()
    ends = IPv4Address(order.destination).packed + IPv4Address(order.source).packed
    return [packet for _, packet in read(host.directory / f"{host.name}-eth0.pcap") if packet[12:20] == ends]


def let_in(scenario: Scenario, *, sender_first: bool) -> tuple[int, int, dict[str, Any]]:
    """Inner packets that the peer has sent and that the victim has let in so far, and the victim's status."""
    names = "ab" if sender_first else "ba"
    seen = {name: status(scenario, name) for name in names}
    return seen["a"]["peers"][0]["tx_packets"], seen["b"]["peers"][0]["rx_packets"], seen["b"]


def under_attack() -> dict[str, Any]:
    """The victim is b: behind a firewall at first, then open to the world."""
    with Lab("G2S", "G0") as lab:
        scenario = both_up(lab)
        key = scenario.peers["b"].identity.public_key.hex()
        peer, victim, attacker = str(lab.a.external), str(lab.b.external), str(lab.b.boxes[0].gateway)
        order = Order(peer, victim, QUIET, RATE, OVERHEARD + MADE_UP, SEED, overhear(scenario), key)
        seen: dict[str, Any] = {}
        sent, received, _ = let_in(scenario, sender_first=True)
        seen["to_peer"] = [packet[20:64].hex() for packet in sent_meanwhile(scenario, order)]
        lab.b.boxes[0].node.nft("flush ruleset")
        own = replace(order, source=attacker, kinds=MADE_UP, capture="", seed=SEED + 1)
        seen["to_attacker"] = len(sent_meanwhile(scenario, own))
        sent_after, received_after, seen["status"] = let_in(scenario, sender_first=False)
        seen["accepted"] = (received_after - received) - (sent_after - sent)
        process = running(scenario, "b").process.pid
        scenario.start_transfer_server()
        seen["undisturbed"] = scenario.finish_transfer(scenario.start_transfer(TRANSFER), 60)
        transfer, used = scenario.start_transfer(TRANSFER, seconds=4.0), cpu_seconds(process)
        attack = launch(lab.wan, replace(order, count=LOADED, seed=SEED + 2))
        seen["transfer"] = scenario.finish_transfer(transfer, 90)
        seen["attack"] = finish(attack)
        seen["cpu_seconds"] = cpu_seconds(process) - used
        sent, received, seen["status_after"] = let_in(scenario, sender_first=False)
        seen["surplus"] = received - sent
        seen["stages"] = [e["stage"] for e in scenario.events("b") if e["event"] == "state_changed"]
        seen["end"] = scenario.end()
        return seen


def refused(status: dict[str, Any]) -> int:
    """How many packets an endpoint has counted as dropped."""
    counters: list[dict[str, int]] = [status["drops"], *(peer["drops"] for peer in status["peers"])]
    return sum(sum(counter.values()) for counter in counters)


@pytest.mark.alone
def test_forged_replayed_and_mutated_packets_are_neither_accepted_nor_answered(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(under_attack, timeout=110)
    print({name: seen[name] for name in ("undisturbed", "transfer", "attack", "cpu_seconds", "status_after")})
    assert seen["accepted"] <= 0
    assert seen["surplus"] <= 0
    assert seen["to_attacker"] == 0
    assert len(seen["to_peer"]) < ATTEMPT_LIMIT, "the attack was answered"
    sealed = [is_sealed(bytes.fromhex(gre)[12:]) for gre in seen["to_peer"]]
    assert all(sealed), seen["to_peer"]
    assert refused(seen["status"]) > QUIET, "the attack did not arrive"
    assert refused(seen["status_after"]) > LOADED / 2, "the attack did not arrive"
    assert seen["attack"]["sent"] == LOADED
    assert seen["transfer"]["sha256_match"]
    assert seen["stages"][-1] == "up"
    assert "lost" not in seen["stages"]
    assert seen["end"] == []


def flooded_with_handshakes() -> dict[str, Any]:
    """The victim is a, which serves without a rendezvous, so that handshakes come through the hole."""
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab, rendezvous=False)
        scenario.start("a")
        scenario.wait_for("a", "state_changed", 10, stage="punching")
        key = scenario.peers["a"].identity.public_key.hex()
        count = int(FLOOD_RATE * FLOOD_SECONDS)
        kinds = ["fragment", "fragment", "fragment", "half"]
        attack = launch(
            lab.wan, Order(str(lab.b.external), str(lab.a.external), count, FLOOD_RATE, kinds, SEED, key=key)
        )
        time.sleep(1)
        began = time.monotonic()
        scenario.start("b", "--wait", "40s")
        scenario.up(40)
        seconds = time.monotonic() - began
        still = attack.process.poll() is None
        reached = scenario.ping("b", 5)
        attack.process.send_signal(signal.SIGTERM)
        return {
            "seconds": seconds,
            "under_flood": still,
            "ping": reached,
            "attack": finish(attack),
            "status": status(scenario, "a"),
            "end": scenario.end(),
        }


@pytest.mark.alone
def test_a_dial_succeeds_amid_a_flood_of_handshakes(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(flooded_with_handshakes, timeout=90)
    print(seen)
    assert seen["under_flood"], "the flood was over before the dial"
    assert seen["seconds"] < UP_UNDER_FLOOD
    assert seen["ping"]["lost"] == 0
    drops = seen["status"]["drops"]
    assert drops.get("unproven_source", 0) + drops.get("rate_limited", 0) > 0, "no handshake of the flood arrived"
    assert seen["end"] == []
