"""Two key exchanges on a virtual clock, and a link that loses, repeats and reorders; frames flow in sealed pairs."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field

from grepunch.secure.admission import Admission
from grepunch.secure.events import ConfirmWanted, ExchangeEvent, KeysDropped
from grepunch.secure.exchange import KeyExchange
from grepunch.secure.handshake import MessageType, open_initiation
from grepunch.secure.identity import Identity
from pptp.crypto.aead import Suite
from pptp.errors import DropError, WireError
from pptp.wire.sealed import is_sealed, receiver_index

SUITES = (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305)


class Indices:
    """The host's index allocator."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.taken: set[int] = set()

    def allocate(self) -> int:
        index = self._rng.randrange(1, 1 << 32)
        self.taken.add(index)
        return index

    def release(self, index: int) -> None:
        self.taken.remove(index)


@dataclass(eq=False)
class Host:
    """One side: its exchange, what it reported, and what data arrived."""

    name: str
    identity: Identity
    rng: random.Random
    psk: bytes | None = None
    peer_public_key: bytes = b""
    log: list[ExchangeEvent] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    suites: tuple[Suite, ...] = SUITES
    capabilities: int = 0b0110

    def start(self, now: float) -> None:
        """(Re)start: a new process with the same identity."""
        self.indices = Indices(self.rng)
        self.log.clear()
        self.admission = Admission(self.identity.public_key, self.rng.randbytes, now)
        self.exchange = KeyExchange(
            identity=self.identity,
            peer_public_key=self.peer_public_key,
            preshared_key=self.psk,
            session_id=self.rng.randbytes(8),
            capabilities=self.capabilities,
            suites=self.suites,
            entropy=self.rng.randbytes,
            allocate_index=self.indices.allocate,
            release_index=self.indices.release,
        )

    def of(self, kind: type[ExchangeEvent]) -> list[ExchangeEvent]:
        return [event for event in self.log if isinstance(event, kind)]


@dataclass
class Link:
    """What the network does to one datagram. All chances are per datagram."""

    loss: float = 0.0
    duplication: float = 0.0
    jitter: float = 0.0  # seconds on top of the delay: reorders
    delay: float = 0.02


class World:
    """Two hosts, a link, a clock. ``a`` has the lower public key: where both ask, it stays initiator."""

    def __init__(self, seed: int, link: Link | None = None, *, psk_a: bytes | None = None, psk_b: bytes | None = None):
        self.seed = seed
        self.rng = random.Random(seed)
        self.link = link if link is not None else Link()
        self.now = 1000.0
        low, high = sorted(
            (Identity.from_private_key(self.rng.randbytes(32)) for _ in range(2)), key=lambda i: i.public_key
        )
        self.a = Host("a", low, self.rng, psk_a, high.public_key)
        self.b = Host("b", high, self.rng, psk_b, low.public_key)
        for host in (self.a, self.b):
            host.start(self.now)
        self.wire: list[tuple[float, int, Host, bytes]] = []
        self.recorded: list[tuple[Host, bytes]] = []
        self._order = 0
        self.sent: Counter[str] = Counter()

    def other(self, host: Host) -> Host:
        return self.b if host is self.a else self.a

    def transmit(self, sender: Host, datagram: bytes) -> None:
        self.recorded.append((sender, datagram))
        copies = 1 + (self.rng.random() < self.link.duplication)
        for _ in range(copies):
            if self.rng.random() >= self.link.loss:
                self._order += 1
                at = self.now + self.link.delay + self.rng.random() * self.link.jitter
                heapq.heappush(self.wire, (at, self._order, self.other(sender), datagram))

    def send_data(self, sender: Host, data: bytes) -> bool:
        pair = sender.exchange.current
        if pair is None:
            return False
        self.sent[sender.name] += 1
        self.transmit(sender, pair.seal(0x21, data))
        return True

    def deliver(self, host: Host, datagram: bytes) -> None:
        """Give one datagram to ``host``, as its owner would."""
        try:
            if is_sealed(datagram):
                pair = host.exchange.pairs.get(receiver_index(datagram))
                if pair is None:
                    host.drops["unknown"] += 1
                    return
                _, data, _ = pair.open(datagram)
                if host.exchange.frame_verified(pair.local_index, self.now) and data:
                    host.received.append(data)
            elif datagram[0] == MessageType.INITIATION:
                reply = host.admission.admit(datagram, b"source", self.now)
                if reply is not None:
                    self.transmit(host, reply)
                else:
                    host.exchange.receive_initiation(open_initiation(host.identity, datagram), self.now)
            else:
                host.exchange.receive(datagram, self.now)
        except (WireError, DropError) as error:
            host.drops[str(error.cause)] += 1
        finally:
            self.flush(host)

    def flush(self, host: Host) -> None:
        for datagram in host.exchange.transmits():
            self.transmit(host, datagram)
        for event in host.exchange.events():
            host.log.append(event)
            if isinstance(event, ConfirmWanted):
                pair = host.exchange.current
                assert pair is not None
                self.transmit(host, pair.seal_empty())
            if isinstance(event, KeysDropped):
                assert event.local_index not in host.exchange.pairs

    def initiate(self, host: Host) -> None:
        host.exchange.initiate(self.now)
        self.flush(host)

    def next_event(self) -> float | None:
        times = [self.wire[0][0]] if self.wire else []
        times += [at for host in (self.a, self.b) if (at := host.exchange.deadline()) is not None]
        return min(times, default=None)

    def run(self, until: float) -> None:
        """Let everything happen up to ``until``."""
        steps = 0
        while (at := self.next_event()) is not None and at <= until:
            self.now = max(self.now, at)
            steps += 1
            assert steps < 200_000, f"livelock, seed {self.seed}"
            while self.wire and self.wire[0][0] <= self.now:
                _, _, host, datagram = heapq.heappop(self.wire)
                self.deliver(host, datagram)
            for host in (self.a, self.b):
                deadline = host.exchange.deadline()
                if deadline is not None and deadline <= self.now:
                    host.exchange.handle_timeout(self.now)
                    self.flush(host)
        self.now = until

    def run_for(self, seconds: float) -> None:
        self.run(self.now + seconds)

    def agree(self) -> bool:
        """Whether both have live keys and they are the same."""
        one, two = self.a.exchange.live, self.b.exchange.live
        if one is None or two is None or (one.local_index, one.remote_index) != (two.remote_index, two.local_index):
            return False
        return two.open(one.seal(0x21, b"x"))[1] == b"x" and one.open(two.seal(0x21, b"y"))[1] == b"y"


def initiations(world: World) -> list[tuple[Host, bytes]]:
    """Every message 1 that was sent, by whom."""
    return [(host, datagram) for host, datagram in world.recorded if datagram[0] == MessageType.INITIATION]


def connected(seed: int, *, initiator: str = "b") -> World:
    """Two sides with live keys, quiet, their logs empty."""
    world = World(seed)
    world.initiate(world.a if initiator == "a" else world.b)
    world.run_for(2.0)
    assert world.agree()
    for host in (world.a, world.b):
        host.log.clear()
    world.recorded.clear()
    return world
