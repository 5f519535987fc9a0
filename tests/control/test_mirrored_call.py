"""The mirrored handshake: what each side's NAT sees go by, and what ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.pptp import PPTP

from pptp.errors import Terminated, TerminationCause
from pptp.mirrored import ANSWER_WAIT, CALL_ID, OUTGOING_CALL_ID, MirroredCall, MirroredCallUp, PeerCallSeen
from pptp.wire.control import (
    CallDisconnectNotify,
    ControlMessage,
    IncomingCallConnected,
    IncomingCallReply,
    IncomingCallRequest,
    OutgoingCallReply,
    OutgoingCallRequest,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    StopControlConnectionRequest,
    build_message,
    parse_message,
)


class Pair:
    """Two ends of one stream; ``seen`` is every message in the order in which it left its side."""

    def __init__(self) -> None:
        self.ends = (MirroredCall(), MirroredCall())
        self.seen: list[tuple[int, ControlMessage]] = []
        for end in self.ends:
            end.open(0.0)

    def run(self) -> None:
        """Carry messages until none is left."""
        while out := [(side, message) for side in (0, 1) for message in self.ends[side].transmits()]:
            for side, message in out:
                self.seen.append((side, parse_message(message)))
                self.ends[1 - side].receive(message, 0.0)

    def sent_by(self, side: int) -> list[type]:
        return [type(message) for sender, message in self.seen if sender == side]


def test_both_sides_are_pns_and_pac_of_a_call_with_id_0() -> None:
    pair = Pair()
    pair.run()
    for side in (0, 1):
        assert pair.ends[side].up
        assert pair.ends[side].events() == [MirroredCallUp()]
        assert pair.sent_by(side) == [
            StartControlConnectionRequest,
            StartControlConnectionReply,
            IncomingCallRequest,
            IncomingCallReply,
            IncomingCallConnected,
        ]
    ids = {getattr(m, name) for _, m in pair.seen for name in ("call_id", "peer_call_id") if hasattr(m, name)}
    assert ids == {CALL_ID}


def test_no_call_is_announced_before_the_peers_nat_has_seen_its_own_start_answered() -> None:
    """A helper drops the call of a control connection whose reply it has not seen."""
    one = MirroredCall()
    one.open(0.0)
    one.receive(build_message(StartControlConnectionRequest()), 0.0)
    assert [type(parse_message(m)) for m in one.transmits()] == [
        StartControlConnectionRequest,
        StartControlConnectionReply,
    ]
    one.receive(build_message(StartControlConnectionReply()), 0.0)
    assert [type(parse_message(m)) for m in one.transmits()] == [IncomingCallRequest]


def test_a_stream_in_single_octets_is_the_same_stream() -> None:
    pair = Pair()
    while out := [(side, b"".join(pair.ends[side].transmits())) for side in (0, 1)]:
        if not any(stream for _, stream in out):
            break
        for side, stream in out:
            for octet in stream:
                pair.ends[1 - side].receive(bytes([octet]), 0.0)
    assert all(end.up for end in pair.ends)


@pytest.mark.parametrize(
    "goodbye", [StopControlConnectionRequest(), CallDisconnectNotify(CALL_ID, 4)], ids=["stop", "disconnect"]
)
def test_any_goodbye_ends_it_and_none_is_answered(goodbye: ControlMessage) -> None:
    pair = Pair()
    pair.run()
    end = pair.ends[0]
    end.events()
    end.receive(build_message(goodbye), 1.0)
    (ended,) = end.events()
    assert isinstance(ended, Terminated)
    assert not end.up
    assert end.transmits() == []


def test_what_is_no_control_message_ends_it_unanswered() -> None:
    one = MirroredCall()
    one.open(0.0)
    one.transmits()
    one.receive(b"GET / HTTP/1.1\r\n\r\n", 0.0)
    (ended,) = one.events()
    assert isinstance(ended, Terminated)
    assert ended.cause is TerminationCause.PROTOCOL_ERROR
    assert one.transmits() == []
    one.receive(build_message(StartControlConnectionRequest()), 0.0)
    assert one.transmits() == []
    assert one.events() == []


def test_a_silent_peer_ends_it_and_a_call_that_is_up_is_quiet_for_ever() -> None:
    lonely = MirroredCall()
    lonely.open(5.0)
    due = lonely.deadline()
    assert due is not None
    assert due <= 5.0 + ANSWER_WAIT
    lonely.handle_timeout(due)
    assert [type(event) for event in lonely.events()] == [Terminated]
    pair = Pair()
    pair.run()
    assert [end.deadline() for end in pair.ends] == [None, None]


def test_the_end_of_the_connection_is_the_end_of_the_call() -> None:
    pair = Pair()
    pair.run()
    pair.ends[0].events()
    pair.ends[0].transport_closed(9.0)
    (ended,) = pair.ends[0].events()
    assert isinstance(ended, Terminated)
    assert ended.cause is TerminationCause.LOST_CARRIER


class OutgoingPair:
    """Two ends, each behind a helper that puts the NATed port in the place of the Call ID of its host's PNS."""

    def __init__(self, *ports: int, told: bool = True) -> None:
        self.ends = tuple(MirroredCall(outgoing=True, serial_number=serial) for serial in (7, 8))
        self.ports = ports
        self.told = told
        self.seen: list[tuple[int, ControlMessage]] = []
        self.up: dict[int, tuple[int, int]] = {}
        self.tales: list[tuple[int, PeerCallSeen]] = []
        for end in self.ends:
            end.open(0.0)

    def run(self) -> None:
        """Carry messages, each in a segment of its own, and what is told beside them, until nothing is left."""
        while self._step():
            pass

    def _step(self) -> bool:
        out = [(side, message) for side in (0, 1) for message in self.ends[side].transmits()]
        for side, message in out:
            parsed = self._rewrite_out(side, parse_message(message))
            self.seen.append((side, parsed))
            self.ends[1 - side].receive(build_message(self._rewrite_in(1 - side, parsed)), 0.0)
        events = [(side, event) for side in (0, 1) for event in self.ends[side].events()]
        for side, event in events:
            match event:
                case MirroredCallUp(call_ids=call_ids):
                    self.up[side] = call_ids
                case PeerCallSeen():
                    self.tales.append((side, event))
                    if self.told:
                        self.ends[1 - side].seen_as(event.serial_number, event.call_id, 0.0)
                case _:
                    raise AssertionError(event)
        return bool(out or events)

    def _rewrite_out(self, side: int, message: ControlMessage) -> ControlMessage:
        return replace(message, call_id=self.ports[side]) if isinstance(message, OutgoingCallRequest) else message

    def _rewrite_in(self, side: int, message: ControlMessage) -> ControlMessage:
        if isinstance(message, OutgoingCallReply):
            assert message.peer_call_id == self.ports[side], "the helper knows no such call"
            return replace(message, peer_call_id=OUTGOING_CALL_ID)
        return message


@pytest.mark.parametrize("ports", [(1723, 1723), (1723, 40001), (51000, 40001)])
def test_an_outgoing_call_has_the_ids_that_the_nats_made_of_it(ports: tuple[int, int]) -> None:
    pair = OutgoingPair(*ports)
    pair.run()
    assert pair.up == {0: (ports[1], ports[0]), 1: (ports[0], ports[1])}
    for side in (0, 1):
        mine = [message for sender, message in pair.seen if sender == side]
        assert [type(message) for message in mine] == [
            StartControlConnectionRequest,
            StartControlConnectionReply,
            OutgoingCallRequest,
            OutgoingCallReply,
        ]
        reply = mine[-1]
        assert isinstance(reply, OutgoingCallReply)
        assert (reply.call_id, reply.peer_call_id) == (ports[side], ports[1 - side])


def test_the_peers_request_is_not_answered_before_its_answer_is_known() -> None:
    pair = OutgoingPair(40001, 1723, told=False)
    pair.run()
    assert not any(isinstance(message, OutgoingCallReply) for _, message in pair.seen)
    assert sorted(pair.tales, key=lambda tale: tale[0]) == [(0, PeerCallSeen(8, 1723)), (1, PeerCallSeen(7, 40001))]
    pair.ends[0].seen_as(6, 50000, 0.0)  # of an earlier connection
    assert pair.ends[0].transmits() == []
    pair.ends[0].seen_as(7, 40001, 0.0)
    pair.ends[0].seen_as(7, 2, 0.0)  # once is enough
    pair.ends[1].seen_as(8, 1723, 0.0)
    pair.run()
    assert pair.up == {0: (1723, 40001), 1: (40001, 1723)}


def test_what_was_told_early_is_remembered() -> None:
    pair = OutgoingPair(1723, 1723, told=False)
    for end, serial in zip(pair.ends, (7, 8), strict=True):
        end.seen_as(serial, 1723, 0.0)
    pair.run()
    assert pair.up == {0: (1723, 1723), 1: (1723, 1723)}


def test_a_request_that_comes_twice_is_answered_alike_and_a_second_call_is_refused() -> None:
    pair = OutgoingPair(1723, 1723)
    pair.run()
    end = pair.ends[0]
    end.receive(build_message(OutgoingCallRequest(1723, 8)), 1.0)
    (again,) = map(parse_message, end.transmits())
    assert isinstance(again, OutgoingCallReply)
    assert (again.result_code, again.call_id) == (1, 1723)
    end.receive(build_message(OutgoingCallRequest(9, 9)), 1.0)
    (refused,) = map(parse_message, end.transmits())
    assert isinstance(refused, OutgoingCallReply)
    assert refused.result_code != 1
    assert end.up


def test_a_refusal_of_the_outgoing_call_ends_it() -> None:
    one = MirroredCall(outgoing=True, serial_number=7)
    one.open(0.0)
    one.receive(build_message(StartControlConnectionRequest()), 0.0)
    one.receive(build_message(StartControlConnectionReply()), 0.0)
    one.transmits()
    one.receive(build_message(OutgoingCallReply(0, OUTGOING_CALL_ID, result_code=4)), 0.0)
    (ended,) = one.events()
    assert isinstance(ended, Terminated)
    assert ended.cause is TerminationCause.REFUSED
    assert one.transmits() == []


def test_two_that_disagree_on_the_form_do_not_come_up_and_end_in_time() -> None:
    ends = (MirroredCall(outgoing=True), MirroredCall())
    for end in ends:
        end.open(0.0)
    while any(out := [end.transmits() for end in ends]):
        for other, messages in zip(reversed(ends), out, strict=True):
            for message in messages:
                other.receive(message, 0.0)
    for end in ends:
        assert not end.up
        end.handle_timeout(2 * ANSWER_WAIT)
    assert all(any(isinstance(event, Terminated) for event in end.events()) for end in ends)


def test_scapy_reads_the_outgoing_call() -> None:
    pair = OutgoingPair(1723, 40001)
    pair.run()
    request, reply = (
        PPTP(build_message(message))
        for side, message in pair.seen
        if side == 0 and isinstance(message, OutgoingCallRequest | OutgoingCallReply)
    )
    assert (request.ctrl_msg_type, request.call_id, request.call_serial_number) == (7, 1723, 7)
    assert (reply.ctrl_msg_type, reply.call_id, reply.peer_call_id, reply.result_code) == (8, 1723, 40001, 1)
