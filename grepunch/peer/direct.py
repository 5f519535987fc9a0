"""Punching without a rendezvous: probes under the static keys, to the address the profile names.

The same serves a session whose rendezvous is gone and whose path has died: then the address that worked last is tried.
Nothing synchronises the two sides; see the schedule ``alone`` in :mod:`grepunch.punch.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from ipaddress import IPv4Address

from grepunch.ports import Form, GreSend, PathNews
from grepunch.punch.candidate import Candidate
from grepunch.punch.plan import NOMINATION_WAIT, Budget, Proven, Schedule, nominate
from grepunch.punch.probe import ATTEMPT_ID_SIZE
from grepunch.punch.puncher import Puncher, WindowEnded
from grepunch.punch.report import PunchReport
from grepunch.punch.winners import Winner, usable
from pptp.machine import earliest
from pptp.timers import Timers

DirectEvent = Proven | WindowEnded


class _Timer(Enum):
    NOMINATE = "nominate"


class DirectPunch:
    """One attempt, from its making until :meth:`stop`; tells the nominated path, and again when a better one comes."""

    def __init__(
        self,
        target: Candidate,
        *,
        outgoing_key: bytes,
        incoming_key: bytes,
        forms: Sequence[Form],
        window: float,
        budget: Budget,
        entropy: Callable[[int], bytes],
        now: float,
        winner: Winner | None = None,
    ) -> None:
        """``winner`` is what worked the last time, if that is known."""
        winner = usable(winner, forms)
        if winner is not None:
            winner = Winner(winner.form)  # no call can be made for the NATs to see: nobody tells the peer when
        self.target = target
        self._preferred = winner.form if winner is not None else Form.V1
        self._proven: tuple[Proven, ...] = ()
        self._proven_at = 0.0
        self._events: list[DirectEvent] = []
        self._timers: Timers[_Timer] = Timers()
        self._puncher = Puncher(
            attempt_id=entropy(ATTEMPT_ID_SIZE),
            outgoing_key=outgoing_key,
            incoming_key=incoming_key,
            targets=[target],
            schedule=Schedule.alone(window=window),
            budget=budget,
            entropy=entropy,
            forms=forms,
            winner=winner,
        )
        self._puncher.start(now, now)

    def transmits(self) -> list[GreSend]:
        """Drain the probes to send."""
        return self._puncher.transmits()

    def events(self) -> list[DirectEvent]:
        """Drain what happened: a path to take, or the end of the first window."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self._timers.deadline(), self._puncher.deadline())

    def handle_timeout(self, now: float) -> None:
        """Send what is due."""
        if self._timers.pop_expired(now):
            self._nominate(now)
        self._puncher.handle_timeout(now)
        self._follow(now)

    def stop(self, now: float) -> None:
        """Send and hear nothing more."""
        self._timers.stop_all()
        self._puncher.stop(now)

    def receive_probe(self, source: IPv4Address, form: Form, body: bytes, ttl: int, now: float) -> bool:
        """A probe from the hole; True when it is the peer's and fresh."""
        authentic = self._puncher.receive_probe(source, form, body, ttl, now)
        self._follow(now)
        return authentic

    def receive_news(self, news: PathNews, now: float) -> None:
        """ICMP about a probe."""
        self._puncher.receive_news(news, now)
        self._follow(now)

    def aims_at(self, address: IPv4Address) -> bool:
        """Whether our probes go there."""
        return self.target.address == address

    def has_proven(self, address: IPv4Address) -> bool:
        """Whether the peer has answered from this address in this attempt."""
        return any(proven.address == address for proven in self._proven)

    @property
    def report(self) -> PunchReport:
        """What was sent and heard so far."""
        return self._puncher.report

    def _follow(self, now: float) -> None:
        for event in self._puncher.events():
            match event:
                case Proven():
                    if not self._proven:
                        self._proven_at = now
                    self._proven = (*self._proven, event)
                    self._nominate(now)
                case WindowEnded():
                    self._events.append(event)
                case _:
                    pass  # nobody to tell that our side is open

    def _nominate(self, now: float) -> None:
        best = nominate(self._proven, now - self._proven_at, self._preferred)
        if best is not None:
            self._events.append(best)
        elif self._proven:
            self._timers.arm(_Timer.NOMINATE, self._proven_at + NOMINATION_WAIT + 1e-4)  # float rounding
