"""One machine of the lab: a network namespace, and the programs that run in it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from grepunch.lab import conntrack
from grepunch.lab.capture import READY
from grepunch.lab.namespaces import entered
from grepunch.lab.requirements import LabUnavailable, Missing, program
from pptp.value import value

_POLL = 0.01  # seconds between looks at what a program has printed
_STOP = 5.0  # ours: seconds a program has for its own clean-up before it is killed


class LabError(RuntimeError):
    """A step of the lab itself failed; the text has the command and what it printed."""


@value
class Program:
    """A running program of a node, its standard output and error in files of their own."""

    name: str
    process: subprocess.Popen[bytes]
    stdout_path: Path
    stderr_path: Path

    @property
    def stdout(self) -> str:
        """What it has printed up to now."""
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has said on standard error up to now."""
        return self.stderr_path.read_text(errors="replace")

    def wait(self, timeout: float) -> int:
        """Its exit code. Raises ``subprocess.TimeoutExpired``."""
        return self.process.wait(timeout)

    def wait_for(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until a line of its standard output or error matches; the first match.

        Raises :class:`LabError` with everything it printed when it ends, or time does, without one.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = self.process.poll() is not None
            for text in (self.stdout, self.stderr):
                if match := re.search(pattern, text, re.MULTILINE):
                    return match
            if ended or time.monotonic() > deadline:
                why = f"ended with {self.process.returncode}" if ended else f"printed no match in {timeout} s"
                raise LabError(f"{self.name} {why}: {pattern!r}\n{self.stdout}\n{self.stderr}")
            time.sleep(_POLL)

    def stop(self) -> int:
        """End it as a service manager would, SIGTERM then SIGKILL; its exit code. Harmless when it has ended."""
        self.process.terminate()
        try:
            return self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@dataclass(slots=True)
class Node:
    """A host, a NAT or the router. ``name`` is also that of its network namespace (``ip netns``)."""

    name: str
    directory: Path
    programs: list[Program] = field(default_factory=list)

    def entered(self) -> AbstractContextManager[None]:
        """A ``with`` block whose new sockets and processes belong to this node; see :func:`.namespaces.entered`."""
        return entered(self.name)

    def popen(self, command: Sequence[str], **options: int) -> subprocess.Popen[str]:
        """Start a command whose pipes are ``options``, as ``subprocess`` takes them."""
        with self.entered():
            return subprocess.Popen(command, text=True, **options)  # type: ignore[call-overload,no-any-return]

    def start(
        self, command: Sequence[str], *, label: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Program:
        """Start a program that goes on; it is stopped with the lab. Prints into ``NODE-LABEL-N.out`` and ``.err``."""
        stem = f"{self.name}-{label or Path(command[0]).name}-{len(self.programs) + 1}"
        stdout, stderr = self.directory / f"{stem}.out", self.directory / f"{stem}.err"
        with stdout.open("wb") as out, stderr.open("wb") as err, self.entered():
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        started = Program(stem, process, stdout, stderr)
        self.programs.append(started)
        return started

    def start_python(
        self, module: str, *arguments: str, label: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Program:
        """Start ``python -m module arguments`` as :meth:`start` does, with this interpreter."""
        command = [sys.executable, "-m", module, *arguments]
        return self.start(command, label=label or module.rpartition(".")[2], environment=environment)

    def run(self, *command: str, stdin: str = "", timeout: float = 10.0) -> str:
        """Run a short command to its end; what it printed. Raises :class:`LabError` when it fails."""
        with self.entered():
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise LabError(
                f"{self.name}: {' '.join(command)} ended with {done.returncode}: {done.stderr or done.stdout}"
            )
        return done.stdout

    def ip(self, *arguments: str) -> str:
        """Run ip(8) here."""
        return self.run(program("ip"), *arguments)

    def nft(self, rules: str) -> None:
        """Load nft rules here, all or none. Raises :class:`LabUnavailable` where the kernel has no nf_tables."""
        try:
            self.run(program("nft"), "-f", "-", stdin=rules)
        except LabError as error:
            raise explain_nft(error) from error

    def ping(self, destination: IPv4Address, *, ttl: int = 64) -> bool:
        """Whether one ICMP echo request to ``destination`` is answered within a second."""
        try:
            self.run(program("ping"), "-n", "-c", "1", "-W", "1", "-t", str(ttl), str(destination))
        except LabError:
            return False
        return True

    def set_sysctls(self, values: Mapping[str, str | int]) -> None:
        """Set kernel parameters of this namespace (dotted names)."""
        with self.entered():
            for name, value in values.items():
                Path("/proc/sys", *name.split(".")).write_text(str(value))

    def capture(self, interface: str) -> Program:
        """Start writing what passes ``interface`` into a pcap file beside the logs: ``NODE-INTERFACE.pcap``."""
        path = self.directory / f"{self.name}-{interface}.pcap"
        capturing = self.start_python("grepunch.lab.capture", interface, str(path), label=f"capture-{interface}")
        capturing.wait_for(READY, 10.0)
        return capturing

    def flows(self) -> list[conntrack.Flow]:
        """What this node's connection tracking remembers."""
        with self.entered():
            return conntrack.flows()

    def forget_flows(self) -> None:
        """Empty this node's connection tracking table, as a reboot would."""
        with self.entered():
            conntrack.flush()

    def stop(self) -> None:
        """End every program of this node."""
        for running in reversed(self.programs):
            running.stop()


def explain_nft(error: LabError) -> LabError | LabUnavailable:
    """A failure of nft as what it is: a kernel without what the rules need, or wrong rules."""
    text = str(error)
    if "Operation not supported" in text or "No such file or directory" in text or "cache initialization" in text:
        return LabUnavailable(
            Missing.NETFILTER,
            "the kernel lacks what the NAT rules need (nf_tables, NAT, connection tracking with the PPTP helper): "
            f"sudo modprobe -a nft_masq nft_ct nft_reject_ipv4 nf_nat_pptp nf_conntrack_netlink; nft said: {text}",
        )
    return error
