"""A peer machine under attack, on a virtual clock: by a peer that holds real keys, and by whoever forges packets.

The victim is the product's own: peer machine, session, traversal, hole. The attacker has its own key exchange, so that
what it says is sealed and authentic, and says whatever a test wants.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface

from grepunch.peer import MailboxSend, PeerConfig, PeerContext, PeerMachine
from grepunch.peer.events import PeerEvent
from grepunch.ports import Form, GreSend
from grepunch.secure.exchange import KeyExchange
from grepunch.secure.handshake import MessageType
from grepunch.secure.identity import Identity, shared_secret
from grepunch.sessions import session_factory
from grepunch.signalling.messages import SignallingMessage, build
from pptp.crypto.aead import Suite
from pptp.wire.sealed import EMPTY_PROTOCOL, is_sealed, receiver_index
from pptp.wire.vendor import VENDOR_NETWORK_PROTOCOL, SealedKind, build_vendor_network, parse_vendor_network

SEED = 20260
HERE = IPv4Address("198.51.100.7")  # where the rendezvous sees the victim
THERE = IPv4Address("203.0.113.9")  # where the attacker's frames come from
PLACE = (THERE, Form.V1)
INSIDE_HERE, INSIDE_THERE = IPv4Address("10.66.0.1"), IPv4Address("10.66.0.2")

_SEGMENT = struct.Struct("!II")


@dataclass
class Clock:
    """A rendezvous' clock that is right."""

    instance: bytes = b"instance"
    rtt: float = 0.02
    external: IPv4Address | None = HERE
    gre_sources: tuple[IPv4Address, ...] = ()

    def server_time(self, now: float) -> float:
        return now

    def local_time(self, server_time: float) -> float:
        return server_time


def make_exchange(identity: Identity, peer_public_key: bytes, rng: random.Random) -> KeyExchange:
    return KeyExchange(
        identity=identity,
        peer_public_key=peer_public_key,
        preshared_key=None,
        session_id=rng.randbytes(8),
        capabilities=0,
        suites=(Suite.AES_256_GCM,),
        entropy=rng.randbytes,
        allocate_index=lambda: rng.randrange(1, 1 << 32),
        release_index=lambda index: None,
    )


def make_context(
    identity: Identity,
    config: PeerConfig,
    rng: random.Random,
    *,
    local: IPv4Address | None = INSIDE_HERE,
    remote: IPv4Address | None = INSIDE_THERE,
) -> PeerContext:
    """What the victim's machine for one peer is made from."""
    return PeerContext(
        config,
        own_public_key=identity.public_key,
        static_secret=shared_secret(identity.private_key, config.public_key),
        new_session=session_factory(
            dials=config.dialing,
            local=local,
            remote=remote,
            own_public_key=identity.public_key,
            entropy=rng.randbytes,
        ),
        clock=lambda: None,
        interfaces=list,
        entropy=rng.randbytes,
    )


@dataclass
class Siege:
    """One victim and one attacker who is its configured peer. ``lower``: the attacker has the lower public key."""

    lower: bool = False
    local: IPv4Address | None = INSIDE_HERE
    remote: IPv4Address | None = INSIDE_THERE
    now: float = 1000.0
    clock: Clock = field(default_factory=Clock)
    interface_calls: int = 0
    events: list[PeerEvent] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    packets: list[GreSend] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(SEED)
        identities = [Identity.from_private_key(rng.randbytes(32)) for _ in range(2)]
        low, high = sorted(identities, key=lambda identity: identity.public_key)
        self.attacker, self.victim = (low, high) if self.lower else (high, low)
        self.exchange = make_exchange(self.attacker, self.victim.public_key, rng)
        self._sequence = 0
        self.heard: list[tuple[int, bytes]] = []  # what the victim said, opened
        self.peer_sequence = 0  # of the victim's control stream: what to acknowledge
        self.machine = PeerMachine(self._context(), make_exchange(self.victim, self.attacker.public_key, rng))
        self.machine.start(self.now)
        self.machine.mailbox_up(1, self.now)

    def _context(self) -> PeerContext:
        config = PeerConfig("attacker", self.attacker.public_key, dialing=False, uses_rendezvous=True)
        context = make_context(self.victim, config, self.rng, local=self.local, remote=self.remote)
        return replace(context, clock=lambda: self.clock, interfaces=self._interfaces)

    def _interfaces(self) -> list[IPv4Interface]:
        self.interface_calls += 1
        return [IPv4Interface("192.168.1.7/24")]

    # -- getting in -------------------------------------------------------------------------------------------

    def handshake(self) -> None:
        """Agree on keys through the mailbox, and confirm them."""
        self.exchange.initiate(self.now)
        self._deliver(self.exchange.transmits())
        self.drain()
        self.say_blob(EMPTY_PROTOCOL, b"")
        self.drain()

    def enter_hole(self) -> None:
        """As if a punch had just proven the attacker's address."""
        self.machine._use_hole(PLACE, self.now)  # the only shortcut: no probes are exchanged here
        self.machine._settle(self.now)
        self.say(EMPTY_PROTOCOL, b"")

    def _deliver(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self.machine.receive_blob(datagram, self.now)

    # -- what the attacker says -------------------------------------------------------------------------------

    def seal(self, protocol: int, data: bytes) -> bytes:
        pair = self.exchange.current
        assert pair is not None, f"no keys, seed {SEED}"
        return pair.seal(protocol, data)

    def say(self, protocol: int, data: bytes, place: tuple[IPv4Address, Form] = PLACE) -> None:
        """A sealed frame out of GRE."""
        frame = self.seal(protocol, data)
        pair = self.machine.pair(receiver_index(frame))
        assert pair is not None, f"the victim has forgotten the keys, seed {SEED}"
        opened, inner, _ = pair.open(frame)
        self.machine.receive_opened(pair, opened, inner, place, self.now)
        self.drain()

    def say_blob(self, protocol: int, data: bytes) -> None:
        """A sealed frame through the mailbox."""
        self.machine.receive_blob(self.seal(protocol, data), self.now)
        self.drain()

    def segment(self, message: bytes, *, acknowledge: bool = True) -> bytes:
        """The next message of the control stream, as the body of a vendor network packet."""
        sequence, self._sequence = self._sequence, self._sequence + 1
        acknowledged = self.peer_sequence if acknowledge else 0
        return build_vendor_network(SealedKind.SEGMENT, _SEGMENT.pack(sequence, acknowledged) + message)

    def tell(self, message: SignallingMessage, *, acknowledge: bool = True) -> None:
        """A message of the control stream, through the mailbox."""
        self.say_blob(VENDOR_NETWORK_PROTOCOL, self.segment(build(message), acknowledge=acknowledge))

    def path_message(self, kind: SealedKind, body: bytes, place: tuple[IPv4Address, Form] = PLACE) -> list[GreSend]:
        """A message about paths, out of GRE; what the victim sends because of it."""
        before = len(self.packets)
        self.say(VENDOR_NETWORK_PROTOCOL, build_vendor_network(kind, body), place)
        return self.packets[before:]

    # -- what the victim does ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take what the victim sends and reports; feed handshakes to the attacker's own exchange."""
        for item in self.machine.transmits():
            if not isinstance(item, MailboxSend | GreSend):
                continue  # what TCP carries shows nothing
            blob = item.blob if isinstance(item, MailboxSend) else item.ppp
            if isinstance(item, MailboxSend):
                self.blobs.append(blob)
            else:
                self.packets.append(item)
            if is_sealed(blob):
                self._open(blob)
            elif isinstance(item, MailboxSend) and blob[0] == MessageType.RESPONSE:
                self.exchange.receive(blob, self.now)
        self.events += self.machine.events()

    def _open(self, frame: bytes) -> None:
        pair = self.exchange.pairs.get(receiver_index(frame))
        if pair is None:
            return
        protocol, data, _ = pair.open(frame)
        self.exchange.frame_verified(pair.local_index, self.now)
        self.heard.append((protocol, data))
        if protocol == VENDOR_NETWORK_PROTOCOL:
            kind, body = parse_vendor_network(data)
            if kind is SealedKind.SEGMENT and len(body) > _SEGMENT.size:
                self.peer_sequence = max(self.peer_sequence, _SEGMENT.unpack_from(body)[0] + 1)

    def run(self, seconds: float, every: Callable[[], None] | None = None) -> None:
        """Let time pass; ``every`` is called after each timer of the victim."""
        end = self.now + seconds
        while (deadline := self.machine.deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.machine.handle_timeout(self.now)
            self.drain()
            if every is not None:
                every()
        self.now = end
