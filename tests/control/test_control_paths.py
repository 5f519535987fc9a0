"""Two control connections joined on a virtual clock: every way up and down, as PNS and as PAC."""

from __future__ import annotations

import pytest

from pptp.control import (
    Call,
    CallEnded,
    CallEstablished,
    CallHandle,
    CallRequested,
    CallState,
    CloseTransport,
    ControlConfig,
    ControlConnection,
    ControlEstablished,
    ControlEvent,
    LinkInfoReceived,
    Role,
    WanErrorsReceived,
    higher_address_wins,
)
from pptp.errors import Terminated, TerminationCause, UsageError
from pptp.wire.control import (
    CallDisconnectNotify,
    ControlMessage,
    OutgoingCallResult,
    StopReason,
    WanErrorNotify,
    build_message,
    parse_message,
)


class Pair:
    """Two machines on one transport with a delay; messages in flight and events are kept for the asserts."""

    def __init__(
        self,
        first: ControlConnection,
        second: ControlConnection,
        *,
        delay: float = 0.05,
        accept: dict[ControlConnection, int | None] | None = None,
    ) -> None:
        self.ends = (first, second)
        self.delay = delay
        self.accept = accept if accept is not None else {}
        self.now = 0.0
        self.wire: list[tuple[float, int, bytes]] = []
        self.said: tuple[list[ControlMessage], list[ControlMessage]] = ([], [])
        self.events: tuple[list[ControlEvent], list[ControlEvent]] = ([], [])
        self.cut = False

    def flush(self) -> None:
        for index, end in enumerate(self.ends):
            pending = list(end.events())
            while pending:
                event = pending.pop(0)
                self.events[index].append(event)
                call_id = self.accept.get(end)
                if isinstance(event, CallRequested) and call_id is not None:
                    end.accept_call(event.call.handle, call_id, self.now)
                    pending += end.events()
                if isinstance(event, CloseTransport):
                    self.wire.append((self.now + self.delay, 1 - index, b""))
        for index, end in enumerate(self.ends):
            for data in end.transmits():
                self.said[index].append(parse_message(data))
                if not self.cut:
                    self.wire.append((self.now + self.delay, 1 - index, data))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            self.flush()
            # What closes must not overtake what was sent before it.
            self.wire.sort(key=lambda item: (item[0], item[2] == b""))
            times = [end.deadline() for end in self.ends] + [at for at, _, _ in self.wire[:1]]
            due = min((at for at in times if at is not None), default=until)
            if due > until:
                break
            self.now = max(self.now, due)
            if self.wire and self.wire[0][0] <= self.now:
                _, index, data = self.wire.pop(0)
                if data:
                    self.ends[index].receive_message(data, self.now)
                else:
                    self.ends[index].transport_closed(self.now)
            for end in self.ends:
                end.handle_timeout(self.now)
            if due == until:
                self.flush()
                if not self.wire or self.wire[0][0] > until:
                    break
        self.now = until

    def open(self) -> Pair:
        for end in self.ends:
            end.open(self.now)
        self.run(1.0)
        return self

    def took(self, index: int, kind: type[ControlEvent]) -> list[ControlEvent]:
        return [event for event in self.events[index] if isinstance(event, kind)]

    def last(self, index: int) -> ControlEvent:
        return self.events[index][-1]

    def call(self, index: int) -> Call:
        (call,) = self.ends[index].calls
        return call


def pair(*, pns_config: ControlConfig | None = None, pac_config: ControlConfig | None = None) -> Pair:
    """The first end starts the connection; the second accepts calls as Call ID 800."""
    pns = ControlConnection(pns_config or ControlConfig(host_name=b"pns"), initiator=True)
    pac = ControlConnection(pac_config or ControlConfig(host_name=b"pac"), initiator=False)
    return Pair(pns, pac, accept={pac: 800}).open()


def words(messages: list[ControlMessage]) -> list[str]:
    return [type(message).__name__ for message in messages]


@pytest.fixture
def up() -> tuple[Pair, CallHandle]:
    """An outgoing call from the first end (PNS, Call ID 700) to the second (PAC, Call ID 800)."""
    link = pair()
    handle = link.ends[0].place_outgoing_call(700, link.now)
    link.run(1.0)
    return link, handle


# -- up ---------------------------------------------------------------------------------------------------------


def test_the_connection_comes_up_and_each_side_knows_the_other() -> None:
    link = pair()
    for index, name in ((0, b"pac"), (1, b"pns")):
        (event,) = link.events[index]
        assert isinstance(event, ControlEstablished)
        assert event.peer.host_name == name
        assert link.ends[index].established
    assert words(link.said[0]) == ["StartControlConnectionRequest"]
    assert words(link.said[1]) == ["StartControlConnectionReply"]


def test_an_outgoing_call_comes_up(up: tuple[Pair, CallHandle]) -> None:
    link, _ = up
    pns, pac = link.call(0), link.call(1)
    assert (pns.role, pns.call_id, pns.peer_call_id, pns.state) == (Role.PNS, 700, 800, CallState.ESTABLISHED)
    assert (pac.role, pac.call_id, pac.peer_call_id, pac.state) == (Role.PAC, 800, 700, CallState.ESTABLISHED)
    assert link.last(0) == CallEstablished(pns)
    assert link.last(1) == CallEstablished(pac)
    assert (pns.peer_window, pns.connect_speed, pac.deadline, pns.deadline) == (64, 100_000_000, None, None)


def test_an_incoming_call_comes_up() -> None:
    """The side that was asked places the call as PAC; the starting side is the PNS."""
    link = pair()
    link.accept[link.ends[0]] = 31
    link.ends[1].place_incoming_call(32, link.now, number=b"5551212")
    link.run(1.0)
    pns, pac = link.call(0), link.call(1)
    assert (pns.role, pns.incoming, pns.call_id, pns.peer_call_id, pns.number) == (Role.PNS, True, 31, 32, b"5551212")
    assert (pac.role, pac.incoming, pac.call_id, pac.peer_call_id) == (Role.PAC, True, 32, 31)
    assert pns.state is pac.state is CallState.ESTABLISHED
    assert words(link.said[1])[1:] == ["IncomingCallRequest", "IncomingCallConnected"]
    assert words(link.said[0])[1:] == ["IncomingCallReply"]


@pytest.mark.parametrize("way", ["place_outgoing_call", "place_incoming_call"])
def test_both_sides_call_at_once_with_the_same_call_ids(way: str) -> None:
    """What a mirrored handshake does, and what two peers with Call ID 0 in both directions do."""
    link = pair()
    link.accept = dict.fromkeys(link.ends, 0)
    for end in link.ends:
        getattr(end, way)(0, link.now)
    link.run(1.0)
    for index, end in enumerate(link.ends):
        assert {call.role for call in end.calls} == {Role.PNS, Role.PAC}
        assert all((c.call_id, c.peer_call_id, c.state) == (0, 0, CallState.ESTABLISHED) for c in end.calls)
        assert len(link.took(index, CallEstablished)) == 2


def test_phone_text_is_accepted_and_window_0_is_passed_on() -> None:
    config = ControlConfig(receive_window=0)
    link = pair(pns_config=config)
    link.ends[0].place_outgoing_call(1, link.now, number=b"RELAY_PPP1", serial_number=7)
    link.run(1.0)
    assert (link.call(1).number, link.call(1).peer_window, link.call(1).serial_number) == (b"RELAY_PPP1", 0, 7)


def test_several_calls_up_to_the_limit_and_not_one_more() -> None:
    link = pair(pac_config=ControlConfig(max_calls=2))
    ids = iter(range(900, 910))
    for call_id in (1, 2, 3):
        link.ends[0].place_outgoing_call(call_id, link.now)
        link.accept[link.ends[1]] = next(ids)
        link.run(1.0)
    (ended,) = link.took(0, CallEnded)
    assert isinstance(ended, CallEnded)
    assert ended.cause.cause is TerminationCause.REFUSED
    assert "general_error (result 2, error 4)" in ended.cause.detail
    assert [call.call_id for call in link.ends[0].calls] == [1, 2]
    assert len(link.ends[1].calls) == 2


# -- down -------------------------------------------------------------------------------------------------------


def ended(link: Pair, index: int) -> Terminated:
    (event,) = link.took(index, CallEnded)
    assert isinstance(event, CallEnded)
    return event.cause


def test_the_pns_clears_a_call_and_the_connection_stays(up: tuple[Pair, CallHandle]) -> None:
    link, handle = up
    link.ends[0].clear_call(handle, link.now)
    assert link.call(0).state is CallState.WAIT_DISCONNECT
    link.ends[0].clear_call(handle, link.now)
    link.run(1.0)
    assert words(link.said[0])[-1:] == ["CallClearRequest"]
    assert link.said[1][-1] == CallDisconnectNotify(800, 4)
    assert ended(link, 0).cause is TerminationCause.LOCAL_REQUEST
    assert ended(link, 1).cause is TerminationCause.PEER_REQUEST
    assert all(end.established and not end.calls for end in link.ends)
    link.ends[0].clear_call(handle, link.now)
    assert link.ends[0].transmits() == []


def test_the_pac_disconnects_a_call_and_the_connection_stays(up: tuple[Pair, CallHandle]) -> None:
    link, _ = up
    link.ends[1].clear_call(link.call(1).handle, link.now)
    link.run(1.0)
    assert link.said[1][-1] == CallDisconnectNotify(800, 3)
    assert words(link.said[0]) == ["StartControlConnectionRequest", "OutgoingCallRequest"]
    assert ended(link, 0).cause is TerminationCause.PEER_REQUEST
    assert ended(link, 1).cause is TerminationCause.LOCAL_REQUEST
    assert all(end.established and not end.calls for end in link.ends)


def test_both_end_the_call_at_once(up: tuple[Pair, CallHandle]) -> None:
    link, handle = up
    link.ends[0].clear_call(handle, link.now)
    link.ends[1].clear_call(link.call(1).handle, link.now)
    link.run(1.0)
    assert ended(link, 0).cause is ended(link, 1).cause is TerminationCause.LOCAL_REQUEST
    assert link.said[1][-1] == CallDisconnectNotify(700, 2, 5)  # the PAC no longer knew it
    assert all(end.established and not end.calls for end in link.ends)


def test_a_cleared_call_can_be_placed_again_with_the_same_ids(up: tuple[Pair, CallHandle]) -> None:
    link, handle = up
    link.ends[0].clear_call(handle, link.now)
    link.run(1.0)
    again = link.ends[0].place_outgoing_call(700, link.now)
    link.run(1.0)
    assert again != handle
    assert link.call(0).state is link.call(1).state is CallState.ESTABLISHED


@pytest.mark.parametrize("before_answer", [True, False])
def test_the_pns_gives_up_a_call_that_is_not_answered_yet(before_answer: bool) -> None:
    link = pair()
    link.accept.clear()
    handle = link.ends[0].place_outgoing_call(700, link.now)
    link.run(1.0)
    link.ends[0].clear_call(handle, link.now)
    if not before_answer:  # the PAC accepts while the Call-Clear-Request is under way
        link.ends[1].accept_call(link.call(1).handle, 800, link.now)
    link.run(1.0)
    assert ended(link, 0).cause is TerminationCause.LOCAL_REQUEST
    assert not any(end.calls for end in link.ends)
    assert link.took(0, CallEstablished) == []


@pytest.mark.parametrize("incoming", [True, False])
def test_an_incoming_call_is_cleared_by_the_pns_or_withdrawn_by_the_pac(incoming: bool) -> None:
    link = pair()
    pns, pac = link.ends
    handle = pac.place_incoming_call(32, link.now)
    link.run(1.0)
    if incoming:
        pns.accept_call(link.call(0).handle, 31, link.now)
        pns.clear_call(link.call(0).handle, link.now)  # crosses Incoming-Call-Connected
    else:
        pac.clear_call(handle, link.now)
    link.run(1.0)
    assert not pns.calls
    assert not pac.calls
    assert pns.established
    assert pac.established


def test_a_call_is_refused_with_its_result() -> None:
    link = pair()
    link.accept.clear()
    link.ends[0].place_outgoing_call(700, link.now)
    link.run(1.0)
    link.ends[1].refuse_call(link.call(1).handle, link.now, result=OutgoingCallResult.BUSY, error=0)
    link.run(1.0)
    assert ended(link, 0) == Terminated(TerminationCause.REFUSED, "Outgoing-Call-Reply: busy (result 4, error 0)")
    assert not any(end.calls for end in link.ends)


def test_an_incoming_call_is_refused() -> None:
    link = pair()
    link.ends[1].place_incoming_call(32, link.now)
    link.run(1.0)
    link.ends[0].clear_call(link.call(0).handle, link.now)
    link.run(1.0)
    assert ended(link, 1) == Terminated(
        TerminationCause.REFUSED, "Incoming-Call-Reply: do_not_accept (result 3, error 0)"
    )
    assert not any(end.calls for end in link.ends)


@pytest.mark.parametrize("stopper", [0, 1])
def test_either_side_stops_the_connection(up: tuple[Pair, CallHandle], stopper: int) -> None:
    link, _ = up
    link.ends[stopper].stop(link.now, StopReason.LOCAL_SHUTDOWN)
    link.ends[stopper].stop(link.now)
    link.run(1.0)
    assert words(link.said[stopper])[-1] == "StopControlConnectionRequest"
    assert words(link.said[1 - stopper])[-1] == "StopControlConnectionReply"
    for index, cause in ((stopper, TerminationCause.LOCAL_REQUEST), (1 - stopper, TerminationCause.PEER_REQUEST)):
        call_ended, close, last = link.events[index][-3:]
        assert isinstance(call_ended, CallEnded)
        assert isinstance(close, CloseTransport)
        assert isinstance(last, Terminated)
        assert last.cause is call_ended.cause.cause is cause
        assert link.ends[index].deadline() is None


def test_both_stop_at_once(up: tuple[Pair, CallHandle]) -> None:
    link, _ = up
    for end in link.ends:
        end.stop(link.now)
    link.run(1.0)
    for index in (0, 1):
        assert link.last(index) == Terminated(TerminationCause.LOCAL_REQUEST)
        assert words(link.said[index])[-2:] == ["StopControlConnectionRequest", "StopControlConnectionReply"]


def test_a_stop_that_is_not_answered_ends_after_three_seconds(up: tuple[Pair, CallHandle]) -> None:
    link, _ = up
    link.cut = True
    link.ends[0].stop(link.now)
    link.run(2.9)
    assert not isinstance(link.last(0), Terminated)
    link.run(0.2)
    assert link.last(0) == Terminated(TerminationCause.LOCAL_REQUEST)


def test_a_closed_transport_hangs_up_every_call(up: tuple[Pair, CallHandle]) -> None:
    link, _ = up
    for end in link.ends:
        end.transport_closed(link.now)
        end.transport_closed(link.now)
    link.run(0.0)
    for index in (0, 1):
        assert ended(link, index).cause is TerminationCause.PEER_REQUEST
        assert isinstance(link.last(index), Terminated)
        assert link.events[index].count(CloseTransport()) == 1
    assert words(link.said[0])[-1] == "OutgoingCallRequest"  # nothing is said to a transport that is gone


@pytest.mark.parametrize("opened", [True, False])
def test_stopping_before_the_peer_answered_says_nothing_more(opened: bool) -> None:
    lone = ControlConnection(ControlConfig(), initiator=True)
    if opened:
        lone.open(0.0)
        assert len(lone.transmits()) == 1
    lone.stop(0.0)
    assert lone.transmits() == []
    assert lone.events() == [CloseTransport(), Terminated(TerminationCause.LOCAL_REQUEST)]


def test_the_refusal_of_the_connection_ends_it() -> None:
    lone = ControlConnection(ControlConfig(), initiator=True)
    lone.open(0.0)
    refusal = bytearray.fromhex("009c00011a2b3c4d00020000010004") + bytes(141)
    lone.receive_message(bytes(refusal), 0.0)
    assert lone.events()[-1] == Terminated(
        TerminationCause.REFUSED, "Start-Control-Connection-Reply: not_authorized (result 4, error 0)"
    )


# -- collisions (section 3.1.3) -----------------------------------------------------------------------------------

LOW, HIGH = 0x0A000001, 0xC0000201  # 10.0.0.1 and 192.0.2.1: unsigned, so the second is higher


def test_addresses_are_compared_unsigned() -> None:
    assert higher_address_wins(HIGH, LOW)
    assert not higher_address_wins(LOW, HIGH)
    assert not higher_address_wins(LOW, LOW)


@pytest.mark.parametrize(("first", "second"), [(LOW, HIGH), (HIGH, LOW), (0, 0)])
def test_both_start_on_one_transport(first: int, second: int) -> None:
    """One request survives; with equal or unknown addresses each answers the other, as in a mirrored handshake."""
    config = ControlConfig()
    link = Pair(
        ControlConnection(config, initiator=True, local_address=first, remote_address=second),
        ControlConnection(config, initiator=True, local_address=second, remote_address=first),
    ).open()
    assert all(end.established for end in link.ends)
    assert [len(link.took(index, ControlEstablished)) for index in (0, 1)] == [1, 1]
    replies = [words(said).count("StartControlConnectionReply") for said in link.said]
    assert replies == ([int(first < second), int(second < first)] if first else [1, 1])


@pytest.mark.parametrize("skew", [0.0, 0.02, 0.049])
def test_both_start_on_a_transport_of_their_own(skew: float) -> None:
    """The connection of the higher address stays; the lower one closes its own and is answered on the other."""
    config = ControlConfig()
    own_low = ControlConnection(config, initiator=True, local_address=LOW, remote_address=HIGH)
    own_high = ControlConnection(config, initiator=True, local_address=HIGH, remote_address=LOW)
    at_high = ControlConnection(config, initiator=False, local_address=HIGH, remote_address=LOW, rival=own_high)
    at_low = ControlConnection(config, initiator=False, local_address=LOW, remote_address=HIGH, rival=own_low)
    lows, highs = Pair(own_low, at_high), Pair(own_high, at_low)
    lows.ends[0].open(0.0)
    lows.ends[1].open(0.0)
    lows.run(skew)
    highs.now = lows.now
    highs.ends[0].open(highs.now)
    highs.ends[1].open(highs.now)
    for _ in range(100):
        lows.run(0.01)
        highs.run(0.01)
    assert own_high.established
    assert at_low.established
    assert lows.last(0) == Terminated(TerminationCause.REPLACED, "the peer's own request has the higher address")
    assert isinstance(lows.last(1), Terminated)
    assert words(lows.said[1]) == []


# -- for information ----------------------------------------------------------------------------------------------


def test_set_link_info_reaches_the_pac_and_only_a_pns_may_send_it(up: tuple[Pair, CallHandle]) -> None:
    link, handle = up
    link.ends[0].set_link_info(handle, 0, 0xFFFFFFFF, link.now)
    link.run(1.0)
    (event,) = link.took(1, LinkInfoReceived)
    assert event == LinkInfoReceived(link.call(1))
    assert (link.call(1).send_accm, link.call(1).receive_accm) == (0, 0xFFFFFFFF)
    with pytest.raises(UsageError):
        link.ends[1].set_link_info(link.call(1).handle, 0, 0, link.now)


def test_wan_errors_reach_the_pns(up: tuple[Pair, CallHandle]) -> None:
    link, _ = up
    errors = WanErrorNotify(700, 1, 2, 3, 4, 5, 6)
    link.ends[0].receive_message(build_message(errors), link.now)
    link.run(0.0)
    assert link.took(0, WanErrorsReceived) == [WanErrorsReceived(link.call(0), errors)]


# -- misuse -------------------------------------------------------------------------------------------------------


def test_misuse_is_our_bug_and_changes_nothing(up: tuple[Pair, CallHandle]) -> None:
    link, handle = up
    pns, pac = link.ends
    before = (pns.calls, pac.calls)
    lone = ControlConnection(ControlConfig(), initiator=False)
    lone.open(0.0)
    for misuse in (
        lambda: pns.open(link.now),
        lambda: lone.open(0.0),
        lambda: lone.place_outgoing_call(1, 0.0),
        lambda: lone.place_incoming_call(1, 0.0),
        lambda: pns.place_outgoing_call(700, link.now),
        lambda: pns.place_outgoing_call(0x10000, link.now),
        lambda: pns.place_outgoing_call(-1, link.now),
        lambda: pns.accept_call(handle, 5, link.now),
        lambda: pns.refuse_call(handle, link.now),
        lambda: lone.set_link_info(CallHandle(1), 0, 0, 0.0),
    ):
        with pytest.raises(UsageError):
            misuse()
    assert (pns.calls, pac.calls) == before
    assert [end.transmits() for end in (pns, pac, lone)] == [[], [], []]


def test_deciding_about_a_call_that_has_ended_is_harmless() -> None:
    link = pair()
    link.accept.clear()
    handle = link.ends[0].place_outgoing_call(700, link.now)
    link.run(1.0)
    asked = link.call(1).handle
    link.ends[0].clear_call(handle, link.now)
    link.run(1.0)
    link.ends[1].accept_call(asked, 800, link.now)
    link.ends[1].refuse_call(asked, link.now)
    assert link.ends[1].transmits() == []
    assert link.ends[1].calls == ()


def test_a_success_code_does_not_refuse() -> None:
    link = pair()
    link.accept.clear()
    link.ends[0].place_outgoing_call(700, link.now)
    link.run(1.0)
    with pytest.raises(UsageError):
        link.ends[1].refuse_call(link.call(1).handle, link.now, result=1)
