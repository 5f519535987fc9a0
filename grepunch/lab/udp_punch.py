"""An honest attempt at UDP hole punching between two hosts of a lab, to compare GRE with.

Three programs, each a process of its own: a reflector on the public host, which tells every datagram's source and
passes on what the peers tell about themselves, and one peer on each host. A peer asks the reflector at two addresses
for its own mapped address (two answers that differ mean a symmetric NAT, and how the port moves), learns the other's
through it, and both send to each other: to the mapped port, to its neighbours, and to where the port would be next if
it moved steadily. A peer has passed when it has heard the other *and* knows that the other has heard it.

Not tried: opening hundreds of sockets at once and hoping for a collision (the birthday attack), which carrier NATs
answer with a limit on mappings. What is said of a failure is said of the ordinary method.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, NoReturn

from pptp.value import value

if TYPE_CHECKING:
    from grepunch.lab.node import Node

_PORTS = (3478, 3479)  # ours: the STUN port (RFC 8489 section 18.5) and the next
_LISTENING = "listening"
_MEETING_TIME = 10.0  # seconds to learn both mappings and the other's
_PUNCH_TIME = 3.0  # seconds of sending once both are known
_LINGER = 0.3  # seconds a peer that has passed goes on answering, for the other to know
_INTERVAL = 0.05  # seconds between rounds of asking or punching
_NEIGHBOURS = 4  # ports tried on either side of a guess
_BUFFER = 2048


@value
class PeerReport:
    """What one peer saw. Addresses are ``address:port``; ``heard_from`` is empty where nothing came."""

    local_port: int
    mapped: tuple[str, ...]
    symmetric: bool
    tried_ports: int
    sent: int
    heard_from: str
    was_heard: bool


@value
class UdpOutcome:
    """``result`` is "passed" when both peers heard each other and know it, else "failed"."""

    result: str
    a: PeerReport
    b: PeerReport

    def as_json(self) -> dict[str, Any]:
        """The outcome as a JSON object."""
        return asdict(self)


def attempt(meet: Node, meet_addresses: Sequence[IPv4Address], a: Node, b: Node) -> UdpOutcome:
    """Try to punch a UDP hole between hosts ``a`` and ``b``: about 3 s when it fails, well under 1 s when not.

    ``meet_addresses`` are two addresses of the public host ``meet``. Raises :class:`grepunch.lab.node.LabError` when
    the reflector or a peer does not work, which is no failed punch.
    """
    addresses = [str(address) for address in meet_addresses[: len(_PORTS)]]
    reflector = meet.start_python(__name__, "reflect", *addresses, label="udp-reflector")
    try:
        reflector.wait_for(_LISTENING, 10.0)
        peers = [
            node.start_python(__name__, "peer", name, other, *addresses, label="udp-peer")
            for node, name, other in ((a, "a", "b"), (b, "b", "a"))
        ]
        reports = []
        for peer in peers:
            peer.wait_for(r"^\{.*\}$", _MEETING_TIME + _PUNCH_TIME + 5.0)
            fields = json.loads(peer.stdout)
            reports.append(PeerReport(**{**fields, "mapped": tuple(fields["mapped"])}))
    finally:
        reflector.stop()
    passed = all(report.heard_from and report.was_heard for report in reports)
    return UdpOutcome("passed" if passed else "failed", *reports)


def guess_ports(mapped: Sequence[int]) -> list[int]:
    """The ports of a NAT worth trying, likeliest first, from the ports it used towards the reflector, in order."""
    step = mapped[-1] - mapped[0]
    centres = (mapped[-1], mapped[-1] + step, mapped[0])
    offsets = [0, *(sign * distance for distance in range(1, _NEIGHBOURS + 1) for sign in (1, -1))]
    ports = dict.fromkeys(centre + offset for offset in offsets for centre in centres)
    return [port for port in ports if 0 < port < 1 << 16]


def _reflect(addresses: Sequence[str]) -> NoReturn:
    """Answer every datagram with its source and with what the peer it asks for has last told."""
    told: dict[str, Any] = {}
    sockets = []
    for place in zip(addresses, _PORTS, strict=True):
        reflecting = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        reflecting.bind(place)
        reflecting.settimeout(_INTERVAL / 10)
        sockets.append(reflecting)
    print(_LISTENING, flush=True)
    while True:
        for index, reflecting in enumerate(sockets):
            try:
                data, source = reflecting.recvfrom(_BUFFER)
            except TimeoutError:
                continue
            message = json.loads(data)
            if message["mapped"]:
                told[message["name"]] = message["mapped"]
            answer = {"you": source, "index": index, "other": told.get(message["other"])}
            reflecting.sendto(json.dumps(answer).encode(), source)


class _Peer:
    """One host's side of the attempt, over one socket."""

    def __init__(self, name: str, other: str, reflector: Sequence[str]) -> None:
        self._name = name
        self._other = other
        self._reflector = list(zip(reflector, _PORTS, strict=True))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", 0))
        self._mapped: dict[int, tuple[str, int]] = {}
        self._sent = 0
        self._heard_from = ""
        self._was_heard = False

    def run(self) -> PeerReport:
        """Learn, exchange, punch. Raises ``TimeoutError`` when the reflector or the other never answers."""
        theirs = self._meet()
        ports = guess_ports([port for _, port in theirs])
        self._punch(theirs[-1][0], ports)
        return PeerReport(
            local_port=self._socket.getsockname()[1],
            mapped=tuple(f"{address}:{port}" for address, port in self._mapping()),
            symmetric=len(set(self._mapping())) > 1,
            tried_ports=len(ports),
            sent=self._sent,
            heard_from=self._heard_from,
            was_heard=self._was_heard,
        )

    def _mapping(self) -> list[tuple[str, int]]:
        """How the reflector's addresses saw us, in order; empty until all have answered."""
        if len(self._mapped) < len(self._reflector):
            return []
        return [self._mapped[index] for index in range(len(self._reflector))]

    def _meet(self) -> list[tuple[str, int]]:
        """Ask until both sides know both mappings; the other's."""
        deadline = time.monotonic() + _MEETING_TIME
        while time.monotonic() < deadline:
            question = {"name": self._name, "other": self._other, "mapped": self._mapping()}
            for place in self._reflector:
                self._socket.sendto(json.dumps(question).encode(), place)
            other: list[list[Any]] | None = None
            for data, source in self._arrivals():
                if source in self._reflector:
                    answer = json.loads(data)
                    self._mapped[answer["index"]] = tuple(answer["you"])
                    other = answer["other"] or other
            if other and question["mapped"]:
                return [(address, port) for address, port in other]
        raise TimeoutError(f"peer {self._name}: the reflector or the other peer did not answer")

    def _arrivals(self) -> list[tuple[bytes, tuple[str, int]]]:
        """What comes within one interval. ICMP errors are news about the path, not the end of it."""
        found = []
        end = time.monotonic() + _INTERVAL
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                found.append(self._socket.recvfrom(_BUFFER))
            except (TimeoutError, ConnectionRefusedError):
                continue
        return found

    def _punch(self, address: str, ports: Sequence[int]) -> None:
        targets = [(address, port) for port in ports]
        deadline = time.monotonic() + _PUNCH_TIME
        while time.monotonic() < deadline:
            message = json.dumps({"name": self._name, "heard": bool(self._heard_from)}).encode()
            for target in targets:
                self._socket.sendto(message, target)
                self._sent += 1
            for data, source in self._arrivals():
                if source in self._reflector:
                    continue
                said = json.loads(data)
                if said["name"] != self._other:
                    continue
                self._heard_from = f"{source[0]}:{source[1]}"
                if source not in targets:
                    targets.append(source)
                if said["heard"] and not self._was_heard:
                    self._was_heard = True
                    deadline = time.monotonic() + _LINGER


def main() -> None:
    """``reflect ADDRESS ADDRESS`` or ``peer NAME OTHER ADDRESS ADDRESS``."""
    match sys.argv[1:]:
        case ["reflect", *addresses]:
            _reflect(addresses)
        case ["peer", name, other, *addresses]:
            print(json.dumps(asdict(_Peer(name, other, addresses).run())), flush=True)
        case _:
            sys.exit(main.__doc__)


if __name__ == "__main__":
    main()
