"""Two key exchanges on a virtual clock: renewal, restarts, and the end of keys."""

from __future__ import annotations

import pytest

from grepunch.secure.constants import (
    CONFIRM_INTERVAL,
    CONFIRM_TIMEOUT,
    KEY_LIFETIME,
    MAX_PENDING,
    PENDING_LIFETIME,
    REKEY_FRAMES,
    REKEY_INITIATOR,
    REKEY_RESPONDER,
    RETRANSMIT_DELAYS,
)
from grepunch.secure.events import (
    ExchangeFailed,
    FailureReason,
    KeysDropped,
    KeysLive,
    KeysReady,
)
from pptp.errors import Drop, DropError
from pptp.wire.sealed import is_sealed
from tests.secure.exchange_world import Link, World, connected, initiations

ATTEMPT = sum(RETRANSMIT_DELAYS)


@pytest.mark.parametrize("initiator", ["a", "b"])
def test_the_initiator_renews_at_120_s_and_keys_receive_until_180(initiator: str) -> None:
    world = connected(13, initiator=initiator)
    begun = world.now
    asking = world.a if initiator == "a" else world.b
    first = asking.exchange.live
    assert first is not None
    world.run_for(REKEY_INITIATOR - 2.5)
    assert not world.recorded
    world.run_for(3)
    assert {host for host, _ in initiations(world)} == {asking}
    assert world.agree()
    assert asking.exchange.live is not first
    assert first.local_index in asking.exchange.pairs
    (live,) = asking.of(KeysLive)
    assert isinstance(live, KeysLive)
    assert not live.new_session
    world.run(begun + KEY_LIFETIME)
    assert first.local_index not in asking.exchange.pairs
    assert KeysDropped(first.local_index) in asking.log
    assert len(world.a.indices.taken) == len(world.b.indices.taken) == 1


def test_the_other_side_renews_at_140_s() -> None:
    world = connected(14, initiator="a")
    begun = world.now
    real = world.a.exchange.initiate
    world.a.exchange.initiate = lambda now: None  # type: ignore[method-assign]
    world.run(begun + REKEY_RESPONDER - 3)
    assert not world.recorded
    world.run(begun + REKEY_RESPONDER + 2)
    assert {host for host, _ in initiations(world)} == {world.b}
    assert world.agree()
    world.a.exchange.initiate = real  # type: ignore[method-assign]


def test_many_frames_renew_the_keys_early() -> None:
    world = connected(15, initiator="a")
    pair = world.b.exchange.live
    assert pair is not None
    pair.sent_frames = REKEY_FRAMES
    world.send_data(world.b, b"one too many")
    world.run_for(15)
    assert len(world.a.of(KeysLive)) == 1
    assert world.agree()


def test_nothing_is_lost_over_many_renewals() -> None:
    """Frames flow both ways at random times, timers renew, owners renew as well: every frame arrives."""
    seed = 16
    world = World(seed, Link(delay=0.05, jitter=0.15))  # reorders, so frames under old keys arrive after new ones
    world.initiate(world.a)
    world.run_for(2)
    assert world.agree()
    expected: dict[str, list[bytes]] = {"a": [], "b": []}
    renewals = 0
    for number in range(6000):
        sender = world.a if world.rng.random() < 0.5 else world.b
        data = number.to_bytes(4, "big")
        assert world.send_data(sender, data), f"seed {seed}"
        expected[world.other(sender).name].append(data)
        if world.rng.random() < 0.02:
            world.initiate(world.a if world.rng.random() < 0.5 else world.b)
        world.run_for(world.rng.random() * 0.3)
    world.run_for(5)
    renewals = len(world.a.of(KeysLive))
    assert renewals > 60, f"seed {seed}: {renewals}"
    for host in (world.a, world.b):
        assert sorted(host.received) == expected[host.name], f"seed {seed}"
        assert not host.drops, f"seed {seed}: {host.drops}"
        assert not any(event.new_session for event in host.of(KeysLive)[1:] if isinstance(event, KeysLive))
        assert not host.of(ExchangeFailed), f"seed {seed}"
        assert len(host.exchange.pairs) <= 1 + 3 + MAX_PENDING
    assert world.agree(), f"seed {seed}"


def test_what_was_dropped_under_keys_stays_counted_when_they_are_gone() -> None:
    world = connected(15, initiator="a")
    pair = world.b.exchange.live
    assert pair is not None
    with pytest.raises(DropError):
        pair.open(b"\x00\x53" + pair.local_index.to_bytes(4, "big") + (1000).to_bytes(8, "big") + bytes(40))
    for _ in range(5):
        world.run_for(REKEY_INITIATOR)
        assert world.b.exchange.drops[Drop.BAD_TAG] == 1
    assert pair.local_index not in world.b.exchange.pairs


@pytest.mark.parametrize("seed", range(8))
def test_renewals_over_a_lossy_link_lose_no_more_than_the_link(seed: int) -> None:
    world = World(seed, Link(loss=0.2, duplication=0.1, delay=0.03, jitter=0.1))
    world.initiate(world.b)
    world.run_for(ATTEMPT)
    expected = 0
    for _ in range(1200):
        expected += world.send_data(world.a, b"data") + world.send_data(world.b, b"data")
        world.run_for(0.5)
    world.run_for(2)
    unknown = world.a.drops["unknown"] + world.b.drops["unknown"]
    assert unknown == 0, f"seed {seed}: {unknown} frames under keys the receiver had not"
    assert len(world.a.received) + len(world.b.received) > 0.75 * expected, f"seed {seed}"
    assert world.agree(), f"seed {seed}"
    assert all(not event.new_session for event in world.a.of(KeysLive)[1:] if isinstance(event, KeysLive))


def test_a_restarted_peer_is_a_new_session_and_the_old_one_dies_with_its_first_frame() -> None:
    world = connected(17, initiator="a")
    old = world.b.exchange.live
    assert old is not None
    world.a.start(world.now)
    world.initiate(world.a)
    world.run_for(0.021)
    assert world.b.exchange.live is old  # message 1 alone changes nothing
    world.run_for(1)
    assert world.agree()
    live = next(event for event in world.b.log if isinstance(event, KeysLive))
    assert live.new_session
    assert old.local_index not in world.b.exchange.pairs
    assert world.b.log.index(KeysDropped(old.local_index)) < world.b.log.index(live)


def test_a_restarted_responder_is_a_new_session_for_the_initiator_too() -> None:
    world = connected(18, initiator="a")
    world.b.start(world.now)
    assert world.b.exchange.live is None
    world.initiate(world.a)
    world.run_for(1)
    ready = next(event for event in world.a.log if isinstance(event, KeysReady))
    assert ready.new_session
    assert ready.initiator
    assert world.agree()


def test_replaying_a_whole_old_handshake_changes_nothing() -> None:
    world = World(19)
    world.initiate(world.a)
    world.run_for(1)
    recording = [datagram for host, datagram in world.recorded if host is world.a]
    for restart in (False, True):
        if restart:
            world.b.start(world.now)
        live = world.b.exchange.live
        for _ in range(3):
            for datagram in recording:
                world.deliver(world.b, datagram)
        assert world.b.exchange.live is live
        assert not world.b.received
        world.run_for(PENDING_LIFETIME + 1)
        assert len(world.b.exchange.pairs) == (0 if restart else 1)


def test_keys_that_cannot_be_renewed_die_at_180_s_and_the_session_with_them() -> None:
    world = connected(20, initiator="a")
    ids = world.a.exchange.session_id, world.b.exchange.session_id
    world.link.loss = 1.0
    world.run_for(KEY_LIFETIME)
    for host, session_id in zip((world.a, world.b), ids, strict=True):
        assert host.exchange.current is None
        assert not host.exchange.pairs
        assert host.exchange.session_id != session_id
        assert host.of(ExchangeFailed)
    world.link.loss = 0.0
    world.initiate(world.a)
    world.run_for(ATTEMPT)
    assert world.agree()
    for host in (world.a, world.b):
        live = [event for event in host.of(KeysLive) if isinstance(event, KeysLive)]
        assert [event.new_session for event in live] == [True]


def test_a_side_that_lost_its_keys_alone_makes_it_a_new_session_for_both() -> None:
    world = connected(21, initiator="a")
    world.a.exchange.forget(world.now)
    world.flush(world.a)
    assert world.a.exchange.current is None
    world.initiate(world.a)
    world.run_for(1)
    assert world.agree()
    for host in (world.a, world.b):
        live = [event for event in host.of(KeysLive) if isinstance(event, KeysLive)]
        assert [event.new_session for event in live] == [True]


def test_first_keys_nobody_uses_are_given_up_under_another_session_id() -> None:
    world = World(22)
    session_id = world.a.exchange.session_id
    world.initiate(world.a)
    world.run_for(0.041)
    world.link.loss = 1.0
    world.wire.clear()
    world.run_for(CONFIRM_TIMEOUT)
    confirmations = [datagram for host, datagram in world.recorded if host is world.a and is_sealed(datagram)]
    assert len(confirmations) == CONFIRM_TIMEOUT / CONFIRM_INTERVAL
    assert len(set(confirmations)) == len(confirmations)
    assert world.a.of(ExchangeFailed) == [ExchangeFailed(FailureReason.NOT_CONFIRMED)]
    assert world.a.exchange.current is None
    assert world.a.exchange.session_id != session_id
    world.run_for(PENDING_LIFETIME)
    assert not world.a.indices.taken | world.b.indices.taken


def test_a_renewal_nobody_uses_goes_back_to_the_live_keys_and_still_receives() -> None:
    world = connected(23, initiator="a")
    old = world.a.exchange.live
    world.initiate(world.a)
    world.run_for(0.041)
    new = world.a.exchange.current
    assert new is not None
    assert new is not old
    world.link.loss = 1.0
    world.run_for(CONFIRM_TIMEOUT + 0.1)
    assert world.a.exchange.current is old
    assert new.local_index in world.a.exchange.pairs
    assert world.b.exchange.live is not None
    world.link.loss = 0.0
    world.send_data(world.b, b"under the new keys, which b has been using all along")
    world.run_for(0.1)
    assert world.a.received
    assert world.a.exchange.live is new
    assert world.agree()
