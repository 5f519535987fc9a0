"""Random mixes of NAT rules, and what each must look like to a probe, reasoned from the rules and never from a run.

    make mixes                        50 of them, a line each
    make mixes ARGS="100 50"          50 more, from seed 100 on

Netfilter keys GRE by (source, destination, key); the key of version 0 is 0 both ways, that of version 1 is the Call
ID one way and 0 the other, unless a PPTP helper has seen a call. So version 0 and Call ID 0 pass as one flow each and
other Call IDs do not come back; a NAT keyed by addresses alone passes all. A filter takes away what it names. A pool
sends GRE from another address, which the server sees and does not answer, so what would pass there is "not tested"; but
the flow of a call goes as its control connection goes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from grepunch.lab.nat import G0, G1, G2, G2S, Hook, NatClass
from grepunch.probing import SIZES

BASES = {"netfilter": G2, "random": G2S, "pair": G1, "firewall": G0}
FILTERS = {
    "no_v0": "ip protocol gre @th,13,3 0 drop",
    "no_v1": "ip protocol gre @th,13,3 1 drop",
    "no_call_id": "ip protocol gre @th,13,3 1 @th,48,16 != 0 drop",
    "no_out": 'iifname "lan" ip protocol gre drop',
    "no_in": 'iifname "wan" ip protocol gre drop',
    "related_only": "ip protocol gre ct state new drop",
    "no_pptp": "tcp dport 1723 drop",
}
CHANCES = {
    "no_v0": 0.2, "no_v1": 0.15, "no_call_id": 0.2, "no_out": 0.06, "no_in": 0.06, "related_only": 0.2, "no_pptp": 0.15,
}  # fmt: skip
HELPER = ('ct helper pptp_helper { type "pptp" protocol tcp; }', 'tcp dport 1723 ct helper set "pptp_helper"')
POOL = 'oifname "wan" ip protocol gre snat to $SECOND'
MTUS = (1500, 1500, 1500, 1400, 1300)


@dataclass(frozen=True)
class Mix:
    """One box. ``filters`` are names of :data:`FILTERS`."""

    base: str
    filters: frozenset[str]
    helper: bool
    pooled: bool
    mtu: int

    @classmethod
    def draw(cls, seed: int) -> Mix:
        """The mix of a seed."""
        rng = random.Random(f"nat mix {seed}")
        base = rng.choice(tuple(BASES))
        filters = {name for name, chance in CHANCES.items() if rng.random() < chance}
        helper, pooled = rng.random() < 0.5, rng.random() < 0.2
        tracks = base != "pair"  # such a box does not track GRE, so a state is nothing to it
        return cls(
            base,
            frozenset(filters if tracks else filters - {"related_only"}),
            helper and tracks,
            pooled and base in ("netfilter", "random"),
            rng.choice(MTUS),
        )

    @property
    def box(self) -> NatClass:
        """Its rules."""
        base = BASES[self.base]
        rules = {hook: tuple(lines) for hook, lines in base.rules.items()}
        named = tuple(FILTERS[name] for name in sorted(self.filters))
        rules[Hook.FORWARD] = (*named, *rules.get(Hook.FORWARD, ()))
        declarations = base.declarations
        if self.helper:
            declarations = (*declarations, HELPER[0])
            rules[Hook.PREROUTING] = (*rules.get(Hook.PREROUTING, ()), HELPER[1])
        if self.pooled:
            rules[Hook.POSTROUTING] = (POOL, *rules[Hook.POSTROUTING])
        return replace(base, name="mix", summary=str(self), rules=rules, declarations=declarations, pooled=self.pooled)

    # -- what a probe must say ------------------------------------------------------------------------------

    def _leaves(self, *more: str) -> bool:
        """Whether such GRE gets out where no call was made; ``more`` are the filters that name its form."""
        return not self.filters & {"no_out", "related_only", *more}

    def _passes(self, *more: str, comes_back: bool = True) -> bool | None:
        """Whether such GRE passes both ways, None where it cannot be known."""
        if not self._leaves(*more):
            return False
        if self.pooled:
            return None
        return comes_back and "no_in" not in self.filters

    def _called(self) -> bool | None:
        if "no_pptp" in self.filters:
            return None
        if self.helper:  # the call's flow is related to its control connection, and translated as that is
            return not self.filters & {"no_v1", "no_call_id", "no_out", "no_in"}
        return self._passes("no_v1", "no_call_id", comes_back=self.base == "pair")

    def expected(self) -> dict[str, Any]:
        """The fields of the report's JSON; absent is "not tested"."""
        blind = self.base == "pair"
        called = self._called()
        fields: dict[str, Any] = {
            "port_preserved": self.base != "random",
            "v0": self._passes("no_v0"),
            "v1_zero": self._passes("no_v1"),
            "v1_equal": self._passes("no_v1", "no_call_id", comes_back=blind),
            "v1_different": self._passes("no_v1", "no_call_id", comes_back=blind),
            "v1_called": called,
            "pptp_control": "no_pptp" not in self.filters,
            "call_id_rewritten": None if "no_pptp" in self.filters else self.helper and self.base != "firewall",
        }
        tried = [self._leaves("no_v0"), self._leaves("no_v1"), self._leaves("no_v1", "no_call_id")]
        fields["outward"] = any(tried) or bool(called) or (self._call_leaves() and called is False)
        passed = any(fields[key] for key in ("v0", "v1_zero", "v1_equal", "v1_different", "v1_called"))
        strayed = self.pooled and (any(tried) or (self._call_leaves() and not self.helper))
        fields["inward"] = True if passed else None if strayed or not fields["outward"] else False
        usable = fields["v1_zero"] or fields["v0"]
        fields["mtu"] = max(size for size in SIZES if size <= self.mtu) if usable else None
        return fields

    def _call_leaves(self) -> bool:
        """Whether GRE with the IDs of a call gets out."""
        if "no_pptp" in self.filters:
            return False
        named = {"no_v1", "no_call_id", "no_out"} | (set() if self.helper else {"related_only"})
        return not self.filters & named


def wrong(report: dict[str, Any], mix: Mix) -> dict[str, tuple[Any, Any]]:
    """Fields in which the report is not right: (reported, expected). "Not tested" is never wrong."""
    found = {}
    for key, value in mix.expected().items():
        said = report.get(key)
        if said is not None and said != value:
            found[key] = (said, value)
    return found


def untested(report: dict[str, Any], mix: Mix) -> list[str]:
    """Fields that the report leaves open, and could have said."""
    return [key for key, value in mix.expected().items() if value is not None and report.get(key) is None]
