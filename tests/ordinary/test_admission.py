"""Limits and session policy: who may connect, who may have a session, and who gives way."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from grepunch.config.legacy import SessionPolicy
from grepunch.ordinary.admission import (
    CONNECT_BURST,
    CONNECT_RATE,
    FAILURE_PERIOD,
    MOST_FAILURES,
    MOST_SOURCES_REMEMBERED,
    MOST_STARTING,
    Admission,
    Admitted,
    Limits,
    Refusal,
)

HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")


def book(policy: SessionPolicy = SessionPolicy.REPLACE, sessions: int = 3, per_source: int = 2) -> Admission[str]:
    return Admission(Limits(sessions, per_source, policy))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (SessionPolicy.REPLACE, Admitted(("old",))),
        (SessionPolicy.ALLOW, Admitted(())),
    ],
)
def test_a_user_who_comes_again(policy: SessionPolicy, expected: Admitted[str]) -> None:
    admission = book(policy)
    assert admission.admit(1, "alice", "old") == Admitted(())
    assert admission.admit(2, "alice", "new") == expected


def test_deny_denies_while_the_first_session_lasts() -> None:
    admission = book(SessionPolicy.DENY)
    admission.admit(1, "alice", "old")
    assert isinstance(admission.admit(2, "alice", "new"), Refusal)
    admission.leave(1)
    assert admission.admit(3, "alice", "new") == Admitted(())


def test_the_limit_of_sessions_counts_what_is_replaced_as_gone() -> None:
    admission = book(sessions=2)
    admission.admit(1, "alice", "a")
    admission.admit(2, "bob", "b")
    refused = admission.admit(3, "carol", "c")
    assert isinstance(refused, Refusal)
    assert "listen.max_sessions is 2" in refused.sentence
    assert admission.admit(4, "bob", "again") == Admitted(("b",))
    admission.leave(2)
    assert isinstance(admission.admit(5, "carol", "c"), Refusal), "the replaced one was counted out already"


def test_connections_are_limited_by_source_and_in_all() -> None:
    admission = book(sessions=1, per_source=2)
    assert [admission.connect(HERE, 0.0) for _ in range(2)] == [None, None]
    assert isinstance(admission.connect(HERE, 0.0), Refusal)
    admission.disconnect(HERE)
    assert admission.connect(HERE, 0.0) is None
    others = [admission.connect(IPv4Address(n), 0.0) for n in range(1, 1 + MOST_STARTING)]
    assert [type(other) for other in others[-2:]] == [type(None), Refusal]
    assert admission.connections == 1 + MOST_STARTING
    admission.disconnect(HERE)
    admission.disconnect(HERE)
    assert HERE not in admission.sources


def test_who_fails_too_often_waits_and_nobody_else_does() -> None:
    admission = book()
    for _ in range(MOST_FAILURES):
        assert admission.connect(HERE, 5.0) is None
        admission.disconnect(HERE)
        admission.failed(HERE, 5.0)
    assert isinstance(admission.connect(HERE, 6.0), Refusal)
    assert admission.connect(THERE, 6.0) is None
    assert admission.connect(HERE, 5.0 + FAILURE_PERIOD) is None


def test_the_memory_of_failures_is_bounded() -> None:
    admission = book()
    for n in range(MOST_SOURCES_REMEMBERED + 10):
        admission.failed(IPv4Address(n), 0.0)
        admission.connect(IPv4Address(n), 0.0)
        admission.disconnect(IPv4Address(n))
    assert len(admission._failures) == len(admission._buckets) == MOST_SOURCES_REMEMBERED


def test_a_source_that_connects_all_the_time_is_slowed_down_and_no_other() -> None:
    admission = book()
    taken = 0
    for _ in range(1000):
        if admission.connect(HERE, 1.0) is None:
            taken += 1
            admission.disconnect(HERE)
    assert taken == CONNECT_BURST
    assert admission.connect(THERE, 1.0) is None
    admission.disconnect(THERE)
    assert admission.connect(HERE, 1.0 + 1 / CONNECT_RATE) is None
