"""What a puncher keeps for each address and form: counts, the peer's attempt, what has been echoed and proven."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from grepunch.ports import Form, PathNews, PathNewsKind
from grepunch.punch.candidate import CandidateKind
from grepunch.punch.ladder import Ladder
from grepunch.punch.probe import NO_ATTEMPT, Probe, SequenceWindow
from grepunch.punch.report import StreamReport

MAX_PEER_ATTEMPTS = 4  # ours, because a peer has one attempt at a time, and replays of older ones must not grow us


@dataclass(slots=True)
class Target:
    """An address that probes are aimed at; its ladder serves all forms."""

    kind: CandidateKind
    ladder: Ladder

    @property
    def hourly_budget(self) -> bool:
        """Whether the hourly limit holds: not for the address the user configured."""
        return self.kind is not CandidateKind.KNOWN


@dataclass(slots=True)
class Stream:
    """One form towards one address."""

    address: IPv4Address
    form: Form
    target: Target | None  # None: a source learned from its probes, which is answered and not probed
    lead_sent: int = 0
    sent: int = 0
    withheld: int = 0
    heard: int = 0
    heard_by_peer: int = 0
    peer_attempt: bytes = NO_ATTEMPT
    highest_heard: int = 0
    arrival_ttl: int = 0
    echoed: bool = False  # the peer has echoed our attempt here
    proven: bool = False
    peer_has_proven: bool = False
    answered: bool = False  # a reply stands for the next scheduled probe
    beyond: IPv4Address | None = None
    inside: IPv4Address | None = None
    unreachable: IPv4Address | None = None
    protocol_unreachable: IPv4Address | None = None

    @property
    def settled(self) -> bool:
        """Both sides know that it works."""
        return self.proven and self.peer_has_proven

    def take(self, probe: Probe, ttl: int, *, echo: bool) -> bool:
        """Count an authentic probe that does or does not echo our attempt; True when it is to be answered.

        It is, when it does not echo our attempt, or is the first of its attempt here that does: so each side hears
        its echo, and two sides that have both heard it fall silent. An attempt that has echoed ours gives way
        only to one that does too: an old probe, replayed, has not.
        """
        first_echo = echo and not (self.echoed and probe.attempt_id == self.peer_attempt)
        self.heard += 1
        self.arrival_ttl = ttl
        if probe.attempt_id != self.peer_attempt and (echo or not self.echoed):
            self.peer_attempt, self.highest_heard = probe.attempt_id, 0
            self.peer_has_proven = False
        if probe.attempt_id == self.peer_attempt:
            self.highest_heard = max(self.highest_heard, probe.sequence)
        if echo:
            self.echoed = True
            self.heard_by_peer = max(self.heard_by_peer, probe.heard_count)
            self.peer_has_proven = self.peer_has_proven or probe.proven
        return first_echo or not echo

    def note(self, news: PathNews) -> None:
        """Keep who refused our packets, for the report."""
        match news.kind:
            case PathNewsKind.UNREACHABLE:
                self.unreachable = news.reporter
            case PathNewsKind.PROTOCOL_UNREACHABLE:
                self.protocol_unreachable = news.reporter
            case PathNewsKind.TIME_EXCEEDED | PathNewsKind.TOO_BIG:
                pass  # the ladder's; and a probe of 92 octets is never too big

    def report(self) -> StreamReport:
        """A copy for the report."""
        return StreamReport(
            self.address,
            self.form,
            lead_sent=self.lead_sent,
            sent=self.sent,
            withheld=self.withheld,
            heard=self.heard,
            heard_by_peer=self.heard_by_peer,
            proven=self.proven,
            beyond=self.beyond,
            inside=self.inside,
            unreachable=self.unreachable,
            protocol_unreachable=self.protocol_unreachable,
        )


class PeerAttempts:
    """The peer's latest attempts, and which of their probes were heard."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: dict[bytes, SequenceWindow] = {}

    def is_new(self, probe: Probe, streams: Iterable[Stream]) -> bool:
        """True once for each probe. When full, an attempt that has never echoed ours is forgotten first."""
        window = self._windows.get(probe.attempt_id)
        if window is None:
            if probe.attempt_id == NO_ATTEMPT:
                return False
            if len(self._windows) >= MAX_PEER_ATTEMPTS:
                live = {stream.peer_attempt for stream in streams if stream.echoed}
                del self._windows[next((a for a in self._windows if a not in live), next(iter(self._windows)))]
            window = self._windows[probe.attempt_id] = SequenceWindow()
        return window.take(probe.sequence)
