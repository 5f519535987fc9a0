"""Points 24 to 51 of what PPP systems do in a call, where it takes a whole call to see them.

The Windows client has most of 24 to 28, 36 to 39 and 47 to 50; the tests of single protocols have the rest.

Left out is 51, which systems still have a PPTP client: a fact about the world, and nothing that a program could do.
"""

from __future__ import annotations

import pytest

from pptp.errors import Terminated, TerminationCause
from pptp.mtu import ordinary_mtu
from pptp.ordinary import CallOver, EncryptionUp, Ipv4Up
from pptp.ppp.ccp import CcpPolicy
from pptp.wire.cp import Code, Option, parse_options
from pptp.wire.ppp import Protocol
from tests.calls.call_world import CLIENT, SERVER, World, dialling, ip_packet, serving, stateful, stateless
from tests.calls.scripted import MAGIC, Scripted
from tests.calls.windows import Windows

MRU_128 = Option(1, b"\0\x80")


def test_interop_26_a_client_that_asks_the_server_for_a_password_is_rejected() -> None:
    script = Scripted(serving()).call_up()
    demand = Option(3, b"\xc2\x23\x81")
    answer = script.ask(Protocol.LCP, 1, MAGIC, demand)
    assert (answer.code, parse_options(answer.data)) == (Code.CONFIGURE_REJECT, (demand,))


@pytest.mark.parametrize("asked", [b"\xc0\x23", b"\xc2\x23\x05", b"\xc2\x23\x80", b"\xc2\x27"])
def test_interop_26_as_client_we_suggest_the_method_we_have(asked: bytes) -> None:
    """The last is EAP, which servers ask for first."""
    script = Scripted(dialling()).call_up()
    answer = script.ask(Protocol.LCP, 1, MAGIC, Option(3, asked))
    assert (answer.code, parse_options(answer.data)) == (Code.CONFIGURE_NAK, (Option(3, b"\xc2\x23\x81"),))


def test_interop_27_rejects_are_cut_to_the_peers_mru() -> None:
    script = Scripted(serving()).lcp_up(MAGIC, MRU_128)
    script.take_packets()
    script.cp(Protocol.LCP, 99, 7, data=bytes(600))
    script.ppp(0x8029, bytes(600))
    rejects = script.take_cp(Protocol.LCP)
    assert [packet.code for packet in rejects] == [Code.CODE_REJECT, Code.PROTOCOL_REJECT]
    assert [4 + len(packet.data) for packet in rejects] == [128, 128]
    assert rejects[0].data[:2] == b"\x63\x07"
    assert rejects[1].data[:2] == b"\x80\x29"


def test_interop_27_time_remaining_and_odd_identifications_are_taken_in_silence() -> None:
    script = Scripted(serving()).lcp_up()
    script.take_packets()
    script.cp(Protocol.LCP, 13, 1, data=MAGIC.value + b"\0\0\x0e\x10 goodbye in an hour")
    script.cp(Protocol.LCP, 12, 2, data=MAGIC.value)
    script.cp(Protocol.LCP, 12, 3, data=MAGIC.value + bytes(range(256)))
    assert script.take_cp(Protocol.LCP) == []
    assert script.of(CallOver) == []


def test_interop_28_an_echo_is_answered_when_open_with_our_magic_and_within_the_mru() -> None:
    script = Scripted(serving()).call_up()
    script.wait(0.3)
    request = script.take_cp(Protocol.LCP)[-1]
    ours = next(option.value for option in parse_options(request.data) if option.type == 5)
    script.cp(Protocol.LCP, Code.ECHO_REQUEST, 1, data=MAGIC.value)
    assert script.take_cp(Protocol.LCP) == []
    script.cp(Protocol.LCP, Code.CONFIGURE_ACK, request.identifier, data=request.data)
    script.ask(Protocol.LCP, 1, MAGIC, MRU_128)
    for magic in (MAGIC.value, bytes(4), ours):  # 0 and our own number are no loop by themselves
        script.cp(Protocol.LCP, Code.ECHO_REQUEST, 2, data=magic + bytes(600))
        (reply,) = script.take_cp(Protocol.LCP)
        assert (reply.code, reply.identifier) == (Code.ECHO_REPLY, 2)
        assert reply.data[:4] == ours
        assert 4 + len(reply.data) == 128
    assert script.of(CallOver) == []


def test_interop_28_without_a_magic_number_ours_to_reply_with_is_0() -> None:
    script = Scripted(serving()).call_up()
    script.wait(0.3)
    request = script.take_cp(Protocol.LCP)[-1]
    magic = next(option for option in parse_options(request.data) if option.type == 5)
    script.cp(Protocol.LCP, Code.CONFIGURE_REJECT, request.identifier, magic)
    script.acknowledge(Protocol.LCP)
    script.ask(Protocol.LCP, 1)
    script.cp(Protocol.LCP, Code.ECHO_REQUEST, 2, data=bytes(4))
    (reply,) = script.take_cp(Protocol.LCP)
    assert reply.data == bytes(4)


def test_interop_28_any_packet_counts_as_a_sign_of_life() -> None:
    """One end never answers an echo, but sends data: its call stays."""
    reply = b"\xff\x03\xc0\x21\x0a"
    world = World(
        serving(mppe=None, echo_interval=5.0, echo_failures=2),
        dialling(mppe=None),
        lose=lambda sender, packet: sender == CLIENT and reply in packet,
    )
    for second in range(60):
        world.send_data(CLIENT, second)
        world.run(second + 1.0)
    assert not world.ends[SERVER].of(CallOver)
    world.run(120.0)
    assert world.ends[SERVER].one(CallOver).cause.cause is TerminationCause.PEER_SILENT


def test_interop_29_without_an_mru_it_is_1500_and_repeats_are_ignored() -> None:
    script = Scripted(serving()).lcp_up(MAGIC)
    script.take_packets()
    script.cp(Protocol.LCP, Code.ECHO_REQUEST, 2, data=bytes(1396))
    (reply,) = script.take_cp(Protocol.LCP)
    assert len(reply.data) == 1396
    script = Scripted(serving()).call_up()
    answer = script.ask(Protocol.LCP, 1, Option(1, b"\x05\x78"), MAGIC, Option(1, b"\xff\xff"), Option(1, b"\0\x01"))
    assert answer.code == Code.CONFIGURE_ACK


@pytest.mark.parametrize("flags", [(7,), (8,), (7, 8)])
def test_interop_30_naks_of_options_without_a_value_end(flags: tuple[int, ...]) -> None:
    """RouterTester suggests PFC and ACFC, which we never ask for; it gets another request and no more than a few."""
    script = Scripted(serving()).call_up()
    script.wait(0.3)
    requests = script.take_cp(Protocol.LCP)
    for _ in range(40):
        if not requests:
            break
        script.cp(Protocol.LCP, Code.CONFIGURE_NAK, requests[-1].identifier, *map(Option, flags))
        asked = [packet for packet in script.take_cp(Protocol.LCP) if packet.code == Code.CONFIGURE_REQUEST]
        for packet in asked:
            assert not {option.type for option in parse_options(packet.data)} & {7, 8}
        requests = asked
    assert not requests
    script.wait(1.0)
    assert script.one(CallOver).cause.cause is TerminationCause.NOT_AGREED


def test_interop_30_a_nak_of_them_once_does_no_harm() -> None:
    script = Scripted(serving()).call_up()
    script.wait(0.3)
    (request,) = script.take_cp(Protocol.LCP)
    script.cp(Protocol.LCP, Code.CONFIGURE_NAK, request.identifier, Option(7), Option(8))
    script.acknowledge(Protocol.LCP)
    assert script.ask(Protocol.LCP, 1, MAGIC).code == Code.CONFIGURE_ACK


@pytest.mark.parametrize("strengths", [stateless(), stateful()])
def test_interop_38_a_renegotiation_of_ccp_from_either_end_keeps_the_call(strengths: CcpPolicy) -> None:
    world = World(serving(mppe=strengths), dialling(mppe=strengths))
    world.run(2.0)
    for number in range(300):
        world.send_data(CLIENT, number)
    world.run(3.0)
    assert world.numbers(SERVER) == list(range(300))
    for each in world.ends:
        assert len(each.of(EncryptionUp)) == 1


def test_interop_39_both_offers_are_named_where_they_do_not_meet() -> None:
    """Whoever of the two looks at its log knows what both wanted."""
    for server, client in ((stateful(), stateless()), (stateless(), None), (None, stateless())):
        world = World(serving(mppe=server), dialling(mppe=client))
        world.run(30.0)
        causes = [each.of(CallOver)[-1].cause for each in world.ends]
        assert [cause.cause for cause in causes] == [TerminationCause.ENCRYPTION] * 2, causes
        for cause, own in zip(causes, (server, client), strict=True):
            assert ("we refuse encryption" if own is None else "we want 128-bit") in cause.detail
            assert "the peer" in cause.detail
        assert not any(each.of(Ipv4Up) for each in world.ends)


@pytest.mark.parametrize("method", ["pap", "chap"])
def test_interop_39_methods_without_keys_are_named_where_encryption_is_required(method: str) -> None:
    world = World(serving(method), dialling(method))
    world.run(30.0)
    for each in world.ends:
        cause = each.one(CallOver).cause
        assert cause.cause in (TerminationCause.ENCRYPTION, TerminationCause.PEER_REQUEST)
        assert "only MS-CHAPv2 leaves keys" in cause.detail


@pytest.mark.parametrize("client", [stateless(required=False), None, stateful(required=False)])
def test_interop_39_where_it_is_allowed_a_call_comes_up_in_clear_or_encrypted(client: CcpPolicy | None) -> None:
    server = CcpPolicy(required=False)
    world = World(serving(mppe=server), dialling(mppe=client))
    world.run(20.0)
    assert world.up
    for side in (SERVER, CLIENT):
        world.send_data(side, 5)
    world.run(21.0)
    assert world.numbers(SERVER) == world.numbers(CLIENT) == [5]


def test_interop_44_a_call_that_was_encrypted_never_goes_back_to_clear() -> None:
    """Encryption is only allowed; the peer, or whoever speaks in its name, ends CCP later on."""
    client = Windows(serving(mppe=CcpPolicy(required=False)), swaps=False)
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    script = client.script
    assert script.of(Ipv4Up)
    script.cp(Protocol.CCP, Code.TERMINATE_REQUEST, 77)
    while not script.of(CallOver):
        assert script.now < 10.0
        assert script.connection.send_network(script.ours, Protocol.IPV4, ip_packet(1), script.now) is None
        assert script.ppp(Protocol.IPV4, ip_packet(2)) == []
        script.wait(0.1)
    assert script.one(CallOver).cause.cause is TerminationCause.ENCRYPTION


@pytest.mark.parametrize(
    ("path_mtu", "peer_mru", "mppe", "mtu"),
    [
        (1500, 1500, True, 1456),
        (1500, 1500, False, 1460),
        (1500, 1400, True, 1396),
        (1500, 1400, False, 1400),
        (1400, 1400, True, 1356),
        (1280, 65535, False, 1240),
    ],
)
def test_interop_46_the_sums_of_sizes(path_mtu: int, peer_mru: int, mppe: bool, mtu: int) -> None:
    assert ordinary_mtu(path_mtu, peer_mru, mppe=mppe) == mtu


@pytest.mark.parametrize("mppe", [None, stateless()])
def test_interop_46_the_largest_packet_fits_the_path(mppe: CcpPolicy | None) -> None:
    world = World(serving(mppe=mppe, mru=1500), dialling(mppe=mppe, mru=1500))
    world.run(2.0)
    mtu = world.ends[SERVER].one(Ipv4Up).mtu
    world.send_data(SERVER, 1)  # it owes an acknowledgement now
    world.run(2.01)
    for side in (SERVER, CLIENT):
        assert world.send_data(side, 2, size=mtu)
        assert not world.send_data(side, 3, size=mtu + 1)
    world.run(3.0)
    sizes = [20 + len(out.packet) for _, _, out in world.wire if hasattr(out, "packet")]
    assert max(sizes) in (1496, 1500)


def test_a_peer_that_ends_the_link_is_believed_about_the_reason() -> None:
    script = Scripted(serving()).lcp_up()
    script.cp(Protocol.LCP, Code.TERMINATE_REQUEST, 5, data=b"user logged out\n")
    assert [packet.code for packet in script.take_cp(Protocol.LCP)][-1] == Code.TERMINATE_ACK
    script.wait(1.0)
    cause = script.one(CallOver).cause
    assert cause == Terminated(TerminationCause.PEER_REQUEST, "the peer ended LCP: user logged out\\x0a")
