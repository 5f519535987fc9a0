"""One PPP link: its phases, and which frame goes to which protocol in which phase (RFC 1661 section 3).

Created by whoever has a lower layer for it (a PPTP call, a sealed session), opened when that layer carries frames,
and dead for good after :class:`Terminated`, its last event.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from enum import Enum, StrEnum, auto
from types import MappingProxyType

from pptp.errors import Drop, PeerViolation, Terminated, TerminationCause, UsageError, WireCause, WireError
from pptp.machine import Machine, earliest
from pptp.ppp.auth import AuthFailed, AuthRefused, AuthSucceeded, Exchange
from pptp.ppp.automaton import State
from pptp.ppp.control_protocol import (
    ControlProtocol,
    LinkContext,
    NetworkDown,
    NetworkFinished,
    NetworkUp,
)
from pptp.ppp.lcp import EchoReplied, Lcp, PeerIdentified, PeerTimeRemaining, ProtocolRejected
from pptp.ppp.lcp_options import LcpOptions
from pptp.ppp.negotiation import Entropy, LayerDown, LayerFinished, LayerUp
from pptp.ppp.policy import LinkConfig
from pptp.timers import Timers
from pptp.value import value
from pptp.wire.cp import build_packet, parse_packet
from pptp.wire.ppp import DEFAULT_MRU, PppFrame, Protocol

# ours, because a peer that is one lost packet ahead sends at most this much before it waits for us
EARLY_FRAMES = 8


class Phase(StrEnum):
    """RFC 1661 section 3.2."""

    DEAD = "dead"
    ESTABLISH = "establish"
    AUTHENTICATE = "authenticate"
    NETWORK = "network"
    TERMINATE = "terminate"


@value
class LinkOpened:
    """LCP is opened. ``local`` binds the peer, ``remote`` is what binds us. Comes again after a renegotiation."""

    local: LcpOptions
    remote: LcpOptions


LinkEvent = (
    LinkOpened
    | AuthSucceeded
    | AuthRefused
    | NetworkUp
    | NetworkDown
    | NetworkFinished
    | EchoReplied
    | PeerIdentified
    | PeerTimeRemaining
    | Terminated
)


class _Timer(Enum):
    FIRST_REQUEST = auto()


@value
class _Route:
    """Who takes a protocol's frames, in which phases; elsewhere they are kept for a later one, or dropped."""

    handler: Callable[[bytes, float], None]
    phases: frozenset[Phase]
    early: frozenset[Phase] = frozenset()


_NETWORK = frozenset({Phase.NETWORK})
_ESTABLISHED = _NETWORK | {Phase.AUTHENTICATE}
_ALIVE = _ESTABLISHED | {Phase.ESTABLISH, Phase.TERMINATE}
_TERMINATING = frozenset({State.CLOSED, State.STOPPED, State.CLOSING, State.STOPPING})


class Link:
    """The machine of one link; frames go out as :class:`PppFrame`, to be built with the peer's ``remote`` options.

    Nothing that a peer sends makes a call raise, and nothing of it is kept but ``EARLY_FRAMES`` frames of at most an
    MRU. Data frames of a protocol that is up are the owner's and never come here.
    """

    def __init__(self, config: LinkConfig, *, entropy: Entropy) -> None:
        self._config = config
        self._entropy = entropy
        self._lcp = Lcp(
            config.lcp,
            demanded=tuple(method.option for method in config.authenticators),
            answerable=tuple(method.option for method in config.authenticatees),
            retransmission=config.retransmission,
            entropy=entropy,
        )
        self._routes = self._make_routes(config)
        self._timers: Timers[_Timer] = Timers()
        self._opened = False
        self._ended = False
        self._exchanges: list[Exchange] = []
        self._results: dict[int, AuthSucceeded] = {}  # by position in _exchanges
        self._networks: dict[int, ControlProtocol] = {}  # by control protocol
        self._finished: dict[int, Terminated] = {}  # by control protocol
        self._early: deque[PppFrame] = deque()
        self._drops: Counter[tuple[Phase, Drop]] = Counter()
        self._out: list[PppFrame] = []
        self._events: list[LinkEvent] = []

    def _make_routes(self, config: LinkConfig) -> Mapping[int, _Route]:
        """Legality as data: protocol -> handler and phases."""
        routes = {int(Protocol.LCP): _Route(self._receive_lcp, _ALIVE)}
        methods = [method.protocol for method in config.authenticators]
        methods += [method.protocol for method in config.authenticatees]
        for protocol in methods:
            routes[protocol] = _Route(self._exchange_receiver(protocol), _ESTABLISHED, frozenset({Phase.ESTABLISH}))
        early = frozenset({Phase.ESTABLISH, Phase.AUTHENTICATE})
        for policy in config.control_protocols:
            routes[policy.protocol] = _Route(self._network_receiver(policy.protocol), _NETWORK, early)
            routes[policy.data_protocol] = _Route(self._receive_data, _NETWORK)
        return MappingProxyType(routes)

    # Commands

    def open(self, now: float) -> None:
        """The lower layer carries frames: begin. On an open link: renegotiate it (RFC 1661 section 4.3, "Open").

        Raises :class:`UsageError` on a link that terminates or has ended.
        """
        if self._ended or self.phase is Phase.TERMINATE:
            raise UsageError("a link that terminates cannot be opened")
        self._lcp.open(now)
        if not self._opened:
            self._opened = True
            if self._config.first_request_delay > 0:
                self._timers.arm(_Timer.FIRST_REQUEST, now + self._config.first_request_delay)
            else:
                self._lcp.lower_up(now)
        self._pump(now)

    def close(self, now: float, cause: TerminationCause = TerminationCause.LOCAL_REQUEST, detail: str = "") -> None:
        """Terminate the link; harmless when that is under way or done."""
        reason = Terminated(cause, detail)
        if not self._opened:
            self._end(reason)
        elif not self._ended:
            self._lcp.close(now, reason)
            self._pump(now)

    def lower_down(self, now: float) -> None:
        """The lower layer is gone: nothing more can be sent. Harmless on a link that has ended.

        Where the peer had begun to end the link, its reason is the cause.
        """
        if self._ended:
            return
        ending = self._lcp.ending
        if self._opened and self._lcp.state is not State.STARTING:
            self._lcp.lower_down(now)
            self._pump(now)
        self._end(ending or Terminated(TerminationCause.LOST_CARRIER))

    def receive(self, protocol: int, information: bytes | memoryview, now: float) -> None:
        """Take a frame: LCP, authentication and control protocols are handled, anything else is answered or dropped."""
        if not self._opened or self._ended:
            self._drop(Drop.WRONG_PHASE)
            return
        if len(information) > max(DEFAULT_MRU, self._config.lcp.mru):
            self._drop(Drop.TOO_BIG)
            return
        if self._lcp.state is State.STARTING:
            self._start(now)
        self._lcp.heard()
        self._dispatch(PppFrame(protocol, bytes(information)), now)
        self._pump(now)

    def heard(self) -> None:
        """The peer sent data past the link: it lives."""
        self._lcp.heard()

    def send_echo(self, now: float) -> int:
        """Measure the round trip; :class:`EchoReplied` carries the identifier that is returned.

        Raises :class:`UsageError` before the link is established.
        """
        identifier = self._lcp.send_echo(now)
        self._pump(now)
        return identifier

    # State

    @property
    def phase(self) -> Phase:
        """Where the link stands."""
        if not self._opened or self._ended:
            return Phase.DEAD
        if self._lcp.state in _TERMINATING:
            return Phase.TERMINATE
        if not self._lcp.opened:
            return Phase.ESTABLISH
        return Phase.NETWORK if self._networks else Phase.AUTHENTICATE

    @property
    def drops(self) -> Mapping[Drop, int]:
        """Frames dropped, by cause."""
        total: Counter[Drop] = Counter()
        for (_, cause), count in self._drops.items():
            total[cause] += count
        return total

    @property
    def drops_by_phase(self) -> Mapping[tuple[Phase, Drop], int]:
        """Frames dropped, by the phase of the link and the cause."""
        return MappingProxyType(self._drops)

    def carries(self, data_protocol: int) -> bool:
        """Whether frames of ``data_protocol`` may be sent and taken."""
        return any(
            policy.data_protocol == data_protocol
            and policy.protocol in self._networks
            and self._networks[policy.protocol].opened
            for policy in self._config.control_protocols
        )

    # Machine

    def transmits(self) -> list[PppFrame]:
        """Drain what is to be sent, oldest first."""
        drained, self._out = self._out, []
        return drained

    def events(self) -> list[LinkEvent]:
        """Drain what happened, oldest first."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When ``handle_timeout`` is wanted next, or ``None``."""
        if self._ended:
            return None
        children = [child.deadline() for child in self._children()]
        return earliest(self._timers.deadline(), self._lcp.deadline(), *children)

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that is due."""
        if self._ended:
            return
        for _ in self._timers.pop_expired(now):
            self._start(now)
        self._lcp.handle_timeout(now)
        for child in self._children():
            child.handle_timeout(now)
        self._pump(now)

    def _children(self) -> list[Machine[bytes, object]]:
        return [*self._exchanges, *self._networks.values()]

    # Receiving

    def _start(self, now: float) -> None:
        self._timers.stop_all()
        self._lcp.lower_up(now)

    def _dispatch(self, frame: PppFrame, now: float) -> None:
        """Hand a frame to whoever takes its protocol in this phase."""
        route = self._routes.get(frame.protocol)
        information = bytes(frame.information)
        if route is None:
            if self._lcp.opened:
                self._lcp.reject_protocol(frame.protocol, information)
            else:
                self._drop(Drop.WRONG_PHASE)
        elif self.phase in route.phases:
            try:
                route.handler(information, now)
            except WireError:
                self._drop(Drop.MALFORMED)
            except PeerViolation:
                self._drop(Drop.WRONG_PHASE)
        elif self.phase not in route.early:
            self._drop(Drop.WRONG_PHASE)
        elif len(self._early) < EARLY_FRAMES:
            # Deviation: RFC 1661 section 3.4 and 3.5 discard them. The last Ack or Success was lost or overtaken,
            # and the peer is where we shall be; to keep its first requests saves a restart timer.
            self._early.append(frame)
        else:
            self._drop(Drop.QUEUE_FULL)

    def _receive_lcp(self, information: bytes, now: float) -> None:
        self._lcp.receive(parse_packet(information), now)

    def _receive_data(self, information: bytes, now: float) -> None:
        raise PeerViolation("a data frame before its network protocol is up")

    def _exchange_receiver(self, protocol: int) -> Callable[[bytes, float], None]:
        def receive(information: bytes, now: float) -> None:
            for exchange in self._exchanges:
                if exchange.protocol == protocol and information[:1] and information[0] in exchange.codes:
                    exchange.receive(information, now)
                    return
            raise WireError("authentication packet", WireCause.BAD_TYPE, f"code {information[:1].hex()}")

        return receive

    def _network_receiver(self, protocol: int) -> Callable[[bytes, float], None]:
        def receive(information: bytes, now: float) -> None:
            self._networks[protocol].receive(information, now)

        return receive

    def _drop(self, cause: Drop) -> None:
        self._drops[self.phase, cause] += 1

    # What follows from what the protocols report

    def _pump(self, now: float) -> None:
        """Drain the protocols, lowest first, until nothing more follows."""
        progress = True
        while progress and not self._ended:
            progress = self._pump_lcp(now)
            progress = self._pump_exchanges(now) or progress
            progress = self._pump_networks(now) or progress

    def _pump_lcp(self, now: float) -> bool:
        self._out += [PppFrame(Protocol.LCP, build_packet(packet)) for packet in self._lcp.transmits()]
        events = self._lcp.events()
        for event in events:
            match event:
                case LayerUp():
                    self._events.append(LinkOpened(self._lcp.local, self._lcp.remote))
                    self._begin_exchanges(now)
                case LayerDown():
                    self._leave_network(now)
                case LayerFinished(reason):
                    self._end(reason)
                case ProtocolRejected(protocol):
                    self._protocol_rejected(protocol, now)
                case _:
                    self._events.append(event)
        return bool(events)

    def _begin_exchanges(self, now: float) -> None:
        """Authentication phase: begin the methods that LCP agreed on; none means at once the next phase."""
        demanded, answered = self._lcp.local.authentication, self._lcp.remote.authentication
        self._exchanges = [
            method.authenticate_peer(self._entropy)
            for method in self._config.authenticators
            if method.option == demanded
        ] + [method.answer_peer(self._entropy) for method in self._config.authenticatees if method.option == answered]
        for exchange in self._exchanges:
            exchange.start(now)
        self._enter_network(now)
        self._replay_early(now)

    def _pump_exchanges(self, now: float) -> bool:
        progress = False
        for position, exchange in enumerate(list(self._exchanges)):
            self._out += [PppFrame(exchange.protocol, packet) for packet in exchange.transmits()]
            for event in exchange.events():
                progress = True
                match event:
                    case AuthRefused():
                        self._events.append(event)
                    case AuthFailed(detail):
                        self._lcp.close(now, Terminated(TerminationCause.AUTHENTICATION, detail))
                    case AuthSucceeded() if position not in self._results:
                        self._results[position] = event
                        self._events.append(event)
                        self._enter_network(now)
                        self._replay_early(now)
        return progress

    def _enter_network(self, now: float) -> None:
        """Network phase, as soon as every exchange has succeeded."""
        if self._networks or len(self._results) < len(self._exchanges) or not self._lcp.opened:
            return
        context = LinkContext(
            self._entropy,
            self._config.retransmission,
            self._lcp.local,
            self._lcp.remote,
            tuple(self._results[position] for position in sorted(self._results)),
        )
        policies = self._config.control_protocols
        if self._config.admit is not None:
            admitted = self._config.admit(context.authentications)
            if isinstance(admitted, Terminated):
                self._lcp.close(now, admitted)
                return
            policies = tuple(admitted if policy.protocol == admitted.protocol else policy for policy in policies)
        self._networks = {policy.protocol: policy.begin(context, now) for policy in policies}

    def _replay_early(self, now: float) -> None:
        """Hand out the frames that came too early; what is still too early is kept again."""
        waiting, self._early = self._early, deque()
        for frame in waiting:
            self._dispatch(frame, now)

    def _pump_networks(self, now: float) -> bool:
        progress = False
        for protocol, network in list(self._networks.items()):
            self._out += [PppFrame(protocol, packet) for packet in network.transmits()]
            for event in network.events():
                progress = True
                self._events.append(event)
                if isinstance(event, NetworkFinished):
                    self._finished[protocol] = event.reason
                    self._check_purpose(now)
                elif isinstance(event, NetworkUp):
                    self._finished.pop(protocol, None)
        return progress

    def _check_purpose(self, now: float) -> None:
        """End the link when a protocol it cannot do without is finished, or all are."""
        policies = self._config.control_protocols
        for policy in policies:
            reason = self._finished.get(policy.protocol)
            if reason is not None and (policy.essential or len(self._finished) == len(policies)):
                self._lcp.close(now, reason)
                return

    def _protocol_rejected(self, protocol: int, now: float) -> None:
        """The peer does not speak a control protocol, or refuses what it opens (RFC 1661 section 5.7)."""
        for policy in self._config.control_protocols:
            if protocol in (policy.protocol, policy.data_protocol) and policy.protocol in self._networks:
                self._networks[policy.protocol].protocol_rejected(now)
        if protocol in {exchange.protocol for exchange in self._exchanges}:
            detail = f"the peer rejects the authentication protocol {protocol:04x} that it agreed to"
            self._lcp.close(now, Terminated(TerminationCause.AUTHENTICATION, detail))

    def _leave_network(self, now: float) -> None:
        """LCP went down: everything above it is undone."""
        for network in self._networks.values():
            network.lower_down(now)
            self._events += network.events()
        self._drops[self.phase, Drop.WRONG_PHASE] += len(self._early)
        self._early.clear()
        self._exchanges.clear()
        self._results.clear()
        self._networks.clear()
        self._finished.clear()

    def _end(self, reason: Terminated) -> None:
        if self._ended:
            return
        self._ended = True
        self._timers.stop_all()
        self._early.clear()
        self._events.append(reason)
