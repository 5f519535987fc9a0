"""`status` tells the truth at every stage, and no key is to be found in anything an endpoint says or leaves about."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grepunch.lab.node import LabError
from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from grepunch.secure.identity import shared_secret
from tests.live.endpoint_support import running, status, status_text
from tests.live.live_support import RunInLab

PSK = bytes(range(100, 132))
BLOCK_GRE = "table ip block { chain forward { type filter hook forward priority 0; ip protocol gre drop; }; }"
PINGS, PING_SIZE = 20, 28  # packets, and octets of an inner packet that pings 0 octets


def until(check: Callable[[], Any], timeout: float) -> Any:
    """What ``check`` says, asked until it is something."""
    deadline = time.monotonic() + timeout
    while not (found := check()):
        if time.monotonic() > deadline:
            raise LabError(f"nothing came of {check} in {timeout} s")
        time.sleep(0.1)
    return found


def peer_at(scenario: Scenario, name: str, stage: str) -> dict[str, Any] | None:
    """The status of the other peer as ``name`` shows it, once it is at this stage."""
    peer: dict[str, Any] = status(scenario, name)["peers"][0]
    return peer if peer["stage"] == stage else None


def kernel_counters(scenario: Scenario, name: str) -> dict[str, int]:
    """What the kernel has counted on a tunnel's interface; it received what we wrote."""
    with scenario.peers[name].host.entered():
        line = next(
            line for line in Path("/proc/thread-self/net/dev").read_text().splitlines() if f"gp-{name}:" in line
        )
    fields = [int(field) for field in line.partition(":")[2].split()]
    mtu = scenario.peers[name].host.ip("link", "show", f"gp-{name}").split("mtu ")[1].split()[0]
    return {
        "rx_bytes": fields[0],
        "rx_packets": fields[1],
        "tx_bytes": fields[8],
        "tx_packets": fields[9],
        "mtu": int(mtu),
    }


def secrets(scenario: Scenario) -> dict[str, list[bytes]]:
    """Everything that must not be seen anywhere, in every spelling."""
    a, b = (scenario.peers[name].identity for name in "ab")
    found = {
        "private key a": a.private_key,
        "private key b": b.private_key,
        "pre-shared key": PSK,
        "shared secret": shared_secret(a.private_key, b.public_key),
    }
    return {
        name: [key, base64.b64encode(key).rstrip(b"="), base64.urlsafe_b64encode(key).rstrip(b"="), key.hex().encode()]
        for name, key in found.items()
    }


def exposed(scenario: Scenario, said: list[str]) -> list[str]:
    """Where a secret is to be found: processes, logs, captures, sockets' answers."""
    places = {f"status {number}": text.encode() for number, text in enumerate(said)}
    for name in "ab":
        pid = running(scenario, name).process.pid
        for file in ("cmdline", "environ"):
            places[f"{file} of {name}"] = Path(f"/proc/{pid}/{file}").read_bytes()
    kept = {path for path in scenario.directory.rglob("*") if path.suffix in (".key", ".psk")}
    if not all(
        any(s in path.read_bytes() for k in secrets(scenario).values() for s in k)
        for path in kept
        if "peer" in path.name
    ):
        return ["the search does not even find a key in its own file"]
    for path in [*scenario.directory.rglob("*"), *Path("/run/grepunch-pptp").glob("*")]:
        if path.is_file() and path not in kept:
            places[str(path)] = path.read_bytes()
    return [
        f"{secret} in {place}"
        for place, content in places.items()
        for secret, spellings in secrets(scenario).items()
        if any(spelling in content for spelling in spellings)
    ]


def every_stage() -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        for name in "ab":
            scenario.write_profile(name, preshared_key=PSK)
        seen: dict[str, Any] = {"external": str(lab.a.external)}
        said: list[str] = []

        scenario.start("a", "--pcap", str(scenario.directory / "wire.pcap"))
        scenario.wait_for("a", "state_changed", 10)
        seen["no rendezvous"] = until(lambda: status(scenario, "a")["rendezvous"][0].get("error"), 5)
        said.append(status_text(scenario, "a"))
        scenario.start_rendezvous()
        until(lambda: status(scenario, "a")["rendezvous"][0]["connected"], 10)
        seen["waiting"] = status(scenario, "a")

        recording = lab.wan.capture("a")
        scenario.start("b", "--pcap", str(scenario.directory / "inside.pcap:plain"))
        scenario.up(20)
        time.sleep(1.2)  # the round trip is measured for the first time when the start's work is done
        before = status(scenario, "b")["peers"][0]
        scenario.ping("b", PINGS, size=0)
        seen["up"], seen["before"] = status(scenario, "b"), before
        seen["kernel"] = kernel_counters(scenario, "b")
        said += [status_text(scenario, "b"), status_text(scenario, "b", "--json")]

        lab.a.boxes[0].node.nft(BLOCK_GRE)
        scenario.ping("b", 3)
        seen["lost"] = until(lambda: peer_at(scenario, "b", "lost"), 10)
        said.append(status_text(scenario, "b"))
        lab.a.boxes[0].node.nft("delete table ip block")
        seen["again"] = until(lambda: peer_at(scenario, "b", "up"), 45)
        recording.stop()
        seen["exposed"] = exposed(scenario, said)

        running(scenario, "b").stop()
        seen["left alone"] = until(lambda: peer_at(scenario, "a", "waiting"), 5)
        seen["said"] = said
        seen["end"] = scenario.end()
        return seen


def test_status_is_true_at_every_stage_and_shows_no_secret(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(every_stage, timeout=100)
    a = seen["external"]
    assert "nothing listens" in seen["no rendezvous"]
    assert "not reached: " in seen["said"][0]

    waiting = seen["waiting"]
    assert waiting["rendezvous"][0]["external_address"] == a
    assert (waiting["role"], waiting["interface"], waiting["address"]) == ("serve", "gp-a", "10.66.0.1/24")
    (peer,) = waiting["peers"]
    assert (peer["name"], peer["stage"]) == ("b", "waiting")
    assert not {"path", "form", "mtu", "rtt"} & set(peer)

    (peer,) = seen["up"]["peers"]
    assert (peer["stage"], peer["path"], peer["form"], peer["address"]) == ("up", a, "v1-0/0", "10.66.0.1")
    assert peer["mtu"] == seen["kernel"]["mtu"]
    assert 0 < peer["rtt"] < 1
    assert peer["loss"] < 0.05
    for field in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes"):
        growth = peer[field] - seen["before"][field]
        assert growth >= PINGS * (PING_SIZE if "bytes" in field else 1)
        assert peer[field] <= seen["kernel"][field] <= peer[field] + 500, "the kernel has counted otherwise"

    row = seen["said"][1].splitlines()[-1]
    assert row.startswith("a ")
    assert f"{a} v1-0/0" in row
    assert f" {peer['mtu']} " in row

    lost = seen["lost"]
    assert lost["last_error"]["stage"] in ("up", "lost")
    assert "nothing heard for" in lost["last_error"]["text"]
    assert "nothing heard for" in seen["said"][3]
    assert seen["again"]["last_error"]["age"] > 0
    assert not {"path", "form", "mtu", "rtt"} & set(seen["left alone"])
    assert seen["exposed"] == []
    assert seen["end"] == []
