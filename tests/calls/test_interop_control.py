"""Points 1 to 15 of what PPTP systems do on the control connection, each as our connection meets it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pptp.control import Noted
from pptp.errors import Terminated, TerminationCause
from pptp.ordinary import CallOver, CallUp, ControlUp
from pptp.wire.control import (
    CallClearRequest,
    CallDisconnectNotify,
    ControlMessage,
    EchoReply,
    EchoRequest,
    OutgoingCallReply,
    OutgoingCallRequest,
    SetLinkInfo,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    StopControlConnectionReply,
    StopControlConnectionRequest,
    build_message,
    parse_message,
    reserved0,
)
from pptp.wire.ppp import Protocol
from tests.calls.call_world import CLIENT, SERVER, World, dialling, serving
from tests.calls.scripted import THEIRS, Scripted

OPENING = build_message(StartControlConnectionRequest()) + build_message(OutgoingCallRequest(THEIRS))


@pytest.mark.parametrize("size", [1, 7, 155, 157, len(OPENING)])
def test_interop_01_messages_come_in_any_pieces(size: int) -> None:
    script = Scripted(serving())
    said: list[ControlMessage] = []
    for at in range(0, len(OPENING), size):
        said += script.octets(OPENING[at : at + size])
    assert [type(message) for message in said] == [StartControlConnectionReply, OutgoingCallReply]


@pytest.mark.parametrize("spoilt", [(0, 255), (4, 0), (3, 2), (9, 99), (1, 155)])
def test_interop_01_a_stream_out_of_step_is_closed_and_not_searched(spoilt: tuple[int, int]) -> None:
    at, octet = spoilt
    script = Scripted(serving()).call_up()
    bad = bytearray(build_message(EchoRequest(1)))
    bad[at] = octet
    assert script.octets(bytes(bad) + build_message(EchoRequest(2))) == []
    assert script.one(Terminated).cause is TerminationCause.PROTOCOL_ERROR
    assert script.one(CallOver).cause.cause is TerminationCause.PROTOCOL_ERROR
    assert script.octets(build_message(EchoRequest(3))) == []


@pytest.mark.parametrize("result", [0, 1])
def test_interop_02_result_0_is_success_too(result: int) -> None:
    script = Scripted(dialling())
    script.take_messages()
    (request,) = script.say(StartControlConnectionReply(result_code=result))
    assert isinstance(request, OutgoingCallRequest)
    script.say(OutgoingCallReply(THEIRS, request.call_id, result_code=result))
    assert script.one(CallUp).peer_call_id == THEIRS


@pytest.mark.parametrize(("framing", "bearer"), [(1, 1), (3, 3), (2, 2), (0, 0), (0xFFFFFFFF, 0)])
def test_interop_03_framing_and_bearer_are_not_judged(framing: int, bearer: int) -> None:
    script = Scripted(serving())
    script.say(StartControlConnectionRequest(framing_capabilities=framing, bearer_capabilities=bearer))
    script.say(OutgoingCallRequest(THEIRS, bearer_type=bearer, framing_type=framing))
    assert script.of(CallUp)
    script = Scripted(dialling())
    script.say(StartControlConnectionReply(framing_capabilities=framing, bearer_capabilities=bearer))
    assert script.of(ControlUp)


def test_interop_04_a_reserved_field_that_is_not_zero_is_noted_and_ours_is_zero() -> None:
    script = Scripted(serving())
    odd = bytearray(OPENING)
    odd[10:12] = b"\x12\x34"
    script.octets(bytes(odd))
    assert len(script.of(Noted)) == 1
    assert script.of(CallUp)
    assert all(reserved0(message) == 0 for message in script.stream)


def test_interop_05_no_channels_at_most_is_no_reason_to_refuse() -> None:
    script = Scripted(serving())
    (reply,) = script.say(StartControlConnectionRequest(maximum_channels=0))
    assert isinstance(reply, StartControlConnectionReply)
    assert reply.result_code == 1
    script = Scripted(dialling())
    (request,) = script.say(StartControlConnectionReply(maximum_channels=0))[-1:]
    assert isinstance(request, OutgoingCallRequest)


REQUESTS = {
    "Windows": OutgoingCallRequest(THEIRS, 2, 300, 100_000_000, receive_window=64),
    "pptp-linux": OutgoingCallRequest(THEIRS, 0, 2400, 10_000_000, receive_window=3),
    "Android": OutgoingCallRequest(THEIRS, 0, 1000, 100_000_000, receive_window=8192),
    "npppd, swapped": OutgoingCallRequest(THEIRS, 0, 100_000_000, 300, receive_window=4),
    "nonsense": OutgoingCallRequest(THEIRS, 65535, 0xFFFFFFFF, 0, receive_window=65535, processing_delay=65535),
}


@pytest.mark.parametrize("system", REQUESTS)
def test_interop_06_no_call_is_refused_for_its_speed(system: str) -> None:
    script = Scripted(serving())
    script.say(StartControlConnectionRequest())
    (reply,) = script.say(REQUESTS[system])
    assert isinstance(reply, OutgoingCallReply)
    assert (reply.result_code, reply.peer_call_id) == (1, THEIRS)


def test_interop_07_the_reply_has_a_sane_speed_our_window_and_no_delay() -> None:
    script = Scripted(serving())
    script.say(StartControlConnectionRequest())
    (reply,) = script.say(OutgoingCallRequest(THEIRS, maximum_bps=0xFFFFFFFF, receive_window=3))
    assert isinstance(reply, OutgoingCallReply)
    assert reply.connect_speed == 100_000_000
    assert (reply.receive_window, reply.processing_delay, reply.physical_channel_id) == (64, 0, 0)


def test_interop_07_a_window_of_0_is_no_flow_control() -> None:
    """Neither end acknowledges a thing: everything passes all the same."""
    world = World(serving(), dialling())
    silent = replace(world.server.control, receive_window=0)
    world = World(replace(world.server, control=silent), replace(world.client, control=silent))
    world.run(2.0)
    for number in range(500):
        assert world.send_data(CLIENT, number)
    world.run(4.0)
    assert world.numbers(SERVER) == list(range(500))


def test_interop_08_a_disconnect_carries_the_pacs_own_id() -> None:
    script = Scripted(serving()).call_up()
    script.connection.close_call(script.ours, script.now)
    script.collect()
    (notify,) = script.take_messages()
    assert isinstance(notify, CallDisconnectNotify)
    assert notify.call_id == script.ours != THEIRS


@pytest.mark.parametrize("whose", ["the PAC's", "the PNS's"])
def test_interop_08_as_pns_either_id_ends_the_call(whose: str) -> None:
    script = Scripted(dialling()).call_up()
    script.say(CallDisconnectNotify(THEIRS if whose == "the PAC's" else script.ours))
    assert script.one(CallOver).cause.cause is TerminationCause.PEER_REQUEST


def test_interop_09_a_clear_request_ends_the_call_and_not_the_connection() -> None:
    script = Scripted(serving()).call_up()
    assert script.say(CallClearRequest(99)) == [CallDisconnectNotify(99, 2, 5)]
    assert script.of(CallOver) == []
    (notify,) = script.say(CallClearRequest(THEIRS))
    assert notify == CallDisconnectNotify(script.ours, 4)
    assert script.of(CallOver)
    assert script.owner.call_ids.out == set()
    (again,) = script.say(OutgoingCallRequest(THEIRS + 1))
    assert isinstance(again, OutgoingCallReply)
    assert again.result_code == 1


@pytest.mark.parametrize("dials", [True, False])
def test_interop_10_the_end_of_the_stream_hangs_up(dials: bool) -> None:
    script = Scripted(dialling() if dials else serving()).call_up()
    script.connection.stream_closed(script.now)
    script.collect()
    assert script.one(CallOver).cause.cause is TerminationCause.PEER_REQUEST
    assert isinstance(script.events[-1], Terminated)
    assert script.owner.call_ids.out == set()


@pytest.mark.parametrize("accm", [0, 0xFFFFFFFF, 0x000A0000])
def test_interop_11_link_info_changes_no_octet(accm: int) -> None:
    script = Scripted(serving()).lcp_up()
    assert script.say(SetLinkInfo(script.ours, accm, accm)) == []
    script.cp(Protocol.LCP, 9, 3, data=bytes(4) + bytes(range(64)))
    (reply,) = script.take_cp(Protocol.LCP)
    assert reply.data[4:] == bytes(range(64))


def test_interop_11_as_pac_we_send_none() -> None:
    world = World(serving(), dialling())
    world.run(30.0)
    said = [parse_message(out.data) for _, side, out in world.wire if side == SERVER and hasattr(out, "data")]
    assert said
    assert not any(isinstance(message, SetLinkInfo) for message in said)


def test_interop_12_an_echo_is_answered_at_once_before_any_call_too() -> None:
    script = Scripted(serving())
    assert script.say(EchoRequest(0xDEADBEEF)) == [EchoReply(0xDEADBEEF, 1, 0)]
    script.say(StartControlConnectionRequest())
    assert script.say(EchoRequest(0)) == [EchoReply(0, 1, 0)]
    assert len(build_message(EchoReply(0))) == 20


def test_interop_12_data_and_our_own_words_put_no_echo_off() -> None:
    """60 s after the last message of the peer we ask, whatever goes through GRE meanwhile."""
    script = Scripted(serving()).lcp_up()
    began = script.now
    while not any(isinstance(message, EchoRequest) for message in script.messages):
        script.wait(1.0)
        script.cp(Protocol.LCP, 9, 3, data=bytes(4))
        assert script.now < began + 62
    assert script.now > began + 58
    assert script.of(Terminated) == []


def test_interop_12_any_message_is_a_sign_of_life() -> None:
    script = Scripted(serving()).lcp_up()
    for _ in range(10):
        script.wait(50.0)
        script.cp(Protocol.LCP, 9, 3, data=bytes(4))
        script.say(SetLinkInfo(script.ours))
    assert not any(isinstance(message, EchoRequest) for message in script.messages)


def test_interop_13_clients_behind_one_nat_may_share_their_call_ids() -> None:
    """Our own Call ID tells them apart; theirs is only what our packets carry."""
    first, second = Scripted(serving(), seed=1), Scripted(serving(), seed=2)
    second.owner.call_ids.allocate()
    for script in (first, second):
        script.lcp_up()
    assert first.ours != second.ours
    assert first.one(CallUp).peer_call_id == second.one(CallUp).peer_call_id == THEIRS
    stray = first.connection.status()
    assert second.raw(b"\x30\x01\x88\x0b\0\0" + first.ours.to_bytes(2, "big") + bytes(4)) == []
    assert first.connection.status() == stray
    assert sum(second.connection.status().drops.values()) == 1


def test_interop_14_whoever_says_nothing_is_let_go_after_ten_seconds() -> None:
    script = Scripted(serving())
    script.wait(9.9)
    assert script.events == []
    script.wait(0.2)
    assert script.one(Terminated).cause is TerminationCause.PEER_SILENT


def test_interop_14_whoever_wants_no_call_is_told_to_stop() -> None:
    script = Scripted(serving())
    script.say(StartControlConnectionRequest())
    script.wait(31.0)
    (stop,) = script.take_messages()
    assert isinstance(stop, StopControlConnectionRequest)
    script.say(StopControlConnectionReply())
    assert script.one(Terminated).cause is TerminationCause.TIMEOUT


@pytest.mark.parametrize("number", [b"RELAY_PPP1", b"", b"x" * 64])
def test_interop_15_a_phone_number_is_accepted(number: bytes) -> None:
    script = Scripted(serving())
    script.say(StartControlConnectionRequest(firmware_revision=0x6021))
    (reply,) = script.say(OutgoingCallRequest(THEIRS, phone_number=number))
    assert isinstance(reply, OutgoingCallReply)
    assert reply.result_code == 1


def test_interop_15_a_phone_number_longer_than_its_field_is_a_malformed_message() -> None:
    script = Scripted(serving())
    script.say(StartControlConnectionRequest())
    request = bytearray(build_message(OutgoingCallRequest(THEIRS, phone_number=b"123")))
    request[36:38] = b"\xff\xff"
    assert script.octets(bytes(request)) == []
    assert script.one(Terminated).cause is TerminationCause.PROTOCOL_ERROR
