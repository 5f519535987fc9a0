"""One call of an ordinary PPTP connection: its GRE channel, the PPP link in it, and MPPE between the two.

Made by the connection when the call is established, and dropped by it once ``over`` says why the call ended. Coming
in, a packet passes the channel, which puts frames in order, then MPPE, then, unless it is data of a network protocol
that is up, the link. Going out, data takes a way that was compiled when the link opened: nothing is left to decide.

No data goes out before MPPE is up where it is required; where it is only allowed, not before CCP has come to an end,
or has been silent for ``UNDECIDED_WAIT``, and a call that was encrypted once ends sooner than it goes back to clear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum, auto

from pptp.channel import Channel, ChannelConfig
from pptp.control import Call
from pptp.crypto.mppe import MPPE_PROTOCOL, MppeDecryptor, MppeEncryptor, MppeMode, MppePath
from pptp.errors import Drop, DropError, Terminated, TerminationCause, WireError
from pptp.machine import earliest
from pptp.mtu import ordinary_mtu
from pptp.ordinary.terms import RefusedEncryption, link_config
from pptp.ordinary.values import (
    Admit,
    Authenticated,
    CallEvent,
    CallStatus,
    EncryptionDown,
    EncryptionUp,
    Ipv4Up,
    Ipv6Up,
    NetworkDown,
    OrdinaryConfig,
    PeerIdentified,
    method_name,
)
from pptp.ppp import ccp, control_protocol, ipcp, ipv6cp, lcp
from pptp.ppp.auth import AuthRefused, AuthSucceeded
from pptp.ppp.lcp_options import LcpOptions
from pptp.ppp.link import Link, LinkEvent, LinkOpened, Phase
from pptp.ppp.negotiation import Entropy
from pptp.timers import Timers
from pptp.wire.ppp import Protocol, build, split

# ours, because nobody waits long for a Terminate-Ack, and the end of the call says the same
LINK_CLOSE_WAIT = 0.5
# ours, because a peer that has an answer to our CCP has given it by the first repetition
UNDECIDED_WAIT = 4.0
# ours, because Windows describes itself in three packets, and a log is not the peer's to fill
_IDENTIFICATIONS = 4
# ours, because MS-CHAPv2 gives its peer three attempts, and LCP may begin again as often as the peer likes
_ATTEMPTS = 3
# ours: why we end a call whatever the peer does
_OURS = frozenset({TerminationCause.LOCAL_REQUEST, TerminationCause.REPLACED})
# RFC 2637 sections 2.7 and 2.8: the processing delay is in tenths of a second
_TENTHS = 10

Packet = bytes | memoryview
IpPacket = tuple[int, Packet]
"""PPP protocol and IP packet."""


class _Timer(Enum):
    NO_GRE = auto()
    SETUP = auto()
    UNDECIDED = auto()
    LINK_CLOSE = auto()


class OrdinaryCall:
    """See the module. ``stirred`` is set where more happened than data passing: the owner then drains everything."""

    __slots__ = (
        "_decided",
        "_drops",
        "_encrypted",
        "_encryption_failure",
        "_established_at",
        "_events",
        "_identified",
        "_last_packet_at",
        "_link",
        "_method",
        "_mppe",
        "_mtu",
        "_networks",
        "_out",
        "_received_octets",
        "_received_packets",
        "_refusal",
        "_refusals",
        "_refused",
        "_released",
        "_remote",
        "_reported",
        "_senders",
        "_sent_octets",
        "_sent_packets",
        "_terms",
        "_timers",
        "_user",
        "_wait",
        "_was_up",
        "call",
        "call_id",
        "channel",
        "over",
        "stirred",
    )

    def __init__(
        self, config: OrdinaryConfig, call: Call, *, entropy: Entropy, admit: Admit | None, now: float
    ) -> None:
        """``call`` is established; the link opens at once."""
        terms = config.terms
        self.call = call
        self.call_id = call.call_id or 0
        self.channel = Channel(_channel_config(call, config))
        self.over: Terminated | None = None
        self.stirred = True
        self._terms = terms
        self._wait = config
        self._link = Link(link_config(config, self.call_id, admit), entropy=entropy)
        self._mppe = MppePath(required=terms.mppe is not None and terms.mppe.required)
        self._refused = RefusedEncryption() if terms.mppe is None else None
        self._encryption_failure: Terminated | None = None
        self._decided = terms.mppe is None  # whether CCP has come to an end, good or bad
        self._encrypted = False  # whether it ever was: from then on nothing goes back to clear
        self._remote = LcpOptions()
        self._mtu = 0
        self._was_up = False
        self._networks: dict[int, ipcp.Ipv4Up | ipv6cp.Ipv6Up] = {}  # by data protocol, as the link has them
        self._reported: dict[int, Ipv4Up | Ipv6Up] = {}  # as the owner was told
        self._senders: dict[int, Callable[[Packet, float], bytes]] = {}  # of what may flow now
        self._user = ""
        self._identified = 0  # how often the peer has described itself
        self._refusal = ""  # of an attempt to authenticate that nothing better followed
        self._refusals = 0  # of all of them, also before LCP came up again
        self._method = method_name(b"")
        self._established_at = now
        self._last_packet_at: float | None = None
        self._received_packets = self._received_octets = self._sent_packets = self._sent_octets = 0
        self._drops: Counter[Drop] = Counter()
        self._released: list[tuple[int, Packet]] = []
        self._out: list[bytes] = []
        self._events: list[CallEvent] = []
        self._timers: Timers[_Timer] = Timers()
        self._timers.arm(_Timer.NO_GRE, now + config.no_gre_wait)
        self._timers.arm(_Timer.SETUP, now + config.setup_wait)
        self._link.open(now)
        self._pump(now)

    # -- data -----------------------------------------------------------------------------------------------

    def receive_gre(self, packet: Packet, now: float) -> list[IpPacket]:
        """Take a GRE packet of this call; the IP packets it completes, in order."""
        received: list[IpPacket] = []
        for frame in self.channel.receive(packet, now):
            self._take(frame, now, received)
        return received

    def send(self, protocol: int, packet: Packet, now: float) -> bytes | None:
        """The GRE packet that carries an IP packet; ``None``, counted, where it cannot go."""
        sender = self._senders.get(protocol)
        if sender is None:
            waits = protocol in self._networks and self.over is None
            self._drops[Drop.CLEARTEXT if waits else Drop.WRONG_PHASE] += 1
            return None
        if len(packet) > self._mtu:
            self._drops[Drop.TOO_BIG] += 1
            return None
        self._sent_packets += 1
        self._sent_octets += len(packet)
        return sender(packet, now)

    def _take(self, frame: Packet, now: float, received: list[IpPacket]) -> None:
        try:
            protocol, information = self._mppe.open(*split(frame))
        except WireError:
            self._drops[Drop.MALFORMED] += 1
            return
        except DropError:  # counted by the path; the decryptor may want a reset, which is the link's to ask for
            self.stirred |= self._mppe.decryptor is not None and self._mppe.decryptor.reset_wanted
            return
        if protocol in self._senders:
            self._received_packets += 1
            self._received_octets += len(information)
            self._last_packet_at = now
            self._link.heard()
            received.append((protocol, information))
            return
        octets = bytes(information)
        if self._refused is not None and protocol == Protocol.CCP:
            self._refused.hear(octets, now)
        self._link.receive(protocol, octets, now)
        self._pump(now)

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[bytes]:
        """Drain the GRE packets to send."""
        alone = self.channel.transmits()
        if self._out:
            out, self._out = self._out, []
            return out + alone
        return alone

    def events(self) -> list[CallEvent]:
        """Drain what happened; ``over`` tells of the end."""
        events, self._events = self._events, []
        return events

    def released(self) -> list[tuple[int, Packet]]:
        """Drain the IP packets that a time-out let go."""
        released, self._released = self._released, []
        return released

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next, but for the channel, which the owner asks itself."""
        return earliest(self._timers.deadline(), self._link.deadline())

    def handle_timeout(self, now: float) -> None:
        """Act on what is due."""
        for timer in self._timers.pop_expired(now):
            self._timed_out(timer, now)
        self.channel.handle_timeout(now)
        for frame in self.channel.events():
            self._take(frame, now, self._released)
        self._link.handle_timeout(now)
        self._pump(now)

    def _timed_out(self, timer: _Timer, now: float) -> None:
        match timer:
            case _Timer.NO_GRE if not self.channel.received_packets:
                silence = f"control connection up, no GRE from the peer for {self._wait.no_gre_wait:g} s"
                self.close(now, Terminated(TerminationCause.NO_GRE, silence))
            case _Timer.SETUP if not self._was_up:
                slow = f"not up after {self._wait.setup_wait:g} s, in the {self._link.phase} phase"
                self.close(now, Terminated(TerminationCause.TIMEOUT, slow))
            case _Timer.UNDECIDED:
                self._decided = True
                self._compile(now)
            case _Timer.LINK_CLOSE:
                self._link.lower_down(now)
            case _:
                pass

    # -- commands -------------------------------------------------------------------------------------------

    def close(self, now: float, cause: Terminated) -> None:
        """Terminate the link; ``over`` follows within ``LINK_CLOSE_WAIT``."""
        if self.over is None:
            self._link.close(now, cause.cause, cause.detail)
            self._pump(now)

    def lost(self, now: float, cause: Terminated) -> None:
        """The control connection has ended the call; where the link knows better why, that is the reason."""
        self._link.lower_down(now)
        self._pump(now)
        if self.over is None or self.over.cause is TerminationCause.LOST_CARRIER:
            self.over = self._explained(cause, now)

    # -- what the link reports ------------------------------------------------------------------------------

    def _pump(self, now: float) -> None:
        self.stirred = True
        for frame in self._link.transmits():
            octets = build(frame.protocol, frame.information, acfc=self._remote.acfc, pfc=self._remote.pfc)
            self._out.append(self.channel.encapsulate(octets, now))
        for event in self._link.events():
            self._take_event(event, now)
        if self.over is None and self._link.phase is Phase.TERMINATE and self._timers.at(_Timer.LINK_CLOSE) is None:
            self._timers.arm(_Timer.LINK_CLOSE, now + LINK_CLOSE_WAIT)

    def _take_event(self, event: LinkEvent, now: float) -> None:
        match event:
            case LinkOpened(local, remote):
                self._remote = remote
                self._method = method_name(local.authentication or remote.authentication)
            case AuthSucceeded(identity):
                self._user, self._refusal = identity, ""
                self._events.append(Authenticated(self.call_id, identity, self._method))
            case AuthRefused(detail):
                self._refusal, self._refusals = detail, self._refusals + 1
                if self._refusals >= _ATTEMPTS:
                    self.close(now, Terminated(TerminationCause.AUTHENTICATION, detail))
            case ccp.EncryptionUp(_, encryptor, decryptor):
                self._mppe.rekey(encryptor, decryptor)
                self._decided = True
                self._encrypted |= encryptor is not None or decryptor is not None
                self._events.append(EncryptionUp(self.call_id, _mode(encryptor), _mode(decryptor)))
                self._compile(now)
            case control_protocol.NetworkDown(protocol) if protocol == MPPE_PROTOCOL:
                self._mppe.rekey(None, None)
                self._decided = False
                self._events.append(EncryptionDown(self.call_id))
                self._compile(now)
            case control_protocol.NetworkFinished(protocol, reason) if protocol == MPPE_PROTOCOL:
                self._encryption_failure = reason
                self._decided = True
                self._compile(now)
                if self._encrypted:
                    self._link.close(now, reason.cause, reason.detail)
            case ipcp.Ipv4Up() | ipv6cp.Ipv6Up():
                self._networks[event.protocol] = event
                self._compile(now)
            case control_protocol.NetworkDown(protocol):
                self._networks.pop(protocol, None)
                self._senders.pop(protocol, None)
                if self._reported.pop(protocol, None) is not None:
                    self._events.append(NetworkDown(self.call_id, protocol))
            case lcp.PeerIdentified(text) if self._identified < _IDENTIFICATIONS:
                self._identified += 1
                self._events.append(PeerIdentified(self.call_id, text))
            case Terminated():
                self._end(event, now)
            case _:
                pass

    def _end(self, reason: Terminated, now: float) -> None:
        self._timers.stop_all()
        self._senders.clear()
        self.over = self._explained(reason, now)

    def _explained(self, reason: Terminated, now: float) -> Terminated:
        """The same end, where it was about encryption with both ends' offers, or about a password."""
        if self._refusal and reason.cause not in _OURS:
            return Terminated(TerminationCause.AUTHENTICATION, self._refusal)
        if reason == self._encryption_failure:
            return Terminated(TerminationCause.ENCRYPTION, reason.detail)
        if self._refused is not None:
            return self._refused.explain(reason, now)
        return reason

    def status(self) -> CallStatus:
        """The call as it stands."""
        encryptor, decryptor = self._mppe.encryptor, self._mppe.decryptor
        out, into = str(_mode(encryptor) or "none"), str(_mode(decryptor) or "none")
        return CallStatus(
            self.call_id,
            self.call.peer_call_id or 0,
            self._link.phase,
            self._user,
            self._method,
            out if out == into else f"out {out}, in {into}",
            self._established_at,
            self._last_packet_at,
            self._received_packets,
            self._received_octets,
            self._sent_packets,
            self._sent_octets,
            self._drops + Counter(self.channel.drops) + Counter(self._mppe.drops) + Counter(self._link.drops),
            self.channel.window,
        )

    # -- the way of data ------------------------------------------------------------------------------------

    def _compile(self, now: float) -> None:
        """Let data flow, by way of what is agreed now; or hold it while encryption is undecided."""
        if not self._networks:
            return
        if not self._may_flow():
            self._senders.clear()
            if not self._mppe.required and not self._encrypted and self._timers.at(_Timer.UNDECIDED) is None:
                self._timers.arm(_Timer.UNDECIDED, now + UNDECIDED_WAIT)
            return
        self._timers.stop(_Timer.UNDECIDED)
        terms = self._terms
        self._mtu = ordinary_mtu(terms.path_mtu, self._remote.mru, mppe=self._mppe.encryptor is not None)
        for protocol, network in self._networks.items():
            self._senders[protocol] = self._sender(protocol)
            up = _report(self.call_id, network, self._mtu)
            if self._reported.get(protocol) != up:
                self._reported[protocol] = up
                self._events.append(up)
                self._was_up = True

    def _may_flow(self) -> bool:
        if self._mppe.required:
            return self._mppe.encryptor is not None and self._mppe.decryptor is not None
        if self._encrypted:
            return self._mppe.encryptor is not None or self._mppe.decryptor is not None
        return self._decided

    def _sender(self, protocol: int) -> Callable[[Packet, float], bytes]:
        encapsulate = self.channel.encapsulate
        acfc, pfc = self._remote.acfc, self._remote.pfc
        if self._mppe.encryptor is None:
            clear_prefix = build(protocol, b"", acfc=acfc, pfc=pfc)
            return lambda packet, now: encapsulate(clear_prefix + packet, now)
        encrypt = self._mppe.encryptor.encrypt
        prefix = build(MPPE_PROTOCOL, b"", acfc=acfc, pfc=pfc)
        return lambda packet, now: encapsulate(prefix + encrypt(protocol, packet), now)


def _channel_config(call: Call, config: OrdinaryConfig) -> ChannelConfig:
    return ChannelConfig(
        call.call_id or 0,
        call.peer_call_id or 0,
        reorder_limit=config.terms.reorder_limit,
        reorder_timeout=config.terms.reorder_timeout,
        receive_window=config.control.receive_window,
        send_window=call.peer_window,
        peer_processing_delay=call.peer_processing_delay / _TENTHS,
    )


def _report(call_id: int, network: ipcp.Ipv4Up | ipv6cp.Ipv6Up, mtu: int) -> Ipv4Up | Ipv6Up:
    if isinstance(network, ipcp.Ipv4Up):
        return Ipv4Up(call_id, network.local, network.remote, network.dns, network.wins, mtu)
    return Ipv6Up(call_id, network.local, network.remote, mtu)


def _mode(half: MppeEncryptor | MppeDecryptor | None) -> MppeMode | None:
    return None if half is None else half.mode
