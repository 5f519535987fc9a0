"""What the tools print and the kernel shows, as numbers. Nothing here runs anything."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

UDP_PAYLOAD = 64  # octets
LOSS_LIMIT = 0.01
# ours, because a sender that cannot offer what it was asked to is itself the limit
OFFERED_ENOUGH = 0.95
SEARCH_FACTOR = 1.4
SEARCH_REFINEMENTS = 2  # halvings, in the logarithm, of the last step: a resolution of 9 %
SEARCH_FLOOR = 1000.0  # packets a second
SEARCH_CEILING = 4e6


class LoadFailed(RuntimeError):
    """A load did not come to its end; the text has what its program said."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A TCP transfer: octets that arrived and their rate, one way (and the other, where both ran at once)."""

    octets: int
    mbit_s: float
    back_octets: int = 0
    back_mbit_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Volley:
    """One probe with small packets, as the receiver counted: rates in packets a second, loss as a share."""

    offered: float
    received: float
    loss: float

    def passes(self, asked: float) -> bool:
        """Whether what was asked for was offered and arrived."""
        return self.loss <= LOSS_LIMIT and self.offered >= OFFERED_ENOUGH * asked


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Round-trip times in milliseconds, of those packets that came back."""

    sent: int
    times: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median; raises :class:`LoadFailed` when nothing came back."""
        if not self.times:
            raise LoadFailed(f"none of {self.sent} pings came back")
        return percentile(self.times, 0.5)

    @property
    def p95(self) -> float:
        """The time that 95 % keep within."""
        return percentile(self.times, 0.95)


def percentile(values: Sequence[float], share: float) -> float:
    """The value at this share of the sorted values, between two of them by proportion."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _end_of(report: str) -> dict[str, Any]:
    try:
        value = json.loads(report)
    except ValueError:
        raise LoadFailed(f"iperf3 printed no report: {report[:200]!r}") from None
    if "error" in value:
        raise LoadFailed(f"iperf3: {value['error']}")
    end: dict[str, Any] = value.get("end") or {}
    if not end:
        raise LoadFailed("iperf3's report has no end")
    return end


def parse_transfer(report: str) -> Transfer:
    """iperf3's JSON of a TCP test. Raises :class:`LoadFailed`."""
    end = _end_of(report)
    there, back = end["sum_received"], end.get("sum_received_bidir_reverse")
    if back is None:
        return Transfer(there["bytes"], there["bits_per_second"] / 1e6)
    return Transfer(there["bytes"], there["bits_per_second"] / 1e6, back["bytes"], back["bits_per_second"] / 1e6)


def parse_volley(report: str) -> Volley:
    """iperf3's JSON of a UDP test with packets of :data:`UDP_PAYLOAD`. Raises :class:`LoadFailed`."""
    end = _end_of(report)
    total, sent, received = end["sum"], end["sum_sent"], end["sum_received"]
    arrived = received["bytes"] / UDP_PAYLOAD
    return Volley(
        offered=sent["packets"] / sent["seconds"],
        received=arrived / received["seconds"] if received["seconds"] else 0.0,
        loss=total["lost_packets"] / total["packets"] if arrived and total["packets"] else 1.0,
    )


def parse_ping(text: str) -> RoundTrips:
    """What ping(8) printed. Raises :class:`LoadFailed` where it has no summary."""
    summary = re.search(r"(\d+) packets transmitted", text)
    if summary is None:
        raise LoadFailed(f"ping ended without a summary: {text[-200:]!r}")
    return RoundTrips(int(summary.group(1)), tuple(float(time) for time in re.findall(r"time=([\d.]+)", text)))


def parse_cpu_ticks(stat: str) -> tuple[int, int]:
    """User and system clock ticks of /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return int(fields[11]), int(fields[12])


def parse_resident(status: str) -> int:
    """Octets of resident memory in /proc/PID/status."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise ValueError("the process has no memory any more")
    return int(found.group(1)) * 1024


def search_rate(probe: Callable[[float], Volley], start: float) -> float:
    """The highest rate, in packets a second, that arrives with a loss of at most :data:`LOSS_LIMIT`.

    Rates go up by :data:`SEARCH_FACTOR` while they pass (down until one does), then the last step is refined. A rate
    has failed when it did so twice: one hiccup of the machine says nothing. 0 where nothing passes.
    """

    def best_of_two(rate: float) -> tuple[bool, float, bool]:
        for _ in range(2):
            volley = probe(rate)
            if volley.passes(rate):
                return True, volley.received, False
            if volley.loss <= LOSS_LIMIT:
                return True, volley.received, True
        return False, 0.0, False

    rate, best = start, 0.0
    while not best:
        passed, received, exhausted = best_of_two(rate)
        if exhausted:
            return received
        if passed:
            best = received
        elif rate < SEARCH_FLOOR:
            return 0.0
        else:
            rate /= SEARCH_FACTOR
    went_down = rate < start
    below, above = rate, rate * SEARCH_FACTOR
    while not went_down and above < SEARCH_CEILING:
        passed, received, exhausted = best_of_two(above)
        if exhausted:
            return max(best, received)
        if not passed:
            break
        best = received
        below, above = above, above * SEARCH_FACTOR
    for _ in range(SEARCH_REFINEMENTS):
        middle = math.sqrt(below * above)
        passed, received, exhausted = best_of_two(middle)
        if exhausted:
            return max(best, received)
        if passed:
            below, best = middle, received
        else:
            above = middle
    return best
