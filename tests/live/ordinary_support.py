"""What the live tests of ordinary PPTP share: `serve` on the public host, `dial` wherever, driven as a user would."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from grepunch.lab.node import LabError, Node, Program
from grepunch.lab.requirements import program
from grepunch.lab.topology import MEET_ADDRESSES, Lab
from grepunch.ordinary.users import User, write_users
from grepunch.scenario import EventLog

SERVER = MEET_ADDRESSES[0]
INNER = IPv4Address("10.77.0.1")
POOL = "10.77.0.0/24"
PASSWORD = "Pässwörd, 1 $ \\"  # not ASCII, and nothing a shell or TOML would leave alone
TRANSFER_PORT = 5001

# authentication and encryption, as legacy.allow (and legacy.mppe_mode) says them on both sides
CELLS: dict[str, dict[str, object]] = {
    "pap": {"allow": ["pap", "cleartext"]},
    "chap": {"allow": ["chap", "cleartext"]},
    "mschapv2": {"allow": ["mschapv2", "cleartext"]},
    "mppe128": {"allow": ["mschapv2", "mppe128"]},
    "mppe128-stateful": {"allow": ["mschapv2", "mppe128", "stateful"], "mppe_mode": "stateful"},
    "mppe56": {"allow": ["mschapv2", "mppe56"]},
    "mppe40": {"allow": ["mschapv2", "mppe40"]},
}


def toml(table: Mapping[str, object]) -> str:
    """The lines of a TOML table of numbers, text and lists of text."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


@dataclass
class Endpoint:
    """One `serve` or `dial` on a host."""

    name: str
    role: str
    host: Node
    profile: Path
    running: Program
    log: EventLog

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What it has said, of one kind."""
        return [event for event in self.log.refresh() if kind in (None, event["event"])]

    def wait(self, kind: str, timeout: float = 20.0, *, count: int = 1, **fields: object) -> dict[str, Any]:
        """Wait for the n-th event of a kind with these fields."""
        deadline = time.monotonic() + timeout
        while True:
            found = [e for e in self.events(kind) if all(e.get(key) == value for key, value in fields.items())]
            if len(found) >= count:
                return found[count - 1]
            ended = self.running.process.poll() is not None
            if time.monotonic() > deadline or (ended and not self._more()):
                raise LabError(
                    f"{self.name}: no {kind} {fields} ({count})\n{self.running.stdout[-4000:]}\n"
                    f"{self.running.stderr[-4000:]}"
                )
            time.sleep(0.02)

    def _more(self) -> bool:
        return len(self.log.events) < len(self.log.refresh())

    def verdict(self, timeout: float = 20.0) -> dict[str, Any]:
        """How it ended."""
        return self.wait("verdict", timeout)

    def status(self) -> dict[str, Any]:
        """What `status --json` says of its ordinary part."""
        command = (sys.executable, "-m", "grepunch", "status", self.profile.stem, "--json")
        environment = f"XDG_RUNTIME_DIR={runtime_directory(self.profile.parent, self.name)}"
        answer = self.host.run("env", environment, "sh", "-c", '"$@" || test $? = 20', "sh", *command)
        found: dict[str, Any] = json.loads(answer)["endpoints"][0]
        return found


def runtime_directory(directory: Path, name: str) -> Path:
    """Where an endpoint leaves its lock and socket."""
    made = directory / f"run-{name}"
    made.mkdir(mode=0o700, exist_ok=True)
    return made


@dataclass
class Ordinary:
    """A server on the public host of a lab, and clients of it."""

    lab: Lab
    legacy: Mapping[str, object] = field(default_factory=lambda: CELLS["mppe128"])
    users: Sequence[str] = ("alice", "bob")
    listen: Mapping[str, object] = field(default_factory=dict)
    interface: Mapping[str, object] = field(default_factory=dict)
    auth: Mapping[str, object] = field(default_factory=dict)
    server: Endpoint | None = None
    started: int = 0

    def serve(self, *arguments: str, host: Node | None = None) -> Endpoint:
        """Start the server; ready when this returns."""
        directory = self.lab.directory
        users = directory / "users.toml"
        if not users.exists():
            write_users(users, [User.of_password(name, PASSWORD, keep_password=True) for name in self.users])
        profile = directory / "server.toml"
        profile.write_text(
            "version = 1\n[interface]\n"
            + toml({"name": "pptp-srv", "pool": POOL, "dns": [str(INNER)], **self.interface})
            + "[listen]\n"
            + toml({"tcp": [f"{SERVER}:1723"], **self.listen})
            + "[auth]\n"
            + toml({"users": "users.toml", **self.auth})
            + "[legacy]\n"
            + toml(self.legacy)
        )
        self.server = self._start("server", "serve", host or self.lab.meet, profile, arguments)
        self.server.wait("state_changed", stage="waiting")
        return self.server

    def dial(
        self,
        host: Node,
        *arguments: str,
        user: str = "alice",
        password: str = PASSWORD,
        legacy: Mapping[str, object] | None = None,
        server: IPv4Address = SERVER,
        interface: Mapping[str, object] | None = None,
    ) -> Endpoint:
        """Start a client."""
        self.started += 1
        name = f"client{self.started}"
        directory = self.lab.directory
        secret = directory / f"{name}.password"
        secret.touch(0o600)
        secret.write_text(password + "\n")
        profile = directory / f"{name}.toml"
        profile.write_text(
            "version = 1\n[interface]\n"
            + toml({"name": f"pptp-cli{self.started}", **(interface or {})})
            + "[server]\n"
            + toml({"host": str(server)})
            + "[auth]\n"
            + toml({"user": user})
            + f'password = {{ file = "{secret.name}" }}\n[legacy]\n'
            + toml(legacy or self.legacy)
        )
        return self._start(name, "dial", host, profile, arguments)

    def _start(self, name: str, role: str, host: Node, profile: Path, arguments: Sequence[str]) -> Endpoint:
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime_directory(self.lab.directory, name))}
        running = host.start(
            [sys.executable, "-m", "grepunch", role, str(profile), "--json", *arguments],
            label=name,
            environment=environment,
        )
        return Endpoint(name, role, host, profile, running, EventLog(running.stdout_path))


def ping(host: Node, destination: str, size: int = 56, count: int = 3) -> bool:
    """Whether every ping of that size is answered."""
    try:
        host.run(
            program("ping"), "-n", "-c", str(count), "-i", "0.05", "-W", "3", "-s", str(size), destination, timeout=20.0
        )
    except LabError:
        return False
    return True


def link_local(host: Node, device: str) -> str:
    """The link-local address of a device, with its zone as ping of the *other* side needs it without."""
    links = json.loads(host.ip("-6", "-json", "address", "show", "dev", device, "scope", "link"))
    return str(next(a["local"] for a in links[0]["addr_info"]))


def transfer(server: Node, client: Node, octets: int) -> dict[str, Any]:
    """So many octets each way through the tunnel, every one of them checked."""
    serving = server.start_python("grepunch.lab.transfer", "serve", str(INNER), str(TRANSFER_PORT))
    serving.wait_for(r"^ready", 10.0)
    try:
        command = (sys.executable, "-m", "grepunch.lab.transfer", "run", str(INNER), str(TRANSFER_PORT))
        result: dict[str, Any] = json.loads(client.run(*command, str(octets), "0", timeout=60.0))
    finally:
        serving.stop()
    return result
