"""Who may connect and who may have a session: limits and the session policy. Pure.

A connection is counted from its acceptance to its end, a session from its authentication on. A source that keeps
failing to authenticate is not listened to for a while, so that nobody tries passwords at the speed of the line; who
shares its address shares that, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Generic, TypeVar

from grepunch.config.legacy import SessionPolicy
from pptp.value import value

# ours
MOST_STARTING = 64  # connections beyond the sessions there may be: those that have not authenticated yet
MOST_FAILURES = 10  # of authentication, by one source within the period
FAILURE_PERIOD = 60.0  # seconds
MOST_SOURCES_REMEMBERED = 4096
CONNECT_RATE = 50.0  # connections a second from one source, in the long run
CONNECT_BURST = 200.0  # and at once: a site whose line has come back

SessionT = TypeVar("SessionT")


@value
class Limits:
    """What a profile allows."""

    sessions: int
    per_source: int
    policy: SessionPolicy


@value
class Admitted(Generic[SessionT]):
    """A session may be; ``replaces`` are those that have to end for it."""

    replaces: tuple[SessionT, ...] = ()


@value
class Refusal:
    """It may not; the sentence says why."""

    sentence: str


@dataclass(slots=True)
class _Failures:
    count: int
    since: float


@dataclass(slots=True)
class _Bucket:
    """What a source may still open at once."""

    left: float
    at: float

    def take(self, now: float) -> bool:
        self.left = min(CONNECT_BURST, self.left + (now - self.at) * CONNECT_RATE)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class Admission(Generic[SessionT]):
    """The book of one server. ``SessionT`` is whatever the server keeps for a session."""

    limits: Limits
    _connections: Counter[IPv4Address] = field(default_factory=Counter)
    _sessions: dict[int, tuple[str, SessionT]] = field(default_factory=dict)
    _failures: dict[IPv4Address, _Failures] = field(default_factory=dict)
    _buckets: dict[IPv4Address, _Bucket] = field(default_factory=dict)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return self._connections.total()

    @property
    def sources(self) -> Mapping[IPv4Address, int]:
        """How many connections each address has."""
        return self._connections

    def connect(self, source: IPv4Address, now: float) -> Refusal | None:
        """A connection comes: counted, or refused."""
        barred = self.barred(source, now)
        if barred is not None:
            return barred
        bucket = self._buckets.pop(source, None) or _Bucket(CONNECT_BURST, now)
        if len(self._buckets) >= MOST_SOURCES_REMEMBERED:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[source] = bucket  # the last one now: the one that came longest ago is forgotten first
        if not bucket.take(now):
            return Refusal(f"more than {CONNECT_RATE:.0f} connections a second")
        if self._connections[source] >= self.limits.per_source:
            return Refusal(f"listen.max_sessions_per_source is {self.limits.per_source}")
        if self.connections >= self.limits.sessions + MOST_STARTING:
            return Refusal(f"listen.max_sessions is {self.limits.sessions}, and {MOST_STARTING} more are starting")
        self._connections[source] += 1
        return None

    def disconnect(self, source: IPv4Address) -> None:
        """A counted connection is over."""
        self._connections[source] -= 1
        if self._connections[source] <= 0:
            del self._connections[source]

    def admit(self, key: int, user: str, session: SessionT) -> Admitted[SessionT] | Refusal:
        """A user is authenticated: entered as a session under ``key``, or refused."""
        others = {number: other for number, (name, other) in self._sessions.items() if name == user}
        if others and self.limits.policy is SessionPolicy.DENY:
            return Refusal("the user has a session already, and auth.session_policy is deny")
        replaced = others if self.limits.policy is SessionPolicy.REPLACE else {}
        if len(self._sessions) - len(replaced) >= self.limits.sessions:
            return Refusal(f"listen.max_sessions is {self.limits.sessions}")
        for number in replaced:
            del self._sessions[number]
        self._sessions[key] = user, session
        return Admitted(tuple(replaced.values()))

    def leave(self, key: int) -> None:
        """A session is over; harmless where there was none."""
        self._sessions.pop(key, None)

    def barred(self, source: IPv4Address, now: float) -> Refusal | None:
        """Why a source is not listened to for now, on the connections it has as little as on a new one."""
        failures = self._failures.get(source)
        if failures is not None and failures.count >= MOST_FAILURES and now - failures.since < FAILURE_PERIOD:
            return Refusal(f"{failures.count} failed authentications within {FAILURE_PERIOD:.0f} s")
        return None

    def failed(self, source: IPv4Address, now: float) -> None:
        """An authentication failed."""
        known = self._failures.get(source)
        if known is None or now - known.since >= FAILURE_PERIOD:
            self._failures.pop(source, None)
            if len(self._failures) >= MOST_SOURCES_REMEMBERED:
                del self._failures[next(iter(self._failures))]
            self._failures[source] = _Failures(1, now)
        else:
            known.count += 1
