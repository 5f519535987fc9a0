"""One control connection against what real peers do: timers, keepalive, oddities, recorded sessions, bad order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pptp.control import (
    CallEnded,
    CallEstablished,
    CallHandle,
    CallRequested,
    CallState,
    CloseTransport,
    ControlConfig,
    ControlConnection,
    ControlEstablished,
    Noted,
    Role,
)
from pptp.errors import Terminated, TerminationCause, WireCause, WireError
from pptp.wire.control import (
    CallClearRequest,
    CallDisconnectNotify,
    ControlMessage,
    EchoReply,
    EchoRequest,
    IncomingCallConnected,
    IncomingCallReply,
    IncomingCallRequest,
    OutgoingCallReply,
    OutgoingCallRequest,
    SetLinkInfo,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    StopControlConnectionReply,
    StopControlConnectionRequest,
    WanErrorNotify,
    build_message,
    parse_message,
)


class Bench:
    """One machine with its owner's hand on it: says and hears messages instead of octets."""

    def __init__(self, config: ControlConfig | None = None, *, initiator: bool) -> None:
        self.machine = ControlConnection(config or ControlConfig(), initiator=initiator)
        self.now = 0.0
        self.machine.open(self.now)

    def hear(self, *messages: ControlMessage) -> list[ControlMessage]:
        for message in messages:
            self.machine.receive_message(build_message(message), self.now)
        return self.said()

    def said(self) -> list[ControlMessage]:
        return [parse_message(data) for data in self.machine.transmits()]

    def wait(self, seconds: float) -> list[ControlMessage]:
        until = self.now + seconds
        while (due := self.machine.deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.machine.handle_timeout(self.now)
        self.now = until
        return self.said()

    def ended(self) -> Terminated | None:
        last = self.machine.events()[-1:]
        return last[0] if last and isinstance(last[0], Terminated) else None

    def notes(self) -> list[str]:
        return [event.sentence for event in self.machine.events() if isinstance(event, Noted)]


def asked(config: ControlConfig | None = None) -> Bench:
    """A machine that was asked, its connection established."""
    bench = Bench(config, initiator=False)
    (reply,) = bench.hear(StartControlConnectionRequest())
    assert isinstance(reply, StartControlConnectionReply)
    bench.machine.events()
    return bench


def starter(config: ControlConfig | None = None) -> Bench:
    """A machine that started, its connection established."""
    bench = Bench(config, initiator=True)
    assert len(bench.said()) == 1
    bench.hear(StartControlConnectionReply())
    bench.machine.events()
    return bench


def with_call(*, role: Role) -> tuple[Bench, CallHandle]:
    """A machine with an established outgoing call: our Call ID 800, the peer's 700."""
    if role is Role.PNS:
        bench = starter()
        handle = bench.machine.place_outgoing_call(800, bench.now)
        bench.hear(OutgoingCallReply(700, 800))
    else:
        bench = asked()
        bench.hear(OutgoingCallRequest(700))
        (event,) = bench.machine.events()
        assert isinstance(event, CallRequested)
        handle = event.call.handle
        bench.machine.accept_call(handle, 800, bench.now)
    bench.said()
    assert isinstance(bench.machine.events()[-1], CallEstablished)
    return bench, handle


# -- timers (sections 3.1.4 and 3.2.1) ----------------------------------------------------------------------------


@pytest.mark.parametrize("initiator", [True, False])
def test_a_silent_peer_ends_the_start_after_sixty_seconds(initiator: bool) -> None:
    bench = Bench(initiator=initiator)
    bench.said()
    bench.wait(59.9)
    assert bench.machine.events() == []
    assert bench.wait(0.2) == []
    assert bench.ended() == Terminated(TerminationCause.PEER_SILENT, "no start of the control connection")


def test_a_server_may_be_less_patient_with_strangers() -> None:
    bench = Bench(ControlConfig(first_wait=10.0), initiator=False)
    bench.hear(EchoRequest(1), EchoRequest(2))  # knocking is no start
    bench.wait(10.0)
    assert bench.ended() is not None


def test_sixty_idle_seconds_are_asked_about_and_sixty_more_end_it() -> None:
    bench, _ = with_call(role=Role.PAC)
    assert bench.wait(59.9) == []
    assert bench.wait(0.2) == [EchoRequest(1)]
    assert bench.wait(59.8) == []
    assert bench.machine.events() == []
    bench.wait(0.2)
    ended, close, last = bench.machine.events()
    assert last == Terminated(TerminationCause.PEER_SILENT, "no Echo-Reply")
    assert (isinstance(ended, CallEnded), close) == (True, CloseTransport())


def test_an_echo_reply_or_any_other_message_is_a_sign_of_life() -> None:
    for sign in (EchoReply(1), EchoRequest(9), SetLinkInfo(800), CallClearRequest(4711)):
        bench, _ = with_call(role=Role.PAC)
        assert bench.wait(60) == [EchoRequest(1)]
        bench.wait(50)
        bench.hear(sign)
        assert bench.wait(59.9) == []
        assert bench.wait(0.2) == [EchoRequest(2)]


def test_what_we_send_ourselves_is_no_sign_of_life() -> None:
    """A server that counted its own traffic never asked, for years."""
    bench, handle = with_call(role=Role.PNS)
    for _ in range(6):
        bench.wait(9)
        bench.machine.set_link_info(handle, 0, 0, bench.now)
        bench.said()
    assert bench.wait(6.1) == [EchoRequest(1)]


def test_an_echo_reply_nobody_asked_for_is_noted() -> None:
    bench = asked()
    assert bench.hear(EchoReply(5)) == []
    assert bench.notes() == ["ECHO_REPLY: it answers nothing that was asked"]


def test_asking_can_be_left_out_or_have_no_consequence() -> None:
    assert asked(ControlConfig(echo_interval=None)).machine.deadline() is None
    bench = asked(ControlConfig(echo_wait=None))
    assert bench.wait(600) == [EchoRequest(n) for n in range(1, 11)]
    assert bench.machine.established


@pytest.mark.parametrize("waits_for", ["reply", "disconnect"])
def test_a_call_that_hangs_for_sixty_seconds_ends_the_connection(waits_for: str) -> None:
    bench = starter(ControlConfig(echo_interval=None))
    handle = bench.machine.place_outgoing_call(800, bench.now)
    if waits_for == "disconnect":
        bench.hear(OutgoingCallReply(700, 800))
        bench.machine.clear_call(handle, bench.now)
    bench.said()
    bench.machine.events()
    assert bench.wait(59.9) == []
    assert bench.machine.events() == []
    assert bench.wait(0.2) == []
    assert bench.ended() == Terminated(TerminationCause.PEER_SILENT, f"a call stayed in wait_{waits_for}")


@pytest.mark.parametrize("incoming", [False, True])
def test_an_owner_who_does_not_decide_loses_that_call_only(incoming: bool) -> None:
    bench = asked(ControlConfig(echo_interval=None))
    request = IncomingCallRequest(700) if incoming else OutgoingCallRequest(700)
    bench.hear(request)
    (refusal,) = bench.wait(60)
    if incoming:
        assert refusal == IncomingCallReply(0, 700, 3, 0, receive_window=0)
    else:
        assert refusal == OutgoingCallReply(0, 700, 6, 0, receive_window=0)
    last = bench.machine.events()[-1]
    assert isinstance(last, CallEnded)
    assert last.cause.cause is TerminationCause.TIMEOUT
    assert bench.machine.established


def test_spurious_timeouts_are_harmless() -> None:
    bench, _ = with_call(role=Role.PAC)
    before = (bench.machine.deadline(), bench.machine.calls)
    for _ in range(3):
        bench.machine.handle_timeout(bench.now)
    assert (bench.machine.deadline(), bench.machine.calls) == before
    assert bench.machine.transmits() == []


# -- what peers do ------------------------------------------------------------------------------------------------


def test_result_0_is_success_too() -> None:
    bench = Bench(initiator=True)
    bench.said()
    bench.hear(StartControlConnectionReply(result_code=0))
    assert bench.machine.established
    bench.machine.place_outgoing_call(800, bench.now)
    bench.hear(OutgoingCallReply(700, 800, result_code=0))
    assert bench.machine.calls[0].state is CallState.ESTABLISHED
    bench.machine.place_incoming_call(801, bench.now)
    bench.said()
    assert bench.hear(IncomingCallReply(701, 801, result_code=0)) == [
        IncomingCallConnected(701, connect_speed=100_000_000)
    ]


def test_framing_bearer_and_channels_are_not_judged() -> None:
    for framing, bearer, channels in ((1, 1, 0), (3, 3, 65535), (2, 2, 4), (0, 0, 1), (0xFFFFFFFF, 0, 0)):
        bench = Bench(initiator=False)
        assert bench.hear(StartControlConnectionRequest(0x0100, framing, bearer, channels)) != []
        assert bench.machine.established
        outgoing = OutgoingCallRequest(700, 2, 100_000_000, 300, bearer, framing)  # one peer swaps the speeds
        bench.hear(outgoing)
        assert len(bench.machine.calls) == 1


def test_a_reserved_field_that_is_not_zero_is_noted_once_and_tolerated() -> None:
    bench = Bench(initiator=False)
    for message in (StartControlConnectionRequest(), EchoRequest(1), EchoRequest(2)):
        data = build_message(message)
        bench.machine.receive_message(data[:10] + b"\x00\x01" + data[12:], bench.now)
    assert bench.machine.established
    assert bench.notes() == ["the reserved field of a message header is not zero"]
    assert len(bench.said()) == 3


def test_the_offered_speed_is_granted_up_to_ours() -> None:
    for offered, granted in ((10_000_000, 10_000_000), (0xFFFFFFFF, 100_000_000), (0, 0)):
        bench = asked()
        bench.hear(OutgoingCallRequest(700, maximum_bps=offered))
        bench.machine.accept_call(bench.machine.calls[0].handle, 800, bench.now)
        assert bench.said() == [OutgoingCallReply(800, 700, connect_speed=granted)]


@pytest.mark.parametrize("call_id", [700, 800])
def test_as_pns_either_call_id_disconnects(call_id: int) -> None:
    """Section 2.13 says the PAC's own (here 700); accel-ppp sends the PNS's."""
    bench, _ = with_call(role=Role.PNS)
    assert bench.hear(CallDisconnectNotify(call_id, result_code=0)) == []
    (event,) = bench.machine.events()
    assert isinstance(event, CallEnded)
    assert event.cause.cause is TerminationCause.PEER_REQUEST
    assert bench.machine.calls == ()


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        (0, TerminationCause.PEER_REQUEST),
        (1, TerminationCause.LOST_CARRIER),
        (2, TerminationCause.PROTOCOL_ERROR),
        (3, TerminationCause.PEER_REQUEST),
        (4, TerminationCause.PEER_REQUEST),
        (200, TerminationCause.PEER_REQUEST),
    ],
)
def test_the_reason_of_a_disconnect_is_told(result: int, cause: TerminationCause) -> None:
    bench, _ = with_call(role=Role.PNS)
    bench.hear(CallDisconnectNotify(700, result_code=result))
    (event,) = bench.machine.events()
    assert isinstance(event, CallEnded)
    assert event.cause == Terminated(cause, f"Call-Disconnect-Notify: result {result}, error 0")


def test_a_clear_request_gets_our_own_call_id_and_result_4() -> None:
    bench, _ = with_call(role=Role.PAC)
    assert bench.hear(CallClearRequest(700)) == [CallDisconnectNotify(800, 4, 0)]
    assert bench.hear(CallClearRequest(700)) == [CallDisconnectNotify(700, 2, 5)]
    assert bench.machine.established


@pytest.mark.parametrize("call_id", [0, 701, 800, 0xFFFF])
def test_a_clear_request_for_an_unknown_call(call_id: int) -> None:
    bench, _ = with_call(role=Role.PAC)
    assert bench.hear(CallClearRequest(call_id)) == [CallDisconnectNotify(call_id, 2, 5)]
    assert len(bench.machine.calls) == 1


@pytest.mark.parametrize("state", ["asked, not started", "starting", "established", "stopping"])
def test_an_echo_is_answered_at_once_in_every_state(state: str) -> None:
    if state == "asked, not started":
        bench = Bench(initiator=False)
    elif state == "starting":
        bench = Bench(initiator=True)
    else:
        bench = asked()
        if state == "stopping":
            bench.machine.stop(bench.now)
    bench.said()
    for identifier in (0, 1, 0xFFFFFFFF):
        assert bench.hear(EchoRequest(identifier)) == [EchoReply(identifier, 1, 0)]
    bench.machine.transport_closed(bench.now)
    assert bench.hear(EchoRequest(1)) == []


def test_link_info_and_wan_errors_are_never_answered() -> None:
    bench, _ = with_call(role=Role.PAC)
    for accm in (0, 0xFFFFFFFF, 0x000A0000):
        assert bench.hear(SetLinkInfo(800, accm, accm)) == []
    assert bench.hear(SetLinkInfo(700), WanErrorNotify(800), WanErrorNotify(700)) == []
    assert bench.machine.calls[0].send_accm == 0x000A0000
    assert len(bench.machine.calls) == 1


def test_the_same_request_twice_makes_one_call_and_the_same_answer() -> None:
    bench = asked()
    request = OutgoingCallRequest(700, call_serial_number=1)
    assert bench.hear(request, request) == []
    bench.machine.accept_call(bench.machine.calls[0].handle, 800, bench.now)
    (answer,) = bench.said()
    assert bench.hear(request) == [answer]
    assert len([e for e in bench.machine.events() if isinstance(e, CallRequested)]) == 1
    other = OutgoingCallRequest(700, call_serial_number=2)
    assert bench.hear(other) == [OutgoingCallReply(0, 700, 2, 5, receive_window=0)]
    assert bench.hear(IncomingCallRequest(700)) == []  # a call of the other role may have the same id
    assert len(bench.machine.calls) == 2
    assert bench.hear(IncomingCallRequest(700, 9)) == [IncomingCallReply(0, 700, 2, 5, receive_window=0)]


def test_a_second_start_is_told_that_there_is_one() -> None:
    bench, _ = with_call(role=Role.PAC)
    (reply,) = bench.hear(StartControlConnectionRequest())
    assert isinstance(reply, StartControlConnectionReply)
    assert reply.result_code == 3
    assert len(bench.machine.calls) == 1


@pytest.mark.parametrize("version", [0x0000, 0x0001, 0x0101, 0x0200])
def test_another_version_is_refused(version: int) -> None:
    bench = Bench(initiator=False)
    (reply,) = bench.hear(StartControlConnectionRequest(version))
    assert isinstance(reply, StartControlConnectionReply)
    assert (reply.result_code, reply.protocol_version) == (5, 0x0100)
    assert bench.ended() == Terminated(TerminationCause.NOT_AGREED, f"version 0x{version:04x}")
    bench = Bench(initiator=True)
    bench.said()
    assert bench.hear(StartControlConnectionReply(version)) == [StopControlConnectionRequest(2)]
    assert bench.hear(StopControlConnectionReply()) == []
    assert bench.ended() == Terminated(TerminationCause.NOT_AGREED, f"version 0x{version:04x}")


def test_a_peer_that_stops_instead_of_answering() -> None:
    bench = Bench(initiator=True)
    bench.said()
    assert bench.hear(StopControlConnectionRequest(2)) == [StopControlConnectionReply()]
    assert bench.ended() == Terminated(TerminationCause.PEER_REQUEST, "Stop-Control-Connection-Request: 2")


def test_notes_are_bounded_however_much_a_peer_says() -> None:
    bench = asked()
    for call_id in range(2000):
        bench.hear(CallDisconnectNotify(call_id), OutgoingCallReply(1, call_id), EchoReply(call_id + 1))
    assert len(bench.notes()) == 3


def test_an_answer_to_a_call_that_never_was_creates_none() -> None:
    bench = starter()
    nothing: list[ControlMessage] = [
        OutgoingCallReply(1, 2),
        IncomingCallReply(1, 2),
        IncomingCallConnected(2),
        CallDisconnectNotify(1),
    ]
    assert bench.hear(*nothing, *nothing) == []
    assert bench.machine.calls == ()


# -- malformed, and in the wrong order --------------------------------------------------------------------------


def scenes() -> dict[str, Callable[[], Bench]]:
    return {
        "asked, not started": lambda: Bench(initiator=False),
        "starting": lambda: Bench(initiator=True),
        "established": asked,
        "in a call": lambda: with_call(role=Role.PAC)[0],
    }


@pytest.mark.parametrize("scene", list(scenes()))
@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x00",
        bytes(12),
        bytes.fromhex("000000011a2b3c4d00050000"),
        bytes.fromhex("001000011a2b3c4d00050000"),
        bytes.fromhex("001000011a2b3c4d0005000000000001ff"),
        bytes.fromhex("001000021a2b3c4d0005000000000001"),
        bytes.fromhex("001000011a2b3c4d0010000000000001"),
        bytes.fromhex("001000011a2b3c4e0005000000000001"),
    ],
    ids=lambda octets: octets.hex() or "empty",
)
def test_malformed_octets_close_without_an_answer(scene: str, octets: bytes) -> None:
    bench = scenes()[scene]()
    bench.said()
    bench.machine.receive_message(octets, bench.now)
    assert bench.said() == []
    last = bench.ended()
    assert last is not None
    assert last.cause is TerminationCause.PROTOCOL_ERROR
    assert bench.machine.calls == ()
    assert bench.machine.deadline() is None


def test_a_stream_out_of_step_closes() -> None:
    bench = asked()
    for _ in range(2):
        bench.machine.malformed(WireError("control message", WireCause.BAD_MAGIC), bench.now)
    events = bench.machine.events()
    assert events == [CloseTransport(), Terminated(TerminationCause.PROTOCOL_ERROR, "control message: bad_magic")]


EARLY: list[ControlMessage] = [
    StopControlConnectionReply(),
    EchoReply(0),
    OutgoingCallRequest(1),
    OutgoingCallReply(1, 1),
    IncomingCallRequest(1),
    IncomingCallReply(1, 1),
    IncomingCallConnected(1),
    CallClearRequest(1),
    CallDisconnectNotify(1),
    WanErrorNotify(1),
    SetLinkInfo(1),
]


@pytest.mark.parametrize("message", EARLY, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("initiator", [True, False])
def test_a_message_before_the_start_closes_without_an_answer(message: ControlMessage, initiator: bool) -> None:
    bench = Bench(initiator=initiator)
    bench.said()
    assert bench.hear(message, message) == []
    last = bench.ended()
    assert last is not None
    assert last.cause is TerminationCause.PROTOCOL_ERROR


@pytest.mark.parametrize("message", [StopControlConnectionRequest(), StartControlConnectionReply()])
def test_a_connection_that_was_never_started_cannot_be_stopped_or_answered(message: ControlMessage) -> None:
    bench = Bench(initiator=False)
    assert bench.hear(message) == []
    assert bench.ended() is not None


# -- recorded from pptp-linux 1.10 and pptpd 1.4.0 ---------------------------------------------------------------

ZEROS_59 = "00" * 59
START_REQUEST = bytes.fromhex(
    "009c00011a2b3c4d00010000010000000000000300000003ffff00016c6f63616c" + ZEROS_59 + "63616e616e69616e" + "00" * 56
)
START_REPLY = bytes.fromhex(
    "009c00011a2b3c4d00020000010001000000000000000000000100016c6f63616c" + ZEROS_59 + "6c696e7578" + ZEROS_59
)
CALL_REQUEST = bytes.fromhex(
    "00a800011a2b3c4d00070000feef000000000960009896800000000300000003000300000000" + "00" * 130
)
CALL_REPLY = bytes.fromhex("002000011a2b3c4d000800000000feef01000000009896800003000000000000")
CLEAR_REQUEST = bytes.fromhex("001000011a2b3c4d000c0000feef0000")


def test_we_serve_the_recorded_client() -> None:
    bench = Bench(ControlConfig(host_name=b"srv", receive_window=3), initiator=False)
    bench.machine.receive_message(START_REQUEST, bench.now)
    (established,) = bench.machine.events()
    assert isinstance(established, ControlEstablished)
    assert (established.peer.host_name, established.peer.vendor_name) == (b"local", b"cananian")
    bench.said()
    bench.machine.receive_message(CALL_REQUEST, bench.now)
    bench.machine.accept_call(bench.machine.calls[0].handle, 0, bench.now)
    assert bench.machine.transmits() == [CALL_REPLY]  # octet for octet what pptpd answered
    bench.machine.receive_message(CLEAR_REQUEST, bench.now)
    assert bench.said() == [CallDisconnectNotify(0, 4)]
    assert bench.machine.calls == ()


def test_we_are_a_client_of_the_recorded_server() -> None:
    bench = Bench(ControlConfig(receive_window=3, maximum_bps=10_000_000), initiator=True)
    bench.said()
    bench.machine.receive_message(START_REPLY, bench.now)
    handle = bench.machine.place_outgoing_call(0xFEEF, bench.now)
    assert bench.machine.transmits() == [CALL_REQUEST]  # octet for octet what pptp-linux asked
    bench.machine.receive_message(CALL_REPLY, bench.now)
    (call,) = bench.machine.calls
    assert (call.call_id, call.peer_call_id, call.connect_speed, call.peer_window) == (0xFEEF, 0, 10_000_000, 3)
    bench.machine.clear_call(handle, bench.now)
    assert bench.machine.transmits() == [CLEAR_REQUEST]
