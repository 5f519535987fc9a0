"""One interface for several peers: what the path of one can carry is nobody else's limit."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network

import pytest

from grepunch.config import Interface, Peer, Profile
from grepunch.interface import START_MTU, TunnelInterface
from grepunch.io.netconf import InterfacePlan, render
from grepunch.verdict import Failure, VerdictKind

OURS = IPv4Interface("10.66.0.1/24")
WIDE, NARROW = IPv4Address("10.66.0.2"), IPv4Address("10.66.0.3")
BEHIND = IPv4Network("192.168.50.0/24")


class Plans:
    """Keeps what the interface was to become."""

    def __init__(self) -> None:
        self.seen: list[InterfacePlan] = []

    def apply(self, plan: InterfacePlan) -> None:
        self.seen.append(plan)


def office(mtu: int | None = None) -> tuple[TunnelInterface, Plans]:
    profile = Profile(
        "office",
        Interface("gp-office", OURS, routes=(BEHIND,), mtu=mtu),
        peers=(Peer("wide", bytes(32), address=WIDE), Peer("narrow", bytes(32), address=NARROW, allowed=(BEHIND,))),
    )
    interface, plans = TunnelInterface(profile), Plans()
    interface._netconf = plans  # type: ignore[assignment]
    return interface, plans


def up(interface: TunnelInterface, name: str, address: IPv4Address, mtu: int) -> None:
    interface.peer_mtu(name, mtu)
    interface.peer_up(name, OURS.ip, address)
    interface.ipv6_up(name, bytes(7) + b"\1", bytes(7) + address.packed[3:])


def routes(plan: InterfacePlan) -> list[str]:
    return [line.removeprefix("ip route add ") for line in render(plan) if line.startswith("ip route")]


def test_a_narrow_path_has_routes_of_its_own_and_leaves_the_interface_wide() -> None:
    interface, plans = office()
    up(interface, "wide", WIDE, 1435)
    assert routes(plans.seen[-1]) == []
    up(interface, "narrow", NARROW, 1300)
    assert interface.mtu == 1435
    assert routes(plans.seen[-1]) == [
        "192.168.50.0/24 dev gp-office proto 171 mtu 1300",
        "10.66.0.3/32 dev gp-office proto 171 mtu 1300",
        "fe80::3/128 dev gp-office proto 171 mtu 1300",
    ]
    interface.peer_mtu("narrow", 1435)
    assert routes(plans.seen[-1]) == ["192.168.50.0/24 dev gp-office proto 171"]


def test_a_peer_that_leaves_takes_its_mtu_with_it() -> None:
    interface, plans = office()
    up(interface, "wide", WIDE, 1435)
    up(interface, "narrow", NARROW, 1200)
    assert IPv6Network("fe80::3/128") not in plans.seen[-1].routes, "no IPv6 packet is smaller than 1280"
    interface.peer_down("wide")
    assert interface.mtu == 1200
    assert routes(plans.seen[-1]) == ["192.168.50.0/24 dev gp-office proto 171"]
    interface.peer_down("narrow")
    assert routes(plans.seen[-1]) == []
    assert interface.mtu == 1200, "and nobody is left to say otherwise"


def test_an_mtu_that_the_profile_sets_is_kept_and_a_narrower_path_told_by_its_routes() -> None:
    interface, plans = office(mtu=1400)
    assert interface.mtu == 1400
    up(interface, "wide", WIDE, 1435)
    up(interface, "narrow", NARROW, 1300)
    assert interface.mtu == 1400
    assert dict(plans.seen[-1].narrow)[IPv4Network(NARROW)] == 1300
    assert IPv4Network(WIDE) not in plans.seen[-1].routes


def test_the_first_peer_sets_the_mtu() -> None:
    interface, _ = office()
    assert interface.mtu == START_MTU
    interface.peer_mtu("narrow", 1250)
    assert interface.mtu == 1250


def test_no_route_leads_the_tunnel_into_itself() -> None:
    interface, plans = office()
    peers_own = BEHIND[7]
    with pytest.raises(Failure) as refused:
        interface.peer_up("narrow", OURS.ip, NARROW, [IPv4Address("192.0.2.10"), peers_own])
    assert refused.value.verdict.kind is VerdictKind.ADDRESS_CLASH
    assert str(BEHIND) in refused.value.verdict.detail
    assert str(peers_own) in refused.value.verdict.detail
    assert plans.seen == []
    interface.peer_up("wide", OURS.ip, WIDE, [peers_own])  # nothing behind that one is routed: not refused


def test_what_is_routed_is_looked_at_again_where_the_tunnel_takes_another_way() -> None:
    interface, plans = office()
    interface.check_outer([BEHIND[7]])  # nobody is up yet
    interface.peer_up("narrow", OURS.ip, NARROW, [IPv4Address("192.0.2.10")])
    before = plans.seen[-1]
    with pytest.raises(Failure) as refused:
        interface.check_outer([IPv4Address("192.0.2.10"), BEHIND[7]])
    assert str(BEHIND[7]) in refused.value.verdict.detail
    with pytest.raises(Failure) as refused:  # another peer's packets would go to the first one
        interface.peer_up("wide", OURS.ip, WIDE, [BEHIND[7]])
    assert refused.value.verdict.kind is VerdictKind.ADDRESS_CLASH
    assert plans.seen[-1] == before
