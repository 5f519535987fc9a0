"""Two key exchanges on a virtual clock: agreement, ties and failures."""

from __future__ import annotations

import pytest

from grepunch.secure.constants import (
    CONFIRM_TIMEOUT,
    KEY_LIFETIME,
    MAX_PENDING,
    PENDING_LIFETIME,
    REKEY_INITIATOR,
    RETRANSMIT_DELAYS,
    YIELD_TIME,
)
from grepunch.secure.events import (
    ConfirmWanted,
    ExchangeFailed,
    ExchangeState,
    FailureReason,
    KeysLive,
    KeysReady,
)
from grepunch.secure.exchange import KeyExchange
from grepunch.secure.handshake import open_initiation
from pptp.crypto.aead import Suite
from pptp.errors import Drop, UsageError
from tests.secure.exchange_world import Link, World, connected, initiations

ATTEMPT = sum(RETRANSMIT_DELAYS)
PSK = bytes(range(32))


def test_the_initiator_sends_after_one_round_trip_and_the_responder_after_one_frame() -> None:
    world = World(1)
    start = world.now
    world.initiate(world.a)
    assert str(world.a.exchange.state) == "sent"
    world.run(start + 0.021)
    assert str(world.b.exchange.state) == "pending"
    assert world.b.exchange.current is None
    world.run(start + 0.041)
    assert str(world.a.exchange.state) == "pending"
    assert world.a.exchange.current is not None
    assert world.a.exchange.live is None
    world.run(start + 0.061)
    assert world.b.exchange.state is ExchangeState.LIVE
    assert world.b.exchange.current is not None
    world.run(start + 0.081)
    assert world.a.exchange.state is ExchangeState.LIVE
    assert world.agree()
    assert [type(event) for event in world.a.log] == [KeysReady, ConfirmWanted, KeysLive]
    assert [type(event) for event in world.b.log] == [KeysReady, KeysLive, ConfirmWanted]


def test_both_sides_learn_the_same_and_their_own_role() -> None:
    world = World(2)
    world.a.capabilities, world.b.capabilities = 0b0111, 0b1101
    for host in (world.a, world.b):
        host.start(world.now)
    world.initiate(world.b)
    world.run_for(1)
    (one,), (two,) = world.a.of(KeysLive), world.b.of(KeysLive)
    assert isinstance(one, KeysLive)
    assert isinstance(two, KeysLive)
    assert (one.initiator, two.initiator) == (False, True)
    assert one.new_session
    assert two.new_session
    assert one.capabilities == two.capabilities == 0b0101
    assert one.probe_secret == two.probe_secret
    assert one.session == two.session[::-1] == (world.a.exchange.session_id, world.b.exchange.session_id)


@pytest.mark.parametrize(
    ("offered", "taken", "chosen"),
    [
        ((Suite.CHACHA20_POLY1305, Suite.AES_256_GCM), (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305), 2),
        ((Suite.AES_256_GCM, Suite.CHACHA20_POLY1305), (Suite.CHACHA20_POLY1305,), 2),
        ((Suite.AES_256_GCM,), (Suite.CHACHA20_POLY1305, Suite.AES_256_GCM), 1),
        ((Suite.AES_256_GCM,), (Suite.CHACHA20_POLY1305,), None),
    ],
)
def test_the_initiators_preference_among_what_both_take(
    offered: tuple[Suite, ...], taken: tuple[Suite, ...], chosen: int | None
) -> None:
    world = World(3)
    world.a.suites, world.b.suites = offered, taken
    for host in (world.a, world.b):
        host.start(world.now)
    world.initiate(world.a)
    world.run_for(1)
    pair = world.a.exchange.live
    assert (pair.suite if pair is not None else None) == chosen
    if chosen is None:
        assert world.b.exchange.drops == {Drop.NOT_ALLOWED: 2}


@pytest.mark.parametrize("seed", range(20))
def test_agreement_over_a_bad_network(seed: int) -> None:
    world = World(seed, Link(loss=0.3, duplication=0.3, delay=0.05, jitter=0.3))
    world.initiate(world.a if seed % 2 else world.b)
    world.run_for(ATTEMPT + CONFIRM_TIMEOUT)
    assert world.agree(), f"seed {seed}"
    assert len(world.a.of(KeysLive)) == len(world.b.of(KeysLive)) == 1, f"seed {seed}"


@pytest.mark.parametrize("seed", range(20))
def test_both_ask_at_once_and_the_lower_key_stays_initiator(seed: int) -> None:
    bad = Link(loss=0.2, duplication=0.2, delay=0.02, jitter=0.1) if seed % 2 else Link()
    world = World(seed, bad)
    world.initiate(world.b)
    gap = world.rng.random() * 0.03
    world.run_for(gap)
    world.initiate(world.a)
    world.run_for(30)
    assert world.agree(), f"seed {seed}"
    last_a, last_b = world.a.of(KeysLive)[-1], world.b.of(KeysLive)[-1]
    assert isinstance(last_a, KeysLive)
    assert isinstance(last_b, KeysLive)
    assert last_a.initiator is not last_b.initiator, f"seed {seed}"
    if bad == Link():
        assert last_a.initiator is (gap < bad.delay), f"seed {seed}"  # else a knew already that b asks
    assert world.a.exchange.session_id == last_a.session[0], f"seed {seed}"
    world.run_for(REKEY_INITIATOR)
    assert world.agree(), f"seed {seed}"


def test_crossing_initiations_give_one_pair_only() -> None:
    world = World(5)
    world.initiate(world.a)
    world.initiate(world.b)
    world.run_for(5)
    assert world.agree()
    assert [event.initiator for event in world.a.of(KeysLive) if isinstance(event, KeysLive)] == [True]
    assert [event.initiator for event in world.b.of(KeysLive) if isinstance(event, KeysLive)] == [False]
    assert world.a.exchange.drops == {Drop.WRONG_PHASE: 1}
    assert not world.a.of(ExchangeFailed)
    assert not world.b.of(ExchangeFailed)


def test_asking_while_the_peer_was_just_answered_waits_for_it() -> None:
    world = World(6)
    world.initiate(world.b)
    world.run_for(0.021)
    assert world.a.exchange.state is ExchangeState.PENDING
    world.initiate(world.a)
    assert world.a.exchange.state is ExchangeState.PENDING
    world.run_for(1)
    assert world.agree()
    assert len(initiations(world)) == 1


def test_where_both_asked_and_both_answered_the_lower_key_prevails() -> None:
    """The confirmations cross: each has the other's handshake pending while its own is unconfirmed."""
    world = World(7)
    world.initiate(world.b)
    world.run_for(0.021)  # b's message 1 is answered
    answer = world.wire.pop()
    world.initiate(world.a)  # waits for b ...
    world.run_for(YIELD_TIME)  # ... in vain, and asks; b yields to it
    world.wire.append(answer)  # b's answer comes after all: b confirms its own while a's is under way
    world.run_for(5)
    assert world.agree()
    (live_a,) = world.a.of(KeysLive)
    live_b = world.b.of(KeysLive)[-1]
    assert isinstance(live_a, KeysLive)
    assert isinstance(live_b, KeysLive)
    assert live_a.initiator is not live_b.initiator
    assert world.a.exchange.live is not None
    assert world.a.exchange.current is world.a.exchange.live


def test_a_replayed_message_1_delays_an_attempt_but_does_not_silence_it() -> None:
    world = connected(8, initiator="a")
    world.initiate(world.a)
    world.run_for(1)
    old = initiations(world)[0][1]
    world.b.start(world.now)  # b knows nothing of it any more
    world.recorded.clear()
    world.link.loss = 1.0
    begun = world.now
    world.initiate(world.b)
    while world.now < begun + ATTEMPT + YIELD_TIME:
        world.deliver(world.b, old)
        world.run_for(0.2)
    sent = [datagram for host, datagram in initiations(world) if host is world.b]
    assert len(sent) == len(RETRANSMIT_DELAYS)
    assert len(set(sent)) == 1


def test_repetitions_are_identical_and_end_in_a_verdict() -> None:
    world = World(9, Link(loss=1.0))
    start = world.now
    world.initiate(world.a)
    world.run_for(ATTEMPT + 0.1)
    sent = [datagram for _, datagram in world.recorded]
    assert len(sent) == len(RETRANSMIT_DELAYS)
    assert len(set(sent)) == 1
    (failed,) = world.a.of(ExchangeFailed)
    assert isinstance(failed, ExchangeFailed)
    assert failed.reason is FailureReason.NO_ANSWER
    assert not failed.authentication
    assert world.a.exchange.state is ExchangeState.IDLE
    assert not world.a.indices.taken
    assert world.now - start < PENDING_LIFETIME  # the responder remembers for longer than we ask


def test_a_repeated_message_1_gets_the_same_message_2() -> None:
    world = World(10)
    world.initiate(world.a)
    message = world.recorded[0][1]
    for _ in range(3):
        world.deliver(world.b, message)
    answers = {datagram for host, datagram in world.recorded if host is world.b}
    assert len(answers) == 1
    assert len(world.b.of(KeysReady)) == 1
    assert len(world.b.exchange.pairs) == 1


@pytest.mark.parametrize(("psk_a", "psk_b"), [(PSK, None), (None, PSK), (PSK, PSK[::-1])])
def test_a_preshared_key_on_one_side_only_is_named(psk_a: bytes | None, psk_b: bytes | None) -> None:
    world = World(11, psk_a=psk_a, psk_b=psk_b)
    world.initiate(world.a)
    world.run_for(ATTEMPT - 0.1)
    assert not world.a.log  # one bad message 2 is a drop; the attempt lives
    assert world.a.exchange.drops[Drop.BAD_TAG] == len(RETRANSMIT_DELAYS)
    world.run_for(1)
    (failed,) = world.a.log
    assert isinstance(failed, ExchangeFailed)
    assert failed.authentication
    assert str(failed.reason) == "wrong pre-shared key, or tampering"
    world.run_for(PENDING_LIFETIME)
    assert not world.b.exchange.pairs
    assert not world.b.of(KeysLive)
    assert not world.a.indices.taken | world.b.indices.taken


def test_a_preshared_key_on_both_sides_works() -> None:
    world = World(12, psk_a=PSK, psk_b=PSK)
    world.initiate(world.a)
    world.run_for(1)
    assert world.agree()


def test_a_flood_of_handshakes_of_one_peer_stays_within_its_caps() -> None:
    world = connected(24, initiator="b")
    live = world.a.exchange.live
    for _ in range(20):
        world.b.start(world.now)
        world.b.exchange.initiate(world.now)
        (message,) = world.b.exchange.transmits()
        world.a.exchange.receive_initiation(open_initiation(world.a.identity, message), world.now)
        world.flush(world.a)
        assert len(world.a.exchange.pairs) <= 1 + MAX_PENDING
        assert len(world.a.indices.taken) == len(world.a.exchange.pairs)
    assert world.a.exchange.live is live  # live keys were never touched
    world.wire.clear()
    world.run_for(PENDING_LIFETIME)
    assert len(world.a.exchange.pairs) == 1


def test_after_a_long_stop_nothing_storms() -> None:
    world = connected(25, initiator="a")
    world.now += 3600
    world.recorded.clear()
    for host in (world.a, world.b):
        host.exchange.handle_timeout(world.now)
        world.flush(host)
    assert not world.recorded
    assert world.a.exchange.current is None
    world.initiate(world.a)
    world.run_for(1)
    assert world.agree()


def test_closed_means_deaf_and_mute() -> None:
    world = connected(26)
    world.initiate(world.b)
    world.a.exchange.close(world.now)
    world.flush(world.a)
    world.run_for(ATTEMPT + 1)
    assert world.a.exchange.state is ExchangeState.DEAD
    assert not world.a.exchange.pairs
    assert not world.a.indices.taken
    assert not [datagram for host, datagram in world.recorded if host is world.a]
    assert world.a.exchange.deadline() is None
    with pytest.raises(UsageError):
        world.a.exchange.initiate(world.now)


def test_what_is_our_bug_is_said() -> None:
    world = World(27)
    a, b = world.a, world.b

    def make(**changed: object) -> KeyExchange:
        arguments: dict[str, object] = {
            "identity": a.identity,
            "peer_public_key": b.identity.public_key,
            "preshared_key": None,
            "session_id": bytes(8),
            "capabilities": 0,
            "suites": (Suite.AES_256_GCM,),
            "entropy": world.rng.randbytes,
            "allocate_index": a.indices.allocate,
            "release_index": a.indices.release,
        }
        return KeyExchange(**{**arguments, **changed})  # type: ignore[arg-type]

    for changed in ({"peer_public_key": a.identity.public_key}, {"suites": ()}, {"session_id": b"short"}):
        with pytest.raises(UsageError):
            make(**changed)
    stranger = World(28)
    stranger.b.peer_public_key = a.identity.public_key
    stranger.b.start(world.now)
    stranger.b.exchange.initiate(world.now)
    (message,) = stranger.b.exchange.transmits()
    with pytest.raises(UsageError):
        a.exchange.receive_initiation(open_initiation(a.identity, message), world.now)
    assert a.exchange.open_initiation(message) is None
    assert a.exchange.open_initiation(message[:100]) is None
    assert a.exchange.drops == {Drop.NOT_ALLOWED: 1, Drop.BAD_TAG: 1}


def test_spurious_timeouts_are_harmless() -> None:
    world = World(29)
    world.initiate(world.a)
    for _ in range(50):
        world.a.exchange.handle_timeout(world.now)
        world.b.exchange.handle_timeout(world.now)
    assert len(world.recorded) == 1
    world.run_for(1)
    assert world.agree()


def test_repeating_message_1_keeps_unused_keys_no_longer_than_keys_live() -> None:
    world = World(26)
    world.a.exchange.initiate(0.0)
    (message,) = world.a.exchange.transmits()
    opened = open_initiation(world.b.identity, message)
    responder, now = world.b.exchange, 0.0
    responder.receive_initiation(opened, now)
    (ready,) = [event for event in responder.events() if isinstance(event, KeysReady)]
    while now + PENDING_LIFETIME - 1 < KEY_LIFETIME:
        now += PENDING_LIFETIME - 1
        responder.receive_initiation(opened, now)
        responder.handle_timeout(now)
        assert ready.pair.local_index in responder.pairs
    responder.handle_timeout(KEY_LIFETIME)
    assert ready.pair.local_index not in responder.pairs
