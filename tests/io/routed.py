"""Three network namespaces in a row, ``a`` - ``r`` - ``b``, ``r`` a plain router: for use inside a sandbox."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from grepunch.lab.node import Node
from grepunch.lab.requirements import program

ResultT = TypeVar("ResultT")

A = IPv4Address("198.18.1.2")
B = IPv4Address("198.18.2.2")
R_TOWARDS_A = IPv4Address("198.18.1.1")
R_TOWARDS_B = IPv4Address("198.18.2.1")

_BUILD = """
link add a0 netns a type veth peer name ra netns r
link add b0 netns b type veth peer name rb netns r
"""


def build() -> tuple[Node, Node, Node]:
    """Make the three, with addresses, routes and forwarding; ``(a, r, b)``."""
    nodes = tuple(Node(name, Path("/run/lab")) for name in "arb")
    a, r, b = nodes
    for node in nodes:
        subprocess.run([program("ip"), "netns", "add", node.name], check=True)
        node.ip("link", "set", "lo", "up")
    subprocess.run([program("ip"), "-batch", "-"], input=_BUILD, text=True, check=True)
    for node, interface, address in ((a, "a0", A), (r, "ra", R_TOWARDS_A), (r, "rb", R_TOWARDS_B), (b, "b0", B)):
        node.ip("address", "add", f"{address}/24", "dev", interface)
        node.ip("link", "set", interface, "up")
    a.ip("route", "add", "default", "via", str(R_TOWARDS_A))
    b.ip("route", "add", "default", "via", str(R_TOWARDS_B))
    # The kernel sends at most one ICMP error a second to a host otherwise.
    r.set_sysctls({"net.ipv4.ip_forward": 1, "net.ipv4.icmp_ratelimit": 0})
    b.set_sysctls({"net.ipv4.icmp_ratelimit": 0})
    return a, r, b


@contextlib.contextmanager
def raw(node: Node, protocol: int) -> Iterator[socket.socket]:
    """A plain raw socket of ``node``: the impartial witness."""
    with node.entered():
        witness = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    with witness:
        yield witness


def drain(witness: socket.socket) -> list[bytes]:
    """Every IPv4 packet the witness has seen."""
    packets = []
    with contextlib.suppress(BlockingIOError):
        while True:
            packets.append(witness.recv(65535))
    return packets


def eventually(look: Callable[[], list[ResultT]], count: int = 1, seconds: float = 2.0) -> list[ResultT]:
    """Collect what ``look`` finds until there are ``count``, or the time is up."""
    found: list[ResultT] = []
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        found += look()
        time.sleep(0.002)
    return found
