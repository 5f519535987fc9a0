"""The relay: a link starts on it, leaves it for GRE without losing a packet, and is back when GRE dies."""

from __future__ import annotations

import pytest

from grepunch.peer import CarrierChanged, PeerState, PunchFailed
from grepunch.ports import RELAY, Form, RelayPolicy
from tests.sim.peer_world import INNER, Host, World
from tests.sim.test_sim_coming_up import NO_COMMON_FORM

BLOCKED = tuple(sorted(next(iter(NO_COMMON_FORM))))  # a pair of NATs that no form passes


def relaying(class_a: str = "G2", class_b: str = "G2", *, seed: int = 1, **options: object) -> World:
    """Two hosts that both want the relay, and a rendezvous that has one."""
    world = World(class_a, class_b, seed=seed, **options)  # type: ignore[arg-type]
    world.meeting.relays = True
    for host in world.hosts.values():
        host.relay = RelayPolicy.AUTO
    return world


def on_relay(world: World) -> bool:
    return all(host.machine.carrier is RELAY for host in world.hosts.values())


def direct(world: World) -> bool:
    return all(host.machine.carrier not in (RELAY, None) for host in world.hosts.values())


def numbers(host: Host, of: str) -> list[int]:
    """The numbers of the counted packets of ``of`` that came out at ``host``, as they came."""
    return [int(payload.split()[1]) for payload in host.received if payload.startswith(of.encode() + b" ")]


def nothing_missing(world: World, count: int) -> None:
    """Every counted packet of both came out exactly once."""
    for host, other in ((world.server, "a"), (world.dialer, "b")):
        assert sorted(numbers(host, other)) == list(range(count)), world.story()


def block_gre(world: World, *names: str) -> None:
    """From now on nothing that these hosts send over GRE arrives."""
    world.gre_lost = lambda host, send: host.name in names


def test_a_pair_that_gre_cannot_join_is_up_over_the_relay_in_a_second() -> None:
    world = relaying(*BLOCKED)
    world.start()
    assert world.come_up() < 1.5, world.story()
    world.traffic(3.0)
    world.run_for(40.0)
    assert on_relay(world), world.story()
    nothing_missing(world, 30)
    for host in world.hosts.values():
        assert host.states().count(PeerState.UP) == 1
        assert PeerState.REPAIRING not in host.states()
        assert host.of(PunchFailed), "punching went on meanwhile"
        assert host.machine.relay.rtt == pytest.approx(8 * world.meeting.delay / 2, rel=0.5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [("G2", "G2"), ("G13", "G1"), ("G0", "G15")])
def test_the_link_moves_from_the_relay_to_gre_without_losing_or_repeating_a_packet(
    classes: tuple[str, str], seed: int
) -> None:
    world = relaying(*classes, seed=seed)
    world.gre_lost = lambda host, send: world.now < 2.0  # so that it begins on the relay
    world.start()
    world.come_up()
    assert on_relay(world), world.story()
    world.traffic(10.0, interval=0.02)
    world.run(40.0, lambda: direct(world))
    assert direct(world), world.story()
    world.run_for(9.0)
    assert direct(world), world.story()
    nothing_missing(world, 500)
    for host in world.hosts.values():
        first = next(event for event in host.of(CarrierChanged) if isinstance(event, CarrierChanged))
        assert first.form is None, world.story()
        assert PeerState.REPAIRING not in host.states()


def test_nothing_more_is_relayed_once_the_path_is_direct() -> None:
    world = relaying()
    world.start()
    world.come_up()
    world.run(30.0, lambda: direct(world))
    world.run_for(1.0)
    before = [len(host.relayed) for host in world.hosts.values()]
    world.traffic(20.0)
    world.run_for(21.0)
    assert [len(host.relayed) for host in world.hosts.values()] == before, world.story()


@pytest.mark.parametrize("blocked", ["ab", "a", "b"])
@pytest.mark.parametrize("traffic", ["ab", "a", ""])
def test_when_gre_dies_the_relay_has_the_link_within_seconds_and_gives_it_back(blocked: str, traffic: str) -> None:
    world = relaying()
    world.start()
    world.come_up()
    world.run(30.0, lambda: direct(world))
    assert direct(world), world.story()
    died = world.now
    block_gre(world, *blocked)
    world.traffic(30.0, interval=0.05, names=traffic or "")
    world.run(died + 30.0, lambda: on_relay(world))
    assert on_relay(world), world.story()
    assert world.now - died < (4.5 if traffic == "ab" and blocked == "ab" else 14.0), world.story()
    world.traffic(3.0, names="ab")
    world.run_for(3.5)
    for host in world.hosts.values():
        assert PeerState.REPAIRING not in host.states(since=died), world.story()
    block_gre(world)
    world.run_for(70.0)
    assert direct(world), world.story()
    for host, other in ((world.server, "a"), (world.dialer, "b")):
        seen = numbers(host, other)
        assert host.up
        if not traffic:
            assert sorted(seen) == list(range(30)), world.story()


def test_a_peer_that_does_not_want_the_relay_gets_nothing_over_it() -> None:
    for policy in (RelayPolicy.NEVER, RelayPolicy.ASK):
        world = relaying(*BLOCKED)
        world.server.relay = policy
        world.start()
        world.run_for(40.0)
        assert not world.both_up(), world.story()
        assert not any(host.relayed for host in world.hosts.values())
        assert "the peer's profile" in world.dialer.machine.relay.obstacle
        world.server.pump.relayed(world.server.traffic, b"\x00\x53" + bytes(40))
        assert sum(world.server.traffic.drops.values()) == 1


def test_a_relay_that_lets_every_frame_fall_is_told_from_one_that_works() -> None:
    world = relaying(*BLOCKED)
    world.start()
    world.come_up()
    world.run_for(20.0)
    world.frame_lost = lambda host, frame: True
    world.run_for(25.0)
    assert {host.machine.state for host in world.hosts.values()} == {PeerState.REPAIRING}, world.story()
    assert "fall" in world.dialer.machine.relay.obstacle
    world.frame_lost = lambda host, frame: False
    world.run_for(10.0)
    assert world.both_up(), world.story()


def test_a_rendezvous_that_goes_takes_the_relay_along_and_brings_it_back() -> None:
    world = relaying(*BLOCKED)
    world.start()
    world.come_up()
    world.stop_meeting()
    world.run_for(5.0)
    assert {host.machine.state for host in world.hosts.values()} == {PeerState.REPAIRING}, world.story()
    world.restart_meeting()
    world.run_for(3.0)
    assert world.both_up(), world.story()
    assert on_relay(world), world.story()


def test_a_rendezvous_that_goes_does_not_trouble_a_direct_path() -> None:
    world = relaying()
    world.start()
    world.come_up()
    world.run(30.0, lambda: direct(world))
    world.stop_meeting()
    world.traffic(20.0)
    world.run_for(21.0)
    assert world.both_up(), world.story()
    nothing_missing(world, 200)


def test_keys_change_on_the_relay_and_the_link_lives() -> None:
    world = relaying(*BLOCKED)
    world.start()
    world.come_up()
    world.traffic(420.0, interval=0.5)
    world.run_for(421.0)
    assert on_relay(world), world.story()
    nothing_missing(world, 840)


def test_a_peer_that_starts_anew_is_back_on_the_relay() -> None:
    world = relaying(*BLOCKED)
    world.start()
    world.come_up()
    world.kill(world.server)
    world.run_for(1.0)
    world.start_host(world.server)
    world.run_for(5.0)
    assert world.both_up(), world.story()
    world.traffic(1.0)
    world.run_for(2.0)
    assert len(numbers(world.server, "a")) == 10, world.story()


def test_a_server_that_swaps_replays_and_reflects_frames_harms_nobody() -> None:
    world = relaying(*BLOCKED)
    world.start()
    world.come_up()
    world.traffic(2.0)
    world.run_for(3.0)
    a, b = world.dialer, world.server
    seen = {name: len(host.tun.written) for name, host in world.hosts.items()}
    for host, other in ((a, b), (b, a)):
        for _, frame in host.relayed:
            other.pump.relayed(other.traffic, frame)  # again
            host.pump.relayed(host.traffic, frame)  # to its own sender
            other.pump.relayed(other.traffic, frame[:-1] + bytes([frame[-1] ^ 1]))
        for number in range(200):
            host.pump.relayed(host.traffic, world.random.randbytes(number))
    assert {name: len(host.tun.written) for name, host in world.hosts.items()} == seen
    world.traffic(1.0)
    world.run_for(2.0)
    assert world.both_up(), world.story()
    assert len(numbers(a, "b")) == 30, world.story()


def test_a_frame_of_another_peers_mailbox_is_dropped_although_it_is_authentic() -> None:
    world = relaying(*BLOCKED)
    world.start()
    world.come_up()
    world.send_data(world.dialer, b"a 1")
    _, frame = world.dialer.relayed[-1]
    strangers = type(world.server.traffic)("stranger", world.server.machine)
    before = len(world.server.tun.written)
    world.server.pump.relayed(strangers, frame)
    assert len(world.server.tun.written) == before
    assert INNER["a"] is not None
    world.run_for(1.0)
    assert numbers(world.server, "a") == [1], "the right mailbox brings it all the same"


def test_the_preferred_form_is_still_v1_after_the_relay() -> None:
    world = relaying()
    world.start()
    world.come_up()
    world.run(30.0, lambda: direct(world))
    assert {host.machine.hole[1] for host in world.hosts.values() if host.machine.hole} == {Form.V1}
