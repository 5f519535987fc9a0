"""Points 16 to 23 of what PPTP systems do in GRE, each as our connection meets it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from pptp.errors import Drop, TerminationCause
from pptp.ordinary import CallOver, GreOut, OrdinaryConfig
from pptp.wire.control import OutgoingCallReply, OutgoingCallRequest, StartControlConnectionReply
from pptp.wire.cp import Code, CpPacket, Option, build_options, build_packet
from pptp.wire.gre import GrePacket, build_v1
from pptp.wire.ppp import Protocol, build
from tests.calls.call_world import CLIENT, SERVER, World, dialling, ip_packet, serving, stateless
from tests.calls.scripted import MAGIC, THEIRS, Scripted
from tests.calls.windows import Windows

ECHO_REQUEST = b"\xff\x03\xc0\x21\x09\x01\x00\x08\x00\x00\x00\x00"


def drops(script: Scripted) -> dict[Drop, int]:
    """What the only call dropped."""
    (call,) = script.connection.status().calls
    return dict(call.drops)


def echoed(script: Scripted) -> int:
    """How many Echo-Replies came out since the last time."""
    return sum(packet.code == Code.ECHO_REPLY for packet in script.take_cp(Protocol.LCP))


@pytest.mark.parametrize("first", [0, 1, 2, 4711, 0xFFFFFFFF])
def test_interop_16_any_first_number_is_taken_and_ours_is_0(first: int) -> None:
    script = Scripted(serving(), first=first).call_up()
    script.wait(0.3)
    assert script.packets[0].sequence == 0
    script.acknowledge(Protocol.LCP)
    assert script.ask(Protocol.LCP, 1, MAGIC).code == Code.CONFIGURE_ACK
    assert drops(script) == {}


def test_interop_17_an_acknowledgement_alone_has_12_octets_and_stands_first() -> None:
    script = Scripted(serving()).lcp_up()
    script.take_packets()
    script.ppp(Protocol.LCP, b"\x0b\x01\x00\x08\x00\x00\x00\x00")  # Discard-Request: nothing answers it
    script.wait(0.2)
    (packet,) = script.take_packets()
    assert packet == GrePacket(1, b"", THEIRS, None, script.sequence - 1)
    assert build_v1(THEIRS, acknowledgement=9) == b"\x20\x81\x88\x0b\0\0\0\x07\0\0\0\x09"


def test_interop_17_packets_without_a_frame_are_taken_silently() -> None:
    script = Scripted(serving()).lcp_up()
    ours = script.ours.to_bytes(2, "big")
    script.raw(b"\x20\x01\x88\x0b\0\0" + ours)
    script.raw(b"\x20\x81\x88\x0b\0\0" + ours + bytes(4))
    script.gre(b"")
    script.take_packets()
    assert drops(script) == {}
    script.gre(ECHO_REQUEST)
    assert echoed(script) == 1


def test_interop_17_padding_is_cut_off_and_a_length_beyond_the_packet_refused() -> None:
    script = Scripted(serving()).lcp_up()
    script.take_packets()
    padded = build_v1(script.ours, ECHO_REQUEST, script.sequence) + bytes(18)
    script.sequence += 1
    script.raw(padded)
    assert echoed(script) == 1
    short = build_v1(script.ours, ECHO_REQUEST, script.sequence)[:-1]
    script.raw(short)
    assert echoed(script) == 0
    assert drops(script) == {Drop.MALFORMED: 1}


@pytest.mark.parametrize("bits", [0x8000, 0x4000, 0x0800, 0x0100, 0x0008, 0x0002, 0x0003])
def test_interop_17_flags_and_version_are_checked(bits: int) -> None:
    script = Scripted(serving()).lcp_up()
    script.take_packets()
    packet = bytearray(build_v1(script.ours, ECHO_REQUEST, script.sequence))
    packet[0] ^= bits >> 8
    packet[1] ^= bits & 0xFF
    script.raw(bytes(packet))
    assert echoed(script) == 0
    assert sum(drops(script).values()) == 1


def test_interop_17_another_protocol_and_no_key_are_refused() -> None:
    script = Scripted(serving()).lcp_up()
    good = build_v1(script.ours, ECHO_REQUEST, script.sequence)
    script.raw(good[:2] + b"\x08\x00" + good[4:])
    script.raw(bytes((good[0] & ~0x20,)) + good[1:])
    script.take_packets()
    assert drops(script) == {Drop.MALFORMED: 2}


def test_interop_18_swapped_packets_are_put_in_order_before_mppe() -> None:
    client = Windows(serving(), swaps=False)
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    assert client.encryptor is not None
    packets = [client.encryptor.encrypt(Protocol.IPV4, ip_packet(number)) for number in range(12)]
    script = client.script
    begin = script.sequence
    received: list[bytes] = []
    for number in (1, 0, 2, 5, 4, 3, 7, 8, 9, 10, 11, 6):
        received += script.gre(build(Protocol.MPPE, packets[number]), begin + number)
    assert received == [ip_packet(number) for number in range(12)]
    assert drops(script) == {}


def test_interop_18_a_missing_packet_is_waited_for_so_long_and_no_longer() -> None:
    """0.3 s, which is what the peers of the field wait."""
    script = Scripted(serving()).lcp_up()
    script.take_packets()
    missing = script.sequence
    script.gre(ECHO_REQUEST, missing + 1)
    script.wait(0.29)
    assert echoed(script) == 0
    script.wait(0.02)
    assert echoed(script) == 1
    script.gre(ECHO_REQUEST, missing)
    assert echoed(script) == 0
    assert drops(script) == {Drop.TOO_OLD: 1}


def test_interop_19_numbers_wrap_and_far_ones_are_no_part_of_the_stream() -> None:
    script = Scripted(serving(), first=0xFFFFFFFA).lcp_up()
    script.take_packets()
    for count in range(1, 21):
        script.gre(ECHO_REQUEST)
        assert echoed(script) == 1, count
    assert script.sequence > 0xFFFFFFFF
    script.gre(ECHO_REQUEST, script.sequence + 301)
    script.gre(ECHO_REQUEST, script.sequence - 302)
    assert echoed(script) == 0
    assert drops(script) == {Drop.SEQUENCE_JUMP: 2}
    script.gre(ECHO_REQUEST)
    assert echoed(script) == 1


@pytest.mark.parametrize("window", [1, 3, 64])
def test_interop_20_a_peer_that_never_acknowledges_stalls_nothing(window: int) -> None:
    """The kernel's PPTP sends no packet that only acknowledges."""
    world = World(serving(), dialling())
    narrow = replace(world.server.control, receive_window=window)
    alone = build_v1(0, acknowledgement=0)[:2]
    world = World(
        replace(world.server, control=narrow),
        replace(world.client, control=narrow),
        lose=lambda sender, packet: packet[:2] == alone,
    )
    world.run(2.0)
    for number in range(300):
        assert world.send_data(CLIENT, number)
        world.run(world.now + 0.001)
    world.run(world.now + 30.0)
    assert world.numbers(SERVER) == list(range(300))
    assert not world.ends[CLIENT].of(CallOver)


def test_interop_21_a_lost_first_packet_costs_one_restart_timer() -> None:
    """A Windows client answered only the repetition of the server's first request."""
    script = Scripted(serving()).call_up()
    script.wait(0.24)
    assert script.take_packets() == []  # the PNS opens its socket when it has read our reply
    script.wait(0.02)
    script.take_packets()
    script.wait(3.1)
    script.acknowledge(Protocol.LCP)
    assert script.ask(Protocol.LCP, 1, MAGIC).code == Code.CONFIGURE_ACK


def test_interop_21_whoever_speaks_first_is_answered_at_once() -> None:
    script = Scripted(serving()).call_up()
    script.cp(Protocol.LCP, Code.CONFIGURE_REQUEST, 1, MAGIC)
    said = script.take_cp(Protocol.LCP)
    assert sorted(packet.code for packet in said) == [Code.CONFIGURE_REQUEST, Code.CONFIGURE_ACK]


def test_interop_21_what_overtakes_the_reply_is_kept_for_the_call() -> None:
    """The server's first frames can be here before its Outgoing-Call-Reply is read."""
    script = Scripted(dialling())
    (request,) = script.say(StartControlConnectionReply())[-1:]
    assert isinstance(request, OutgoingCallRequest)
    script.ours = request.call_id
    script.cp(Protocol.LCP, Code.CONFIGURE_REQUEST, 1, MAGIC)
    for _ in range(20):
        script.gre(ECHO_REQUEST)  # only the last few are kept, and none does harm
    assert script.take_packets() == []
    script.say(OutgoingCallReply(THEIRS, script.ours))
    script.wait(0.2)
    script.cp(Protocol.LCP, Code.CONFIGURE_REQUEST, 2, MAGIC)
    assert any(packet.code == Code.CONFIGURE_ACK for packet in script.take_cp(Protocol.LCP))


def test_interop_21_the_first_request_of_a_fast_server_is_answered_once_the_call_is_up() -> None:
    script = Scripted(dialling())
    (request,) = script.say(StartControlConnectionReply())[-1:]
    assert isinstance(request, OutgoingCallRequest)
    script.ours = request.call_id
    script.cp(Protocol.LCP, Code.CONFIGURE_REQUEST, 1, MAGIC)
    script.say(OutgoingCallReply(THEIRS, script.ours))
    assert Code.CONFIGURE_ACK in [packet.code for packet in script.take_cp(Protocol.LCP)]


def test_interop_22_a_packet_under_another_call_id_touches_no_call() -> None:
    """The source address is the owner's to check; a connection takes its own Call IDs alone."""
    script = Scripted(serving()).lcp_up()
    before = script.connection.status().calls
    for call_id in range(0, 0x10000, 251):
        if call_id != script.ours:
            script.raw(build_v1(call_id, ECHO_REQUEST, script.sequence))
    assert script.take_packets() == []
    status = script.connection.status()
    assert status.calls == before
    assert status.drops == {Drop.UNKNOWN_SESSION: len(range(0, 0x10000, 251))}
    script.gre(ECHO_REQUEST)
    assert echoed(script) == 1


def test_interop_22_forged_packets_with_the_right_call_id_cost_nothing_either() -> None:
    """Numbers all over the place and noise inside: counted, nothing kept, and the session lives."""
    world = World(serving(), dialling())
    world.run(2.0)
    server = world.ends[SERVER]
    for number in range(2000):
        noise = world.dice.randbytes(40)
        forged = build_v1(server.call_id, b"\xff\x03\x00\xfd\x90\x00" + noise, number * 0x10001 + 500 & 0xFFFFFFFF)
        server.connection.receive_gre(forged, world.now)
        if number % 20 == 0:
            world.send_data(CLIENT, number)
            world.run(world.now + 0.05)
    world.run(world.now + 1.0)
    assert world.numbers(SERVER) == list(range(0, 2000, 20))
    (call,) = server.connection.status().calls
    assert sum(call.drops.values()) > 1900
    assert not server.of(CallOver)


FORMS = list(itertools.product((False, True), repeat=2))


@pytest.mark.parametrize(("acfc", "pfc"), FORMS)
def test_interop_23_all_forms_of_a_frame_are_taken_and_ours_are_full(acfc: bool, pfc: bool) -> None:
    """Nothing was negotiated. PFC on LCP is outside the protocol field's odd rule, so that data shows it."""
    client = Windows(serving(mppe=stateless(required=False)), encrypts=False, swaps=False)
    client.lcp = [Option(5, b"\x35\x5c\x21\x0f")]
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    script = client.script
    frame = build(Protocol.IPV4, ip_packet(1), acfc=acfc, pfc=pfc)
    assert script.gre(frame) == [ip_packet(1)]
    assert script.gre((b"" if acfc else b"\xff\x03") + ECHO_REQUEST[2:]) == []
    reply = script.take_packets()[-1].payload
    assert bytes(reply[:4]) == b"\xff\x03\xc0\x21"
    sent = script.connection.send_network(script.ours, Protocol.IPV4, ip_packet(2), script.now)
    assert sent is not None
    assert sent.endswith(b"\xff\x03\x00\x21" + ip_packet(2))


def test_interop_23_lcp_is_sent_in_full_also_where_compression_was_agreed() -> None:
    client = Windows(serving(mppe=stateless(required=False)), encrypts=False, swaps=False)
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    script = client.script
    script.take_packets()
    request = CpPacket(Code.CONFIGURE_REQUEST, 99, build_options([Option(5, b"\x35\x5c\x21\x0f")]))
    sent = script.connection.send_network(script.ours, Protocol.IPV4, ip_packet(2), script.now)
    assert sent is not None
    assert sent.endswith(b"\x21" + ip_packet(2))
    assert len(sent) <= 16 + 1 + len(ip_packet(2))
    script.ppp(Protocol.LCP, build_packet(request))
    assert all(bytes(packet.payload[:4]) == b"\xff\x03\xc0\x21" for packet in script.take_packets() if packet.payload)


@pytest.mark.parametrize("config", [serving(), dialling()], ids=["serving", "dialling"])
def test_interop_21_no_gre_for_six_seconds_is_a_cause_of_its_own(config: OrdinaryConfig) -> None:
    script = Scripted(config).call_up()
    script.wait(5.9)
    assert script.of(CallOver) == []
    script.wait(1.2)
    cause = script.one(CallOver).cause
    assert cause.cause is TerminationCause.NO_GRE
    assert cause.detail == "control connection up, no GRE from the peer for 6 s"


def test_interop_21_a_line_that_carries_one_way_only_is_told_by_either_end() -> None:
    world = World(serving(), dialling(), lose=lambda sender, packet: sender == CLIENT)
    world.run(60.0)
    assert world.ends[SERVER].one(CallOver).cause.cause is TerminationCause.NO_GRE
    assert not any(isinstance(out, GreOut) for at, side, out in world.wire if at > 10)
    assert world.ends[CLIENT].over
