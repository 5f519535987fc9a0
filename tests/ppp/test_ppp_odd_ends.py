"""One link against peers written by hand: how it ends, renews itself and starts again."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pptp.errors import Drop, Terminated, TerminationCause, UsageError
from pptp.ppp.control_protocol import NetworkFinished
from pptp.ppp.ipcp import IpcpPolicy, Ipv4Up
from pptp.ppp.ipv6cp import Ipv6cpPolicy
from pptp.ppp.lcp import EchoReplied
from pptp.ppp.lcp_options import LcpPolicy
from pptp.ppp.link import Link, Phase
from pptp.ppp.negotiation import Retransmission
from pptp.ppp.policy import LinkConfig
from pptp.wire.cp import (
    Code,
    CpPacket,
    Option,
    ProtocolRejectBody,
    build_options,
    build_packet,
    build_protocol_reject,
    parse_options,
    parse_packet,
)
from pptp.wire.ppp import Protocol
from tests.ppp.scripted_peer import MAGIC, OURS, SERVER, THEIRS, Peer, codes


def test_data_frames_before_their_time_are_dropped_by_phase_and_not_answered() -> None:
    peer = Peer()
    peer.pending = peer.hear()
    peer.link.receive(Protocol.IPV4, bytes(20), 0)
    peer.ask(MAGIC)
    peer.acknowledge()
    peer.link.receive(Protocol.IPV4, bytes(20), 0)
    assert peer.hear() == []
    assert peer.link.drops_by_phase == {
        (Phase.ESTABLISH, Drop.WRONG_PHASE): 1,
        (Phase.NETWORK, Drop.WRONG_PHASE): 1,
    }


@pytest.mark.parametrize(
    ("given", "usable"),
    [
        ((10, 1, 2, 3), True),
        ((0, 1, 2, 3), False),
        ((127, 0, 0, 1), False),
        ((224, 0, 0, 5), False),
        ((255,) * 4, False),
    ],
)
def test_an_address_that_no_host_has_is_not_taken(given: tuple[int, ...], usable: bool) -> None:
    peer = Peer(IpcpPolicy())
    heard = peer.establish()
    request = next(packet for spoken, packet in heard if spoken == Protocol.IPCP)
    nak = build_options([Option(3, bytes(given))])
    heard = peer.say(CpPacket(Code.CONFIGURE_NAK, request.identifier, nak), Protocol.IPCP)
    (_, again), *_ = heard
    asked = parse_options(again.data)[0].value
    assert asked == (bytes(given) if usable else bytes(4))


def test_a_peer_that_acknowledges_no_address_at_all_is_refused() -> None:
    peer = Peer(IpcpPolicy())
    peer.pending = peer.establish()
    peer.ask(Option(3, THEIRS.packed), protocol=Protocol.IPCP)
    heard = peer.acknowledge(Protocol.IPCP)
    assert codes(heard) == [Code.TERMINATE_REQUEST]
    assert not any(isinstance(event, Ipv4Up) for event in peer.log)


def test_a_peer_that_will_not_talk_of_addresses_gets_those_we_were_told() -> None:
    peer = Peer(IpcpPolicy(local=OURS, remote=THEIRS))
    heard = peer.establish()
    request = next(packet for spoken, packet in heard if spoken == Protocol.IPCP)
    rejected = CpPacket(Code.CONFIGURE_REJECT, request.identifier, request.data)
    peer.pending = peer.say(rejected, Protocol.IPCP)
    for identifier in range(5):
        assert peer.ask(identifier=identifier, protocol=Protocol.IPCP).code == Code.CONFIGURE_NAK
    assert peer.ask(identifier=9, protocol=Protocol.IPCP).code == Code.CONFIGURE_ACK
    peer.acknowledge(Protocol.IPCP)
    assert peer.log[-1] == Ipv4Up(Protocol.IPV4, OURS, THEIRS)


def test_ipcp_that_is_not_answered_ends_the_link_as_silent() -> None:
    peer = Peer()
    peer.establish()
    while peer.phase() is not Phase.DEAD:
        peer.run_timers()
        peer.hear()
    assert peer.log[-1] == Terminated(TerminationCause.PEER_SILENT, "no IPCP packet arrived from the peer")


def test_timers_and_counters_follow_the_configuration() -> None:
    quick = Retransmission(restart_timer=0.25, max_configure=3)
    link = Link(LinkConfig(control_protocols=(SERVER,), retransmission=quick), entropy=random.Random(1).randbytes)
    link.open(0)
    while (deadline := link.deadline()) is not None:
        link.handle_timeout(deadline)
        now = deadline
    assert now == 0.75
    assert len(link.transmits()) == 3


def test_a_link_needs_a_purpose() -> None:
    refused: list[Callable[[], LinkConfig]] = [
        lambda: LinkConfig(control_protocols=()),
        lambda: LinkConfig(control_protocols=(SERVER, IpcpPolicy())),
    ]
    for make in refused:
        with pytest.raises(ValueError, match="control protocol"):
            make()


def test_an_echo_before_the_link_is_open_is_our_own_fault() -> None:
    with pytest.raises(UsageError):
        Peer().link.send_echo(0)


def test_requests_to_a_link_that_terminates_get_no_answer() -> None:
    peer = Peer().networked()
    peer.link.close(0)
    assert codes(peer.hear()) == [Code.TERMINATE_REQUEST]
    assert peer.say(CpPacket(Code.CONFIGURE_REQUEST, 9, build_options([MAGIC]))) == []
    assert peer.say(CpPacket(Code.TERMINATE_REQUEST, 10)) == [(Protocol.LCP, CpPacket(Code.TERMINATE_ACK, 10))]
    assert peer.phase() is Phase.TERMINATE
    peer.run_timers()
    assert codes(peer.hear()) == [Code.TERMINATE_REQUEST]  # Max-Terminate is two
    peer.run_timers()
    assert peer.hear() == []
    assert peer.log[-1] == Terminated(TerminationCause.LOCAL_REQUEST)


def test_a_magic_number_is_not_taken_up_because_the_peer_suggests_it() -> None:
    peer = Peer(lcp=LcpPolicy(magic_number=False))
    ((_, request),) = peer.hear()
    assert request.data == b""
    suggestion = build_options([MAGIC, Option(1, b"\x05\x78"), Option(3, b"\xc0\x23")])
    ((_, request),) = peer.say(CpPacket(Code.CONFIGURE_NAK, request.identifier, suggestion))
    assert parse_options(request.data) == (Option(1, b"\x05\x78"),)  # an MRU that every system can receive is


def test_an_mru_that_we_cannot_promise_is_left_out() -> None:
    for suggested in (b"\xff\xff", b"\x00\x10", b"\x05"):
        peer = Peer(lcp=LcpPolicy(mru=1400, magic_number=False))
        ((_, request),) = peer.hear()
        nak = build_options([Option(1, suggested)])
        ((_, request),) = peer.say(CpPacket(Code.CONFIGURE_NAK, request.identifier, nak))
        assert request.data == b""


def ipv6_alone() -> Peer:
    peer = Peer()
    peer.link = Link(LinkConfig(control_protocols=(Ipv6cpPolicy(),)), entropy=random.Random(5).randbytes)
    peer.link.open(0)
    peer.pending = peer.establish()
    return peer


def test_ipv6cp_needs_an_identifier_at_both_ends() -> None:
    peer = ipv6_alone()
    for bad in ((), (Option(1, bytes(8)),), (Option(1, bytes(7)),), (Option(1),)):
        reply = peer.ask(*bad, protocol=Protocol.IPV6CP)
        (suggested,) = parse_options(reply.data)
        assert (reply.code, suggested.type, len(suggested.value)) == (Code.CONFIGURE_NAK, 1, 8)
        assert any(suggested.value)
        assert not suggested.value[0] & 0x02  # not universally administered
    assert peer.ask(Option(2, b"\x00\x4f"), protocol=Protocol.IPV6CP).code == Code.CONFIGURE_REJECT

    peer = ipv6_alone()
    request = next(packet for spoken, packet in peer.pending if spoken == Protocol.IPV6CP)
    rejected = CpPacket(Code.CONFIGURE_REJECT, request.identifier, request.data)
    assert codes(peer.say(rejected, Protocol.IPV6CP)) == [Code.TERMINATE_REQUEST]

    peer = ipv6_alone()
    replies = [peer.ask(protocol=Protocol.IPV6CP).code for _ in range(5)]
    assert replies == [Code.CONFIGURE_NAK] * 5
    heard = peer.say(CpPacket(Code.CONFIGURE_REQUEST, 1), Protocol.IPV6CP)
    assert codes(heard) == [Code.TERMINATE_REQUEST]


@pytest.mark.parametrize("identifier", [b"", bytes(8), b"\x01" * 7, b"\x01" * 9])
def test_an_interface_identifier_of_the_profile_must_be_one(identifier: bytes) -> None:
    with pytest.raises(ValueError, match="interface identifier"):
        Ipv6cpPolicy(interface_identifier=identifier)


def both_optional() -> Peer:
    """LCP is up; neither IPCP nor IPV6CP is essential."""
    peer = Peer()
    config = LinkConfig(control_protocols=(IpcpPolicy(local=OURS, essential=False), Ipv6cpPolicy()))
    peer.link = Link(config, entropy=random.Random(5).randbytes)
    peer.link.open(0)
    peer.pending = peer.establish()
    return peer


def silence_ipv6(peer: Peer) -> None:
    """Agree on IPv4 and let IPV6CP run out."""
    peer.ask(Option(3, THEIRS.packed), protocol=Protocol.IPCP)
    peer.acknowledge(Protocol.IPCP)
    while peer.link.deadline() is not None:
        peer.run_timers()
        peer.hear()
    assert isinstance(peer.log[-1], NetworkFinished)


IDENTIFIER = Option(1, b"\0\0\0\0\0\0\0\x09")
REJECT_IPCP = CpPacket(Code.PROTOCOL_REJECT, 1, build_protocol_reject(ProtocolRejectBody(Protocol.IPCP)))


def test_a_finished_protocol_is_revived_when_the_peer_asks_after_all() -> None:
    peer = both_optional()
    for _ in range(5):
        assert peer.ask(protocol=Protocol.IPV6CP).code == Code.CONFIGURE_NAK
    silence_ipv6(peer)
    assert peer.phase() is Phase.NETWORK
    assert peer.ask(protocol=Protocol.IPV6CP).code == Code.CONFIGURE_NAK  # patience is new
    peer.pending = peer.say(CpPacket(Code.CONFIGURE_REQUEST, 7, build_options([IDENTIFIER])), Protocol.IPV6CP)
    peer.run_timers()
    peer.pending = peer.hear()
    peer.acknowledge(Protocol.IPV6CP)
    assert peer.link.carries(Protocol.IPV6)
    peer.say(REJECT_IPCP)  # what is left is a purpose
    while (deadline := peer.link.deadline()) is not None:
        assert deadline < 1000
        peer.run_timers()
        peer.hear()
    assert (peer.phase(), peer.link.carries(Protocol.IPV6)) == (Phase.NETWORK, True)


def test_a_renegotiation_forgets_what_was_finished_before() -> None:
    peer = both_optional()
    silence_ipv6(peer)
    peer.link.open(peer.now)
    peer.establish()
    peer.say(REJECT_IPCP)
    assert peer.phase() is Phase.NETWORK  # IPV6CP is being tried again


def test_a_link_whose_last_protocol_is_finished_ends() -> None:
    peer = both_optional()
    silence_ipv6(peer)
    peer.say(REJECT_IPCP)
    peer.run_timers()
    assert peer.phase() is Phase.NETWORK
    peer.run_timers()  # Max-Terminate: IPCP has ended
    assert peer.phase() is Phase.TERMINATE


def test_a_terminate_request_before_the_link_opened_explains_no_later_silence() -> None:
    for opens in (False, True):
        peer = Peer()
        peer.pending = peer.hear()
        peer.say(CpPacket(Code.TERMINATE_REQUEST, 1, b"busy"))
        if opens:
            peer.ask(MAGIC)
            peer.acknowledge()
            peer.say(CpPacket(Code.TERMINATE_ACK, 1))  # it is back in Closed: LCP begins anew
        while peer.phase() is not Phase.DEAD:
            peer.run_timers()
            peer.hear()
        end = peer.log[-1]
        assert isinstance(end, Terminated)
        assert end.cause is (TerminationCause.PEER_SILENT if opens else TerminationCause.PEER_REQUEST)


def test_an_acknowledgement_renews_patience() -> None:
    peer = Peer()
    peer.establish()
    right, wrong = Option(3, THEIRS.packed), Option(3, bytes((192, 0, 2, 1)))
    asked = [wrong] * 4 + [right] + [wrong] * 5
    replies = [peer.ask(option, identifier=step, protocol=Protocol.IPCP).code for step, option in enumerate(asked)]
    assert replies == [Code.CONFIGURE_NAK] * 4 + [Code.CONFIGURE_ACK] + [Code.CONFIGURE_NAK] * 5


def test_magic_numbers_that_collide_now_and_then_are_no_loop() -> None:
    peer = Peer()
    ((_, request),) = peer.hear()
    own = parse_options(request.data)[0]
    asked = ([own] * 4 + [MAGIC]) * 3
    replies = [peer.ask(option, identifier=step).code for step, option in enumerate(asked)]
    assert replies == ([Code.CONFIGURE_NAK] * 4 + [Code.CONFIGURE_ACK]) * 3


def test_a_magic_number_is_never_zero() -> None:
    link = Link(LinkConfig(control_protocols=(SERVER,)), entropy=bytes)
    link.open(0)
    (frame,) = link.transmits()
    assert any(parse_options(parse_packet(frame.information).data)[0].value)


def test_a_renegotiation_forgets_the_peers_mru() -> None:
    peer = Peer().networked(Option(1, (200).to_bytes(2, "big")), MAGIC)
    peer.link.open(peer.now)
    peer.hear()
    ((_, reject),) = peer.say(CpPacket(99, 1, bytes(1000)))
    assert len(build_packet(reject)) == 1008


def test_an_echo_of_before_a_renegotiation_is_not_measured() -> None:
    peer = Peer().networked()
    identifier = peer.link.send_echo(peer.now)
    peer.hear()
    peer.link.open(peer.now)
    peer.hear()
    peer.say(CpPacket(Code.ECHO_REPLY, identifier, bytes(4)))
    assert not any(isinstance(event, EchoReplied) for event in peer.log)


def test_nothing_is_rejected_before_the_link_is_open() -> None:
    peer = Peer()
    peer.hear()
    assert peer.say(CpPacket(Code.CONFIGURE_REQUEST, 1), Protocol.CCP) == []
    assert peer.link.drops_by_phase == {(Phase.ESTABLISH, Drop.WRONG_PHASE): 1}
    body = build_protocol_reject(ProtocolRejectBody(Protocol.LCP))
    assert peer.say(CpPacket(Code.PROTOCOL_REJECT, 1, body)) == []
    assert peer.phase() is Phase.ESTABLISH


def test_any_frame_of_the_peer_shows_that_it_lives() -> None:
    peer = Peer(lcp=LcpPolicy(echo_interval=10.0, echo_failures=2)).networked()
    for _ in range(6):
        peer.run_timers()
        assert codes(peer.hear()) == [Code.ECHO_REQUEST]
        peer.say(CpPacket(Code.DISCARD_REQUEST, 1, bytes(4)))
    for expected in (Code.ECHO_REQUEST, Code.ECHO_REQUEST, Code.TERMINATE_REQUEST):
        peer.run_timers()
        assert codes(peer.hear()) == [expected]
