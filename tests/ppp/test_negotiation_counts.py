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


def test_a_peer_that_was_not_ready_is_asked_again_as_soon_as_it_is() -> None:
    """pppd ends what it hears of IPCP until CCP is done, and then asks itself; the restart timer would cost 3 s."""
    negotiation = started()
    (request,) = negotiation.transmits()
    wanted = build_options([Option(1, b"yes")])
    negotiation.receive(CpPacket(Code.TERMINATE_ACK, request.identifier), 0.1)
    assert negotiation.transmits() == []
    negotiation.receive(CpPacket(Code.CONFIGURE_REQUEST, 7, wanted), 0.2)
    assert negotiation.transmits() == [CpPacket(Code.CONFIGURE_ACK, 7, wanted), request]
    assert negotiation.deadline() == pytest.approx(0.2 + 3.0)
    negotiation.receive(CpPacket(Code.CONFIGURE_REQUEST, 8, wanted), 0.3)
    assert negotiation.transmits() == [CpPacket(Code.CONFIGURE_ACK, 8, wanted)]  # once for each Terminate-Ack
    negotiation.receive(CpPacket(Code.CONFIGURE_ACK, request.identifier, request.data), 0.4)
    assert negotiation.opened


def test_a_peer_that_was_ready_is_not_asked_again() -> None:
    negotiation = started()
    (request,) = negotiation.transmits()
    negotiation.receive(CpPacket(Code.TERMINATE_ACK, request.identifier + 1), 0.1)  # answers something else
    negotiation.receive(CpPacket(Code.CONFIGURE_REQUEST, 7, build_options([Option(1, b"no")])), 0.2)
    assert [packet.code for packet in negotiation.transmits()] == [Code.CONFIGURE_NAK]


def test_asking_again_uses_up_the_restart_count() -> None:
    negotiation = started()
    (request,) = negotiation.transmits()
    asked = 1
    for number in range(30):
        negotiation.receive(CpPacket(Code.TERMINATE_ACK, request.identifier), 0.1)
        negotiation.receive(CpPacket(Code.CONFIGURE_REQUEST, number, build_options([Option(1, b"yes")])), 0.1)
        asked += negotiation.transmits().count(request)
    assert asked == Retransmission().max_configure
