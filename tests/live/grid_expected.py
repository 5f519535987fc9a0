"""What each pair of NAT classes must come to, written by hand from how the classes treat GRE; never from a run.

======  ================================================  ==========================
class   what it does with GRE                             what gets through
======  ================================================  ==========================
G0      lets in what answers something                    v1-0/0, v0
G1 G1L  keyed by the pair of addresses, Call ID ignored   any form
G2 G2S  netfilter: a flow is (source, destination, key),  v1-0/0, v0: their key is 0
G3 G13  and the key of v1 is its Call ID, one way only    in both directions
G12     the same, which forgets it in 5 and 30 s          v1-0/0, v0
G15     a G2S behind a G2                                 v1-0/0, v0
G16     a G2 before a narrow link that says nothing       v1-0/0, v0
G19     a G2 that restarts once all is up, and comes      v1-0/0, v0; and again
        back under another address
G7V0    drops version 0                                   v1-0/0
G7V1    drops version 1                                   v0
G7K     drops version 1 with a Call ID other than 0       v1-0/0, v0
G9      GRE leaves from another address than TCP          v1-0/0, v0, where the peer
                                                          knows that address
G4 G4R  drops GRE; refuses GRE                            nothing
G5      admits GRE only as part of a PPTP session seen    v1-0/0, v0 within one
G5K     the same, and of an outgoing call only            v1-1723/1723 within one
G6      lets GRE out with the host's private address      nothing
======  ================================================  ==========================

What a G19 has let through it lets through again, for whoever meets again: the rendezvous tells each the other's new
address. Without one nobody does, and no G19 restarts. Nor does one opposite a G13: what its host still sends, before it
knows of its new address, occupies the slot there for half a minute, and `dial` without the relay gives up before that.

Of the forms that pass on both sides v1-0/0 is preferred. Where none does, the verdict says so, and where: side "here"
is that of `dial`, b. Without a rendezvous `dial` has no word of the peer; silence alone is then "peer absent".

The mirrored handshake wants NATs that keep the port of TCP, and through which GRE comes from the address that TCP comes
from. Its GRE is the call's own, with Call ID 0 both ways, which to netfilter is the same flow as version 0. A NAT whose
own input answers a stray SYN with a refusal costs another try. Where none of this helps, the call is an outgoing one,
with the TCP port for its Call ID: netfilter passes its GRE where a helper has seen the call, else one way only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from grepunch.ports import Form, form_name
from pptp.wire.control import TCP_PORT

# 1: v1-0/0 wins; 0: v0 does; e, f: the same once a GRE echo has told where GRE comes from; m, n: v1-0/0 or v0 in
# the call of the mirrored handshake, k: v1-1723/1723 in its outgoing form; -: nothing passes
_MATRIX = """
      G0 G1 G1L G2 G2S G13 G15 G12 G16 G19 G3 G7V0 G7V1 G7K G9 G4 G4R G5 G6 G5K
G0    1  1  1   1  1   1   1   1   1   1   1  1    0    1   e  -  -   m  -  -
G1       1  1   1  1   1   1   1   1   1   1  1    0    1   e  -  -   m  -  k
G1L         1   1  1   1   1   1   1   1   1  1    0    1   e  -  -   m  -  k
G2              1  1   1   1   1   1   1   1  1    0    1   e  -  -   m  -  -
G2S                1   1   1   1   1   1   1  1    0    1   e  -  -   -  -  -
G13                    1   1   1   1   1   1  1    0    1   e  -  -   m  -  -
G15                        1   1   1   1   1  1    0    1   e  -  -   -  -  -
G12                            1   1   1   1  1    0    1   e  -  -   m  -  -
G16                                1   1   1  1    0    1   e  -  -   m  -  -
G19                                    1   1  1    0    1   e  -  -   m  -  -
G3                                         1  1    0    1   e  -  -   m  -  k
G7V0                                          1    -    1   e  -  -   m  -  -
G7V1                                               0    0   f  -  -   n  -  -
G7K                                                     1   e  -  -   m  -  -
G9                                                          e  -  -   -  -  -
G4                                                             -  -   -  -  -
G4R                                                               -   -  -  -
G5                                                                    m  -  k
G6                                                                       -  -
G5K                                                                         k
"""
CLASSES = tuple(_MATRIX.split("\n")[1].split())
DEFAULT_CLASSES = tuple(name for name in CLASSES if name != "G4R")

# NATs that accept strays on their own input: without a rendezvous to start together, one peer may occupy there the
# slot that the other needs
POISONABLE = ("G13",)
CLOSED = ("G4", "G4R", "G5", "G5K", "G6")  # nothing passes them, in neither direction

# Pairs (a, b) of which `dial` on b sees without any help that its own side is to blame: a router inside refuses all
# of GRE, or one form is seen outside and the other never is.
_BLAMED_ALONE = {(a, "G4R") for a in CLASSES} | {("G7V0", "G7V1"), ("G7V1", "G7V0")}

# Seconds within which both must be up.
LIMIT_WITH_RENDEZVOUS = 10.0  # of one run; the distribution is judged by its p50 and p99
LIMIT_ALONE = 30.0  # the first window, which the other's overlaps
LIMIT_ALONE_POISONABLE = 180.0
RESTARTING = ("G19",)
LIMIT_BACK = 10.0  # until the tunnel carries again, from when a NAT has restarted under another address

P50_LIMIT = 1.0
P99_LIMIT = 3.0
ENOUGH_RUNS = 100  # for p99 to mean anything


class Way(Enum):
    """What there may be besides punching towards the address that the rendezvous has seen."""

    ECHO = "echo"  # a GRE echo tells each side where its GRE comes from
    MIRRORED = "mirrored"  # PPTP between the two over TCP 1723, for NATs to see
    RELAY = "relay"  # frames through the rendezvous


ABLE = frozenset(Way)  # what a rendezvous makes possible
RELAYED = "relay"  # what then stands for the form

_FORMS: dict[str, tuple[str, Way | None]] = {
    "1": (Form.V1, None),
    "0": (Form.V0, None),
    "e": (Form.V1, Way.ECHO),
    "f": (Form.V0, Way.ECHO),
    "m": (Form.V1, Way.MIRRORED),
    "n": (Form.V0, Way.MIRRORED),
    "k": (form_name(Form.V1, (TCP_PORT, TCP_PORT)), Way.MIRRORED),
}


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a cell must come to.

    Where it comes up: the form, and within how many seconds; where a NAT then restarts, also within how many seconds it
    is ``back`` (0: none does). Where it does not: the direction in which GRE dies, and
    on which side where one alone is to blame (empty: that is not asked for).
    """

    result: str
    form: str = ""
    limit: float = 0.0
    direction: str = ""
    side: str = ""
    back: float = 0.0

    def __str__(self) -> str:
        if self.form:
            again = f", back in {self.back:.0f} s" if self.back else ""
            return f"{self.result}, {self.form}, {self.limit:.0f} s{again}"
        return f"{self.result}, {self.direction}" + (f", {self.side}" if self.side else "")


def _cells() -> dict[tuple[str, str], str]:
    cells = {}
    for line in _MATRIX.split("\n")[2:-1]:
        name, *outcomes = line.split()
        row = CLASSES[len(CLASSES) - len(outcomes) :]
        if name != row[0]:
            raise ValueError(f"the row of {name} has {len(outcomes)} cells")
        for other, outcome in zip(row, outcomes, strict=True):
            cells[name, other] = cells[other, name] = outcome
    return cells


_CELLS = _cells()


def expected(nat_a: str, nat_b: str, *, rendezvous: bool, able: Collection[Way] = ABLE) -> Expectation:
    """The outcome of `serve` behind ``nat_a`` and `dial` behind ``nat_b``; all but punching needs a rendezvous."""
    form, way = _FORMS.get(_CELLS[nat_a, nat_b], (None, Way.RELAY))
    ways = able if rendezvous else ()
    restarts = rendezvous and {nat_a, nat_b} & set(RESTARTING) and not {nat_a, nat_b} & set(POISONABLE)
    back = LIMIT_BACK if restarts else 0.0
    if form is not None and (way is None or way in ways):
        return Expectation("up", str(form), _limit(nat_a, nat_b, rendezvous=rendezvous), back=back)
    if Way.RELAY in ways:
        return Expectation("up", RELAYED, LIMIT_WITH_RENDEZVOUS, back=back)
    if not rendezvous:
        return Expectation("nat_blocked" if (nat_a, nat_b) in _BLAMED_ALONE else "peer_absent", direction="both")
    to_blame = [side for side, nat in (("peer", nat_a), ("here", nat_b)) if nat in CLOSED]
    return Expectation("nat_blocked", direction="both", side=to_blame[0] if len(to_blame) == 1 else "")


def _limit(nat_a: str, nat_b: str, *, rendezvous: bool) -> float:
    if rendezvous:
        return LIMIT_WITH_RENDEZVOUS
    return LIMIT_ALONE_POISONABLE if {nat_a, nat_b} & set(POISONABLE) else LIMIT_ALONE
