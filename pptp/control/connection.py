"""The PPTP control connection (RFC 2637 section 3.1), as the side that starts it and as the side that is asked.

The owner makes one :class:`ControlConnection` for each transport (a TCP connection to or from port 1723, cut into
messages by ``MessageSplitter``, or the reliable message stream between two grepunch peers), feeds it whole messages
and sends what it transmits. It dies with its transport; its last event is ``Terminated``. Both roles can place and
take calls, so each side may be PNS of one call and PAC of another.

What each state takes, besides Echo-Request, which is answered at once in every one but ``Closed``::

    state                  takes                                         anything else
    Idle (asked)           Start-Request                                 closes, unanswered
    WaitReply (starts)     Start-Reply, Start-Request (collision), Stop  closes, unanswered
    Established            Stop, Echo-Reply, call messages               noted, unanswered
    WaitStopReply          Stop-Reply, Stop-Request                      dropped
    Closed                 nothing                                       dropped

Bytes that are no control message close the transport at once (section 3: "the control connection should be closed").
Deviation: a missing answer about a call that our own owner has to decide ends that call alone, not the connection.
"""

from __future__ import annotations

from enum import Enum

from pptp.control.calls import Calls
from pptp.control.values import (
    Call,
    CallHandle,
    CloseTransport,
    ControlConfig,
    ControlEstablished,
    ControlEvent,
    Noted,
    PeerInfo,
)
from pptp.errors import PeerViolation, Terminated, TerminationCause, UsageError, WireError
from pptp.machine import earliest
from pptp.timers import Timers
from pptp.value import value
from pptp.wire.control import (
    PROTOCOL_VERSION,
    CallMessage,
    ControlMessage,
    EchoReply,
    EchoRequest,
    GeneralError,
    OutgoingCallResult,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    StartResult,
    StopControlConnectionReply,
    StopControlConnectionRequest,
    StopReason,
    build_message,
    control_type,
    parse_message,
    reserved0,
)

# RFC 2637 section 2.2 says 1; some PACs send 0
_SUCCESS = (0, StartResult.OK)


@value
class Idle:
    """Not opened yet, or waiting for the peer's Start-Control-Connection-Request."""


@value
class WaitReply:
    """Our Start-Control-Connection-Request is out (wait_ctl_reply)."""


@value
class Established:
    """Calls may be placed."""

    peer: PeerInfo


@value
class WaitStopReply:
    """Our Stop-Control-Connection-Request is out (wait_stop_reply); ``cause`` is why."""

    cause: Terminated


@value
class Closed:
    """Over. The owner closes the transport."""

    cause: Terminated


State = Idle | WaitReply | Established | WaitStopReply | Closed


class _Timer(Enum):
    ANSWER = "answer"  # Start-Request, Start-Reply or Stop-Reply of the peer
    IDLE = "idle"  # nothing heard: ask
    ECHO = "echo"  # asked: nothing heard


def higher_address_wins(local_address: int, remote_address: int) -> bool:
    """Section 3.1.3: whether our request survives a collision. Addresses are unsigned 32-bit, network order."""
    return local_address > remote_address


class ControlConnection:
    """See the module. ``initiator`` is the side that starts (``open`` sends its request).

    ``local_address`` and ``remote_address`` (unsigned 32-bit) decide a collision; an owner that opens a transport to
    a peer who opens another one at the same time gives the second machine the first as its ``rival``.
    """

    def __init__(
        self,
        config: ControlConfig,
        *,
        initiator: bool,
        local_address: int = 0,
        remote_address: int = 0,
        rival: ControlConnection | None = None,
    ) -> None:
        self._config = config
        self._initiator = initiator
        self._local_address = local_address
        self._remote_address = remote_address
        self._rival = rival
        self._state: State = Idle()
        self._echo_identifier = 0
        self._noted: set[str] = set()
        self._out: list[bytes] = []
        self._events: list[ControlEvent] = []
        self._timers: Timers[_Timer] = Timers()
        self._calls = Calls(config, self._send, self._emit)

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[bytes]:
        """Drain the messages to send, one whole message each."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[ControlEvent]:
        """Drain what happened; nothing follows ``Terminated``."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self._timers.deadline(), self._calls.deadline())

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that is due."""
        for timer in self._timers.pop_expired(now):
            match timer, self._state:
                case _Timer.ANSWER, WaitStopReply(cause):
                    self._close(cause)
                case _Timer.ANSWER, _:
                    self._close(Terminated(TerminationCause.PEER_SILENT, "no start of the control connection"))
                case _Timer.IDLE, Established():
                    self._ask(now)
                case _Timer.ECHO, Established():
                    self._close(Terminated(TerminationCause.PEER_SILENT, "no Echo-Reply"))
        late = self._calls.handle_timeout(now)
        if late is not None:
            self._close(Terminated(TerminationCause.PEER_SILENT, f"a call stayed in {late.state.value}"))

    # -- state ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state, with what belongs to it."""
        return self._state

    @property
    def established(self) -> bool:
        """Whether calls may be placed."""
        return isinstance(self._state, Established)

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call that has not ended, as it stands."""
        return tuple(self._calls)

    # -- commands -------------------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """The transport is up: send the Start-Control-Connection-Request, or wait for the peer's."""
        if not isinstance(self._state, Idle) or self._timers.at(_Timer.ANSWER) is not None:
            raise UsageError("a control connection is opened once")
        if not self._initiator:
            self._timers.arm(_Timer.ANSWER, now + self._config.first_wait)
            return
        self._state = WaitReply()
        self._timers.arm(_Timer.ANSWER, now + self._config.reply_wait)
        self._send(
            StartControlConnectionRequest(
                firmware_revision=self._config.firmware_revision,
                host_name=self._config.host_name,
                vendor_name=self._config.vendor_name,
            )
        )

    def stop(self, now: float, reason: StopReason = StopReason.LOCAL_SHUTDOWN) -> None:
        """End the connection and every call on it. Harmless when it is already ending."""
        cause = Terminated(TerminationCause.LOCAL_REQUEST)
        match self._state:
            case Established():
                self._stop(now, reason, cause)
            case Idle() | WaitReply():
                self._close(cause)

    def transport_closed(self, now: float) -> None:
        """The transport is gone: a hang-up of every call (many clients end a session no other way)."""
        match self._state:
            case Closed():
                pass
            case WaitStopReply(cause):
                self._close(cause)
            case _:
                self._close(Terminated(TerminationCause.PEER_REQUEST, "the transport was closed"))

    def place_outgoing_call(
        self, call_id: int, now: float, *, serial_number: int = 0, number: bytes = b""
    ) -> CallHandle:
        """As PNS: ask the peer for a call. Raises :class:`UsageError` unless established and the id is free."""
        self._require_established()
        return self._calls.place_outgoing(call_id, now, serial_number, number)

    def place_incoming_call(
        self, call_id: int, now: float, *, serial_number: int = 0, number: bytes = b""
    ) -> CallHandle:
        """As PAC: announce a call to the peer. Raises :class:`UsageError` unless established and the id is free."""
        self._require_established()
        return self._calls.place_incoming(call_id, now, serial_number, number)

    def accept_call(self, handle: CallHandle, call_id: int, now: float) -> None:
        """Accept a requested call; ``call_id`` is ours. Harmless once the call has ended."""
        self._calls.accept(handle, call_id, now)

    def refuse_call(
        self,
        handle: CallHandle,
        now: float,
        *,
        result: int = OutgoingCallResult.GENERAL_ERROR,
        error: int = GeneralError.NO_RESOURCE,
    ) -> None:
        """Refuse a requested call with a result and error code. Harmless once the call has ended."""
        self._calls.refuse(handle, result, error)

    def clear_call(self, handle: CallHandle, now: float) -> None:
        """End one call; the connection stays. Harmless once the call has ended."""
        self._calls.clear(handle, now)

    def set_link_info(self, handle: CallHandle, send_accm: int, receive_accm: int, now: float) -> None:
        """As PNS: tell the PAC the ACCMs that LCP agreed on."""
        self._calls.set_link_info(handle, send_accm, receive_accm)

    # -- messages -------------------------------------------------------------------------------------------

    def receive_message(self, data: bytes | memoryview, now: float) -> None:
        """Take one whole message of the peer. A malformed one closes the connection without an answer."""
        if isinstance(self._state, Closed):
            return
        try:
            message = parse_message(data)
        except WireError as error:
            self._close(Terminated(TerminationCause.PROTOCOL_ERROR, str(error)))
            return
        if reserved0(data):
            self._note("the reserved field of a message header is not zero")
        self._heard(now)
        try:
            self._receive(message, now)
        except PeerViolation as violation:
            self._note(f"{control_type(message).name}: {violation}")

    def malformed(self, error: WireError, now: float) -> None:
        """The owner's splitter lost the stream: section 1.4 wants the transport closed."""
        if not isinstance(self._state, Closed):
            self._close(Terminated(TerminationCause.PROTOCOL_ERROR, str(error)))

    def _receive(self, message: ControlMessage, now: float) -> None:
        if isinstance(message, EchoRequest):
            self._send(EchoReply(message.identifier))
            return
        match self._state, message:
            case Idle() | WaitReply(), StartControlConnectionRequest():
                self._start_requested(message, now)
            case WaitReply(), StartControlConnectionReply():
                self._start_replied(message, now)
            case WaitReply() | Established(), StopControlConnectionRequest(reason):
                self._send(StopControlConnectionReply())
                self._close(Terminated(TerminationCause.PEER_REQUEST, f"Stop-Control-Connection-Request: {reason}"))
            case Established(), StartControlConnectionRequest():
                self._send(self._start_reply(StartResult.ALREADY_EXISTS))
            case Established(), EchoReply(identifier) if identifier == self._echo_identifier:
                pass  # like every message, it has already counted as a sign of life
            case Established(), _ if isinstance(message, CallMessage):
                self._calls.receive(message, now)
            case Established(), _:
                raise PeerViolation("it answers nothing that was asked")
            case WaitStopReply(cause), StopControlConnectionReply():
                self._close(cause)
            case WaitStopReply(cause), StopControlConnectionRequest():
                self._send(StopControlConnectionReply())
                self._close(cause)
            case Idle() | WaitReply(), _:
                what = f"{control_type(message).name} before the control connection was established"
                self._close(Terminated(TerminationCause.PROTOCOL_ERROR, what))

    def _start_requested(self, message: StartControlConnectionRequest, now: float) -> None:
        if isinstance(self._state, WaitReply) and higher_address_wins(self._local_address, self._remote_address):
            return  # section 3.1.3, both on one transport: the peer gives way and answers ours
        if self._rival is not None and isinstance(self._rival.state, WaitReply):
            if higher_address_wins(self._local_address, self._remote_address):
                return  # the peer gives way: it closes this transport and answers on the other
            self._rival.give_way()
        if message.protocol_version != PROTOCOL_VERSION:
            self._send(self._start_reply(StartResult.BAD_VERSION))
            self._close(Terminated(TerminationCause.NOT_AGREED, f"version 0x{message.protocol_version:04x}"))
            return
        self._send(self._start_reply(StartResult.OK))
        self._establish(message, now)

    def _start_replied(self, message: StartControlConnectionReply, now: float) -> None:
        if message.result_code not in _SUCCESS:
            word = next((r.name.lower() for r in StartResult if r == message.result_code), "unknown result")
            detail = (
                f"Start-Control-Connection-Reply: {word} (result {message.result_code}, error {message.error_code})"
            )
            self._close(Terminated(TerminationCause.REFUSED, detail))
        elif message.protocol_version != PROTOCOL_VERSION:
            cause = Terminated(TerminationCause.NOT_AGREED, f"version 0x{message.protocol_version:04x}")
            self._stop(now, StopReason.PROTOCOL, cause)
        else:
            self._establish(message, now)

    def _establish(self, message: StartControlConnectionRequest | StartControlConnectionReply, now: float) -> None:
        peer = PeerInfo(message.host_name, message.vendor_name, message.firmware_revision, message.maximum_channels)
        self._state = Established(peer)
        self._timers.stop_all()
        self._heard(now)
        self._emit(ControlEstablished(peer))

    def give_way(self) -> None:
        """Lose a collision (section 3.1.3): the peer's own connection is the one that stays."""
        if isinstance(self._state, WaitReply):
            self._close(Terminated(TerminationCause.REPLACED, "the peer's own request has the higher address"))

    # -- keepalive ------------------------------------------------------------------------------------------

    def _heard(self, now: float) -> None:
        """Any message of the peer is a sign of life (section 3.1.4); nothing that we send is."""
        if isinstance(self._state, Established) and self._config.echo_interval is not None:
            self._timers.stop(_Timer.ECHO)
            self._timers.arm(_Timer.IDLE, now + self._config.echo_interval)

    def _ask(self, now: float) -> None:
        self._echo_identifier = (self._echo_identifier + 1) & 0xFFFFFFFF
        self._send(EchoRequest(self._echo_identifier))
        if self._config.echo_wait is not None:
            self._timers.arm(_Timer.ECHO, now + self._config.echo_wait)
        elif self._config.echo_interval is not None:
            self._timers.arm(_Timer.IDLE, now + self._config.echo_interval)

    # -- endings --------------------------------------------------------------------------------------------

    def _stop(self, now: float, reason: StopReason, cause: Terminated) -> None:
        self._calls.end_all(cause)
        self._send(StopControlConnectionRequest(reason))
        self._state = WaitStopReply(cause)
        self._timers.stop_all()
        self._timers.arm(_Timer.ANSWER, now + self._config.stop_wait)

    def _close(self, cause: Terminated) -> None:
        if isinstance(self._state, Closed):
            return
        self._calls.end_all(cause)
        self._state = Closed(cause)
        self._timers.stop_all()
        self._events += [CloseTransport(), cause]

    # -- small things ---------------------------------------------------------------------------------------

    def _send(self, message: ControlMessage) -> None:
        self._out.append(build_message(message))

    def _emit(self, event: ControlEvent) -> None:
        self._events.append(event)

    def _note(self, sentence: str) -> None:
        if sentence not in self._noted:  # a finite set: sentences never quote the peer
            self._noted.add(sentence)
            self._emit(Noted(sentence))

    def _require_established(self) -> None:
        if not self.established:
            raise UsageError("a call needs an established control connection")

    def _start_reply(self, result: StartResult) -> StartControlConnectionReply:
        return StartControlConnectionReply(
            result_code=result,
            maximum_channels=self._config.max_calls,
            firmware_revision=self._config.firmware_revision,
            host_name=self._config.host_name,
            vendor_name=self._config.vendor_name,
        )
