"""What was recorded and is sent again: it costs a look, and never a tunnel."""

from __future__ import annotations

from grepunch.secure.constants import KEY_LIFETIME, MAX_PENDING, MAX_SPENT, REKEY_INITIATOR
from grepunch.secure.handshake import open_initiation
from pptp.errors import Drop
from tests.secure.exchange_world import Host, Link, World, initiations

SEED = 3
ROUND_TRIP = 1.2  # seconds; a replayer has that long to have the answer to a genuine message 1 pushed out


def recordings(count: int) -> tuple[World, dict[str, list[bytes]]]:
    """A world with live keys, and messages 1 of both sides from earlier in the same lives."""
    world = World(SEED, Link(delay=ROUND_TRIP / 2))
    recorded: dict[str, list[bytes]] = {"a": [], "b": []}
    for _ in range(count):
        for host in (world.a, world.b):
            for each in (world.a, world.b):
                each.start(world.now)
            world.recorded.clear()
            world.wire.clear()
            world.initiate(host)
            world.run_for(4.0)
            recorded[host.name].append(next(datagram for sender, datagram in initiations(world) if sender is host))
    for each in (world.a, world.b):
        each.start(world.now)
    world.wire.clear()
    world.initiate(world.a)
    world.run_for(4.0)
    assert world.agree(), f"seed {SEED}"
    return world, recorded


def test_replayed_messages_1_of_both_sides_do_not_outlast_the_keys() -> None:
    world, recorded = recordings(MAX_PENDING + 2)  # more than a side keeps answers to
    world.run_for(REKEY_INITIATOR - 10)  # until a renewal is what the replayer may spoil
    end, count = world.now + KEY_LIFETIME - REKEY_INITIATOR + 20, 0
    while world.now < end:
        world.run_for(ROUND_TRIP / (2 * MAX_PENDING))
        for victim, sender in ((world.b, "a"), (world.a, "b")):
            world.deliver(victim, recorded[sender][count % len(recorded[sender])])
        count += 1
        world.recorded.clear()
        assert world.a.exchange.current is not None, f"at {world.now:.0f}, seed {SEED}"
        assert world.b.exchange.live is not None, f"at {world.now:.0f}, seed {SEED}"


def answers(world: World, host: Host, message: bytes) -> int:
    """How many datagrams ``host`` answers a message 1 with."""
    before = len(world.recorded)
    host.exchange.receive_initiation(open_initiation(host.identity, message), world.now)
    world.flush(host)
    return len(world.recorded) - before


def test_a_message_1_is_answered_anew_where_the_session_was_given_up_meanwhile() -> None:
    world = World(SEED)
    world.initiate(world.a)
    (_, message), *_ = initiations(world)
    assert answers(world, world.b, message) == 1
    world.b.exchange.forget(world.now)
    assert answers(world, world.b, message) == 1


def test_what_is_remembered_of_replays_is_bounded() -> None:
    world = World(SEED)
    messages = []
    for _ in range(MAX_SPENT + MAX_PENDING + 1):
        world.recorded.clear()
        world.a.start(world.now)
        world.initiate(world.a)
        messages.append(initiations(world)[0][1])
        assert answers(world, world.b, messages[-1]) == 1
    assert answers(world, world.b, messages[1]) == 0
    assert world.b.exchange.drops[Drop.REPLAYED] == 1
    assert answers(world, world.b, messages[0]) == 1, "the oldest is forgotten"
