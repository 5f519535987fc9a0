"""From what was seen to the verdict: each way of not coming up has its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grepunch.outcome import Attempt, blocked_side, dead_direction, explain
from grepunch.ports import Form
from grepunch.punch.report import FormSummary, diagnose
from grepunch.verdict import VerdictKind

BASE = Attempt(waited=40, peer="bob", uses_rendezvous=True)


def summary(
    *, heard: int = 0, left: bool = False, refused_here: bool = False, refused_there: bool = False
) -> FormSummary:
    return FormSummary(Form.V1, 3, 32, heard, 0, False, left, refused_here, refused_there)


@pytest.mark.parametrize(
    ("attempt", "kind", "words"),
    [
        (replace(BASE, meeting_error="wss://x: no answer"), VerdictKind.RENDEZVOUS_UNREACHABLE, "no answer"),
        (BASE, VerdictKind.PEER_ABSENT, "bob was not at the rendezvous within 40 s"),
        (replace(BASE, met=True), VerdictKind.PEER_ABSENT, "did not answer the handshake"),
        (
            replace(BASE, met=True, authentication_failed="wrong pre-shared key, or tampering"),
            VerdictKind.AUTH_FAILED,
            "wrong pre-shared key, or tampering",
        ),
        (replace(BASE, met=True, keys=True, same_nat=True), VerdictKind.NAT_BLOCKED, "behind the same NAT"),
        (replace(BASE, met=True, keys=True, path=True), VerdictKind.NOT_AGREED, "PPP did not come up"),
        (replace(BASE, link_error="addresses: 10.0.0.1 against 10.0.0.2"), VerdictKind.NOT_AGREED, "against"),
        (replace(BASE, uses_rendezvous=False, ours=(summary(),)), VerdictKind.PEER_ABSENT, "0 of 32 heard"),
        (
            replace(BASE, uses_rendezvous=False, ours=(summary(refused_here=True),)),
            VerdictKind.NAT_BLOCKED,
            "died on this side",
        ),
    ],
)
def test_each_failure_has_its_verdict(attempt: Attempt, kind: VerdictKind, words: str) -> None:
    verdict = explain(attempt)
    assert verdict.kind is kind
    assert words in verdict.detail


def test_a_peer_that_was_met_before_the_rendezvous_went_away_is_not_blamed_on_it() -> None:
    verdict = explain(replace(BASE, met=True, keys=True, meeting_error="gone", ours=(summary(left=True),)))
    assert verdict.kind is VerdictKind.NAT_BLOCKED


@pytest.mark.parametrize(
    ("ours", "theirs", "side", "direction"),
    [
        (summary(), summary(left=True), "here", "both"),
        (summary(refused_here=True), summary(left=True), "here", "both"),
        (summary(left=True), summary(), "peer", "both"),
        (summary(left=True), summary(left=True), "", "both"),
        (summary(), summary(), "", "both"),
        (summary(heard=3, left=True), summary(left=True), "", "outward"),
        (summary(left=True), summary(heard=3, left=True), "", "inward"),
    ],
)
def test_where_gre_is_dropped(ours: FormSummary, theirs: FormSummary, side: str, direction: str) -> None:
    findings = diagnose((ours,), (theirs,))
    assert blocked_side(findings) == side
    assert dead_direction(findings) == direction


def test_a_spent_budget_is_said_and_one_that_hardly_matters_is_not() -> None:
    spent = replace(summary(), sent=0, lead_sent=0)
    verdict = explain(replace(BASE, met=True, keys=True, ours=(spent,), withheld=64))
    assert "64 packets were kept back" in verdict.detail
    assert "last_known_address" in verdict.detail
    verdict = explain(replace(BASE, met=True, keys=True, ours=(summary(),), withheld=2))
    assert "kept back" not in verdict.detail


def test_without_the_peers_counts_no_side_is_blamed() -> None:
    verdict = explain(replace(BASE, uses_rendezvous=False, ours=(summary(left=True),)))
    assert verdict.kind is VerdictKind.PEER_ABSENT
    assert verdict.facts == {"direction": "both"}
    assert "in both directions" not in verdict.detail
