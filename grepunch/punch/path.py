"""The path manager: keeps the nominated path open, notices within seconds when it is gone, and knows its size.

Its owner (the endpoint, one per peer) says what was sent and what was received *and authenticated*, once per batch
of packets; the path manager says when something is due. It sends nothing itself:

* :class:`KeepaliveDue`: send an empty sealed frame. Every 4 s without other traffic of ours, in both directions,
  whatever the peer sends: NATs drop a flow that one side keeps silent on. More often where a NAT proves forgetful.
* :class:`CheckDue`: send a frame that is *answered* (a path challenge). Under one-way load the peer only sends its
  keepalives, and without an answer its silence would look like a dead path.
* :class:`Suspect`: begin to punch again while the path is still used. :class:`Recovered`: no need, it answered.
* :class:`PathDead`: nothing was heard for 15 s; a new handshake is due.

Frames sent because of an event are not reported through :meth:`PathManager.sent`: that is for traffic alone.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address

from grepunch.ports import Form, PathNews, PathNewsKind
from grepunch.punch.pathmtu import CONFIRM_ABOVE, MtuProbeDue, OuterMtu, PathMtu
from pptp.machine import earliest
from pptp.value import value

# ours, because the shortest common timer of an unreplied flow is far above 4 s, and a known shorter one is served
# by a third of it, so that two may be lost
KEEPALIVE = 4.0
SHORTEST_KEEPALIVE = 0.6

# ours, because a first loss shows within a round trip, and all of it must fit the 5 s in which a path is replaced
CHECK_AFTER = 2.0  # traffic sent, nothing heard since
CHECK_AFTER_IDLE = KEEPALIVE + 1.0  # one keepalive of the peer missed
CHECK_INTERVAL = 0.5
SUSPECT_AFTER = 3.5
SUSPECT_AFTER_IDLE = 2 * KEEPALIVE + 0.5  # two missed
DEAD_AFTER = 15.0

# ours, because a NAT that forgets sooner than we speak loses the peer's every keepalive, and a lossy line one now and
# then: two idle silences in a row that our own asking ended
FORGETFUL_WITHIN = 15.0

STALL = 1.0  # ours, because a deadline missed by this much means that it was we who slept

# RFC 6298 section 2
_RTT_GAIN = 1 / 8


def keepalive_interval(known_timer: float | None) -> float:
    """Seconds between keepalives where a NAT forgets a flow after ``known_timer`` seconds (None: not known)."""
    if known_timer is None:
        return KEEPALIVE
    return min(KEEPALIVE, max(SHORTEST_KEEPALIVE, known_timer / 3))


@value
class KeepaliveDue:
    """Event: send an empty sealed frame."""


@value
class CheckDue:
    """Event: send a sealed frame that the peer answers. ``number`` counts those of one silence, from 1."""

    number: int


@value
class Suspect:
    """Event, once per silence: nothing heard for ``silent_for`` seconds where something was to be expected."""

    silent_for: float


@value
class Recovered:
    """Event: heard again after :class:`Suspect` or :class:`PathDead`."""


@value
class PathDead:
    """Event: nothing heard for 15 s."""


PathEvent = KeepaliveDue | CheckDue | Suspect | Recovered | PathDead | MtuProbeDue | OuterMtu


class PathState(Enum):
    """What is known of the path."""

    NONE = "none"  # nothing nominated yet
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


class PathManager:
    """One peer's current path; see the module. ``keepalive`` in seconds, from :func:`keepalive_interval`."""

    __slots__ = (
        "_check_at",
        "_checks",
        "_events",
        "_forgot_at",
        "_keepalive",
        "_mtu",
        "_path",
        "_received_at",
        "_reopened",
        "_rtt",
        "_sent_at",
        "_state",
        "_waiting_since",
    )

    def __init__(self, *, keepalive: float = KEEPALIVE) -> None:
        self._keepalive = keepalive
        self._mtu = PathMtu()
        self._path: tuple[IPv4Address, Form] | None = None
        self._state = PathState.NONE
        self._sent_at = 0.0
        self._received_at = 0.0
        self._waiting_since: float | None = None  # the first traffic that nothing was heard after
        self._check_at = float("-inf")  # no check before this
        self._checks = 0  # since something was heard
        self._reopened = False  # the latest check ended a silence in which we had nothing to send
        self._forgot_at = float("-inf")  # when that last brought an answer
        self._rtt: float | None = None
        self._events: list[PathEvent] = []

    # -- the machine contract ------------------------------------------------------------------------------

    def transmits(self) -> tuple[()]:
        """Nothing: the owner sends what the events ask for."""
        return ()

    def events(self) -> list[PathEvent]:
        """Drain what is due and what happened."""
        drained, self._events = self._events, []
        drained.extend(self._mtu.events())
        return drained

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self._liveness_deadline(), self._mtu.deadline())

    def handle_timeout(self, now: float) -> None:
        """Act on silence, ours and the peer's."""
        self._forgive_stall(now)
        self._mtu.handle_timeout(now)
        if self._state in (PathState.NONE, PathState.DEAD):
            return
        if now >= self._received_at + DEAD_AFTER:
            self._state = PathState.DEAD
            self._waiting_since = None
            self._mtu.stop()
            self._events.append(PathDead())
            return
        if self._state is PathState.ALIVE and now >= self._suspect_at():
            self._state = PathState.SUSPECT
            self._events.append(Suspect(now - self._received_at))
        if now >= self._next_check():
            self._check_at = now + CHECK_INTERVAL
            self._sent_at = now
            self._checks += 1
            self._reopened = self._waiting_since is None
            self._events.append(CheckDue(self._checks))
        elif now >= self._sent_at + self._keepalive:
            self._sent_at = now
            self._events.append(KeepaliveDue())

    # -- what the owner tells ------------------------------------------------------------------------------

    def nominated(self, address: IPv4Address, form: Form, now: float) -> None:
        """This path carries the link from now on. It counts as heard: a proof has just come over it."""
        self._path = (address, form)
        self._state = PathState.ALIVE
        self._sent_at = self._received_at = now
        self._waiting_since = None
        self._check_at = float("-inf")
        self._checks = 0
        self._rtt = None
        self._mtu.start(now)

    def sent(self, now: float, largest: int = 0) -> None:
        """Traffic was sent; ``largest`` is the batch's largest outer packet in octets. Cheap."""
        self._sent_at = now
        if self._waiting_since is None:
            self._waiting_since = now
        if largest > CONFIRM_ABOVE and self._state is PathState.ALIVE:
            self._mtu.large_sent(now)

    def received(self, now: float) -> None:
        """Something authentic arrived over the path. Cheap."""
        self._received_at = now
        self._waiting_since = None
        if self._checks:
            self._checks = 0
            self._answered(now)
        if self._state is not PathState.ALIVE and self._state is not PathState.NONE:
            self._state = PathState.ALIVE
            self._events.append(Recovered())

    def rtt_measured(self, rtt: float) -> None:
        """A path challenge was answered after ``rtt`` seconds."""
        self._rtt = rtt if self._rtt is None else self._rtt + _RTT_GAIN * (rtt - self._rtt)

    def mtu_acknowledged(self, outer: int, now: float) -> None:
        """A padded frame of ``outer`` octets was answered."""
        if self._state is not PathState.NONE:
            self._mtu.acknowledged(outer, now)

    def mtu_refused(self, outer: int, now: float) -> None:
        """The socket refused a packet of ``outer`` octets (EMSGSIZE)."""
        if self._state is not PathState.NONE:
            self._mtu.refused(outer, now)

    def look(self, now: float) -> None:
        """The network under the path has changed: check it at once, and suspect it soon if nothing comes."""
        if self._state in (PathState.ALIVE, PathState.SUSPECT):
            self._waiting_since = min(now - CHECK_AFTER, self._waiting_since or now)
            self._check_at = now

    def receive_news(self, news: PathNews, now: float) -> None:
        """Take what ICMP said about a packet of this path: a reason to look, never a reason to act."""
        if self._path is None or self._state is PathState.DEAD:
            return
        address, form = self._path
        if news.destination != address or news.form not in (form, None):
            return
        match news.kind:
            case PathNewsKind.TOO_BIG:
                self._mtu.doubt(news.mtu, now)
            case PathNewsKind.UNREACHABLE | PathNewsKind.PROTOCOL_UNREACHABLE:
                if self._waiting_since is None:
                    self._waiting_since = now - CHECK_AFTER
            case PathNewsKind.TIME_EXCEEDED:
                pass  # of a lead packet sent while punching

    # -- what it knows -------------------------------------------------------------------------------------

    @property
    def path(self) -> tuple[IPv4Address, Form] | None:
        """Address and form of the nominated path."""
        return self._path

    @property
    def state(self) -> PathState:
        """What is known of it."""
        return self._state

    @property
    def received_at(self) -> float:
        """When something authentic was heard last, or counted as heard."""
        return self._received_at

    @property
    def rtt(self) -> float | None:
        """Smoothed round trip in seconds."""
        return self._rtt

    @property
    def outer_mtu(self) -> int:
        """Largest outer packet in octets."""
        return self._mtu.outer

    @property
    def size_known(self) -> bool:
        """Whether that size has been put to the test on this path."""
        return self._mtu.known

    # -- arithmetic ----------------------------------------------------------------------------------------

    def _suspect_at(self) -> float:
        idle = self._received_at + SUSPECT_AFTER_IDLE
        return idle if self._waiting_since is None else min(idle, self._waiting_since + SUSPECT_AFTER)

    def _next_check(self) -> float:
        idle = self._received_at + CHECK_AFTER_IDLE
        due = idle if self._waiting_since is None else min(idle, self._waiting_since + CHECK_AFTER)
        return max(due, self._check_at)

    def _liveness_deadline(self) -> float | None:
        if self._state in (PathState.NONE, PathState.DEAD):
            return None
        due = min(self._sent_at + self._keepalive, self._next_check(), self._received_at + DEAD_AFTER)
        return min(due, self._suspect_at()) if self._state is PathState.ALIVE else due

    def _answered(self, now: float) -> None:
        """A check brought an end to a silence. Where that happens time and again with nothing else to send, a NAT of
        ours forgets the flow between our keepalives: speak more often."""
        if not self._reopened:
            return
        if now - self._forgot_at < FORGETFUL_WITHIN:
            self._keepalive = max(SHORTEST_KEEPALIVE, self._keepalive / 2)
        self._forgot_at = now

    def _forgive_stall(self, now: float) -> None:
        """After a suspend the silence was ours, not the peer's: look at once, and judge from now on."""
        due = self._liveness_deadline()
        if due is None or now - due < STALL:
            return
        self._received_at = max(self._received_at, now - CHECK_AFTER)
        self._waiting_since = now - CHECK_AFTER
        self._check_at = now
