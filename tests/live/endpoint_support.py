"""What the live tests of whole endpoints share: a third peer, looks at a process, packets of an attacker."""

from __future__ import annotations

import json
import os
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from grepunch.lab.node import LabError, Node, Program
from grepunch.lab.requirements import program
from grepunch.lab.topology import Lab
from grepunch.scenario import INNER, Peer, Scenario
from grepunch.secure.identity import Identity, encode_key, generate_private_key

THIRD = IPv4Address("10.66.0.3")  # the inner address of peer c
BEHIND = {"b": "192.168.50.0/24", "c": "192.168.60.0/24"}  # what lies behind the dialers, for peer a


def both_up(lab: Lab, timeout: float = 25, **options: Any) -> Scenario:
    """Peers a and b up, through a rendezvous where there is to be one."""
    scenario = Scenario(lab, **options)
    if scenario.rendezvous:
        scenario.start_rendezvous()
    scenario.start("a")
    scenario.start("b")
    scenario.up(timeout)
    return scenario


def running(scenario: Scenario, name: str) -> Program:
    """The endpoint that runs at a peer."""
    found = scenario.peers[name].running
    if found is None:
        raise LabError(f"peer {name} does not run")
    return found


def status(scenario: Scenario, name: str) -> dict[str, Any]:
    """What `status --json` says of a peer's endpoint."""
    found: dict[str, Any] = json.loads(status_text(scenario, name, "--json"))["endpoints"][0]
    return found


def status_text(scenario: Scenario, name: str, *options: str) -> str:
    """What `status` prints about a peer's endpoint; its exit code, 20 while no peer is up, is left out."""
    peer = scenario.peers[name]
    command = (sys.executable, "-m", "grepunch", "status", peer.profile.stem, *options)
    return peer.host.run("sh", "-c", '"$@" || test $? = 20', "sh", *command)


def add_third_peer(scenario: Scenario, host: Node) -> None:
    """Peer c, which dials a from ``host``; a then serves two peers, with a network behind each."""
    identity = Identity.from_private_key(generate_private_key(os.urandom))
    scenario.peers["c"] = Peer("c", "dial", host, identity, scenario.directory / "peer-c.toml")
    key = scenario.directory / "peer-c.key"
    key.touch(0o600)
    key.write_text(encode_key(identity.private_key) + "\n")
    b, c = scenario.peers["b"].profile, scenario.peers["c"].profile
    c.write_text(b.read_text().replace("peer-b.key", "peer-c.key").replace("gp-b", "gp-c").replace(
        f'address = "{INNER["b"]}/24"', f'address = "{THIRD}/24"'
    ))  # fmt: skip
    a = scenario.peers["a"].profile
    text = a.read_text().replace("[identity]", f"routes = {list(BEHIND.values())}\n[identity]")
    text = text.replace(f'address = "{INNER["b"]}"', f'address = "{INNER["b"]}"\nallowed = ["{BEHIND["b"]}"]')
    text += (
        f'[[peer]]\nname = "c"\npublic_key = "{encode_key(identity.public_key)}"\n'
        f'address = "{THIRD}"\nallowed = ["{BEHIND["c"]}"]\n'
    )
    a.write_text(text)


def ping(host: Node, destination: IPv4Address, *options: str) -> bool:
    """Whether one of three pings is answered."""
    try:
        host.run(program("ping"), "-n", "-c", "3", "-i", "0.05", "-W", "1", *options, str(destination))
    except LabError:
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, kind: str = "VmRSS") -> int:
    """A process's memory in octets, by a word of proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))
