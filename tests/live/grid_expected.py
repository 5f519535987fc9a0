"""What each pair of NAT classes must come to, written by hand from how the classes treat GRE; never from a run.

Every class below passes both v0 and v1 with Call ID 0 once both sides have sent: G0 filters by state, G1 and G1L are
keyed by the pair of addresses, G2, G2S and G13 are netfilter without a helper, G15 is two of them in a chain. Only
G4 drops GRE. v1 is preferred wherever it passes, so it is the form that must win.
"""

from __future__ import annotations

from grepunch.ports import Form

PASSING = ("G0", "G1", "G1L", "G2", "G2S", "G13", "G15")
BLOCKED = ("G4",)
CLASSES = (*PASSING, *BLOCKED)

# NATs that accept strays on their own input: without a rendezvous to start together they may poison each other
POISONABLE = ("G13",)

# seconds within which both must be up
LIMIT_WITH_RENDEZVOUS = 10.0  # of one run; the distribution is judged by its p50 and p99
LIMIT_ALONE = 90.0
LIMIT_ALONE_POISONABLE = 180.0

P50_LIMIT = 1.0
P99_LIMIT = 3.0


def expected_result(nat_a: str, nat_b: str) -> str:
    """``up`` or the verdict of the dialling side."""
    return "nat_blocked" if {nat_a, nat_b} & set(BLOCKED) else "up"


def expected_form(nat_a: str, nat_b: str) -> str | None:
    """The form that must win; None where nothing can."""
    return None if expected_result(nat_a, nat_b) != "up" else str(Form.V1)


def limit(nat_a: str, nat_b: str, *, rendezvous: bool) -> float:
    """Seconds from both being started to both being up."""
    if rendezvous:
        return LIMIT_WITH_RENDEZVOUS
    return LIMIT_ALONE_POISONABLE if {nat_a, nat_b} & set(POISONABLE) else LIMIT_ALONE
