"""The puncher, one stimulus at a time: what it sends, what it believes, what it never answers."""

from __future__ import annotations

import random
from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from grepunch.ports import Form, GreSend, PathNews, PathNewsKind
from grepunch.punch import plan
from grepunch.punch.candidate import Candidate, CandidateKind
from grepunch.punch.plan import Budget, Proven, Schedule
from grepunch.punch.probe import NO_ATTEMPT, Probe, open_probe, seal_probe
from grepunch.punch.puncher import (
    MAX_LEARNED_SOURCES,
    Holding,
    OpenEvidence,
    OwnSideOpen,
    Phase,
    Puncher,
    WindowEnded,
)
from grepunch.punch.winners import Winner
from pptp.errors import Drop, UsageError
from pptp.wire.vendor import parse_clear

PEER = IPv4Address("198.51.100.7")
OURS = IPv4Address("203.0.113.9")
ROUTER = IPv4Address("192.0.2.1")
OUT_KEY, IN_KEY = b"o" * 32, b"i" * 32
ATTEMPT, PEER_ATTEMPT, OLD_ATTEMPT = b"our_one!", b"their_1!", b"their_0!"
RENDEZVOUS = Schedule.with_rendezvous(0.05)


def puncher(
    schedule: Schedule = RENDEZVOUS, kind: CandidateKind = CandidateKind.EXTERNAL, budget: Budget | None = None
) -> Puncher:
    return Puncher(
        attempt_id=ATTEMPT,
        outgoing_key=OUT_KEY,
        incoming_key=IN_KEY,
        targets=[Candidate(PEER, kind)],
        schedule=schedule,
        budget=budget or Budget(),
        entropy=random.Random(5).randbytes,
        own_external=OURS,
    )


def started(schedule: Schedule = RENDEZVOUS, kind: CandidateKind = CandidateKind.EXTERNAL) -> Puncher:
    machine = puncher(schedule, kind)
    machine.start(0.0, 0.0)
    return machine


def run(machine: Puncher, until: float) -> list[tuple[float, GreSend]]:
    """Run the timers; what was sent, and when."""
    sent = [(0.0, send) for send in machine.transmits()]
    while (due := machine.deadline()) is not None and due <= until:
        machine.handle_timeout(due)
        sent += [(due, send) for send in machine.transmits()]
    return sent


def probe_of(send: GreSend) -> Probe:
    return open_probe(OUT_KEY, parse_clear(send.ppp).body)


def theirs(
    sequence: int, *, echo: bytes = NO_ATTEMPT, heard: int = 0, attempt: bytes = PEER_ATTEMPT, proven: bool = False
) -> bytes:
    return seal_probe(IN_KEY, Probe(attempt, sequence, echo, heard, proven))


def exceeded(reporter: IPv4Address, form: Form | None = Form.V1) -> PathNews:
    return PathNews(PathNewsKind.TIME_EXCEEDED, reporter, PEER, form)


# -- the lead ------------------------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_common_start() -> None:
    machine = puncher()
    machine.start(5.0, 0.0)
    machine.handle_timeout(4.9)
    assert not machine.transmits()
    assert machine.deadline() == 5.0


def test_the_lead_is_short_of_the_peer_in_every_form_and_full_ttl_follows_the_common_start() -> None:
    sent = run(started(), 1.0)
    lead = [(at, send.form, send.ttl) for at, send in sent if send.ttl is not None]
    full = [(at, send.form) for at, send in sent if send.ttl is None]
    assert [at for at, _, _ in lead] == pytest.approx([0.0, 0.0, 0.2, 0.2, 0.4, 0.4])
    assert {ttl for _, _, ttl in lead} == {2, 3}
    assert full[0][0] == pytest.approx(0.6)
    assert [form for _, form in full[:2]] == [Form.V1, Form.V0]


def test_a_router_outside_our_nat_opens_our_side_once_and_keeps_the_ttl() -> None:
    machine = started()
    machine.receive_news(exceeded(ROUTER), 0.02)
    machine.receive_news(exceeded(ROUTER, Form.V0), 0.02)
    assert machine.events() == [OwnSideOpen(OpenEvidence.BEYOND_NAT, ROUTER)]
    assert {send.ttl for _, send in run(machine, 0.45)} == {2}


def test_a_router_inside_our_nats_raises_the_ttl_at_once() -> None:
    machine = started()
    machine.transmits()
    machine.receive_news(exceeded(IPv4Address("100.64.0.1")), 0.02)
    assert [(send.form, send.ttl) for send in machine.transmits()] == [(Form.V1, 3), (Form.V0, 3)]
    assert not machine.events()


def test_without_any_answer_our_side_is_called_open_before_the_first_full_ttl() -> None:
    machine = started()
    sent = run(machine, 0.5)
    assert all(send.ttl is not None for _, send in sent)
    assert machine.events() == [OwnSideOpen(OpenEvidence.UNCONFIRMED)]


def test_the_peers_open_ends_the_lead_at_once_in_every_form() -> None:
    machine = started()
    machine.transmits()
    machine.peer_opened(0.05)
    assert [(send.form, send.ttl) for send in machine.transmits()] == [(Form.V1, None), (Form.V0, None)]
    assert not machine.events()  # one packet may be lost before it has opened our own side
    assert len(run(machine, 0.1)) == 2
    assert machine.events() == [OwnSideOpen(OpenEvidence.FULL_TTL)]


@pytest.mark.parametrize("told_before_start", [True, False])
def test_the_peers_open_comes_before_the_common_start(told_before_start: bool) -> None:
    machine = puncher()
    if told_before_start:
        machine.peer_opened(0.0)
    machine.start(5.0, 0.0)
    if not told_before_start:
        machine.peer_opened(0.0)
    assert {send.ttl for send in machine.transmits()} == {None}
    assert machine.phase is Phase.FULL


def test_a_lan_target_needs_no_lead() -> None:
    assert {send.ttl for send in started(kind=CandidateKind.LAN).transmits()} == {None}


# -- the window ----------------------------------------------------------------------------------------------


def test_the_window_spends_no_more_than_the_budget_and_ends_in_a_report() -> None:
    machine = started()
    machine.peer_opened(0.0)
    full = [at for at, send in run(machine, 40.0) if send.ttl is None]
    assert len(full) <= plan.BUDGET_PACKETS
    assert max(full) <= plan.WINDOW
    ended = machine.events()[-1]
    assert isinstance(ended, WindowEnded)
    assert ended.silent_for == 35.0
    assert [summary.heard for summary in ended.report.summaries()] == [0, 0]
    assert machine.deadline() is None


def test_rounds_begun_over_and_over_lead_with_no_more_than_the_budget() -> None:
    budget, leads = Budget(), 0
    for number in range(60):  # as a peer that begins them, or loses them, can have it
        begun = 0.5 * number
        machine = puncher(budget=budget)
        machine.start(begun, begun)
        leads += sum(send.ttl is not None for _, send in run(machine, begun + 0.45))
    assert leads == plan.BUDGET_PACKETS
    assert sum(stream.withheld for stream in machine.report.streams) > 0


def test_without_a_rendezvous_sparse_packets_and_bursts_go_on_for_ever() -> None:
    machine = started(Schedule.alone(), CandidateKind.KNOWN)
    sent = run(machine, 1800.0)
    late = [(at, send) for at, send in sent if at > plan.WINDOW]
    full = sorted({at for at, send in late if send.ttl is None})
    starts = [at for before, at in zip([0.0, *full], full, strict=False) if at - before > 5.0]
    assert len(starts) >= 20
    assert all(42.5 <= b - a <= 83.0 for a, b in pairwise(starts))
    assert max(b - a for (a, _), (b, _) in pairwise(late)) < 4.1  # our own NAT stays open all the time
    assert isinstance(next(e for e in machine.events() if isinstance(e, WindowEnded)), WindowEnded)


def test_a_driver_that_slept_sends_one_packet_per_form_and_not_what_it_missed() -> None:
    machine = started()
    machine.peer_opened(0.0)
    machine.transmits()
    machine.handle_timeout(20.0)
    assert len(machine.transmits()) == 2


def test_spurious_timeouts_change_nothing() -> None:
    machine = started()
    machine.transmits()
    for _ in range(5):
        machine.handle_timeout(0.01)
    assert not machine.transmits()
    assert not machine.events()


def test_after_stop_nothing_is_sent_or_heard() -> None:
    machine = started()
    machine.stop(0.1)
    assert not machine.receive_probe(PEER, Form.V1, theirs(1), 60, 0.2)
    assert machine.deadline() is None
    assert not machine.transmits()


def test_a_second_start_and_a_bad_attempt_id_are_our_bugs() -> None:
    with pytest.raises(UsageError):
        started().start(1.0, 1.0)
    with pytest.raises(UsageError):
        Puncher(
            attempt_id=bytes(8),
            outgoing_key=OUT_KEY,
            incoming_key=IN_KEY,
            targets=[],
            schedule=RENDEZVOUS,
            budget=Budget(),
            entropy=bytes,
        )


# -- what is believed ----------------------------------------------------------------------------------------


def test_a_probe_of_the_peer_is_answered_with_its_attempt_and_number() -> None:
    machine = started()
    machine.transmits()
    assert machine.receive_probe(PEER, Form.V1, theirs(17), 60, 0.05)
    reply, *others = machine.transmits()
    assert (reply.form, reply.destination, reply.ttl) == (Form.V1, PEER, None)
    probe = probe_of(reply)
    assert (probe.peer_attempt_id, probe.highest_heard, probe.arrival_ttl, probe.heard_count) == (
        PEER_ATTEMPT,
        17,
        60,
        1,
    )
    assert [(send.form, send.ttl) for send in others] == [(Form.V0, None)]  # and the lead is over


def test_only_an_echo_of_the_current_attempt_proves() -> None:
    machine = started()
    first = probe_of(machine.transmits()[0])
    machine.receive_probe(PEER, Form.V1, theirs(1), 60, 0.05)
    machine.receive_probe(PEER, Form.V1, theirs(2, echo=b"another!", heard=first.sequence), 60, 0.05)
    assert not [e for e in machine.events() if isinstance(e, Proven)]
    machine.receive_probe(PEER, Form.V1, theirs(3, echo=ATTEMPT, heard=first.sequence), 60, 0.06)
    assert [e for e in machine.events() if isinstance(e, Proven)] == [Proven(PEER, Form.V1, 0.06)]


def test_an_echo_of_what_went_in_another_form_or_elsewhere_proves_nothing() -> None:
    machine = started()
    by_form = {send.form: probe_of(send) for send in machine.transmits()}
    machine.receive_probe(PEER, Form.V0, theirs(1, echo=ATTEMPT, heard=by_form[Form.V1].sequence), 60, 0.05)
    machine.receive_probe(ROUTER, Form.V1, theirs(2, echo=ATTEMPT, heard=by_form[Form.V1].sequence), 60, 0.05)
    machine.receive_probe(PEER, Form.V1, theirs(3, echo=ATTEMPT, heard=99999), 60, 0.05)
    assert not [e for e in machine.events() if isinstance(e, Proven)]


def test_a_new_source_is_learned_answered_and_proven_by_its_own_echo() -> None:
    pooled = IPv4Address("198.51.100.99")
    machine = started()
    machine.transmits()
    machine.receive_probe(pooled, Form.V1, theirs(1), 60, 0.05)
    reply = machine.transmits()[0]
    assert reply.destination == pooled
    machine.receive_probe(pooled, Form.V1, theirs(2, echo=ATTEMPT, heard=probe_of(reply).sequence), 60, 0.07)
    assert [e.address for e in machine.events() if isinstance(e, Proven)] == [pooled]


def test_few_sources_are_learned_and_none_that_cannot_be_the_peers() -> None:
    machine = started()
    machine.peer_opened(0.0)
    machine.transmits()
    for number, inside in enumerate(("10.0.0.1", "192.168.1.1", "127.0.0.1", "224.0.0.5")):
        assert not machine.receive_probe(IPv4Address(inside), Form.V1, theirs(number + 1), 60, 0.01)
    for number in range(20):
        machine.receive_probe(IPv4Address(int(PEER) + 1 + number), Form.V1, theirs(10 + number), 60, 0.01)
    assert len(machine.transmits()) == MAX_LEARNED_SOURCES
    assert machine.drops[Drop.UNPROVEN_SOURCE] == 4 + 20 - MAX_LEARNED_SOURCES


def test_replies_stop_when_both_have_heard_their_echo() -> None:
    machine = started()
    machine.peer_opened(0.0)
    sequence = probe_of(machine.transmits()[0]).sequence
    replies = []
    for number in range(1, 6):
        machine.receive_probe(PEER, Form.V1, theirs(number, echo=ATTEMPT, heard=sequence, proven=True), 60, 0.1)
        replies.append(len(machine.transmits()))
    assert replies == [1, 0, 0, 0, 0]
    assert {send.form for _, send in run(machine, 3.0)} == {Form.V0}  # this form is settled, the other goes on


def test_a_peer_that_began_again_is_answered_and_takes_over() -> None:
    machine = started()
    machine.peer_opened(0.0)
    sequence = probe_of(machine.transmits()[0]).sequence
    machine.receive_probe(PEER, Form.V1, theirs(1, echo=ATTEMPT, heard=sequence, attempt=OLD_ATTEMPT), 60, 0.1)
    machine.transmits()
    machine.receive_probe(PEER, Form.V1, theirs(1), 60, 0.2)
    assert probe_of(machine.transmits()[0]).peer_attempt_id == PEER_ATTEMPT
    machine.receive_probe(PEER, Form.V1, theirs(2, echo=ATTEMPT, heard=sequence), 60, 0.3)
    assert [probe_of(send).peer_attempt_id for send in machine.transmits()] == [PEER_ATTEMPT]


def test_an_old_attempt_replayed_does_not_take_over() -> None:
    machine = started()
    machine.peer_opened(0.0)
    sequence = probe_of(machine.transmits()[0]).sequence
    machine.receive_probe(PEER, Form.V1, theirs(1, echo=ATTEMPT, heard=sequence), 60, 0.1)
    machine.receive_probe(PEER, Form.V1, theirs(1, attempt=OLD_ATTEMPT), 60, 0.11)
    machine.transmits()
    scheduled = next(send for _, send in run(machine, 0.5) if send.form is Form.V1)
    assert probe_of(scheduled).peer_attempt_id == PEER_ATTEMPT


# -- what is never answered ----------------------------------------------------------------------------------


def test_forged_mutated_and_replayed_probes_are_never_answered() -> None:
    seed = 77
    rng = random.Random(seed)
    machine = started()
    machine.peer_opened(0.0)
    machine.receive_probe(PEER, Form.V1, theirs(1), 60, 0.0)
    machine.transmits()
    machine.events()
    good = theirs(2, echo=ATTEMPT, heard=1)
    for _ in range(5000):
        body = bytearray(good)
        match rng.randrange(4):
            case 0:
                body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
            case 1:
                body = bytearray(rng.randbytes(rng.randrange(100)))
            case 2:
                body = body[: rng.randrange(len(body))]
            case 3:
                body = bytearray(seal_probe(rng.choice([OUT_KEY, bytes(32)]), Probe(PEER_ATTEMPT, 2, ATTEMPT, 1)))
        assert not machine.receive_probe(PEER, rng.choice(list(Form)), bytes(body), 60, 0.0), f"seed {seed}"
    for _ in range(100):
        assert not machine.receive_probe(PEER, Form.V1, theirs(1), 60, 0.0)
    assert not machine.transmits()
    assert not machine.events()
    assert sum(machine.drops.values()) == 5100
    assert machine.drops[Drop.REPLAYED] == 100


def test_a_flood_of_recorded_probes_stays_within_the_budget_of_its_source() -> None:
    machine = started()
    sent = 0
    for number in range(1000):
        machine.receive_probe(ROUTER, Form.V1, theirs(number), 60, 0.001 * number)
        sent += sum(send.destination == ROUTER for send in machine.transmits())
    assert sent == plan.BUDGET_PACKETS
    assert machine.drops[Drop.RATE_LIMITED] > 0


def test_replies_stand_for_scheduled_probes() -> None:
    machine = started()
    machine.peer_opened(0.0)
    scheduled = sum(send.ttl is None for _, send in run(machine, 4.0))
    for number in range(1, 9):
        machine.receive_probe(PEER, Form.V1, theirs(number), 60, 4.0 + 0.1 * number)
    replies = machine.transmits()
    assert len(replies) == 8
    assert [send.form for _, send in run(machine, 4.7)] == [Form.V0]
    assert scheduled + len(replies) + 1 + len(run(machine, 29.9)) <= plan.BUDGET_PACKETS


# -- news ----------------------------------------------------------------------------------------------------


def test_refusals_are_news_for_the_report_and_change_nothing_else() -> None:
    machine = started()
    machine.transmits()
    machine.receive_news(PathNews(PathNewsKind.PROTOCOL_UNREACHABLE, PEER, PEER, Form.V0), 0.1)
    machine.receive_news(PathNews(PathNewsKind.UNREACHABLE, ROUTER, PEER), 0.1)
    assert machine.phase is Phase.LEAD
    v1, v0 = machine.report.streams
    assert (v1.protocol_unreachable, v0.protocol_unreachable) == (None, PEER)
    assert v1.unreachable == v0.unreachable == ROUTER
    assert not machine.transmits()


def test_news_about_others_is_nothing_to_us() -> None:
    machine = started()
    machine.receive_news(PathNews(PathNewsKind.TIME_EXCEEDED, ROUTER, OURS, Form.V1), 0.1)
    assert not machine.events()


# -- what won the last time ------------------------------------------------------------------------------------


def remembering(winner: Winner) -> Puncher:
    machine = Puncher(
        attempt_id=ATTEMPT,
        outgoing_key=OUT_KEY,
        incoming_key=IN_KEY,
        targets=[Candidate(PEER, CandidateKind.EXTERNAL)],
        schedule=RENDEZVOUS,
        budget=Budget(),
        entropy=random.Random(5).randbytes,
        own_external=OURS,
        winner=winner,
    )
    machine.start(0.0, 0.0)
    return machine


def first_full(sent: list[tuple[float, GreSend]]) -> dict[Form, float]:
    """When the first probe of full TTL left in each form."""
    return {send.form: at for at, send in reversed(sent) if send.ttl is None}


def test_the_form_that_won_goes_first_and_the_others_follow_whatever_comes_of_it() -> None:
    machine = remembering(Winner(Form.V0))
    sent = run(machine, 2.0)
    began = first_full(sent)
    assert began[Form.V0] == pytest.approx(0.6)
    assert began[Form.V0] + plan.FORM_FIRST <= began[Form.V1] <= began[Form.V0] + 2 * plan.FORM_FIRST
    led = [at for at, send in sent if send.ttl is not None and send.form is Form.V1]
    assert max(led) > 0.6, "held back means that our own NAT is kept open for it"


def test_a_form_that_is_held_back_is_answered_when_the_peer_is_heard_in_it() -> None:
    machine = remembering(Winner(Form.V0))
    run(machine, 0.65)
    machine.receive_probe(PEER, Form.V1, theirs(1), 60, 0.66)
    assert (Form.V1, None) in [(send.form, send.ttl) for send in machine.transmits()]


def test_where_a_call_helped_every_form_waits_for_it_but_not_for_long() -> None:
    machine = remembering(Winner(Form.V1, mirrored=True))
    assert all(send.ttl is not None for _, send in run(machine, plan.CALL_FIRST - 0.01))
    began = first_full(run(machine, 3.0))
    assert began[Form.V1] <= plan.CALL_FIRST + 0.2
    assert began[Form.V0] > began[Form.V1]


def test_the_call_that_is_up_releases_the_probes_at_once() -> None:
    machine = remembering(Winner(Form.V1, mirrored=True))
    run(machine, 0.1)
    machine.call_seen(0.15)
    assert [(send.form, send.ttl is None) for send in machine.transmits()] == [(Form.V1, True), (Form.V0, False)]


@pytest.mark.parametrize("at", [1.0, 4.0, 20.0])
def test_a_call_that_comes_up_late_is_tried_at_once_and_not_at_the_next_probes_time(at: float) -> None:
    machine = started()
    run(machine, at)
    machine.call_seen(at)
    assert [(send.form, send.ttl) for send in machine.transmits()] == [(Form.V1, None), (Form.V0, None)]
    assert len(run(machine, at + plan.FULL_SLOW_INTERVAL)) >= 2


def test_a_call_that_is_up_during_the_lead_does_not_end_it() -> None:
    machine = started()
    machine.transmits()
    machine.call_seen(0.05)
    assert machine.transmits() == []
    assert machine.phase is Phase.LEAD


def held() -> Puncher:
    """The peer is shut in, and a router beyond our own NAT has answered."""
    machine = started()
    machine.receive_news(exceeded(ROUTER), 0.05)
    machine.hold(0.1)
    return machine


def test_a_peer_that_is_shut_in_gets_no_full_ttl_and_our_side_stays_open_meanwhile() -> None:
    machine = held()
    sent = run(machine, 100.0)
    assert all(send.ttl is not None for _, send in sent), "whatever reached its NAT would keep it shut"
    assert max(later - at for (at, _), (later, _) in pairwise(sent)) <= plan.SPARSE_INTERVAL + plan.LEAD_INTERVAL
    assert sent[-1][0] > 30.0, "longer than its NAT keeps what it has taken"
    assert Holding() in machine.events()


def test_a_hold_ends_with_a_report_where_nothing_comes() -> None:
    machine = held()
    run(machine, 100.0)
    assert machine.phase is Phase.ENDED
    assert any(isinstance(event, WindowEnded) for event in machine.events())


def test_the_first_probe_out_of_a_nat_that_was_shut_is_met_at_full_ttl() -> None:
    machine = held()
    run(machine, 20.0)
    assert machine.receive_probe(PEER, Form.V1, theirs(1), 60, 20.5)
    assert any(send.ttl is None for send in machine.transmits())
    run(machine, 100.0)
    assert machine.phase is Phase.ENDED, "and that, too, ends"


def test_nothing_is_held_back_where_nobody_says_that_our_own_side_is_open() -> None:
    machine = started()
    machine.hold(0.1)
    assert any(send.ttl is None for _, send in run(machine, 5.0))
    assert Holding() not in machine.events()


def test_what_was_heard_already_is_not_held_back() -> None:
    machine = started()
    machine.receive_news(exceeded(ROUTER), 0.05)
    assert machine.receive_probe(PEER, Form.V1, theirs(1), 60, 0.06)
    machine.hold(0.1)
    assert any(send.ttl is None for _, send in run(machine, 5.0))
