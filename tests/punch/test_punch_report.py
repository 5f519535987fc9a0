"""From both sides' counts to the direction that died and the side it died on."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from grepunch.ports import Form
from grepunch.punch.report import Direction, Fate, FormSummary, PunchReport, StreamReport, diagnose

PEER = IPv4Address("198.51.100.7")
ROUTER = IPv4Address("198.51.100.1")
GATEWAY = IPv4Address("192.168.1.1")
V1 = FormSummary(Form.V1, 3, 32, 0, 0, False, False, False, False)
V0 = replace(V1, form=Form.V0)


def fates(ours: list[FormSummary], theirs: list[FormSummary]) -> dict[tuple[Form, Direction], Fate]:
    return {(finding.form, finding.direction): finding.fate for finding in diagnose(ours, theirs)}


@pytest.mark.parametrize(
    ("ours", "theirs", "outward", "inward"),
    [
        (V1, V1, Fate.DIED, Fate.DIED),
        (replace(V1, heard=5), replace(V1, heard=6), Fate.PASSED, Fate.PASSED),
        (replace(V1, left_own_side=True), replace(V1), Fate.DIED_ON_PEER_SIDE, Fate.DIED),
        (replace(V1, heard=4), replace(V1, left_own_side=True), Fate.DIED, Fate.PASSED),
        (V1, replace(V1, heard=4, left_own_side=True), Fate.PASSED, Fate.DIED_ON_OUR_SIDE),
        (replace(V1, refused_by_own_side=True), V1, Fate.DIED_ON_OUR_SIDE, Fate.DIED),
        (replace(V1, refused_by_peer_side=True), V1, Fate.DIED_ON_PEER_SIDE, Fate.DIED),
        (V1, replace(V1, refused_by_own_side=True), Fate.DIED, Fate.DIED_ON_PEER_SIDE),
        (V1, replace(V1, refused_by_peer_side=True), Fate.DIED, Fate.DIED_ON_OUR_SIDE),
        (replace(V1, sent=0, lead_sent=0), V1, Fate.NOT_TRIED, Fate.DIED),
    ],
)
def test_each_direction_gets_its_fate(ours: FormSummary, theirs: FormSummary, outward: Fate, inward: Fate) -> None:
    found = fates([ours], [theirs])
    assert (found[Form.V1, Direction.OUTWARD], found[Form.V1, Direction.INWARD]) == (outward, inward)


def test_a_form_that_never_left_while_the_other_did_died_on_our_side() -> None:
    found = fates([replace(V1, left_own_side=True), V0], [V1, V0])
    assert found[Form.V0, Direction.OUTWARD] is Fate.DIED_ON_OUR_SIDE


def test_without_the_peers_counts_its_echo_and_our_ears_must_do() -> None:
    assert fates([replace(V1, heard_by_peer=3)], [])[Form.V1, Direction.OUTWARD] is Fate.PASSED
    assert fates([V1], [])[Form.V1, Direction.INWARD] is Fate.DIED
    assert fates([replace(V1, heard=1)], [])[Form.V1, Direction.INWARD] is Fate.PASSED


def test_streams_are_summed_by_form_and_refusals_go_to_the_side_that_refused() -> None:
    report = PunchReport(
        (
            StreamReport(PEER, Form.V1, lead_sent=3, sent=10, heard=2, beyond=ROUTER),
            StreamReport(ROUTER, Form.V1, lead_sent=3, sent=9, unreachable=ROUTER),
            StreamReport(PEER, Form.V0, lead_sent=3, sent=8, protocol_unreachable=GATEWAY),
        ),
        30.0,
    )
    v1, v0 = report.summaries()
    assert (v1.lead_sent, v1.sent, v1.heard, v1.left_own_side) == (6, 19, 2, True)
    assert (v1.refused_by_own_side, v1.refused_by_peer_side) == (False, True)
    assert (v0.refused_by_own_side, v0.refused_by_peer_side) == (True, False)
