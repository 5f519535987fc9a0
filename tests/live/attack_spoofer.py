"""An attacker outside both NATs who knows every address, key and Call ID that travels in the clear, and sends.

A program of the router's own: from there a packet may carry anybody's source address, which the router would let
nobody else get away with. ``python -m tests.live.attack_spoofer JSON`` prints one JSON object when it is done:
``{"sent", "seconds", "kinds"}``. The JSON has the fields of :class:`Order`.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from grepunch.lab.capture import read
from grepunch.secure.fragments import build_fragments
from grepunch.secure.handshake import Payload, build_initiation
from grepunch.secure.identity import Identity, generate_private_key
from grepunch.secure.noise import IK_HFS_PSK2, HandshakeState
from pptp.wire.sealed import SEALED_HEADER, is_sealed
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear

BATCH = 20  # packets between two looks at the clock
STRANGERS = 64  # handshakes made beforehand, each of another key: to make one costs more than to refuse one
IP_HEADER = struct.Struct("!BBHHHBBH4s4s")
GRE_V1_SIZE = 12


@dataclass(frozen=True, slots=True)
class Order:
    """What to send: ``count`` packets at ``rate`` a second from ``source`` to ``destination``.

    ``kinds`` are names of :class:`Forger`'s methods. ``capture`` is what the attacker has overheard, as a file;
    ``key`` the victim's public key in hexadecimal.
    """

    source: str
    destination: str
    count: int
    rate: float
    kinds: list[str]
    seed: int = 1
    capture: str = ""
    key: str = ""


class Forger:
    """Makes GRE packets, each kind by a method of its name."""

    def __init__(self, order: Order) -> None:
        self._random = random.Random(order.seed)
        self._overheard = _overheard(order) if order.capture else []
        sealed = [packet[GRE_V1_SIZE:] for packet in self._overheard if is_sealed(packet[GRE_V1_SIZE:])]
        headers = [SEALED_HEADER.unpack_from(frame) for frame in sealed if len(frame) >= SEALED_HEADER.size]
        self._index = headers[-1][1] if headers else 0
        self._counter = max((counter for _, index, counter in headers if index == self._index), default=0)
        self._handshakes = self._strangers_handshakes(bytes.fromhex(order.key)) if order.key else []
        self._sequence = self._random.randrange(1 << 32)

    def replayed(self) -> bytes:
        """A packet of the peer's, once more."""
        return self._random.choice(self._overheard)

    def mutated(self) -> bytes:
        """A packet of the peer's with one bit flipped behind the GRE header."""
        packet = bytearray(self.replayed())
        packet[self._random.randrange(GRE_V1_SIZE, len(packet))] ^= 1 << self._random.randrange(8)
        return bytes(packet)

    def forged(self) -> bytes:
        """A sealed frame of the live session, with a counter still to come, and noise for the rest."""
        counter = self._counter + self._random.randrange(1, 1 << 20)
        return self._gre(SEALED_HEADER.pack(0x53, self._index, counter) + self._noise())

    def stranger(self) -> bytes:
        """A sealed frame of no session."""
        return self._gre(SEALED_HEADER.pack(0x53, self._random.randrange(1 << 32), 0) + self._noise())

    def unsealed(self) -> bytes:
        """What an ordinary PPTP peer might say: LCP, IPCP and IP without any seal."""
        said = (
            b"\xff\x03\xc0\x21" + struct.pack("!BBHBBI", 1, 1, 10, 5, 6, self._random.randrange(1 << 32)),
            b"\xff\x03\xc0\x21" + struct.pack("!BBH", 5, 2, 4),  # Terminate-Request
            b"\x80\x21" + struct.pack("!BBHBB4s", 1, 1, 10, 3, 6, b"\x0a\x42\x00\x63"),
            b"\x00\x21\x45" + self._noise(),
        )
        return self._gre(self._random.choice(said))

    def probe(self) -> bytes:
        """A probe without the key."""
        return self._gre(build_clear(ClearPacket(ClearKind.PROBE, self._random.randbytes(44))))

    def fragment(self) -> bytes:
        """A part of a handshake, of a sender who knows the victim's public key and is none of its peers."""
        return self._gre(build_clear(ClearPacket(ClearKind.HANDSHAKE_FRAGMENT, self._random.choice(self._handshakes))))

    def half(self) -> bytes:
        """A first part whose second never comes, new each time: it takes up memory and makes nobody compute."""
        noise = self._random.randbytes(1200)
        return self._gre(build_clear(ClearPacket(ClearKind.HANDSHAKE_FRAGMENT, build_fragments(noise, self._key)[0])))

    def _strangers_handshakes(self, victim: bytes) -> list[bytes]:
        self._key = victim
        parts: list[bytes] = []
        for number in range(STRANGERS):
            identity = Identity.from_private_key(generate_private_key(self._random.randbytes))
            state = HandshakeState(IK_HFS_PSK2, b"grepunch-pptp/1", identity, victim)
            message = build_initiation(state, number + 1, Payload(bytes(8), 0, (1,)), self._random.randbytes)
            parts += build_fragments(message, victim)
        return parts

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(24, 400))

    def _gre(self, ppp: bytes) -> bytes:
        if self._random.random() < 0.25:
            return struct.pack("!HH", 0, 0x880B) + ppp
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return struct.pack("!HHHHI", 0x3001, 0x880B, len(ppp), 0, self._sequence) + ppp


def _overheard(order: Order) -> list[bytes]:
    """The GRE packets from source to destination in the capture."""
    ends = IPv4Address(order.source).packed + IPv4Address(order.destination).packed
    packets = (packet for _, packet in read(Path(order.capture)))
    return [packet[20:] for packet in packets if packet[9] == socket.IPPROTO_GRE and packet[12:20] == ends]


def attack(order: Order) -> dict[str, object]:
    """Send it all, or what SIGTERM leaves time for; what was sent."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    forger = Forger(order)
    makers: list[Callable[[], bytes]] = [getattr(forger, kind) for kind in order.kinds]
    source, destination = IPv4Address(order.source), IPv4Address(order.destination)
    header = IP_HEADER.pack(0x45, 0, 0, 0, 0, 60, socket.IPPROTO_GRE, 0, source.packed, destination.packed)
    sent: Counter[str] = Counter()
    place = (order.destination, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        began = time.monotonic()
        for number in range(order.count):
            if stopped:
                break
            choice = number % len(makers)
            raw.sendto(header + makers[choice](), place)
            sent[order.kinds[choice]] += 1
            if number % BATCH == 0:
                ahead = began + number / order.rate - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
        seconds = time.monotonic() - began
    return {"sent": sum(sent.values()), "seconds": round(seconds, 3), "kinds": dict(sent)}


if __name__ == "__main__":
    print(json.dumps(attack(Order(**json.loads(sys.argv[1])))), flush=True)
