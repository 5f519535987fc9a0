"""What the server relays, and what it does not: not offered, nobody there, over a rate, over the day's volume."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from grepunch.io.framequeue import FrameQueue
from grepunch.rendezvous.broker import Tally
from grepunch.rendezvous.events import BlobReceived, FramesRelayed, PeerPresent, RelayUsedUp, Welcomed
from grepunch.rendezvous.limits import BrokerLimits, RelayLimits, TokenBucket
from grepunch.rendezvous.messages import (
    LARGEST_FRAME,
    MOST_FRAMES,
    SUBPROTOCOL,
    build_blob,
    build_relayed,
    count_frames,
    is_relayed,
    parse_blob,
    parse_relayed,
)
from grepunch.rendezvous.quota import REMEMBERED_FOR, Over, RelayQuota
from pptp.errors import WireCause, WireError
from tests.rendezvous.meeting_support import ALICE, BOB, MAILBOX, PLAIN, Peer, run, serving
from tests.rendezvous.rendezvous_world import Peer as SimulatedPeer
from tests.rendezvous.rendezvous_world import World, pair

RELAYING = BrokerLimits(relay=RelayLimits())


def relay(world: World, peer: SimulatedPeer, frame: bytes) -> None:
    message = peer.machine.relayed(MAILBOX, [frame])
    assert message is not None
    assert peer.connection is not None
    world.post(peer.delay, peer.connection, True, message)
    world.run(0.2)


@given(st.integers(1, 65535), st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=MOST_FRAMES))
@settings(max_examples=50)
def test_relayed_frames_are_read_as_they_were_built_and_never_taken_for_a_blob(
    handle: int, frames: list[bytes]
) -> None:
    message = build_relayed(handle, frames)
    assert is_relayed(message)
    assert parse_relayed(message) == (handle, frames)
    assert count_frames(message) == len(frames)
    assert not is_relayed(build_blob(handle, frames[0]))
    with pytest.raises(WireError):
        parse_blob(message)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (b"\0\0", WireCause.TRUNCATED),
        (b"\0\0\0\1", WireCause.TRUNCATED),
        (b"\0\0\0\1\0", WireCause.TRUNCATED),
        (b"\0\0\0\1\0\1", WireCause.TRUNCATED),
        (b"\0\0\0\1\0\2x", WireCause.TRUNCATED),
        (b"\0\0\0\1\0\1xy", WireCause.TRUNCATED),
        (b"\0\0\0\0\0\1x", WireCause.BAD_VALUE),
        (b"\0\1\0\1\0\1x", WireCause.BAD_VALUE),
        (b"\0\0\0\1\0\0x", WireCause.BAD_LENGTH),
        (b"\0\0\0\1" + (LARGEST_FRAME + 1).to_bytes(2, "big") + bytes(LARGEST_FRAME + 1), WireCause.BAD_LENGTH),
        (b"\0\0\0\1" + (MOST_FRAMES + 1) * b"\0\1x", WireCause.OVERSIZE),
    ],
)
def test_a_malformed_relayed_frame_is_refused(message: bytes, cause: WireCause) -> None:
    with pytest.raises(WireError) as caught:
        parse_relayed(message)
    assert caught.value.cause is cause


def test_frames_pass_both_ways_under_the_receivers_handle_and_the_greeting_tells_the_rate() -> None:
    world = World(limits=RELAYING)
    alice, bob = pair(world)
    assert [event.relay for event in alice.take(Welcomed)] == [1_000_000]
    relay(world, alice, b"one")
    relay(world, bob, b"two")
    assert bob.take(FramesRelayed) == [FramesRelayed(MAILBOX, (b"one",))]
    assert alice.take(FramesRelayed) == [FramesRelayed(MAILBOX, (b"two",))]
    assert world.broker.tallies[Tally.FRAMES_RELAYED] == 2
    assert world.broker.tallies[Tally.OCTETS_RELAYED] == 6


def test_a_server_that_does_not_relay_says_so_and_drops() -> None:
    world = World()
    alice, bob = pair(world)
    assert [event.relay for event in alice.take(Welcomed)] == [0]
    relay(world, alice, b"one")
    assert bob.take(FramesRelayed) == []
    assert world.broker.tallies[Tally.FRAMES_DROPPED_ABSENT] == 1


def test_a_frame_for_nobody_does_not_wait() -> None:
    world = World(limits=RELAYING)
    alice = world.peer()
    alice.machine.join(MAILBOX, ALICE, world.now)
    alice.connect()
    world.run(1.0)
    relay(world, alice, b"early")
    bob = world.peer("203.0.113.2")
    bob.machine.join(MAILBOX, BOB, world.now)
    bob.connect()
    world.run(1.0)
    assert bob.take(FramesRelayed) == []
    assert world.broker.queued_octets == 0


def test_a_frame_of_a_mailbox_that_is_not_joined_goes_nowhere() -> None:
    world = World(limits=RELAYING)
    _, bob = pair(world)
    mallory = world.peer("192.0.2.66")
    mallory.connect()
    world.run(1.0)
    assert mallory.machine.relayed(MAILBOX, [b"x"]) is None
    assert mallory.connection is not None
    for handle in range(1, 20):
        world.post(0.01, mallory.connection, True, build_relayed(handle, [b"x"]))
    world.run(1.0)
    assert bob.take(FramesRelayed) == []
    assert world.broker.tallies[Tally.FRAMES_DROPPED_ABSENT] == 19


def test_over_the_rate_frames_are_dropped_and_counted_and_the_rate_comes_through() -> None:
    world = World(limits=BrokerLimits(relay=RelayLimits.of_rate(10_000.0)))
    alice, bob = pair(world)
    assert alice.connection is not None
    for _ in range(100):
        message = alice.machine.relayed(MAILBOX, [bytes(1000)])
        assert message is not None
        world.post(0.01, alice.connection, True, message)
        world.run(0.02)
    passed, dropped = len(bob.take(FramesRelayed)), world.broker.tallies[Tally.FRAMES_DROPPED_RATE]
    assert passed + dropped >= 99
    assert 20 <= passed <= 23, "two seconds at ten a second, and the burst"


def test_of_frames_that_come_together_those_within_the_rate_go_on_together() -> None:
    world = World(limits=BrokerLimits(relay=RelayLimits.of_rate(10_000.0)))
    alice, bob = pair(world)
    message = alice.machine.relayed(MAILBOX, [bytes([number]) * 1000 for number in range(5)])
    assert message is not None
    assert alice.connection is not None
    world.post(alice.delay, alice.connection, True, message)
    world.run(0.2)
    assert bob.take(FramesRelayed) == [FramesRelayed(MAILBOX, (bytes(1000), b"\1" * 1000))], "the burst is 2500"
    assert world.broker.tallies[Tally.FRAMES_DROPPED_RATE] == 3


def test_a_short_frame_is_charged_as_what_it_costs() -> None:
    world = World(limits=BrokerLimits(relay=RelayLimits.of_rate(10_000.0)))
    alice, bob = pair(world)
    for _ in range(4):
        message = alice.machine.relayed(MAILBOX, [b"x"] * MOST_FRAMES)
        assert message is not None
        assert alice.connection is not None
        world.post(0.0, alice.connection, True, message)
    world.run(0.1)
    came = [frame for event in bob.take(FramesRelayed) for frame in event.frames]
    assert 19 <= len(came) <= 27, "a burst of 2500 octets, and a tenth of a second, in frames of 128"


def test_a_source_cannot_have_more_by_joining_more() -> None:
    quota = RelayQuota(RelayLimits.of_rate(1000.0))
    source = quota.source_account(0.0)
    granted = 0
    for number in range(50):
        side = quota.side_account(0.0)
        while quota.take(b"%16d" % number, side, source, 50, 0.0) is None:
            granted += 50
    assert granted == 1000


def test_everyone_together_gets_what_the_server_has() -> None:
    quota = RelayQuota(RelayLimits.of_rate(1000.0))
    granted = 0
    for number in range(50):
        side, source = quota.side_account(0.0), quota.source_account(0.0)
        while quota.take(b"%16d" % number, side, source, 50, 0.0) is None:
            granted += 50
    assert granted == 2000


def test_when_the_days_volume_is_used_up_both_are_told_once_and_told_again_when_they_return() -> None:
    world = World(limits=BrokerLimits(relay=replace(RelayLimits(), volume_per_mailbox=2500)))
    alice, bob = pair(world)
    for _ in range(5):
        relay(world, alice, bytes(1000))
    assert len(bob.take(FramesRelayed)) == 3
    assert alice.take(RelayUsedUp) == bob.take(RelayUsedUp) == [RelayUsedUp(MAILBOX)]
    assert world.broker.tallies[Tally.FRAMES_DROPPED_VOLUME] == 2
    alice.close()
    bob.close()
    world.run(1.0)
    alice.connect()
    world.run(1.0)
    assert len(alice.take(RelayUsedUp)) == 2, "leaving does not give the volume back"


def plenty(now: float) -> TokenBucket:
    return TokenBucket((1e9, 1e9), now)


def test_the_memory_of_volumes_has_a_cap_and_yesterdays_are_forgotten() -> None:
    quota = RelayQuota(replace(RelayLimits(), volumes_kept=4, volume_per_mailbox=10))
    for number in range(4):
        assert quota.take(b"%16d" % number, plenty(0.0), plenty(0.0), 10, 0.0) is None
    later = REMEMBERED_FOR + 1.0
    assert quota.take(b"another", plenty(later), plenty(later), 1, later) is None
    assert not any(quota.spent(b"%16d" % number) for number in range(4))


def test_mailboxes_made_to_fill_the_memory_keep_nobody_out_and_reset_no_account() -> None:
    kept = 100
    quota = RelayQuota(replace(RelayLimits(), volumes_kept=kept, volume_per_mailbox=1000))
    spent, honest = b"spent", b"honest"
    assert quota.take(spent, plenty(0.0), plenty(0.0), 1000, 0.0) is None
    assert quota.take(honest, plenty(0.0), plenty(0.0), 500, 0.0) is None
    for number in range(10 * kept):
        assert quota.take(b"%16d" % number, plenty(0.0), plenty(0.0), 1, 1.0) is None
    assert quota.take(b"newcomer", plenty(2.0), plenty(2.0), 1, 2.0) is None
    assert quota.take(spent, plenty(2.0), plenty(2.0), 1, 2.0) is Over.VOLUME
    assert quota.take(honest, plenty(2.0), plenty(2.0), 500, 2.0) is None
    assert quota.spent(honest)
    assert quota.remembered <= kept


def test_frames_cross_a_real_server_beside_blobs() -> None:
    async def test() -> None:
        async with (
            serving(replace(PLAIN, limits=RELAYING)) as port,
            Peer(f"ws://127.0.0.1:{port}", ALICE) as alice,
            Peer(f"ws://127.0.0.1:{port}", BOB) as bob,
        ):
            await alice.wait_for(PeerPresent)
            assert alice.client.relay(MAILBOX, b"frame")
            alice.client.send(MAILBOX, b"blob")
            assert (await bob.wait_for(FramesRelayed)).frames == (b"frame",)
            assert (await bob.wait_for(BlobReceived)).payload == b"blob"
            bob.seen.clear()
            for number in range(MOST_FRAMES + 2):
                assert alice.client.relay(MAILBOX, bytes([number]))
            together = (await bob.wait_for(FramesRelayed)).frames, (await bob.wait_for(FramesRelayed, 2)).frames
            assert together == (tuple(bytes([n]) for n in range(MOST_FRAMES)), (bytes([16]), bytes([17])))
            assert not alice.client.relay(b"n" * 16, b"frame")
            assert not alice.client.relay(MAILBOX, bytes(LARGEST_FRAME + 1))

    run(test())


def test_a_frame_for_a_connection_that_has_just_been_lost_is_dropped_and_counted() -> None:
    """Its socket is closed, and its number may be another's by now."""

    async def test() -> None:
        async with (
            serving(replace(PLAIN, limits=RELAYING)) as port,
            Peer(f"ws://127.0.0.1:{port}", ALICE) as alice,
            connect(f"ws://127.0.0.1:{port}", subprotocols=[Subprotocol(SUBPROTOCOL)]) as lost,
        ):
            await alice.wait_for(Welcomed)
            frames = FrameQueue(lost, lambda: 0.0, count_frames)
            lost.transport.abort()
            for _ in range(3):  # the loop closes the socket in a later round than the abort
                await asyncio.sleep(0)
            assert lost.transport.get_extra_info("socket").fileno() < 0
            frames.send(build_relayed(1, [b"one", b"two"]))
            assert frames.dropped == 2
            frames.close()

    run(test())


def test_a_sender_that_is_faster_than_its_connection_drops_the_oldest() -> None:
    """A burst in one go: more than the socket takes at once, and more than may wait."""

    async def test() -> None:
        limits = BrokerLimits(relay=RelayLimits.of_rate(1e9))
        async with (
            serving(replace(PLAIN, limits=limits)) as port,
            Peer(f"ws://127.0.0.1:{port}", ALICE) as alice,
            Peer(f"ws://127.0.0.1:{port}", BOB) as bob,
        ):
            await alice.wait_for(PeerPresent)
            for number in range(20_000):
                alice.client.relay(MAILBOX, number.to_bytes(4, "big") + bytes(1400))
            await bob.wait_for(FramesRelayed)
            await asyncio.sleep(0.3)
            came = [
                int.from_bytes(frame[:4], "big")
                for event in bob.seen
                if isinstance(event, FramesRelayed)
                for frame in event.frames
            ]
            assert came == sorted(came)
            assert alice.client.frames_dropped > 10_000
            assert len(came) + alice.client.frames_dropped <= 20_000

    run(test())
