"""The TTL ladder: past our own NATs, never into the peer's."""

from __future__ import annotations

from ipaddress import IPv4Address

from grepunch.punch.ladder import Ladder, Verdict

OURS = IPv4Address("203.0.113.9")
ROUTER = IPv4Address("198.51.100.1")


def ladder(*, rendezvous: bool = True) -> Ladder:
    made = Ladder(OURS, rendezvous=rendezvous)
    made.sent()
    return made


def test_a_router_outside_ends_the_climb() -> None:
    climb = ladder()
    assert climb.ttl == 2
    assert climb.time_exceeded(ROUTER) is Verdict.BEYOND
    assert (climb.ttl, climb.beyond) == (2, ROUTER)
    assert climb.time_exceeded(IPv4Address("192.168.0.1")) is Verdict.NOTHING_NEW
    climb.silent()
    assert climb.ttl == 2


def test_each_router_inside_is_one_rung_and_counts_once() -> None:
    climb = ladder()
    rungs = []
    for inside in ("192.168.1.1", "192.168.1.1", "100.64.0.1", "10.0.0.1", "172.16.0.1"):
        climb.time_exceeded(IPv4Address(inside))
        rungs.append(climb.ttl)
    assert rungs == [3, 3, 4, 6, 6]


def test_our_own_external_address_is_still_inside() -> None:
    climb = ladder()
    assert climb.time_exceeded(OURS) is Verdict.INSIDE
    assert climb.ttl == 3


def test_without_an_answer_a_rendezvous_keeps_it_at_three() -> None:
    climb = ladder()
    for expected in (3, 3, 3):
        climb.silent()
        assert climb.ttl == expected
        climb.sent()


def test_without_an_answer_and_without_a_rendezvous_it_never_climbs() -> None:
    """Half a second apart and three hops between the sites, a TTL of 3 poisons the peer's NAT again and again."""
    climb, rungs = ladder(rendezvous=False), []
    for _ in range(8):
        rungs.append(climb.ttl)
        climb.silent()
        climb.sent()
    assert rungs == [2] * 8


def test_an_answer_that_names_nobody_is_an_answer() -> None:
    climb = ladder()
    assert climb.time_exceeded(None) is Verdict.NOTHING_NEW
    climb.silent()
    assert climb.ttl == 2


def test_a_near_peer_lowers_the_ceiling_until_no_ttl_is_safe() -> None:
    climb = ladder()
    climb.heard_with(0)  # not known
    climb.silent()
    assert climb.ttl == 3
    climb.heard_with(61)  # four hops away: its NAT is the third
    assert climb.ttl == 2
    climb.heard_with(127)
    assert climb.ttl is None
