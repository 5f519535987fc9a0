"""Negotiation by itself: counters begin anew whenever it does, and what the automaton calls illegal changes nothing."""

from __future__ import annotations

import pytest

from pptp.errors import Terminated, TerminationCause, UsageError
from pptp.ppp.automaton import Event, State
from pptp.ppp.negotiation import LayerFinished, Negotiation, Retransmission
from pptp.ppp.options import Ack, Nak, Rule, Verdict
from pptp.wire.cp import Code, CpPacket, Option, build_options


class Insistent(Rule):
    """Wants one value of both ends, and will not do without."""

    type = 1
    name = "insistence"

    def required_locally(self) -> bool:
        return True

    def want(self) -> bytes | None:
        return b"yes"

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        return asked

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        return Ack() if value == b"yes" else Nak(b"yes")


def started() -> Negotiation:
    negotiation = Negotiation("TOY", [Insistent()], Retransmission())
    negotiation.fire(Event.OPEN, 0)
    negotiation.fire(Event.UP, 0)
    return negotiation


def nak(negotiation: Negotiation) -> None:
    request = negotiation.transmits()[-1]
    negotiation.receive(CpPacket(Code.CONFIGURE_NAK, request.identifier, build_options([Option(1, b"no")])), 0)


def test_counters_begin_anew_with_the_lower_layer() -> None:
    negotiation = started()
    for _ in range(2):
        for _ in range(5):
            nak(negotiation)
        assert negotiation.state is State.REQ_SENT
        negotiation.fire(Event.DOWN, 0)
        assert negotiation.deadline() is None
        negotiation.fire(Event.UP, 0)
    for _ in range(6):
        nak(negotiation)
    assert negotiation.state is State.CLOSING


def test_the_reason_given_first_is_the_one_reported() -> None:
    negotiation = started()
    for _ in range(6):
        nak(negotiation)
    (farewell,) = negotiation.transmits()
    assert (farewell.code, b"insistence" in farewell.data) == (Code.TERMINATE_REQUEST, True)
    negotiation.close(0, Terminated(TerminationCause.LOCAL_REQUEST))
    negotiation.receive(CpPacket(Code.TERMINATE_ACK, farewell.identifier), 0)
    (finished,) = negotiation.events()
    assert isinstance(finished, LayerFinished)
    assert finished.reason.cause is TerminationCause.NOT_AGREED
    assert negotiation.deadline() is None


def test_an_illegal_event_changes_nothing() -> None:
    negotiation = Negotiation("TOY", [Insistent()], Retransmission())
    with pytest.raises(UsageError):
        negotiation.receive(CpPacket(Code.CONFIGURE_REQUEST, 1), 0)
    assert (negotiation.state, negotiation.transmits(), negotiation.events()) == (State.INITIAL, [], [])
    negotiation.handle_timeout(1e9)
    assert negotiation.state is State.INITIAL


@pytest.mark.parametrize("code", [Code.CONFIGURE_ACK, Code.CONFIGURE_NAK, Code.CONFIGURE_REQUEST])
def test_after_its_end_every_configure_packet_gets_a_terminate_ack(code: Code) -> None:
    negotiation = started()
    negotiation.close(0, Terminated(TerminationCause.LOCAL_REQUEST))
    negotiation.receive(CpPacket(Code.TERMINATE_ACK, 1), 0)
    negotiation.transmits()
    negotiation.receive(CpPacket(code, 42, build_options([Option(1, b"yes")])), 0)
    assert negotiation.state is State.CLOSED
    assert negotiation.transmits() == [CpPacket(Code.TERMINATE_ACK, 42)]
