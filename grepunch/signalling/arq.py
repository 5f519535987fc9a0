"""The reliable stream of control messages between two peers: a small ARQ inside sealed frames.

It belongs to a session (a pair of session ids), not to a key or a carrier: a rekey or a move from the
rendezvous to the hole changes nothing here. The owner puts each segment into a sealed frame of inner protocol
0x005B (``SealedKind.SEGMENT``) and hands it to the best carrier there is; a retransmission is handed out again
by :meth:`Arq.transmits` and sealed anew, so that no two frames on the wire are equal.

A segment is ``sequence 4 | acknowledgement 4 | message``; the acknowledgement is the next sequence number
expected (cumulative); a segment without a message only acknowledges.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from enum import Enum

from pptp.errors import PeerViolation, UsageError, WireCause, WireError
from pptp.serial import difference, increment
from pptp.timers import Timers
from pptp.value import value

# ours: a handful of messages per session, each far below one path MTU
WINDOW = 16  # messages in flight
LARGEST_MESSAGE = 900  # octets: passes a path of 1000 with everything around it
MAX_QUEUED = 64  # messages waiting for the window: more has only a peer that asks and never acknowledges
RTO_MINIMUM = 0.25  # seconds
RTO_MAXIMUM = 8.0  # a doubled time-out stops here: an outage of a NAT's 30 s timer must be survivable
MAX_TRIES = 10

_TRIED_AGAIN = 2  # tries of a message that Karn's rule (RFC 6298 section 3) leaves out of the round trip

_HEADER = struct.Struct("!II")


@value
class Delivered:
    """The next message of the peer, in order, exactly once."""

    message: bytes


@value
class ArqFailed:
    """``MAX_TRIES`` of one message, or ``MAX_QUEUED`` others behind it, went unacknowledged: broken for good."""


ArqEvent = Delivered | ArqFailed


class _Timer(Enum):
    RETRANSMIT = 1


@dataclass(slots=True)
class _InFlight:
    sequence: int
    message: bytes
    first_sent: float
    tries: int = 1


class Arq:
    """One end of the stream. Created with the session, dies with it; the owner seals what it transmits."""

    def __init__(self, *, rtt: float = 0.1) -> None:
        self._rtt = rtt
        self._next_sequence = 0
        self._expected = 0
        self._in_flight: deque[_InFlight] = deque()
        self._queued: deque[bytes] = deque()
        self._out: list[tuple[int, bytes]] = []
        self._early: dict[int, bytes] = {}
        self._owe_acknowledgement = False
        self._events: list[ArqEvent] = []
        self._timers: Timers[_Timer] = Timers()
        self._backoff = 1.0
        self._failed = False
        self._reachable = True

    def send(self, message: bytes, now: float) -> None:
        """Queue a message of 1 to ``LARGEST_MESSAGE`` octets, any other is a :class:`UsageError`.

        One too many breaks the stream: it is the peer that makes us say so much, and only to itself.
        """
        if not 0 < len(message) <= LARGEST_MESSAGE:
            raise UsageError(f"control message of {len(message)} octets")
        if len(self._queued) >= MAX_QUEUED:
            self._fail()
        if not self._failed:
            self._queued.append(message)
            self._fill_window(now)

    def receive(self, segment: bytes, now: float) -> None:
        """Take a segment of the peer.

        Raises :class:`WireError` on a malformed one, :class:`PeerViolation` on an acknowledgement of what was
        never sent or a message beyond the window; neither changes the state.
        """
        if len(segment) < _HEADER.size:
            raise WireError("control segment", WireCause.TRUNCATED, f"{len(segment)} octets")
        sequence, acknowledgement = _HEADER.unpack_from(segment)
        message = segment[_HEADER.size :]
        if len(message) > LARGEST_MESSAGE:
            raise WireError("control segment", WireCause.OVERSIZE, f"message of {len(message)} octets")
        if difference(acknowledgement, self._next_sequence) > 0:
            raise PeerViolation("acknowledgement of a control message that was never sent")
        ahead = difference(sequence, self._expected)
        if message and ahead >= WINDOW:
            raise PeerViolation("control message beyond the window")
        self._acknowledged(acknowledgement, now)
        if not message:
            return
        self._owe_acknowledgement = True
        if ahead < 0:
            return  # a repetition: only the acknowledgement was lost
        self._early[sequence] = message
        while (following := self._early.pop(self._expected, None)) is not None:
            self._events.append(Delivered(following))
            self._expected = increment(self._expected)

    def carrier_changed(self, now: float) -> None:
        """A better carrier appeared: send what is unacknowledged again at once and forget the back-off."""
        if self._in_flight and not self._failed:
            self._backoff = 1.0
            for item in self._in_flight:
                item.tries = max(1, item.tries - 1)
            self._timers.arm(_Timer.RETRANSMIT, now)

    def reach(self, reachable: bool, now: float) -> None:
        """Whether there is a carrier that may work. Tries without one do not count; with one they begin anew."""
        if reachable is self._reachable:
            return
        self._reachable = reachable
        if reachable:
            for item in self._in_flight:
                item.tries = min(item.tries, _TRIED_AGAIN)
            self.carrier_changed(now)

    @property
    def idle(self) -> bool:
        """Whether everything sent has been acknowledged."""
        return not self._in_flight and not self._queued

    def transmits(self) -> list[bytes]:
        """Drain the segments to seal and send. An acknowledgement rides on a message where one is due."""
        out = [_HEADER.pack(sequence, self._expected) + message for sequence, message in self._out]
        if self._owe_acknowledgement and not out:
            out.append(_HEADER.pack(self._next_sequence, self._expected))
        self._owe_acknowledgement = False
        self._out.clear()
        return out

    def events(self) -> list[ArqEvent]:
        """Drain what was delivered, and the end."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When the oldest unacknowledged message is sent again."""
        return self._timers.deadline()

    def handle_timeout(self, now: float) -> None:
        """Retransmit the oldest message that is due, or give up after ``MAX_TRIES``."""
        if not self._timers.pop_expired(now) or not self._in_flight or self._failed:
            return
        oldest = self._in_flight[0]
        if self._reachable and oldest.tries >= MAX_TRIES:
            self._fail()
            return
        for item in self._in_flight:
            item.tries = item.tries + 1 if self._reachable else max(item.tries, _TRIED_AGAIN)
            self._emit(item)
        self._backoff *= 2
        self._arm(now)

    def _fail(self) -> None:
        if not self._failed:
            self._failed = True
            self._events.append(ArqFailed())

    def _fill_window(self, now: float) -> None:
        while self._queued and len(self._in_flight) < WINDOW and not self._failed:
            item = _InFlight(self._next_sequence, self._queued.popleft(), now)
            self._next_sequence = increment(self._next_sequence)
            self._in_flight.append(item)
            self._emit(item)
            if len(self._in_flight) == 1:
                self._arm(now)

    def _emit(self, item: _InFlight) -> None:
        self._out.append((item.sequence, item.message))

    def _acknowledged(self, acknowledgement: int, now: float) -> None:
        progressed = False
        while self._in_flight and difference(acknowledgement, self._in_flight[0].sequence) > 0:
            item = self._in_flight.popleft()
            progressed = True
            if item.tries == 1:  # Karn: only a message sent once times the path
                self._rtt += 0.25 * (now - item.first_sent - self._rtt)
        if not progressed:
            return
        self._backoff = 1.0
        if self._in_flight:
            self._arm(now)
        else:
            self._timers.stop(_Timer.RETRANSMIT)
        self._fill_window(now)

    def _arm(self, now: float) -> None:
        timeout = min(max(RTO_MINIMUM, 2 * self._rtt) * self._backoff, RTO_MAXIMUM)
        self._timers.arm(_Timer.RETRANSMIT, now + timeout)
