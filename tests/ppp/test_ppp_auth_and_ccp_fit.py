"""Toy protocols that have the shape of PAP, CHAP and CCP prove that the real ones will fit without a change."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from pptp.errors import Drop, Terminated, TerminationCause, WireCause, WireError
from pptp.ppp.auth import AuthEvent, AuthFailed, AuthSucceeded, Exchange
from pptp.ppp.automaton import Event
from pptp.ppp.control_protocol import LinkContext, NetworkDown, NetworkEvent, NetworkFinished, NetworkUp
from pptp.ppp.ipcp import IpcpPolicy, Ipv4Up
from pptp.ppp.link import Link, LinkEvent, LinkOpened, Phase
from pptp.ppp.negotiation import Entropy, LayerDown, LayerFinished, LayerUp, Negotiation
from pptp.ppp.options import Ack, Nak, Rule, Verdict
from pptp.ppp.policy import LinkConfig
from pptp.value import value
from pptp.wire.cp import Code, CpPacket, build_packet, parse_packet
from pptp.wire.ppp import PppFrame, Protocol

CHALLENGE, RESPONSE, SUCCESS, FAILURE = 1, 2, 3, 4
RETRY = 3.0


@dataclass
class ToyExchange:
    """Common part of the toys: queues, and one retry timer."""

    protocol: int
    codes: frozenset[int]
    out: list[bytes] = field(default_factory=list)
    happened: list[AuthEvent] = field(default_factory=list)
    retry: bytes | None = None
    at: float | None = None
    tries: int = 0

    def ask(self, packet: bytes, now: float) -> None:
        self.retry, self.at, self.tries = packet, now, 0
        self.handle_timeout(now)

    def done(self) -> None:
        self.retry = self.at = None

    def transmits(self) -> list[bytes]:
        drained, self.out = self.out, []
        return drained

    def events(self) -> list[AuthEvent]:
        drained, self.happened = self.happened, []
        return drained

    def deadline(self) -> float | None:
        return self.at

    def handle_timeout(self, now: float) -> None:
        if self.at is None or now < self.at or self.retry is None:
            return
        if self.tries == 10:
            self.done()
            self.happened.append(AuthFailed("no answer to 10 toy packets"))
            return
        self.tries, self.at = self.tries + 1, now + RETRY
        self.out.append(self.retry)


def packet(code: int, identifier: int, data: bytes = b"") -> bytes:
    return build_packet(CpPacket(code, identifier, data))


class ToyChapServer(ToyExchange):
    """Asks with a Challenge, judges the Response, and gives a repeated Response the same answer."""

    def __init__(self, secret: bytes, entropy: Entropy) -> None:
        super().__init__(Protocol.CHAP, frozenset({RESPONSE}))
        self.secret, self.entropy = secret, entropy
        self.verdict: tuple[bytes, bytes] | None = None

    def start(self, now: float) -> None:
        self.challenge = self.entropy(8)
        self.ask(packet(CHALLENGE, 1, self.challenge), now)

    def receive(self, information: bytes, now: float) -> None:
        if self.verdict is not None and information == self.verdict[0]:
            self.out.append(self.verdict[1])
            return
        read = parse_packet(information)
        if len(read.data) < 4:
            raise WireError("toy response", WireCause.TRUNCATED)
        good = read.data[:4] == hashlib.sha256(self.secret + self.challenge).digest()[:4]
        self.done()
        answer = packet(SUCCESS if good else FAILURE, read.identifier)
        self.verdict = (information, answer)
        self.out.append(answer)
        name = read.data[4:].decode()
        self.happened.append(AuthSucceeded(name, b"s", b"r") if good else AuthFailed(f"{name} has another secret"))


class ToyChapClient(ToyExchange):
    """Answers Challenges, whenever they come."""

    def __init__(self, name: str, secret: bytes) -> None:
        super().__init__(Protocol.CHAP, frozenset({CHALLENGE, SUCCESS, FAILURE}))
        self.name, self.secret = name, secret

    def start(self, now: float) -> None:
        pass

    def receive(self, information: bytes, now: float) -> None:
        read = parse_packet(information)
        if read.code == CHALLENGE:
            response = hashlib.sha256(self.secret + read.data).digest()[:4] + self.name.encode()
            self.ask(packet(RESPONSE, read.identifier, response), now)
        elif read.code == SUCCESS:
            self.done()
            self.happened.append(AuthSucceeded(self.name, b"r", b"s"))
        else:
            self.done()
            self.happened.append(AuthFailed("the peer says the secret is wrong"))


@dataclass(frozen=True)
class ToyChap:
    secret: bytes
    name: str = "toy"
    protocol: int = Protocol.CHAP
    option: bytes = b"\xc2\x23\x81"

    def authenticate_peer(self, entropy: Entropy) -> Exchange:
        return ToyChapServer(self.secret, entropy)

    def answer_peer(self, entropy: Entropy) -> Exchange:
        return ToyChapClient(self.name, self.secret)


class ToyPapServer(ToyExchange):
    """Waits to be told the secret."""

    def __init__(self, secret: bytes) -> None:
        super().__init__(Protocol.PAP, frozenset({1}))
        self.secret = secret

    def start(self, now: float) -> None:
        self.at = now + 30

    def handle_timeout(self, now: float) -> None:
        if self.at is not None and now >= self.at:
            self.done()
            self.happened.append(AuthFailed("the peer does not authenticate itself"))

    def receive(self, information: bytes, now: float) -> None:
        read = parse_packet(information)
        good = read.data == self.secret
        self.done()
        self.out.append(packet(2 if good else 3, read.identifier))
        self.happened.append(AuthSucceeded("pap") if good else AuthFailed("wrong"))


class ToyPapClient(ToyExchange):
    """Speaks first."""

    def __init__(self, secret: bytes) -> None:
        super().__init__(Protocol.PAP, frozenset({2, 3}))
        self.secret = secret

    def start(self, now: float) -> None:
        self.ask(packet(1, 1, self.secret), now)

    def receive(self, information: bytes, now: float) -> None:
        self.done()
        good = parse_packet(information).code == 2
        self.happened.append(AuthSucceeded("me") if good else AuthFailed("refused"))


@dataclass(frozen=True)
class ToyPap:
    secret: bytes
    protocol: int = Protocol.PAP
    option: bytes = b"\xc0\x23"

    def authenticate_peer(self, entropy: Entropy) -> Exchange:
        return ToyPapServer(self.secret)

    def answer_peer(self, entropy: Entropy) -> Exchange:
        return ToyPapClient(self.secret)


@value
class EncryptionUp(NetworkUp):
    """What the toy CCP reports."""

    send_key: bytes


class ToyMppeRule(Rule):
    """Counters whatever is not 128-bit stateless, as MPPE does."""

    type = 18
    name = "MPPE"
    strong = bytes.fromhex("01000040")

    def required_locally(self) -> bool:
        return True

    def required_remotely(self) -> bool:
        return True

    def want(self) -> bytes | None:
        return self.strong

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        return Ack() if value == self.strong else Nak(self.strong)

    def missing(self) -> bytes | None:
        return self.strong


class ToyCcp:
    """CCP has codes of its own (Reset-Request, Reset-Ack): a protocol that is more than its negotiation."""

    def __init__(self, context: LinkContext, now: float) -> None:
        self.keys = context.authentications[0]
        self.resets = 0
        self.negotiation = Negotiation("CCP", [ToyMppeRule()], context.retransmission)
        self.negotiation.fire(Event.OPEN, now)
        self.negotiation.fire(Event.UP, now)

    @property
    def opened(self) -> bool:
        return self.negotiation.opened

    def receive(self, information: bytes, now: float) -> None:
        read = parse_packet(information)
        if read.code == Code.RESET_REQUEST and self.opened:
            self.resets += 1
            self.negotiation.send(CpPacket(Code.RESET_ACK, read.identifier))
        else:
            self.negotiation.receive(read, now)

    def protocol_rejected(self, now: float) -> None:
        self.negotiation.refused(now, "the peer does not speak CCP")

    def lower_down(self, now: float) -> None:
        self.negotiation.fire(Event.DOWN, now)

    def transmits(self) -> list[bytes]:
        return [build_packet(each) for each in self.negotiation.transmits()]

    def events(self) -> list[NetworkEvent]:
        events: list[NetworkEvent] = []
        for event in self.negotiation.events():
            match event:
                case LayerUp():
                    events.append(EncryptionUp(Protocol.MPPE, self.keys.send_key))
                case LayerDown():
                    events.append(NetworkDown(Protocol.MPPE))
                case LayerFinished(reason):
                    events.append(NetworkFinished(Protocol.MPPE, reason))
        return events

    def deadline(self) -> float | None:
        return self.negotiation.deadline()

    def handle_timeout(self, now: float) -> None:
        self.negotiation.handle_timeout(now)


@dataclass(frozen=True)
class ToyCcpPolicy:
    protocol: int = Protocol.CCP
    data_protocol: int = Protocol.MPPE
    essential: bool = True

    def begin(self, context: LinkContext, now: float) -> ToyCcp:
        return ToyCcp(context, now)


SERVER_IP = IpcpPolicy(local=IPv4Address("10.77.0.1"), remote=IPv4Address("10.77.0.9"), strict=True)
CLIENT_IP = IpcpPolicy()


@dataclass
class Line:
    """A clean line between two links; ``lose`` says which frames (sender, frame) vanish."""

    links: tuple[Link, Link]
    lose: Callable[[int, PppFrame], bool] = lambda side, frame: False
    now: float = 0.0
    log: tuple[list[LinkEvent], list[LinkEvent]] = field(default_factory=lambda: ([], []))
    seen: list[tuple[int, int, int]] = field(default_factory=list)  # sender, protocol, code

    def exchange(self) -> None:
        busy = True
        while busy:
            busy = False
            for side, each in enumerate(self.links):
                for frame in each.transmits():
                    busy = True
                    self.seen.append((side, frame.protocol, frame.information[0]))
                    if not self.lose(side, frame):
                        self.links[1 - side].receive(frame.protocol, frame.information, self.now)
                self.log[side].extend(each.events())

    def run(self, until: float) -> None:
        if not self.seen:
            for each in self.links:
                each.open(self.now)
        self.exchange()
        while True:
            deadline = min((d for each in self.links if (d := each.deadline()) is not None), default=until)
            if deadline >= until:
                return
            self.now = deadline
            for each in self.links:
                each.handle_timeout(deadline)
            self.exchange()


def line(server: LinkConfig, client: LinkConfig) -> Line:
    return Line((Link(server, entropy=random.Random(0).randbytes), Link(client, entropy=random.Random(1).randbytes)))


def test_a_challenge_is_answered_before_the_network_phase() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyChap(b"word", "alice"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(5)
    assert [type(event) for event in joined.log[0]] == [LinkOpened, AuthSucceeded, Ipv4Up]
    assert joined.log[0][1] == AuthSucceeded("alice", b"s", b"r")
    first_ipcp = joined.seen.index((0, Protocol.IPCP, 1))
    assert joined.seen.index((0, Protocol.CHAP, SUCCESS)) < first_ipcp
    opened = joined.log[0][0]
    assert isinstance(opened, LinkOpened)
    assert opened.local.authentication == b"\xc2\x23\x81"
    assert "'s'" not in repr(joined.log[0][1])


def test_a_wrong_secret_ends_both_sides_as_authentication() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyChap(b"guess", "mallory"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(60)
    for log, detail in zip(joined.log, ("mallory has another secret", "the peer says"), strict=True):
        end = log[-1]
        assert isinstance(end, Terminated)
        assert end.cause is TerminationCause.AUTHENTICATION
        assert detail in end.detail
        assert not any(isinstance(event, NetworkUp) for event in log)
    assert (0, Protocol.CHAP, FAILURE) in joined.seen


def test_a_lost_success_is_repeated_in_the_network_phase() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyChap(b"word"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    lost: list[int] = []

    def first_success(side: int, frame: PppFrame) -> bool:
        if frame.protocol == Protocol.CHAP and frame.information[0] == SUCCESS and not lost:
            lost.append(side)
            return True
        return False

    joined.lose = first_success
    joined.run(10)
    assert lost == [0]
    assert all(each.carries(Protocol.IPV4) for each in joined.links)
    assert joined.links[1].drops == {}  # the server's early IPCP request was kept


def test_both_directions_of_one_protocol_are_told_apart_by_code() -> None:
    configs = [
        LinkConfig(authenticators=(ToyChap(own),), authenticatees=(ToyChap(other, name),), control_protocols=(ip,))
        for own, other, name, ip in ((b"a", b"b", "one", SERVER_IP), (b"b", b"a", "two", CLIENT_IP))
    ]
    joined = line(*configs)
    joined.run(5)
    names = [[event.identity for event in log if isinstance(event, AuthSucceeded)] for log in joined.log]
    assert [sorted(pair) for pair in names] == [["one", "two"], ["one", "two"]]
    assert all(each.phase is Phase.NETWORK for each in joined.links)


def test_a_peer_naks_down_the_list_to_the_method_it_has() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"x"), ToyPap(b"word")), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyPap(b"word"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(5)
    assert AuthSucceeded("pap") in joined.log[0]
    assert AuthSucceeded("me") in joined.log[1]


@pytest.mark.parametrize("client_methods", [(), (ToyPap(b"word"),)])
def test_no_common_method_is_not_agreed(client_methods: tuple[ToyPap, ...]) -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=client_methods, control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(60)
    end = joined.log[0][-1]
    assert isinstance(end, Terminated)
    assert end.cause is TerminationCause.NOT_AGREED
    assert "authentication protocol c22381" in end.detail
    assert not any(isinstance(event, LinkOpened) for event in joined.log[0])


def test_network_packets_of_an_unauthenticated_peer_change_nothing() -> None:
    server = LinkConfig(authenticators=(ToyPap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyPap(b"word"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.lose = lambda side, frame: frame.protocol == Protocol.PAP
    joined.run(1)
    assert joined.links[0].phase is Phase.AUTHENTICATE
    for _ in range(20):
        joined.links[0].receive(Protocol.IPCP, packet(1, 1), 1.0)
    assert joined.links[0].transmits() == []
    assert joined.links[0].drops == {Drop.QUEUE_FULL: 12}
    joined.run(60)
    end = joined.log[0][-1]
    assert end == Terminated(TerminationCause.AUTHENTICATION, "the peer does not authenticate itself")
    assert not any(isinstance(event, NetworkUp) for event in joined.log[0])


def test_bad_authentication_packets_are_counted() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyChap(b"word"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(1)
    for information in (b"", b"\x09\x01\x00\x04", b"\x02", b"\x02\x01\x00\x05\x00"):
        joined.links[0].receive(Protocol.CHAP, information, 1.0)
    assert joined.links[0].drops == {Drop.MALFORMED: 4}
    assert joined.links[0].phase is Phase.NETWORK


def test_a_peer_that_rejects_the_method_it_agreed_to_has_failed() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyChap(b"word"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.lose = lambda side, frame: frame.protocol == Protocol.CHAP
    joined.run(1)
    joined.links[0].receive(Protocol.LCP, packet(Code.PROTOCOL_REJECT, 1, b"\xc2\x23\x01"), 1.0)
    joined.run(60)
    end = joined.log[0][-1]
    assert isinstance(end, Terminated)
    assert end.cause is TerminationCause.AUTHENTICATION


def test_a_renegotiated_link_authenticates_again() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyChap(b"word"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(1)
    joined.lose = lambda side, frame: frame.protocol == Protocol.CHAP
    joined.links[0].open(1.0)
    joined.run(2)
    assert [each.phase for each in joined.links] == [Phase.AUTHENTICATE] * 2
    joined.lose = lambda side, frame: False
    joined.run(10)
    assert [each.phase for each in joined.links] == [Phase.NETWORK] * 2


def test_early_frames_of_an_earlier_negotiation_are_forgotten() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyChap(b"word"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.lose = lambda side, frame: frame.protocol == Protocol.CHAP
    joined.run(1)
    joined.links[0].receive(Protocol.IPCP, packet(Code.TERMINATE_REQUEST, 1), 1.0)
    joined.links[0].open(1.0)
    joined.lose = lambda side, frame: False
    joined.run(10)
    assert joined.links[0].drops_by_phase == {(Phase.ESTABLISH, Drop.WRONG_PHASE): 1}
    assert (0, Protocol.IPCP, Code.TERMINATE_ACK) not in joined.seen


def test_a_second_success_changes_nothing() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"word"),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyChap(b"word"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(1)
    joined.links[1].receive(Protocol.CHAP, packet(CHALLENGE, 9, b"again"), 1.0)
    joined.links[1].receive(Protocol.CHAP, packet(SUCCESS, 9), 1.0)
    assert joined.links[1].events() == []
    assert [frame.protocol for frame in joined.links[1].transmits()] == [Protocol.CHAP]


@dataclass(frozen=True)
class Undecided:
    """Fails, and then thinks better of it."""

    protocol: int = Protocol.PAP
    option: bytes = b"\xc0\x23"

    def authenticate_peer(self, entropy: Entropy) -> Exchange:
        exchange = ToyPapServer(b"")
        exchange.happened = [AuthFailed("no"), AuthSucceeded("yes")]
        return exchange


def test_no_success_follows_a_failure() -> None:
    server = LinkConfig(authenticators=(Undecided(),), control_protocols=(SERVER_IP,))
    client = LinkConfig(authenticatees=(ToyPap(b""),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(30)
    assert (0, Protocol.IPCP, 1) not in joined.seen
    assert joined.log[0][-1] == Terminated(TerminationCause.AUTHENTICATION, "no")


def test_ccp_plugs_in_beside_ipcp_and_finds_the_keys() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"w"),), control_protocols=(ToyCcpPolicy(), SERVER_IP))
    client = LinkConfig(authenticatees=(ToyChap(b"w"),), control_protocols=(ToyCcpPolicy(), CLIENT_IP))
    joined = line(server, client)
    joined.run(5)
    assert EncryptionUp(Protocol.MPPE, b"s") in joined.log[0]
    assert EncryptionUp(Protocol.MPPE, b"r") in joined.log[1]
    assert all(each.carries(Protocol.MPPE) and each.carries(Protocol.IPV4) for each in joined.links)
    joined.links[0].receive(Protocol.CCP, packet(Code.RESET_REQUEST, 7), 6.0)
    (reply,) = joined.links[0].transmits()
    assert (reply.protocol, bytes(reply.information)) == (Protocol.CCP, packet(Code.RESET_ACK, 7))


def test_encryption_that_is_essential_and_refused_ends_the_link() -> None:
    server = LinkConfig(authenticators=(ToyChap(b"w"),), control_protocols=(ToyCcpPolicy(), SERVER_IP))
    client = LinkConfig(authenticatees=(ToyChap(b"w"),), control_protocols=(CLIENT_IP,))
    joined = line(server, client)
    joined.run(60)
    assert joined.log[0][-1] == Terminated(TerminationCause.REFUSED, "the peer does not speak CCP")
    assert isinstance(joined.log[1][-1], Terminated)
