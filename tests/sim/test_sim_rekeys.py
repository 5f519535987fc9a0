"""Keys that change all the time under load: nothing is lost for it, nothing comes twice."""

from __future__ import annotations

import pytest

from grepunch.peer import SessionEnded
from grepunch.secure import exchange
from pptp.datapath import SealedPair
from tests.sim.peer_world import World, connected

REKEY_EVERY = 0.4  # seconds between changes, instead of 120
INTERVAL = 0.05  # seconds between packets each way


def change_keys_under_load(monkeypatch: pytest.MonkeyPatch, times: int, *, jitter: float = 0.0) -> World:
    """A world in which the keys changed ``times`` times with packets always under way."""
    monkeypatch.setattr(exchange, "REKEY_INITIATOR", REKEY_EVERY)
    monkeypatch.setattr(exchange, "REKEY_RESPONDER", 2 * REKEY_EVERY)
    world = connected("G2", "G2", seed=times, jitter=jitter)
    seen: set[int] = set()
    pairs: list[SealedPair] = []  # kept, so that no two have the same identity
    sent = dict.fromkeys("ab", 0)
    while len(seen) < times:
        for name, host in world.hosts.items():
            world.send_data(host, b"%s %d" % (name.encode(), sent[name]))
            sent[name] += 1
        world.run_for(INTERVAL)
        pair = world.dialer.machine.sending_pair
        if pair is not None and id(pair) not in seen:
            seen.add(id(pair))
            pairs.append(pair)
    world.run_for(1.0)
    for name, host in world.hosts.items():
        other = world.other_host(host)
        expected = [b"%s %d" % (name.encode(), number) for number in range(sent[name])]
        assert sorted(other.received) == sorted(expected), world.story()
        assert not host.of(SessionEnded), world.story()
    return world


def test_two_hundred_changes_of_keys_under_load_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    change_keys_under_load(monkeypatch, 200)


def test_changes_of_keys_lose_nothing_on_a_line_that_reorders(monkeypatch: pytest.MonkeyPatch) -> None:
    change_keys_under_load(monkeypatch, 60, jitter=0.08)
