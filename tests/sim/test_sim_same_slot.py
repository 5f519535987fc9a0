"""A peer that already has a GRE session with the address another host calls from: no punch, a plain word, the relay."""

from __future__ import annotations

import pytest

from grepunch.peer import PunchFailed
from grepunch.ports import RELAY, RelayPolicy
from tests.sim.peer_world import Host, World


def slot_failures(host: Host) -> list[PunchFailed]:
    return [event for event in host.of(PunchFailed) if isinstance(event, PunchFailed) and event.slot_taken]


@pytest.mark.parametrize("lower", ["a", "b"])
def test_neither_side_sends_a_probe_and_both_know_why(lower: str) -> None:
    world = World("G2", "G1", seed=3, lower=lower)
    world.server.slot_taken = lambda address: address == world.dialer.side.external
    world.start()
    world.run_for(30.0)
    for host in world.hosts.values():
        assert len(slot_failures(host)) == 1, world.story()
        assert host.sent == [], "a probe could take the other host's slot"
    assert not world.both_up()


@pytest.mark.parametrize("lower", ["a", "b"])
def test_the_relay_carries_the_link_until_the_slot_is_free(lower: str) -> None:
    world = World("G2", "G2", seed=4, lower=lower)
    world.meeting.relays = True
    for host in world.hosts.values():
        host.relay = RelayPolicy.AUTO
    taken = [True]
    world.server.slot_taken = lambda address: taken[0]
    world.start()
    world.come_up()
    world.run_for(10.0)
    assert all(host.machine.carrier is RELAY for host in world.hosts.values()), world.story()
    taken[0] = False
    world.run_for(60.0)
    assert all(host.machine.carrier not in (RELAY, None) for host in world.hosts.values()), world.story()


def test_the_slot_towards_another_address_is_another() -> None:
    world = World("G2", "G2", seed=5)
    world.server.slot_taken = lambda address: address != world.dialer.side.external
    world.start()
    world.come_up()
    assert not any(slot_failures(host) for host in world.hosts.values())
