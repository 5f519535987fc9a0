"""A simulated network for the puncher's tests: two hosts, their NATs, routers between, one virtual clock.

Hop by hop: every NAT and router decrements the TTL and answers Time-Exceeded where it ends, every hop may lose the
packet and costs its latency. The NAT classes are the ones met in the field; what each does with GRE is in its class.
All randomness comes from one seed.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from grepunch.ports import Form, GreSend, PathNews, PathNewsKind
from grepunch.punch.candidate import Candidate, CandidateKind
from grepunch.punch.plan import Budget, Proven, Schedule
from grepunch.punch.puncher import OpenEvidence, OwnSideOpen, Puncher, WindowEnded
from pptp.wire.vendor import ClearKind, parse_clear

DEFAULT_TTL = 64
UNREPLIED, REPLIED = 30.0, 180.0
HOP_LATENCY = 0.004
SIGNALLING_DELAY = 0.03


@dataclass(frozen=True, slots=True)
class Packet:
    source: IPv4Address
    destination: IPv4Address
    form: Form
    ppp: bytes
    ttl: int


@dataclass(slots=True)
class Flow:
    expires: float
    local: bool = False  # made by a stray that came in: holds the tuple that our own packets would need
    replied: bool = False


class Nat:
    """Netfilter without a helper (G2): a flow per peer and form, strays dropped, 30 s unreplied and 180 s replied."""

    translates = True
    poisonable = False
    first_wins = True

    def __init__(self, external: IPv4Address, inner: IPv4Address, *, timers: tuple[float, float] | None = None) -> None:
        self.external = external
        self.inner = inner
        self.unreplied, self.replied = timers or (UNREPLIED, REPLIED)
        self.flows: dict[tuple[IPv4Address, Form | None], Flow] = {}

    def key(self, peer: IPv4Address, form: Form) -> tuple[IPv4Address, Form | None]:
        return (peer, form)

    def blocks(self, form: Form) -> bool:
        return False

    def _live(self, peer: IPv4Address, form: Form, now: float) -> Flow | None:
        flow = self.flows.get(self.key(peer, form))
        return flow if flow is not None and flow.expires > now else None

    def outward(self, packet: Packet, now: float) -> Packet | None:
        """A packet of the inside leaves (its TTL has been paid for already)."""
        flow = self._live(packet.destination, packet.form, now)
        if self.blocks(packet.form) or (flow is not None and flow.local):
            return None
        if flow is None:
            flow = self.flows[self.key(packet.destination, packet.form)] = Flow(now + self.unreplied)
        flow.expires = now + (self.replied if flow.replied else self.unreplied)
        return replace(packet, source=self.external) if self.translates else packet

    def inward(self, packet: Packet, now: float) -> bool:
        """A packet of the outside reached our external address; True: it goes on to the inside."""
        flow = self._live(packet.source, packet.form, now)
        if self.blocks(packet.form):
            return False
        if flow is None or flow.local:
            if self.poisonable:
                self.flows[self.key(packet.source, packet.form)] = Flow(now + self.unreplied, local=True)
            return False
        flow.replied = True
        flow.expires = now + self.replied
        return True


class Firewall(Nat):
    """A stateful firewall without NAT (G0)."""

    translates = False


class IpPair(Nat):
    """Keyed by the pair of addresses alone, blind to Call IDs (G1; with one host inside G1L is the same)."""

    def key(self, peer: IPv4Address, form: Form) -> tuple[IPv4Address, Form | None]:
        return (peer, None)


class ShortTimers(Nat):
    """Conntrack timers of 2 s unreplied (G12)."""

    def __init__(self, external: IPv4Address, inner: IPv4Address) -> None:
        super().__init__(external, inner, timers=(2.0, 10.0))


class Blocked(Nat):
    """No GRE (G4 drop)."""

    def blocks(self, form: Form) -> bool:
        return True


class Poisonable(Nat):
    """Accepts strays on its own input (G13): they make local flows that starve its own host for 30 s."""

    poisonable = True


class PoisonableSlot(Poisonable):
    """As Linux has it: v0 and v1 with Call ID 0 share one slot, so both forms starve together."""

    def key(self, peer: IPv4Address, form: Form) -> tuple[IPv4Address, Form | None]:
        return (peer, None)


class NoV0(Nat):
    """Drops plain GRE (G7V0)."""

    def blocks(self, form: Form) -> bool:
        return form is Form.V0


class NoV1(Nat):
    """Drops enhanced GRE (G7V1)."""

    def blocks(self, form: Form) -> bool:
        return form is Form.V1


CLASSES: dict[str, tuple[type[Nat], ...]] = {
    "G0": (Firewall,),
    "G1": (IpPair,),
    "G2": (Nat,),
    "G12": (ShortTimers,),
    "G13": (Poisonable,),
    "G13S": (PoisonableSlot,),
    "G7V0": (NoV0,),
    "G7V1": (NoV1,),
    "G15": (Nat, Nat),  # a CPE behind a carrier's NAT
    "G15P": (Nat, Poisonable),
}
CARRIER_INSIDE = IPv4Address("100.64.3.1")


@dataclass(slots=True)
class Side:
    """One host: its NATs from the inside out, and the puncher on it."""

    name: str
    address: IPv4Address
    nats: list[Nat]
    outgoing_key: bytes
    incoming_key: bytes
    budget: Budget = field(default_factory=Budget)
    puncher: Puncher | None = None
    full_sent: list[float] = field(default_factory=list)
    lead_ttls: list[int] = field(default_factory=list)
    proven: list[tuple[float, Proven]] = field(default_factory=list)
    opened: list[tuple[float, OwnSideOpen]] = field(default_factory=list)
    ended: list[tuple[float, WindowEnded]] = field(default_factory=list)
    received: list[tuple[float, Packet]] = field(default_factory=list)

    @property
    def external(self) -> IPv4Address:
        return self.nats[-1].external if self.nats else self.address


def build_side(name: str, nat_class: Sequence[type[Nat]], number: int) -> Side:
    external = IPv4Address(f"203.0.113.{10 + number}")
    host = IPv4Address(f"192.168.{number}.2")
    nats: list[Nat] = []
    for depth, kind in enumerate(nat_class):
        outermost = depth == len(nat_class) - 1
        inner = IPv4Address(f"192.168.{number}.1") if depth == 0 else CARRIER_INSIDE
        nats.append(kind(external if outermost else IPv4Address(f"100.64.{number}.7"), inner))
    if nat_class == (Firewall,):
        host = external
    keys = (hashlib.sha256(b"a").digest(), hashlib.sha256(b"b").digest())
    return Side(name, host, nats, *(keys if number == 1 else keys[::-1]))


class World:
    """Two sides, ``routers`` routers between them, a heap of what happens when."""

    def __init__(
        self,
        class_a: str | Sequence[type[Nat]],
        class_b: str | Sequence[type[Nat]],
        *,
        seed: int,
        loss: float = 0.0,
        routers: int = 3,
        routers_answer: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.loss = loss
        self.routers_answer = routers_answer
        self.routers = [IPv4Address(f"198.51.100.{n + 1}") for n in range(routers)]
        kinds = [CLASSES[c] if isinstance(c, str) else tuple(c) for c in (class_a, class_b)]
        self.a = build_side("a", kinds[0], 1)
        self.b = build_side("b", kinds[1], 2)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    # -- running -------------------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), action))

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        while not done():
            timers = [
                (deadline, side)
                for side in (self.a, self.b)
                if side.puncher is not None and (deadline := side.puncher.deadline()) is not None
            ]
            next_timer = min((deadline for deadline, _ in timers), default=float("inf"))
            next_event = self._heap[0][0] if self._heap else float("inf")
            if min(next_timer, next_event) > until:
                self.now = until
                return
            self.now = max(self.now, min(next_timer, next_event))
            if next_event <= next_timer:
                heapq.heappop(self._heap)[2]()
            else:
                for deadline, side in timers:
                    if deadline <= self.now and side.puncher is not None:
                        side.puncher.handle_timeout(self.now)
            for side in (self.a, self.b):
                self.flush(side)

    def other(self, side: Side) -> Side:
        return self.b if side is self.a else self.a

    def flush(self, side: Side) -> None:
        if side.puncher is None:
            return
        for send in side.puncher.transmits():
            self.send(side, send)
        for event in side.puncher.events():
            match event:
                case Proven():
                    side.proven.append((self.now, event))
                case WindowEnded():
                    side.ended.append((self.now, event))
                case OwnSideOpen():
                    side.opened.append((self.now, event))

    # -- the network ---------------------------------------------------------------------------------------

    def send(self, side: Side, send: GreSend) -> None:
        if send.ttl is None:
            side.full_sent.append(self.now)
        else:
            side.lead_ttls.append(send.ttl)
        packet = Packet(side.address, send.destination, send.form, send.ppp, send.ttl or DEFAULT_TTL)
        self.at(self.now + HOP_LATENCY, lambda: self._outward(side, packet, 0))

    def _lost(self) -> bool:
        return self.random.random() < self.loss

    def _forward(self, side: Side, packet: Packet, reporter: IPv4Address, hops: int) -> Packet | None:
        """Pay for one hop: the packet with one less TTL, or None (lost, or dead with an answer to ``side``)."""
        if self._lost():
            return None
        if packet.ttl > 1:
            return replace(packet, ttl=packet.ttl - 1)
        if self.routers_answer and not self._lost():
            news = PathNews(PathNewsKind.TIME_EXCEEDED, reporter, packet.destination, packet.form)
            self.at(self.now + HOP_LATENCY * hops, lambda: self._news(side, news))
        return None

    def _news(self, side: Side, news: PathNews) -> None:
        if side.puncher is not None:
            side.puncher.receive_news(news, self.now)

    def _outward(self, side: Side, packet: Packet, depth: int) -> None:
        if depth < len(side.nats):
            nat = side.nats[depth]
            forwarded = self._forward(side, packet, nat.inner, depth + 1)
            translated = nat.outward(forwarded, self.now) if forwarded else None
            if translated:
                self.at(self.now + HOP_LATENCY, lambda: self._outward(side, translated, depth + 1))
            return
        self._route(side, packet, 0)

    def _route(self, side: Side, packet: Packet, index: int) -> None:
        hops = len(side.nats) + index + 1
        if index < len(self.routers):
            forwarded = self._forward(side, packet, self.routers[index], hops)
            if forwarded:
                self.at(self.now + HOP_LATENCY, lambda: self._route(side, forwarded, index + 1))
            return
        receiver = self.other(side)
        if packet.destination == receiver.external:
            self._inward(side, receiver, packet, len(receiver.nats) - 1)

    def _inward(self, side: Side, receiver: Side, packet: Packet, depth: int) -> None:
        """The packet stands before NAT ``depth`` of the receiver, counted from the inside."""
        if depth < 0:
            self._deliver(receiver, packet)
            return
        nat = receiver.nats[depth]
        if not nat.inward(packet, self.now):
            return
        hops = len(side.nats) + len(self.routers) + len(receiver.nats) - depth
        forwarded = self._forward(side, packet, nat.external, hops)
        if forwarded:
            self.at(self.now + HOP_LATENCY, lambda: self._inward(side, receiver, forwarded, depth - 1))

    def _deliver(self, receiver: Side, packet: Packet) -> None:
        receiver.received.append((self.now, packet))
        clear = parse_clear(packet.ppp)
        if receiver.puncher is not None and clear.kind is ClearKind.PROBE:
            receiver.puncher.receive_probe(packet.source, packet.form, clear.body, packet.ttl, self.now)

    # -- attempts ------------------------------------------------------------------------------------------

    def begin(self, side: Side, schedule: Schedule, *, at: float, kind: CandidateKind) -> None:
        """A new attempt of ``side`` at the other's external address, starting at ``at``."""
        side.puncher = Puncher(
            attempt_id=self.random.randbytes(8),
            outgoing_key=side.outgoing_key,
            incoming_key=side.incoming_key,
            targets=[Candidate(self.other(side).external, kind)],
            schedule=schedule,
            budget=side.budget,
            entropy=self.random.randbytes,
            own_external=side.external if schedule.rendezvous else None,
        )
        side.puncher.start(at, self.now)
        self.flush(side)


def both_proven(world: World) -> bool:
    return bool(world.a.proven and world.b.proven)


def meet(world: World, schedule: Schedule, *, skew: float = 0.0, windows: int = 1, signalling: bool = True) -> None:
    """Punch with a rendezvous: common start, "open" through signalling, repeated windows; ``skew`` delays side b."""
    told: set[str] = set()

    def carry() -> bool:
        for side in (world.a, world.b):
            if signalling and side.opened and side.name not in told:
                told.add(side.name)
                peer = world.other(side).puncher
                if peer is not None:
                    world.at(world.now + SIGNALLING_DELAY, lambda peer=peer: peer.peer_opened(world.now))  # type: ignore[misc]
        return both_proven(world)

    for _ in range(windows):
        start = world.now + 0.3
        told.clear()
        for side in (world.a, world.b):
            side.opened.clear()
        world.begin(world.a, schedule, at=start + max(0.0, -skew), kind=CandidateKind.EXTERNAL)
        world.begin(world.b, schedule, at=start + max(0.0, skew), kind=CandidateKind.EXTERNAL)
        world.run(start + 30.0 + abs(skew), carry)
        if both_proven(world):
            return
        world.run(world.now + schedule.silence)


def find_each_other(world: World, *, skew: float, limit: float, schedule: Schedule | None = None) -> float | None:
    """Punch without a rendezvous; seconds from the later start until both have proven, None when over ``limit``."""
    schedule = schedule or Schedule.alone()
    world.at(0.0, lambda: world.begin(world.a, schedule, at=world.now, kind=CandidateKind.KNOWN))
    world.at(skew, lambda: world.begin(world.b, schedule, at=world.now, kind=CandidateKind.KNOWN))
    world.run(skew + limit, lambda: both_proven(world))
    return world.now - skew if both_proven(world) else None


__all__ = ["CLASSES", "OpenEvidence", "Side", "World", "both_proven", "find_each_other", "meet"]
