"""The mirrored handshake: what each side's NAT sees go by, and what ends it."""

from __future__ import annotations

import pytest

from pptp.errors import Terminated, TerminationCause
from pptp.mirrored import ANSWER_WAIT, CALL_ID, MirroredCall, MirroredCallUp
from pptp.wire.control import (
    CallDisconnectNotify,
    ControlMessage,
    IncomingCallConnected,
    IncomingCallReply,
    IncomingCallRequest,
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
