"""LCP: the link's own negotiation, and the packets that keep, test and describe it (RFC 1661 section 5, RFC 1570)."""

from __future__ import annotations

from enum import Enum, auto

from pptp.errors import Terminated, TerminationCause, UsageError
from pptp.machine import earliest
from pptp.ppp.automaton import Action, Event, State
from pptp.ppp.lcp_options import LcpOptions, LcpPolicy, lcp_rules
from pptp.ppp.negotiation import (
    Entropy,
    LayerDown,
    LayerEvent,
    LayerFinished,
    LayerUp,
    Negotiation,
    Retransmission,
)
from pptp.timers import Timers
from pptp.value import value
from pptp.wire.cp import (
    PACKET_HEADER,
    Code,
    CpPacket,
    MagicBody,
    ProtocolRejectBody,
    build_magic,
    build_protocol_reject,
    parse_magic,
    parse_protocol_reject,
    parse_time_remaining,
    parse_vendor_specific,
    printable,
)
from pptp.wire.ppp import DEFAULT_MRU, Protocol

# RFC 1661 section 5.7, 6.4
_PROTOCOL_OCTETS = 2
_MAGIC_OCTETS = 4


@value
class EchoReplied:
    """An Echo-Request of ours was answered, after ``rtt`` seconds."""

    identifier: int
    rtt: float


@value
class PeerIdentified:
    """The peer described itself (RFC 1570 section 2.1); ``text`` is escaped."""

    text: str


@value
class PeerTimeRemaining:
    """The peer announced the end of the session in ``seconds`` (RFC 1570 section 2.2); ``text`` is escaped."""

    seconds: int
    text: str


@value
class ProtocolRejected:
    """The peer does not know ``protocol``."""

    protocol: int


LcpEvent = LayerEvent | EchoReplied | PeerIdentified | PeerTimeRemaining | ProtocolRejected


class _Timer(Enum):
    ECHO = auto()


class Lcp:
    """The link control protocol of one link; a machine whose packets go out as :class:`CpPacket`."""

    __slots__ = ("_echo", "_events", "_negotiation", "_policy", "_timers", "_unanswered")

    def __init__(
        self,
        policy: LcpPolicy,
        *,
        demanded: tuple[bytes, ...],
        answerable: tuple[bytes, ...],
        retransmission: Retransmission,
        entropy: Entropy,
    ) -> None:
        """``demanded`` and ``answerable`` are Authentication-Protocol values: of the peer, the best first; by us."""
        self._policy = policy
        rules = lcp_rules(
            policy,
            demanded=demanded,
            answerable=answerable,
            max_failure=retransmission.max_failure,
            entropy=entropy,
        )
        self._negotiation = Negotiation("LCP", rules, retransmission)
        self._timers: Timers[_Timer] = Timers()
        self._events: list[LcpEvent] = []
        self._echo: tuple[int, float] | None = None  # identifier and time of the Echo-Request that is out
        self._unanswered = 0

    @property
    def state(self) -> State:
        """Where the automaton stands."""
        return self._negotiation.state

    @property
    def opened(self) -> bool:
        """Whether the link is established."""
        return self._negotiation.opened

    @property
    def ending(self) -> Terminated | None:
        """Why the link is being ended, by us or by the peer; None while it is not."""
        return self._negotiation.ending

    @property
    def local(self) -> LcpOptions:
        """What we asked for and the peer acknowledged, once opened."""
        return LcpOptions.of(self._negotiation.options.local)

    @property
    def remote(self) -> LcpOptions:
        """What the peer asked for and we acknowledged."""
        return LcpOptions.of(self._negotiation.options.remote)

    def open(self, now: float) -> None:
        """Be ready for a link; in Opened, renegotiate it."""
        self._fire(Event.OPEN, now)

    def lower_up(self, now: float) -> None:
        """Frames can be sent: begin."""
        self._fire(Event.UP, now)

    def lower_down(self, now: float) -> None:
        """Frames can be sent no longer."""
        self._fire(Event.DOWN, now)

    def close(self, now: float, reason: Terminated) -> None:
        """Terminate the link."""
        self._negotiation.close(now, reason)
        self._follow(now)

    def transmits(self) -> list[CpPacket]:
        """Drain what is to be sent, oldest first."""
        return self._negotiation.transmits()

    def events(self) -> list[LcpEvent]:
        """Drain what happened, oldest first."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When ``handle_timeout`` is wanted next, or ``None``."""
        return earliest(self._negotiation.deadline(), self._timers.deadline())

    def handle_timeout(self, now: float) -> None:
        """Act on the restart timer and on the echo timer."""
        self._negotiation.handle_timeout(now)
        self._follow(now)
        for _ in self._timers.pop_expired(now):
            self._echo_due(now)

    def receive(self, packet: CpPacket, now: float) -> None:
        """Take one packet; raises :class:`WireError` for a body that is not what its code says."""
        match packet.code:
            case Code.PROTOCOL_REJECT:
                self._protocol_rejected(parse_protocol_reject(packet.data), now)
            case Code.ECHO_REQUEST:
                self._echo_requested(packet, now)
            case Code.ECHO_REPLY:
                self._echo_replied(packet, now)
            case Code.DISCARD_REQUEST:
                parse_magic(packet.data)
                self._fire(Event.ECHO_OR_DISCARD, now)
            case Code.IDENTIFICATION:
                self._events.append(PeerIdentified(printable(parse_magic(packet.data).data)))
            case Code.TIME_REMAINING:
                remaining = parse_time_remaining(packet.data)
                self._events.append(PeerTimeRemaining(remaining.seconds, printable(remaining.message)))
            case Code.VENDOR_SPECIFIC:
                # Deviation: RFC 2153 section 2.1 wants a Code-Reject for an unknown vendor; ours travel in the
                # clear beside the link, and nobody is to learn from an answer that something listens.
                parse_vendor_specific(packet.data)
            case _:
                self._negotiation.receive(packet, now)
        self._follow(now)

    def heard(self) -> None:
        """Any frame of the peer shows that it lives."""
        self._unanswered = 0

    def send_echo(self, now: float) -> int:
        """Send an Echo-Request and return its identifier; only the latest one is measured.

        Raises :class:`UsageError` where the link is not opened (RFC 1661 section 5.8).
        """
        if not self.opened:
            raise UsageError("LCP Echo-Request before the link is opened")
        body = build_magic(MagicBody(self.local.magic_number))
        identifier = self._negotiation.send_numbered(Code.ECHO_REQUEST, body)
        self._echo = (identifier, now)
        return identifier

    def reject_protocol(self, protocol: int, information: bytes) -> None:
        """Tell the peer that ``protocol`` is not spoken here, quoting as much as fits its MRU (section 5.7)."""
        room = max(0, self._negotiation.peer_mru - PACKET_HEADER - _PROTOCOL_OCTETS)
        body = build_protocol_reject(ProtocolRejectBody(protocol, information[:room]))
        self._negotiation.send_numbered(Code.PROTOCOL_REJECT, body)

    def _fire(self, event: Event, now: float) -> tuple[Action, ...]:
        actions = self._negotiation.fire(event, now)
        self._follow(now)
        return actions

    def _follow(self, now: float) -> None:
        """Take over the negotiation's events, and do LCP's own part of each."""
        for event in self._negotiation.events():
            match event:
                case LayerUp():
                    self._negotiation.peer_mru = self.remote.mru
                    self._unanswered = 0
                    self._arm_echo(now)
                case LayerDown() | LayerFinished():
                    self._negotiation.peer_mru = DEFAULT_MRU
                    self._echo = None
                    self._timers.stop_all()
            self._events.append(event)

    def _protocol_rejected(self, body: ProtocolRejectBody, now: float) -> None:
        """Discarded in any state but Opened (RFC 1661 section 5.7)."""
        if not self._negotiation.opened:
            return
        if body.protocol == Protocol.LCP:
            self._negotiation.refused(now, "the peer rejects LCP itself")
            return
        self._fire(Event.REJECT_PERMITTED, now)
        self._events.append(ProtocolRejected(body.protocol))

    def _echo_requested(self, packet: CpPacket, now: float) -> None:
        """Answer in Opened alone, with our magic number, and no longer than the peer can receive (section 5.8)."""
        body = parse_magic(packet.data)
        if Action.SEND_ECHO_REPLY not in self._fire(Event.ECHO_OR_DISCARD, now):
            return
        reply = build_magic(MagicBody(self.local.magic_number, body.data))
        room = max(_MAGIC_OCTETS, self._negotiation.peer_mru - PACKET_HEADER)
        self._negotiation.send(CpPacket(Code.ECHO_REPLY, packet.identifier, reply[:room]))

    def _echo_replied(self, packet: CpPacket, now: float) -> None:
        """The magic number is not looked at: peers that did not negotiate one send what they please."""
        parse_magic(packet.data)
        self._fire(Event.ECHO_OR_DISCARD, now)
        if self._echo is None or self._echo[0] != packet.identifier:
            return
        self._events.append(EchoReplied(packet.identifier, now - self._echo[1]))
        self._echo = None
        self._unanswered = 0

    def _arm_echo(self, now: float) -> None:
        if self._policy.echo_interval is not None:
            self._timers.arm(_Timer.ECHO, now + self._policy.echo_interval)

    def _echo_due(self, now: float) -> None:
        failures = self._policy.echo_failures
        if failures and self._unanswered >= failures:
            silence = f"{self._unanswered} LCP Echo-Requests without an answer"
            self.close(now, Terminated(TerminationCause.PEER_SILENT, silence))
            return
        self._unanswered += 1
        self.send_echo(now)
        self._arm_echo(now)
