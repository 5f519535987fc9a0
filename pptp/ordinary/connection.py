"""One TCP control connection of ordinary PPTP and everything on it, sans-IO.

Made by whoever has accepted a TCP connection (we are the PAC and serve calls) or opened one (we are the PNS and dial
one), dropped by it after ``Terminated``. The owner carries the stream and the GRE packets, gives out Call IDs, and says
who may come in under which addresses; the connection decides everything between. A call ends with its link, and a
link with its call; a dialled connection ends with its call, a served one when the peer says so or asks for no other.

The owner finds the connection of a GRE packet by source address and Call ID; it learns the Call ID as it gives it out,
because the peer's first packet may come before the message that it answers.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from enum import Enum, auto

from pptp.control import (
    CallEnded,
    CallEstablished,
    CallHandle,
    CallRequested,
    ControlConnection,
    ControlEstablished,
    ControlEvent,
    Noted,
    PeerInfo,
)
from pptp.errors import Drop, Terminated, TerminationCause, UsageError, WireError
from pptp.machine import earliest
from pptp.ordinary.call import IpPacket, OrdinaryCall, Packet
from pptp.ordinary.values import (
    Admit,
    CallOver,
    CallUp,
    ConnectionStatus,
    ControlUp,
    GreOut,
    OrdinaryConfig,
    OrdinaryEvent,
    OrdinaryOut,
    StreamOut,
)
from pptp.ppp.negotiation import Entropy
from pptp.timers import Timers
from pptp.wire.control import GeneralError, IncomingCallResult, MessageSplitter, OutgoingCallResult

# RFC 2637 section 4.1: where the Call ID stands in a GRE packet
_CALL_ID_AT = 6
_CALL_ID_END = 8
# ours, because a server sends at most this much before it has heard from us
EARLY_PACKETS = 8

_LOCAL_REQUEST = Terminated(TerminationCause.LOCAL_REQUEST)


class _Timer(Enum):
    IDLE = auto()


class OrdinaryConnection:
    """See the module. ``admit`` is the serving side's: who may come in, and under which addresses."""

    __slots__ = (
        "_admit",
        "_allocate",
        "_call_ids",
        "_calls",
        "_config",
        "_control",
        "_deadline",
        "_drops",
        "_early",
        "_ending",
        "_entropy",
        "_events",
        "_out",
        "_over",
        "_peer",
        "_reason",
        "_release",
        "_released",
        "_settling",
        "_splitter",
        "_timers",
    )

    def __init__(
        self,
        config: OrdinaryConfig,
        *,
        entropy: Entropy,
        allocate_call_id: Callable[[], int | None],
        release_call_id: Callable[[int], None],
        admit: Admit | None = None,
    ) -> None:
        """``allocate_call_id`` gives a free Call ID of 1 to 65535, or ``None``; each comes back exactly once."""
        if config.dials is (admit is not None):
            raise UsageError("a serving connection admits its users, a dialling one has none")
        self._config = config
        self._entropy = entropy
        self._allocate = allocate_call_id
        self._release = release_call_id
        self._admit = admit
        self._control = ControlConnection(config.control, initiator=config.dials)
        self._splitter = MessageSplitter()
        self._calls: dict[int, OrdinaryCall] = {}  # by Call ID, those that are up
        self._call_ids: set[int] = set()  # those that we have to give back
        self._early: deque[bytes] = deque(maxlen=EARLY_PACKETS)
        self._peer: PeerInfo | None = None
        self._ending = False
        self._reason: Terminated | None = None
        self._over = False
        self._settling = False
        self._deadline: float | None = None  # of everything but the channels
        self._drops: Counter[Drop] = Counter()
        self._released: list[tuple[int, int, Packet]] = []
        self._out: list[OrdinaryOut] = []
        self._events: list[OrdinaryEvent] = []
        self._timers: Timers[_Timer] = Timers()

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[OrdinaryOut]:
        """Drain what is to be sent, oldest first."""
        out, self._out = self._out, []
        for call in self._calls.values():
            out += [GreOut(packet) for packet in call.transmits()]
        return out

    def events(self) -> list[OrdinaryEvent]:
        """Drain what happened; nothing follows ``Terminated``, after which the owner closes the TCP connection."""
        events, self._events = self._events, []
        return events

    def released(self) -> list[tuple[int, int, Packet]]:
        """Drain Call ID, protocol and packet of what waited for a missing one in vain, after ``handle_timeout``."""
        released, self._released = self._released, []
        return released

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        deadline = self._deadline
        for call in self._calls.values():
            deadline = earliest(deadline, call.channel.deadline())
        return deadline

    def handle_timeout(self, now: float) -> None:
        """Act on what is due."""
        if self._over:
            return
        if self._timers.pop_expired(now):
            self._stop(now, Terminated(TerminationCause.TIMEOUT, "no call on the control connection"))
        self._control.handle_timeout(now)
        for call in list(self._calls.values()):
            call.handle_timeout(now)
            self._released += [(call.call_id, protocol, packet) for protocol, packet in call.released()]
        self._settle(now)

    # -- commands -------------------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """The TCP connection is there: the dialling side begins, the serving one waits to be asked."""
        self._control.open(now)
        self._settle(now)

    def close(self, now: float, cause: Terminated = _LOCAL_REQUEST) -> None:
        """Say goodbye on every level; ``Terminated`` follows within a few seconds, or with the end of the stream."""
        if self._over or self._ending:
            return
        self._ending = True
        self._reason = self._reason or cause
        for call in self._calls.values():
            call.close(now, cause)
        self._settle(now)

    def close_call(self, call_id: int, now: float, cause: Terminated = _LOCAL_REQUEST) -> None:
        """End one call; harmless where it has ended. A dialled connection ends with it."""
        call = self._calls.get(call_id)
        if call is not None:
            call.close(now, cause)
            self._settle(now)

    # -- what arrives ---------------------------------------------------------------------------------------

    def receive_stream(self, data: bytes | memoryview, now: float) -> None:
        """Octets of the TCP connection, cut anywhere. What is no control message ends the connection unanswered."""
        if self._over:
            return
        self._splitter.feed(data)
        try:
            while not self._over and (message := self._splitter.next_message()) is not None:
                self._control.receive_message(message, now)
                self._settle(now)
        except WireError as error:
            self._control.malformed(error, now)
            self._settle(now)

    def stream_closed(self, now: float) -> None:
        """The TCP connection is gone, and everything with it."""
        if not self._over:
            self._control.transport_closed(now)
            self._settle(now)

    def receive_gre(self, packet: Packet, now: float) -> list[IpPacket]:
        """A GRE packet from the peer's address; the protocols and IP packets it completes, in order.

        They may be slices of ``packet``: to be used before its buffer is used again.
        """
        if len(packet) < _CALL_ID_END:
            self._drops[Drop.MALFORMED] += 1
            return []
        call = self._calls.get(packet[_CALL_ID_AT] << 8 | packet[_CALL_ID_AT + 1])
        if call is None:
            self._receive_early(packet)
            return []
        received = call.receive_gre(packet, now)
        if call.stirred:
            self._settle(now)
        return received

    def send_network(self, call_id: int, protocol: int, packet: Packet, now: float) -> bytes | None:
        """The GRE packet that carries an IP packet (protocol 0x0021 or 0x0057) to the peer.

        ``None`` where it cannot go, which the call's drops count.
        """
        call = self._calls.get(call_id)
        return None if call is None else call.send(protocol, packet, now)

    def _receive_early(self, packet: Packet) -> None:
        """Keep what may be the first words of a call that we are dialling: GRE can overtake the reply on TCP."""
        if self._call_ids and self._config.dials and not self._ending:
            self._early.append(bytes(packet))
        else:
            self._drops[Drop.UNKNOWN_SESSION] += 1

    # -- status ---------------------------------------------------------------------------------------------

    def status(self) -> ConnectionStatus:
        """Everything at once."""
        calls = tuple(call.status() for call in self._calls.values())
        return ConnectionStatus(self._peer, calls, Counter(self._drops))

    # -- what follows ---------------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Let control connection and calls tell each other what happened, until nothing follows any more.

        A command that an owner gives while it is being asked for admission is carried out by the round under way.
        """
        if self._settling:
            return
        self._settling = True
        try:
            while self._settle_once(now):
                pass
        finally:
            self._settling = False
        deadlines = [call.deadline() for call in self._calls.values()]
        self._deadline = None if self._over else earliest(self._timers.deadline(), self._control.deadline(), *deadlines)

    def _settle_once(self, now: float) -> bool:
        """Take what has happened since; whether anything had."""
        events = self._control.events()
        for event in events:
            self._take_control(event, now)
        progress = bool(events)
        for call in list(self._calls.values()):
            if call.stirred:
                progress = True
                self._collect(call, now)
        if self._ending and not self._calls:
            self._control.stop(now)
        self._out += [StreamOut(message) for message in self._control.transmits()]
        return progress

    def _collect(self, call: OrdinaryCall, now: float) -> None:
        call.stirred = False
        self._out += [GreOut(packet) for packet in call.transmits()]
        self._events += call.events()
        if call.over is not None:
            self._finish(call, now)

    def _take_control(self, event: ControlEvent, now: float) -> None:
        match event:
            case ControlEstablished(peer):
                self._peer = peer
                self._events.append(ControlUp(peer))
                if self._config.dials:
                    self._dial(now)
                else:
                    self._timers.arm(_Timer.IDLE, now + self._config.idle_wait)
            case CallRequested(call):
                self._requested(call.handle, call.incoming, now)
            case CallEstablished(call):
                self._events.append(CallUp(call.call_id or 0, call.peer_call_id or 0))
                self._timers.stop(_Timer.IDLE)
                up = OrdinaryCall(self._config, call, entropy=self._entropy, admit=self._admit, now=now)
                self._calls[up.call_id] = up
                while self._early:
                    self.receive_gre(self._early.popleft(), now)  # none is data: the link has only begun
            case CallEnded(call, cause):
                self._call_ended(call.call_id, cause, now)
            case Noted():
                self._events.append(event)
            case Terminated():
                self._terminate(self._reason or event)
            case _:
                pass

    def _dial(self, now: float) -> None:
        call_id = self._allocate()
        if call_id is None:
            self._stop(now, Terminated(TerminationCause.LIMIT_REACHED, "no Call ID is free"))
            return
        self._call_ids.add(call_id)
        self._control.place_outgoing_call(call_id, now)

    def _requested(self, handle: CallHandle, incoming: bool, now: float) -> None:
        """As PAC we take outgoing calls; nobody calls us the other way round."""
        if self._config.dials or incoming or self._ending:
            refusal = IncomingCallResult.DO_NOT_ACCEPT if incoming else OutgoingCallResult.DO_NOT_ACCEPT
            self._control.refuse_call(handle, now, result=refusal, error=GeneralError.NONE)
            return
        call_id = self._allocate()
        if call_id is None:
            self._control.refuse_call(handle, now)
            return
        self._call_ids.add(call_id)
        self._control.accept_call(handle, call_id, now)

    def _call_ended(self, call_id: int | None, cause: Terminated, now: float) -> None:
        """The control connection knows a call no longer: its Call ID is free, and its link is over."""
        if call_id is None or call_id not in self._call_ids:
            return
        call = self._calls.get(call_id)
        if call is not None:
            call.lost(now, cause)
            self._collect(call, now)
        elif self._config.dials:
            self._stop(now, cause)
        self._call_ids.discard(call_id)
        self._release(call_id)

    def _finish(self, call: OrdinaryCall, now: float) -> None:
        """A link is over: so is its call, and a connection that was dialled for it."""
        cause = call.over or _LOCAL_REQUEST
        del self._calls[call.call_id]
        self._events.append(CallOver(call.call_id, cause))
        self._control.clear_call(call.call.handle, now)
        if self._config.dials:
            self._stop(now, cause)
        elif not self._calls:
            self._timers.arm(_Timer.IDLE, now + self._config.idle_wait)

    def _stop(self, now: float, cause: Terminated) -> None:
        self._reason = self._reason or cause
        self._ending = True

    def _terminate(self, reason: Terminated) -> None:
        """Calls have ended before, by their own events."""
        self._over = True
        self._timers.stop_all()
        self._early.clear()
        self._events.append(reason)
