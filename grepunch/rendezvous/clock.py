"""The server's clock, learned from a few round trips (the way of RFC 5905 section 8, with a monotonic clock)."""

from __future__ import annotations

from .events import ClockSynced

# ours, because the best of five is as good as it gets within a second
ROUND_TRIPS = 5


class ClockSync:
    """One series of round trips after another; each complete series replaces the offset of the one before.

    Of a series the shortest trip wins, because the least of it was spent in queues, which are what makes the two ways
    differ; its error is at most half of it. Created by the client machine, one for a server instance.
    """

    def __init__(self) -> None:
        self.offset: float | None = None  # the server's clock minus ours, in seconds
        self._asked_at = 0.0
        self._id = 0
        self._open = False
        self._trips: list[tuple[float, float]] = []  # round-trip time, offset

    def ask(self, now: float) -> int:
        """Begin a series at ``now``; the number to send with the request."""
        self._trips.clear()
        self._open = True
        return self._next(now)

    def answered(self, request_id: int, server_time: float, now: float) -> int | ClockSynced | None:
        """An answer came: the next number to ask with at once, or what the series that it ends has shown.

        None where it answers nothing that was asked.
        """
        if not self._open or request_id != self._id:
            return None
        self._trips.append((now - self._asked_at, server_time - (self._asked_at + now) / 2))
        if len(self._trips) < ROUND_TRIPS:
            return self._next(now)
        self._open = False
        rtt, self.offset = min(self._trips)
        return ClockSynced(rtt, rtt / 2)

    def stop(self) -> None:
        """Answers to what was asked will not come."""
        self._open = False

    def _next(self, now: float) -> int:
        self._asked_at = now
        self._id = (self._id + 1) & 0xFFFFFFFF
        return self._id
