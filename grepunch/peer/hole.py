"""The hole: the punched path in use, from its nomination until nothing is heard through it any more.

Joins the path manager's judgement with the small sealed messages that feed it: keepalives, challenges, padded
probes of the path's size. It does not seal: what it wants to say it hands to the peer machine, with the place it is
for. A new place is taken only by nomination, or after the peer has answered a challenge from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from grepunch.ports import Form, PathNews
from grepunch.punch.path import (
    CHECK_AFTER,
    CheckDue,
    KeepaliveDue,
    PathDead,
    PathManager,
    PathState,
    Recovered,
    Suspect,
)
from grepunch.punch.pathmtu import MtuProbeDue, OuterMtu
from pptp.machine import earliest
from pptp.mtu import OVERHEAD_SEALED_V0, OVERHEAD_SEALED_V1, inner_mtu
from pptp.value import value
from pptp.wire.sealed import EMPTY_PROTOCOL
from pptp.wire.vendor import VENDOR_HEADER_SIZE, VENDOR_NETWORK_PROTOCOL, SealedKind, build_vendor_network

# ours: long enough that nobody guesses it
CHALLENGE_SIZE = 8
# ours: one challenge a second to a new source, so that nobody can be flooded by us
CHALLENGE_INTERVAL = 1.0
# ours: and one answer a second to sources other than the hole, so that nobody else can be flooded through us
STRANGE_ANSWER_INTERVAL = 1.0
# ours: each change of form measures the path anew, and a peer changes it once; it has so long to follow ours, too
FOLLOW_INTERVAL = 1.0
# ours: how often the round trip is measured, for people to see; the first time when the start's work is done
FIRST_MEASURE = 1.0
MEASURE_INTERVAL = 15.0
# ours: while data goes another way and waits for this one to be good
MEASURE_IN_DOUBT = 1.0

# ours: the first check of a silence is often answered; by the next, half a second later, an answer is late
UNANSWERED_CHECKS = 2

OVERHEAD = {Form.V1: OVERHEAD_SEALED_V1, Form.V0: OVERHEAD_SEALED_V0}

Place = tuple[IPv4Address, Form]


@value
class SealedOut:
    """Seal this and send it to ``place``."""

    protocol: int
    data: bytes = field(repr=False)
    place: Place


@value
class FirstFrame:
    """The first sealed frame of the peer has come through this hole."""

    place: Place


@value
class Silent:
    """Nothing has been heard for so many seconds where something was due; ``dead`` when the path is given up."""

    seconds: float
    dead: bool


@value
class HeardAgain:
    """After ``Silent``: it was only a pause."""


@value
class Unanswered:
    """Before ``Silent``: the peer was asked for an answer, and it is late."""


@value
class InnerMtu:
    """The largest inner packet that the path carries, in octets."""

    octets: int


@value
class Moved:
    """The peer answered from another place, which is the hole's now."""

    place: Place


HoleEvent = FirstFrame | Silent | HeardAgain | Unanswered | InnerMtu | Moved


@dataclass(slots=True)
class _Challenge:
    place: Place
    value: bytes
    at: float


class Hole:
    """See the module. One for each session of a peer."""

    def __init__(self, *, keepalive: float, entropy: Callable[[int], bytes]) -> None:
        self.place: Place | None = None
        self.heard = False  # the peer's sealed frames come through it
        self._left = False  # there was a path, and it was given up
        self._reaches = False  # and so do ours: the peer has answered one, and nothing has spoken against it since
        self.path = PathManager(keepalive=keepalive)
        self._entropy = entropy
        self._check: _Challenge | None = None
        self._move: _Challenge | None = None
        self._followed_at = self._used_at = float("-inf")
        self._answered_at = float("-inf")
        self._measure_at: float | None = None
        self._out: list[SealedOut] = []
        self._events: list[HoleEvent] = []

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[SealedOut]:
        """Drain what is to be sealed and sent."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[HoleEvent]:
        """Drain what happened."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self.path.deadline(), self._measure_at)

    def handle_timeout(self, now: float) -> None:
        """Act on silence, ours and the peer's."""
        if self._measure_at is not None and now >= self._measure_at:
            self._measure(now)
        self.path.handle_timeout(now)
        self._follow(now)

    # -- commands ---------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the hole is there and nothing speaks against it."""
        return self.place is not None and self.path.state is PathState.ALIVE

    def aims_at(self, address: IPv4Address) -> bool:
        """Whether what we send goes there."""
        return self.place is not None and self.place[0] == address

    @property
    def confirmed(self) -> bool:
        """Whether it is proven both ways by sealed frames of the size that data will have."""
        return self.alive and self.heard and self._reaches and self.path.size_known

    def use(self, place: Place, now: float) -> None:
        """Take this path. The empty frame tells the peer at once, and is the first sealed frame in the hole."""
        self.place, self._used_at = place, now
        self.heard = self._reaches = False
        self.path.nominated(*place, now)
        self._events.append(InnerMtu(inner_mtu(self.path.outer_mtu, OVERHEAD[place[1]])))
        self._out.append(SealedOut(EMPTY_PROTOCOL, b"", place))
        self._follow(now)

    def leave(self) -> None:
        """Send nothing more into it: whatever still went in would keep a poisoned NAT poisoned."""
        self._left = self._left or self.place is not None
        self.place = None
        self.heard = self._reaches = False
        self._measure_at = None

    def look(self, now: float) -> None:
        """There is reason to think that it no longer works: ask the peer for an answer at once."""
        self.path.look(now)
        self._follow(now)

    def doubt(self, now: float, *, occupied: bool = False) -> None:
        """The peer looks for another path: ours to it is to be proven anew, although we hear it.

        ``occupied``: what we send keeps the peer's from leaving its NAT; so nothing more goes in if all is silent.
        """
        self._reaches = False
        if occupied and now - self.path.received_at >= CHECK_AFTER:
            self.leave()
        elif self.place is not None:
            self._measure(now)

    def sent(self, now: float, largest: int) -> None:
        """Data went in; ``largest`` outer packet of the batch in octets."""
        self.path.sent(now, largest)

    def received(self, now: float) -> None:
        """Data came out, authentic."""
        self.path.received(now)

    # -- what arrives -----------------------------------------------------------------------------------------

    def frame_from(self, source: Place, now: float, *, follow: bool, current: bool) -> None:
        """An authentic frame came out of GRE at ``source``.

        ``follow``: the peer nominates the form, and we use what it uses; else it will soon use ours. ``current``: it
        came under the keys in use; an older frame moves nothing.
        """
        if self.place is None:
            if self._left:  # given up in silence, and now the peer, who may have slept, comes through it
                self._challenge(source, now, current)
            return
        if source != self.place:
            same_address = source[0] == self.place[0]
            if not (follow and same_address):
                if not same_address or now - self._used_at >= FOLLOW_INTERVAL:
                    self._challenge(source, now, current)
                return
            if not current or now - self._followed_at < FOLLOW_INTERVAL:
                return  # GRE's header is not authentic: whoever rewrites it must not have us begin anew all the time
            self._followed_at = now
            self.use(source, now)
        self.path.received(now)
        if not self.heard:
            self.heard = True
            self._events.append(FirstFrame(source))
            self._measure_at = now + FIRST_MEASURE
        self._follow(now)

    def receive(self, kind: SealedKind, body: bytes, source: Place, now: float) -> bool:
        """A sealed message about paths; False when it is none, or malformed."""
        match kind:
            case SealedKind.PATH_CHALLENGE if len(body) == CHALLENGE_SIZE:
                self._answer(SealedKind.PATH_RESPONSE, body, source, now)
            case SealedKind.PATH_RESPONSE if len(body) == CHALLENGE_SIZE:
                self._answered(body, source, now)
            case SealedKind.MTU_PROBE if len(body) >= 2:
                self._answer(SealedKind.MTU_REPLY, body[:2], source, now)
            case SealedKind.MTU_REPLY if len(body) == 2:
                self._reaches = self._reaches or source == self.place
                self.path.mtu_acknowledged(int.from_bytes(body, "big"), now)
            case _:
                return False
        self._follow(now)
        return True

    def receive_news(self, news: PathNews, now: float) -> None:
        """ICMP about a packet of ours."""
        self.path.receive_news(news, now)
        self._follow(now)

    # -- challenges ---------------------------------------------------------------------------------------------

    def _challenge(self, source: Place, now: float, current: bool) -> None:
        """Ask at the new place before anything moves there; data stays where it is until the answer."""
        if not current or (self._move is not None and now - self._move.at < CHALLENGE_INTERVAL):
            return
        self._move = _Challenge(source, self._entropy(CHALLENGE_SIZE), now)
        self._say(SealedKind.PATH_CHALLENGE, self._move.value, source)

    def _answered(self, value: bytes, source: Place, now: float) -> None:
        for challenge in (self._check, self._move):
            if challenge is None or (challenge.value, challenge.place) != (value, source):
                continue
            if challenge is self._check:
                self._check = None
                self._reaches = True
                self.path.rtt_measured(now - challenge.at)
            else:
                self._move = None
                self.use(source, now)
                self._events.append(Moved(source))

    def _measure(self, now: float) -> None:
        """Ask for an answer, and see how long it takes."""
        if self.place is not None:
            self._check = _Challenge(self.place, self._entropy(CHALLENGE_SIZE), now)
            self._say(SealedKind.PATH_CHALLENGE, self._check.value, self.place)
            in_doubt = self.alive and not self._reaches
            self._measure_at = now + (MEASURE_IN_DOUBT if in_doubt else MEASURE_INTERVAL)

    def _answer(self, kind: SealedKind, body: bytes, source: Place, now: float) -> None:
        """Where the source is not the hole nobody has proven that the peer is there: it may be anybody's address."""
        if source != self.place:
            if now - self._answered_at < STRANGE_ANSWER_INTERVAL:
                return
            self._answered_at = now
        self._say(kind, body, source)

    def _say(self, kind: SealedKind, body: bytes, place: Place) -> None:
        self._out.append(SealedOut(VENDOR_NETWORK_PROTOCOL, build_vendor_network(kind, body), place))

    # -- what the path manager says -------------------------------------------------------------------------------

    def _follow(self, now: float) -> None:
        for event in self.path.events():
            place = self.place
            match event:
                case Suspect(silent_for=seconds):
                    self._reaches = False
                    self._events.append(Silent(seconds, dead=False))
                case PathDead():
                    self._events.append(Silent(now - self.path.received_at, dead=True))
                case Recovered():
                    self._events.append(HeardAgain())
                case _ if place is None:
                    pass
                case KeepaliveDue():
                    self._out.append(SealedOut(EMPTY_PROTOCOL, b"", place))
                case CheckDue(number=number):
                    if number == UNANSWERED_CHECKS:
                        self._events.append(Unanswered())
                    self._measure(now)
                case MtuProbeDue(outer=outer):
                    size = inner_mtu(outer, OVERHEAD[place[1]]) - VENDOR_HEADER_SIZE
                    self._say(SealedKind.MTU_PROBE, outer.to_bytes(2, "big").ljust(size, b"\0"), place)
                case OuterMtu(value=outer):
                    self._events.append(InnerMtu(inner_mtu(outer, OVERHEAD[place[1]])))
