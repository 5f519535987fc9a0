"""One link against peers written by hand: what Windows, routers and careless stacks send, and what they get."""

from __future__ import annotations

import random

import pytest

from pptp.errors import Drop, Terminated, TerminationCause
from pptp.ppp.control_protocol import NetworkDown
from pptp.ppp.lcp import EchoReplied, PeerIdentified, PeerTimeRemaining
from pptp.ppp.lcp_options import LcpPolicy
from pptp.ppp.link import Link, LinkOpened, Phase
from pptp.ppp.policy import LinkConfig
from pptp.wire.cp import (
    Code,
    CpPacket,
    MagicBody,
    Option,
    ProtocolRejectBody,
    build_magic,
    build_options,
    build_packet,
    build_protocol_reject,
    build_time_remaining,
    parse_magic,
    parse_options,
    parse_protocol_reject,
)
from pptp.wire.cp import TimeRemainingBody as Remaining
from pptp.wire.ppp import Protocol
from tests.ppp.scripted_peer import DNS, MAGIC, OURS, THEIRS, Peer, codes


def test_windows_lcp_loses_its_callback_only() -> None:
    peer = Peer()
    peer.pending = peer.hear()
    wanted = (Option(1, b"\x05\x78"), MAGIC, Option(7), Option(8))
    callback = Option(13, b"\x06")
    assert peer.ask(*wanted, callback, identifier=0) == CpPacket(Code.CONFIGURE_REJECT, 0, build_options([callback]))
    assert peer.ask(*wanted, identifier=1) == CpPacket(Code.CONFIGURE_ACK, 1, build_options(wanted))
    peer.acknowledge()
    opened = peer.log[0]
    assert isinstance(opened, LinkOpened)
    assert (opened.remote.mru, opened.remote.pfc, opened.remote.acfc) == (1400, True, True)
    assert opened.remote.magic_number == 0x11223344


def test_multilink_options_are_rejected_in_one_packet_and_in_order() -> None:
    peer = Peer()
    multilink = (Option(17, b"\x06\x4e"), Option(19, b"\x01local"))
    reply = peer.ask(Option(1, b"\x00\x10"), multilink[0], MAGIC, multilink[1])
    assert reply.code == Code.CONFIGURE_REJECT  # and no Nak for the MRU of 16 in the same packet
    assert parse_options(reply.data) == multilink


def test_windows_ipcp_gets_one_reject_then_one_nak() -> None:
    peer = Peer()
    peer.establish()
    unset = bytes(4)
    asked = tuple(Option(kind, unset) for kind in (3, 129, 130, 131, 132))
    reply = peer.ask(*asked, identifier=5, protocol=Protocol.IPCP)
    assert (reply.code, parse_options(reply.data)) == (Code.CONFIGURE_REJECT, asked[2:])
    reply = peer.ask(*asked[:2], identifier=6, protocol=Protocol.IPCP)
    assert (reply.code, parse_options(reply.data)) == (
        Code.CONFIGURE_NAK,
        (Option(3, THEIRS.packed), Option(129, DNS.packed)),
    )
    final = (Option(3, THEIRS.packed), Option(129, DNS.packed))
    assert peer.ask(*final, identifier=7, protocol=Protocol.IPCP).code == Code.CONFIGURE_ACK


def test_a_strict_server_asks_for_the_address_that_is_missing() -> None:
    peer = Peer()
    peer.establish()
    reply = peer.ask(protocol=Protocol.IPCP)
    assert (reply.code, parse_options(reply.data)) == (Code.CONFIGURE_NAK, (Option(3, THEIRS.packed),))


def test_max_failure_turns_naks_into_rejects_and_then_gives_up() -> None:
    peer = Peer()
    peer.establish()
    wrong = Option(3, bytes((192, 0, 2, 1)))
    replies = [peer.ask(wrong, identifier=step, protocol=Protocol.IPCP).code for step in range(7)]
    assert replies == [Code.CONFIGURE_NAK] * 5 + [Code.CONFIGURE_REJECT] * 2
    heard = peer.say(CpPacket(Code.CONFIGURE_REQUEST, 8), Protocol.IPCP)  # it now leaves the address out
    assert (Protocol.IPCP, Code.TERMINATE_REQUEST) in [(spoken, packet.code) for spoken, packet in heard]
    assert b"10.77.0.9" in heard[0][1].data
    peer.say(CpPacket(Code.TERMINATE_ACK, heard[0][1].identifier), Protocol.IPCP)
    assert peer.phase() is Phase.TERMINATE


def test_a_peer_that_naks_for_ever_is_left() -> None:
    """Each Nak is well-formed, and each gets a new request at once: only patience ends it."""
    peer = Peer()
    ((_, request),) = peer.hear()
    for step in range(15):
        nak = CpPacket(Code.CONFIGURE_NAK, request.identifier, build_options([Option(200, bytes((step,)))]))
        ((_, request),) = peer.say(nak)
        assert request.code == Code.CONFIGURE_REQUEST
    ((_, request),) = peer.say(CpPacket(Code.CONFIGURE_NAK, request.identifier, b""))
    assert (request.code, peer.phase()) == (Code.TERMINATE_REQUEST, Phase.TERMINATE)


def test_a_peer_that_rejects_everything_still_gets_a_link() -> None:
    peer = Peer(lcp=LcpPolicy(mru=1400))
    ((_, request),) = peer.hear()
    for left in (1, 0):
        reject = build_options(parse_options(request.data)[:1])
        ((_, request),) = peer.say(CpPacket(Code.CONFIGURE_REJECT, request.identifier, reject))
        assert len(parse_options(request.data)) == left
    peer.say(CpPacket(Code.CONFIGURE_ACK, request.identifier))
    peer.ask()
    opened = peer.log[0]
    assert isinstance(opened, LinkOpened)
    assert (opened.local.magic_number, opened.local.mru) == (0, 1500)


def test_a_nak_loop_about_our_address_ends_as_not_agreed_with_both_offers() -> None:
    peer = Peer()
    heard = peer.establish()
    for _ in range(20):
        request = [packet for spoken, packet in heard if spoken == Protocol.IPCP][-1]
        if request.code != Code.CONFIGURE_REQUEST:
            break
        nak = build_options([Option(3, bytes((192, 0, 2, 7)))])
        heard = peer.say(CpPacket(Code.CONFIGURE_NAK, request.identifier, nak), Protocol.IPCP)
    peer.say(CpPacket(Code.TERMINATE_ACK, request.identifier), Protocol.IPCP)
    while peer.phase() is not Phase.DEAD:
        peer.run_timers()
        peer.hear()
    end = peer.log[-1]
    assert isinstance(end, Terminated)
    assert end.cause is TerminationCause.NOT_AGREED
    assert "10.77.0.1" in end.detail
    assert "192.0.2.7" in end.detail


def test_an_acknowledgement_must_match_octet_for_octet() -> None:
    peer = Peer(lcp=LcpPolicy(mru=1400))
    (_, request), *_ = peer.hear()
    peer.ask(MAGIC)
    reversed_options = build_options(reversed(parse_options(request.data)))
    for forged in (
        CpPacket(Code.CONFIGURE_ACK, request.identifier, reversed_options),
        CpPacket(Code.CONFIGURE_ACK, request.identifier, request.data[:-1]),
        CpPacket(Code.CONFIGURE_ACK, request.identifier, b""),
        CpPacket(Code.CONFIGURE_ACK, (request.identifier + 1) & 0xFF, request.data),
        CpPacket(Code.CONFIGURE_REJECT, request.identifier, build_options([Option(8)])),
        CpPacket(Code.CONFIGURE_REJECT, request.identifier, reversed_options),
        CpPacket(Code.CONFIGURE_REJECT, request.identifier, b""),
    ):
        assert peer.say(forged) == []
        assert peer.phase() is Phase.ESTABLISH
    assert peer.link.drops[Drop.MALFORMED] == 6
    peer.say(CpPacket(Code.CONFIGURE_ACK, request.identifier, request.data))
    assert peer.phase() is Phase.NETWORK


def test_identifiers_change_with_contents_and_stay_for_retransmissions() -> None:
    peer = Peer(lcp=LcpPolicy(mru=1400))
    (_, first), *_ = peer.hear()
    peer.run_timers()
    assert peer.hear() == [(Protocol.LCP, first)]
    heard = peer.say(CpPacket(Code.CONFIGURE_NAK, first.identifier, build_options([Option(1, b"\x04\xb0")])))
    (_, second), *_ = heard
    assert second.identifier != first.identifier
    assert parse_options(second.data)[0] == Option(1, b"\x04\xb0")
    # The answer to the first is stale now, and a second answer to the second is one too many.
    assert peer.say(CpPacket(Code.CONFIGURE_REJECT, first.identifier, first.data)) == []
    assert peer.say(CpPacket(Code.CONFIGURE_ACK, second.identifier, second.data)) == []
    assert peer.say(CpPacket(Code.CONFIGURE_ACK, second.identifier, second.data)) == []
    assert peer.ask(MAGIC).code == Code.CONFIGURE_ACK
    assert peer.phase() is Phase.NETWORK


def test_a_repeated_option_counts_once() -> None:
    peer = Peer()
    peer.pending = peer.hear()
    options = (Option(1, b"\x05\x78"), MAGIC, Option(1, b"\x02\x00"))
    reply = peer.ask(*options)
    assert (reply.code, reply.data) == (Code.CONFIGURE_ACK, build_options(options))
    peer.acknowledge()
    opened = peer.log[0]
    assert isinstance(opened, LinkOpened)
    assert opened.remote.mru == 1400


def test_a_repeated_request_gets_the_same_answer_for_a_while_and_then_renegotiates() -> None:
    peer = Peer().networked()
    request = CpPacket(Code.CONFIGURE_REQUEST, 0, build_options([MAGIC]))
    peer.now += 9.9
    assert codes(peer.say(request)) == [Code.CONFIGURE_ACK]
    assert peer.phase() is Phase.NETWORK
    peer.now += 0.2
    assert codes(peer.say(request)) == [Code.CONFIGURE_REQUEST, Code.CONFIGURE_ACK]
    assert peer.phase() is Phase.ESTABLISH
    assert peer.log[-1] == NetworkDown(Protocol.IPV4)


@pytest.mark.parametrize("length", [0, 1, 3, 4])
def test_an_option_with_a_wrong_length_is_countered_with_a_right_one(length: int) -> None:
    peer = Peer()
    reply = peer.ask(Option(1, bytes(length)))
    assert (reply.code, parse_options(reply.data)) == (Code.CONFIGURE_NAK, (Option(1, b"\x05\xdc"),))


def test_a_zero_magic_number_is_countered() -> None:
    reply = Peer().ask(Option(5, bytes(4)))
    assert reply.code == Code.CONFIGURE_NAK
    assert any(parse_options(reply.data)[0].value)


def test_an_authentication_demand_is_rejected_where_we_have_no_secret() -> None:
    demand = Option(3, b"\xc2\x23\x81")
    assert Peer().ask(demand, MAGIC) == CpPacket(Code.CONFIGURE_REJECT, 1, build_options([demand]))


def test_a_sealed_link_rejects_compressed_headers_and_foreign_control_protocols() -> None:
    config = LinkConfig.sealed(local=OURS, remote=THEIRS, mru=1335, ipv6=False)
    peer = Peer()
    peer.link = Link(config, entropy=random.Random(5).randbytes)
    peer.link.open(0)
    reply = peer.ask(Option(7), MAGIC, Option(8))
    assert (reply.code, parse_options(reply.data)) == (Code.CONFIGURE_REJECT, (Option(7), Option(8)))
    peer.link = Link(config, entropy=random.Random(5).randbytes)
    peer.link.open(0)
    peer.establish()
    for protocol in (Protocol.CCP, Protocol.ECP, Protocol.IPV6CP, Protocol.IPV6, Protocol.CHAP):
        ((spoken, reject),) = peer.say(CpPacket(Code.CONFIGURE_REQUEST, 1), protocol)
        assert (spoken, reject.code) == (Protocol.LCP, Code.PROTOCOL_REJECT)
        assert parse_protocol_reject(reject.data).protocol == protocol


def test_rejects_and_echoes_never_exceed_the_peers_mru() -> None:
    peer = Peer().networked(Option(1, (200).to_bytes(2, "big")), MAGIC)
    ((_, reject),) = peer.say(CpPacket(1, 1, bytes(1000)), Protocol.CCP)
    assert (reject.code, len(build_packet(reject))) == (Code.PROTOCOL_REJECT, 200)
    ((_, reject),) = peer.say(CpPacket(99, 1, bytes(1000)))
    assert (reject.code, len(build_packet(reject))) == (Code.CODE_REJECT, 200)
    ((_, reject),) = peer.say(CpPacket(99, 1, bytes(1000)), Protocol.IPCP)
    assert (reject.code, len(build_packet(reject))) == (Code.CODE_REJECT, 200)
    ((_, reply),) = peer.say(CpPacket(Code.ECHO_REQUEST, 9, bytes(1000)))
    assert (reply.code, reply.identifier, len(build_packet(reply))) == (Code.ECHO_REPLY, 9, 200)


def test_a_peer_with_a_huge_mru_gets_no_more_than_it_sent() -> None:
    peer = Peer().networked(Option(1, b"\xff\xff"), MAGIC)
    ((_, reply),) = peer.say(CpPacket(Code.ECHO_REQUEST, 9, bytes(1400)))
    assert len(reply.data) == 1400
    peer.link.receive(Protocol.LCP, bytes(1501), peer.now)
    assert peer.link.drops[Drop.TOO_BIG] == 1


def test_an_echo_is_answered_with_our_magic_number_once_the_link_is_open_only() -> None:
    peer = Peer()
    (_, request), *_ = peer.hear()
    assert peer.say(CpPacket(Code.ECHO_REQUEST, 1, bytes(4) + b"early")) == []
    peer.pending = [(Protocol.LCP, request)]
    peer.ask(MAGIC)
    peer.acknowledge()
    ((_, reply),) = peer.say(CpPacket(Code.ECHO_REQUEST, 0, bytes(4) + b"data"))
    own = parse_options(request.data)[0].value
    assert (reply.identifier, reply.data) == (0, own + b"data")


def test_a_round_trip_is_measured_on_demand() -> None:
    peer = Peer().networked()
    identifier = peer.link.send_echo(10.0)
    ((_, echo),) = peer.hear()
    assert parse_magic(echo.data).magic_number != 0
    peer.now = 10.25
    peer.say(CpPacket(Code.ECHO_REPLY, (identifier + 1) & 0xFF, bytes(4)))
    peer.say(CpPacket(Code.ECHO_REPLY, identifier, bytes(4)))
    peer.say(CpPacket(Code.ECHO_REPLY, identifier, bytes(4)))
    assert [event for event in peer.log if isinstance(event, EchoReplied)] == [EchoReplied(identifier, 0.25)]


def test_what_the_peer_says_of_itself_is_reported_escaped() -> None:
    peer = Peer().networked()
    guid = bytes(range(0x10, 0x20))
    peer.say(CpPacket(Code.IDENTIFICATION, 2, build_magic(MagicBody(1, b"MSRASV5.20"))))
    peer.say(CpPacket(Code.IDENTIFICATION, 3, build_magic(MagicBody(1, guid))))
    peer.say(CpPacket(Code.TIME_REMAINING, 4, build_time_remaining(Remaining(1, 60, b"bye\n"))))
    said = [event for event in peer.log if isinstance(event, PeerIdentified | PeerTimeRemaining)]
    assert said[0] == PeerIdentified("MSRASV5.20")
    assert isinstance(said[1], PeerIdentified)
    assert said[1].text.isprintable()
    assert said[2] == PeerTimeRemaining(60, r"bye\x0a")


def test_discard_and_vendor_packets_are_taken_in_silence() -> None:
    peer = Peer().networked()
    assert peer.say(CpPacket(Code.DISCARD_REQUEST, 1, bytes(100))) == []
    assert peer.say(CpPacket(Code.VENDOR_SPECIFIC, 1, bytes(8))) == []
    assert peer.link.drops == {}


def test_a_code_reject_of_what_we_need_ends_it_and_of_anything_else_does_not() -> None:
    peer = Peer().networked()
    rejected = build_packet(CpPacket(Code.ECHO_REQUEST, 1, bytes(4)))
    assert peer.say(CpPacket(Code.CODE_REJECT, 1, rejected)) == []
    assert peer.phase() is Phase.NETWORK
    rejected = build_packet(CpPacket(Code.CONFIGURE_REQUEST, 1))
    assert codes(peer.say(CpPacket(Code.CODE_REJECT, 2, rejected))) == [Code.TERMINATE_REQUEST]
    assert peer.phase() is Phase.TERMINATE
    peer.say(CpPacket(Code.TERMINATE_ACK, 3))
    end = peer.log[-1]
    assert isinstance(end, Terminated)
    assert end.cause is TerminationCause.REFUSED


@pytest.mark.parametrize("protocol", [Protocol.IPCP, Protocol.IPV4, Protocol.LCP])
def test_a_protocol_reject_of_what_the_link_is_for_ends_it(protocol: Protocol) -> None:
    peer = Peer().networked()
    peer.say(CpPacket(Code.PROTOCOL_REJECT, 1, build_protocol_reject(ProtocolRejectBody(protocol, b"\x01"))))
    while peer.phase() is not Phase.DEAD:
        peer.run_timers()
        peer.hear()
    end = peer.log[-1]
    assert isinstance(end, Terminated)
    assert end.cause is TerminationCause.REFUSED


def test_a_terminate_request_is_answered_and_its_text_reported() -> None:
    peer = Peer().networked()
    assert peer.say(CpPacket(Code.TERMINATE_REQUEST, 0x55, b"User request")) == [
        (Protocol.LCP, CpPacket(Code.TERMINATE_ACK, 0x55))
    ]
    assert peer.phase() is Phase.TERMINATE
    peer.run_timers()
    peer.hear()
    assert peer.log[-1] == Terminated(TerminationCause.PEER_REQUEST, "the peer ended LCP: User request")
