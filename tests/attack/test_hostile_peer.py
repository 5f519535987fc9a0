"""An authenticated peer that means harm: nothing it says raises, costs too much, or reaches beyond itself."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from grepunch.peer import InnerMtu, PeerState, SessionEnded
from grepunch.ports import Form
from grepunch.signalling.arq import MAX_QUEUED, WINDOW
from grepunch.signalling.messages import Candidates, PptpMessage
from pptp.mtu import INITIAL_OUTER, OVERHEAD_SEALED_V1, SMALLEST_OUTER
from pptp.wire.control import (
    ControlMessage,
    EchoRequest,
    IncomingCallRequest,
    OutgoingCallRequest,
    StartControlConnectionRequest,
    build_message,
)
from pptp.wire.sealed import EMPTY_PROTOCOL
from pptp.wire.vendor import SealedKind
from tests.attack.hostile import SEED, THERE, Siege


def pptp(message: ControlMessage) -> PptpMessage:
    return PptpMessage(build_message(message))


def candidates(number: int) -> Candidates:
    return Candidates(number, 0.02, THERE, frozenset(Form), ())


def met() -> Siege:
    siege = Siege()
    siege.handshake()
    assert siege.machine.state is PeerState.PUNCHING, f"no session, seed {SEED}"
    return siege


def in_the_hole() -> Siege:
    siege = met()
    siege.enter_hole()
    return siege


# -- control messages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("incoming_first", [True, False])
def test_calls_of_every_kind_at_once_are_refused_but_one(incoming_first: bool) -> None:
    siege = met()
    siege.tell(pptp(StartControlConnectionRequest()))
    requests: list[ControlMessage] = [IncomingCallRequest(1), IncomingCallRequest(2), OutgoingCallRequest(3)]
    for request in requests if incoming_first else reversed(requests):
        siege.tell(pptp(request))
    assert siege.machine.state is PeerState.PUNCHING


def test_a_peer_that_asks_and_never_acknowledges_loses_its_session() -> None:
    siege = met()
    for number in range(2 * (WINDOW + MAX_QUEUED)):
        siege.tell(pptp(EchoRequest(number)), acknowledge=False)
        if siege.machine.sending_pair is None:
            break
    assert any(isinstance(event, SessionEnded) for event in siege.events)


# -- the size of the path -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", [0, 1, 66, SMALLEST_OUTER - 1, INITIAL_OUTER - 1, 0xFFFF])
def test_sizes_that_were_never_asked_for_change_nothing(lie: int) -> None:
    siege = in_the_hole()

    def answer() -> None:
        siege.say(EMPTY_PROTOCOL, b"")  # or the path would be silent, which is another matter
        siege.path_message(SealedKind.MTU_REPLY, lie.to_bytes(2, "big"))

    siege.run(5.0, answer)
    sizes = {event.octets for event in siege.events if isinstance(event, InnerMtu)}
    assert sizes == {INITIAL_OUTER - OVERHEAD_SEALED_V1}


def test_no_answer_makes_a_packet_too_small_for_any_kernel() -> None:
    siege = in_the_hole()

    def answer() -> None:
        siege.say(EMPTY_PROTOCOL, b"")
        for size in range(0, 0x10000, 16):
            siege.path_message(SealedKind.MTU_REPLY, size.to_bytes(2, "big"))

    siege.run(1.5, answer)
    sizes = [event.octets for event in siege.events if isinstance(event, InnerMtu)]
    assert min(sizes) >= SMALLEST_OUTER - OVERHEAD_SEALED_V1


# -- rounds ---------------------------------------------------------------------------------------------------------


def test_rounds_counted_up_for_ever_are_not_followed_for_ever() -> None:
    siege = met()
    before = siege.interface_calls  # each asks the kernel, and takes milliseconds
    for number in range(2, 402):
        siege.tell(candidates(number))
    assert siege.interface_calls - before <= 20


def test_a_later_round_of_the_peer_is_followed_all_the_same() -> None:
    siege = met()
    for number in range(2, 8):
        siege.run(2.5)
        siege.tell(candidates(number))
        traversal = siege.machine._session.traversal if siege.machine._session is not None else None
        assert traversal is not None
        assert traversal.peer_external == THERE, f"round {number}, seed {SEED}"


def test_a_round_number_at_the_end_of_its_field_is_not_taken_over() -> None:
    siege = in_the_hole()
    siege.tell(candidates(0xFFFFFFFF))
    siege.run(14.0)  # the path falls silent, and a round of ours follows
    assert siege.machine.state is PeerState.REPAIRING


def test_a_peer_cannot_hold_a_round_back() -> None:
    siege = Siege(lower=False)
    siege.handshake()
    siege.tell(Candidates(1, 4294.0, IPv4Address("203.0.113.9"), frozenset(Form), ()))
    deadline = siege.machine.deadline()
    assert deadline is not None
    assert deadline - siege.now <= 6.0


# -- who stands between ------------------------------------------------------------------------------------------------


def test_frames_that_change_their_form_all_the_time_are_followed_once_a_second() -> None:
    siege = in_the_hole()
    told, began = len(siege.events), siege.now
    for number in range(100):  # as whoever rewrites the GRE header, which nothing authenticates, can have it
        siege.run(0.02)
        siege.say(EMPTY_PROTOCOL, b"", (THERE, Form.V1 if number % 2 else Form.V0))
    changes = sum(isinstance(event, InnerMtu) for event in siege.events[told:])
    assert changes <= 4 * (siege.now - began), "each change announces an MTU and measures the path anew"
    siege.run(1.0)
    siege.say(EMPTY_PROTOCOL, b"", (THERE, Form.V0))
    assert siege.machine.hole == (THERE, Form.V0), "a change that stays is followed"
