"""From what each round measured to medians, ratios, spreads, and what they were to be. Nothing here runs anything.

A *round* is a mapping of contender to figure to value; what could not be measured is absent. Ratios are taken within a
round, where both contenders met the same machine in the same minutes, and then their median.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Round = Mapping[str, Mapping[str, float]]

TCP_FIGURES = ("tcp1_fwd", "tcp1_rev", "tcp4_fwd", "tcp4_rev")


@dataclass(frozen=True, slots=True)
class Figure:
    """A column: its key in JSON, its heading, its unit, how many decimals are worth printing."""

    key: str
    heading: str
    unit: str
    decimals: int = 0


FIGURES = (
    Figure("tcp1_fwd", "TCP 1 fwd", "Mbit/s"),
    Figure("tcp1_rev", "TCP 1 rev", "Mbit/s"),
    Figure("tcp4_fwd", "TCP 4 fwd", "Mbit/s"),
    Figure("tcp4_rev", "TCP 4 rev", "Mbit/s"),
    Figure("both", "both ways", "Mbit/s"),
    Figure("udp64", "UDP 64 B", "kpps", 1),
    Figure("ping_idle", "ping idle", "ms", 3),
    Figure("ping_loaded", "ping loaded", "ms", 2),
    Figure("loss_0.1", "loss 0.1 %", "Mbit/s"),
    Figure("loss_1", "loss 1 %", "Mbit/s"),
    Figure("nat_fwd", "NATs fwd", "Mbit/s"),
    Figure("nat_rev", "NATs rev", "Mbit/s"),
    Figure("direct_fwd", "no NATs fwd", "Mbit/s"),
    Figure("direct_rev", "no NATs rev", "Mbit/s"),
    Figure("cpu_per_gb", "CPU", "s/GB", 2),
    Figure("setup", "set-up", "s", 2),
    Figure("ready", "ready", "s", 2),
    Figure("rss", "RSS", "MB", 1),
    Figure("idle_cpu", "idle CPU", "%", 2),
    Figure("inner_mtu", "inner MTU", "octets"),
    Figure("fragments", "fragments", ""),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """The median of some values and how far they lie apart."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """Half the distance from lowest to highest, as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def summary(values: Iterable[float]) -> Summary | None:
    """Of no values, None."""
    known = sorted(values)
    return Summary(statistics.median(known), known[0], known[-1], len(known)) if known else None


def values_of(rounds: Sequence[Round], contender: str, key: str) -> list[float]:
    """What the rounds have of one figure of one contender."""
    return [one[contender][key] for one in rounds if key in one.get(contender, {})]


def ratios(rounds: Sequence[Round], one: str, other: str, keys: Sequence[str]) -> list[float]:
    """``one`` divided by ``other`` in every round and figure that has both."""
    found = []
    for measured in rounds:
        mine, theirs = measured.get(one, {}), measured.get(other, {})
        found += [mine[key] / theirs[key] for key in keys if key in mine and theirs.get(key)]
    return found


def share_of_direct(rounds: Sequence[Round], contender: str, through: str, direct: str) -> list[float]:
    """A figure of one contender divided by another of its own figures, round by round."""
    measured = [one.get(contender, {}) for one in rounds]
    return [own[through] / own[direct] for own in measured if through in own and own.get(direct)]


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that the product is to reach. ``must`` and ``aim`` are bounds from below, or above if ``at_most``."""

    label: str
    measure: Callable[[Sequence[Round]], list[float]]
    must: float
    aim: float
    at_most: bool = False
    unit: str = "x"

    def verdict(self, value: float) -> str:
        """``aim``, ``must`` or ``missed``: the best that holds."""

        def holds(bound: float) -> bool:
            return value <= bound if self.at_most else value >= bound

        return "aim" if holds(self.aim) else "must" if holds(self.must) else "missed"


def _against(one: str, other: str, *keys: str) -> Callable[[Sequence[Round]], list[float]]:
    return lambda rounds: ratios(rounds, one, other, keys)


def _of_direct(through: str, direct: str) -> Callable[[Sequence[Round]], list[float]]:
    return lambda rounds: share_of_direct(rounds, "ours", through, direct)


def _plain(key: str) -> Callable[[Sequence[Round]], list[float]]:
    return lambda rounds: values_of(rounds, "ours", key)


TARGETS = (
    Target("TCP x OpenVPN", _against("ours", "openvpn", *TCP_FIGURES), 1.5, 2.0),
    Target("TCP x wireguard-go", _against("ours", "wireguard-go", *TCP_FIGURES), 2.8, 4.0),
    Target("TCP x Nebula", _against("ours", "nebula", *TCP_FIGURES), 1.8, 2.5),
    Target("TCP x EasyTier", _against("ours", "easytier", *TCP_FIGURES), 1.8, 2.5),
    Target("TCP x the original's way", _against("ours", "original", *TCP_FIGURES), 2.2, 3.0),
    Target("TCP, ChaCha20 x OpenVPN AES", _against("ours-chacha", "openvpn", *TCP_FIGURES), 1.1, 1.5),
    Target("TCP, MPPE-128 x OpenVPN AES", _against("ours-mppe", "openvpn", *TCP_FIGURES), 0.25, 0.4),
    Target("UDP 64 B x OpenVPN", _against("ours", "openvpn", "udp64"), 0.9, 1.5),
    Target("ping idle x OpenVPN", _against("ours", "openvpn", "ping_idle"), 1.5, 1.0, at_most=True),
    Target("ping loaded x OpenVPN", _against("ours", "openvpn", "ping_loaded"), 2.0, 0.7, at_most=True),
    Target("both ways x OpenVPN", _against("ours", "openvpn", "both"), 1.5, 2.0),
    Target("loss 0.1 % x OpenVPN", _against("ours", "openvpn", "loss_0.1"), 1.0, 1.5),
    Target("loss 1 % x OpenVPN", _against("ours", "openvpn", "loss_1"), 0.8, 1.2),
    Target("two NATs, of direct, fwd", _of_direct("nat_fwd", "direct_fwd"), 0.8, 0.95),
    Target("two NATs, of direct, rev", _of_direct("nat_rev", "direct_rev"), 0.8, 0.95),
    Target("start to ready", _plain("ready"), 0.5, 0.3, at_most=True, unit="s"),
    Target("RSS with one session", _plain("rss"), 75.0, 50.0, at_most=True, unit="MB"),
    Target("idle CPU", _plain("idle_cpu"), 0.5, 0.0, at_most=True, unit="%"),
)

# The measure itself: the original's way is known to reach this share of OpenVPN.
ORIGINAL_SHARE = 0.68
ORIGINAL_TOLERANCE = 0.15


def original_share(rounds: Sequence[Round]) -> Summary | None:
    """What the original's way reaches of OpenVPN, over the four TCP figures."""
    return summary(ratios(rounds, "original", "openvpn", TCP_FIGURES))
