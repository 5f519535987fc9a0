"""Both sides ask, restart, forget and renew at random over a network that comes and goes: what must always hold."""

from __future__ import annotations

from collections import Counter

import pytest

from grepunch.secure.constants import CONFIRM_TIMEOUT, MAX_PENDING, MAX_PREVIOUS, PENDING_LIFETIME, RETRANSMIT_DELAYS
from grepunch.secure.events import KeysDropped, KeysLive, KeysReady
from tests.secure.exchange_world import Host, Link, World

STEPS = 150
MOST_PAIRS = 2 + MAX_PENDING + MAX_PREVIOUS
SETTLED = sum(RETRANSMIT_DELAYS) + CONFIRM_TIMEOUT + PENDING_LIFETIME


def check(world: World, host: Host) -> None:
    exchange = host.exchange
    where = f"seed {world.seed}, host {host.name}"
    assert len(exchange.pairs) <= MOST_PAIRS, where
    assert set(exchange.pairs) <= host.indices.taken, where
    assert len(host.indices.taken) <= len(exchange.pairs) + 1, where  # one for the attempt under way
    for pair in (exchange.current, exchange.live):
        assert pair is None or exchange.pairs[pair.local_index] is pair, where
    begun = Counter(event.session for event in host.log if isinstance(event, KeysLive) and event.new_session)
    assert all(times == 1 for times in begun.values()), f"{where}: a session began twice under the same ids"
    ready = {event.pair.local_index for event in host.log if isinstance(event, KeysReady)}
    dropped = {event.local_index for event in host.log if isinstance(event, KeysDropped)}
    assert set(exchange.pairs) == ready - dropped, where


@pytest.mark.parametrize("seed", range(12))
def test_chaos_ends_in_agreement(seed: int) -> None:
    world = World(seed)
    rng = world.rng
    for _ in range(STEPS):
        host = world.a if rng.random() < 0.5 else world.b
        match rng.randrange(8):
            case 0 | 1:
                world.initiate(host)
            case 2 if rng.random() < 0.3:
                host.start(world.now)
            case 3 if rng.random() < 0.3:
                host.exchange.forget(world.now)
                world.flush(host)
            case 4:
                loss, duplication = rng.choice((0.0, 0.3, 1.0)), rng.choice((0.0, 0.3))
                world.link = Link(loss, duplication, jitter=rng.random(), delay=rng.random())
            case 5:
                world.send_data(host, b"data")
            case 6 if theirs := [datagram for sender, datagram in world.recorded if sender is not host]:
                world.deliver(host, rng.choice(theirs))  # a replay
        world.run_for(rng.choice((0.01, 0.1, 1.0, 10.0, 60.0)) * rng.random())
        check(world, world.a)
        check(world, world.b)
    world.link = Link()
    world.run_for(SETTLED)
    for host in (world.a, world.b):
        world.initiate(host)
    world.run_for(SETTLED)
    check(world, world.a)
    check(world, world.b)
    assert world.agree(), f"seed {seed}"
    live_a, live_b = world.a.of(KeysLive)[-1], world.b.of(KeysLive)[-1]
    assert isinstance(live_a, KeysLive)
    assert isinstance(live_b, KeysLive)
    assert live_a.session == live_b.session[::-1], f"seed {seed}"
    assert live_a.initiator is not live_b.initiator, f"seed {seed}"
    assert live_a.probe_secret == live_b.probe_secret, f"seed {seed}"
