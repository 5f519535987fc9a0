"""A round that was agreed on takes place, whatever becomes of the rendezvous meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface

import pytest

from grepunch.ports import Form, GreSend, PathNews, PathNewsKind
from grepunch.punch.plan import Budget
from grepunch.signalling.messages import Candidates, Open, Plan, PlanReply
from grepunch.traversal import UNSEEN, PathDoubted, RoundStarts, Traversal
from tests.attack.hostile import HERE, THERE, Clock

ELSEWHERE = [IPv4Address(f"203.0.113.{number}") for number in (61, 62, 63, 64)]


def make_traversal(clock: Callable[[], Clock | None]) -> Traversal:
    return Traversal(
        proposes=True,
        outgoing_key=b"o" * 32,
        incoming_key=b"i" * 32,
        forms=tuple(Form),
        window=30.0,
        budget=Budget(),
        clock=clock,
        interfaces=lambda: [IPv4Interface("192.168.1.7/24")],
        slot_taken=lambda address: False,
        entropy=random.Random(1).randbytes,
    )


def probed(traversal: Traversal) -> set[IPv4Address]:
    """Where probes go once the plan that was proposed is accepted."""
    traversal.receive(PlanReply(1, True), 0.1)
    deadline = traversal.deadline()
    assert deadline is not None
    assert deadline <= 1.0
    traversal.handle_timeout(deadline)
    return {item.destination for item in traversal.transmits() if isinstance(item, GreSend)}


def test_a_rendezvous_that_goes_after_the_start_was_agreed_on_does_not_hold_it_up() -> None:
    clock: list[Clock | None] = [Clock()]
    traversal = make_traversal(lambda: clock[0])
    traversal.begin(0.0)
    traversal.receive(Candidates(1, 0.02, THERE, frozenset(Form), ()), 0.0)
    assert any(isinstance(item, Plan) for item in traversal.transmits())
    clock[0] = None
    assert probed(traversal) == {THERE}


def test_where_a_gre_echo_saw_the_peer_is_probed_too_and_claimed() -> None:
    traversal = make_traversal(Clock)
    traversal.begin(0.0)
    traversal.receive(Candidates(1, 0.02, THERE, frozenset(Form), (), tuple(ELSEWHERE[:3])), 0.0)
    assert probed(traversal) == {THERE, *ELSEWHERE[:3]}
    assert all(traversal.claims(address) and traversal.aims_at(address) for address in ELSEWHERE[:3])


def test_the_peer_is_told_where_our_gre_was_seen_and_of_three_addresses_at_most() -> None:
    traversal = make_traversal(lambda: Clock(gre_sources=tuple(ELSEWHERE)))
    traversal.begin(0.0)
    told, _ = traversal.transmits()
    assert isinstance(told, Candidates)
    assert (told.external, told.gre) == (HERE, tuple(ELSEWHERE[:3]))


def test_an_address_that_no_host_of_the_internet_has_is_not_probed_on_the_word_of_an_echo() -> None:
    traversal = make_traversal(Clock)
    traversal.begin(0.0)
    nowhere = (IPv4Address("127.0.0.1"), IPv4Address("10.1.2.3"), IPv4Address("224.0.0.1"))
    traversal.receive(Candidates(1, 0.02, THERE, frozenset(Form), (), nowhere), 0.0)
    assert probed(traversal) == {THERE}


@pytest.mark.parametrize("inside", [str(UNSEEN), "127.0.0.1", "10.1.2.3", "192.168.1.1", "224.0.0.1", str(HERE)])
def test_an_address_that_is_not_probed_is_not_called_either(inside: str) -> None:
    """However the peer gets a round to take place: here by an address at which its GRE was seen."""
    traversal = make_traversal(Clock)
    traversal.begin(0.0)
    external = IPv4Address(inside)
    traversal.receive(Candidates(1, 0.02, external, frozenset(Form), (), (ELSEWHERE[0],)), 0.0)
    traversal.receive(PlanReply(1, True), 0.1)
    assert not any(isinstance(event, RoundStarts) for event in traversal.events())


def test_an_address_that_is_probed_is_called() -> None:
    traversal = make_traversal(Clock)
    traversal.begin(0.0)
    traversal.receive(Candidates(1, 0.02, THERE, frozenset(Form), (), (ELSEWHERE[0],)), 0.0)
    traversal.receive(PlanReply(1, True), 0.1)
    assert [event.external for event in traversal.events() if isinstance(event, RoundStarts)] == [THERE]


def opened(
    traversal: Traversal, *, number: int, confirmed: bool, external: IPv4Address, at: float
) -> tuple[bool, bool]:
    """A round in which a router beyond our NATs answers at once and the peer says how its own lead went: whether we
    then send at full TTL, and whether we take the peer to be shut in."""
    traversal.begin(at)
    traversal.receive(Candidates(number, 0.02, external, frozenset(Form), ()), at)
    traversal.receive(PlanReply(number, True), at + 0.1)
    traversal.handle_timeout(traversal.deadline() or at)
    router = IPv4Address("198.51.100.1")
    traversal.receive_news(PathNews(PathNewsKind.TIME_EXCEEDED, router, external, Form.V1), at + 0.9)
    traversal.receive(Open(number, confirmed), at + 1.0)
    traversal.transmits()
    full = False
    while (due := traversal.deadline()) is not None and due < at + 5.0:
        traversal.handle_timeout(due)
        full |= any(isinstance(item, GreSend) and item.ttl is None for item in traversal.transmits())
    return full, PathDoubted(occupied=True) in traversal.events()


def test_a_peer_whose_packets_no_longer_leave_its_nat_is_waited_for() -> None:
    traversal = make_traversal(Clock)
    assert opened(traversal, number=1, confirmed=True, external=THERE, at=0.0) == (True, False)
    assert opened(traversal, number=2, confirmed=False, external=THERE, at=10.0) == (False, True)
    assert opened(traversal, number=3, confirmed=True, external=THERE, at=60.0) == (True, False)


def test_a_peer_whose_routers_never_answered_is_not_taken_to_be_shut_in() -> None:
    traversal = make_traversal(Clock)
    assert opened(traversal, number=1, confirmed=False, external=THERE, at=0.0) == (True, False)
    assert opened(traversal, number=2, confirmed=False, external=THERE, at=10.0) == (True, False)


def test_a_peer_that_moved_to_where_no_router_answers_is_not_taken_to_be_shut_in() -> None:
    traversal = make_traversal(Clock)
    assert opened(traversal, number=1, confirmed=True, external=THERE, at=0.0) == (True, False)
    assert opened(traversal, number=2, confirmed=False, external=ELSEWHERE[0], at=10.0) == (True, False)
