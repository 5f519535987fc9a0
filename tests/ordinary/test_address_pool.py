"""The pool: nobody's address is given out twice, and who comes back gets what they had."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

from grepunch.ordinary.pool import AddressPool

NETWORK = IPv4Network("10.77.0.0/29")  # hosts .1 to .6
OWN = IPv4Address("10.77.0.1")


def address(last: int) -> IPv4Address:
    return IPv4Address(f"10.77.0.{last}")


def test_every_address_but_ours_is_given_out_and_then_none() -> None:
    pool = AddressPool(NETWORK, OWN)
    given = [pool.lease(f"user{n}", {}) for n in range(5)]
    assert given == [address(n) for n in range(2, 7)]
    assert pool.size == 5
    assert pool.lease("one more", {}) is None


def test_who_comes_back_gets_the_same_and_a_stranger_the_longest_free() -> None:
    pool = AddressPool(NETWORK, OWN)
    for n in range(5):
        pool.lease(f"user{n}", {})
    for last in (4, 2, 6):
        pool.release(address(last))
    assert pool.lease("user2", {}) == address(4)
    assert pool.lease("stranger", {}) == address(2)
    pool.release(address(2))
    assert pool.lease("another", {}) == address(6)


def test_a_reserved_address_goes_to_its_owner_alone() -> None:
    pool = AddressPool(NETWORK, OWN)
    reserved = {address(3): "alice", IPv4Address("192.168.1.1"): "bob"}
    assert pool.lease("carol", reserved) == address(2)
    assert pool.lease("dave", reserved) == address(4)
    assert pool.lease("alice", reserved) == address(3)
    assert pool.lease("alice", reserved) == address(5), "her second session gets another one"
    assert pool.lease("bob", reserved) == IPv4Address("192.168.1.1")
    pool.release(IPv4Address("192.168.1.1"))
    assert pool.lease("erin", reserved) == address(6)
    assert pool.lease("frank", reserved) is None, "an address outside the pool is not handed out"


def test_a_reservation_that_appears_later_is_kept_free_for_its_owner() -> None:
    pool = AddressPool(NETWORK, OWN)
    assert pool.lease("carol", {}) == address(2)
    pool.release(address(2))
    assert pool.lease("carol", {address(2): "alice"}) == address(3)
    assert pool.lease("alice", {address(2): "alice"}) == address(2)


def test_random_comings_and_goings_leak_nothing() -> None:
    rng = random.Random(2637)
    pool = AddressPool(NETWORK, OWN)
    held: dict[IPv4Address, str] = {}
    for _ in range(5000):
        if held and rng.random() < 0.5:
            gone = rng.choice(list(held))
            del held[gone]
            pool.release(gone)
            pool.release(gone)
        else:
            user = f"user{rng.randrange(12)}"
            got = pool.lease(user, {address(3): "user3"})
            assert (got is None) <= (len(held) >= 4)
            if got is not None:
                assert got not in held
                assert got != OWN
                assert got in NETWORK
                assert got != address(3) or user == "user3"
                held[got] = user
        assert dict(pool.leases) == held
