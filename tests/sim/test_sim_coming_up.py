"""Two peers come up: behind every pair of NATs, with and without a rendezvous, over lines that lose and repeat."""

from __future__ import annotations

import itertools

import pytest

from grepunch.peer import HandshakeFailed, PathUp, PeerState, PunchFailed
from grepunch.ports import Form, GreSend
from pptp.wire.sealed import is_sealed
from pptp.wire.vendor import ClearKind, parse_clear
from tests.punch.simnat import CLASSES
from tests.sim.peer_world import Host, World, connected, is_initiation

SKEWS = (0.0, 0.5, -0.5, 5.0, -5.0)
PAIRS = list(itertools.product(CLASSES, CLASSES))
NO_COMMON_FORM = {frozenset({"G7V0", "G7V1"})}


def told_once(world: World) -> None:
    """Each side tells of its path once, and that in the right order."""
    for host in world.hosts.values():
        assert len(host.path_ups()) == 1, world.story()
        states = host.states()
        assert states[-2:] == [PeerState.NEGOTIATING, PeerState.UP], world.story()
        assert len(states) == len(set(states)), world.story()


@pytest.mark.parametrize(("class_a", "class_b"), PAIRS)
def test_each_pair_of_nats_comes_up_with_a_rendezvous(class_a: str, class_b: str) -> None:
    skew = SKEWS[PAIRS.index((class_a, class_b)) % len(SKEWS)]
    world = World(class_a, class_b, seed=PAIRS.index((class_a, class_b)))
    world.start(skew=skew)
    if frozenset({class_a, class_b}) in NO_COMMON_FORM:
        world.run_for(30.0 + abs(skew))
        assert not any(host.path_ups() for host in world.hosts.values()), world.story()
        return
    assert world.come_up() < abs(skew) + 3.0, world.story()
    world.run_for(10.0)
    told_once(world)
    for host in world.hosts.values():
        assert host.path_ups()[0].seconds < 3.0, world.story()


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize(("class_a", "class_b"), [("G2", "G2"), ("G13", "G13"), ("G15P", "G13"), ("G0", "G7V1")])
def test_hard_pairs_come_up_whoever_starts_first(class_a: str, class_b: str, skew: float) -> None:
    world = World(class_a, class_b, seed=round(skew * 2) + 77)
    world.start(skew=skew)
    assert world.come_up() < abs(skew) + 3.0, world.story()
    world.run_for(10.0)
    told_once(world)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("skew", [0.0, 0.5, -5.0])
def test_two_who_know_each_others_addresses_need_no_rendezvous(seed: int, skew: float) -> None:
    world = World("G2", "G15" if seed % 2 else "G1", seed=seed, rendezvous=False, known=True)
    world.start(skew=skew)
    assert world.come_up() < abs(skew) + 3.0, world.story()
    world.run_for(10.0)
    told_once(world)


@pytest.mark.parametrize("seed", range(4))
def test_poisonable_nats_without_a_rendezvous_come_up_in_the_end(seed: int) -> None:
    world = World("G13", "G13", seed=seed, rendezvous=False, known=True)
    world.start(skew=2.0)
    world.come_up(400.0)
    world.run_for(10.0)
    assert all(len(host.path_ups()) == 1 for host in world.hosts.values()), world.story()


def test_a_rendezvous_named_but_out_of_reach_is_given_a_moment_and_then_done_without() -> None:
    world = World("G2", "G2", seed=1, rendezvous=True, known=True)
    world.meeting.running = False
    world.start()
    assert 4.0 < world.come_up() < 8.0, world.story()


@pytest.mark.parametrize("seed", range(6))
def test_loss_repetition_and_reordering_cost_time_only(seed: int) -> None:
    world = World("G2", "G2", seed=seed, loss=0.05, duplication=0.02, jitter=0.03)
    world.meeting.loss = 0.05
    world.start(skew=0.3)
    world.come_up(30.0)
    world.traffic(5.0)
    world.run_for(10.0)
    assert world.both_up(), world.story()
    for host in world.hosts.values():
        assert len(set(host.received)) == len(host.received) > 35, world.story()


@pytest.mark.parametrize("first", ["a", "b"])
def test_the_probe_that_would_have_proven_the_path_to_the_peer_is_said_again_when_it_is_lost(first: str) -> None:
    """The first to have its proof hears sealed answers through the hole, and so stops; it goes on answering probes."""
    world = World("G7V0", "G2", seed=4)
    lost: list[float] = []

    def lose(host: Host, send: GreSend) -> bool:
        if send.ttl is not None or is_sealed(send.ppp) or parse_clear(send.ppp).kind is not ClearKind.PROBE:
            return False
        if host.name != first:  # what it says first is the proof for the other
            return not any(count.heard for count in host.machine.punch_counts)
        if host.machine.hole is None or host.path_ups():
            return False
        lost.append(world.now)
        return True

    world.gre_lost = lose
    world.start()
    assert world.come_up() < 5.0, world.story()
    assert lost, "nothing was lost"


@pytest.mark.parametrize("step", range(8))
@pytest.mark.parametrize("rendezvous", [True, False])
def test_whichever_datagram_of_the_handshake_is_lost_it_is_said_again(step: int, rendezvous: bool) -> None:
    """Of all that is said before the link is up, number ``step`` and what follows it for half a second is lost."""
    world = World("G2", "G2", seed=step, rendezvous=rendezvous, known=not rendezvous)
    said: list[float] = []

    def lost(*_: object) -> bool:
        said.append(world.now)
        return len(said) > step and world.now - said[step] < 0.5

    if rendezvous:
        world.blob_lost = lost
    else:
        world.gre_lost = lambda host, send: (
            not any(h.running and h.exchange.live for h in world.hosts.values()) and lost()
        )
    world.start()
    world.come_up(15.0)
    world.run_for(5.0)
    assert len(said) > step, "the step was never reached"
    told_once(world)


def test_message_2_lost_for_long_is_given_again_from_memory() -> None:
    world = World(seed=3)
    world.blob_lost = lambda host, blob: host.name == "b" and world.now < 4.0
    world.start()
    world.come_up(10.0)
    assert len({blob for _, blob in world.dialer.blobs if is_initiation(blob)}) == 1, world.story()


def test_a_key_on_one_side_only_is_named() -> None:
    world = World(seed=1)
    world.dialer.preshared_key = bytes(range(32))
    world.start()
    world.run_for(30.0)
    failures = [event for event in world.dialer.of(HandshakeFailed) if isinstance(event, HandshakeFailed)]
    assert failures, world.story()
    assert all(event.authentication for event in failures), world.story()
    assert not world.server.of(PathUp), world.story()
    assert world.dialer.machine.state is PeerState.HANDSHAKE


def test_a_key_on_one_side_only_is_named_without_a_rendezvous() -> None:
    world = World(seed=1, rendezvous=False, known=True)
    world.server.preshared_key = bytes(range(32))
    world.start()
    world.run_for(30.0)
    failures = [event for event in world.dialer.of(HandshakeFailed) if isinstance(event, HandshakeFailed)]
    assert failures, world.story()
    assert all(event.authentication for event in failures), world.story()


def test_a_nat_that_drops_gre_ends_the_window_with_the_counts_of_both_sides() -> None:
    world = World("G4", "G2", seed=1) if "G4" in CLASSES else World([*CLASSES["G2"]], "G2", seed=1)
    world.gre_lost = lambda host, send: host.name == "a"
    world.start()
    world.run_for(36.0)
    for host in world.hosts.values():
        failed = [event for event in host.of(PunchFailed) if isinstance(event, PunchFailed)]
        assert len(failed) == 1, world.story()
        assert {row.form for row in failed[0].ours} == {row.form for row in failed[0].theirs} == set(Form)
        assert failed[0].next_in == 35.0
        assert not failed[0].same_nat
        assert host.machine.state is PeerState.PUNCHING
    dialer, server = (host.of(PunchFailed)[0] for host in (world.dialer, world.server))
    assert isinstance(dialer, PunchFailed)
    assert isinstance(server, PunchFailed)
    assert dialer.theirs == server.ours, world.story()
    assert all(row.sent and not row.heard for row in dialer.theirs), world.story()


def test_a_window_in_vain_is_followed_by_silence_and_another_start_together() -> None:
    world = World("G2", "G2", seed=5)
    world.gre_lost = lambda host, send: world.now < 40.0
    world.start()
    world.come_up(120.0)
    for host in world.hosts.values():
        silence = [at for at, _ in host.sent if 32.0 < at < 64.0]
        assert not silence, f"{host.name} sent at {silence}\n{world.story()}"
    assert 65.0 < world.now < 72.0, world.story()


def test_windows_in_vain_say_when_the_budget_for_probes_is_spent() -> None:
    world = World("G2", "G2", seed=5)
    world.gre_lost = lambda host, send: True
    world.start()
    world.run_for(420)
    failed = [event for event in world.dialer.of(PunchFailed) if isinstance(event, PunchFailed)]
    assert len(failed) > 4, world.story()
    assert failed[0].withheld == 0
    last = failed[-1]
    assert last.withheld > sum(summary.lead_sent + summary.sent for summary in last.ours)


def test_two_behind_one_nat_without_a_lan_hear_it_at_once() -> None:
    world = World(seed=1)
    world.behind_one_nat(lan=False)
    world.start()
    world.run_for(5.0)
    for host in world.hosts.values():
        failed = host.of(PunchFailed)
        assert len(failed) == 1, world.story()
        assert isinstance(failed[0], PunchFailed)
        assert failed[0].same_nat
        assert not host.sent, "nothing can be punched, so nothing is sent"


def test_two_on_one_lan_take_it() -> None:
    world = World(seed=1)
    world.behind_one_nat(lan=True)
    world.start()
    assert world.come_up() < 3.0
    for host in world.hosts.values():
        assert host.path_ups()[0].same_lan, world.story()
        assert host.path_ups()[0].address == world.other_host(host).side.address


@pytest.mark.parametrize("rendezvous", [True, False])
def test_the_window_is_as_long_as_the_profile_says(rendezvous: bool) -> None:
    world = World(seed=1, rendezvous=rendezvous, known=not rendezvous)
    for host in world.hosts.values():
        host.window = 8.0
    world.gre_lost = lambda host, send: True
    world.start()
    world.run_for(12.0)
    for host in world.hosts.values():
        at = next(at for at, event in host.log if isinstance(event, PunchFailed))
        assert 8.0 <= at < 10.0, world.story()


@pytest.mark.parametrize("form", list(Form))
def test_only_the_forms_of_the_profile_are_tried(form: Form) -> None:
    world = World(seed=1)
    world.server.forms = (form,)
    world.start()
    world.come_up()
    assert {send.form for host in world.hosts.values() for _, send in host.sent} == {form}


def test_the_serve_side_follows_the_form_that_the_dialer_nominates() -> None:
    """Enhanced GRE is lost one way until the dialer has nominated plain GRE; both end on the same form."""
    world = World(seed=1)
    world.gre_lost = lambda host, send: host.name == "b" and send.form is Form.V1 and world.now < 2.0
    world.start()
    world.come_up()
    world.run_for(5.0)
    assert world.dialer.machine.hole is not None
    assert world.server.machine.hole is not None
    assert world.dialer.machine.hole[1] is world.server.machine.hole[1], world.story()


def test_packets_pass_both_ways() -> None:
    world = connected(seed=1)
    world.traffic(2.0)
    world.run_for(3.0)
    assert world.dialer.received == [b"b %d" % n for n in range(20)]
    assert world.server.received == [b"a %d" % n for n in range(20)]
