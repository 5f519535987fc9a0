"""One link against peers written by hand: what Windows, routers and careless stacks send, and what they get."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from pptp.errors import Drop, Terminated, TerminationCause, UsageError
from pptp.ppp.control_protocol import NetworkDown, NetworkFinished
from pptp.ppp.ipcp import IpcpPolicy, Ipv4Up
from pptp.ppp.ipv6cp import Ipv6cpPolicy
from pptp.ppp.lcp import EchoReplied, PeerIdentified, PeerTimeRemaining
from pptp.ppp.lcp_options import LcpPolicy
from pptp.ppp.link import Link, LinkEvent, LinkOpened, Phase
from pptp.ppp.negotiation import Retransmission
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
    parse_packet,
    parse_protocol_reject,
)
from pptp.wire.cp import TimeRemainingBody as Remaining
from pptp.wire.ppp import Protocol

OURS, THEIRS = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.9")
DNS = IPv4Address("10.77.0.53")
SERVER = IpcpPolicy(local=OURS, remote=THEIRS, strict=True, dns=(DNS,))
MAGIC = Option(5, b"\x11\x22\x33\x44")


class Peer:
    """The other end of one link, played by the test: it says what it is told to say and hears everything."""

    def __init__(self, ipcp: IpcpPolicy = SERVER, lcp: LcpPolicy | None = None) -> None:
        config = LinkConfig(lcp=lcp or LcpPolicy(), control_protocols=(ipcp,))
        self.link = Link(config, entropy=random.Random(5).randbytes)
        self.now = 0.0
        self.log: list[LinkEvent] = []
        self.pending: list[tuple[int, CpPacket]] = []  # what the link said when the test last kept it
        self.link.open(0)

    def phase(self) -> Phase:
        return self.link.phase

    def hear(self) -> list[tuple[int, CpPacket]]:
        self.log += self.link.events()
        return [(frame.protocol, parse_packet(frame.information)) for frame in self.link.transmits()]

    def say(self, packet: CpPacket, protocol: int = Protocol.LCP) -> list[tuple[int, CpPacket]]:
        self.link.receive(protocol, build_packet(packet), self.now)
        return self.hear()

    def ask(self, *options: Option, identifier: int = 1, protocol: int = Protocol.LCP) -> CpPacket:
        """Send a Configure-Request and return the answer to it."""
        heard = self.say(CpPacket(Code.CONFIGURE_REQUEST, identifier, build_options(options)), protocol)
        return next(packet for spoken, packet in heard if spoken == protocol and packet.code in (2, 3, 4))

    def acknowledge(self, protocol: int = Protocol.LCP) -> list[tuple[int, CpPacket]]:
        """Answer the link's latest pending Configure-Request of ``protocol`` with an Ack."""
        requests = [
            packet for spoken, packet in self.pending if spoken == protocol and packet.code == Code.CONFIGURE_REQUEST
        ]
        return self.say(CpPacket(Code.CONFIGURE_ACK, requests[-1].identifier, requests[-1].data), protocol)

    def run_timers(self) -> None:
        deadline = self.link.deadline()
        assert deadline is not None
        self.now = deadline
        self.link.handle_timeout(deadline)

    def establish(self, *options: Option) -> list[tuple[int, CpPacket]]:
        """Bring LCP up; returns what the link says first thereafter."""
        self.pending = self.hear()
        self.ask(*(options or (MAGIC,)), identifier=0)
        return self.acknowledge()

    def networked(self, *options: Option) -> Peer:
        """Bring LCP and IPCP up."""
        self.pending = self.establish(*options)
        self.ask(Option(3, THEIRS.packed), protocol=Protocol.IPCP)
        self.acknowledge(Protocol.IPCP)
        assert self.link.carries(Protocol.IPV4)
        return self


def codes(heard: list[tuple[int, CpPacket]]) -> list[int]:
    return [packet.code for _, packet in heard]


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
