"""Layouts, codes, whose Call ID goes where, and the traps in the text of the RFCs, each as a fact to hold.

The layouts are written down a second time here, octet by octet, as another implementation's table has them.
"""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest

from pptp.channel import Channel, ChannelConfig, SendWindow
from pptp.control import CallEstablished, CallRequested, ControlConfig, ControlConnection, Role
from pptp.crypto.mppe import MppeDecryptor, MppeEncryptor, MppeMode, is_encrypted_by_mppe
from pptp.crypto.mppe_keys import Strength
from pptp.errors import DropError, Terminated, TerminationCause
from pptp.ordinary import CallOver, CallUp, GreOut, StreamOut
from pptp.ppp.credentials import Credential, Users
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.ppp.negotiation import Retransmission
from pptp.serial import difference
from pptp.wire.control import (
    CallClearRequest,
    CallDisconnectNotify,
    ControlMessage,
    DisconnectResult,
    EchoReply,
    EchoRequest,
    GeneralError,
    GenericResult,
    IncomingCallConnected,
    IncomingCallReply,
    IncomingCallRequest,
    IncomingCallResult,
    OutgoingCallReply,
    OutgoingCallRequest,
    OutgoingCallResult,
    SetLinkInfo,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    StartResult,
    StopControlConnectionReply,
    StopControlConnectionRequest,
    StopReason,
    WanErrorNotify,
    build_message,
    parse_message,
)
from pptp.wire.cp import Code
from pptp.wire.gre import build_v1, parse
from pptp.wire.ppp import Protocol
from tests.calls.call_world import CLIENT, SERVER, World, dialling, ip_packet, serving
from tests.calls.scripted import MAGIC, THEIRS, Scripted
from tests.calls.windows import Windows

A, B = b"host\xff", b"vendor"
TEXT = 64

# number, size, and from octet 12 on: octets of each field and what stands in it
LAYOUTS: list[tuple[ControlMessage, int, int, list[tuple[int, int | bytes]]]] = [
    (
        StartControlConnectionRequest(0x0100, 1, 2, 3, 4, A, B),
        1,
        156,
        [(2, 0x0100), (2, 0), (4, 1), (4, 2), (2, 3), (2, 4), (64, A), (64, B)],
    ),
    (
        StartControlConnectionReply(0x0100, 1, 9, 1, 2, 3, 4, A, B),
        2,
        156,
        [(2, 0x0100), (1, 1), (1, 9), (4, 1), (4, 2), (2, 3), (2, 4), (64, A), (64, B)],
    ),
    (StopControlConnectionRequest(3), 3, 16, [(1, 3), (1, 0), (2, 0)]),
    (StopControlConnectionReply(1, 2), 4, 16, [(1, 1), (1, 2), (2, 0)]),
    (EchoRequest(0x01020304), 5, 16, [(4, 0x01020304)]),
    (EchoReply(0x01020304, 1, 2), 6, 20, [(4, 0x01020304), (1, 1), (1, 2), (2, 0)]),
    (
        OutgoingCallRequest(1, 2, 300, 400, 5, 6, 7, 8, A, B),
        7,
        168,
        [(2, 1), (2, 2), (4, 300), (4, 400), (4, 5), (4, 6), (2, 7), (2, 8), (2, 5), (2, 0), (64, A), (64, B)],
    ),
    (
        OutgoingCallReply(1, 2, 3, 4, 5, 6, 7, 8, 9),
        8,
        32,
        [(2, 1), (2, 2), (1, 3), (1, 4), (2, 5), (4, 6), (2, 7), (2, 8), (4, 9)],
    ),
    (
        IncomingCallRequest(1, 2, 3, 4, A, B, b"sub"),
        9,
        220,
        [(2, 1), (2, 2), (4, 3), (4, 4), (2, 5), (2, 6), (64, A), (64, B), (64, b"sub")],
    ),
    (
        IncomingCallReply(1, 2, 3, 4, 5, 6),
        10,
        24,
        [(2, 1), (2, 2), (1, 3), (1, 4), (2, 5), (2, 6), (2, 0)],
    ),
    (IncomingCallConnected(1, 2, 3, 4, 5), 11, 28, [(2, 1), (2, 0), (4, 2), (2, 3), (2, 4), (4, 5)]),
    (CallClearRequest(1), 12, 16, [(2, 1), (2, 0)]),
    (CallDisconnectNotify(1, 2, 3, 4, A), 13, 148, [(2, 1), (1, 2), (1, 3), (2, 4), (2, 0), (128, A)]),
    (
        WanErrorNotify(1, 2, 3, 4, 5, 6, 7),
        14,
        40,
        [(2, 1), (2, 0), (4, 2), (4, 3), (4, 4), (4, 5), (4, 6), (4, 7)],
    ),
    (SetLinkInfo(1, 2, 3), 15, 24, [(2, 1), (2, 0), (4, 2), (4, 3)]),
]


@pytest.mark.parametrize(("message", "number", "size", "body"), LAYOUTS, ids=lambda value: type(value).__name__)
def test_interop_section_3_layout(
    message: ControlMessage, number: int, size: int, body: list[tuple[int, int | bytes]]
) -> None:
    octets = struct.pack("!HHIHH", size, 1, 0x1A2B3C4D, number, 0)
    for width, value in body:
        octets += value.to_bytes(width, "big") if isinstance(value, int) else value.ljust(width, b"\0")
    assert len(octets) == size
    assert build_message(message) == octets
    assert parse_message(octets) == message


def test_interop_section_3_codes() -> None:
    def values(*members: int) -> list[int]:
        return [int(member) for member in members]

    assert values(*StartResult) == [1, 2, 3, 4, 5]
    assert values(*StopReason) == [1, 2, 3]
    assert values(*GenericResult) == [1, 2]
    assert values(*OutgoingCallResult) == [1, 2, 3, 4, 5, 6, 7]
    assert values(*IncomingCallResult) == [1, 2, 3]
    assert values(*DisconnectResult) == [0, 1, 2, 3, 4]
    assert values(*GeneralError) == [0, 1, 2, 3, 4, 5, 6]  # section 2.16, wherever the text says 2.2


def test_interop_section_3_whose_id_goes_where_in_an_outgoing_call() -> None:
    world = World(serving(), dialling())
    world.run(2.0)
    pac, pns = (each.call_id for each in world.ends)
    world.send_data(SERVER, 1)
    world.ends[SERVER].connection.close_call(pac, world.now)
    world.run(3.0)
    said = [parse_message(out.data) for _, _, out in world.wire if isinstance(out, StreamOut)]
    (request,) = [message for message in said if isinstance(message, OutgoingCallRequest)]
    (reply,) = [message for message in said if isinstance(message, OutgoingCallReply)]
    (notify,) = [message for message in said if isinstance(message, CallDisconnectNotify)]
    assert request.call_id == pns
    assert (reply.call_id, reply.peer_call_id) == (pac, pns)
    assert notify.call_id == pac
    packets = [(side, parse(out.packet)) for _, side, out in world.wire if isinstance(out, GreOut)]
    keys = {side: {packet.call_id for sender, packet in packets if sender == side} for side in (SERVER, CLIENT)}
    assert keys == {0: {pns}, 1: {pac}}  # the receiver's


def test_interop_section_3_whose_id_goes_where_when_the_pns_clears_and_informs() -> None:
    script = Scripted(dialling()).call_up()
    script.connection.close(script.now)
    script.collect()
    clear = script.take_messages()[0]
    assert clear == CallClearRequest(script.ours)
    pns = ControlConnection(ControlConfig(), initiator=True)
    pns.open(0)
    pns.receive_message(build_message(StartControlConnectionReply()), 0)
    handle = pns.place_outgoing_call(5, 0)
    pns.receive_message(build_message(OutgoingCallReply(THEIRS, 5)), 0)
    pns.transmits()
    pns.set_link_info(handle, 1, 2, 0)
    assert parse_message(pns.transmits()[0]) == SetLinkInfo(THEIRS, 1, 2)


def test_interop_section_3_whose_id_goes_where_in_an_incoming_call() -> None:
    """Only mpd5 places these; our control connection knows them, though ordinary calls do without."""
    pac, pns = (ControlConnection(ControlConfig(), initiator=initiator) for initiator in (True, False))
    said: list[ControlMessage] = []

    def flush() -> None:
        for _ in range(4):
            for sender, receiver in ((pac, pns), (pns, pac)):
                for octets in sender.transmits():
                    said.append(parse_message(octets))
                    receiver.receive_message(octets, 0)

    pac.open(0)
    pns.open(0)
    flush()
    pac.place_incoming_call(31, 0)
    flush()
    (asked,) = [event for event in pns.events() if isinstance(event, CallRequested)]
    assert asked.call.role is Role.PNS
    pns.accept_call(asked.call.handle, 47, 0)
    flush()
    assert [type(event) for event in pac.events()][-1] is CallEstablished
    request, reply, connected = said[-3:]
    assert isinstance(request, IncomingCallRequest)
    assert isinstance(reply, IncomingCallReply)
    assert isinstance(connected, IncomingCallConnected)
    assert (request.call_id, reply.call_id, reply.peer_call_id, connected.peer_call_id) == (31, 47, 31, 47)
    pac.receive_message(build_message(WanErrorNotify(31)), 0)  # the PAC's own message: it means nothing to it


@pytest.mark.parametrize("name", [b"x" * 64, b"", b"a\0b", bytes(range(64))])
def test_interop_section_3_texts_are_padded_and_need_no_terminator(name: bytes) -> None:
    script = Scripted(serving())
    (reply,) = script.say(StartControlConnectionRequest(host_name=name, vendor_name=name))
    assert isinstance(reply, StartControlConnectionReply)
    assert reply.result_code == 1


def test_interop_section_3_a_stop_is_answered_before_the_end_or_given_up_after_three_seconds() -> None:
    script = Scripted(serving()).call_up()
    (reply,) = script.say(StopControlConnectionRequest(1))[-1:]
    assert isinstance(reply, StopControlConnectionReply)
    assert isinstance(script.events[-1], Terminated)
    script = Scripted(serving()).call_up()
    script.connection.close(script.now)
    script.wait(1.0)
    script.collect()
    assert isinstance(script.take_messages()[-1], StopControlConnectionRequest)
    assert not script.of(Terminated)
    script.wait(3.0)
    assert script.one(Terminated).cause is TerminationCause.LOCAL_REQUEST


def test_interop_section_3_a_collision_is_decided_by_unsigned_addresses() -> None:
    """10.0.0.1 against 200.0.0.1: as a signed number the second is the smaller one."""
    ten, two_hundred = 0x0A000001, 0xC8000001
    loser = ControlConnection(ControlConfig(), initiator=True, local_address=ten, remote_address=two_hundred)
    winner = ControlConnection(ControlConfig(), initiator=True, local_address=two_hundred, remote_address=ten)
    for machine in (loser, winner):
        machine.open(0)
        machine.transmits()
        machine.receive_message(build_message(StartControlConnectionRequest()), 0)
    assert [type(parse_message(octets)) for octets in loser.transmits()] == [StartControlConnectionReply]
    assert winner.transmits() == []


def test_interop_section_3_sixty_seconds_for_an_echo_and_sixty_for_its_answer() -> None:
    client = Windows(serving(), swaps=False)
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    script = client.script
    start = script.now
    while not script.of(Terminated):
        script.wait(1.0)
        client.send_ip(ip_packet(1))
        assert script.now < 130
    assert 119 <= script.now - start <= 122
    assert script.one(CallOver).cause.cause is TerminationCause.PEER_SILENT


def test_interop_section_3_a_call_that_waits_for_a_minute_ends_the_connection() -> None:
    script = Scripted(dialling())
    script.say(StartControlConnectionReply())
    script.wait(59.0)
    assert not script.of(Terminated)
    script.wait(5.0)
    assert script.one(Terminated).cause is TerminationCause.PEER_SILENT


def test_interop_section_3_one_session_is_a_pac_a_pns_and_a_call_id() -> None:
    """Several calls on one connection have Call IDs of their own, on both sides."""
    script = Scripted(serving()).call_up()
    (second,) = script.say(OutgoingCallRequest(THEIRS + 1, 1))
    assert isinstance(second, OutgoingCallReply)
    assert second.call_id != script.ours
    assert len(script.of(CallUp)) == 2
    (same,) = script.say(OutgoingCallRequest(THEIRS, 9))
    assert isinstance(same, OutgoingCallReply)
    assert (same.result_code, same.error_code) == (2, GeneralError.BAD_CALL_ID)


def test_interop_section_3_the_highest_number_is_acknowledged_and_nothing_sent_twice() -> None:
    """Section 4.1: an acknowledgement is no promise about those before, and a lost packet stays lost."""
    script = Scripted(serving()).lcp_up()
    script.take_packets()
    for sequence in (script.sequence, script.sequence + 3):
        script.gre(b"\xff\x03\xc0\x21\x0b\x01\x00\x08" + bytes(4), sequence)
    script.wait(0.15)
    (alone,) = script.take_packets()
    assert alone.acknowledgement == script.sequence + 3
    assert alone.sequence is None


def test_interop_section_3_windows_and_time_outs() -> None:
    assert [SendWindow(maximum, 0.0).status.window for maximum in (1, 3, 64)] == [1, 1, 32]
    window = SendWindow(7, 0.0)
    window.timed_out()
    assert window.status.window == 2  # half of 3, rounded up
    window.timed_out()
    window.timed_out()
    assert window.status.window == 1
    for sequence in (0, 1):
        window.sent(sequence, 0.0)
    window.acknowledged(1, 0.5)
    assert window.status.window == 2  # one more for each full window


def test_interop_section_3_late_frames_never_reach_ppp_out_of_order() -> None:
    """Section 4.3; Microsoft hands them up as they come, and duplicates too."""
    channel = Channel(ChannelConfig(1, 2))
    order = [0, 2, 1, 1, 4, 3, 0, 5]
    frames = [bytes(f) for n in order for f in channel.receive(build_v1(1, bytes((n + 1,)), n), 0.0)]
    assert frames == [bytes((n + 1,)) for n in range(6)]


def test_interop_section_3_counts_are_compared_modulo_4096() -> None:
    """RFC 3078 section 8.1 writes ``C1 > C2`` without a modulus."""
    mode = MppeMode(Strength.BITS_128, stateless=True)
    encryptor, decryptor = MppeEncryptor(bytes(16), mode), MppeDecryptor(bytes(16), mode)
    packet = b"\x45\0\0\x14" + bytes(16)
    for _ in range(4094):
        encryptor.encrypt(Protocol.IPV4, packet)
    late = encryptor.encrypt(Protocol.IPV4, packet)
    with pytest.raises(DropError):
        decryptor.decrypt(late)  # 4094 ahead of 0 is two behind
    pair = MppeEncryptor(bytes(16), mode), MppeDecryptor(bytes(16), mode)
    for number in range(5000):
        sealed = pair[0].encrypt(Protocol.IPV4, packet)
        if number % 7:
            assert pair[1].decrypt(sealed) == (Protocol.IPV4, packet)
    assert difference(0, 4095, 12) == 1


def test_interop_section_3_only_network_protocols_are_encrypted() -> None:
    encrypted = [number for number in range(1, 0x10000, 2) if is_encrypted_by_mppe(number)]
    assert (encrypted[0], encrypted[-1]) == (0x21, 0xF9)


def test_interop_section_3_timers_and_counts_of_rfc_1661() -> None:
    defaults = Retransmission()
    counts = (defaults.restart_timer, defaults.max_terminate, defaults.max_configure, defaults.max_failure)
    assert counts == (3.0, 2, 10, 5)


def test_interop_section_3_an_ack_must_be_what_was_asked_octet_for_octet() -> None:
    script = Scripted(serving()).call_up()
    script.wait(0.3)
    (request,) = script.take_cp(Protocol.LCP)
    script.ask(Protocol.LCP, 1, MAGIC)
    script.cp(Protocol.LCP, Code.CONFIGURE_ACK, request.identifier, data=request.data[::-1])
    script.cp(Protocol.LCP, Code.ECHO_REQUEST, 3, data=MAGIC.value)
    assert script.take_cp(Protocol.LCP) == []  # not open
    script.cp(Protocol.LCP, Code.CONFIGURE_ACK, request.identifier, data=request.data)
    script.cp(Protocol.LCP, Code.ECHO_REQUEST, 3, data=MAGIC.value)
    assert Code.ECHO_REPLY in [packet.code for packet in script.take_cp(Protocol.LCP)]


def test_interop_section_3_a_verdict_has_the_responses_identifier_and_a_repeated_response_the_same_verdict() -> None:
    credential = Credential.of_password("secret")
    server = MsChapV2Authenticator(Users({"alice": credential}.get)).authenticate_peer(random.Random(1).randbytes)
    client = MsChapV2Authenticatee("alice", credential).answer_peer(random.Random(2).randbytes)
    server.start(0)
    client.start(0)
    (challenge,) = server.transmits()
    client.receive(challenge, 0)
    (response,) = client.transmits()
    server.receive(response, 0)
    (success,) = server.transmits()
    assert challenge[1] == response[1] == success[1]
    server.receive(response, 1)
    assert server.transmits() == [success]


def test_interop_section_3_where_microsoft_departs_from_the_rfc_we_take_both() -> None:
    """[MS-PTPT]: no windows, a window of 0 in the reply, no WAN-Error-Notify from its PAC and none minded by it."""
    script = Scripted(dialling()).call_up(window=0)
    assert script.say(WanErrorNotify(script.ours)) == []
    assert script.say(WanErrorNotify(script.ours + 1)) == []
    assert not script.of(CallOver)
    silent = replace(serving(), control=ControlConfig(receive_window=0))
    world = World(silent, dialling())
    world.run(2.0)
    assert world.up
