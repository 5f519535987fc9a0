"""What an attempt showed, and what that says: which direction of which form died, and on whose side.

A side's :class:`PunchReport` is what the puncher counted. :meth:`PunchReport.summaries` shortens it to one
:class:`FormSummary` per form, small enough to send to the peer; :func:`diagnose` joins both sides' summaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from ipaddress import IPv4Address

from grepunch.ports import Form
from grepunch.punch.candidate import is_public
from pptp.value import value

# ours, because one lost packet or rate-limited router proves nothing
ENOUGH_SENT = 3


@value
class StreamReport:
    """What happened in one form towards one address. Counts are packets."""

    address: IPv4Address
    form: Form
    lead_sent: int = 0
    sent: int = 0  # full TTL
    withheld: int = 0  # not sent, for the budget
    heard: int = 0  # authentic probes
    heard_by_peer: int = 0  # of ours, as its latest probe here said
    proven: bool = False
    beyond: IPv4Address | None = None  # a router outside our NATs saw this form die by TTL
    inside: IPv4Address | None = None  # the last router inside our NATs that did
    unreachable: IPv4Address | None = None  # who refused the packets (host, network, administratively)
    protocol_unreachable: IPv4Address | None = None  # who refused GRE as such


@value
class FormSummary:
    """One side's experience with one form, over all addresses."""

    form: Form
    lead_sent: int
    sent: int
    heard: int
    heard_by_peer: int
    proven: bool
    left_own_side: bool  # a router outside our NATs has seen it
    refused_by_own_side: bool  # by a router inside our NATs
    refused_by_peer_side: bool  # by the very address it was sent to


@value
class PunchReport:
    """All streams of an attempt, and how long it lasted in seconds."""

    streams: tuple[StreamReport, ...]
    elapsed: float

    @property
    def withheld(self) -> int:
        """Packets that were due and not sent, for the budget."""
        return sum(stream.withheld for stream in self.streams)

    def summaries(self) -> tuple[FormSummary, ...]:
        """One summary for each form tried."""
        forms = dict.fromkeys(stream.form for stream in self.streams)
        return tuple(_summarise(form, [s for s in self.streams if s.form is form]) for form in forms)


def _summarise(form: Form, streams: Sequence[StreamReport]) -> FormSummary:
    refusers = [(s.address, who) for s in streams for who in (s.unreachable, s.protocol_unreachable) if who is not None]
    return FormSummary(
        form=form,
        lead_sent=sum(s.lead_sent for s in streams),
        sent=sum(s.sent for s in streams),
        heard=sum(s.heard for s in streams),
        heard_by_peer=sum(s.heard_by_peer for s in streams),
        proven=any(s.proven for s in streams),
        left_own_side=any(s.beyond is not None for s in streams),
        refused_by_own_side=any(who != address and not is_public(who) for address, who in refusers),
        refused_by_peer_side=any(who == address for address, who in refusers),
    )


class Direction(StrEnum):
    """Which of the two ways a finding is about."""

    OUTWARD = "outward"  # ours to the peer
    INWARD = "inward"  # the peer's to us


class Fate(StrEnum):
    """What became of a direction."""

    PASSED = "passed"
    DIED_ON_OUR_SIDE = "died_on_our_side"
    DIED_ON_PEER_SIDE = "died_on_peer_side"
    DIED = "died"  # nothing shows where
    NOT_TRIED = "not_tried"


@value
class Finding:
    """One form in one direction: what became of it, and the evidence in words."""

    form: Form
    direction: Direction
    fate: Fate
    evidence: str


def diagnose(ours: Sequence[FormSummary], theirs: Sequence[FormSummary] = ()) -> tuple[Finding, ...]:
    """Both directions of each form we tried. ``theirs`` is empty where the peer's summaries never arrived."""
    findings = []
    for own in ours:
        peer = next((summary for summary in theirs if summary.form is own.form), None)
        heard_by_peer = max(own.heard_by_peer, peer.heard if peer else 0)
        findings.append(
            Finding(own.form, Direction.OUTWARD, *_fate(own, heard_by_peer, _others_left(own, ours), ours=True))
        )
        if peer is None:
            fate = (
                (Fate.PASSED, f"{own.heard} heard") if own.heard else (Fate.DIED, "the peer's own counts are unknown")
            )
        else:
            fate = _fate(peer, own.heard, _others_left(peer, theirs), ours=False)
        findings.append(Finding(own.form, Direction.INWARD, *fate))
    return tuple(findings)


def _others_left(summary: FormSummary, all_forms: Sequence[FormSummary]) -> bool:
    return any(other.left_own_side for other in all_forms if other.form is not summary.form)


def _fate(sender: FormSummary, heard: int, other_form_left: bool, *, ours: bool) -> tuple[Fate, str]:
    """What became of what ``sender`` sent, of which the other side heard ``heard``; ``ours``: the sender is us."""
    sender_side = Fate.DIED_ON_OUR_SIDE if ours else Fate.DIED_ON_PEER_SIDE
    receiver_side = Fate.DIED_ON_PEER_SIDE if ours else Fate.DIED_ON_OUR_SIDE
    if heard:
        return Fate.PASSED, f"{heard} of {sender.sent} heard"
    if not sender.sent:
        return Fate.NOT_TRIED, "nothing was sent"
    if sender.refused_by_own_side:
        return sender_side, "refused by a router inside the sender's NAT"
    if sender.refused_by_peer_side:
        return receiver_side, "refused by the address they were sent to"
    if sender.left_own_side:
        return receiver_side, f"a router outside the sender's NAT saw them leave; 0 of {sender.sent} heard"
    if other_form_left and sender.lead_sent >= ENOUGH_SENT:
        return sender_side, "the other form left the sender's NAT, this one was never seen outside"
    return Fate.DIED, f"0 of {sender.sent} heard, and no router answered"
