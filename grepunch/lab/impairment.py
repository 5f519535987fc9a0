"""A bad line in user space: ``python -m grepunch.lab.impairment ONE OTHER SETTINGS SEED``.

Joins two interfaces of its namespace and carries every IPv4 packet from one to the other late, twice, out of order,
altered, or not at all, as the JSON file SETTINGS says; SIGHUP has it read anew. What is not IPv4 (ARP) passes at
once. Most kernels of test machines have no netem; where one has, this still does the same everywhere, by one seed.

Prints a line when it has begun and whenever it has new settings, and its counters as JSON when it is ended.
"""

from __future__ import annotations

import heapq
import json
import select
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from random import Random
from types import FrameType
from typing import NoReturn

from pptp.value import value

READY = "carrying"  # the line printed whenever new settings hold; a number follows
# ours: what is overtaken by others stays behind by up to so many seconds: dozens of packets of a fast transfer
HELD_BACK = 0.003
_BATCH = 64  # packets of one direction before the other gets its turn
_LARGEST = 2048  # no interface of a lab makes larger packets than its MTU; see offload.py
_BUFFER = 8 << 20
# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h
_ETH_P_ALL = 0x0003
_ETHERNET = 14
_ETH_P_IP = b"\x08\x00"
_PACKET_IGNORE_OUTGOING = 23
_SOL_PACKET = 263
_SO_RCVBUFFORCE = 33


@value
class Impairment:
    """What a line does to packets, in each direction.

    ``loss``, ``duplication``, ``reorder`` and ``corruption`` are parts of all packets, from 0 to 1; ``delay`` and
    ``jitter`` seconds: each packet takes ``delay`` ± ``jitter``, and only a reordered one is overtaken.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reorder: float = 0.0
    corruption: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        parts = (self.loss, self.duplication, self.reorder, self.corruption)
        if not all(0.0 <= part <= 1.0 for part in parts) or not 0.0 <= self.jitter <= self.delay:
            raise ValueError(f"no line can be like this: {self}")

    def write(self, path: Path) -> None:
        """As the settings of a line, whole at any instant."""
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(path)


class Direction:
    """One direction of a line: what is under way on it. Its owner gives the time and takes out what has arrived."""

    def __init__(self, impairment: Impairment, random: Random) -> None:
        self.impairment = impairment
        self.counters: Counter[str] = Counter()
        self._random = random
        self._under_way: list[tuple[float, int, bytes]] = []
        self._last = 0.0  # when the latest packet arrives that nothing holds back

    def deadline(self) -> float | None:
        """When :meth:`arrived` has something next."""
        return self._under_way[0][0] if self._under_way else None

    def take(self, frame: bytes, now: float) -> None:
        """A frame goes in."""
        self.counters["taken"] += 1
        if frame[12:_ETHERNET] != _ETH_P_IP:
            self._push(now, frame)
            return
        chance, like = self._random.random, self.impairment
        if chance() < like.loss:
            self.counters["lost"] += 1
            return
        if chance() < like.corruption:
            self.counters["corrupted"] += 1
            frame = self._altered(frame)
        copies = 1
        if chance() < like.duplication:
            self.counters["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            due = now + like.delay + (2 * chance() - 1) * like.jitter
            if chance() < like.reorder:
                self.counters["reordered"] += 1
                due = max(due, self._last) + chance() * HELD_BACK
            else:
                self._last = due = max(due, self._last)
            self._push(due, frame)

    def arrived(self, now: float) -> list[bytes]:
        """The frames that have come out by now, in their order."""
        frames = []
        while self._under_way and self._under_way[0][0] <= now:
            frames.append(heapq.heappop(self._under_way)[2])
        return frames

    def _push(self, due: float, frame: bytes) -> None:
        heapq.heappush(self._under_way, (due, self.counters["pushed"], frame))
        self.counters["pushed"] += 1

    def _altered(self, frame: bytes) -> bytes:
        """One bit of the IPv4 packet is another."""
        altered = bytearray(frame)
        bit = self._random.randrange(8 * _ETHERNET, 8 * len(frame))
        altered[bit // 8] ^= 1 << bit % 8
        return bytes(altered)


class Line:
    """Both directions between two packet sockets, until a signal ends the program."""

    def __init__(self, one: str, other: str, settings: Path, random: Random, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._changes = 0
        self._sockets = [_packet_socket(one), _packet_socket(other)]
        self._directions = [Direction(Impairment(), random), Direction(Impairment(), random)]

    def read_settings(self, *_: int | FrameType | None) -> None:
        """They may have changed (also as a signal handler)."""
        impairment = Impairment(**json.loads(self._settings.read_text()))
        for direction in self._directions:
            direction.impairment = impairment
        self._changes += 1
        print(f"{READY} {self._changes}", flush=True)

    def counters(self) -> list[dict[str, int]]:
        """Of both directions."""
        return [dict(direction.counters) for direction in self._directions]

    def run(self) -> NoReturn:
        """Carry packets."""
        poll = select.epoll()
        for receiving in self._sockets:
            poll.register(receiving, select.EPOLLIN)
        while True:
            self._carry()
            dues = [due for direction in self._directions if (due := direction.deadline()) is not None]
            poll.poll(max(0.0, min(dues) - self._clock()) if dues else 1.0)

    def _carry(self) -> None:
        for number, direction in enumerate(self._directions):
            receiving, sending = self._sockets[number], self._sockets[1 - number]
            with suppress(BlockingIOError):
                for _ in range(_BATCH):
                    direction.take(receiving.recv(_LARGEST), self._clock())
            for frame in direction.arrived(self._clock()):
                try:
                    sending.send(frame)
                except OSError:  # a full queue, a link that is down, a frame beyond the MTU: the line loses it
                    direction.counters["refused"] += 1


def _packet_socket(interface: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
    raw.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    try:
        raw.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:  # beyond the system's limit only root of the machine may go
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    raw.bind((interface, _ETH_P_ALL))
    return raw


def main() -> None:
    """Carry until ended."""
    one, other, settings, seed = sys.argv[1:]
    line = Line(one, other, Path(settings), Random(int(seed)), time.monotonic)  # noqa: S311  # to be repeated
    signal.signal(signal.SIGHUP, line.read_settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    line.read_settings()
    try:
        line.run()
    finally:
        print(json.dumps(line.counters()), flush=True)


if __name__ == "__main__":
    main()
