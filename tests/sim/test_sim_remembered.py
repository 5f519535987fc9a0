"""Two that remember what worked last time, each something else or something wrong: they meet all the same, and soon."""

from __future__ import annotations

import itertools

import pytest

from grepunch.ports import Form, GreSend
from grepunch.punch.plan import CALL_FIRST, FORM_FIRST
from grepunch.punch.winners import Winner
from pptp.wire.sealed import is_sealed
from pptp.wire.vendor import ClearKind, parse_clear
from tests.sim.peer_world import Host, World

WINNERS = (None, Winner(Form.V1), Winner(Form.V0), Winner(Form.V1, mirrored=True), Winner(Form.V0, mirrored=True))
PAIRS = list(itertools.product(WINNERS, WINNERS))
# open to all, to one form only, poisonable, blind to forms, a firewall, two NATs
NATS = [("G2", "G2"), ("G7V0", "G2"), ("G2", "G7V1"), ("G13", "G13"), ("G1", "G13"), ("G0", "G7V1"), ("G15P", "G13")]
WRONG_MEMORY_COSTS = max(CALL_FIRST, FORM_FIRST) + FORM_FIRST


def remembering(class_a: str, class_b: str, ours: Winner | None, theirs: Winner | None, seed: int) -> World:
    world = World(class_a, class_b, seed=seed)
    world.dialer.winner, world.server.winner = ours, theirs
    return world


def full_ttl(host: Host) -> list[Form]:
    """The forms of the probes of full TTL, in the order in which they left."""
    return [send.form for _, send in host.sent if send.ttl is None and is_probe(send)]


def is_probe(send: GreSend) -> bool:
    return not is_sealed(send.ppp) and parse_clear(send.ppp).kind is ClearKind.PROBE


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda winner: str(winner).replace(", ", "-"))
@pytest.mark.parametrize(("class_a", "class_b"), NATS)
def test_whatever_each_remembers_they_meet_at_the_first_form_that_works_for_both(
    class_a: str, class_b: str, ours: Winner | None, theirs: Winner | None
) -> None:
    world = remembering(class_a, class_b, ours, theirs, seed=PAIRS.index((ours, theirs)))
    world.start()
    called = any(winner is not None and winner.mirrored for winner in (ours, theirs))
    assert world.come_up() < 1.5 + (WRONG_MEMORY_COSTS if called else FORM_FIRST), world.story()
    world.run_for(10.0)
    assert len({host.machine.hole[1] for host in world.hosts.values() if host.machine.hole}) == 1, world.story()
    assert len(world.dialer.path_ups()) == 1, world.story()
    assert len(world.server.path_ups()) <= 2, world.story()  # it takes the form that the dialer takes
    assert world.server.path_ups()[-1].form is world.dialer.path_ups()[0].form, world.story()


@pytest.mark.parametrize("form", list(Form))
def test_what_both_remember_is_all_they_try(form: Form) -> None:
    world = remembering("G2", "G2", Winner(form), Winner(form), seed=3)
    world.start()
    world.come_up()
    for host in world.hosts.values():
        assert set(full_ttl(host)) == {form}, world.story()
        assert host.path_ups()[0].form is form, world.story()


def test_a_form_that_one_side_remembers_wrongly_is_tried_first_and_is_not_all() -> None:
    world = remembering("G2", "G7V1", Winner(Form.V1), Winner(Form.V1), seed=3)
    world.start()
    world.come_up()
    for host in world.hosts.values():
        tried = full_ttl(host)
        assert tried[0] is Form.V1, world.story()
        assert host.path_ups()[0].form is Form.V0, world.story()


def test_fewer_probes_are_sent_than_by_those_who_remember_nothing() -> None:
    sent = []
    for winner in (None, Winner(Form.V0)):
        world = remembering("G2", "G7V1", winner, winner, seed=9)
        world.start()
        world.come_up()
        sent.append(sum(len(full_ttl(host)) for host in world.hosts.values()))
    assert sent[1] < sent[0], sent


@pytest.mark.parametrize("winner", WINNERS[1:], ids=str)
def test_two_without_a_rendezvous_meet_whatever_they_remember(winner: Winner) -> None:
    world = World("G2", "G7V0", seed=2, rendezvous=False, known=True)
    world.dialer.winner, world.server.winner = winner, Winner(Form.V0)
    world.start(skew=0.4)
    assert world.come_up() < 5.0, world.story()


def test_a_held_back_form_still_opens_our_own_nat_for_it() -> None:
    """So the peer that goes by another order gets through, and poisons nothing."""
    world = remembering("G13", "G13", Winner(Form.V1, mirrored=True), None, seed=5)
    world.start()
    world.come_up()
    led = {send.form for _, send in world.dialer.sent if send.ttl is not None}
    assert led == set(Form), world.story()
