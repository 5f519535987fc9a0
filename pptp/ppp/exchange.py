"""What the exchanges of PAP and CHAP have in common: queues, and a question that is repeated until it is answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum, auto

from pptp.ppp.auth import AuthEvent
from pptp.timers import Timers
from pptp.value import value

# ours, as pppd: section 4.1 of RFC 1994 leaves both open
REPEAT_TIMER = 3.0  # seconds
MAX_ASKED = 10

# ours, because the other side tries for as long as that, twice over
FIRST_WORD_TIMER = 60.0  # seconds


@value
class Patience:
    """How long an exchange waits: seconds between repetitions, how many times it asks, seconds for the first word."""

    repeat_timer: float = REPEAT_TIMER
    max_asked: int = MAX_ASKED
    first_word_timer: float = FIRST_WORD_TIMER


class _Timer(Enum):
    ANSWER = auto()


class AskingExchange(ABC):
    """Base of the exchanges: a machine that sends packets and waits for answers (:class:`~pptp.ppp.auth.Exchange`)."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._timers: Timers[_Timer] = Timers()
        self._question: bytes | None = None
        self._asked = 0
        self._out: list[bytes] = []
        self._events: list[AuthEvent] = []

    def transmits(self) -> list[bytes]:
        """Drain the packets to be sent, oldest first."""
        drained, self._out = self._out, []
        return drained

    def events(self) -> list[AuthEvent]:
        """Drain what happened, oldest first."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When ``handle_timeout`` is wanted next, or ``None``."""
        return self._timers.deadline()

    def handle_timeout(self, now: float) -> None:
        """Ask again, or give up."""
        for _ in self._timers.pop_expired(now):
            if self._question is not None and self._asked < self._patience.max_asked:
                self._send_question(self._question, now)
            else:
                self._question = None
                self._gave_up()

    @abstractmethod
    def _gave_up(self) -> None:
        """No answer has come."""

    def _ask(self, packet: bytes, now: float) -> None:
        """Send ``packet`` until :meth:`_settle`."""
        self._asked = 0
        self._send_question(packet, now)

    def _wait(self, seconds: float, now: float) -> None:
        """Wait for the peer without asking."""
        self._question = None
        self._timers.arm(_Timer.ANSWER, now + seconds)

    def _settle(self) -> None:
        """What was waited for has come."""
        self._question = None
        self._timers.stop(_Timer.ANSWER)

    @property
    def _waiting(self) -> bool:
        return self._timers.at(_Timer.ANSWER) is not None

    def _send_question(self, packet: bytes, now: float) -> None:
        self._question = packet
        self._asked += 1
        self._out.append(packet)
        self._timers.arm(_Timer.ANSWER, now + self._patience.repeat_timer)
