"""CCP: which direction of a link MPPE encrypts, how strongly and how (RFC 1962, RFC 3078 section 2, RFC 2118).

A Configure-Request says what its sender can decrypt. So what we ask for is our receiving direction, what the peer asks
for our sending one, and the two may end differently. To refuse MPPE altogether, leave :class:`CcpPolicy` out of the
link: CCP is then answered with Protocol-Reject.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pptp.crypto.legacy import require_legacy_ciphers
from pptp.crypto.mppe import MppeDecryptor, MppeEncryptor, MppeMode
from pptp.crypto.mppe_keys import START_KEY_SIZE, Strength
from pptp.errors import PeerViolation, Terminated, TerminationCause, UsageError
from pptp.machine import earliest
from pptp.ppp.auth import AuthSucceeded
from pptp.ppp.automaton import Event
from pptp.ppp.control_protocol import LinkContext, NetworkDown, NetworkEvent, NetworkFinished, NetworkUp
from pptp.ppp.negotiation import LayerDown, LayerFinished, LayerUp, Negotiation
from pptp.ppp.options import Ack, Nak, Rej, Rule, Verdict
from pptp.value import value
from pptp.wire.cp import Code, CpPacket, build_packet, parse_packet
from pptp.wire.ppp import Protocol

# RFC 3078 section 2, RFC 2118 section 4
OPTION_MPPE = 18
_OCTETS = 4
BIT_STATELESS = 0x01000000  # H
BIT_56 = 0x00000080  # M
BIT_128 = 0x00000040  # S
BIT_40 = 0x00000020  # L
BIT_OBSOLETE = 0x00000010  # D
BIT_MPPC = 0x00000001  # C
_STRENGTHS = {Strength.BITS_128: BIT_128, Strength.BITS_56: BIT_56, Strength.BITS_40: BIT_40}  # the strongest first

# ours, because everything is lost until a Reset-Request arrives, and one too many costs a change of key
_RESET_TIMER = 0.25  # seconds


@value
class EncryptionUp(NetworkUp):
    """CCP is open: these are the directions' keys, new ones each time. ``None``: that direction stays clear."""

    encryptor: MppeEncryptor | None
    decryptor: MppeDecryptor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CcpPolicy:
    """What MPPE may be.

    With ``required`` both directions are encrypted or the link ends; without, each that the peer wants to be.
    ``stateless`` and ``stateful`` allow these modes; of both, stateless is what we ask for. Raises
    :class:`UsageError` where nothing is allowed, :class:`LegacyCipherUnavailable` where this machine has no RC4.
    """

    required: bool = True
    strengths: frozenset[Strength] = frozenset({Strength.BITS_128})
    stateless: bool = True
    stateful: bool = False

    def __post_init__(self) -> None:
        """Refuse a policy under which nothing can be agreed."""
        if not self.strengths or not (self.stateless or self.stateful):
            raise UsageError("MPPE needs at least one strength and one mode; to refuse it, leave CCP out")
        require_legacy_ciphers()

    @property
    def protocol(self) -> int:
        """CCP."""
        return Protocol.CCP

    @property
    def data_protocol(self) -> int:
        """Compressed datagram."""
        return Protocol.MPPE

    @property
    def essential(self) -> bool:
        """The link ends without encryption where it is required (RFC 3078 section 2)."""
        return self.required

    def begin(self, context: LinkContext, now: float) -> Ccp:
        """Start negotiating, with the first keys that the authentication left."""
        return Ccp(self, context, now)


class Ccp:
    """CCP of one link, from its Open on; a :class:`~pptp.ppp.control_protocol.ControlProtocol`."""

    def __init__(self, policy: CcpPolicy, context: LinkContext, now: float) -> None:
        self._keys = next((left for left in context.authentications if _has_keys(left)), None)
        self._rule = _MppeRule(policy, usable=self._keys is not None)
        self._negotiation = Negotiation("CCP", [self._rule], context.retransmission)
        self._negotiation.peer_mru = context.remote.mru
        self._encryptor: MppeEncryptor | None = None
        self._decryptor: MppeDecryptor | None = None
        self._next_reset = now  # no Reset-Request before
        self._negotiation.fire(Event.OPEN, now)
        self._begun = self._keys is not None or not policy.required
        if self._begun:
            self._negotiation.fire(Event.UP, now)
        else:
            why = "encryption is required, and only MS-CHAPv2 leaves keys for it"
            self._negotiation.close(now, Terminated(TerminationCause.NOT_AGREED, why))

    @property
    def opened(self) -> bool:
        """Whether MPPE packets may be sent and taken."""
        return self._negotiation.opened

    def receive(self, information: bytes, now: float) -> None:
        """Take one packet; raises :class:`WireError`, :class:`PeerViolation` for a reset of what is not open."""
        packet = parse_packet(information)
        if not self._begun:
            raise PeerViolation("CCP has ended before it began")
        if packet.code not in (Code.RESET_REQUEST, Code.RESET_ACK):
            self._negotiation.receive(packet, now)
        elif not self.opened:
            raise PeerViolation("a reset before CCP is open")
        elif packet.code == Code.RESET_REQUEST:
            if self._encryptor is not None:
                self._encryptor.flush()
            # RFC 1962 section 3 wants the Ack; RFC 3078 section 6 lets the flushed packet say it. Peers of both kinds
            # exist, and neither is hurt by the other's way. An Ack that we get says nothing that bit A does not.
            self._negotiation.send(CpPacket(Code.RESET_ACK, packet.identifier))

    def protocol_rejected(self, now: float) -> None:
        """The peer does not know CCP."""
        if self._begun:
            self._negotiation.refused(now, "the peer does not encrypt: it rejects CCP")

    def lower_down(self, now: float) -> None:
        """LCP went down."""
        if self._begun:
            self._negotiation.fire(Event.DOWN, now)

    def transmits(self) -> list[bytes]:
        """Drain the packets to be sent, oldest first."""
        return [build_packet(packet) for packet in self._negotiation.transmits()]

    def events(self) -> list[NetworkEvent]:
        """Drain what happened, oldest first."""
        return [self._translate(event) for event in self._negotiation.events()]

    def deadline(self) -> float | None:
        """When ``handle_timeout`` is wanted next; in the past when the decryptor has lost its place."""
        return earliest(self._negotiation.deadline(), self._next_reset if self._reset_wanted else None)

    def handle_timeout(self, now: float) -> None:
        """Act on the restart timer, and ask for a reset where one is wanted."""
        self._negotiation.handle_timeout(now)
        if self._decryptor is not None and self._reset_wanted and now >= self._next_reset:
            self._decryptor.reset_wanted = False  # it wants another with the next packet that it cannot read
            self._next_reset = now + _RESET_TIMER
            self._negotiation.send_numbered(Code.RESET_REQUEST, b"")

    @property
    def _reset_wanted(self) -> bool:
        return self._decryptor is not None and self._decryptor.reset_wanted

    def _translate(self, event: LayerUp | LayerDown | LayerFinished) -> NetworkEvent:
        match event:
            case LayerUp():
                return self._key()
            case LayerDown():
                self._encryptor = self._decryptor = None
                return NetworkDown(Protocol.MPPE)
            case LayerFinished(reason):
                offers = f"{reason.detail}; {self._rule.offers}" if self._begun else reason.detail
                return NetworkFinished(Protocol.MPPE, Terminated(reason.cause, offers))

    def _key(self) -> EncryptionUp:
        """Both directions begin from their start keys, also when CCP comes up again (RFC 3079 section 3)."""
        options, keys = self._negotiation.options, self._keys
        self._encryptor = self._decryptor = None
        if keys is not None and (mode := _agreed(options.remote)) is not None:
            self._encryptor = MppeEncryptor(keys.send_key, mode)
        if keys is not None and (mode := _agreed(options.local)) is not None:
            self._decryptor = MppeDecryptor(keys.receive_key, mode)
        return EncryptionUp(Protocol.MPPE, self._encryptor, self._decryptor)


class _MppeRule(Rule):
    """MPPE's option, from both sides (RFC 3078 section 2)."""

    type = OPTION_MPPE
    name = "MPPE option"

    def __init__(self, policy: CcpPolicy, *, usable: bool) -> None:
        self._policy = policy
        self._usable = usable
        allowed = [bit for strength, bit in _STRENGTHS.items() if strength in policy.strengths]
        self._allowed = sum(allowed)
        self._strongest = allowed[0]
        self._mode = BIT_STATELESS if policy.stateless else 0
        self._heard: int | None = None

    @property
    def offers(self) -> str:
        """What we want and what the peer said last, in words."""
        theirs = "names none" if self._heard is None else f"wants {describe(self._heard)}"
        return f"we want {describe(self._allowed | self._mode)}, the peer {theirs}"

    def required_locally(self) -> bool:
        return self._policy.required

    def required_remotely(self) -> bool:
        return self._policy.required

    def want(self) -> bytes | None:
        """All strengths at once: a peer picks the strongest it has by Nak (RFC 3078 section 2)."""
        return _pack(self._allowed | self._mode) if self._usable else None

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        """Take of a Nak the strongest that we allow; of the mode, what we allow."""
        if len(suggested) != _OCTETS or not self._usable:
            return None
        bits = self._heard = int.from_bytes(suggested, "big")
        if bits & self._allowed:
            return _pack(self._pick(bits))
        if self._policy.required:
            raise PeerViolation("the peer suggests no encryption that is allowed here")
        return None

    def agreed(self, value: bytes | None) -> None:
        if value is not None and int.from_bytes(value, "big") & self._allowed not in _STRENGTHS.values():
            raise PeerViolation("the peer agrees to several strengths of encryption at once")

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        """Take a request for one strength and one mode that are allowed, else suggest the strongest that is.

        It is never rejected for what is in it: whoever asks for nothing, or for MPPC too, is told by Nak what there
        is, and asks for that.
        """
        if not self._usable:
            return Rej()
        if len(value) != _OCTETS:
            return Nak(_pack(self._strongest | self._mode))
        bits = self._heard = int.from_bytes(value, "big")
        best = self._pick(bits)
        return Ack() if bits == best else Nak(_pack(best))

    def missing(self) -> bytes | None:
        return _pack(self._strongest | self._mode) if self._policy.required else None

    def _pick(self, bits: int) -> int:
        """The strongest of the strengths in ``bits`` that is allowed, or that is allowed at all; likewise the mode."""
        common = bits & self._allowed
        strength = next((bit for bit in _STRENGTHS.values() if bit & common), self._strongest)
        wanted = bits & BIT_STATELESS
        return strength | (wanted if self._allows(wanted) else self._mode)

    def _allows(self, mode: int) -> bool:
        return self._policy.stateless if mode else self._policy.stateful


def describe(bits: int) -> str:
    """MPPE's supported bits in words, for logs."""
    strengths = [f"{strength}-bit" for strength, bit in _STRENGTHS.items() if bits & bit]
    if not strengths:
        return "no encryption"
    return " or ".join(strengths) + (" stateless" if bits & BIT_STATELESS else " stateful")


def _has_keys(left: AuthSucceeded) -> bool:
    return len(left.send_key) == len(left.receive_key) == START_KEY_SIZE


def _agreed(options: Mapping[int, bytes]) -> MppeMode | None:
    """What the options of one direction agree on."""
    value = options.get(OPTION_MPPE)
    if value is None:
        return None
    bits = int.from_bytes(value, "big")
    strength = next(strength for strength, bit in _STRENGTHS.items() if bits & bit)
    return MppeMode(strength, bool(bits & BIT_STATELESS))


def _pack(bits: int) -> bytes:
    return bits.to_bytes(_OCTETS, "big")
