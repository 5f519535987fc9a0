"""What of a server's relay is left: for a side, for a source address, for a mailbox in a day, and for everyone.

The broker asks for every frame. Nothing here waits: a frame is relayed now or dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto

from .limits import RelayLimits, TokenBucket

# ours, because a mailbox has another name every day
REMEMBERED_FOR = 86_400.0


# ours, because a frame costs the server its time however short it is
SMALLEST_CHARGE = 128


def charge(frames: Iterable[bytes]) -> int:
    """The octets that frames are charged as."""
    return sum(max(len(frame), SMALLEST_CHARGE) for frame in frames)


class Over(Enum):
    """Which limit a frame would have gone over."""

    RATE = auto()
    VOLUME = auto()


class RelayQuota:
    """The accounts of one server; times in seconds, amounts in octets."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._everyone: TokenBucket | None = None
        self._used: dict[bytes, tuple[float, int]] = {}  # mailbox: since when, how much

    @property
    def rate(self) -> int:
        """What a side gets, for the greeting."""
        return int(self._limits.rate_per_side[0])

    def side_account(self, now: float) -> TokenBucket:
        """For a side that has joined."""
        return TokenBucket(self._limits.rate_per_side, now)

    def source_account(self, now: float) -> TokenBucket:
        """For a source address that is new."""
        return TokenBucket(self._limits.rate_per_source, now)

    def spent(self, mailbox: bytes) -> bool:
        """Whether a mailbox has used up its day."""
        _, used = self._used.get(mailbox, (0.0, 0))
        return used >= self._limits.volume_per_mailbox

    def take(self, mailbox: bytes, side: TokenBucket, source: TokenBucket, octets: int, now: float) -> Over | None:
        """Charge so much to all accounts, or nothing to any; the limit that forbids it, or None where it may pass."""
        since, used = self._used.get(mailbox, (now, 0))
        if used >= self._limits.volume_per_mailbox:
            return Over.VOLUME
        if mailbox not in self._used:
            self._make_room(now)
        if self._everyone is None:
            self._everyone = TokenBucket(self._limits.rate_in_all, now)
        accounts = (side, source, self._everyone)
        if not all(account.holds(now, octets) for account in accounts):
            return Over.RATE
        for account in accounts:
            account.take(now, octets)
        self._used[mailbox] = (since, used + octets)
        return None

    @property
    def remembered(self) -> int:
        """How many mailboxes' use is remembered."""
        return len(self._used)

    def _make_room(self, now: float) -> None:
        """Where many are remembered, forget yesterday's, then those that have used the least.

        Anybody can make mailboxes, and a frame is enough for each. So they neither keep others out nor push out the
        account of one that has used much: those that are forgiven have the least to be forgiven.
        """
        kept = self._limits.volumes_kept
        if len(self._used) < kept:
            return
        self._used = {m: account for m, account in self._used.items() if now - account[0] < REMEMBERED_FOR}
        if len(self._used) >= kept:
            most = sorted(self._used.items(), key=lambda item: item[1][1], reverse=True)
            self._used = dict(most[: kept * 3 // 4])
