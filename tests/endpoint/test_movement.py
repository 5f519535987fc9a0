"""When an endpoint takes its host to have moved or slept, and when not."""

from __future__ import annotations

from ipaddress import IPv4Address

from grepunch.io.netwatch import way_to
from grepunch.io.rtnetlink import WayOut
from grepunch.movement import SLEPT, Movement

PEER, OTHER = IPv4Address("203.0.113.9"), IPv4Address("198.51.100.9")
HOME = WayOut(IPv4Address("192.168.1.100"), 2, IPv4Address("192.168.1.1"))
AWAY = WayOut(IPv4Address("10.0.0.7"), 3, IPv4Address("10.0.0.1"))
NEXT_HOP = WayOut(IPv4Address("192.168.1.100"), 2, IPv4Address("192.168.1.2"))


class Host:
    """A host's routes, and what its endpoint was told."""

    def __init__(self) -> None:
        self.ways: dict[IPv4Address, WayOut | None] = {PEER: HOME}
        self.destinations = [PEER]
        self.now = 100.0
        self.told: list[str] = []
        self.movement = Movement(
            lambda: self.destinations,
            moved=lambda: self.told.append("moved"),
            slept=lambda: self.told.append("slept"),
            now=lambda: self.now,
            look=lambda destination: self.ways[destination],
        )
        self.movement.tick()

    def change(self, way: WayOut | None, destination: IPv4Address = PEER) -> list[str]:
        """The way changes, the kernel says that something has; what the endpoint is told."""
        self.ways[destination] = way
        self.told.clear()
        self.movement.look_again()
        return self.told


def test_another_address_interface_or_next_hop_is_a_move() -> None:
    host = Host()
    assert host.change(AWAY) == ["moved"]
    assert host.change(HOME) == ["moved"]
    assert host.change(NEXT_HOP) == ["moved"]


def test_a_change_that_touches_no_way_of_ours_is_none() -> None:
    host = Host()
    assert host.change(HOME) == []


def test_losing_the_way_is_no_news_yet_but_having_another_is() -> None:
    host = Host()
    assert host.change(None) == []
    assert host.change(AWAY) == ["moved"]


def test_the_same_way_back_after_none_is_no_move() -> None:
    host = Host()
    assert host.change(None) == []
    assert host.change(HOME) == []


def test_a_new_destination_is_compared_from_its_first_tick_on() -> None:
    host = Host()
    host.ways[OTHER] = HOME
    host.destinations = [PEER, OTHER]
    host.movement.tick()
    assert host.change(AWAY, OTHER) == ["moved"]
    host.destinations = [PEER]
    host.movement.tick()
    assert host.change(HOME, OTHER) == []


def test_with_nothing_to_compare_any_change_is_worth_a_try() -> None:
    host = Host()
    host.destinations = []
    host.movement.tick()
    assert host.change(HOME) == ["moved"]


def test_a_loop_that_was_stopped_has_slept_and_may_have_moved_meanwhile() -> None:
    host = Host()
    host.now += SLEPT / 2
    host.movement.tick()
    assert host.told == []
    host.now += SLEPT * 2
    host.ways[PEER] = AWAY
    host.movement.tick()
    assert host.told == ["slept", "moved"]


def test_the_kernel_says_which_way_loopback_is() -> None:
    way = way_to(IPv4Address("127.0.0.1"))
    assert way is not None
    assert (str(way.source), way.gateway) == ("127.0.0.1", None)
