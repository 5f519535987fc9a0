"""Two real endpoints in the lab: what the demo shows and the live tests try is made here.

Every program is a process of its own on its own host: the rendezvous server with TLS on the public one, ``serve``
behind the first NAT, ``dial`` behind the second. They are the installed program, started as a user would start it,
with profiles written to files; what they say is read from their JSON events.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from grepunch.lab.node import LabError, Node, Program
from grepunch.lab.pulse import READY, Pulse
from grepunch.lab.requirements import program
from grepunch.lab.topology import MEET_ADDRESSES, Lab, Side
from grepunch.runtime import SYSTEM_DIRECTORY
from grepunch.secure.certificate import laboratory_certificate
from grepunch.secure.identity import Identity, encode_key, generate_private_key

INNER = {"a": IPv4Address("10.66.0.1"), "b": IPv4Address("10.66.0.2")}
MEET_PORT = 443
TRANSFER_PORT = 5001
PULSE_PORT = 5002
_POLL = 0.01
_LOG_TAIL = 4000  # characters of each log that go into an error


@dataclass(slots=True)
class EventLog:
    """The JSON events that a program prints into a file: each is read once, as the file grows."""

    path: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    _offset: int = 0

    def refresh(self) -> list[dict[str, Any]]:
        """All events up to now."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            whole, end, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(end)
        self.events += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return self.events


@dataclass(slots=True)
class Peer:
    """One of the two hosts: its identity, its profile and the endpoint that runs there, if one does."""

    side: str
    role: str
    host: Node
    identity: Identity
    profile: Path
    running: Program | None = None
    started_at: float = 0.0
    log: EventLog | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its endpoint does not run, or no longer."""
        return self.running is None or self.running.process.poll() is not None

    def events(self) -> list[dict[str, Any]]:
        """What its endpoint has said so far."""
        if self.running is None:
            return []
        if self.log is None or self.log.path != self.running.stdout_path:
            self.log = EventLog(self.running.stdout_path)
        return self.log.refresh()

    def tail(self) -> str:
        """The end of both its logs."""
        return f"{self.running.stdout[-_LOG_TAIL:]}\n{self.running.stderr[-_LOG_TAIL:]}" if self.running else ""


class Scenario:
    """Two peers in a lab with both sides (or two hosts on side a, for one NAT).

    ``rendezvous`` False: each profile names the other's external address instead. ``punch`` are extra lines of the
    [punch] section. ``relay`` is what the rendezvous relays for each side, in Mbit/s; ``gre_echo`` whether it tells
    where GRE comes from.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        rendezvous: bool = True,
        punch: str = "",
        relay: float | None = None,
        gre_echo: bool = False,
    ) -> None:
        self.lab = lab
        self.directory = lab.directory
        self.rendezvous = rendezvous
        self._punch = punch
        self._relay = relay
        self._gre_echo = gre_echo
        self.meeting: Program | None = None
        one_nat = "b" not in lab.sides
        self.peers: dict[str, Peer] = {}
        for name, role in (("a", "serve"), ("b", "dial")):
            host = lab.a.hosts[1] if one_nat and name == "b" else (lab.a if one_nat else lab.sides[name]).host
            identity = Identity.from_private_key(generate_private_key(os.urandom))
            self.peers[name] = Peer(name, role, host, identity, self.directory / f"peer-{name}.toml")
        self._side: Mapping[str, Side] = {"a": lab.a, "b": lab.a if one_nat else lab.b}
        if rendezvous:
            certificate, key = laboratory_certificate(MEET_ADDRESSES[0], datetime.now(UTC))
            self._secret_file("meet.crt", certificate)
            self._secret_file("meet.key", key)
        for name in self.peers:
            self.write_profile(name)

    # -- files ---------------------------------------------------------------------------------------------------

    def write_profile(self, name: str, *, peer_key: bytes | None = None, preshared_key: bytes | None = None) -> None:
        """(Re)write a peer's profile; ``peer_key`` pins another key than the other peer's real one."""
        peer = self.peers[name]
        other_name = "b" if name == "a" else "a"
        other = self.peers[other_name]
        self._secret_file(f"peer-{name}.key", encode_key(peer.identity.private_key).encode() + b"\n")
        lines = [
            "version = 1",
            "[interface]",
            f'name = "gp-{name}"',
            f'address = "{INNER[name]}/24"',
            "[identity]",
            f'private_key = {{ file = "{self.directory}/peer-{name}.key" }}',
        ]
        if self.rendezvous:
            lines += [
                "[rendezvous]",
                f'urls = ["wss://{MEET_ADDRESSES[0]}:{MEET_PORT}"]',
                f'ca_file = "{self.directory}/meet.crt"',
            ]
        lines += [
            "[[peer]]",
            f'name = "{other_name}"',
            f'public_key = "{encode_key(peer_key or other.identity.public_key)}"',
            f'address = "{INNER[other_name]}"',
        ]
        if preshared_key is not None:
            self._secret_file(f"peer-{name}.psk", encode_key(preshared_key).encode() + b"\n")
            lines.append(f'preshared_key = {{ file = "{self.directory}/peer-{name}.psk" }}')
        if not self.rendezvous:
            lines.append(f'last_known_address = "{self._side[other_name].external}"')
        if self._punch:
            lines += ["[punch]", self._punch]
        peer.profile.write_text("\n".join(lines) + "\n")

    def _secret_file(self, name: str, content: bytes) -> None:
        path = self.directory / name
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)

    # -- programs ----------------------------------------------------------------------------------------------

    def start_rendezvous(self) -> Program:
        """Start the meeting server; ready when this returns."""
        directory = self.directory
        self.meeting = self.lab.meet.start(
            [
                *(sys.executable, "-m", "grepunch", "rendezvous"),
                *("--listen", f"{MEET_ADDRESSES[0]}:{MEET_PORT}"),
                *("--cert", str(directory / "meet.crt"), "--key", str(directory / "meet.key")),
                *(("--gre-echo",) if self._gre_echo else ()),
                *(("--relay", "--relay-rate", f"{self._relay:g}") if self._relay is not None else ()),
            ],
            label="rendezvous",
        )
        self.meeting.wait_for(r"listening", 10.0)
        return self.meeting

    def start(self, name: str, *arguments: str) -> Program:
        """Start a peer's endpoint."""
        peer = self.peers[name]
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self._runtime_directory(name))}
        peer.running = peer.host.start(
            [sys.executable, "-m", "grepunch", peer.role, str(peer.profile), "--json", *arguments],
            label=peer.role,
            environment=environment,
        )
        peer.started_at = time.monotonic()
        return peer.running

    def command(self, name: str, *arguments: str, timeout: float = 20.0) -> str:
        """Run `grepunch-pptp ARGUMENTS` on a peer's host; what it printed."""
        environment = f"XDG_RUNTIME_DIR={self._runtime_directory(name)}"
        command = ("env", environment, sys.executable, "-m", "grepunch", *arguments)
        return self.peers[name].host.run(*command, timeout=timeout)

    def _runtime_directory(self, name: str) -> Path:
        directory = self.directory / f"run-{name}"
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def end(self) -> list[str]:
        """End both endpoints as a service manager would; what they left on their hosts, in words."""
        left: list[str] = []
        for name, peer in self.peers.items():
            if peer.running is None:
                continue
            code = peer.running.stop()
            if code != 143:
                left.append(f"{peer.role} ended with {code} after SIGTERM")
            left += [f"{name}: {what}" for what in self.remains(name)]
        return left

    def remains(self, name: str) -> list[str]:
        """What of an endpoint is to be seen on its host: interfaces, routes, nft tables, files."""
        host = self.peers[name].host
        found = [f"interface gp-{name}"] if f"gp-{name}" in host.ip("-brief", "link") else []
        found += [f"route {line}" for line in host.ip("route", "show", "proto", "171").splitlines()]
        found += [line for line in host.run(program("nft"), "list", "tables").splitlines() if "grepunch_" in line]
        profile = self.peers[name].profile.stem
        for directory in (SYSTEM_DIRECTORY, self._runtime_directory(name) / SYSTEM_DIRECTORY.name):
            found += [f"file {path}" for path in directory.glob(f"{profile}.*")]
        return found

    # -- what they say ------------------------------------------------------------------------------------------

    def events(self, name: str) -> Iterator[dict[str, Any]]:
        """All events of a peer's endpoint so far."""
        yield from self.peers[name].events()

    def status(self, name: str) -> dict[str, Any]:
        """What `status --json` says of a peer's endpoint."""
        answer = self.command(name, "status", self.peers[name].profile.stem, "--json")
        found: dict[str, Any] = json.loads(answer)["endpoints"][0]
        return found

    def wait_for(self, name: str, event: str, timeout: float, *, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait for the ``count``-th event of this name with these fields; raises :class:`LabError` with the logs."""
        peer = self.peers[name]
        deadline = time.monotonic() + timeout
        while True:
            ended = peer.has_ended
            found = [e for e in peer.events() if e["event"] == event and all(e.get(k) == v for k, v in fields.items())]
            if len(found) >= count:
                return found[count - 1]
            if ended or time.monotonic() > deadline:
                why = "before it ended" if ended else f"within {timeout:.0f} s"
                raise LabError(f"peer {name} said no {event} {fields or ''} {why}\n{peer.tail()}")
            time.sleep(_POLL)

    def up(self, timeout: float, meanwhile: Callable[[], None] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both peers' ``peer_up`` events. ``meanwhile`` is called again and again until then.

        Raises :class:`LabError` with the logs as soon as one of them has ended.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = [name for name, peer in self.peers.items() if peer.has_ended]
            ups = {n: [e for e in peer.events() if e["event"] == "peer_up"] for n, peer in self.peers.items()}
            if all(ups.values()):
                return ups["a"][0], ups["b"][0]
            if ended or time.monotonic() > deadline:
                why = f"peer {ended[0]} ended" if ended else f"{timeout:.0f} s passed"
                logs = "\n".join(peer.tail() for peer in self.peers.values())
                raise LabError(f"{why} before both peers were up\n{logs}")
            if meanwhile is not None:
                meanwhile()
            time.sleep(_POLL)

    def seconds_to_up(self, up_a: Mapping[str, Any], up_b: Mapping[str, Any]) -> float:
        """Seconds from both being present to both having had the other's first sealed frame.

        At a rendezvous each sees when the other is there; without one, each counts from its own start.
        """
        latest = max(peer.started_at for peer in self.peers.values())
        alone = {} if self.rendezvous else {name: latest - peer.started_at for name, peer in self.peers.items()}
        elapsed: list[float] = [up["elapsed"] - alone.get(name, 0.0) for name, up in (("a", up_a), ("b", up_b))]
        return round(max(elapsed), 3)

    def verdict(self, name: str, timeout: float) -> tuple[dict[str, Any], int]:
        """The final verdict of a peer's endpoint, and its exit code; raises :class:`LabError` where it has none."""
        peer = self.peers[name]
        if peer.running is None:
            raise LabError(f"peer {name} does not run")
        code = peer.running.wait(timeout)
        for event in peer.events():
            if event["event"] == "verdict":
                return event, code
        raise LabError(f"peer {name} ended with {code} and no verdict\n{peer.tail()}")

    def answers_again(self, timeout: float) -> float | None:
        """Seconds until pings go through the tunnel again both ways; None where they do not in time."""
        began = time.monotonic()
        while time.monotonic() - began < timeout:
            if not any(self.ping(name, 1)["lost"] for name in self.peers):
                return round(time.monotonic() - began, 3)
        return None

    # -- load ------------------------------------------------------------------------------------------------------

    def ping(self, source: str, count: int = 20, *, interval: float = 0.1, size: int = 56) -> dict[str, Any]:
        """Ping through the tunnel: ``{"sent", "lost", "rtt_seconds_median"}``.

        ping(8) waits hardly longer than ``interval`` for the last answers, so a short one calls late what is slow.
        """
        other = INNER["b" if source == "a" else "a"]
        command = (program("ping"), "-n", "-c", str(count), "-i", str(interval), "-s", str(size), "-W", "1", str(other))
        running = self.peers[source].host.start(command, label="ping")
        running.wait(count * (interval + 1) + 5)
        words = running.stdout.split()
        times = sorted(float(word.removeprefix("time=")) for word in words if word.startswith("time="))
        result: dict[str, Any] = {"sent": count, "lost": count - len(times)}
        if times:
            result["rtt_seconds_median"] = round(times[len(times) // 2] / 1000, 6)
        return result

    def start_transfer_server(self, name: str = "a") -> Program:
        """The side of a TCP transfer that listens, on a peer's inner address."""
        server = self.peers[name].host.start_python(
            "grepunch.lab.transfer", "serve", str(INNER[name]), str(TRANSFER_PORT)
        )
        server.wait_for("ready", 10.0)
        return server

    def start_transfer(self, length: int, source: str = "b", seconds: float = 0.0) -> Program:
        """Begin a transfer of ``length`` octets up and as many down, each in no less than ``seconds``.

        Its output is one JSON object.
        """
        other = INNER["a" if source == "b" else "b"]
        return self.peers[source].host.start_python(
            "grepunch.lab.transfer", "run", str(other), str(TRANSFER_PORT), str(length), str(seconds)
        )

    def finish_transfer(self, running: Program, timeout: float) -> dict[str, Any]:
        """The result of a transfer; raises :class:`LabError` when it failed."""
        if running.wait(timeout) != 0:
            raise LabError(f"the transfer failed: {running.stderr}")
        result: dict[str, Any] = json.loads(running.stdout)
        return result

    def start_pulse(self, interval: float = 0.02, octets: int = 64) -> dict[str, Program]:
        """Begin a steady pulse of datagrams both ways; see :mod:`grepunch.lab.pulse`."""
        pulses = {}
        for name, other in (("a", "b"), ("b", "a")):
            pulses[name] = self.peers[name].host.start_python(
                "grepunch.lab.pulse",
                *(str(INNER[name]), str(INNER[other]), str(PULSE_PORT), str(interval), str(octets)),
                label=f"pulse-{name}",
            )
        for running in pulses.values():
            running.wait_for(READY, 10.0)
        return pulses

    def finish_pulse(self, pulses: Mapping[str, Program], settle: float = 0.5) -> dict[str, Pulse]:
        """Stop sending, let what is under way arrive for ``settle`` seconds, and what both saw."""
        for running in pulses.values():
            running.process.send_signal(signal.SIGHUP)
        time.sleep(settle)
        for running in pulses.values():
            running.stop()
        return {name: Pulse(**json.loads(running.stdout.splitlines()[-1])) for name, running in pulses.items()}

    def transfer(self, length: int, timeout: float = 120.0) -> dict[str, Any]:
        """A whole transfer between the two peers."""
        server = self.start_transfer_server()
        try:
            return self.finish_transfer(self.start_transfer(length), timeout)
        finally:
            server.stop()
