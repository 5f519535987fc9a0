"""The verdict table is the product's, word for word, and each row can be shown to people and to programs."""

from __future__ import annotations

import json

import pytest

from grepunch.verdict import OUTCOMES, Failure, Verdict, VerdictKind, failure

EXIT_CODES = {
    "up": 0,
    "internal": 1,
    "usage": 2,
    "profile_invalid": 3,
    "no_privilege": 4,
    "unsupported_host": 5,
    "already_running": 6,
    "rendezvous_unreachable": 10,
    "peer_absent": 11,
    "nat_blocked": 12,
    "same_slot_taken": 12,
    "no_gre_from_peer": 12,
    "auth_failed": 13,
    "not_agreed": 14,
    "link_lost": 15,
    "limit_reached": 16,
    "address_clash": 17,
    "pool_exhausted": 17,
    "not_up": 20,
    "interrupted": 130,
    "terminated": 143,
}


def test_the_words_and_their_exit_codes() -> None:
    assert {str(kind): outcome.exit_code for kind, outcome in OUTCOMES.items()} == EXIT_CODES
    assert set(VerdictKind) == set(OUTCOMES)


@pytest.mark.parametrize("kind", list(VerdictKind))
def test_every_failure_has_a_sentence_and_advice(kind: VerdictKind) -> None:
    outcome = OUTCOMES[kind]
    assert outcome.sentence.endswith(".")
    without_advice = {VerdictKind.UP, VerdictKind.INTERRUPTED, VerdictKind.TERMINATED}
    assert bool(outcome.advice) == (kind not in without_advice)


def test_for_people() -> None:
    verdict = Verdict(VerdictKind.NAT_BLOCKED, "43 sent\n0 heard", "Ask the other side.")
    assert verdict.lines() == [
        "nat_blocked: GRE does not get through between the two NATs.",
        "  seen: 43 sent",
        "        0 heard",
        "  try:  Ask the other side.",
    ]


def test_for_programs() -> None:
    verdict = Verdict(VerdictKind.NAT_BLOCKED, "0 heard", facts={"direction": "in", "sent": 43})
    assert json.loads(json.dumps(verdict.as_json())) == {
        "schema": 1,
        "event": "verdict",
        "result": "nat_blocked",
        "exit_code": 12,
        "sentence": "GRE does not get through between the two NATs.",
        "detail": "0 heard",
        "advice": OUTCOMES[VerdictKind.NAT_BLOCKED].advice,
        "facts": {"direction": "in", "sent": 43},
    }
    assert set(Verdict(VerdictKind.UP).as_json()) == {"schema", "event", "result", "exit_code", "sentence"}


def test_the_status_of_the_command_becomes_ours_only_where_the_tunnel_held() -> None:
    assert Verdict(VerdictKind.UP, command_status=7).exit_code == 7
    assert not Verdict(VerdictKind.UP, command_status=7).ok
    assert Verdict(VerdictKind.LINK_LOST, command_status=7).exit_code == 15


def test_a_failure_carries_its_verdict() -> None:
    raised = failure(VerdictKind.ADDRESS_CLASH, "10.66.0.1 is on eth0", interface="eth0")
    assert isinstance(raised, Failure)
    assert raised.verdict == Verdict(VerdictKind.ADDRESS_CLASH, "10.66.0.1 is on eth0", facts={"interface": "eth0"})
