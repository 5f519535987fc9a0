"""The punch plan: when to start, what to send when, how much at most, and which proven path to take.

Everything here is arithmetic. A NAT that accepts strays on its own input makes a local flow of a probe that comes
too early, with the very tuple its own host needs, and drops that host's probes for as long as the strays keep
coming. So both sides start together and lead with packets whose TTL ends between the two NATs: these open the
sender's NAT and never reach the other. Only then follow probes of full TTL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Self

from grepunch.ports import Form
from pptp.value import value

# ours, because the proposal and its acknowledgement need one round trip each way through the rendezvous, and
# 300 ms is what two event loops and one lost packet's retransmission cost
START_ROUND_TRIPS = 2
START_MARGIN = 0.3
START_LIMIT = 5.0  # ours, because a start further away is a broken clock or an attempt to keep us busy

# ours, because a first router answers within 100 ms, and NATs count a flow as new for seconds
LEAD_INTERVAL = 0.2
LEAD_PACKETS_SYNCHRONISED = 3  # enough when the other side surely starts within one interval
LEAD_PACKETS = 8
SURE_SKEW = 0.2

# ours, because two forms then send (15 + 13) * 2 = 56 packets in 30 s, which leaves the budget something for calls
# (see :mod:`grepunch.peer.mirror`), and both together are no more than anybody may get. The first of full TTL
# may be the very first of all, when the peer's "open" came early, and what it opens must not hang on one packet
# that is lost: two more follow it closely.
FULL_OPENING_INTERVAL = 0.05
FULL_OPENING_PACKETS = 3
FULL_INTERVAL = 0.2
FULL_FAST_PACKETS = 15  # about 3 s
FULL_SLOW_INTERVAL = 2.1
WINDOW = 30.0

# ours, because Linux keeps an unreplied GRE flow for 30 s, and some families for 60 s
SILENCE = 35.0
SILENCE_LONG_TIMERS = 65.0

# ours, because nothing synchronises two sides without a rendezvous: every gap outlasts the 30 s (60 s) timer of a
# poisoned NAT, and being random the gaps of two sides do not stay in step
SPARSE_INTERVAL = 4.0
BURST_GAPS = (40.0, 80.0)
BURST_GAPS_LONG_TIMERS = (70.0, 140.0)

# ours, because a NAT that took the peer's packets for its own keeps our place in it occupied for 30 s after the last of
# them (Linux's timer of an unreplied flow), and the first of ours to leave again may be a slow interval late
OCCUPIED = 35.0

# ours, because a rendezvous or a replayed probe must not make us a nuisance to a third party
BUDGET_PACKETS = 64
PROVEN_BUDGET_PACKETS = 2 * BUDGET_PACKETS  # who has answered is none, and may be lost again as soon as it is found
BUDGET_PERIOD = 30.0
BUDGET_HOURLY_PACKETS = 256
HOUR = 3600.0
BUDGET_MAX_TARGETS = 64

NOMINATION_WAIT = 0.06  # ours, because the preferred form is rarely more than a few ms behind the other

# ours: what worked last time has so long before full TTL goes out in the other forms too (six packets of its own), or
# in any, where it worked once both NATs had seen a PPTP call, which takes a handful of round trips
FORM_FIRST = 0.4
CALL_FIRST = 1.0


def propose_start(server_now: float, own_rtt: float, peer_rtt: float) -> float:
    """The common start T*, in seconds on the rendezvous' clock.

    ``own_rtt`` and ``peer_rtt`` are each side's round trip to the rendezvous; the later side rules, but what it says
    of itself puts the start off by no more than is accepted of others.
    """
    return server_now + min(START_ROUND_TRIPS * max(own_rtt, peer_rtt) + START_MARGIN, START_LIMIT)


def acceptable_start(start: float, server_now: float) -> bool:
    """Whether a proposed start is near enough to be agreed to; one just missed still is."""
    return abs(start - server_now) <= START_LIMIT


@value
class Schedule:
    """How one attempt spends its time.

    With a rendezvous there is one window, then ``silence``, then a new attempt at a new common start. Without
    one, the window is followed by sparse TTL-limited packets, broken by bursts at random gaps, until stopped.
    """

    rendezvous: bool
    lead_packets: int
    silence: float
    burst_gaps: tuple[float, float]
    window: float = WINDOW

    @classmethod
    def with_rendezvous(cls, clock_error: float, *, long_timers: bool = False, window: float = WINDOW) -> Self:
        """For a common start known to ``clock_error`` seconds (both sides' errors added)."""
        lead = LEAD_PACKETS_SYNCHRONISED if clock_error < SURE_SKEW else LEAD_PACKETS
        return cls(True, lead, *_timers(long_timers), window)

    @classmethod
    def alone(cls, *, long_timers: bool = False, window: float = WINDOW) -> Self:
        """For two sides that only know each other's last address."""
        return cls(False, LEAD_PACKETS, *_timers(long_timers), window)

    def burst_gap(self, entropy: Callable[[int], bytes]) -> float:
        """A random gap between two bursts."""
        low, high = self.burst_gaps
        return low + (high - low) * int.from_bytes(entropy(4), "big") / (1 << 32)


def _timers(long_timers: bool) -> tuple[float, tuple[float, float]]:
    return (SILENCE_LONG_TIMERS, BURST_GAPS_LONG_TIMERS) if long_timers else (SILENCE, BURST_GAPS)


def full_interval(packets_sent: int) -> float:
    """Seconds to the next packet of full TTL after the first ``packets_sent`` of a form."""
    if packets_sent < FULL_OPENING_PACKETS:
        return FULL_OPENING_INTERVAL
    return FULL_INTERVAL if packets_sent < FULL_FAST_PACKETS else FULL_SLOW_INTERVAL


def _times() -> deque[float]:
    return deque(maxlen=BUDGET_HOURLY_PACKETS)


@dataclass(slots=True)
class _Spent:
    full: deque[float] = field(default_factory=_times)
    lead: deque[float] = field(default_factory=_times)
    proven_at: float | None = None


class Budget:
    """How many packets each target still may get; one object per peer, outliving its attempts.

    64 in any 30 s and 256 in any hour for each target; a proof doubles the one and lifts the other for an hour. Lead
    packets, whose TTL ends before the target, have as much again of their own: routers on the way get those.

    Deviation: the user's own configured address keeps the 30 s limit but not the hourly one. The budget is there
    so that nobody on the network can aim us at a third party, and this address came from no network; with the
    hourly limit a side without a rendezvous would fall silent after a few minutes and never meet a late peer.
    """

    __slots__ = ("_spent",)

    def __init__(self) -> None:
        self._spent: dict[IPv4Address, _Spent] = {}

    def spend(self, target: IPv4Address, now: float, *, hourly: bool, lead: bool = False, packets: int = 1) -> bool:
        """Take ``packets`` for ``target``, or none and say False. ``hourly`` is off for a configured one."""
        spent = self._spent.get(target)
        if spent is None:
            if len(self._spent) >= BUDGET_MAX_TARGETS and not self._forget_idle(now):
                return False
            spent = self._spent[target] = _Spent()
        times = spent.lead if lead else spent.full
        proven = spent.proven_at is not None and now - spent.proven_at < HOUR
        others = (PROVEN_BUDGET_PACKETS if proven else BUDGET_PACKETS) - packets  # in the period
        if len(times) > others and now - times[-others - 1] < BUDGET_PERIOD:
            return False
        over = len(times) + packets - BUDGET_HOURLY_PACKETS
        if hourly and over > 0 and now - times[over - 1] < HOUR and not proven:
            return False
        times.extend([now] * packets)
        return True

    def prove(self, target: IPv4Address, now: float) -> None:
        """The peer has answered from ``target``: it is no third party."""
        spent = self._spent.get(target)
        if spent is not None:
            spent.proven_at = now

    def _forget_idle(self, now: float) -> bool:
        idle = [
            target
            for target, spent in self._spent.items()
            if all(not times or now - times[-1] >= HOUR for times in (spent.full, spent.lead))
        ]
        for target in idle:
            del self._spent[target]
        return bool(idle)


@value
class Proven:
    """Event: ``address`` answered in ``form`` what we sent to it in that form. ``rtt`` in seconds, if measured."""

    address: IPv4Address
    form: Form
    rtt: float | None


def nominate(proven: Sequence[Proven], waited: float, preferred_form: Form = Form.V1) -> Proven | None:
    """The path to take among those proven so far, ``waited`` seconds after the first proof; None: wait on.

    The first that came in the preferred form (v1, or what won the last time) wins at once; another only when that
    form has had its 60 ms.
    """
    preferred = next((path for path in proven if path.form is preferred_form), None)
    if preferred is not None or not proven or waited < NOMINATION_WAIT:
        return preferred
    return proven[0]
