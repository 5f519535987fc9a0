"""When a mirrored handshake is tried, what ends it, and that two of them find each other."""

from __future__ import annotations

from ipaddress import IPv4Address

from grepunch.peer.mirror import (
    CONNECT_WAIT,
    DIAL_PACKETS,
    FIRST_PACKETS,
    JUDGE_AFTER,
    MIRROR_AFTER,
    REDIAL_AFTER,
    REPEAT_AFTER,
    Mirror,
    MirrorClosed,
    MirrorConnected,
    MirrorData,
    MirrorDial,
    MirrorHangUp,
    MirrorKeep,
    MirrorReceived,
)
from grepunch.signalling.messages import CallStep, OutgoingCall

PEER = IPv4Address("203.0.113.9")
START = 100.0
DIAL_AT = START + MIRROR_AFTER


def new_mirror(budget: int = 1000) -> Mirror:
    """One that may send so many packets."""
    left = [budget]

    def afford(address: IPv4Address, packets: int, now: float) -> bool:
        left[0] -= packets
        return left[0] >= 0

    return Mirror(afford)


def dialled() -> Mirror:
    mirror = new_mirror()
    mirror.begin(1, START, PEER)
    mirror.handle_timeout(DIAL_AT)
    assert mirror.transmits() == [MirrorDial(PEER)]
    return mirror


def connected() -> tuple[Mirror, Mirror]:
    pair = (dialled(), dialled())
    for mirror in pair:
        mirror.receive(MirrorConnected(), DIAL_AT)
    return pair


def talk(pair: tuple[Mirror, Mirror]) -> None:
    while out := [(side, item) for side in (0, 1) for item in pair[side].transmits()]:
        for side, item in out:
            if isinstance(item, MirrorData):
                pair[1 - side].receive(MirrorReceived(item.message), DIAL_AT)
            else:
                assert item == MirrorKeep()
                assert pair[side].up


def test_it_waits_for_the_punch_and_dials_a_second_after_the_common_start() -> None:
    mirror = new_mirror()
    assert mirror.deadline() is None
    mirror.begin(1, START, PEER)
    assert mirror.deadline() == DIAL_AT
    mirror.handle_timeout(DIAL_AT - 0.01)
    assert mirror.transmits() == []
    mirror.handle_timeout(DIAL_AT)
    assert mirror.transmits() == [MirrorDial(PEER)]


def test_a_path_that_is_proven_first_makes_it_unnecessary() -> None:
    mirror = new_mirror()
    mirror.begin(1, START, PEER)
    mirror.settled()
    assert mirror.deadline() is None
    mirror.handle_timeout(DIAL_AT)
    assert mirror.transmits() == []


def test_a_path_that_is_proven_while_it_connects_ends_the_attempt() -> None:
    mirror = dialled()
    mirror.settled()
    assert mirror.transmits() == [MirrorHangUp()]
    mirror.receive(MirrorConnected(), DIAL_AT)
    assert mirror.transmits() == []


def test_two_of_them_bring_the_call_up_and_keep_the_connection_when_the_path_is_proven() -> None:
    pair = connected()
    talk(pair)
    for mirror in pair:
        assert mirror.up
        mirror.settled()
        assert mirror.up
        assert mirror.transmits() == []
        assert mirror.deadline() is None


def test_a_handshake_under_way_is_not_broken_off_either() -> None:
    """The peer may already have its path through it."""
    assert not dialled().called
    one, _ = connected()
    one.transmits()
    one.settled()
    assert one.transmits() == []
    assert not one.up
    assert one.called  # so it is told of: our NAT lets anything through, the peer's wants its call
    one.hang_up()
    assert not one.called


def test_a_better_connection_takes_the_place_of_one_whose_call_is_not_up_yet() -> None:
    pair = connected()
    first = [item for mirror in pair for item in mirror.transmits()]
    for mirror in pair:
        mirror.receive(MirrorConnected(), DIAL_AT)
    again = [item for mirror in pair for item in mirror.transmits()]
    assert again == first
    for mirror, item in zip(reversed(pair), again, strict=True):
        assert isinstance(item, MirrorData)
        mirror.receive(MirrorReceived(item.message), DIAL_AT)
    talk(pair)
    assert all(mirror.up for mirror in pair)
    pair[0].receive(MirrorConnected(), DIAL_AT)
    assert pair[0].up


def test_nobody_answering_ends_the_attempt() -> None:
    mirror = dialled()
    mirror.handle_timeout(DIAL_AT + CONNECT_WAIT)
    assert mirror.transmits() == [MirrorHangUp()]
    assert mirror.deadline() is None


def test_a_refusal_is_asked_again_until_the_attempt_is_over() -> None:
    mirror = dialled()
    now, dials = DIAL_AT, 1
    while True:
        mirror.receive(MirrorClosed(), now)
        due = mirror.deadline()
        if due is None:
            break
        mirror.handle_timeout(due)
        assert mirror.transmits() == [MirrorDial(PEER)]
        now, dials = due, dials + 1
    assert dials == 5
    assert now < DIAL_AT + CONNECT_WAIT


def test_refusals_leave_the_probes_their_packets() -> None:
    """Two that might have met by probes half a minute later did not, for nothing was left of what they may send."""
    left = [64]

    def afford(address: IPv4Address, packets: int, now: float) -> bool:
        left[0] -= packets
        return True

    mirror = Mirror(afford)
    mirror.begin(1, START, PEER)
    while (due := mirror.deadline()) is not None:
        mirror.handle_timeout(due)
        mirror.receive(MirrorClosed(), due + 0.1)
    assert left[0] >= 64 - 5 * FIRST_PACKETS


def test_a_connection_that_hangs_is_paid_for_before_its_syns_are_repeated_or_given_up() -> None:
    for budget, outcome in ((DIAL_PACKETS, []), (DIAL_PACKETS - 1, [MirrorHangUp()])):
        mirror = new_mirror(budget)
        mirror.begin(1, START, PEER)
        mirror.handle_timeout(DIAL_AT)
        assert mirror.transmits() == [MirrorDial(PEER)]
        mirror.handle_timeout(DIAL_AT + REPEAT_AFTER)
        assert mirror.transmits() == outcome


def test_a_call_that_is_lost_before_it_has_helped_is_made_again() -> None:
    """Where a NAT resets its connection, say: otherwise this round and the silence after it would be lost with it."""
    pair = connected()
    talk(pair)
    one = pair[0]
    assert one.up
    one.receive(MirrorClosed(), DIAL_AT + 1)
    assert one.deadline() == DIAL_AT + 1 + REDIAL_AFTER
    one.handle_timeout(DIAL_AT + 1 + REDIAL_AFTER)
    assert one.transmits() == [MirrorDial(PEER)]


def test_a_call_that_is_lost_too_late_to_be_made_again_makes_room_for_the_other_form() -> None:
    pair = (new_mirror(), new_mirror())
    for mirror in pair:
        mirror.begin(1, START, PEER, outgoing=CallStep.ABLE)
        mirror.handle_timeout(DIAL_AT)
        mirror.transmits()
        mirror.receive(MirrorConnected(), DIAL_AT + CONNECT_WAIT - 1)
    talk(pair)
    one = pair[0]
    lost_at = DIAL_AT + CONNECT_WAIT - REDIAL_AFTER / 2
    one.receive(MirrorClosed(), lost_at)
    assert one.messages() == [OutgoingCall(1, CallStep.NEXT)]
    one.handle_timeout(lost_at)
    assert one.transmits() == [MirrorDial(PEER)]


def test_a_call_that_is_lost_before_the_next_round_begins_does_not_bring_that_forward() -> None:
    pair = connected()
    talk(pair)
    one = pair[0]
    one.begin(2, DIAL_AT + 70, PEER)
    one.receive(MirrorClosed(), DIAL_AT + 69)
    assert one.deadline() == DIAL_AT + 70 + MIRROR_AFTER


def test_a_stranger_on_the_connection_is_hung_up_on_without_a_word() -> None:
    one, _ = connected()
    one.transmits()
    one.receive(MirrorReceived(b"SSH-2.0-somebody\r\n"), DIAL_AT)
    assert one.transmits() == [MirrorHangUp()]
    assert not one.up


def test_a_connection_that_is_lost_is_forgotten_and_the_next_round_dials_anew() -> None:
    pair = connected()
    talk(pair)
    one = pair[0]
    assert one.receive(MirrorClosed(), DIAL_AT + 60), "what had been up is lost"
    assert not one.up
    assert not one.receive(MirrorClosed(), DIAL_AT + 60)
    assert one.transmits() == []
    one.begin(2, DIAL_AT + 70, PEER)
    one.handle_timeout(DIAL_AT + 70 + MIRROR_AFTER)
    assert one.transmits() == [MirrorDial(PEER)]


def test_a_new_round_without_a_path_replaces_a_call_that_no_longer_helps() -> None:
    pair = connected()
    talk(pair)
    one = pair[0]
    one.begin(2, DIAL_AT + 70, PEER)
    assert one.up
    one.handle_timeout(DIAL_AT + 70 + MIRROR_AFTER)
    assert one.transmits() == [MirrorDial(PEER)]
    assert not one.up


def test_hanging_up_without_a_connection_says_nothing() -> None:
    mirror = new_mirror()
    mirror.hang_up()
    assert mirror.transmits() == []


def test_where_a_call_helped_the_last_time_it_is_made_at_the_common_start() -> None:
    mirror = new_mirror()
    mirror.begin(1, START, PEER, first=True)
    assert mirror.deadline() == START
    mirror.handle_timeout(START)
    assert mirror.transmits() == [MirrorDial(PEER)]


def test_an_address_that_has_had_enough_packets_is_not_dialled() -> None:
    mirror = new_mirror(2 * FIRST_PACKETS)
    mirror.begin(1, START, PEER)
    now, dials = DIAL_AT, 0
    while (due := mirror.deadline()) is not None:
        mirror.handle_timeout(due)
        dials += mirror.transmits() == [MirrorDial(PEER)]
        now = due
        mirror.receive(MirrorClosed(), now)
    assert dials == 2
    assert not mirror.up


class Two:
    """Two in the same round, with a connection whenever both have dialled, and a control stream between them."""

    def __init__(self, *, outgoing: CallStep | None = CallStep.ABLE, deaf: bool = False) -> None:
        self.now = START
        self.mirrors = (new_mirror(), new_mirror())
        self.deaf = deaf
        self.dialled = [False, False]
        self.connected = False
        self.kept: list[list[int]] = [[], []]
        self.dials = 0
        for mirror in self.mirrors:
            mirror.begin(1, START, PEER, outgoing=outgoing)

    def run_until(self, end: float) -> None:
        while True:
            self._settle()
            due = min((at for mirror in self.mirrors if (at := mirror.deadline()) is not None), default=end)
            if due >= end:
                self.now = end
                return
            self.now = due
            for mirror in self.mirrors:
                mirror.handle_timeout(self.now)

    def _settle(self) -> None:
        while out := [(side, item) for side in (0, 1) for item in self._said_by(side)]:
            for side, item in out:
                self._carry(side, item)
            if all(self.dialled) and not self.connected:
                self.connected = True
                for mirror in self.mirrors:
                    mirror.receive(MirrorConnected(), self.now)

    def _said_by(self, side: int) -> list[object]:
        return [*self.mirrors[side].messages(), *self.mirrors[side].transmits()]

    def _carry(self, side: int, item: object) -> None:
        other = self.mirrors[1 - side]
        match item:
            case OutgoingCall() if not self.deaf:
                other.told(item, self.now)
            case MirrorDial():
                self._cut(side)
                self.dialled[side] = True
                self.dials += 1
            case MirrorData(message=message) if self.connected:
                other.receive(MirrorReceived(message), self.now)
            case MirrorKeep(call_id=call_id):
                self.kept[side].append(call_id)
            case MirrorHangUp():
                self._cut(side)
            case _:
                pass

    def _cut(self, side: int) -> None:
        self.dialled[side] = False
        if self.connected:
            self.connected = False
            self.dialled[1 - side] = False
            self.mirrors[1 - side].receive(MirrorClosed(), self.now)


JUDGED_AT = DIAL_AT + JUDGE_AFTER


def test_an_incoming_call_that_helps_nothing_makes_room_for_an_outgoing_one() -> None:
    two = Two()
    two.run_until(JUDGED_AT - 0.01)
    assert [mirror.call_ids for mirror in two.mirrors] == [(0, 0)] * 2
    two.run_until(JUDGED_AT + 1)
    assert [mirror.call_ids for mirror in two.mirrors] == [(1723, 1723)] * 2
    assert two.kept == [[0, 1723]] * 2
    two.run_until(JUDGED_AT + 60)
    assert two.dials == 4, "each form once"
    assert all(mirror.up and mirror.deadline() is None for mirror in two.mirrors)


def test_a_path_that_is_proven_in_time_keeps_the_incoming_call() -> None:
    two = Two()
    two.run_until(JUDGED_AT - 0.01)
    for mirror in two.mirrors:
        mirror.settled()
    two.run_until(JUDGED_AT + 60)
    assert [mirror.call_ids for mirror in two.mirrors] == [(0, 0)] * 2
    two.mirrors[0].told(OutgoingCall(1, CallStep.NEXT), two.now)  # late, and nobody needs it any more
    assert two.mirrors[0].up
    assert two.mirrors[0].transmits() == []


def test_with_a_peer_that_knows_no_outgoing_call_none_is_made() -> None:
    two = Two(outgoing=None)
    two.run_until(JUDGED_AT + 60)
    assert two.kept == [[0]] * 2
    two.mirrors[0].told(OutgoingCall(1, CallStep.NEXT), two.now)
    two.run_until(JUDGED_AT + 120)
    assert two.dials == 2


def test_where_an_outgoing_call_helped_both_the_last_time_it_goes_first_and_the_other_form_next() -> None:
    two = Two(outgoing=CallStep.FIRST)
    two.run_until(DIAL_AT + 0.5)
    assert [mirror.call_ids for mirror in two.mirrors] == [(1723, 1723)] * 2
    two.run_until(JUDGED_AT + 1)
    assert two.kept == [[1723, 0]] * 2


def test_what_belongs_to_another_round_is_ignored() -> None:
    two = Two()
    two.run_until(DIAL_AT + 0.5)
    for step in CallStep:
        two.mirrors[0].told(OutgoingCall(7, step, 1, 5), two.now)
    assert two.mirrors[0].transmits() == []
    assert two.mirrors[0].call_ids == (0, 0)


def test_without_a_word_of_the_peer_an_outgoing_call_is_given_up_in_time() -> None:
    two = Two(outgoing=CallStep.FIRST, deaf=True)
    two.run_until(DIAL_AT + 0.5)
    assert [mirror.call_ids for mirror in two.mirrors] == [None, None]
    two.run_until(DIAL_AT + 300)
    assert all(mirror.deadline() is None for mirror in two.mirrors)
    assert two.dials < 60


def test_a_refused_call_gives_the_other_form_its_turn_at_once() -> None:
    pair = (new_mirror(), new_mirror())
    for mirror in pair:
        mirror.begin(1, START, PEER, outgoing=CallStep.ABLE)
        mirror.handle_timeout(DIAL_AT)
        mirror.receive(MirrorConnected(), DIAL_AT)
        mirror.transmits()
    one = pair[0]
    one.receive(MirrorReceived(b"SSH-2.0-an ALG that knows better\r\n"), DIAL_AT)
    assert one.messages() == [OutgoingCall(1, CallStep.NEXT)]
    assert one.transmits() == [MirrorHangUp()]
    one.handle_timeout(DIAL_AT)
    assert one.transmits() == [MirrorDial(PEER)]
    one.receive(MirrorConnected(), DIAL_AT)
    one.receive(MirrorReceived(b"SSH-2.0-an ALG that knows better\r\n"), DIAL_AT)
    assert one.messages() == [], "each form has its turn once"
    assert one.deadline() is None
