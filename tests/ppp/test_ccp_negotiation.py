"""CCP alone, its peer played by the test: what is asked, what is answered, and how it ends."""

from __future__ import annotations

import random

import pytest

from pptp.crypto.legacy import LegacyCipherUnavailable
from pptp.crypto.mppe import MppeMode
from pptp.crypto.mppe_keys import Strength
from pptp.errors import DropError, PeerViolation, Terminated, TerminationCause, UsageError, WireError
from pptp.ppp.auth import AuthSucceeded
from pptp.ppp.ccp import (
    BIT_40,
    BIT_56,
    BIT_128,
    BIT_MPPC,
    BIT_OBSOLETE,
    BIT_STATELESS,
    OPTION_MPPE,
    Ccp,
    CcpPolicy,
    EncryptionUp,
    describe,
)
from pptp.ppp.control_protocol import LinkContext, NetworkDown, NetworkEvent, NetworkFinished
from pptp.ppp.lcp_options import LcpOptions
from pptp.ppp.negotiation import Retransmission
from pptp.wire.cp import Code, CpPacket, Option, build_options, build_packet, parse_options, parse_packet
from pptp.wire.ppp import Protocol

S, M, L, H, D, C = BIT_128, BIT_56, BIT_40, BIT_STATELESS, BIT_OBSOLETE, BIT_MPPC
SEND, RECEIVE = bytes(range(16)), bytes(range(16, 32))
KEYS = AuthSucceeded("alice", SEND, RECEIVE)
ALL = frozenset(Strength)
IPV4 = 0x0021
IP_PACKET = b"\x45\0\0\x18" + bytes(20)


class Peer:
    """The other end of one CCP."""

    def __init__(self, policy: CcpPolicy, *left: AuthSucceeded) -> None:
        context = LinkContext(
            random.Random(1).randbytes, Retransmission(), LcpOptions(), LcpOptions(), left or (AuthSucceeded("x"), KEYS)
        )
        self.now = 0.0
        self.ccp: Ccp = policy.begin(context, 0)
        self.requests: list[int | None] = []  # the bits of each Configure-Request, None without MPPE
        self.last_request = CpPacket(0, 0)
        self.others: list[CpPacket] = []
        self.happened: list[NetworkEvent] = []
        self.identifier = 0
        self.hear()

    def hear(self) -> None:
        for information in self.ccp.transmits():
            packet = parse_packet(information)
            if packet.code == Code.CONFIGURE_REQUEST:
                self.last_request = packet
                self.requests.append(bits_of(packet))
            else:
                self.others.append(packet)
        self.happened += self.ccp.events()

    def say(self, packet: CpPacket) -> None:
        self.ccp.receive(build_packet(packet), self.now)
        self.hear()

    def ask(self, *bits: int, identifier: int | None = None) -> tuple[int, int | None]:
        """Ask for these bits (or for nothing); code and bits of the answer."""
        self.identifier = self.identifier + 1 if identifier is None else identifier
        options = [Option(OPTION_MPPE, each.to_bytes(4, "big")) for each in bits]
        self.others.clear()
        self.say(CpPacket(Code.CONFIGURE_REQUEST, self.identifier, build_options(options)))
        if not self.others:
            return 0, None
        return self.others[-1].code, bits_of(self.others[-1])

    def answer(self, code: Code, bits: int | None = None) -> None:
        """Answer the last Configure-Request, by Ack as it is."""
        data = self.last_request.data if bits is None else mppe(bits)
        self.say(CpPacket(code, self.last_request.identifier, data))

    def open(self, ours: int, theirs: int) -> EncryptionUp:
        """Agree: the peer asks for ``theirs``, and suggests ``ours`` for what we asked."""
        if self.requests[-1] != ours:
            self.answer(Code.CONFIGURE_NAK, ours)
        assert self.requests[-1] == ours
        self.answer(Code.CONFIGURE_ACK)
        assert self.ask(theirs) == (Code.CONFIGURE_ACK, theirs)
        up = self.happened[-1]
        assert isinstance(up, EncryptionUp)
        return up

    def wait(self) -> None:
        deadline = self.ccp.deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.ccp.handle_timeout(self.now)
        self.hear()

    @property
    def end(self) -> Terminated:
        """Why it is finished."""
        (finished,) = [event for event in self.happened if isinstance(event, NetworkFinished)]
        return finished.reason


def mppe(bits: int) -> bytes:
    return build_options([Option(OPTION_MPPE, bits.to_bytes(4, "big"))])


def bits_of(packet: CpPacket) -> int | None:
    if not Code.CONFIGURE_REQUEST <= packet.code <= Code.CONFIGURE_REJECT:
        return None
    values = [option.value for option in parse_options(packet.data) if option.type == OPTION_MPPE]
    return int.from_bytes(values[0], "big") if values else None


NAK, ACK, REJECT = Code.CONFIGURE_NAK, Code.CONFIGURE_ACK, Code.CONFIGURE_REJECT


# What the peer asks


@pytest.mark.parametrize(
    ("asked", "code", "answer"),
    [
        (H | S, ACK, H | S),
        (H, NAK, H | S),  # Windows, at first: no strength at all
        (0, NAK, H | S),
        (H | S | L, NAK, H | S),
        (H | S | M | L, NAK, H | S),
        (H | L, NAK, H | S),
        (H | M, NAK, H | S),
        (S, NAK, H | S),
        (H | S | C, NAK, H | S),  # MPPC
        (C, NAK, H | S),
        (H | S | D, NAK, H | S),
        (H | S | 0x80000000, NAK, H | S),
        (0xFFFFFFFF, NAK, H | S),
    ],
)
def test_interop_36_only_128_bit_stateless_by_default(asked: int, code: Code, answer: int) -> None:
    assert Peer(CcpPolicy()).ask(asked) == (code, answer)


@pytest.mark.parametrize(
    ("asked", "code", "answer"),
    [
        (H | S, ACK, H | S),
        (H | M, ACK, H | M),
        (H | L, ACK, H | L),
        (S, ACK, S),
        (L, ACK, L),
        (H | S | L, NAK, H | S),
        (H | M | L, NAK, H | M),
        (M | L, NAK, M),
        (H, NAK, H | S),
        (0, NAK, S),
        (H | L | D, NAK, H | L),
        (L | C, NAK, L),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_interop_36_of_several_the_strongest_is_suggested(required: bool, asked: int, code: Code, answer: int) -> None:
    policy = CcpPolicy(required=required, strengths=ALL, stateful=True)
    assert Peer(policy).ask(asked) == (code, answer)


@pytest.mark.parametrize(
    ("policy", "asked", "answer"),
    [
        (CcpPolicy(strengths=frozenset({Strength.BITS_40})), H | S | L, H | L),
        (CcpPolicy(strengths=frozenset({Strength.BITS_40})), H | S, H | L),
        (CcpPolicy(strengths=frozenset({Strength.BITS_56, Strength.BITS_40})), H | S | M | L, H | M),
        (CcpPolicy(stateless=False, stateful=True), H | S, S),
        (CcpPolicy(stateless=False, stateful=True), H, S),
    ],
)
def test_interop_45_what_is_not_allowed_is_not_agreed_to(policy: CcpPolicy, asked: int, answer: int) -> None:
    assert Peer(policy).ask(asked) == (NAK, answer)


@pytest.mark.parametrize("value", [b"", b"\0", b"\1\0\0", b"\1\0\0\x40\0"])
def test_an_option_of_another_length_is_countered(value: bytes) -> None:
    peer = Peer(CcpPolicy())
    peer.say(CpPacket(Code.CONFIGURE_REQUEST, 1, build_options([Option(OPTION_MPPE, value)])))
    assert (peer.others[-1].code, bits_of(peer.others[-1])) == (NAK, H | S)


def test_other_compressions_are_rejected() -> None:
    """Deflate, BSD-Compress and Predictor, as pppd offers them."""
    peer = Peer(CcpPolicy())
    others = [Option(26, b"\x78\0"), Option(24, b"\x78\0"), Option(21, b"\x2f"), Option(1), Option(2)]
    peer.say(CpPacket(Code.CONFIGURE_REQUEST, 1, build_options([*others, Option(OPTION_MPPE, b"\1\0\0\x40")])))
    assert peer.others[-1] == CpPacket(REJECT, 1, build_options(others))


def test_interop_39_a_peer_that_asks_for_nothing_is_asked_to() -> None:
    assert Peer(CcpPolicy()).ask() == (NAK, H | S)
    assert Peer(CcpPolicy(required=False)).ask() == (ACK, None)


# What we ask


def test_interop_37_stateless_is_what_we_ask_for() -> None:
    assert Peer(CcpPolicy()).requests == [H | S]
    assert Peer(CcpPolicy(strengths=ALL, stateful=True)).requests == [H | S | M | L]
    assert Peer(CcpPolicy(stateless=False, stateful=True)).requests == [S]


@pytest.mark.parametrize(
    ("suggested", "asked"),
    [
        (H | S, H | S),  # Windows
        (H | L, H | L),
        (S, S),
        (L, L),
        (H | S | L, H | S),  # several: the strongest
        (H | M | L | C, H | M),
        (H | M | D, H | M),
    ],
)
def test_interop_37_a_nak_is_followed_to_the_strongest(suggested: int, asked: int) -> None:
    peer = Peer(CcpPolicy(strengths=ALL, stateful=True))
    peer.answer(NAK, suggested)
    assert peer.requests == [H | S | M | L, asked]


def test_interop_45_a_nak_into_what_is_not_allowed_is_not_followed() -> None:
    peer = Peer(CcpPolicy(strengths=frozenset({Strength.BITS_128, Strength.BITS_40})))
    peer.answer(NAK, S)  # stateful
    assert peer.requests[-1] == H | S
    peer.answer(NAK, H | M)
    assert peer.requests[-1] == H | S
    assert peer.others[-1].code == Code.TERMINATE_REQUEST


def test_a_nak_without_sense_is_no_suggestion() -> None:
    peer = Peer(CcpPolicy(required=False))
    peer.say(CpPacket(NAK, peer.last_request.identifier, build_options([Option(OPTION_MPPE, b"?")])))
    assert peer.requests == [H | S, None]


def test_interop_37_each_direction_is_agreed_on_its_own() -> None:
    peer = Peer(CcpPolicy(strengths=ALL, stateful=True))
    up = peer.open(ours=L, theirs=H | S)
    assert up.encryptor is not None
    assert up.decryptor is not None
    assert up.encryptor.mode == MppeMode(Strength.BITS_128, stateless=True)
    assert up.decryptor.mode == MppeMode(Strength.BITS_40, stateless=False)
    assert (str(up.encryptor.mode), str(up.decryptor.mode)) == ("128-bit stateless", "40-bit stateful")


def test_interop_40_each_direction_has_its_own_key() -> None:
    one = Peer(CcpPolicy()).open(H | S, H | S)
    other = Peer(CcpPolicy(), AuthSucceeded("y", RECEIVE, SEND)).open(H | S, H | S)
    for sender, receiver in ((one, other), (other, one)):
        assert sender.encryptor is not None
        assert receiver.decryptor is not None
        assert receiver.decryptor.decrypt(sender.encryptor.encrypt(IPV4, IP_PACKET)) == (IPV4, IP_PACKET)
    assert one.encryptor is not None
    assert one.decryptor is not None
    with pytest.raises(DropError):
        one.decryptor.decrypt(one.encryptor.encrypt(IPV4, IP_PACKET))


def test_an_optional_direction_may_stay_clear() -> None:
    peer = Peer(CcpPolicy(required=False))
    peer.answer(REJECT)
    assert peer.requests == [H | S, None]
    peer.answer(ACK)
    assert peer.ask(H | S)[0] == ACK
    up = peer.happened[-1]
    assert isinstance(up, EncryptionUp)
    assert up.encryptor is not None
    assert up.decryptor is None
    assert peer.ccp.opened


# How it ends where it is required


def test_a_peer_that_rejects_ends_a_required_one_with_both_offers() -> None:
    peer = Peer(CcpPolicy())
    peer.ask(C)
    peer.answer(REJECT)
    peer.wait()
    peer.wait()
    assert peer.end.cause is TerminationCause.NOT_AGREED
    assert "rejects it" in peer.end.detail
    assert "we want 128-bit stateless, the peer wants no encryption" in peer.end.detail


def test_a_peer_that_suggests_less_ends_a_required_one_with_both_offers() -> None:
    peer = Peer(CcpPolicy())
    peer.answer(NAK, L)
    peer.wait()
    peer.wait()
    assert peer.end.cause is TerminationCause.NOT_AGREED
    assert "we want 128-bit stateless, the peer wants 40-bit stateful" in peer.end.detail


def test_a_peer_that_insists_is_rejected_at_last_with_both_offers() -> None:
    peer = Peer(CcpPolicy())
    answers = [peer.ask(H | L) for _ in range(6)]
    assert answers == [(NAK, H | S)] * 5 + [(REJECT, H | L)]
    assert peer.ask() == (Code.TERMINATE_REQUEST, None)  # nothing, then: but that is not what we need
    peer.say(CpPacket(Code.TERMINATE_ACK, peer.others[-1].identifier))
    assert peer.end.cause is TerminationCause.NOT_AGREED
    assert "we want 128-bit stateless, the peer wants 40-bit stateless" in peer.end.detail


def test_a_peer_that_insists_leaves_an_optional_one_clear() -> None:
    peer = Peer(CcpPolicy(required=False))
    answers = [peer.ask(H | L)[0] for _ in range(6)]
    assert answers == [NAK] * 5 + [REJECT]
    assert peer.ask() == (ACK, None)


def test_several_strengths_at_once_are_no_agreement() -> None:
    peer = Peer(CcpPolicy(strengths=ALL))
    peer.answer(ACK)
    peer.wait()
    peer.wait()
    assert "several strengths" in peer.end.detail


@pytest.mark.parametrize("required", [True, False])
def test_interop_39_a_peer_without_ccp_is_named(required: bool) -> None:
    peer = Peer(CcpPolicy(required=required))
    peer.ccp.protocol_rejected(0)
    peer.hear()
    assert peer.end.cause is TerminationCause.REFUSED
    assert "it rejects CCP; we want 128-bit stateless, the peer names none" in peer.end.detail
    assert CcpPolicy(required=required).essential is required


def test_a_silent_peer_is_given_up() -> None:
    peer = Peer(CcpPolicy())
    while peer.ccp.deadline() is not None:
        peer.wait()
    assert peer.end.cause is TerminationCause.PEER_SILENT
    assert len(peer.requests) == 10


def test_a_required_one_needs_keys() -> None:
    peer = Peer(CcpPolicy(), AuthSucceeded("alice"))
    assert peer.requests == []
    assert peer.end == Terminated(
        TerminationCause.NOT_AGREED, "encryption is required, and only MS-CHAPv2 leaves keys for it"
    )
    with pytest.raises(PeerViolation):
        peer.ask(H | S)
    peer.ccp.protocol_rejected(0)
    peer.ccp.lower_down(0)
    peer.ccp.handle_timeout(1)
    assert (peer.ccp.transmits(), peer.ccp.deadline(), peer.ccp.opened) == ([], None, False)


def test_an_optional_one_without_keys_rejects() -> None:
    peer = Peer(CcpPolicy(required=False), AuthSucceeded("alice"))
    assert peer.requests == [None]
    assert peer.ask(H | S) == (REJECT, H | S)
    peer.answer(ACK)
    assert peer.ask() == (ACK, None)
    assert peer.happened == [EncryptionUp(Protocol.MPPE, None, None)]


def test_policies_that_allow_nothing_are_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError):
        CcpPolicy(strengths=frozenset())
    with pytest.raises(UsageError):
        CcpPolicy(stateless=False)

    def missing() -> None:
        raise LegacyCipherUnavailable("RC4")

    monkeypatch.setattr("pptp.ppp.ccp.require_legacy_ciphers", missing)
    with pytest.raises(LegacyCipherUnavailable):
        CcpPolicy()


def test_offers_in_words() -> None:
    assert describe(H | S | M | L) == "128-bit or 56-bit or 40-bit stateless"
    assert describe(L) == "40-bit stateful"
    assert describe(H | C) == "no encryption"


# Once it is open


def test_interop_38_a_new_negotiation_begins_with_the_start_keys() -> None:
    peer = Peer(CcpPolicy())
    first = peer.open(H | S, H | S)
    assert first.encryptor is not None
    before = [first.encryptor.encrypt(IPV4, IP_PACKET) for _ in range(3)]
    assert peer.ask(H | S) == (ACK, H | S)
    assert peer.happened[-1] == NetworkDown(Protocol.MPPE)
    assert not peer.ccp.opened
    peer.answer(ACK)
    again = peer.happened[-1]
    assert isinstance(again, EncryptionUp)
    assert again.encryptor is not None
    assert again.encryptor is not first.encryptor
    assert [again.encryptor.encrypt(IPV4, IP_PACKET) for _ in range(3)] == before


def test_interop_38_a_repeated_request_changes_no_key() -> None:
    peer = Peer(CcpPolicy())
    peer.open(H | S, H | S)
    happened = list(peer.happened)
    assert peer.ask(H | S, identifier=peer.identifier) == (ACK, H | S)
    assert peer.happened == happened
    assert peer.ccp.opened


def test_interop_42_a_reset_request_is_acknowledged_and_the_next_packet_is_a_flag_packet() -> None:
    peer = Peer(CcpPolicy(stateful=True))
    up = peer.open(H | S, S)
    assert up.encryptor is not None
    up.encryptor.encrypt(IPV4, IP_PACKET)
    for identifier in (7, 7, 8):
        peer.say(CpPacket(Code.RESET_REQUEST, identifier, b"some peers say more"))
        assert peer.others[-1] == CpPacket(Code.RESET_ACK, identifier)
    assert up.encryptor.encrypt(IPV4, IP_PACKET)[:2] == b"\x90\xff"
    assert up.encryptor.encrypt(IPV4, IP_PACKET)[:2] == b"\x11\x00"


def test_interop_42_a_loss_is_reported_four_times_a_second_while_packets_are_lost() -> None:
    peer = Peer(CcpPolicy(stateful=True))
    up = peer.open(S, H | S)
    sender = Peer(CcpPolicy(stateful=True), AuthSucceeded("y", RECEIVE, SEND)).open(H | S, S).encryptor
    assert sender is not None
    assert up.decryptor is not None
    peer.now = 5.0
    sender.encrypt(IPV4, IP_PACKET)  # lost
    requests = []
    for tick in range(21):
        peer.now = 5 + tick / 20
        with pytest.raises(DropError):
            up.decryptor.decrypt(sender.encrypt(IPV4, IP_PACKET))
        deadline = peer.ccp.deadline()
        assert deadline is not None
        if deadline <= peer.now:
            peer.others.clear()
            peer.ccp.handle_timeout(peer.now)
            peer.hear()
            requests += [(peer.now, packet.code, packet.data) for packet in peer.others]
    assert [(round(at, 6), code, data) for at, code, data in requests] == [
        (at, Code.RESET_REQUEST, b"") for at in (5.0, 5.25, 5.5, 5.75, 6.0)
    ]
    sender.flush()
    up.decryptor.decrypt(sender.encrypt(IPV4, IP_PACKET))
    assert peer.ccp.deadline() is None
    peer.say(CpPacket(Code.RESET_ACK, 1))  # late, and saying nothing new
    assert peer.ccp.opened


def test_interop_42_a_loss_without_further_packets_is_reported_once() -> None:
    """A peer that has nothing to say is not asked for ever."""
    peer = Peer(CcpPolicy(stateful=True))
    up = peer.open(S, S)
    assert up.decryptor is not None
    with pytest.raises(DropError):
        up.decryptor.decrypt(b"\x10\x05" + bytes(30))
    peer.wait()
    assert peer.others[-1].code == Code.RESET_REQUEST
    assert peer.ccp.deadline() is None


@pytest.mark.parametrize("code", [Code.RESET_REQUEST, Code.RESET_ACK])
def test_resets_of_what_is_not_open_are_violations(code: Code) -> None:
    peer = Peer(CcpPolicy())
    with pytest.raises(PeerViolation):
        peer.say(CpPacket(code, 1))
    assert peer.others == []


def test_a_peer_that_terminates_is_named_with_its_offer() -> None:
    peer = Peer(CcpPolicy())
    peer.open(H | S, H | S)
    peer.say(CpPacket(Code.TERMINATE_REQUEST, 9, b"no more"))
    assert peer.happened[-1] == NetworkDown(Protocol.MPPE)
    peer.wait()
    assert peer.end.cause is TerminationCause.PEER_REQUEST
    assert "no more" in peer.end.detail


def test_any_octets_raise_nothing_but_wire_errors_and_violations() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        peer = Peer(CcpPolicy(required=seed % 2 == 0, strengths=ALL, stateful=True))
        for step in range(30):
            options = b"".join(
                bytes((dice.choice((1, 17, 18, 26)), length)) + dice.randbytes(dice.choice((length - 2, 4)))
                for length in (dice.choice((0, 1, 2, 5, 6, 7)),)
                if length > 1
            )
            code = dice.randrange(17)
            information = bytes((code, dice.randrange(4))) + (4 + len(options)).to_bytes(2, "big") + options
            if dice.random() < 0.1:
                information = information[: dice.randrange(len(information) + 1)]
            try:
                peer.ccp.receive(information, step)
            except (WireError, PeerViolation):
                continue
            except Exception as error:
                raise AssertionError(f"seed {seed}: {information.hex()}") from error
            peer.ccp.handle_timeout(step)
            peer.hear()
