"""Option negotiation, the same for every control protocol (RFC 1661 sections 4 and 5).

A :class:`Negotiation` joins the automaton, the options, the restart timer and counter, and the packets of codes 1 to
7. LCP and the network control protocols own one each; what only they know (Echo, Protocol-Reject, CCP's resets)
stays with them, and reaches the automaton through :meth:`Negotiation.fire`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import assert_never

from pptp.errors import PeerViolation, Terminated, TerminationCause, WireCause, WireError
from pptp.ppp.automaton import Action, Automaton, Event, State
from pptp.ppp.options import Options, Reply, Rule
from pptp.timers import Timers
from pptp.value import value
from pptp.wire.cp import PACKET_HEADER, Code, CpPacket, build_packet, printable
from pptp.wire.ppp import DEFAULT_MRU

Entropy = Callable[[int], bytes]

# RFC 1661 section 4.6
RESTART_TIMER = 3.0  # seconds
MAX_TERMINATE = 2
MAX_CONFIGURE = 10
MAX_FAILURE = 5

# ours, because a peer whose restart timer is the default repeats a request three times in it
REPEAT_WINDOW = 10.0  # seconds


@value
class Retransmission:
    """Timers and counters that RFC 1661 section 4.6 wants configurable. Seconds, and numbers of packets."""

    restart_timer: float = RESTART_TIMER
    max_terminate: int = MAX_TERMINATE
    max_configure: int = MAX_CONFIGURE
    max_failure: int = MAX_FAILURE


@value
class LayerUp:
    """This-Layer-Up: the options are agreed."""


@value
class LayerDown:
    """This-Layer-Down: the options hold no longer; a new negotiation may follow."""


@value
class LayerFinished:
    """This-Layer-Finished: there will be no further attempt of ours, and why."""

    reason: Terminated


LayerEvent = LayerUp | LayerDown | LayerFinished


class _Timer(Enum):
    RESTART = auto()


# RFC 1661 section 4.2: the states in which a restart timer runs, those in which our options are under negotiation,
# and those in which a Configure-Request is examined (in the others the table's two columns are the same)
_TIMED = frozenset({State.CLOSING, State.STOPPING, State.REQ_SENT, State.ACK_RCVD, State.ACK_SENT})
_NEGOTIATING = frozenset({State.REQ_SENT, State.ACK_RCVD, State.ACK_SENT})
_REVIEWING = _NEGOTIATING | {State.STOPPED, State.OPENED}

# ours, because these help whoever runs the other end, and say nothing to one who has not authenticated
_TOLD = frozenset(
    {
        TerminationCause.NOT_AGREED,
        TerminationCause.POOL_EXHAUSTED,
        TerminationCause.LIMIT_REACHED,
        TerminationCause.DENIED,
        TerminationCause.REPLACED,
        TerminationCause.TIMEOUT,
    }
)

# for events that no packet causes: none of them has an action that answers one
_NO_PACKET = CpPacket(Code.TERMINATE_ACK, 0)


class Negotiation:
    """One control protocol's negotiation; a machine whose packets go out as :class:`CpPacket`.

    ``peer_mru`` bounds what a Code-Reject quotes; its owner sets it once LCP knows better. Commands and ``receive``
    raise :class:`UsageError` where the automaton calls them illegal, which an owner that tells it of Up and Open first
    never sees. After :class:`LayerFinished` the negotiation answers as the table says but starts nothing.
    """

    __slots__ = (
        "_acknowledged",
        "_answered",
        "_automaton",
        "_codes",
        "_events",
        "_heard",
        "_identifier",
        "_naks_received",
        "_naks_sent",
        "_out",
        "_peer_reason",
        "_reason",
        "_refusals_received",
        "_refusals_sent",
        "_reply",
        "_request",
        "_restarts",
        "_retransmission",
        "_terminate",
        "_timers",
        "_unready",
        "name",
        "options",
        "peer_mru",
    )

    def __init__(self, name: str, rules: Iterable[Rule], retransmission: Retransmission) -> None:
        self.name = name
        self.options = Options.of(rules)
        self.peer_mru = DEFAULT_MRU
        self._retransmission = retransmission
        self._automaton = Automaton(restart=True)
        self._timers: Timers[_Timer] = Timers()
        self._out: list[CpPacket] = []
        self._events: list[LayerEvent] = []
        self._restarts = 0
        self._identifier = 0
        self._request: CpPacket | None = None  # our last Configure-Request
        self._answered = False  # whether it has had its one answer
        self._unready = False  # whether it reached a peer that had not begun
        self._terminate: CpPacket | None = None  # our last Terminate-Request
        self._reply = Reply(Code.CONFIGURE_ACK, b"", {})  # the answer that sca or scn will send
        self._acknowledged: tuple[CpPacket, float] | None = None  # the request we acknowledged last, and when
        self._heard = 0  # packets since the last Up
        self._reason: Terminated | None = None
        self._peer_reason: str | None = None  # what a Terminate-Request said
        self._naks_sent = self._refusals_sent = 0  # without a Configure-Ack of ours between them
        self._naks_received = self._refusals_received = 0  # without one of the peer's

    @property
    def state(self) -> State:
        """Where the automaton stands."""
        return self._automaton.state

    @property
    def opened(self) -> bool:
        """Whether the options are agreed."""
        return self.state is State.OPENED

    def transmits(self) -> list[CpPacket]:
        """Drain what is to be sent, oldest first."""
        drained, self._out = self._out, []
        return drained

    def events(self) -> list[LayerEvent]:
        """Drain what happened, oldest first."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When the restart timer runs out, or ``None``."""
        return self._timers.deadline()

    def handle_timeout(self, now: float) -> None:
        """Send again, or give up."""
        for _ in self._timers.pop_expired(now):
            self.fire(Event.TIMEOUT if self._restarts > 0 else Event.TIMEOUT_EXPIRED, now)

    def close(self, now: float, reason: Terminated) -> None:
        """The owner wants an end; the first reason given is the one reported."""
        self._reason = self._reason or reason
        self.fire(Event.CLOSE, now)

    def refused(self, now: float, detail: str) -> None:
        """The peer rejected the protocol, or a code without which it cannot run."""
        self._reason = self._reason or Terminated(TerminationCause.REFUSED, detail)
        self.fire(Event.REJECT_CATASTROPHIC, now)

    def receive(self, packet: CpPacket, now: float) -> None:
        """Take one packet. Raises :class:`WireError` for a body that is not what its code says; nothing changes then.

        An answer that does not match our last request is ignored, as is a second answer to the same request.
        """
        self._heard += 1
        try:
            match packet.code:
                case Code.CONFIGURE_REQUEST:
                    self._configure_request(packet, now)
                case Code.CONFIGURE_ACK | Code.CONFIGURE_NAK | Code.CONFIGURE_REJECT:
                    self._configure_answer(packet, now)
                case Code.TERMINATE_REQUEST:
                    self._peer_reason = printable(packet.data)
                    self.fire(Event.TERMINATE_REQUEST, now, packet)
                case Code.TERMINATE_ACK:
                    self._note_unready(packet)
                    self.fire(Event.TERMINATE_ACK, now, packet)
                case Code.CODE_REJECT:
                    self._code_reject(packet, now)
                case _:
                    self.fire(Event.UNKNOWN_CODE, now, packet)
        except PeerViolation as violation:
            self.close(now, Terminated(TerminationCause.NOT_AGREED, f"{self.name}: {violation}"))

    def send_numbered(self, code: int, data: bytes) -> int:
        """Send a packet under a new identifier, which is returned."""
        self._identifier = (self._identifier + 1) & 0xFF
        self._out.append(CpPacket(code, self._identifier, data))
        return self._identifier

    def send(self, packet: CpPacket) -> None:
        """Send a packet that answers another."""
        self._out.append(packet)

    def fire(self, event: Event, now: float, packet: CpPacket = _NO_PACKET) -> tuple[Action, ...]:
        """Move the automaton and carry out what it asks for; ``packet`` is what caused the event, if one did.

        Raises :class:`UsageError`, with nothing changed, for an event that the table calls illegal.
        """
        before = self.state
        actions = self._automaton.fire(event)
        if Action.SEND_CONFIGURE_REQUEST in actions and before not in _NEGOTIATING:
            self.options.restart()
            self._forget_counts()
        if event is Event.UP:
            self._heard = 0
            self._reason = None
        if Action.INITIALIZE_RESTART_COUNT in actions:
            terminating = Action.SEND_TERMINATE_REQUEST in actions
            counts = self._retransmission
            self._restarts = counts.max_terminate if terminating else counts.max_configure
        for action in actions:
            self._act(action, now, packet)
        if self.state not in _TIMED:
            self._timers.stop(_Timer.RESTART)
        return actions

    def _act(self, action: Action, now: float, packet: CpPacket) -> None:
        match action:
            case Action.THIS_LAYER_UP:
                self._peer_reason = None
                self._events.append(LayerUp())
            case Action.THIS_LAYER_DOWN:
                self._events.append(LayerDown())
            case Action.THIS_LAYER_FINISHED:
                self._events.append(LayerFinished(self._why_finished()))
            case Action.ZERO_RESTART_COUNT:
                self._restarts = 0
                self._timers.arm(_Timer.RESTART, now + self._retransmission.restart_timer)
            case Action.SEND_CONFIGURE_REQUEST:
                self._send_configure_request(now)
            case Action.SEND_CONFIGURE_ACK | Action.SEND_CONFIGURE_NAK_OR_REJECT:
                self._send_reply(packet, now)
            case Action.SEND_TERMINATE_REQUEST:
                self._send_terminate_request(now)
            case Action.SEND_TERMINATE_ACK:
                self._out.append(CpPacket(Code.TERMINATE_ACK, packet.identifier))
            case Action.SEND_CODE_REJECT:
                self.send_numbered(Code.CODE_REJECT, build_packet(packet)[: self._room()])
            case (
                Action.THIS_LAYER_STARTED  # the owner brings the lower layer up by itself
                | Action.INITIALIZE_RESTART_COUNT  # done before the first packet that counts
                | Action.SEND_ECHO_REPLY  # LCP's own business
            ):
                pass
            case _:
                assert_never(action)

    # What we ask for

    def _send_configure_request(self, now: float) -> None:
        """RFC 1661 section 5.1: the identifier changes with the contents, and after an answer; else it stays."""
        data = self.options.request()
        if self._request is None or self._answered or self._request.data != data:
            self._identifier = (self._identifier + 1) & 0xFF
            self._request = CpPacket(Code.CONFIGURE_REQUEST, self._identifier, data)
            self._answered = False
        self._unready = False
        self._out.append(self._request)
        self._count_restart(now)

    def _configure_answer(self, packet: CpPacket, now: float) -> None:
        """Ack, Nak or Reject of our last request.

        Deviation: the table restarts the negotiation on a second answer in Ack-Rcvd or Opened (footnote x). A network
        that duplicates packets makes such answers daily, so that only the first answer to a request counts.
        """
        if self.state in (State.CLOSED, State.STOPPED):
            good = packet.code == Code.CONFIGURE_ACK
            self.fire(Event.CONFIGURE_ACK if good else Event.CONFIGURE_NAK_OR_REJECT, now, packet)
            return
        request = self._request
        if self.state not in _NEGOTIATING or request is None or self._answered:
            return
        if packet.identifier != request.identifier:
            return
        if packet.code == Code.CONFIGURE_ACK:
            if packet.data != request.data:
                raise WireError("Configure-Ack", WireCause.BAD_VALUE, "not what was asked, octet for octet")
            self.options.acknowledged()
            self._naks_received = self._refusals_received = 0
        elif packet.code == Code.CONFIGURE_NAK:
            self._naks_received += 1
            converging = self._naks_received <= self._retransmission.max_failure
            take = self.options.take_naks if converging else self.options.drop_countered
            take(packet.data)
            self._refusals_received += 1
        else:
            self.options.take_rejects(packet.data)
            self._refusals_received += 1
        self._answered = True
        self._check_patience(self._refusals_received, "the peer refuses whatever we ask for")
        good = packet.code == Code.CONFIGURE_ACK
        self.fire(Event.CONFIGURE_ACK if good else Event.CONFIGURE_NAK_OR_REJECT, now, packet)

    # What the peer asks for

    def _configure_request(self, packet: CpPacket, now: float) -> None:
        if self._is_repeat(packet, now):
            self._out.append(CpPacket(Code.CONFIGURE_ACK, packet.identifier, packet.data))
            return
        if self.state not in _REVIEWING:
            self.fire(Event.CONFIGURE_REQUEST_GOOD, now, packet)
            return
        if self.state not in _NEGOTIATING:
            self._forget_counts()  # the request begins a new negotiation
        may_nak = self._naks_sent < self._retransmission.max_failure
        self._reply = self.options.review(packet.data, may_nak=may_nak)
        good = self._reply.code is Code.CONFIGURE_ACK
        if good:
            self._naks_sent = self._refusals_sent = 0
        else:
            self._naks_sent += self._reply.code is Code.CONFIGURE_NAK
            self._refusals_sent += 1
            self._check_patience(self._refusals_sent, "the peer insists on what it cannot have")
        self.fire(Event.CONFIGURE_REQUEST_GOOD if good else Event.CONFIGURE_REQUEST_BAD, now, packet)
        if self._unready and self._restarts > 0 and self.state in _NEGOTIATING:
            self._send_configure_request(now)

    def _note_unready(self, packet: CpPacket) -> None:
        """Remember that the peer was in Closed or Stopped when our request came.

        Deviation: the table goes on waiting for the restart timer. pppd answers IPCP so until CCP is open, then sends
        its own Configure-Request: that it is ready is then known, and our request goes out again at once.
        """
        request = self._request
        if self.state in _NEGOTIATING and request is not None and not self._answered:
            self._unready = packet.identifier == request.identifier

    def _is_repeat(self, packet: CpPacket, now: float) -> bool:
        """Whether the peer, in Opened, merely repeats the request that we have just acknowledged.

        Deviation: the table tears an open layer down for it. It only means that our Ack was lost or the request
        duplicated, so the Ack is sent again. A peer that did start anew with the same octets still repeats them after
        ``REPEAT_WINDOW``, and then gets what the table says.
        """
        if self._acknowledged is None or not self.opened:
            return False
        request, at = self._acknowledged
        return packet == request and now - at < REPEAT_WINDOW

    def _send_reply(self, packet: CpPacket, now: float) -> None:
        reply = self._reply
        if reply.code is Code.CONFIGURE_ACK:
            self.options.remote = reply.accepted
            self._acknowledged = (packet, now)
        self._out.append(CpPacket(reply.code, packet.identifier, reply.data))

    # The rest

    def _code_reject(self, packet: CpPacket, now: float) -> None:
        if not packet.data:
            raise WireError("Code-Reject", WireCause.TRUNCATED, "no rejected packet")
        code = packet.data[0]
        if Code.CONFIGURE_REQUEST <= code <= Code.CODE_REJECT:
            self.refused(now, f"{self.name}: the peer does not know code {code}")
        else:
            self.fire(Event.REJECT_PERMITTED, now, packet)

    def _send_terminate_request(self, now: float) -> None:
        if self._terminate is None or self._restarts == self._retransmission.max_terminate:
            self._identifier = (self._identifier + 1) & 0xFF
            self._terminate = CpPacket(Code.TERMINATE_REQUEST, self._identifier, self._farewell())
        self._out.append(self._terminate)
        self._count_restart(now)

    def _farewell(self) -> bytes:
        """What the peer is told, so that its log has it too: why options or guest did not suit; nothing of the rest."""
        if self._reason is None or self._reason.cause not in _TOLD:
            return b""
        return self._reason.detail.encode("ascii", "replace")[: self._room()]

    def _count_restart(self, now: float) -> None:
        self._restarts -= 1
        self._timers.arm(_Timer.RESTART, now + self._retransmission.restart_timer)

    def _room(self) -> int:
        """Octets of data that fit a packet of the peer's MRU."""
        return max(0, self.peer_mru - PACKET_HEADER)

    def _forget_counts(self) -> None:
        self._naks_sent = self._refusals_sent = 0
        self._naks_received = self._refusals_received = 0

    def _check_patience(self, refusals: int, what: str) -> None:
        """RFC 1661 leaves open when an exchange of refusals ends; here after Max-Failure and Max-Configure of them."""
        counts = self._retransmission
        if refusals > counts.max_failure + counts.max_configure:
            raise PeerViolation(what)

    @property
    def ending(self) -> Terminated | None:
        """Why this is being ended, by us or by the peer; None while it is not."""
        if self._reason is not None:
            return self._reason
        if self._peer_reason is not None:
            said = f": {self._peer_reason}" if self._peer_reason else ""
            return Terminated(TerminationCause.PEER_REQUEST, f"the peer ended {self.name}{said}")
        return None

    def _why_finished(self) -> Terminated:
        if self.ending is not None:
            return self.ending
        if not self._heard:
            return Terminated(TerminationCause.PEER_SILENT, f"no {self.name} packet arrived from the peer")
        return Terminated(
            TerminationCause.PEER_SILENT,
            f"{self.name}: packets of the peer arrive, but ours get no answer; they may not reach it",
        )
