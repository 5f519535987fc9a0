"""What a live session survives: NATs that forget, addresses that change, hosts that move or sleep."""

from __future__ import annotations

import itertools

import pytest

from grepunch.peer import SessionEnded
from grepunch.ports import RELAY, RelayPolicy
from tests.sim.moving import new_external_address, roam
from tests.sim.peer_world import Host, World, connected


def back_after(world: World, limit: float) -> float:
    """Seconds until data sent after now has arrived on both sides, with some under way all the time."""
    began = world.now
    mark = {name: b"%s after" % name.encode() for name in "ab"}

    def send(host: Host) -> None:
        if not host.asleep:
            world.send_data(host, mark[host.name])

    for number in range(int(limit / 0.1)):
        for host in world.hosts.values():
            world.at(began + 0.1 * number, lambda host=host: send(host))  # type: ignore[misc]

    def arrived(host: Host) -> bool:
        return mark[world.other_host(host).name] in host.received

    world.run(began + limit, lambda: all(arrived(host) for host in world.hosts.values()))
    assert all(arrived(host) for host in world.hosts.values()), f"not back in {limit} s\n{world.story()}"
    return world.now - began


def session_lived(world: World) -> None:
    for host in world.hosts.values():
        assert not host.of(SessionEnded), world.story()


@pytest.mark.parametrize("kind", ["G0", "G1", "G2", "G12", "G15"])
@pytest.mark.parametrize("names", ["a", "b", "ab"])
def test_a_tunnel_with_traffic_is_back_at_once_when_a_nat_has_forgotten(kind: str, names: str) -> None:
    world = connected(kind, "G2", seed=11)
    world.traffic(3.0)
    world.run_for(1.5)
    world.flush_nats(*names)
    assert back_after(world, 10.0) < 5.0, world.story()
    session_lived(world)


def back_after_losing_the_race(world: World, name: str, limit: float = 100.0) -> float:
    """The NAT of host ``name`` forgets everything just before something of the peer's comes, and both go on sending:
    seconds until something arrives on both sides again."""
    host = world.hosts[name]
    peer = world.other_host(host)
    for number in range(1200):
        for sender, later in ((peer, 0.0), (host, 0.05)):
            send = lambda sender=sender: world.send_data(sender, b"steady")  # noqa: E731
            world.at(world.now + 0.1 * number + later, send)
    world.run_for(1.01)  # the peer's next packet is 90 ms away, and the host's own comes 50 ms after that
    world.flush_nats(name)
    world.run_for(0.02)  # nothing is under way any more
    began, before = world.now, {host.name: len(host.received) for host in world.hosts.values()}
    world.run(began + limit, lambda: all(len(host.received) > before[host.name] for host in world.hosts.values()))
    return world.now - began


@pytest.mark.parametrize(("kinds", "name"), [(("G13S", "G2"), "a"), (("G2", "G13S"), "b"), (("G13S", "G13S"), "a")])
def test_a_nat_that_took_the_peers_packets_for_its_own_is_waited_for(kinds: tuple[str, str], name: str) -> None:
    world = connected(*kinds, seed=18)
    took = back_after_losing_the_race(world, name)
    assert took > 30.0, "such a NAT lets nothing out for 30 s, or this test tries something else"
    assert took < 37.0, world.story()  # the silence that shows it, those 30 s, and one slow interval of probes
    session_lived(world)


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("seconds", [12.0, 40.0, 75.0])
def test_an_outage_in_one_direction_that_looks_like_a_shut_in_peer_ends_when_it_ends(name: str, seconds: float) -> None:
    world = connected("G2", "G2", seed=20)
    world.traffic(seconds + 20.0)
    world.run_for(1.0)
    world.gre_lost = lambda host, send: host.name == name
    world.run_for(seconds)
    world.gre_lost = lambda host, send: False
    assert back_after(world, 60.0) < 5.0, world.story()
    session_lived(world)


def test_a_shut_in_peer_is_met_at_once_on_the_relay_where_that_is_allowed() -> None:
    world = World("G13S", "G2", seed=19)
    world.meeting.relays = True
    for host in world.hosts.values():
        host.relay = RelayPolicy.AUTO
    world.start()
    world.come_up()
    world.run_for(3.0)
    assert back_after_losing_the_race(world, "a") < 5.0, world.story()
    world.run_for(35.0)
    assert {host.machine.carrier for host in world.hosts.values()}.isdisjoint({RELAY, None}), world.story()
    session_lived(world)


@pytest.mark.parametrize("names", ["a", "b", "ab"])
def test_an_idle_tunnel_is_back_with_the_next_keepalives_when_a_nat_has_forgotten(names: str) -> None:
    world = connected("G2", "G2", seed=12)
    world.flush_nats(*names)
    world.run_for(9.0)  # a keepalive and 5 s
    assert back_after(world, 10.0) < 0.5, world.story()
    session_lived(world)


CHANGES = list(itertools.product([("G2", "G2"), ("G13", "G2"), ("G15", "G1"), ("G0", "G2")], ["a", "b", "ab"]))


@pytest.mark.parametrize(("kinds", "names"), CHANGES)
@pytest.mark.parametrize("busy", [True, False])
def test_a_new_external_address_is_found_out_and_told(kinds: tuple[str, str], names: str, busy: bool) -> None:
    world = connected(*kinds, seed=13)
    moving = [name for name in names if world.hosts[name].side.nats[-1].translates]
    for name in moving:
        new_external_address(world, world.hosts[name], 100 + ord(name))
    if not busy:
        world.run_for(9.9)
    assert back_after(world, 20.0) < (10.0 if busy else 0.2), world.story()
    session_lived(world)
    for host in world.hosts.values():
        assert host.machine.hole is not None
        assert host.machine.hole[0] == world.other_host(host).side.external


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize(("from_", "to"), [("G2", "G2"), ("G15", "G0"), ("G0", "G15"), ("G1", "G13")])
def test_a_host_that_roams_is_back_within_three_seconds(from_: str, to: str, name: str) -> None:
    world = connected(from_, from_, seed=14)
    world.traffic(1.0)
    world.run_for(0.5)
    roam(world, world.hosts[name], to, 7)
    assert back_after(world, 10.0) < 3.0, world.story()
    session_lived(world)


def test_an_open_peer_is_reached_from_a_new_place_without_any_rendezvous() -> None:
    world = connected("G2", "G2", seed=15)
    world.server.side.address = world.server.side.external
    world.server.side.nats.clear()
    world.stop_meeting()
    world.run_for(1.0)
    roam(world, world.dialer, "G2", 7)
    assert back_after(world, 10.0) < 3.0, world.story()
    session_lived(world)


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("seconds", [5.0, 20.0, 60.0, 110.0])
@pytest.mark.parametrize("busy", [True, False])
def test_a_host_that_slept_is_back_within_two_seconds(name: str, seconds: float, busy: bool) -> None:
    world = connected("G2", "G2", seed=int(seconds))
    if busy:
        world.traffic(seconds + 1.0, interval=0.5)
    world.suspend(world.hosts[name], seconds)
    world.run_for(seconds)
    assert back_after(world, 10.0) < 2.0, world.story()
    world.run_for(5.0)
    session_lived(world)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_host_that_slept_longer_than_keys_live_begins_anew_by_itself(name: str) -> None:
    world = connected("G2", "G2", seed=16)
    world.suspend(world.hosts[name], 900.0)
    world.run_for(900.0)
    assert back_after(world, 20.0) < 5.0, world.story()


def test_an_outage_of_every_way_ends_nothing_before_the_keys() -> None:
    world = connected("G2", "G2", seed=17)
    world.stop_meeting()
    world.gre_lost = lambda host, send: True
    world.run_for(100.0)
    session_lived(world)
    world.gre_lost = lambda host, send: False
    world.restart_meeting()
    assert back_after(world, 60.0) < 40.0, world.story()
    session_lived(world)
