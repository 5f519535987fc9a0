"""A stream of numbered UDP packets both ways between two hosts, each of which notes what came, and when.

``python -m tests.live.counted OWN PEER RATE SIZE`` sends ``RATE`` packets a second of ``SIZE`` octets each to ``PEER``
until SIGTERM, goes on listening for two seconds, and prints one JSON object: ``sent`` and ``heard``, both lists of
[number, clock], where the clock is that of the machine (all hosts of a lab share it).
"""

from __future__ import annotations

import json
import select
import signal
import socket
import struct
import sys
import time
from ipaddress import IPv4Address
from typing import Any

from grepunch.lab.node import Node, Program

PORT = 5002
SIZE = 1000  # octets of a payload, where nothing else is said
BUFFER = 8_000_000  # octets that may wait for us, or as many as the system lets: the tunnel's losses are to be counted
LINGER = 2.0  # seconds for the last ones to come
_NUMBER = struct.Struct("!I")


def main(own: str, peer: str, rate: float, size: int) -> None:
    """See the module."""
    end = [float("inf")]
    signal.signal(signal.SIGTERM, lambda *_: end.__setitem__(0, min(end[0], time.monotonic())))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        link.bind((own, PORT))
        link.setblocking(False)
        sent: list[tuple[int, float]] = []
        heard: list[tuple[int, float]] = []
        print("ready", file=sys.stderr, flush=True)
        began = time.monotonic()
        while (now := time.monotonic()) < end[0] + LINGER:
            while now < end[0] and len(sent) < (now - began) * rate:
                try:
                    link.sendto(_NUMBER.pack(len(sent)).ljust(size, b"\0"), (peer, PORT))
                except OSError:
                    break  # a full queue: the number is tried again
                sent.append((len(sent), time.monotonic()))
            try:
                while True:
                    heard.append((_NUMBER.unpack_from(link.recv(2048))[0], time.monotonic()))
            except BlockingIOError:
                due = (len(sent) + 1) / rate - (time.monotonic() - began)
                select.select([link], [], [], min(max(0.0, due), 0.05))
    print(json.dumps({"sent": sent, "heard": heard}))


def start(node: Node, own: IPv4Address, peer: IPv4Address, rate: float, size: int = SIZE) -> Program:
    """Start one end on its host; it sends when this returns."""
    program = node.start_python("tests.live.counted", str(own), str(peer), str(rate), str(size))
    program.wait_for("ready", 20)
    return program


def finish(one: Program, other: Program, timeout: float) -> list[dict[str, Any]]:
    """End both; per direction: ``sent`` in ``seconds``, ``lost`` (when each missing packet was sent), ``repeated``."""
    reports: list[dict[str, Any]] = []
    for end in (one, other):
        end.process.terminate()
    for end in (one, other):
        end.wait(timeout)
        reports.append(json.loads(end.stdout))
    ways = []
    for sender, receiver in ((0, 1), (1, 0)):
        numbers = [number for number, _ in reports[receiver]["heard"]]
        there = set(numbers)
        sent = reports[sender]["sent"]
        ways.append(
            {
                "sent": len(sent),
                "seconds": sent[-1][1] - sent[0][1] if sent else 0.0,
                "lost": [at for number, at in sent if number not in there],
                "repeated": len(numbers) - len(there),
            }
        )
    return ways


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
