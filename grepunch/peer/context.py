"""What the parts of a peer are made from, and their making: a session, a hole, a direct attempt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from ipaddress import IPv4Address, IPv4Interface

from grepunch.peer.direct import DirectPunch
from grepunch.peer.events import PeerConfig
from grepunch.peer.hole import Hole
from grepunch.peer.relay import RelayWay
from grepunch.peer.session import SealedSession, Taps
from grepunch.peer.ways import Ways
from grepunch.punch.candidate import Candidate, CandidateKind
from grepunch.punch.plan import Budget
from grepunch.punch.winners import Winner
from grepunch.secure.derive import probe_key
from grepunch.signalling.arq import Arq
from grepunch.traversal import MeetingClock, Traversal
from pptp.session import Session
from pptp.value import value

# ours, because both ways lead through the rendezvous
STREAM_ROUND_TRIPS = 2
UNKNOWN_ROUND_TRIP = 0.1


@value
class PeerContext:
    """Handed in by the endpoint, which ``clock``, ``interfaces``, ``slot_taken`` and ``remembered`` (what worked last
    time) ask; ``new_session`` makes a fresh PPTP session.

    ``static_secret`` is the Diffie-Hellman of the two static keys. The budget outlives every attempt.
    """

    config: PeerConfig
    own_public_key: bytes
    static_secret: bytes = field(repr=False)
    new_session: Callable[[], Session]
    clock: Callable[[], MeetingClock | None]
    interfaces: Callable[[], Sequence[IPv4Interface]]
    entropy: Callable[[int], bytes]
    slot_taken: Callable[[IPv4Address], bool] = lambda address: False
    remembered: Callable[[], Winner | None] = lambda: None
    taps: Taps = field(default_factory=Taps)
    budget: Budget = field(default_factory=Budget)

    def make_session(self, probe_secret: bytes) -> SealedSession:
        """What begins with new session ids; ``probe_secret`` is the handshake's."""
        clock = self.clock()
        outgoing_key, incoming_key = self._probe_keys(probe_secret)
        traversal = Traversal(
            proposes=self.own_public_key < self.config.public_key,
            outgoing_key=outgoing_key,
            incoming_key=incoming_key,
            forms=self.config.forms,
            window=self.config.window,
            budget=self.budget,
            clock=self.clock,
            interfaces=self.interfaces,
            slot_taken=self.slot_taken,
            entropy=self.entropy,
            remembered=self.remembered,
        )
        rtt = STREAM_ROUND_TRIPS * clock.rtt if clock is not None else UNKNOWN_ROUND_TRIP
        return SealedSession(Arq(rtt=rtt), self.new_session(), traversal, self.taps)

    def make_hole(self) -> Hole:
        """A hole that no path is nominated for."""
        return Hole(keepalive=self.config.keepalive, entropy=self.entropy)

    def make_ways(self) -> Ways:
        """No way is there yet."""
        relay = RelayWay(self.config.relay, entropy=self.entropy)
        return Ways(self.make_hole(), relay, self.config.public_key)

    def make_direct(self, last_proven: IPv4Address | None, now: float) -> DirectPunch | None:
        """An attempt at the address the profile names, else at the one that worked last; None without either."""
        known = self.config.last_known_address
        address = known if known is not None else last_proven
        if address is None:
            return None
        outgoing_key, incoming_key = self._probe_keys(self.static_secret)
        return DirectPunch(
            Candidate(address, CandidateKind.KNOWN if known is not None else CandidateKind.EXTERNAL),
            outgoing_key=outgoing_key,
            incoming_key=incoming_key,
            forms=self.config.forms,
            window=self.config.window,
            budget=self.budget,
            entropy=self.entropy,
            winner=self.remembered(),
            now=now,
        )

    def _probe_keys(self, secret: bytes) -> tuple[bytes, bytes]:
        """The MAC keys of our probes and of the peer's."""
        own, theirs = self.own_public_key, self.config.public_key
        return probe_key(secret, own, theirs), probe_key(secret, theirs, own)
