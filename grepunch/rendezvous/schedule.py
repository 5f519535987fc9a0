"""When a peer does what towards a rendezvous server: which days it is present for, how long it waits to come back.

Pure functions of their arguments; the machine and the runner ask them.
"""

from __future__ import annotations

from pptp.value import value

from .messages import SECONDS_PER_DAY

# ours, because two servers' wall clocks, or a long connection's drift, never differ by an hour
NEIGHBOUR_DAY_WITHIN = 3600.0

# ours, because a server that restarts is back within seconds, and a dial should not wait for more than two more;
# one that stays away or is overloaded is asked rarely
SHORTEST_RETRY = 0.2
LONGEST_RETRY = 10.0
LONGEST_RETRY_AT_FIRST = 1.5
AT_FIRST = 120.0


@value
class DayClock:
    """The server's calendar carried on by a monotonic clock: at ``at``, ``day`` had ``seconds_to_next_day`` left."""

    day: int
    seconds_to_next_day: float
    at: float

    def days(self, now: float) -> tuple[int, ...]:
        """The days whose mailboxes to join at ``now``: today and, within an hour of midnight, its neighbour."""
        day, remaining = self._position(now)
        if remaining <= NEIGHBOUR_DAY_WITHIN:
            return (day, day + 1)
        if SECONDS_PER_DAY - remaining < NEIGHBOUR_DAY_WITHIN:
            return (day - 1, day) if day else (day,)  # before the first day a server can name there is none
        return (day,)

    def next_change(self, now: float) -> float:
        """When to ask again, because ``days`` then gives another answer; rounded up by a second past the change."""
        _, remaining = self._position(now)
        changes = (SECONDS_PER_DAY - NEIGHBOUR_DAY_WITHIN, NEIGHBOUR_DAY_WITHIN, 0.0)
        return now + 1.0 + min(remaining - change for change in changes if change < remaining)

    def _position(self, now: float) -> tuple[int, float]:
        """Day at ``now`` and the seconds left of it, in (0, 86400]."""
        days, into = divmod(now - self.at + SECONDS_PER_DAY - self.seconds_to_next_day, SECONDS_PER_DAY)
        return self.day + int(days), SECONDS_PER_DAY - into


def retry_delay(failures: int, down_for: float, chance: float, *, overloaded: bool = False) -> float:
    """Seconds to wait after the ``failures``-th failure in a row (from 1), ``down_for`` seconds into the outage.

    Doubling from 0.2 s, with jitter (``chance`` in [0, 1) makes up to half of the delay), to 1.5 s in the first two
    minutes and to 10 s later, or at once where the server gave signs of overload.
    """
    patient = overloaded or down_for > AT_FIRST
    longest = LONGEST_RETRY if patient else LONGEST_RETRY_AT_FIRST
    return min(longest / 2, SHORTEST_RETRY * 2.0 ** min(failures - 1, 10)) * (1.0 + chance)
