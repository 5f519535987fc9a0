"""How large an outer packet the path takes: found by padded sealed frames, never believed from ICMP alone.

Two concerns with one timer each (the method is that of RFC 8899, over an authenticated carrier):

* *Search*: larger sizes than the current one are tried from the largest down; the first acknowledged is taken.
* *Confirmation*: the current size is tried again when there is reason to doubt it (a new path, an ICMP message,
  large packets under way). When the path answers smaller probes and not this one, the size is lowered.

The owner is :class:`~grepunch.punch.path.PathManager`; what it emits goes out as frames of that outer size.
"""

from __future__ import annotations

from enum import Enum

from pptp.mtu import INITIAL_OUTER, LARGEST_OUTER, SMALLEST_OUTER
from pptp.timers import Timers
from pptp.value import value

# ours, because these are the sizes of Ethernet, PPPoE and the usual tunnels
LARGER = (LARGEST_OUTER, 1492, 1480, 1460, 1430)
SMALLER = (1360, 1280, 1200, 1000, 800, SMALLEST_OUTER)

# ours, because three probes 0.25 s apart survive a lost one, and with so long between two confirmations under load
# a black hole lasts at most 0.75 + 3 * 0.25 s: on a busy machine still less than 2 s
TRIES = 3
TRY_INTERVAL = 0.25
CONFIRM_INTERVAL = 0.75
CONFIRM_ABOVE = SMALLEST_OUTER  # smaller packets pass any path we run on
RAISE_INTERVAL = 60.0  # ours, because a path that has become wider is found by nothing else


@value
class MtuProbeDue:
    """Event: send a padded frame that makes an outer packet of ``outer`` octets and is answered."""

    outer: int


@value
class OuterMtu:
    """Event: the largest outer packet to send is now ``value`` octets."""

    value: int


class _Timer(Enum):
    SEARCH = "search"
    CONFIRM = "confirm"
    RAISE = "raise"


class PathMtu:
    """The size of one path; a child machine that sends nothing itself."""

    __slots__ = (
        "_answered",
        "_asked",
        "_confirm_tries",
        "_confirmed_at",
        "_events",
        "_known",
        "_outer",
        "_search",
        "_search_tries",
        "_suggested",
        "_timers",
    )

    def __init__(self) -> None:
        self._outer = INITIAL_OUTER
        self._search: list[int] = []  # sizes still to be tried, the current one first
        self._search_tries = 0
        self._confirm_tries = 0  # 0: no confirmation under way
        self._confirmed_at = float("-inf")
        self._known = False  # a confirmation has ended on this path
        self._answered: set[int] = set()  # sizes acknowledged during this confirmation
        self._asked: set[int] = set()  # sizes probed on this path: no other says anything, whoever names it
        self._suggested: int | None = None  # by an ICMP message
        self._timers: Timers[_Timer] = Timers()
        self._events: list[MtuProbeDue | OuterMtu] = []

    @property
    def outer(self) -> int:
        """Octets of the largest outer packet to send now."""
        return self._outer

    @property
    def known(self) -> bool:
        """Whether the size has been put to the test on this path."""
        return self._known

    def events(self) -> list[MtuProbeDue | OuterMtu]:
        """Drain what is to be probed, and what changed."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return self._timers.deadline()

    def start(self, now: float) -> None:
        """A new path: back to the initial size, which is confirmed while larger ones are tried."""
        self.stop()
        self._known = False
        changed = self._outer != INITIAL_OUTER
        self._outer = INITIAL_OUTER
        if changed:
            self._events.append(OuterMtu(INITIAL_OUTER))
        self._begin_confirmation(now)
        self._begin_search(now)

    def stop(self) -> None:
        """The path is gone: probe no more."""
        self._timers.stop_all()
        self._search = []
        self._confirm_tries = 0
        self._suggested = None
        self._asked.clear()

    def doubt(self, suggested: int, now: float) -> None:
        """An ICMP message says that only ``suggested`` octets pass. A lie costs one confirmation,
        and the next has to wait."""
        if SMALLEST_OUTER <= suggested < self._outer:
            self._suggested = suggested
            self.large_sent(now)

    def large_sent(self, now: float) -> None:
        """Packets that a narrower path would lose are under way: confirm the size if that is not fresh."""
        if self._confirm_tries == 0 and now - self._confirmed_at >= CONFIRM_INTERVAL:
            self._begin_confirmation(now)

    def acknowledged(self, outer: int, now: float) -> None:
        """A probe of this size was answered (authentically, which does not make it true)."""
        if outer not in self._asked:
            return
        if outer > self._outer and outer in LARGER:
            self._set(outer, now)
            self._end_search(now)
            self._end_confirmation(now)
        elif self._confirm_tries:
            self._answered.add(outer)
            if outer == self._outer:
                self._end_confirmation(now)

    def refused(self, outer: int, now: float) -> None:
        """This host's own interface does not take a packet of this size (EMSGSIZE)."""
        if self._search and self._search[0] == outer:
            self._search_tries = TRIES
            self._step_search(now)
        elif outer == self._outer:
            self.large_sent(now)

    def handle_timeout(self, now: float) -> None:
        """Send what is due."""
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.SEARCH:
                    self._step_search(now)
                case _Timer.CONFIRM:
                    self._step_confirmation(now)
                case _Timer.RAISE:
                    self._begin_search(now)

    # -- larger --------------------------------------------------------------------------------------------

    def _begin_search(self, now: float) -> None:
        self._search = [size for size in LARGER if size > self._outer]
        self._search_tries = 0
        self._step_search(now)

    def _step_search(self, now: float) -> None:
        if self._search_tries >= TRIES:
            self._search = self._search[1:]
            self._search_tries = 0
        if not self._search:
            self._end_search(now)
            return
        self._search_tries += 1
        self._probe(self._search[0])
        self._timers.arm(_Timer.SEARCH, now + TRY_INTERVAL)

    def _end_search(self, now: float) -> None:
        self._search = []
        self._timers.stop(_Timer.SEARCH)
        if self._outer < LARGEST_OUTER:
            self._timers.arm(_Timer.RAISE, now + RAISE_INTERVAL)

    # -- smaller -------------------------------------------------------------------------------------------

    def _begin_confirmation(self, now: float) -> None:
        self._answered.clear()
        self._confirm_tries = 1
        self._probe(self._outer)
        self._timers.arm(_Timer.CONFIRM, now + TRY_INTERVAL)

    def _step_confirmation(self, now: float) -> None:
        """Unanswered: try again beside all smaller sizes; after the last try take the largest that was answered.

        The size in doubt goes out twice each time: under load a confirmation runs every second, and mere loss
        must not lower the size.
        """
        if self._confirm_tries < TRIES:
            self._confirm_tries += 1
            for size in (self._outer, self._outer, *self._smaller()):
                self._probe(size)
            self._timers.arm(_Timer.CONFIRM, now + TRY_INTERVAL)
            return
        if self._answered:
            self._set(max(self._answered), now)
        # Where not even the smallest was answered the path is silent, which is not for the size to judge.
        self._end_confirmation(now)

    def _smaller(self) -> list[int]:
        sizes = {size for size in (*LARGER, INITIAL_OUTER, *SMALLER) if size < self._outer}
        if self._suggested is not None and self._suggested < self._outer:
            sizes.add(self._suggested)
        return sorted(sizes, reverse=True)

    def _end_confirmation(self, now: float) -> None:
        self._timers.stop(_Timer.CONFIRM)
        self._confirm_tries = 0
        self._known = True
        self._confirmed_at = now
        self._suggested = None

    def _probe(self, outer: int) -> None:
        self._asked.add(outer)
        self._events.append(MtuProbeDue(outer))

    def _set(self, outer: int, now: float) -> None:
        if outer < self._outer:
            # A smaller size has just failed, so what the search still had to try fails too.
            self._search = []
            self._timers.stop(_Timer.SEARCH)
            self._timers.arm(_Timer.RAISE, now + RAISE_INTERVAL)
        self._outer = outer
        self._events.append(OuterMtu(outer))
