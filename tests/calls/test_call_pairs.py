"""Our client against our server: every authentication, every encryption, good lines and bad ones."""

from __future__ import annotations

import pytest

from pptp.crypto.mppe_keys import Strength
from pptp.errors import Drop, Terminated, TerminationCause
from pptp.ordinary import (
    Admission,
    Authenticated,
    CallOver,
    CallUp,
    ControlUp,
    EncryptionUp,
    GreOut,
    Ipv4Up,
    Ipv6Up,
    NetworkDown,
)
from pptp.ppp.ccp import CcpPolicy
from pptp.wire.ppp import Protocol
from tests.calls.call_world import (
    CLIENT,
    CLIENT_ADDRESS,
    DNS,
    SERVER,
    SERVER_ADDRESS,
    USER,
    World,
    dialling,
    ip_packet,
    serving,
    stateful,
    stateless,
)

ENCRYPTIONS = {
    "128 stateless": stateless(),
    "128 stateful": stateful(),
    "56 stateless": stateless(Strength.BITS_56),
    "56 stateful": stateful(Strength.BITS_56),
    "40 stateless": stateless(Strength.BITS_40),
    "40 stateful": stateful(Strength.BITS_40),
}


def exchange(world: World, packets: int, *, until: float = 0.0, interval: float = 0.01) -> None:
    """Numbered packets both ways, one at a time."""
    for number in range(packets):
        for side in (SERVER, CLIENT):
            world.send_data(side, number)
        world.run(world.now + interval)
    world.run(world.now + max(until, 1.0))


def goodbye(world: World, side: int = CLIENT) -> None:
    """One end ends it all, and nothing is left."""
    world.ends[side].connection.close(world.now)
    world.run(world.now + 10)
    for each in world.ends:
        assert each.over
        assert each.call_ids.out == set()
        assert len(each.of(CallOver)) == len(each.of(CallUp))
        assert each.connection.deadline() is None


@pytest.mark.parametrize("side", [SERVER, CLIENT])
@pytest.mark.parametrize("method", ["pap", "chap", "mschapv2"])
def test_every_authentication_comes_up_and_says_goodbye(method: str, side: int) -> None:
    world = World(serving(method, mppe=None), dialling(method, mppe=None))
    world.run(2.0)
    assert world.up
    for each in world.ends:
        assert each.one(Authenticated) == Authenticated(each.call_id, USER, method)
        assert each.of(EncryptionUp) == []
    server, client = world.ends
    assert server.one(Ipv4Up) == Ipv4Up(server.call_id, SERVER_ADDRESS, CLIENT_ADDRESS, (), (), 1400)
    assert client.one(Ipv4Up) == Ipv4Up(client.call_id, CLIENT_ADDRESS, SERVER_ADDRESS, DNS, (), 1400)
    assert server.one(Ipv6Up).local == client.one(Ipv6Up).remote
    assert server.one(CallUp) == CallUp(server.call_id, client.call_id)
    exchange(world, 20)
    assert world.numbers(SERVER) == world.numbers(CLIENT) == list(range(20))
    goodbye(world, side)
    assert world.ends[side].cause is TerminationCause.LOCAL_REQUEST
    assert world.ends[1 - side].cause is TerminationCause.PEER_REQUEST


@pytest.mark.parametrize("name", ENCRYPTIONS)
def test_every_encryption_comes_up_and_carries(name: str) -> None:
    policy = ENCRYPTIONS[name]
    world = World(serving(mppe=policy), dialling(mppe=policy))
    world.run(2.0)
    assert world.up
    strength, mode = name.split()
    for each in world.ends:
        up = each.one(EncryptionUp)
        assert str(up.send) == str(up.receive) == f"{strength}-bit {mode}"
        assert each.one(Ipv4Up).mtu == 1396
        assert each.connection.status().calls[0].encryption == f"{strength}-bit {mode}"
    exchange(world, 300, interval=0.001)
    assert world.numbers(SERVER) == world.numbers(CLIENT) == list(range(300))
    wire = b"".join(out.packet for _, _, out in world.wire if isinstance(out, GreOut))
    assert not any(ip_packet(number) in wire for number in range(300))
    goodbye(world)


@pytest.mark.parametrize("name", ENCRYPTIONS)
def test_loss_costs_packets_and_nothing_else(name: str) -> None:
    """A late packet is put in order, and the one behind a lost one is found under the stream, stateful or not."""
    policy = ENCRYPTIONS[name]
    world = World(serving(mppe=policy), dialling(mppe=policy), seed=11)
    world.run(2.0)
    world.loss, world.duplication, world.reordering = 0.03, 0.02, 0.1
    exchange(world, 500)
    world.loss = world.duplication = world.reordering = 0.0
    for side in (SERVER, CLIENT):
        numbers = world.numbers(side)
        assert numbers == sorted(set(numbers))
        assert len(numbers) > 450
    world.ends[SERVER].received.clear()
    exchange(world, 100)
    assert len(world.numbers(SERVER)) > 90
    goodbye(world)


@pytest.mark.parametrize("seed", range(12))
def test_a_bad_line_only_delays(seed: int) -> None:
    method = ("pap", "chap", "mschapv2")[seed % 3]
    mppe = stateless() if method == "mschapv2" else None
    world = World(
        serving(method, mppe=mppe),
        dialling(method, mppe=mppe),
        seed=seed,
        loss=0.15,
        duplication=0.1,
        reordering=0.2,
    )
    world.run(60.0, lambda: world.up)
    assert world.up, world.ends[CLIENT].events
    world.loss = world.duplication = world.reordering = 0.0
    world.run(world.now + 1)
    exchange(world, 10)
    assert world.numbers(SERVER) == world.numbers(CLIENT) == list(range(10))
    goodbye(world)


@pytest.mark.parametrize("swapped", [0.0, 0.3])
@pytest.mark.parametrize("mppe", [None, stateless(), stateful()])
def test_no_frame_is_lost_that_comes_within_the_reorder_time(mppe: CcpPolicy | None, swapped: float) -> None:
    world = World(serving(mppe=mppe), dialling(mppe=mppe), seed=5)
    world.run(2.0)
    world.reordering, world.late = swapped, 0.25
    exchange(world, 1000, interval=0.002)
    assert world.numbers(SERVER) == world.numbers(CLIENT) == list(range(1000))


def test_nothing_is_sent_in_clear_before_required_encryption_is_up() -> None:
    """The owner has packets to send all the time, from the first moment on."""
    world = World(serving(), dialling(), seed=3, loss=0.1)
    while world.now < 20.0:
        for side in (SERVER, CLIENT):
            world.send_data(side, int(world.now * 100))
        world.run(world.now + 0.05)
    assert world.up
    for _, _, out in world.wire:
        assert not (isinstance(out, GreOut) and b"\x45\0\0\x54" in out.packet)
    waited = world.ends[SERVER].connection.status().calls[0].drops
    assert waited[Drop.WRONG_PHASE] + waited[Drop.CLEARTEXT] > 0


def test_events_come_in_the_order_of_the_session() -> None:
    world = World(serving(), dialling())
    world.run(2.0)
    for each in world.ends:
        kinds = [type(event) for event in each.events]
        order = [ControlUp, CallUp, Authenticated, EncryptionUp, Ipv4Up]
        assert [kind for kind in kinds if kind in order] == order


def test_a_packet_for_a_smaller_tunnel_is_dropped_and_counted() -> None:
    world = World(serving(), dialling())
    world.run(2.0)
    assert world.send_data(SERVER, 1, size=1396)
    assert not world.send_data(SERVER, 2, size=1397)
    world.run(3.0)
    assert world.numbers(CLIENT) == [1]
    status = world.ends[SERVER].connection.status().calls[0]
    assert status.drops[Drop.TOO_BIG] == 1
    assert (status.sent_packets, status.sent_octets) == (1, 1396)
    heard = world.ends[CLIENT].connection.status().calls[0]
    assert (heard.received_packets, heard.received_octets) == (1, 1396)


def test_ipv6_passes_and_can_be_left_out() -> None:
    world = World(serving(ipv6=False), dialling())
    world.run(2.0)
    assert world.up
    assert not world.send_data(CLIENT, 1, protocol=Protocol.IPV6)
    assert world.ends[CLIENT].of(Ipv6Up) == []


def test_the_dead_end_of_a_stream_ends_everything_at_once() -> None:
    world = World(serving(), dialling())
    world.run(2.0)
    for each in world.ends:
        each.connection.stream_closed(world.now)
    world.flush()
    for each in world.ends:
        assert each.over
        assert each.call_ids.out == set()
        assert each.one(CallOver).cause.cause is TerminationCause.PEER_REQUEST
        assert [event.protocol for event in each.of(NetworkDown)] == [Protocol.IPV4, Protocol.IPV6]
        assert isinstance(each.events[-1], Terminated)
    assert world.ends[SERVER].connection.receive_gre(b"\x30\x01\x88\x0b\0\0\x13\x88", world.now) == []


def test_one_call_can_be_ended_and_the_next_one_made() -> None:
    """The server lets the connection stand for a while; our client ends it with its call."""
    world = World(serving(), dialling())
    world.run(2.0)
    server = world.ends[SERVER]
    server.connection.close_call(server.call_id, world.now, Terminated(TerminationCause.TIMEOUT, "session time-out"))
    world.run(5.0)
    assert server.one(CallOver).cause == Terminated(TerminationCause.TIMEOUT, "session time-out")
    client = world.ends[CLIENT]
    assert client.cause is TerminationCause.PEER_REQUEST
    assert "session time-out" in client.one(Terminated).detail
    assert server.over


@pytest.mark.parametrize("cause", [TerminationCause.POOL_EXHAUSTED, TerminationCause.LIMIT_REACHED])
def test_a_refused_user_is_told_why(cause: TerminationCause) -> None:
    refusal = Terminated(cause, "no room for one more")
    asked: list[str] = []

    def refuse(call_id: int, user: str) -> Admission | Terminated:
        asked.append(user)
        return refusal

    world = World(serving(), dialling(), admit=refuse)
    world.run(10.0)
    server, client = world.ends
    assert asked == [USER]
    assert server.one(CallOver).cause == refusal
    assert client.cause is TerminationCause.PEER_REQUEST
    assert "no room for one more" in client.one(Terminated).detail
    assert server.one(Authenticated).user == USER
    assert server.of(Ipv4Up) == []
