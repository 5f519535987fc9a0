"""What the live tests share: the types of their fixtures, and a small sender and receiver of raw GRE.

Importable both in pytest's process and in a sandbox, which gets pytest's ``sys.path``.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, NoReturn, Protocol

from grepunch.lab.node import Node
from grepunch.lab.requirements import LabUnavailable
from grepunch.lab.topology import Lab

PROTOCOL_PPP = 0x880B  # RFC 2637 section 4.1
SETTLE = 0.1  # seconds in which a packet surely crosses the lab, whatever else the machine has to do
ICMP_UNREACHABLE, ICMP_TIME_EXCEEDED, CODE_PROTOCOL = 3, 11, 2  # RFC 792


class RunInLab(Protocol):
    """The type of the ``run_in_lab`` fixture."""

    def __call__(self, entry: Callable[..., object] | str, /, *, timeout: float = ..., **arguments: object) -> Any:
        """Call ``entry`` (a top-level function, or ``"module:function"``) with ``arguments`` in a fresh sandbox."""


class Unavailable(Protocol):
    """The type of the ``unavailable`` fixture."""

    def __call__(self, error: LabUnavailable) -> NoReturn:
        """Skip the test where ``GREPUNCH_PERMIT_SKIPS`` lists what is missing, else fail it."""


def gre_v0(text: bytes) -> bytes:
    """Plain GRE (RFC 2784 section 2)."""
    return struct.pack("!HH", 0, PROTOCOL_PPP) + text


def gre_v1(call_id: int, text: bytes) -> bytes:
    """Enhanced GRE with key and sequence number 0 (RFC 2637 section 4.1)."""
    return struct.pack("!HHHHI", 0x3001, PROTOCOL_PPP, len(text), call_id, 0) + text


# form -> what a and b send
FORMS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "v0": (gre_v0, gre_v0),
    "0/0": (lambda text: gre_v1(0, text), lambda text: gre_v1(0, text)),
    "7/7": (lambda text: gre_v1(7, text), lambda text: gre_v1(7, text)),
    "7/9": (lambda text: gre_v1(7, text), lambda text: gre_v1(9, text)),
    "0/7": (lambda text: gre_v1(0, text), lambda text: gre_v1(7, text)),
}


class Gre:
    """A raw GRE socket of a node, with an ICMP socket beside it."""

    def __init__(self, node: Node) -> None:
        with node.entered():
            self._gre = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
            self._icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    def send(self, destination: IPv4Address, packet: bytes, ttl: int = 64) -> None:
        """Send a packet that begins with its GRE header."""
        self._gre.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        self._gre.sendto(packet, (str(destination), 0))

    def never_fragment(self) -> None:
        """Send with Don't Fragment from now on, whatever the kernel knows of the path (linux/in.h)."""
        self._gre.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE

    def heard(self) -> list[tuple[str, bytes]]:
        """Source and payload of each GRE packet that has come."""
        return [(source, packet[20:]) for source, packet in _drain(self._gre)]

    def errors(self) -> list[tuple[str, int, int]]:
        """Reporter, type and code of each ICMP error that quotes GRE."""
        found = []
        for source, packet in _drain(self._icmp):
            kind, code = packet[20], packet[21]
            if kind in (ICMP_UNREACHABLE, ICMP_TIME_EXCEEDED) and packet[28 + 9] == socket.IPPROTO_GRE:
                found.append((source, kind, code))
        return found

    def close(self) -> None:
        """Close both sockets."""
        self._gre.close()
        self._icmp.close()


def _drain(raw: socket.socket) -> list[tuple[str, bytes]]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, source = raw.recvfrom(2048, socket.MSG_DONTWAIT)
            found.append((source[0], packet))
    return found


def exchange(lab: Lab, a: Gre, b: Gre, form: str, rounds: int = 4) -> list[int]:
    """Both sides send ``rounds`` times; how many packets each has heard after its own first."""
    build_a, build_b = FORMS[form]
    heard = [0, 0]
    for number in range(rounds):
        a.send(lab.b.external, build_a(b"from a %d" % number))
        b.send(lab.a.external, build_b(b"from b %d" % number))
        time.sleep(SETTLE)
        heard[0] += sum(source == str(lab.b.external) for source, _ in a.heard())
        heard[1] += sum(source == str(lab.a.external) for source, _ in b.heard())
    return heard
