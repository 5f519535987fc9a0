"""What idle sessions cost the busy one: one ``serve`` with one busy peer and so many idle ones.

Every idle peer is a real ``dial`` on a host of its own, on a bridge of the serving host.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from grepunch.lab.namespaces import LOGS
from grepunch.lab.node import LabError, Node, Program
from grepunch.lab.requirements import program
from grepunch.secure.certificate import laboratory_certificate
from grepunch.secure.identity import Identity, encode_key, generate_private_key
from tests.bench import loads
from tests.bench.contender import write_secret
from tests.bench.figures import summary
from tests.bench.own import Ours, profile_of
from tests.bench.report import table
from tests.bench.round import say, stay_on_cores
from tests.bench.wire import INNER, Site, run_here

# RFC 2544: a network for benchmarks, of which the serving host has the first address
_OUTER_BASE = IPv4Address("198.18.0.1")
_MEET = IPv4Address("198.19.0.1")
_INNER_BASE = IPv4Address("10.98.0.1")
_BRIDGE = "idle"
_UP_TIMEOUT = 60.0
UP_EACH = 1.0  # seconds for each of them: keys, processes and addresses on two cores that all share
_IDLE_SECONDS = 5.0


class Crowd:
    """A site of ours whose ``serve`` has idle peers besides."""

    def __init__(self, name: str, idle: int) -> None:
        self.site = Site(name, LOGS / name)
        self.idle = idle
        self._meeting_host = Node(f"{name}-meet", self.site.directory)
        self._meet: Program | None = None
        self._fleet: Program | None = None
        self._namespaces: list[str] = []

    def start(self) -> float:
        """Bring everything up; seconds until the last idle peer was."""
        site = self.site
        site.build()
        contender = Ours()
        contender.prepare(site)
        dials = self._add_idle_peers()
        contender.start(site)
        site.await_echo(30.0)
        began = time.monotonic()
        if dials:
            listed = site.directory / "fleet.json"
            listed.write_text(json.dumps(dials))
            self._fleet = site.hosts["left"].start(
                [sys.executable, "-m", "tests.bench.fleet", str(listed)], label="fleet"
            )
        serve = site.endpoints["left"]
        while (up := serve.stdout.count('"event":"peer_up"')) < self.idle + 1:
            if time.monotonic() > began + _UP_TIMEOUT + UP_EACH * self.idle or serve.process.poll() is not None:
                raise LabError(f"{up - 1} of {self.idle} idle peers came up\n{serve.stderr[-2000:]}")
            time.sleep(0.02)
        return time.monotonic() - began

    def _add_idle_peers(self) -> list[dict[str, str]]:
        """Their hosts, keys and profiles, and their sections in the serving profile; what the fleet is to dial."""
        site, directory = self.site, self.site.directory
        if not self.idle:
            return []
        serving = profile_of(site, "left")
        own_key = Identity.from_private_key(base64.b64decode((directory / "left.key").read_text())).public_key
        sections, dials = [serving.read_text()], []
        for number in range(1, self.idle + 1):
            namespace = f"{site.name}-{number}"
            inner = _INNER_BASE + number
            identity = Identity.from_private_key(generate_private_key(os.urandom))
            key = write_secret(directory / f"{number}.key", encode_key(identity.private_key) + "\n")
            sections.append(_section(f"idle{number}", identity.public_key, inner))
            profile = write_secret(directory / f"{namespace}.toml", _dialling(key, inner, own_key))
            runtime = directory / f"run-{number}"
            runtime.mkdir(mode=0o700)
            log = str(directory / f"idle-{number}.out")
            dials.append({"namespace": namespace, "profile": str(profile), "runtime": str(runtime), "log": log})
            self._namespaces.append(namespace)
        certificate, private = laboratory_certificate(_MEET, datetime.now(UTC))
        (directory / "meet.crt").write_bytes(certificate)
        write_secret(directory / "meet.pem", private)
        write_secret(serving, "\n".join([*sections, _rendezvous(directory)]))
        self._connect_idle_hosts()
        self._start_rendezvous()
        return dials

    def _start_rendezvous(self) -> None:
        """Where they meet: a profile may name the addresses of a few peers only."""
        directory = self.site.directory
        files = ["--cert", f"{directory}/meet.crt", "--key", f"{directory}/meet.pem"]
        command = [sys.executable, "-m", "grepunch", "rendezvous", "--listen", f"{_MEET}:443", *files]
        self._meet = self._meeting_host.start(command, label="rendezvous")
        self._meet.wait_for("listening", 10.0)

    def _connect_idle_hosts(self) -> None:
        """A bridge at the serving host and a line to each of them."""
        left = self.site.hosts["left"].name
        lines = [f"link add name {_BRIDGE} netns {left} type bridge"]
        serving = [f"link set dev {_BRIDGE} up", f"address add {_OUTER_BASE}/15 dev {_BRIDGE}"]
        self._namespaces.append(self._meeting_host.name)
        for number, namespace in enumerate(self._namespaces, 1):
            port = f"idle{number}"
            lines += [
                f"netns add {namespace}",
                f"link add name {port} netns {left} type veth peer name eth0 netns {namespace}",
            ]
            serving.append(f"link set dev {port} master {_BRIDGE} up")
        _ip(lines)
        _ip(serving, "-netns", left)
        for number, namespace in enumerate(self._namespaces, 1):
            address = _MEET if namespace == self._meeting_host.name else _OUTER_BASE + number
            own = ["link set dev lo up", f"address add {address}/15 dev eth0", "link set dev eth0 up"]
            _ip(own, "-netns", namespace)

    def close(self) -> None:
        """End everything and remove the hosts."""
        for running in (self._fleet, self._meet):
            if running is not None:
                running.stop()
        self.site.close()
        if self._namespaces:
            _ip([f"netns delete {namespace}" for namespace in self._namespaces])


def _ip(lines: Sequence[str], *where: str) -> None:
    run_here(program("ip"), *where, "-batch", "-", stdin="\n".join(lines) + "\n")


def _section(name: str, public_key: bytes, inner: IPv4Address) -> str:
    return f'[[peer]]\nname = "{name}"\npublic_key = "{encode_key(public_key)}"\naddress = "{inner}"\n'


def _rendezvous(directory: Path) -> str:
    return f'[rendezvous]\nurls = ["wss://{_MEET}:443"]\nca_file = "{directory}/meet.crt"\n'


def _dialling(key: Path, inner: IPv4Address, own_key: bytes) -> str:
    return (
        f'version = 1\n[interface]\nname = "gp-idle"\naddress = "{inner}/32"\n'
        f'[identity]\nprivate_key = {{ file = "{key}" }}\n'
        + _section("serve", own_key, INNER["left"])
        + _rendezvous(key.parent)
    )


def measure(idle: int, seconds: int) -> dict[str, Any]:
    """The busy session's figures beside so many idle ones. The entry of the sandbox."""
    stay_on_cores()
    crowd = Crowd("crowd", idle)
    try:
        came_up = crowd.start()
        site = crowd.site
        loads.tcp(site, 1.0)
        serve = {"left": site.endpoints["left"]}
        alone = Site("serve", site.directory, site.hosts, serve)  # type: ignore[arg-type]
        before = sum(loads.cpu_seconds(alone))
        time.sleep(_IDLE_SECONDS)
        idle_cpu = 100 * (sum(loads.cpu_seconds(alone)) - before) / _IDLE_SECONDS
        before = sum(loads.cpu_seconds(alone))
        there = loads.tcp(site, seconds)
        back = loads.tcp(site, seconds, reverse=True)
        spent = sum(loads.cpu_seconds(alone)) - before
        return {
            "idle_sessions": idle,
            "up_seconds": came_up,
            "fwd": there.mbit_s,
            "rev": back.mbit_s,
            "serve_cpu_per_gb": spent / ((there.octets + back.octets) / 1e9),
            "serve_idle_cpu": idle_cpu,
            "serve_rss_mb": loads.resident(alone) / 1e6,
        }
    finally:
        crowd.close()


def line(row: dict[str, Any]) -> str:
    """One measurement in a line."""
    return (
        f"{row['idle_sessions']} idle: {row['fwd']:.0f} / {row['rev']:.0f} Mbit/s, "
        f"serve {row['serve_cpu_per_gb']:.2f} s/GB, idle {row['serve_idle_cpu']:.1f} %, {row['serve_rss_mb']:.1f} MB"
    )


def lines_of(rows: list[dict[str, Any]]) -> list[str]:
    """Medians by count of idle sessions, and the share of what the busy one has alone."""
    by_count: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_count.setdefault(row["idle_sessions"], []).append(row)
    keys = ("fwd", "rev", "serve_cpu_per_gb", "serve_idle_cpu", "serve_rss_mb", "up_seconds")
    cells = [["idle sessions", "fwd Mbit/s", "rev Mbit/s", "serve s/GB", "serve idle %", "serve MB", "up s", "share"]]
    for count, same in sorted(by_count.items()):
        medians = [found.median if (found := summary(row[key] for row in same)) else 0.0 for key in keys]
        share = summary(
            row[key] / alone[key]
            for row, alone in zip(same, by_count.get(0, []), strict=False)
            for key in ("fwd", "rev")
            if alone[key]
        )
        fwd, rev, per_gb, idle_cpu, rss, up = medians
        texts = [f"{fwd:.0f}", f"{rev:.0f}", f"{per_gb:.2f}", f"{idle_cpu:.2f}", f"{rss:.1f}", f"{up:.1f}"]
        cells.append([str(count), *texts, f"{share.median:.2f}" if share else "-"])
    return table(cells)


def announce(row: dict[str, Any]) -> None:
    """Progress."""
    say(f"  {line(row)}")
