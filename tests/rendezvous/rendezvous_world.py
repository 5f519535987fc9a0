"""A rendezvous on a virtual clock: one broker, client machines, and wires with a delay between them."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TypeVar

from grepunch.rendezvous.broker import Broker, CloseConnection
from grepunch.rendezvous.client import RendezvousClient
from grepunch.rendezvous.events import (
    ClientEvent,
)
from grepunch.rendezvous.limits import BrokerLimits

MAILBOX = b"m" * 16
ALICE = b"a" * 16
BOB = b"b" * 16
NOON = 20_000 * 86_400 + 43_200.0

EventT = TypeVar("EventT", bound=ClientEvent)


def entropy_from(seed: int) -> Callable[[int], bytes]:
    rng = random.Random(seed)
    return rng.randbytes


class Peer:
    """One client machine, its connection (None while down) and everything it was told."""

    def __init__(self, world: World, address: str, delay: float) -> None:
        self.world = world
        self.address = IPv4Address(address)
        self.delay = delay
        self.machine = RendezvousClient(entropy=entropy_from(int(self.address)))
        self.connection: int | None = None
        self.seen: list[ClientEvent] = []

    def connect(self) -> None:
        """Open another connection; an older one that nobody closed stays with the server as a ghost."""
        self.world.connect(self)

    def vanish(self) -> None:
        """The network goes: the machine knows, the server does not."""
        self.world.forget(self)
        self.machine.disconnected(self.world.now)

    def close(self) -> None:
        """The connection ends, and both ends know."""
        connection = self.connection
        self.vanish()
        if connection is not None:
            self.world.broker.disconnect(connection, self.world.now)

    def take(self, kind: type[EventT]) -> list[EventT]:
        """The events of one kind so far."""
        return [event for event in self.seen if isinstance(event, kind)]


class World:
    """A broker, peers, and wires that take each peer's ``delay`` one way, on a virtual clock."""

    def __init__(self, *, limits: BrokerLimits | None = None, wall: float = NOON, seed: int = 1) -> None:
        self.now = 1000.0
        self.wall_offset = wall - self.now
        self.limits = limits
        self.seed = seed
        self.ids = 0
        self.peers: dict[int, Peer] = {}
        self.wire: list[tuple[float, int, int, bool, str | bytes]] = []  # when, order, connection, to the server, what
        self.order = 0
        self.closed: list[CloseConnection] = []
        self.restart()

    def restart(self) -> None:
        """Another server process: nothing of the old one is left."""
        for peer in list(self.peers.values()):
            peer.vanish()
        self.broker = Broker(
            entropy=entropy_from(self.seed + self.ids),
            unix_time=lambda: self.now + self.wall_offset,
            limits=self.limits,
        )

    def peer(self, address: str = "198.51.100.1", delay: float = 0.01) -> Peer:
        return Peer(self, address, delay)

    def connect(self, peer: Peer) -> None:
        self.ids += 1
        peer.connection = self.ids
        self.peers[self.ids] = peer
        self.broker.connect(self.ids, peer.address, self.now)
        peer.machine.connected(self.now)
        self.flush()

    def forget(self, peer: Peer) -> None:
        if peer.connection is not None:
            self.peers.pop(peer.connection, None)
            peer.connection = None

    def flush(self) -> None:
        for peer in set(self.peers.values()):
            for message in peer.machine.transmits():
                assert peer.connection is not None
                self.post(peer.delay, peer.connection, True, message)
            peer.seen += peer.machine.events()
        for connection, text in self.broker.transmits():
            if connection in self.peers:
                self.post(self.peers[connection].delay, connection, False, text)
        for closing in self.broker.events():
            self.closed.append(closing)
            if closing.connection_id in self.peers:
                self.peers[closing.connection_id].vanish()

    def post(self, delay: float, connection: int, to_server: bool, message: str | bytes) -> None:
        self.order += 1
        self.wire.append((self.now + delay, self.order, connection, to_server, message))

    def run(self, seconds: float) -> None:
        """Let time pass; messages and timers happen when they are due."""
        end = self.now + seconds
        while True:
            self.flush()
            deadlines = [self.broker.deadline()] + [peer.machine.deadline() for peer in set(self.peers.values())]
            due = [at for at in deadlines if at is not None] + [message[0] for message in self.wire]
            if min(due, default=end) >= end:
                break
            self.now = max(self.now, min(due))
            self.deliver()
            self.broker.handle_timeout(self.now)
            for peer in list(self.peers.values()):
                peer.machine.handle_timeout(self.now)
        self.now = end

    def deliver(self) -> None:
        arrived = sorted(message for message in self.wire if message[0] <= self.now)
        self.wire = [message for message in self.wire if message[0] > self.now]
        for _, _, connection, to_server, message in arrived:
            if to_server:
                self.broker.receive(connection, message, self.now)
            elif connection in self.peers:
                self.peers[connection].machine.receive(message, self.now)


def pair(world: World) -> tuple[Peer, Peer]:
    """Alice and Bob, connected and in one mailbox."""
    alice, bob = world.peer("198.51.100.1"), world.peer("203.0.113.2", delay=0.03)
    alice.machine.join(MAILBOX, ALICE, world.now)
    bob.machine.join(MAILBOX, BOB, world.now)
    alice.connect()
    bob.connect()
    world.run(1.0)
    return alice, bob
