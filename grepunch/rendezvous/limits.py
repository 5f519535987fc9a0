"""What the rendezvous server grants a connection, a source address and everyone together, on one screen."""

from __future__ import annotations

from pptp.value import value

# ours, because a side that is alive answers within one round trip, and a minute covers the slowest link and a retry
STILL_HERE_WITHIN = 30.0  # seconds in which a replaced side may prove to be alive
CONTESTED_FOR = 60.0  # seconds without new evidence after which "key in use twice" is forgotten
SWEEP_INTERVAL = 5.0  # seconds between two looks for what has expired


@value
class RelayLimits:
    """What a server that relays grants, in octets; rates are per second with a burst, each way.

    Whatever is over a rate is dropped and counted, as a slow line would drop it. The volume is that of a mailbox, both
    ways together, in a day; the pair is told when it has been used up.
    """

    rate_per_side: tuple[float, float] = (1e6, 262_144.0)  # 8 Mbit/s; the burst is a quarter of a second
    rate_per_source: tuple[float, float] = (4e6, 1_048_576.0)
    rate_in_all: tuple[float, float] = (12.5e6, 2_097_152.0)
    volume_per_mailbox: int = 20 * 2**30
    volumes_kept: int = 65_536  # mailboxes whose use is remembered, also after both sides have left; the busiest ones

    @classmethod
    def of_rate(cls, octets_per_second: float) -> RelayLimits:
        """The limits of a server that grants each side this rate: a source four times, everyone twelve times it."""
        side = octets_per_second
        return cls((side, side / 4), (4 * side, side), (12.5 * side, 2 * side))


@value
class BrokerLimits:
    """Caps of one server; the defaults suit a small machine.

    Measured: a connection takes 300 kB with TLS (256 of them asyncio's buffer) and 15 kB behind a proxy, a join 1.4 kB;
    so 500 MB, or 200 MB behind a proxy, with every cap reached, besides what slow receivers leave unread (64 kB each).

    Rates are per second with a burst. Going over a rate of texts closes the connection, because a peer of ours never
    does; going over a rate of blobs drops the blob, because the peers' own retransmission makes up for it.
    """

    connections: int = 1024
    connections_per_source: int = 64  # ours, because a carrier NAT puts many customers behind one address
    connects_per_source: tuple[float, float] = (8.0, 128.0)
    joins: int = 65_536
    joins_per_source: int = 4096
    joins_per_connection: int = 512  # 256 peers, each with the mailboxes of two days around midnight
    texts_per_connection: tuple[float, float] = (20.0, 1200.0)  # the burst: 512 leaves, 512 joins, a clock
    blobs_per_connection: tuple[float, float] = (512.0, 2048.0)
    blobs_per_side: tuple[float, float] = (32.0, 64.0)  # a window of 16 messages each way, and its retransmission
    queued_per_side: int = 16  # blobs kept for a side that is not there yet
    queued_octets: int = 32 * 2**20  # of all mailboxes together
    queued_for: float = 120.0  # seconds
    idle: float = 60.0  # seconds without a mailbox after which a connection is closed
    relay: RelayLimits | None = None  # None: frames are not relayed


class TokenBucket:
    """A rate with a burst: ``take`` says whether one more is within it."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate_and_burst: tuple[float, float], now: float) -> None:
        self._rate, self._burst = rate_and_burst
        self._tokens = self._burst
        self._filled_at = now

    def holds(self, now: float, amount: float) -> bool:
        """Whether so many tokens are there."""
        self._fill(now)
        return self._tokens >= amount

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Whether so many tokens were there; they are gone then."""
        if not self.holds(now, amount):
            return False
        self._tokens -= amount
        return True

    def full(self, now: float) -> bool:
        """Whether nothing of what was taken is still owed, so that forgetting the bucket forgives nothing."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + self._rate * max(0.0, now - self._filled_at))
        self._filled_at = now
