"""Our side of a cell: `serve` or `dial`, driven by profile and command line alone, judged by its events."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from grepunch.lab.node import LabError, Node, Program
from grepunch.lab.requirements import program
from tests.interop.guest import WAN_HERE, WAN_THERE
from tests.interop.kinds import PASSWORD, USER, Kind

POOL = "10.77.0.0/24"
INTERFACES = {"serve": "gp-serve", "dial": "gp-dial"}
_POLL = 0.02  # seconds
_SIGTERM = 143  # the exit code of a program that a signal ended in order


class Endpoint:
    """`serve` for the guest's clients, or `dial` to the guest's server; one at a time per directory."""

    def __init__(self, node: Node, role: str, kind: Kind) -> None:
        self.node = node
        self.role = role
        self.kind = kind
        self.interface = INTERFACES[role]
        self.directory = node.directory / "ours"
        self.directory.mkdir(exist_ok=True)
        self.profile = self.directory / f"{role}.toml"
        self.running: Program | None = None
        if role == "serve":
            self._write_users()
        sections = self._serve_sections() if role == "serve" else self._dial_sections()
        self.profile.write_text(f"version = 1\n{sections}\n{kind.profile_sections()}\n")

    def _serve_sections(self) -> str:
        return "\n".join(
            (
                "[listen]", f'tcp = ["{WAN_HERE.ip}:1723"]',
                "[interface]", f'name = "{self.interface}"', f'pool = "{POOL}"', 'dns = ["10.77.0.1"]',
                "[auth]", f'users = "{self.directory}/users.toml"', 'session_policy = "replace"',
            )
        )  # fmt: skip

    def _dial_sections(self) -> str:
        password = self.directory / "password"
        _write_private(password, PASSWORD + "\n")
        return "\n".join(
            (
                "[server]", f'host = "{WAN_THERE.ip}"',
                "[interface]", f'name = "{self.interface}"',
                "[auth]", f'user = "{USER}"', f'password = {{ file = "{password}" }}',
            )
        )  # fmt: skip

    def _write_users(self) -> None:
        """Only CHAP-MD5 needs the password itself; for the others its NT hash has to do."""
        users = self.directory / "users.toml"
        users.unlink(missing_ok=True)
        keep = ["--keep-password"] if self.kind.authentication == "chap" else []
        self.node.run(*_COMMAND, "user", "add", USER, "--users", str(users), *keep, stdin=PASSWORD + "\n", timeout=30.0)

    def start(self, *arguments: str) -> None:
        """Start it; a `serve` is listening when this returns."""
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.directory)}
        command = [*_COMMAND, self.role, str(self.profile), "--json", *arguments]
        self.running = self.node.start(command, label=self.role, environment=environment)
        if self.role == "serve":
            self.wait_for("state_changed", 30.0, stage="waiting")

    def events(self, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        """The events of this run so far that have this name and these fields."""
        if self.running is None:
            return []
        lines = [line for line in self.running.stdout.splitlines(keepends=True) if line.endswith("\n")]
        found: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
        return [e for e in found if name in ("", e["event"]) and all(e.get(k) == v for k, v in fields.items())]

    def wait_for(self, name: str, timeout: float, *, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The ``count``-th such event of this run. Raises :class:`LabError` with what it has said instead."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.running is None or self.running.process.poll() is not None
            found = self.events(name, **fields)
            if len(found) >= count:
                return found[count - 1]
            if ended or time.monotonic() > deadline:
                why = "before it ended" if ended else f"within {timeout:.0f} s"
                raise LabError(f"{self.role} said no {name} {fields or ''} {why}\n{self.tail()}")
            time.sleep(_POLL)

    def end(self) -> dict[str, Any]:
        """End it as a service manager would, and check that nothing of it is left; its verdict."""
        if self.running is None:
            raise LabError(f"{self.role} does not run")
        code = self.running.stop()
        if code != _SIGTERM:
            raise LabError(f"{self.role} ended with {code} after SIGTERM\n{self.tail()}")
        if self.interface in self.node.ip("-brief", "link"):
            raise LabError(f"{self.role} left its interface behind\n{self.tail()}")
        return self.wait_for("verdict", 1.0)

    def kill(self) -> None:
        """Kill it as a loss of power would."""
        if self.running is not None:
            self.running.process.kill()
            self.running.process.wait()

    def descriptors(self) -> int:
        """How many file descriptors it has open."""
        if self.running is None:
            raise LabError(f"{self.role} does not run")
        return len(list(Path(f"/proc/{self.running.process.pid}/fd").iterdir()))

    def verdict(self) -> str:
        """The word of its last verdict, if it has come to one."""
        found = self.events("verdict")
        return str(found[-1]["result"]) if found else ""

    def tail(self) -> str:
        """The end of what it has said."""
        if self.running is None:
            return f"{self.role} has not been started"
        return f"{self.running.stdout[-3000:]}\n{self.running.stderr[-3000:]}"


_COMMAND = (sys.executable, "-m", "grepunch")


def ping_command(source_interface: str, destination: object, size: int, count: int, interval: float) -> list[str]:
    """Of iputils; a link-local destination gets its interface."""
    scoped = f"{destination}%{source_interface}" if ":" in str(destination) else str(destination)
    return [program("ping"), "-n", "-q", "-c", str(count), "-i", str(interval), "-s", str(size), "-W", "5", scoped]


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
