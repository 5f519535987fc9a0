"""Two whole endpoints but for the system under them: peer machines, admission and packet loop on one virtual clock.

They are joined by a rendezvous that delays, loses, dies and comes back, and by the NATs and routers of the puncher's
simulated network. Each host has a clock of its own. All randomness comes from one seed, which :meth:`World.story`
tells together with what happened.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from grepunch.admission import HandshakeDesk
from grepunch.datapump import DataPump, PeerTraffic
from grepunch.destinations import Destinations
from grepunch.peer import (
    MailboxDoubted,
    MailboxSend,
    PathUp,
    PeerConfig,
    PeerContext,
    PeerEvent,
    PeerMachine,
    PeerState,
    RelaySend,
    StateChanged,
)
from grepunch.ports import RELAY, Form, GreFrame, GreSend, PathNews, RelayPolicy
from grepunch.punch.path import PathState
from grepunch.punch.winners import Winner
from grepunch.routing import AddressTable
from grepunch.secure.exchange import KeyExchange
from grepunch.secure.handshake import MessageType
from grepunch.secure.identity import Identity, shared_secret
from grepunch.sessions import session_factory
from pptp.crypto.aead import Suite
from pptp.datapath import SealedPair
from pptp.wire.ppp import Protocol
from tests.punch import simnat
from tests.sim.peer_parts import Meeting, MeetingClock, QueuedFrames, QueuedPackets

SUITES = (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305)
INNER = {"a": IPv4Address("10.66.0.1"), "b": IPv4Address("10.66.0.2")}
UNSEEN = IPv4Address(0)
SERVER_PATIENCE = 19.0  # seconds until either end of a dead connection to the rendezvous notices by itself
VERIFYING = 2.0  # seconds that a doubted connection has to prove itself
RECONNECTING = 0.3  # seconds for TCP, TLS, the greeting and the clock
MOST_STEPS = 60_000  # of one run: beyond is a livelock
MOST_AT_ONCE = 200  # timers of one host at one instant: beyond is a spin


@dataclass(eq=False)
class Host:
    """One side. ``machine``, ``desk`` and ``pump`` are of the present run of its process."""

    world: World
    name: str
    side: simnat.Side
    identity: Identity
    peer_identity: Identity
    dialing: bool
    clock_base: float
    preshared_key: bytes | None = None
    uses_rendezvous: bool = True
    last_known_address: IPv4Address | None = None
    forms: tuple[Form, ...] = (Form.V1, Form.V0)
    window: float = 30.0
    relay: RelayPolicy = RelayPolicy.NEVER
    winner: Winner | None = None  # what it remembers of the last time
    interfaces: tuple[IPv4Interface, ...] = ()
    slot_taken: Callable[[IPv4Address], bool] = lambda address: False
    running: bool = False
    asleep: bool = False
    stale: bool = False  # its connection to the rendezvous is dead, and nobody has noticed yet
    seen_external: IPv4Address = UNSEEN  # by the rendezvous, on the present connection
    met: int | None = None  # the incarnation of the peer at the rendezvous, as this host knows
    log: list[tuple[float, PeerEvent]] = field(default_factory=list)
    sent: list[tuple[float, GreSend]] = field(default_factory=list)
    blobs: list[tuple[float, bytes]] = field(default_factory=list)
    relayed: list[tuple[float, bytes]] = field(default_factory=list)
    timer_calls: tuple[float, int] = (-1.0, 0)

    @property
    def now(self) -> float:
        return self.world.now + self.clock_base

    def start_process(self) -> None:
        """A new process with the same identity: everything of an earlier one is forgotten."""
        self.indices: dict[int, PeerTraffic] = {}
        self.destinations = Destinations()
        random = self.world.random
        exchange = KeyExchange(
            identity=self.identity,
            peer_public_key=self.peer_identity.public_key,
            preshared_key=self.preshared_key,
            session_id=random.randbytes(8),
            capabilities=0,
            suites=SUITES,
            entropy=random.randbytes,
            allocate_index=self._allocate,
            release_index=self._release,
        )
        self.clock = MeetingClock(self.world, self, random.uniform(-0.5, 0.5) * self.world.meeting.delay)
        self.machine = PeerMachine(self._context(), exchange)
        self.exchange = exchange
        self.traffic = PeerTraffic(self.name, self.machine)
        self.gre = QueuedFrames(self.world, self)
        self.tun = QueuedPackets()
        self.addresses: AddressTable[PeerTraffic] = AddressTable()
        self.addresses.add(self.name, self.traffic, (IPv4Network(INNER[self.world.other_host(self).name]),))
        self.desk = HandshakeDesk(
            self.identity,
            {self.peer_identity.public_key: self.traffic},
            by_index=self.indices.get,
            peers_at=self.destinations.peers_at,
            settled=lambda _: None,
            answer=lambda frame, ppp: self.world.send_gre(self, GreSend(frame.source, frame.form, ppp)),
            entropy=random.randbytes,
            now=lambda: self.now,
        )
        self.pump = DataPump(
            self.gre,
            self.tun,
            self.addresses,
            find_pair=self._find_pair,
            clear_frame=self.desk.receive,
            relay=lambda _, frame: self.world.relay(self, frame),
            settled=lambda _: None,
            news=lambda: None,
            now=lambda: self.now,
        )
        self.running, self.asleep, self.met = True, False, None
        self.log.clear()

    def _context(self) -> PeerContext:
        return PeerContext(
            PeerConfig(
                name=self.world.other_host(self).name,
                public_key=self.peer_identity.public_key,
                dialing=self.dialing,
                uses_rendezvous=self.uses_rendezvous,
                forms=self.forms,
                last_known_address=self.last_known_address,
                window=self.window,
                relay=self.relay,
            ),
            own_public_key=self.identity.public_key,
            static_secret=shared_secret(self.identity.private_key, self.peer_identity.public_key),
            new_session=session_factory(
                local=INNER[self.name],
                remote=INNER[self.world.other_host(self).name],
                own_public_key=self.identity.public_key,
                entropy=self.world.random.randbytes,
                dials=self.dialing,
            ),
            clock=lambda: self.clock if self.met is not None else None,
            interfaces=lambda: self.interfaces,
            slot_taken=lambda address: self.slot_taken(address),
            entropy=self.world.random.randbytes,
            remembered=lambda: self.winner,
        )

    def _allocate(self) -> int:
        index = self.world.random.randrange(1, 1 << 32)
        self.indices[index] = self.traffic
        return index

    def _release(self, index: int) -> None:
        del self.indices[index]

    def _find_pair(self, index: int) -> tuple[PeerTraffic, SealedPair] | None:
        pair = self.machine.pair(index)
        return (self.traffic, pair) if pair is not None else None

    # -- what tests look at -----------------------------------------------------------------------------------

    def of(self, *kinds: type[PeerEvent], since: float = 0.0) -> list[PeerEvent]:
        """The events of these kinds, oldest first."""
        return [event for at, event in self.log if isinstance(event, kinds) and at >= since]

    def states(self, since: float = 0.0) -> list[PeerState]:
        return [event.state for event in self.of(StateChanged, since=since) if isinstance(event, StateChanged)]

    @property
    def up(self) -> bool:
        return self.running and self.machine.state is PeerState.UP

    @property
    def received(self) -> list[bytes]:
        """Payloads of the inner packets that came out."""
        return [packet[20:] for packet in self.tun.written]

    def path_ups(self, since: float = 0.0) -> list[PathUp]:
        return [event for event in self.of(PathUp, since=since) if isinstance(event, PathUp)]


class World(simnat.World):
    """Hosts ``a`` and ``b``; unless told otherwise ``a`` dials, and ``b``, whose key is the higher one, serves.

    ``loss``, ``duplication`` and ``jitter`` are of the whole way of a GRE packet.
    """

    def __init__(
        self,
        class_a: str | Sequence[type[simnat.Nat]] = "G2",
        class_b: str | Sequence[type[simnat.Nat]] = "G2",
        *,
        seed: int,
        rendezvous: bool = True,
        known: bool = False,
        dialing: str = "a",
        lower: str = "a",
        loss: float = 0.0,
        duplication: float = 0.0,
        jitter: float = 0.0,
    ) -> None:
        """``known``: both profiles name the other's address. ``lower``: whose public key is the lower one."""
        super().__init__(class_a, class_b, seed=seed)
        self.seed = seed
        self.meeting = Meeting()
        self.way_loss, self.duplication, self.jitter = loss, duplication, jitter
        self.lan = False
        self.gre_lost: Callable[[Host, GreSend], bool] = lambda host, send: False
        self.blob_lost: Callable[[Host, bytes], bool] = lambda host, blob: False
        self.frame_lost: Callable[[Host, bytes], bool] = lambda host, frame: False
        low, high = sorted(
            (Identity.from_private_key(self.random.randbytes(32)) for _ in range(2)), key=lambda i: i.public_key
        )
        identities = {lower: low, "b" if lower == "a" else "a": high}
        self.hosts: dict[str, Host] = {}
        for name, side, base in (("a", self.a, 1000.0), ("b", self.b, 77000.0)):
            length = 32 if side.address == side.external else 24
            self.hosts[name] = Host(
                self,
                name,
                side,
                identities[name],
                identities["b" if name == "a" else "a"],
                dialing=name in dialing,
                clock_base=base,
                uses_rendezvous=rendezvous,
                last_known_address=self.other(side).external if known else None,
                interfaces=(IPv4Interface(f"{side.address}/{length}"),),
            )

    @property
    def dialer(self) -> Host:
        return self.hosts["a"]

    @property
    def server(self) -> Host:
        return self.hosts["b"]

    def other_host(self, host: Host) -> Host:
        return self.hosts["b" if host.name == "a" else "a"]

    def behind_one_nat(self, *, lan: bool) -> None:
        """Put both behind the NAT of ``a``, on one LAN or on two."""
        a, b = self.hosts["a"], self.hosts["b"]
        b.side.nats = a.side.nats
        self.lan = lan
        if lan:
            b.side.address = a.side.address + 1
        b.interfaces = (IPv4Interface(f"{b.side.address}/24"),)

    # -- processes --------------------------------------------------------------------------------------------

    def start(self, *, skew: float = 0.0) -> None:
        """Start ``a``, and ``b`` ``skew`` seconds later (earlier where negative)."""
        self.at(self.now + max(0.0, -skew), lambda: self.start_host(self.dialer))
        self.at(self.now + max(0.0, skew), lambda: self.start_host(self.server))

    def start_host(self, host: Host) -> None:
        host.start_process()
        host.machine.start(host.now)
        self.settle(host)
        if host.uses_rendezvous:
            self.join(host)

    def kill(self, host: Host) -> None:
        """As SIGKILL: no goodbye; the rendezvous sees the connection end."""
        host.running = False
        self.leave(host)

    def suspend(self, host: Host, seconds: float) -> None:
        """The host sleeps: its timers and its network with it."""
        host.asleep = True
        self.at(self.now + seconds, lambda: self._wake(host))
        if seconds > SERVER_PATIENCE and host.name in self.meeting.joined:
            host.stale = True
            self.at(self.now + SERVER_PATIENCE, lambda: self._lose(host))

    def _wake(self, host: Host) -> None:
        host.asleep = False
        host.machine.handle_timeout(host.now)
        self.settle(host)
        self.reconnect(host)

    def _lose(self, host: Host) -> None:
        """The server has waited long enough for a sign of the host."""
        if host.stale and self.meeting.joined.pop(host.name, None) is not None:
            self._tell_presence(self.other_host(host))

    def reconnect(self, host: Host) -> None:
        """The host notices that its connection is dead, and opens another."""
        if not host.stale or host.asleep:
            return
        host.stale, host.met = False, None
        self._lose(host)
        host.machine.mailbox_down(host.now)
        self.settle(host)
        self.at(self.now + RECONNECTING, lambda: self.join(host))

    # -- the rendezvous ---------------------------------------------------------------------------------------

    def join(self, host: Host) -> None:
        """The host's connection is up, its clock measured; both hear who is there."""
        if not self.meeting.running:
            return
        self.meeting.joins += 1
        host.seen_external = host.side.external
        self.meeting.joined[host.name] = self.meeting.joins
        other = self.other_host(host)
        if other.name in self.meeting.joined:
            self._tell_presence(host)
            self._tell_presence(other)

    def leave(self, host: Host) -> None:
        """The host's connection is gone; the other hears of it."""
        host.met = None
        if self.meeting.joined.pop(host.name, None) is not None:
            self._tell_presence(self.other_host(host))
            self._tell_presence(host)

    def stop_meeting(self) -> None:
        """The server dies: every connection breaks."""
        self.meeting.running = False
        self.meeting.joined.clear()
        for host in self.hosts.values():
            self._tell_presence(host)

    def restart_meeting(self) -> None:
        """It is back, with another clock; the hosts find it within a second."""
        self.meeting.running = True
        self.meeting.run_number += 1
        for host in self.hosts.values():
            if host.running and host.uses_rendezvous:
                self.at(self.now + self.random.random(), lambda host=host: self.join(host))  # type: ignore[misc]

    def _tell_presence(self, host: Host) -> None:
        self.at(self.now + self.meeting.delay, lambda: self._presence(host))

    def _presence(self, host: Host) -> None:
        if not host.running or host.stale:
            return
        there = self.meeting.joined.get(self.other_host(host).name) if host.name in self.meeting.joined else None
        if there == host.met:
            return
        host.met = there
        host.machine.relay_offered(there is not None and self.meeting.relays, host.now)
        if there is None:
            host.machine.mailbox_down(host.now)
        else:
            host.machine.mailbox_up(there, host.now)
        self.settle(host)

    def _send_blob(self, host: Host, blob: bytes) -> None:
        host.blobs.append((self.now, blob))
        if host.met is None or self.random.random() < self.meeting.loss or self.blob_lost(host, blob):
            return
        other = self.other_host(host)
        if not (host.stale or other.stale):
            self.at(self.now + 2 * self.meeting.delay, lambda: self._deliver_blob(other, blob))

    def _deliver_blob(self, host: Host, blob: bytes) -> None:
        if host.asleep:
            self.at(self.now + 1.0, lambda: self._deliver_blob(host, blob))
        elif host.running and host.name in self.meeting.joined:
            host.machine.receive_blob(blob, host.now)
            self.settle(host)

    def relay(self, host: Host, frame: bytes) -> bool:
        """The rendezvous relays a frame of ``host``; False where there is none."""
        host.relayed.append((self.now, frame))
        if host.met is None or not self.meeting.relays:
            return False
        other = self.other_host(host)
        if self.random.random() >= self.meeting.loss and not self.frame_lost(host, frame):
            self.at(self.now + 2 * self.meeting.delay, lambda: self._deliver_frame(other, frame))
        return True

    def _deliver_frame(self, host: Host, frame: bytes) -> None:
        if host.running and not host.asleep and host.name in self.meeting.joined:
            host.pump.relayed(host.traffic, frame)
            self.settle(host)

    # -- GRE --------------------------------------------------------------------------------------------------

    def send_gre(self, host: Host, send: GreSend) -> None:
        host.sent.append((self.now, send))
        if self.gre_lost(host, send) or (self.way_loss and self.random.random() < self.way_loss):
            return
        other = self.other_host(host)
        if self.lan and send.destination == other.side.address:
            packet = simnat.Packet(host.side.address, send.destination, send.form, send.ppp, send.ttl or 64)
            self.at(self.now + 0.001, lambda: self._deliver(other.side, packet))
        else:
            super().send(host.side, send)

    def _deliver(self, receiver: simnat.Side, packet: simnat.Packet) -> None:
        copies = 1 + (self.duplication > 0 and self.random.random() < self.duplication)
        for _ in range(copies):
            if self.jitter or copies > 1:
                delay = self.random.random() * (self.jitter or 0.001)
                self.at(self.now + delay, lambda: self._hand_in(receiver, packet))
            else:
                self._hand_in(receiver, packet)

    def _hand_in(self, receiver: simnat.Side, packet: simnat.Packet) -> None:
        host = self.hosts[receiver.name]
        if host.running and not host.asleep:
            host.gre.arrived.append(GreFrame(packet.source, packet.form, packet.ppp, packet.ttl))
            host.pump.gre_readable()
            self.settle(host)

    def _news(self, side: simnat.Side, news: PathNews) -> None:
        host = self.hosts[side.name]
        if host.running and not host.asleep:
            for traffic in host.destinations.peers_at(news.destination):
                traffic.machine.receive_news(news, host.now)
            self.settle(host)

    def flush_nats(self, *names: str) -> None:
        """``conntrack -F`` on the NATs of these hosts, or of both."""
        for name in names or ("a", "b"):
            for nat in self.hosts[name].side.nats:
                nat.flows.clear()

    # -- traffic ----------------------------------------------------------------------------------------------

    def send_data(self, host: Host, payload: bytes) -> None:
        """The kernel of ``host`` sends an inner packet to the other side's inner address."""
        source, destination = INNER[host.name], INNER[self.other_host(host).name]
        header = b"\x45\x00" + (20 + len(payload)).to_bytes(2, "big") + bytes(8) + source.packed + destination.packed
        host.tun.waiting.append(header + payload)
        host.pump.tun_readable()
        self.settle(host)

    def traffic(self, seconds: float, interval: float = 0.1, names: str = "ab") -> None:
        """Schedule packets of these hosts, every ``interval``; the payload is the sender and a number."""
        for name in names:
            for number in range(int(seconds / interval)):
                payload = b"%s %d" % (name.encode(), number)
                send = lambda name=name, payload=payload: self._send_scheduled(self.hosts[name], payload)  # noqa: E731
                self.at(self.now + number * interval, send)

    def _send_scheduled(self, host: Host, payload: bytes) -> None:
        if host.running and not host.asleep:
            self.send_data(host, payload)

    # -- running ----------------------------------------------------------------------------------------------

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let everything happen up to ``until``, or until ``done``."""
        for _ in range(MOST_STEPS):
            if done():
                return
            due = [
                (deadline - host.clock_base, host)
                for host in self.hosts.values()
                if host.running and not host.asleep and (deadline := host.machine.deadline()) is not None
            ]
            next_timer = min((at for at, _ in due), default=float("inf"))
            next_event = self._heap[0][0] if self._heap else float("inf")
            if min(next_timer, next_event) > until:
                self.now = until
                return
            self.now = max(self.now, min(next_timer, next_event))
            if next_event <= next_timer:
                heapq.heappop(self._heap)[2]()
            else:
                for at, host in due:
                    if at <= self.now:
                        self._timer(host)
        raise AssertionError(f"a livelock\n{self.story()}")

    def run_for(self, seconds: float) -> None:
        self.run(self.now + seconds)

    def _timer(self, host: Host) -> None:
        at, calls = host.timer_calls
        host.timer_calls = (self.now, calls + 1 if at == self.now else 1)
        assert host.timer_calls[1] < MOST_AT_ONCE, f"the timer of {host.name} spins\n{self.story()}"
        # floats: a deadline converted between two clocks may lie a hair before itself
        host.machine.handle_timeout(max(host.now, host.machine.deadline() or 0.0))
        self.settle(host)

    def settle(self, host: Host) -> None:
        """The one exit of a host's machine."""
        for item in host.machine.transmits():
            match item:
                case MailboxSend(blob=blob):
                    self._send_blob(host, blob)
                case RelaySend(frame=frame):
                    self.relay(host, frame)
                case GreSend():
                    host.destinations.sent(item.destination, host.traffic)
                    self.send_gre(host, item)
        events = host.machine.events()
        host.log += [(self.now, event) for event in events]
        if any(isinstance(event, MailboxDoubted) for event in events):
            self.at(self.now + VERIFYING, lambda: self.reconnect(host))
        self._check(host)

    def _check(self, host: Host) -> None:
        """What holds at any time."""
        machine = host.machine
        if machine.state is PeerState.UP:
            assert Protocol.IPV4 in machine.networks, f"up without IPv4\n{self.story()}"
            assert machine.carrier is not None, f"up without a path\n{self.story()}"
            alive = machine.carrier is RELAY or machine.path.state is PathState.ALIVE
            assert alive, f"up over a path that is not alive\n{self.story()}"

    def both_up(self) -> bool:
        return all(host.up for host in self.hosts.values())

    def come_up(self, limit: float = 40.0) -> float:
        """Run until both are up; seconds it took."""
        began = self.now
        self.run(began + limit, self.both_up)
        assert self.both_up(), f"not up within {limit} s\n{self.story()}"
        return self.now - began

    def story(self) -> str:
        """The seed and what happened, for a failing test."""
        lines = [f"seed {self.seed}, at {self.now:.3f}"]
        told = sorted(
            ((at, host.name, event) for host in self.hosts.values() for at, event in host.log), key=lambda line: line[0]
        )
        lines += [f"{at:9.3f} {name} {str(event)[:160]}" for at, name, event in told[-60:]]
        lines += [f"drops {name}: {dict(host.machine.drops)}" for name, host in self.hosts.items() if host.running]
        return "\n".join(lines)


def connected(class_a: str = "G2", class_b: str = "G2", **options: object) -> World:
    """Two hosts that are up and have settled."""
    world = World(class_a, class_b, **options)  # type: ignore[arg-type]
    world.start()
    world.come_up()
    world.run_for(3.0)
    return world


def is_initiation(blob: bytes) -> bool:
    """Whether a handshake datagram is a message 1."""
    return blob[:1] == bytes([MessageType.INITIATION])
