"""A steady pulse of datagrams both ways, to see to the hundredth of a second when a tunnel carried and what it lost.

``python -m grepunch.lab.pulse OWN PEER PORT INTERVAL OCTETS`` on either host sends a numbered datagram every
``INTERVAL`` seconds, of a content that its number determines, and judges what comes. When it is ended it prints one
JSON object, a :class:`Pulse`. Times are of the machine's monotonic clock, which all hosts of a lab share.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

READY = "beating"
# ours: shorter pauses are any busy machine's
SHORTEST_GAP = 0.2
_HEADER = struct.Struct("!Id")  # number, time of sending
_WINDOW = 1 << 20  # numbers remembered, to tell a repetition from a late one


@dataclass(slots=True)
class Pulse:
    """What one host saw: counts of datagrams, and the pauses in what came, as beginnings and ends in seconds."""

    sent: int = 0
    received: int = 0
    repeated: int = 0
    altered: int = 0
    refused: int = 0
    highest: int = -1
    gaps: list[tuple[float, float]] = field(default_factory=list)

    def outage(self, since: float, until: float = float("inf")) -> float:
        """How many seconds after ``since`` the longest pause ended that began before ``until``; 0 where was none.

        A pause that had begun before ``since`` counts from then.
        """
        ends = [end - max(begin, since) for begin, end in self.gaps if end > since and begin < until]
        return round(max(ends, default=0.0), 3)


def content(number: int, size: int) -> bytes:
    """The octets that follow the header of this datagram."""
    return ((number * 2654435761) % (1 << 32)).to_bytes(4, "big") * (size // 4 + 1)


def total_lost(one: Pulse, other: Pulse) -> int:
    """How many datagrams of either side never came, once both have ended."""
    return one.sent - (other.received - other.repeated) + other.sent - (one.received - one.repeated)


def _beat(own: str, peer: str, port: int, interval: float, size: int) -> Pulse:
    pulse, seen = Pulse(), bytearray(_WINDOW)
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    signal.signal(signal.SIGHUP, lambda *_: ending.append(False))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as beating:
        beating.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT (linux/in.h): fragments inside
        beating.bind((own, port))
        beating.setblocking(False)
        print(READY, flush=True)
        due = heard_at = time.monotonic()
        while True not in ending:
            now = time.monotonic()
            if now >= due and False not in ending:
                due = max(due + interval, now - interval)
                try:
                    datagram = _HEADER.pack(pulse.sent, now) + content(pulse.sent, size)
                    beating.sendto(datagram[: max(size, _HEADER.size)], (peer, port))
                    pulse.sent += 1
                except OSError:  # no route or no buffer just now
                    pulse.refused += 1
            wait = 0.1 if False in ending else max(0.0, due - time.monotonic())
            if not select.select([beating], [], [], wait)[0]:
                continue
            data = beating.recv(65536)
            now = time.monotonic()
            if now - heard_at > SHORTEST_GAP:
                pulse.gaps.append((heard_at, now))
            heard_at = now
            _judge(pulse, seen, data, size)
        if time.monotonic() - heard_at > SHORTEST_GAP and False not in ending:
            pulse.gaps.append((heard_at, time.monotonic()))
    return pulse


def _judge(pulse: Pulse, seen: bytearray, data: bytes, size: int) -> None:
    number, _ = _HEADER.unpack_from(data)
    pulse.received += 1
    pulse.altered += data[_HEADER.size :] != content(number, size)[: max(0, size - _HEADER.size)]
    pulse.repeated += seen[number % _WINDOW]
    seen[number % _WINDOW] = 1
    pulse.highest = max(pulse.highest, number)


def main(arguments: Sequence[str]) -> None:
    """Beat until ended; SIGHUP stops the sending and lets what is under way arrive."""
    own, peer, port, interval, size = arguments
    print(json.dumps(asdict(_beat(own, peer, int(port), float(interval), int(size)))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
