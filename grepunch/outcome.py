"""From what was seen to a verdict: why a peer did not come up, said in the words of the one table.

Pure; the endpoint asks when its patience is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grepunch.peer import PunchFailed
from grepunch.punch.plan import BUDGET_HOURLY_PACKETS
from grepunch.punch.report import Direction, Fate, Finding, FormSummary, diagnose
from grepunch.verdict import Verdict, VerdictKind
from pptp.value import value

_WAY = {Direction.OUTWARD: "from here to the peer", Direction.INWARD: "from the peer to here"}
_PLACE = {
    Fate.DIED_ON_OUR_SIDE: "died on this side",
    Fate.DIED_ON_PEER_SIDE: "died on the peer's side",
    Fate.DIED: "died on the way",
    Fate.PASSED: "passed",
    Fate.NOT_TRIED: "were not sent",
}

# what to say where the relay would help and only the user's word is missing; a program without a terminal has nobody to
# ask, so the answer stands in the profile or on the command line
ASK_FOR_RELAY = (
    "the rendezvous offers to relay this link: it would see sealed packets only. To allow it, say "
    '`relay = "auto"` under [punch] on both sides, or start with `--set punch.relay=auto`'
)

_SAME_NAT = "both peers are behind the same NAT and share no LAN: GRE cannot turn around inside it"
_SLOT_TAKEN = (
    "another host behind the same NAT has a GRE session with this peer, and GRE has no ports to tell them apart"
)

_SIDES = {
    "here": "GRE is dropped on this side, in both directions: ours is never seen outside, the peer's does not come in",
    "peer": "GRE is dropped on the peer's side, in both directions: ours left here, the peer's is never seen outside",
}


@value
class Attempt:
    """What is known of an attempt that has not come up.

    ``meeting_error`` is the reason no rendezvous answers (empty while one does or none is used), ``met`` whether
    the peer was ever present there, ``handshake`` whether keys were agreed.
    """

    waited: float
    peer: str
    uses_rendezvous: bool = False
    meeting_error: str = ""
    met: bool = False
    keys: bool = False
    heard: bool = False
    authentication_failed: str = ""
    same_nat: bool = False
    slot_taken: bool = False
    path: bool = False
    ours: tuple[FormSummary, ...] = ()
    theirs: tuple[FormSummary, ...] = ()
    withheld: int = 0  # packets that the budget kept back in the last window
    link_error: str = ""
    next_round_in: float | None = None  # seconds; None while punching or with nothing planned
    relay: str = ""  # why it is not used; empty where it is, or was never asked for
    relay_wants_asking: bool = False


def explain(attempt: Attempt) -> Verdict:
    """The verdict on an attempt whose time is over."""
    waited = f"{attempt.waited:.0f} s"
    if attempt.authentication_failed:
        return Verdict(VerdictKind.AUTH_FAILED, f"the handshake with {attempt.peer}: {attempt.authentication_failed}")
    if attempt.link_error:
        return Verdict(VerdictKind.NOT_AGREED, attempt.link_error)
    if attempt.meeting_error and not attempt.met:
        return Verdict(VerdictKind.RENDEZVOUS_UNREACHABLE, attempt.meeting_error)
    if attempt.uses_rendezvous and not attempt.keys:
        where = (
            "came to the rendezvous but did not answer the handshake" if attempt.met else "was not at the rendezvous"
        )
        return Verdict(VerdictKind.PEER_ABSENT, f"{attempt.peer} {where} within {waited}")
    if attempt.path:
        return Verdict(VerdictKind.NOT_AGREED, f"packets pass, but PPP did not come up within {waited}")
    if attempt.slot_taken:
        blocked = Verdict(VerdictKind.SAME_SLOT_TAKEN, f"{attempt.peer} says: {_SLOT_TAKEN}")
    elif attempt.same_nat:
        blocked = Verdict(VerdictKind.NAT_BLOCKED, _SAME_NAT, facts={"direction": "both", "same_nat": True})
    else:
        blocked = _blocked(attempt)
    return _with_relay(blocked, attempt)


def _with_relay(verdict: Verdict, attempt: Attempt) -> Verdict:
    """Say why the relay was no help either, and how it could be."""
    blocked = verdict.kind in (VerdictKind.NAT_BLOCKED, VerdictKind.SAME_SLOT_TAKEN)
    if not (blocked and attempt.relay and attempt.uses_rendezvous):
        return verdict
    advice = verdict.advice
    if attempt.relay_wants_asking:
        advice = f"{ASK_FOR_RELAY[0].upper()}{ASK_FOR_RELAY[1:]}."
    detail = f"{verdict.detail}\nnor does the relay help: {attempt.relay}"
    return replace(verdict, detail=detail, advice=advice, facts={**verdict.facts, "relay": attempt.relay})


def _blocked(attempt: Attempt) -> Verdict:
    findings = diagnose(attempt.ours, attempt.theirs)
    direction = dead_direction(findings)
    side = blocked_side(findings) if attempt.theirs else ""  # without the peer's counts nothing is known of its side
    sentences = [*([_SIDES[side]] if side else []), *describe(findings), *rationed(attempt.ours, attempt.withheld)]
    detail = "\n".join(sentences) if sentences else f"no GRE packet of {attempt.peer} arrived in {attempt.waited:.0f} s"
    refused_here = any(f.fate is Fate.DIED_ON_OUR_SIDE for f in findings)
    if not attempt.uses_rendezvous and not attempt.heard and not refused_here:
        # nothing but silence: a peer that is absent, one with another key and a blocked path look the same from here
        return Verdict(VerdictKind.PEER_ABSENT, detail, facts={"direction": direction})
    facts = {"direction": direction} | ({"side": side} if side else {})
    return Verdict(VerdictKind.NAT_BLOCKED, detail, facts=facts)


def rationed(ours: Sequence[FormSummary], withheld: int) -> list[str]:
    """What to say of packets that were kept back: nothing while most of them were sent."""
    if withheld <= sum(summary.lead_sent + summary.sent for summary in ours):
        return []
    return [
        f"{withheld} packets were kept back: an address that has not answered gets {BUDGET_HOURLY_PACKETS} of a kind "
        "in an hour, so that nobody can aim this host at others; try again in an hour, or name last_known_address"
    ]


def blocked_side(findings: Sequence[Finding]) -> str:
    """``here`` or ``peer``: where GRE is dropped both ways, as far as the evidence goes; else empty.

    A side whose own packets are never seen outside, and which the other's do not reach although they were, is it.
    """
    fates = {
        way: {f.fate for f in findings if f.direction is way and f.fate is not Fate.NOT_TRIED} for way in Direction
    }
    lost_here, lost_there = {Fate.DIED_ON_OUR_SIDE}, {Fate.DIED_ON_PEER_SIDE}
    if fates[Direction.INWARD] == lost_here and fates[Direction.OUTWARD] <= lost_here | {Fate.DIED}:
        return "here"
    if fates[Direction.OUTWARD] == lost_there and fates[Direction.INWARD] <= lost_there | {Fate.DIED}:
        return "peer"
    return ""


def dead_direction(findings: Sequence[Finding]) -> str:
    """``outward``, ``inward`` or ``both``: where no form passed."""
    dead = [way for way in Direction if not any(f.fate is Fate.PASSED for f in findings if f.direction is way)]
    return dead[0].value if len(dead) == 1 else "both"


def why_failed(window: PunchFailed) -> str:
    """Why a window of punching brought no path, in a line."""
    if window.slot_taken:
        return _SLOT_TAKEN
    if window.same_nat:
        return _SAME_NAT
    sentences = [*describe(diagnose(window.ours, window.theirs)), *rationed(window.ours, window.withheld)]
    return "; ".join(sentences) or "the window went by without a word"


def describe(findings: Sequence[Finding]) -> list[str]:
    """One sentence per form and direction that was tried."""
    return [
        f"GRE {finding.form} packets {_WAY[finding.direction]} {_PLACE[finding.fate]} ({finding.evidence})"
        for finding in findings
        if finding.fate is not Fate.NOT_TRIED
    ]
