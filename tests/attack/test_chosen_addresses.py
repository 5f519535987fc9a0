"""What a peer may choose of the addresses inside: nothing that the profile names, and nobody else's address."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import ClassVar

import pytest

from grepunch.config import Interface, Peer, Profile
from grepunch.interface import TunnelInterface
from grepunch.io.errors import AddressClash
from grepunch.io.netconf import InterfacePlan
from grepunch.peer import PeerState, SessionEnded
from grepunch.peer.events import StateChanged
from grepunch.sessions import interface_identifier, session_factory
from grepunch.verdict import Failure, VerdictKind
from pptp.errors import Terminated, TerminationCause
from pptp.ppp.ipcp import Ipv4Up
from pptp.ppp.ipv6cp import Ipv6Up
from pptp.session import ControlOut, Session
from pptp.wire.cp import Code
from pptp.wire.ppp import PppFrame, Protocol
from tests.attack.hostile import INSIDE_HERE, INSIDE_THERE, SEED, Siege
from tests.session.test_pptp_session import Pair, session

ELSEWHERE = IPv4Address("10.66.0.9")
PUBLIC = IPv4Address("198.51.100.53")


def ups(ours: Session, peer: Session) -> list[Ipv4Up]:
    """With which addresses our side came up, if it did."""
    pair = Pair(ours, peer)
    pair.path_up()
    pair.run()
    return [event for event in pair.events[0] if isinstance(event, Ipv4Up)]


@pytest.mark.parametrize(("local", "remote"), [(None, INSIDE_THERE), (INSIDE_HERE, None), (INSIDE_HERE, INSIDE_THERE)])
def test_an_address_that_the_profile_names_is_not_the_peer_s_to_choose(
    local: IPv4Address | None, remote: IPv4Address | None
) -> None:
    ours = session(dials=False, local=local, remote=remote)
    peer = session(dials=True, local=ELSEWHERE if remote else INSIDE_THERE, remote=ELSEWHERE if local else INSIDE_HERE)
    assert all(local in (None, up.local) and remote in (None, up.remote) for up in ups(ours, peer))


@pytest.mark.parametrize("theirs", [PUBLIC, IPv4Address("100.128.0.1"), INSIDE_HERE])
def test_a_peer_claims_no_public_address_and_not_ours(theirs: IPv4Address) -> None:
    peer = session(dials=True, local=theirs, remote=None)
    assert ups(session(dials=False, local=INSIDE_HERE, remote=None), peer) == []


def test_a_peer_gives_us_no_public_address() -> None:
    peer = session(dials=True, local=INSIDE_THERE, remote=PUBLIC)
    assert ups(session(dials=False, local=None, remote=None), peer) == []


def test_a_peer_without_an_address_of_its_own_does_not_come_up() -> None:
    ours = session(dials=False, local=INSIDE_HERE, remote=None)
    assert ups(ours, session(dials=True, local=None, remote=None)) == []


def test_private_and_carrier_addresses_and_what_is_allowed_may_be_chosen() -> None:
    for theirs in (INSIDE_THERE, IPv4Address("100.64.0.1"), PUBLIC):
        make = session_factory(
            dials=False,
            local=INSIDE_HERE,
            remote=None,
            own_public_key=bytes(32),
            entropy=bytes,
            allowed=(IPv4Network("198.51.100.0/24"),),
        )
        (up,) = ups(make(), session(dials=True, local=theirs, remote=INSIDE_HERE))
        assert up.remote == theirs


class Bossy(Session):
    """Wants our first interface identifier to be another, and takes whatever comes next."""

    naks: ClassVar[list[PppFrame]] = []
    told = False

    def receive_ppp(self, protocol: int, information: bytes, now: float) -> None:
        if protocol == Protocol.IPV6CP and information[0] == Code.CONFIGURE_REQUEST and not self.told:
            self.told = True
            nak = bytes((Code.CONFIGURE_NAK,)) + information[1:6] + bytes(7) + b"\x09"
            self.naks.append(PppFrame(Protocol.IPV6CP, nak))
        else:
            super().receive_ppp(protocol, information, now)

    def transmits(self) -> list[ControlOut | PppFrame]:
        out = [*super().transmits(), *self.naks]
        self.naks.clear()
        return out


def test_a_peer_does_not_choose_our_interface_identifier() -> None:
    ours = session(dials=False, local=INSIDE_HERE, remote=INSIDE_THERE)
    peer = session(dials=True, local=INSIDE_THERE, remote=INSIDE_HERE)
    peer.__class__ = Bossy
    pair = Pair(ours, peer)
    pair.path_up()
    pair.run()
    (up,) = [event for event in pair.events[0] if isinstance(event, Ipv6Up)]
    assert up.local == interface_identifier(bytes(32))


def test_what_this_host_refuses_ends_the_session_with_its_sentence_and_no_more() -> None:
    siege = Siege()
    siege.handshake()
    siege.enter_hole()
    siege.machine.refuse("10.66.0.9 is taken", siege.now)
    siege.drain()
    (ended,) = [event for event in siege.events if isinstance(event, SessionEnded)]
    assert ended.cause == Terminated(TerminationCause.NOT_AGREED, "10.66.0.9 is taken"), f"seed {SEED}"
    siege.exchange.forget(siege.now)
    siege.handshake()
    states = [event.state for event in siege.events if isinstance(event, StateChanged)]
    assert states[-2:] == [PeerState.WAITING, PeerState.PUNCHING], "the peer may come again"


class StubbornNetconf:
    """Has an interface in the way of one network, and notices after half of the work."""

    def __init__(self, taken: IPv4Network) -> None:
        self.taken = taken
        self.plan: InterfacePlan | None = None

    def apply(self, plan: InterfacePlan) -> None:
        clash = self.taken in plan.routes
        self.plan = replace(plan, routes=()) if clash else plan
        if clash:
            raise AddressClash(f"a route to {self.taken} is there", "")


def test_an_address_that_clashes_leaves_the_interface_as_it_was() -> None:
    peer = Peer("attacker", bytes(32))
    interface = TunnelInterface(Profile("office", Interface("gp-office"), peers=(peer,)))
    netconf = StubbornNetconf(IPv4Network("192.168.1.1/32"))
    interface._netconf = netconf  # type: ignore[assignment]
    interface.peer_up("attacker", INSIDE_HERE, INSIDE_THERE)
    before = netconf.plan
    for local, remote in ((ELSEWHERE, IPv4Address("192.168.1.1")), (ELSEWHERE, ELSEWHERE)):
        with pytest.raises(Failure) as failed:
            interface.peer_up("attacker", local, remote)
        assert failed.value.verdict.kind is VerdictKind.ADDRESS_CLASH
        assert netconf.plan == before
    assert before is not None
    assert before.addresses == (IPv4Interface(INSIDE_HERE),)
    assert before.routes == (IPv4Network(INSIDE_THERE),)


def test_interface_identifiers_do_not_gather_on_the_interface() -> None:
    interface = TunnelInterface(Profile("office", Interface("gp-office"), peers=(Peer("attacker", bytes(32)),)))
    netconf = StubbornNetconf(IPv4Network("192.168.1.1/32"))
    interface._netconf = netconf  # type: ignore[assignment]
    interface.peer_up("attacker", INSIDE_HERE, INSIDE_THERE)
    for number in range(1, 10):
        interface.ipv6_up("attacker", bytes(7) + bytes([number]), bytes(8))
    assert netconf.plan is not None
    assert netconf.plan.addresses == (IPv4Interface(INSIDE_HERE), IPv6Interface("fe80::9/64"))
