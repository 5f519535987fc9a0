"""A peer's side of the rendezvous: which mailboxes it wants, what the server said, and the server's clock.

The owner says which mailboxes it wants with :meth:`RendezvousClient.join`, once; the machine joins them anew on
every connection, and again after a while where it was refused or replaced. A runner tells it ``connected`` and
``disconnected`` and moves messages. One machine talks to one server.

States: ``down`` -connected-> ``greeting`` -Hello-> ``ready``. What the protocol forbids leads to ``faulty``, in which
nothing is heard any more and the runner closes the connection; ``disconnected`` leads to ``down`` from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from pptp.errors import UsageError, WireError
from pptp.timers import Timers

from .clock import ClockSync
from .events import (
    BlobReceived,
    ClientEvent,
    ClockSynced,
    DaysChanged,
    Disconnected,
    FramesRelayed,
    KeyInUseTwice,
    MailboxJoined,
    PeerAbsent,
    PeerPresent,
    Refused,
    RelayUsedUp,
    ReplacedHere,
    ServerFault,
    Welcomed,
)
from .limits import TokenBucket
from .messages import (
    LARGEST_BLOB,
    LARGEST_HANDLE,
    MAILBOX_LENGTH,
    SIDE_LENGTH,
    Absent,
    ClientMessage,
    ClockReply,
    ClockRequest,
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
    parse_relayed,
    parse_server,
)
from .schedule import DayClock

# ours, because quartz drifts up to 50 ppm: 30 ms in ten minutes
CLOCK_INTERVAL = 600.0
HELLO_WITHIN = 10.0
# ours, because a contested side is refused for 60 s after the last try, and a ghost is buried within 20 s
REJOIN_AFTER = 30.0  # plus up to a quarter
# ours, because 256 peers in the mailboxes of two days are 1024 texts when a connection begins, and few later
TEXTS = (100.0, 4096.0)  # a second, and at once


class _State(Enum):
    DOWN = auto()
    GREETING = auto()
    READY = auto()
    FAULTY = auto()


class _Timer(Enum):
    HELLO = auto()
    CLOCK = auto()
    DAY = auto()
    REJOIN = auto()


class _Place(Enum):
    """Where we are with a mailbox we want."""

    OUT = auto()  # no connection, refused or replaced
    JOINING = auto()
    IN = auto()


@dataclass(slots=True)
class _Membership:
    mailbox: bytes
    side: bytes
    place: _Place = _Place.OUT
    handle: int = 0  # 0: none on this connection
    rejoin_at: float | None = None
    told_twice: bool = False


class RendezvousClient:
    """One peer towards one rendezvous server; a machine as :mod:`pptp.machine` describes.

    ``entropy`` spreads the rejoining of many peers and draws nothing secret.
    """

    def __init__(self, *, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._state = _State.DOWN
        self._wanted: dict[bytes, _Membership] = {}
        self._by_handle: dict[int, _Membership] = {}
        self._last_handle = 0
        self._instance = b""
        self._days: DayClock | None = None
        self._told_days: tuple[int, ...] = ()
        self._clock = ClockSync()
        self._texts: TokenBucket | None = None
        self._transmits: list[str | bytes] = []
        self._events: list[ClientEvent] = []
        self._timers: Timers[_Timer] = Timers()

    # --- what the owner asks

    @property
    def synchronised(self) -> bool:
        """Whether the server's clock is known."""
        return self._clock.offset is not None

    def server_time(self, now: float) -> float:
        """The server's clock at our ``now``; :class:`UsageError` before :class:`ClockSynced`."""
        return now + self._offset()

    def local_time(self, server_time: float) -> float:
        """Our clock when the server's shows ``server_time``; :class:`UsageError` before :class:`ClockSynced`."""
        return server_time - self._offset()

    def days(self, now: float) -> tuple[int, ...]:
        """The days whose mailboxes are to be joined, by the server's calendar; none before the first welcome."""
        return self._days.days(now) if self._days is not None else ()

    # --- what the owner wants

    def join(self, mailbox: bytes, side: bytes, now: float) -> None:
        """Want to be on the side tagged ``side`` of ``mailbox`` until :meth:`leave`; again is harmless."""
        if len(mailbox) != MAILBOX_LENGTH or len(side) != SIDE_LENGTH:
            raise UsageError("a mailbox and a side tag have 16 octets each")
        membership = self._wanted.get(mailbox)
        if membership is None:
            membership = self._wanted[mailbox] = _Membership(mailbox, side)
            if self._state is _State.READY:
                self._enter(membership)
        elif membership.side != side:
            raise UsageError("this mailbox is joined under another side tag")

    def leave(self, mailbox: bytes, now: float) -> None:
        """Want the mailbox no longer; harmless where it was not wanted."""
        membership = self._wanted.pop(mailbox, None)
        if membership is None:
            return
        if membership.place is not _Place.OUT:
            self._tell(Leave(membership.handle))
        self._forget_handle(membership)
        self._arm_rejoin()

    def send(self, mailbox: bytes, blob: bytes, now: float) -> bool:
        """Hand ``blob`` (1 to 4096 octets) to the server for the other side; False where we are not in the mailbox.

        True promises nothing: the server may drop it, or lose it with the connection.
        """
        if not 1 <= len(blob) <= LARGEST_BLOB:
            raise UsageError(f"a blob has 1 to {LARGEST_BLOB} octets, not {len(blob)}")
        membership = self._wanted.get(mailbox)
        if membership is None or membership.place is _Place.OUT:
            return False
        self._transmits.append(build_blob(membership.handle, blob))
        return True

    def is_in(self, mailbox: bytes) -> bool:
        """Whether frames can be relayed to the other side."""
        membership = self._wanted.get(mailbox)
        return membership is not None and membership.place is _Place.IN

    def relayed(self, mailbox: bytes, frames: Sequence[bytes]) -> bytes | None:
        """The message that has frames relayed to the other side, for the runner to send; None where we are not in.

        They are 1 to ``MOST_FRAMES``, of 1 to ``LARGEST_FRAME`` octets, which is the caller's to see to. The message
        does not go through :meth:`transmits`: frames wait in a queue of the runner's, where the oldest is dropped.
        """
        membership = self._wanted.get(mailbox)
        if membership is None or membership.place is not _Place.IN:
            return None
        return build_relayed(membership.handle, frames)

    # --- what the runner reports

    def connected(self, now: float) -> None:
        """A connection to the server is open."""
        if self._state is not _State.DOWN:
            raise UsageError("connected while connected")
        self._state = _State.GREETING
        self._texts = TokenBucket(TEXTS, now)
        self._timers.arm(_Timer.HELLO, now + HELLO_WITHIN)

    def disconnected(self, now: float) -> None:
        """The connection is gone; what was to be sent on it goes with it."""
        if self._state is _State.DOWN:
            return
        self._state = _State.DOWN
        self._clock.stop()
        self._transmits.clear()
        self._by_handle.clear()
        for membership in self._wanted.values():
            membership.place, membership.handle, membership.rejoin_at = _Place.OUT, 0, None
        self._stop_timers()
        self._events.append(Disconnected())

    def receive(self, message: str | bytes, now: float) -> None:
        """The server sent a text or a blob."""
        if self._state not in (_State.GREETING, _State.READY):
            return
        try:
            if isinstance(message, bytes):
                self._take_binary(message)
            elif self._texts is not None and not self._texts.take(now):
                self._fault(f"more than {TEXTS[0]:.0f} messages a second")
            else:
                self._obey(parse_server(message), now)
        except WireError as error:
            self._fault(str(error))

    # --- the machine

    def transmits(self) -> list[str | bytes]:
        """Drain what is to be sent, oldest first."""
        drained, self._transmits = self._transmits, []
        return drained

    def events(self) -> list[ClientEvent]:
        """Drain what happened, oldest first."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When ``handle_timeout`` wants to be called next."""
        return self._timers.deadline()

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that is due."""
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.HELLO:
                    self._fault(f"no greeting within {HELLO_WITHIN:.0f} s")
                case _Timer.CLOCK:
                    self._tell(ClockRequest(self._clock.ask(now)))
                case _Timer.DAY:
                    self._tell_days(now)
                case _Timer.REJOIN:
                    for membership in self._wanted.values():
                        if membership.rejoin_at is not None and membership.rejoin_at <= now:
                            self._enter(membership)
                    self._arm_rejoin()

    # --- the server's messages

    def _obey(self, message: ServerMessage, now: float) -> None:
        if isinstance(message, Hello) is not (self._state is _State.GREETING):
            self._fault("a greeting out of place" if isinstance(message, Hello) else "no greeting before all else")
            return
        match message:
            case Hello():
                self._greeted(message, now)
            case ClockReply():
                self._clock_answered(message, now)
            case _:
                membership = self._by_handle.get(message.handle)
                if membership is not None:  # else it crossed our leave
                    self._place_news(membership, message, now)

    def _greeted(self, hello: Hello, now: float) -> None:
        self._state = _State.READY
        self._timers.stop(_Timer.HELLO)
        if hello.instance != self._instance:
            self._instance = hello.instance
            self._clock = ClockSync()
        self._events.append(
            Welcomed(hello.instance, hello.day, hello.seconds_to_next_day, hello.observed, hello.relay, hello.gre_echo),
        )
        self._days = DayClock(hello.day, hello.seconds_to_next_day, now)
        self._told_days = ()
        self._tell_days(now)
        self._tell(ClockRequest(self._clock.ask(now)))
        for membership in self._wanted.values():
            self._enter(membership)

    def _place_news(
        self,
        membership: _Membership,
        message: Joined | JoinRefused | Present | Absent | Replaced | UsedTwice | RelaySpent,
        now: float,
    ) -> None:
        mailbox = membership.mailbox
        match message:
            case Joined():
                membership.place = _Place.IN
                membership.told_twice = False
                self._events.append(MailboxJoined(mailbox))
            case JoinRefused(_, reason):
                self._put_out(membership, now)
                if reason is RefusalReason.KEY_IN_USE_TWICE:
                    self._tell_twice(membership)
                else:
                    self._events.append(Refused(mailbox, reason))
            case Present(_, incarnation):
                self._events.append(PeerPresent(mailbox, incarnation))
            case Absent():
                self._events.append(PeerAbsent(mailbox))
            case Replaced(handle):
                self._tell(StillHere(handle))
                self._put_out(membership, now)
                self._events.append(ReplacedHere(mailbox))
            case UsedTwice():
                self._tell_twice(membership)
            case RelaySpent():
                self._events.append(RelayUsedUp(mailbox))

    def _put_out(self, membership: _Membership, now: float) -> None:
        """Refused or replaced: the handle still names the mailbox in what the server may yet say about it."""
        membership.place = _Place.OUT
        membership.rejoin_at = now + REJOIN_AFTER * (1.0 + self._entropy(1)[0] / 1024)
        self._arm_rejoin()

    def _tell_twice(self, membership: _Membership) -> None:
        """Once for each time we were put out or kept the side, not once for each refusal."""
        if not membership.told_twice:
            membership.told_twice = True
            self._events.append(KeyInUseTwice(membership.mailbox, membership.place is _Place.IN))

    def _take_binary(self, message: bytes) -> None:
        frames: list[bytes] | None = None
        if is_relayed(message):
            handle, frames = parse_relayed(message)
        else:
            handle, payload = parse_blob(message)
        membership = self._by_handle.get(handle)
        if membership is None or membership.place is not _Place.IN:
            return
        if frames is not None:
            self._events.append(FramesRelayed(membership.mailbox, tuple(frames)))
        else:
            self._events.append(BlobReceived(membership.mailbox, payload))

    # --- the server's clock and calendar

    def _clock_answered(self, reply: ClockReply, now: float) -> None:
        match self._clock.answered(reply.id, reply.microseconds / 1e6, now):
            case int(request_id):
                self._tell(ClockRequest(request_id))
            case ClockSynced() as synced:
                self._timers.arm(_Timer.CLOCK, now + CLOCK_INTERVAL)
                self._events.append(synced)

    def _offset(self) -> float:
        if self._clock.offset is None:
            raise UsageError("the server's clock is not known yet")
        return self._clock.offset

    def _tell_days(self, now: float) -> None:
        if self._days is None:
            return
        self._timers.arm(_Timer.DAY, self._days.next_change(now))
        days = self._days.days(now)
        if days != self._told_days:
            self._told_days = days
            self._events.append(DaysChanged(days))

    # --- small change

    def _enter(self, membership: _Membership) -> None:
        self._forget_handle(membership)
        membership.place, membership.rejoin_at = _Place.JOINING, None
        membership.handle = self._free_handle()
        self._by_handle[membership.handle] = membership
        self._tell(Join(membership.handle, membership.mailbox, membership.side))

    def _free_handle(self) -> int:
        """A handle not in use, and not soon used again: the server may still be talking about an older join."""
        if len(self._by_handle) >= LARGEST_HANDLE:
            raise UsageError("more mailboxes than handles")
        while True:
            self._last_handle = self._last_handle % LARGEST_HANDLE + 1
            if self._last_handle not in self._by_handle:
                return self._last_handle

    def _forget_handle(self, membership: _Membership) -> None:
        self._by_handle.pop(membership.handle, None)
        membership.handle = 0

    def _arm_rejoin(self) -> None:
        due = min((m.rejoin_at for m in self._wanted.values() if m.rejoin_at is not None), default=None)
        if due is None:
            self._timers.stop(_Timer.REJOIN)
        else:
            self._timers.arm(_Timer.REJOIN, due)

    def _tell(self, message: ClientMessage) -> None:
        self._transmits.append(build_text(message))

    def _fault(self, detail: str) -> None:
        self._state = _State.FAULTY
        self._stop_timers()
        self._events.append(ServerFault(detail))

    def _stop_timers(self) -> None:
        """All that need a connection; the calendar goes on."""
        for timer in (_Timer.HELLO, _Timer.CLOCK, _Timer.REJOIN):
            self._timers.stop(timer)
