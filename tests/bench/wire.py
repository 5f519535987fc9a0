"""The two hosts of a contender: a veth pair, an outer MTU of 1500, and the ways to spoil the line between them."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

from grepunch.lab.node import LabError, Node, Program
from grepunch.lab.requirements import program

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
OUTER_MTU = 1500
OUTER = {"left": IPv4Address("198.51.100.1"), "right": IPv4Address("198.51.100.2")}
INNER = {"left": IPv4Address("10.99.0.1"), "right": IPv4Address("10.99.0.2")}
WIRE = "wire"  # the name of the veth at both hosts

_POLL = 0.005
_ECHO = struct.Struct("!BBHHH")  # RFC 792: type, code, checksum, identifier, sequence
_ECHO_REQUEST = 8
_RANDOM_RANGE = 100_000


def other(side: Side) -> Side:
    """The opposite side."""
    return "right" if side == "left" else "left"


@dataclass(slots=True)
class Site:
    """Two hosts, what runs on them for one contender, and under which names and addresses its tunnel appears.

    ``interfaces`` are the tunnel's, ``inner`` the addresses that the loads use. ``endpoints`` are the processes whose
    time and memory count; there are none where the kernel does all.
    """

    name: str
    directory: Path
    hosts: dict[Side, Node] = field(default_factory=dict)
    endpoints: dict[Side, Program] = field(default_factory=dict)
    interfaces: dict[Side, str] = field(default_factory=dict)
    inner: dict[Side, IPv4Address] = field(default_factory=lambda: {side: INNER[side] for side in SIDES})

    def build(self) -> None:
        """Make the two namespaces and the line between them."""
        self.directory.mkdir(parents=True)
        self.hosts = {side: Node(f"{self.name}-{side}", self.directory) for side in SIDES}
        left, right = self.hosts["left"], self.hosts["right"]
        ip = program("ip")
        for host in (left, right):
            run_here(ip, "netns", "add", host.name)
        run_here(
            *(ip, "link", "add", WIRE, "netns", left.name, "mtu", str(OUTER_MTU)),
            *("type", "veth", "peer", "name", WIRE, "netns", right.name, "mtu", str(OUTER_MTU)),
        )
        for side, host in self.hosts.items():
            host.ip("address", "add", f"{OUTER[side]}/24", "dev", WIRE)
            for interface in ("lo", WIRE):
                host.ip("link", "set", "dev", interface, "up")

    def configure(self, side: Side, mtu: int, timeout: float = 10.0) -> None:
        """Wait for the tunnel's interface and give it its address, for tools that leave that to others."""
        host, interface = self.hosts[side], self.interfaces[side]
        deadline = time.monotonic() + timeout
        while True:
            try:
                host.ip("link", "set", "dev", interface, "mtu", str(mtu), "up")
                break
            except LabError:
                if time.monotonic() > deadline or self.endpoints[side].process.poll() is not None:
                    raise LabError(f"{self.name}: no interface {interface}\n{self.said()}") from None
                time.sleep(_POLL)
        host.ip("address", "add", f"{INNER[side]}/24", "dev", interface)

    def await_echo(self, timeout: float) -> None:
        """Ping from left to right until the first answer. Raises :class:`LabError` with what the endpoints said."""
        deadline = time.monotonic() + timeout
        with self.hosts["left"].entered():
            probe = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        with probe:
            identifier = os.getpid() & 0xFFFF
            for sequence in range(1 << 16):
                if time.monotonic() > deadline:
                    break
                if any(endpoint.process.poll() is not None for endpoint in self.endpoints.values()):
                    break
                try:
                    probe.sendto(echo_request(identifier, sequence), (str(self.inner["right"]), 0))
                except OSError as error:
                    if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENOBUFS):
                        raise
                if select.select([probe], [], [], 2 * _POLL)[0] and self._answered(probe):
                    return
                time.sleep(_POLL)
        raise LabError(f"{self.name}: nothing came through within {timeout:.0f} s\n{self.said()}")

    def _answered(self, probe: socket.socket) -> bool:
        while True:
            try:
                packet, (source, _) = probe.recvfrom(2048)
            except BlockingIOError:
                return False
            if source == str(self.inner["right"]) and packet[(packet[0] & 0x0F) * 4] == 0:
                return True

    def set_loss(self, fraction: float) -> None:
        """Lose this share of the packets that arrive from the line, at both ends; 0 loses none."""
        for host in self.hosts.values():
            host.nft(loss_rules(fraction))

    def fragments(self) -> int:
        """Fragments that both hosts have made of outer packets up to now."""
        return sum(_snmp(host, "FragCreates") for host in self.hosts.values())

    def wire_packets(self) -> int:
        """Packets that have gone over the line up to now, both directions."""
        return sum(self._statistic(side, WIRE, "tx_packets") for side in SIDES)

    def link_attribute(self, side: Side, name: str) -> int:
        """A number that ip(8) knows of a tunnel's interface: ``mtu``, ``txqlen``, ``gso_max_size``."""
        shown = self.hosts[side].ip("-json", "-detail", "link", "show", "dev", self.interfaces[side])
        return int(json.loads(shown)[0][name])

    def _statistic(self, side: Side, interface: str, name: str) -> int:
        with self.hosts[side].entered():
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        return parse_device_counter(lines, interface, name)

    def check_endpoints(self) -> None:
        """Raises :class:`LabError` with what it said when an endpoint has ended."""
        for endpoint in self.endpoints.values():
            if endpoint.process.poll() is not None:
                last = (endpoint.stdout + endpoint.stderr).strip().rpartition("\n")[2]
                raise LabError(f"{endpoint.name} ended with {endpoint.process.returncode}: {last}")

    def said(self) -> str:
        """The ends of the endpoints' logs."""
        return "\n".join(f"{end.name}: {end.stdout[-2000:]}{end.stderr[-2000:]}" for end in self.endpoints.values())

    def close(self) -> None:
        """End what runs here and remove the hosts."""
        for host in self.hosts.values():
            for running in host.programs:
                running.process.terminate()
        for host in self.hosts.values():
            host.stop()
            run_here(program("ip"), "netns", "delete", host.name)
        self.hosts = {}


def run_here(*command: str, stdin: str = "") -> None:
    """Run a command in the namespace we are in ourselves. Raises :class:`LabError` with what it said."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr or done.stdout}")


def echo_request(identifier: int, sequence: int) -> bytes:
    """An ICMP echo request (RFC 792) without data."""
    total = (_ECHO_REQUEST << 8) + identifier + sequence
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return _ECHO.pack(_ECHO_REQUEST, 0, ~total & 0xFFFF, identifier, sequence)


def loss_rules(fraction: float) -> str:
    """The nft rules that lose this share of what arrives from the line."""
    rules = "table inet bench\ndelete table inet bench\n"
    if fraction > 0:
        share = round(fraction * _RANDOM_RANGE)
        which = f"numgen random mod {_RANDOM_RANGE} < {share}" if share < _RANDOM_RANGE else ""
        rules += f"""table inet bench {{
            chain lose {{
                type filter hook input priority 0
                iifname "{WIRE}" {which} drop
            }}
        }}
"""
    return rules


def parse_device_counter(lines: list[str], interface: str, name: str) -> int:
    """A counter of /proc/net/dev: ``rx_bytes``, ``rx_packets``, ``tx_bytes`` or ``tx_packets``."""
    column = {"rx_bytes": 0, "rx_packets": 1, "tx_bytes": 8, "tx_packets": 9}[name]
    for line in lines:
        label, _, values = line.partition(":")
        if label.strip() == interface:
            return int(values.split()[column])
    raise ValueError(f"no interface {interface}")


def parse_snmp(text: str, counter: str) -> int:
    """A counter of the ``Ip`` lines of /proc/net/snmp."""
    names, values = (line.split() for line in text.splitlines() if line.startswith("Ip:"))
    return int(values[names.index(counter)])


def _snmp(host: Node, counter: str) -> int:
    with host.entered():
        return parse_snmp(Path("/proc/thread-self/net/snmp").read_text(), counter)
