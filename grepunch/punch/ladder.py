"""The TTL ladder: how far a lead packet must go to pass our outermost NAT without reaching the peer's.

A router that lets a packet die answers Time-Exceeded and so shows where it stands: with an address inside our
NATs, the packet opened nothing outside and the next rung is tried at once; with one outside, the packet has
passed them all. The routers on the way do not depend on the form, so one ladder serves all forms of a target.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address

from grepunch.punch.candidate import is_public

# ours, because a TTL of 1 never leaves the first NAT, and more than four NATs in a row are unheard of
RUNGS = (2, 3, 4, 6)

# ours, because without any answer a TTL of 3 passes two NATs, and with a rendezvous both start together, so that it may
# reach the NAT of a near peer. Without one it may not: there the peer's NAT stays poisoned for as long as such packets
# keep coming (measured with 4: two sides that started half a second apart had not met after 180 s).
SILENT_LIMIT_RENDEZVOUS = 3
SILENT_LIMIT_ALONE = 2

RESERVED_HOPS = 2  # ours, because the last two hops are the peer and its NAT

_INITIAL_TTLS = (64, 128, 255)  # what systems start with


class Verdict(Enum):
    """What a Time-Exceeded showed."""

    INSIDE = "inside"  # still inside our NATs: the ladder has climbed, send again at once
    BEYOND = "beyond"  # our outermost NAT has been passed
    NOTHING_NEW = "nothing_new"


class Ladder:
    """The climb for one target. ``ttl`` is what the next lead packet gets; None: no TTL is safe, send none."""

    __slots__ = ("_answered", "_ceiling", "_inside", "_limit", "_own_external", "_rung", "beyond")

    def __init__(self, own_external: IPv4Address | None, *, rendezvous: bool) -> None:
        self._own_external = own_external
        self._limit = SILENT_LIMIT_RENDEZVOUS if rendezvous else SILENT_LIMIT_ALONE
        self._rung = 0
        self._ceiling = RUNGS[-1]
        self._inside: set[IPv4Address] = set()
        self._answered = False
        self.beyond: IPv4Address | None = None

    @property
    def ttl(self) -> int | None:
        """TTL of the next lead packet."""
        ttl = min(RUNGS[self._rung], self._ceiling)
        return ttl if ttl >= RUNGS[0] else None

    def time_exceeded(self, reporter: IPv4Address | None) -> Verdict:
        """A router let a packet to this target die."""
        self._answered = True
        if reporter is None:
            return Verdict.NOTHING_NEW
        if is_public(reporter) and reporter != self._own_external:
            self.beyond = self.beyond or reporter
            return Verdict.BEYOND
        # The same router again answered an older or repeated packet: one router stands on one rung.
        if self.beyond is not None or reporter in self._inside or self._rung + 1 == len(RUNGS):
            return Verdict.NOTHING_NEW
        self._inside.add(reporter)
        self._rung += 1
        return Verdict.INSIDE

    def sent(self) -> None:
        """A lead packet went out: from now on its answer is awaited."""
        self._answered = False

    def silent(self) -> None:
        """The wait for an answer is over: climb if none came, as far as is safe without one."""
        if self._answered or self.beyond is not None:
            return
        if self._rung + 1 < len(RUNGS) and RUNGS[self._rung + 1] <= self._limit:
            self._rung += 1

    def heard_with(self, ttl: int) -> None:
        """A probe of the peer arrived with this TTL (0: not known), so the peer is this many hops away."""
        if ttl:
            hops = next(initial for initial in _INITIAL_TTLS if ttl <= initial) - ttl + 1
            self._ceiling = min(self._ceiling, hops - RESERVED_HOPS)
