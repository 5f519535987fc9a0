"""The rendezvous server's mind: who is in which mailbox, and what is to be told to whom.

One :class:`Broker` serves all connections of a server; the runner owns the sockets, gives every connection a number
and closes those that a :class:`CloseConnection` names. Everything lives in memory, everything has a cap
(:mod:`.limits`), and nothing outlives the connection it belongs to.

A mailbox has two sides, told apart by their tags. Same tag again: the newer connection takes over (the older one is
the ghost a rebooting NAT leaves behind). The older one is told; should it turn out to be alive after all, both are
told that the key is in use twice, the newer one keeps the side, and further takeovers are refused for as long as
somebody keeps trying: the two never throw each other out in turn.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from ipaddress import IPv4Address, IPv6Address

from pptp.errors import WireError
from pptp.timers import Timers
from pptp.value import value

from .limits import CONTESTED_FOR, STILL_HERE_WITHIN, SWEEP_INTERVAL, BrokerLimits, TokenBucket
from .messages import (
    CLOSE_SENTENCES,
    INSTANCE_LENGTH,
    SECONDS_PER_DAY,
    Absent,
    ClientMessage,
    ClockReply,
    ClockRequest,
    CloseCode,
    Hello,
    Join,
    Joined,
    JoinRefused,
    Leave,
    Present,
    RefusalReason,
    RelaySpent,
    Replaced,
    ServerMessage,
    StillHere,
    UsedTwice,
    build_blob,
    build_relayed,
    build_text,
    is_relayed,
    parse_blob,
    parse_client,
    parse_relayed,
)
from .quota import Over, RelayQuota, charge

_INCARNATION_LENGTH = 6


@value
class CloseConnection:
    """The runner is to close this connection; the broker has already forgotten it."""

    connection_id: int
    code: CloseCode
    reason: str


class Tally(StrEnum):
    """What the server counts, for its operator. Counts only: nothing that tells who met whom."""

    CONNECTIONS = "connections"
    JOINS = "joins"
    REPLACED = "replaced"
    USED_TWICE = "used_twice"
    REFUSED = "refused"
    CLOSED_BY_US = "closed_by_us"
    BLOBS = "blobs"
    BLOBS_QUEUED = "blobs_queued"
    BLOBS_EXPIRED = "blobs_expired"
    BLOBS_DROPPED_NO_SIDE = "blobs_dropped_no_side"
    BLOBS_DROPPED_RATE = "blobs_dropped_rate"
    BLOBS_DROPPED_QUEUE_FULL = "blobs_dropped_queue_full"
    BLOBS_DROPPED_SLOW_RECEIVER = "blobs_dropped_slow_receiver"  # counted by the runner, who sees the socket
    FRAMES_RELAYED = "frames_relayed"
    OCTETS_RELAYED = "octets_relayed"
    FRAMES_DROPPED_ABSENT = "frames_dropped_absent"  # nobody is there to take them, or they may not be relayed
    FRAMES_DROPPED_RATE = "frames_dropped_rate"
    FRAMES_DROPPED_VOLUME = "frames_dropped_volume"
    FRAMES_DROPPED_SLOW_RECEIVER = "frames_dropped_slow_receiver"  # counted by the runner


class _Timer(Enum):
    SWEEP = auto()


@dataclass(slots=True, eq=False)
class _Source:
    """One source address: what all its connections together may take."""

    connects: TokenBucket
    relayed: TokenBucket | None
    connections: int = 0
    joins: int = 0


@dataclass(slots=True, eq=False)
class _Connection:
    id: int
    address: IPv4Address | IPv6Address
    source: _Source
    texts: TokenBucket
    blobs: TokenBucket
    idle_since: float
    sides: dict[int, _Side] = field(default_factory=dict)  # by handle
    taken: dict[int, tuple[bytes, bytes, float]] = field(default_factory=dict)  # handle: mailbox, tag, answer until


@dataclass(slots=True, eq=False)
class _Side:
    mailbox: bytes
    tag: bytes
    connection: _Connection
    handle: int
    incarnation: int
    bucket: TokenBucket
    relayed: TokenBucket | None
    contested_until: float
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)  # for the other side: expiry, payload


class Broker:
    """All mailboxes of one server; a machine as :mod:`pptp.machine` describes, with a connection number in each call.

    ``unix_time`` is the wall clock. It is read for one purpose: the calendar day in each hello.
    """

    def __init__(
        self,
        *,
        entropy: Callable[[int], bytes],
        unix_time: Callable[[], float],
        limits: BrokerLimits | None = None,
        gre_echo: bool = False,
    ) -> None:
        self.tallies: Counter[Tally] = Counter()
        self._entropy = entropy
        self._unix_time = unix_time
        self._gre_echo = gre_echo
        self._limits = limits or BrokerLimits()
        self._quota = RelayQuota(self._limits.relay) if self._limits.relay is not None else None
        self._instance = entropy(INSTANCE_LENGTH)
        self._connections: dict[int, _Connection] = {}
        self._sources: dict[IPv4Address | IPv6Address, _Source] = {}
        self._mailboxes: dict[bytes, dict[bytes, _Side]] = {}
        self._joins = 0
        self._queued_octets = 0
        self._transmits: list[tuple[int, str | bytes]] = []
        self._events: list[CloseConnection] = []
        self._timers: Timers[_Timer] = Timers()

    # --- what the operator may know

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    @property
    def joins(self) -> int:
        """Sides of mailboxes taken now."""
        return self._joins

    @property
    def queued_octets(self) -> int:
        """Octets of blobs that wait for their receiver."""
        return self._queued_octets

    # --- the machine

    def transmits(self) -> list[tuple[int, str | bytes]]:
        """Drain what is to be sent, as (connection number, text or blob), oldest first."""
        drained, self._transmits = self._transmits, []
        return drained

    def events(self) -> list[CloseConnection]:
        """Drain the connections to be closed, after what is to be sent to them."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When ``handle_timeout`` wants to be called next."""
        return self._timers.deadline()

    def handle_timeout(self, now: float) -> None:
        """Close idle connections, expire blobs, forget quiet sources."""
        if not self._timers.pop_expired(now):
            return
        for connection in list(self._connections.values()):
            if not connection.sides and now - connection.idle_since >= self._limits.idle:
                self._close(connection, CloseCode.IDLE, now)
        for side in self._all_sides():
            self._expire(side, now)
        for key, source in list(self._sources.items()):
            if source.connections == 0 and source.connects.full(now):
                del self._sources[key]
        if self._connections or self._sources:
            self._timers.arm(_Timer.SWEEP, now + SWEEP_INTERVAL)

    # --- connections

    def connect(self, connection_id: int, address: IPv4Address | IPv6Address, now: float) -> None:
        """A connection was opened from ``address``; greet it, or have it closed where a cap is reached."""
        address = unmapped(address)
        key = source_key(address)
        source = self._sources.get(key)
        if source is None and len(self._sources) < 2 * self._limits.connections:
            relayed = self._quota.source_account(now) if self._quota is not None else None
            source = self._sources[key] = _Source(TokenBucket(self._limits.connects_per_source, now), relayed)
        if source is None or len(self._connections) >= self._limits.connections:
            self._refuse_connection(connection_id, CloseCode.SERVER_FULL)
            return
        if not source.connects.take(now) or source.connections >= self._limits.connections_per_source:
            self._refuse_connection(connection_id, CloseCode.TOO_MANY_CONNECTIONS)
            return
        source.connections += 1
        self._connections[connection_id] = connection = _Connection(
            connection_id,
            address,
            source,
            TokenBucket(self._limits.texts_per_connection, now),
            TokenBucket(self._limits.blobs_per_connection, now),
            now,
        )
        self.tallies[Tally.CONNECTIONS] += 1
        if self._timers.at(_Timer.SWEEP) is None:
            self._timers.arm(_Timer.SWEEP, now + SWEEP_INTERVAL)
        day, into = divmod(int(self._unix_time()), SECONDS_PER_DAY)
        observed = address if isinstance(address, IPv4Address) else None
        relay = self._quota.rate if self._quota is not None else 0
        left = SECONDS_PER_DAY - into
        self._tell(connection, Hello(self._instance, max(day, 0), left, observed, relay, self._gre_echo))

    def disconnect(self, connection_id: int, now: float) -> None:
        """The connection is gone; harmless where it was already."""
        connection = self._connections.pop(connection_id, None)
        if connection is None:
            return
        connection.source.connections -= 1
        for side in list(connection.sides.values()):
            self._vacate(side, now)

    def receive(self, connection_id: int, message: str | bytes, now: float) -> None:
        """A text or a blob arrived; one from a connection that is being closed is ignored."""
        connection = self._connections.get(connection_id)
        if connection is None:
            return
        try:
            if isinstance(message, bytes):
                if is_relayed(message):
                    self._relay(connection, *parse_relayed(message), now)
                else:
                    self._carry(connection, *parse_blob(message), now)
            elif connection.texts.take(now):
                self._obey(connection, parse_client(message), now)
            else:
                self._close(connection, CloseCode.RATE, now)
        except WireError:
            self._close(connection, CloseCode.MALFORMED, now)

    # --- texts

    def _obey(self, connection: _Connection, message: ClientMessage, now: float) -> None:
        match message:
            case Join():
                self._join(connection, message, now)
            case Leave(handle):
                side = connection.sides.get(handle)
                if side is not None:  # it may have been taken over while this was on its way
                    self._vacate(side, now)
            case StillHere(handle):
                self._contest(connection, handle, now)
            case ClockRequest(id):
                self._tell(connection, ClockReply(id, int(now * 1e6)))

    def _join(self, connection: _Connection, join: Join, now: float) -> None:
        if join.handle in connection.sides:
            self._close(connection, CloseCode.MALFORMED, now)
            return
        connection.idle_since = now
        mailbox = self._mailboxes.get(join.mailbox, {})
        before = mailbox.get(join.side)
        reason = self._why_not(connection, mailbox, before, now)
        if reason is not None:
            self.tallies[Tally.REFUSED] += 1
            self._tell(connection, JoinRefused(join.handle, reason))
            return
        if before is not None:
            self._take_over(before, connection, now)
        contested_until = before.contested_until if before is not None and before.connection is connection else 0.0
        side = _Side(
            join.mailbox,
            join.side,
            connection,
            join.handle,
            int.from_bytes(self._entropy(_INCARNATION_LENGTH)),
            TokenBucket(self._limits.blobs_per_side, now),
            self._quota.side_account(now) if self._quota is not None else None,
            contested_until,
        )
        self._mailboxes.setdefault(join.mailbox, {})[join.side] = side
        connection.sides[join.handle] = side
        connection.taken.pop(join.handle, None)
        connection.source.joins += 1
        self._joins += 1
        self.tallies[Tally.JOINS] += 1
        self._tell(connection, Joined(join.handle))
        if self._quota is not None and self._quota.spent(join.mailbox):
            self._tell(connection, RelaySpent(join.handle))
        self._introduce(side, now)

    def _why_not(
        self, connection: _Connection, mailbox: dict[bytes, _Side], before: _Side | None, now: float
    ) -> RefusalReason | None:
        """Why this connection may not take a side of ``mailbox`` that ``before`` holds, or None where it may."""
        if before is None and len(mailbox) >= 2:
            return RefusalReason.MAILBOX_FULL
        if before is not None and before.connection is not connection and before.contested_until > now:
            before.contested_until = now + CONTESTED_FOR
            return RefusalReason.KEY_IN_USE_TWICE
        if before is not None and before.connection is connection:
            return None  # one of its own in exchange for another
        if (
            len(connection.sides) >= self._limits.joins_per_connection
            or connection.source.joins >= self._limits.joins_per_source
        ):
            return RefusalReason.TOO_MANY_JOINS
        if before is None and self._joins >= self._limits.joins:
            return RefusalReason.SERVER_FULL
        return None

    def _take_over(self, before: _Side, connection: _Connection, now: float) -> None:
        """Remove the older holder of a side that ``connection`` takes; the other side hears only of the new one."""
        self._remove(before)
        if before.connection is connection:
            return
        self.tallies[Tally.REPLACED] += 1
        older = before.connection
        older.idle_since = now
        if len(older.taken) >= self._limits.joins_per_connection:
            del older.taken[next(iter(older.taken))]
        older.taken[before.handle] = (before.mailbox, before.tag, now + STILL_HERE_WITHIN)
        self._tell(older, Replaced(before.handle))

    def _introduce(self, side: _Side, now: float) -> None:
        """Tell both sides of each other, and hand over what waited."""
        other = self._other(side)
        if other is None:
            return
        self._tell(side.connection, Present(side.handle, other.incarnation))
        self._tell(other.connection, Present(other.handle, side.incarnation))
        self._expire(other, now)
        while other.queue:
            _, payload = other.queue.popleft()
            self._queued_octets -= len(payload)
            self._deliver(side, payload)

    def _contest(self, connection: _Connection, handle: int, now: float) -> None:
        """The side that was replaced under ``handle`` is alive: the key is in use twice."""
        mailbox, tag, until = connection.taken.pop(handle, (b"", b"", 0.0))
        holder = self._mailboxes.get(mailbox, {}).get(tag)
        if now > until or holder is None or holder.connection is connection:
            return
        self.tallies[Tally.USED_TWICE] += 1
        self._tell(connection, UsedTwice(handle))
        if holder.contested_until <= now:
            self._tell(holder.connection, UsedTwice(holder.handle))
        holder.contested_until = now + CONTESTED_FOR

    # --- blobs

    def _carry(self, connection: _Connection, handle: int, payload: bytes, now: float) -> None:
        side = connection.sides.get(handle)
        if side is None:
            self.tallies[Tally.BLOBS_DROPPED_NO_SIDE] += 1
            return
        if not connection.blobs.take(now) or not side.bucket.take(now):
            self.tallies[Tally.BLOBS_DROPPED_RATE] += 1
            return
        other = self._other(side)
        if other is not None:
            self._deliver(other, payload)
            return
        self._expire(side, now)
        if (
            len(side.queue) >= self._limits.queued_per_side
            or self._queued_octets + len(payload) > self._limits.queued_octets
        ):
            self.tallies[Tally.BLOBS_DROPPED_QUEUE_FULL] += 1
            return
        self.tallies[Tally.BLOBS_QUEUED] += 1
        self._queued_octets += len(payload)
        side.queue.append((now + self._limits.queued_for, payload))

    def _deliver(self, receiver: _Side, payload: bytes) -> None:
        self.tallies[Tally.BLOBS] += 1
        self._transmits.append((receiver.connection.id, build_blob(receiver.handle, payload)))

    def _expire(self, side: _Side, now: float) -> None:
        while side.queue and side.queue[0][0] <= now:
            _, payload = side.queue.popleft()
            self._queued_octets -= len(payload)
            self.tallies[Tally.BLOBS_EXPIRED] += 1

    # --- relayed frames

    def _relay(self, connection: _Connection, handle: int, frames: Sequence[bytes], now: float) -> None:
        """Pass frames on or drop them: none ever waits here."""
        side = connection.sides.get(handle)
        other = self._other(side) if side is not None else None
        source = connection.source.relayed
        if side is None or other is None or self._quota is None or side.relayed is None or source is None:
            self.tallies[Tally.FRAMES_DROPPED_ABSENT] += len(frames)
            return
        passed = frames
        if self._quota.take(side.mailbox, side.relayed, source, charge(frames), now) is not None:
            passed = self._within_quota(self._quota, side.mailbox, (side.relayed, source), frames, now)
        if not passed:
            return
        self.tallies[Tally.FRAMES_RELAYED] += len(passed)
        self.tallies[Tally.OCTETS_RELAYED] += sum(map(len, passed))
        self._transmits.append((other.connection.id, build_relayed(other.handle, passed)))
        if self._quota.spent(side.mailbox):  # they were the last ones; said once, because no other follows
            for told in (side, other):
                self._tell(told.connection, RelaySpent(told.handle))

    def _within_quota(
        self,
        quota: RelayQuota,
        mailbox: bytes,
        accounts: tuple[TokenBucket, TokenBucket],
        frames: Sequence[bytes],
        now: float,
    ) -> list[bytes]:
        """Those of too many frames that may pass; the others are counted."""
        passed = []
        for frame in frames:
            match quota.take(mailbox, *accounts, charge((frame,)), now):
                case Over.RATE:
                    self.tallies[Tally.FRAMES_DROPPED_RATE] += 1
                case Over.VOLUME:
                    self.tallies[Tally.FRAMES_DROPPED_VOLUME] += 1
                case None:
                    passed.append(frame)
        return passed

    # --- small change

    def _tell(self, connection: _Connection, message: ServerMessage) -> None:
        self._transmits.append((connection.id, build_text(message)))

    def _close(self, connection: _Connection, code: CloseCode, now: float) -> None:
        self.disconnect(connection.id, now)
        self._refuse_connection(connection.id, code)

    def _refuse_connection(self, connection_id: int, code: CloseCode) -> None:
        self.tallies[Tally.CLOSED_BY_US] += 1
        self._events.append(CloseConnection(connection_id, code, CLOSE_SENTENCES[code]))

    def _vacate(self, side: _Side, now: float) -> None:
        """The holder gives the side up; what it had queued goes with it, for the peer never heard of that join."""
        self._remove(side)
        side.connection.idle_since = now
        for other in self._mailboxes.get(side.mailbox, {}).values():
            self._tell(other.connection, Absent(other.handle))

    def _remove(self, side: _Side) -> None:
        mailbox = self._mailboxes[side.mailbox]
        del mailbox[side.tag]
        if not mailbox:
            del self._mailboxes[side.mailbox]
        del side.connection.sides[side.handle]
        side.connection.source.joins -= 1
        self._joins -= 1
        self._queued_octets -= sum(len(payload) for _, payload in side.queue)
        side.queue.clear()

    def _other(self, side: _Side) -> _Side | None:
        return next((other for other in self._mailboxes[side.mailbox].values() if other is not side), None)

    def _all_sides(self) -> Iterator[_Side]:
        return (side for mailbox in self._mailboxes.values() for side in mailbox.values())


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside ::ffff:a.b.c.d, which is how a dual-stack socket shows an IPv4 peer."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def source_key(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """What counts as one source: an IPv4 address, or an IPv6 /64, because a host has all of one."""
    return IPv6Address(int(address) >> 64 << 64) if isinstance(address, IPv6Address) else address
