"""The calls of one control connection (RFC 2637 section 3.2).

:class:`Calls` is made and owned by a ``ControlConnection``, which feeds it call messages while the connection is
established, and dies with it. Each call is a frozen :class:`~pptp.control.values.Call`; a transition replaces it.

Who may say what, and in which state of ours it means something (sections 3.2.3 and 3.2.4)::

    message                       we are    our state
    Outgoing-Call-Request         PAC       (idle)
    Outgoing-Call-Reply           PNS       wait_reply, wait_disconnect
    Incoming-Call-Request         PNS       (idle)
    Incoming-Call-Reply           PAC       wait_reply
    Incoming-Call-Connected       PNS       wait_connect, wait_disconnect
    Call-Clear-Request            PAC       any
    Call-Disconnect-Notify        PNS       any
    WAN-Error-Notify              PNS       established
    Set-Link-Info                 PAC       established

Anything else is noted and not answered, but for a Call-Clear-Request of an unknown call. A Call ID is unique for one
role: where each side is PNS of one call and PAC of another, both calls may well have the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from pptp.control.values import (
    Call,
    CallEnded,
    CallEstablished,
    CallHandle,
    CallRequested,
    CallState,
    ControlConfig,
    ControlEvent,
    LinkInfoReceived,
    Role,
    WanErrorsReceived,
)
from pptp.errors import PeerViolation, Terminated, TerminationCause, UsageError
from pptp.machine import earliest
from pptp.wire.control import (
    CallClearRequest,
    CallDisconnectNotify,
    CallMessage,
    ControlMessage,
    DisconnectResult,
    GeneralError,
    IncomingCallConnected,
    IncomingCallReply,
    IncomingCallRequest,
    IncomingCallResult,
    OutgoingCallReply,
    OutgoingCallRequest,
    OutgoingCallResult,
    SetLinkInfo,
    WanErrorNotify,
)

# RFC 2637 sections 2.8 and 2.10 say 1; some PACs send 0
_SUCCESS = (0, 1)

_DISCONNECT_CAUSES = {
    DisconnectResult.LOST_CARRIER: TerminationCause.LOST_CARRIER,
    DisconnectResult.GENERAL_ERROR: TerminationCause.PROTOCOL_ERROR,
}


class Calls:
    """See the module. ``send`` and ``emit`` are where messages and events go, in order."""

    def __init__(
        self,
        config: ControlConfig,
        send: Callable[[ControlMessage], None],
        emit: Callable[[ControlEvent], None],
    ) -> None:
        self._config = config
        self._send = send
        self._emit = emit
        self._calls: dict[CallHandle, Call] = {}
        self._last_handle = 0

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls.values())

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, handle: CallHandle) -> Call | None:
        """The call as it stands, ``None`` once it has ended."""
        return self._calls.get(handle)

    # -- commands -------------------------------------------------------------------------------------------

    def place_outgoing(self, call_id: int, now: float, serial_number: int, number: bytes) -> CallHandle:
        """As PNS: Outgoing-Call-Request."""
        call = self._new_own(Role.PNS, False, call_id, serial_number, number, now)
        self._send(
            OutgoingCallRequest(
                call_id,
                serial_number,
                maximum_bps=self._config.maximum_bps,
                receive_window=self._config.receive_window,
                processing_delay=self._config.processing_delay,
                phone_number=number,
            )
        )
        return call.handle

    def place_incoming(self, call_id: int, now: float, serial_number: int, number: bytes) -> CallHandle:
        """As PAC: Incoming-Call-Request."""
        call = self._new_own(Role.PAC, True, call_id, serial_number, number, now)
        self._send(IncomingCallRequest(call_id, serial_number, dialed_number=number))
        return call.handle

    def accept(self, handle: CallHandle, call_id: int, now: float) -> None:
        """Accept a requested call under our ``call_id``. Harmless once it has ended."""
        call = self._deciding(handle)
        if call is None:
            return
        self._check_call_id(call.role, call_id)
        if call.role is Role.PNS:
            self._put(replace(call, call_id=call_id, state=CallState.WAIT_CONNECT, deadline=self._late(now)))
            self._send(
                IncomingCallReply(
                    call_id,
                    self._peers_id(call),
                    receive_window=self._config.receive_window,
                    processing_delay=self._config.processing_delay,
                )
            )
            return
        accepted = replace(call, call_id=call_id, state=CallState.ESTABLISHED, deadline=None)
        self._put(accepted)
        self._send(self._outgoing_reply(accepted))
        self._emit(CallEstablished(accepted))

    def refuse(self, handle: CallHandle, result: int, error: int) -> None:
        """Refuse a requested call; ``result`` is an OutgoingCallResult or, for an incoming call, an IncomingCallResult.

        The Call ID in the reply is 0: a call that does not come to be has none of ours. Harmless once it has ended.
        """
        call = self._deciding(handle)
        if call is None:
            return
        if result in _SUCCESS:
            raise UsageError(f"result {result} does not refuse a call")
        self._refuse(call.incoming, self._peers_id(call), result, error)
        self._end(call, Terminated(TerminationCause.LOCAL_REQUEST, "refused"))

    def clear(self, handle: CallHandle, now: float) -> None:
        """End a call: Call-Clear-Request as PNS, Call-Disconnect-Notify as PAC. Harmless once it has ended."""
        call = self._calls.get(handle)
        if call is None or call.state is CallState.WAIT_DISCONNECT:
            return
        if call.state is CallState.DECIDING:
            refusal = IncomingCallResult.DO_NOT_ACCEPT if call.incoming else OutgoingCallResult.DO_NOT_ACCEPT
            self.refuse(handle, refusal, GeneralError.NONE)
        elif call.role is Role.PNS:
            self._put(replace(call, state=CallState.WAIT_DISCONNECT, deadline=self._late(now)))
            self._send(CallClearRequest(self._own_id(call)))
        else:
            self._send(CallDisconnectNotify(self._own_id(call), DisconnectResult.ADMIN_SHUTDOWN))
            self._end(call, Terminated(TerminationCause.LOCAL_REQUEST))

    def set_link_info(self, handle: CallHandle, send_accm: int, receive_accm: int) -> None:
        """As PNS: Set-Link-Info. Not for a PAC: some NATs' PPTP helpers drop the call after one from it."""
        call = self._calls.get(handle)
        if call is None or call.role is not Role.PNS or call.state is not CallState.ESTABLISHED:
            raise UsageError("Set-Link-Info is a PNS's, for an established call")
        self._send(SetLinkInfo(self._peers_id(call), send_accm, receive_accm))

    def end_all(self, cause: Terminated) -> None:
        """The control connection is over, and every call with it. Nothing is sent."""
        for call in list(self._calls.values()):
            self._end(call, cause)

    # -- time -----------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When the first state that must not last is over."""
        return earliest(*(call.deadline for call in self._calls.values()))

    def handle_timeout(self, now: float) -> Call | None:
        """Act on late calls. Returns one for which section 3.2.1 has the whole control connection closed."""
        for call in list(self._calls.values()):
            if call.deadline is None or call.deadline > now:
                continue
            if call.state is not CallState.DECIDING:
                return call
            # Our own owner was the slow one: that costs this call and not its neighbours.
            late = IncomingCallResult.DO_NOT_ACCEPT if call.incoming else OutgoingCallResult.TIME_OUT
            self._refuse(call.incoming, self._peers_id(call), late, GeneralError.NONE)
            self._end(call, Terminated(TerminationCause.TIMEOUT, "nobody decided about the call"))
        return None

    # -- messages -------------------------------------------------------------------------------------------

    def receive(self, message: CallMessage, now: float) -> None:
        """Take a call message of the peer; raises :class:`PeerViolation` where it means nothing here."""
        match message:
            case OutgoingCallRequest():
                self._outgoing_requested(message, now)
            case OutgoingCallReply():
                self._outgoing_replied(message)
            case IncomingCallRequest():
                self._incoming_requested(message, now)
            case IncomingCallReply():
                self._incoming_replied(message)
            case IncomingCallConnected():
                self._incoming_connected(message)
            case CallClearRequest():
                self._clear_requested(message)
            case CallDisconnectNotify():
                self._disconnected(message)
            case WanErrorNotify():
                call = self._expect(Role.PNS, None, message.peer_call_id, CallState.ESTABLISHED)
                self._emit(WanErrorsReceived(call, message))
            case SetLinkInfo():
                call = self._expect(Role.PAC, None, message.peer_call_id, CallState.ESTABLISHED)
                call = replace(call, send_accm=message.send_accm, receive_accm=message.receive_accm)
                self._put(call)
                self._emit(LinkInfoReceived(call))

    def _outgoing_requested(self, message: OutgoingCallRequest, now: float) -> None:
        self._requested(
            now,
            Call(
                self._next_handle(),
                Role.PAC,
                incoming=False,
                state=CallState.DECIDING,
                peer_call_id=message.call_id,
                serial_number=message.call_serial_number,
                connect_speed=min(message.maximum_bps, self._config.maximum_bps),
                peer_window=message.receive_window,
                peer_processing_delay=message.processing_delay,
                number=message.phone_number,
            ),
        )

    def _incoming_requested(self, message: IncomingCallRequest, now: float) -> None:
        self._requested(
            now,
            Call(
                self._next_handle(),
                Role.PNS,
                incoming=True,
                state=CallState.DECIDING,
                peer_call_id=message.call_id,
                serial_number=message.call_serial_number,
                number=message.dialed_number,
            ),
        )

    def _requested(self, now: float, call: Call) -> None:
        peer_call_id = self._peers_id(call)
        known = self._by_peers_id(call.role, peer_call_id)
        if known is None and len(self._calls) < self._config.max_calls:
            call = replace(call, deadline=self._late(now))
            self._put(call)
            self._emit(CallRequested(call))
        elif known is None:
            self._refuse(call.incoming, peer_call_id, OutgoingCallResult.GENERAL_ERROR, GeneralError.NO_RESOURCE)
        elif (known.incoming, known.serial_number) != (call.incoming, call.serial_number):
            self._refuse(call.incoming, peer_call_id, OutgoingCallResult.GENERAL_ERROR, GeneralError.BAD_CALL_ID)
        elif known.state is CallState.ESTABLISHED and not known.incoming:
            self._send(self._outgoing_reply(known))  # the same request again: the same answer, never a second call

    def _outgoing_replied(self, message: OutgoingCallReply) -> None:
        waiting = (CallState.WAIT_REPLY, CallState.WAIT_DISCONNECT)
        call = self._expect(Role.PNS, False, message.peer_call_id, *waiting)
        if message.result_code not in _SUCCESS:
            self._end(
                call, _refusal("Outgoing-Call-Reply", OutgoingCallResult, message.result_code, message.error_code)
            )
            return
        call = replace(
            call,
            peer_call_id=message.call_id,
            connect_speed=message.connect_speed,
            peer_window=message.receive_window,
            peer_processing_delay=message.processing_delay,
        )
        if call.state is CallState.WAIT_DISCONNECT:  # our Call-Clear-Request crossed it: the PAC will disconnect
            self._put(call)
        else:
            self._establish(call)

    def _incoming_replied(self, message: IncomingCallReply) -> None:
        call = self._expect(Role.PAC, True, message.peer_call_id, CallState.WAIT_REPLY)
        if message.result_code not in _SUCCESS:
            self._end(
                call, _refusal("Incoming-Call-Reply", IncomingCallResult, message.result_code, message.error_code)
            )
            return
        call = replace(
            call,
            peer_call_id=message.call_id,
            connect_speed=self._config.maximum_bps,
            peer_window=message.receive_window,
            peer_processing_delay=message.processing_delay,
        )
        self._send(
            IncomingCallConnected(
                message.call_id,
                connect_speed=call.connect_speed,
                receive_window=self._config.receive_window,
                processing_delay=self._config.processing_delay,
            )
        )
        self._establish(call)

    def _incoming_connected(self, message: IncomingCallConnected) -> None:
        waiting = (CallState.WAIT_CONNECT, CallState.WAIT_DISCONNECT)
        call = self._expect(Role.PNS, True, message.peer_call_id, *waiting)
        if call.state is CallState.WAIT_DISCONNECT:  # it crossed our Call-Clear-Request
            return
        self._establish(
            replace(
                call,
                connect_speed=message.connect_speed,
                peer_window=message.receive_window,
                peer_processing_delay=message.processing_delay,
            )
        )

    def _clear_requested(self, message: CallClearRequest) -> None:
        call = self._by_peers_id(Role.PAC, message.call_id)
        if call is None:
            unknown = CallDisconnectNotify(message.call_id, DisconnectResult.GENERAL_ERROR, GeneralError.BAD_CALL_ID)
            self._send(unknown)
            return
        # Before we assigned an id the PNS knows the call only by its own.
        own = message.call_id if call.call_id is None else call.call_id
        self._send(CallDisconnectNotify(own, DisconnectResult.REQUEST))
        self._end(call, Terminated(TerminationCause.PEER_REQUEST, "Call-Clear-Request"))

    def _disconnected(self, message: CallDisconnectNotify) -> None:
        # The PAC's own id by section 2.13; the PNS's from several implementations.
        call = self._by_peers_id(Role.PNS, message.call_id) or self._by_own_id(Role.PNS, message.call_id)
        if call is None:
            raise PeerViolation("a Call-Disconnect-Notify for an unknown call")
        if call.state is CallState.WAIT_DISCONNECT:
            self._end(call, Terminated(TerminationCause.LOCAL_REQUEST))
            return
        known = message.result_code in DisconnectResult.__members__.values()
        result = DisconnectResult(message.result_code) if known else DisconnectResult.UNSPECIFIED
        cause = _DISCONNECT_CAUSES.get(result, TerminationCause.PEER_REQUEST)
        detail = f"Call-Disconnect-Notify: result {message.result_code}, error {message.error_code}"
        self._end(call, Terminated(cause, detail))

    # -- the table of calls ---------------------------------------------------------------------------------

    def _by_own_id(self, role: Role, call_id: int) -> Call | None:
        return next((c for c in self._calls.values() if c.role is role and c.call_id == call_id), None)

    def _by_peers_id(self, role: Role, call_id: int) -> Call | None:
        return next((c for c in self._calls.values() if c.role is role and c.peer_call_id == call_id), None)

    def _expect(self, role: Role, incoming: bool | None, call_id: int, *states: CallState) -> Call:
        call = self._by_own_id(role, call_id)
        if call is None:
            raise PeerViolation("a message for a call this side does not have")
        if call.state not in states or (incoming is not None and call.incoming is not incoming):
            raise PeerViolation(f"a message that means nothing to a call in {call.state.value}")
        return call

    def _deciding(self, handle: CallHandle) -> Call | None:
        call = self._calls.get(handle)
        if call is not None and call.state is not CallState.DECIDING:
            raise UsageError("only a requested call can be accepted or refused")
        return call

    def _check_call_id(self, role: Role, call_id: int) -> None:
        if not 0 <= call_id <= 0xFFFF or self._by_own_id(role, call_id) is not None:
            raise UsageError(f"Call ID {call_id} is out of range or in use")

    def _new_own(self, role: Role, incoming: bool, call_id: int, serial_number: int, number: bytes, now: float) -> Call:
        self._check_call_id(role, call_id)
        call = Call(
            self._next_handle(),
            role,
            incoming,
            CallState.WAIT_REPLY,
            call_id=call_id,
            serial_number=serial_number,
            number=number,
            deadline=self._late(now),
        )
        self._put(call)
        return call

    def _establish(self, call: Call) -> None:
        call = replace(call, state=CallState.ESTABLISHED, deadline=None)
        self._put(call)
        self._emit(CallEstablished(call))

    def _end(self, call: Call, cause: Terminated) -> None:
        del self._calls[call.handle]
        self._emit(CallEnded(call, cause))

    def _put(self, call: Call) -> None:
        self._calls[call.handle] = call

    def _next_handle(self) -> CallHandle:
        self._last_handle += 1
        return CallHandle(self._last_handle)

    def _late(self, now: float) -> float:
        return now + self._config.call_wait

    # -- replies --------------------------------------------------------------------------------------------

    def _outgoing_reply(self, call: Call) -> OutgoingCallReply:
        return OutgoingCallReply(
            self._own_id(call),
            self._peers_id(call),
            connect_speed=call.connect_speed,
            receive_window=self._config.receive_window,
            processing_delay=self._config.processing_delay,
        )

    def _refuse(self, incoming: bool, peer_call_id: int, result: int, error: int) -> None:
        if incoming:
            self._send(IncomingCallReply(0, peer_call_id, result, error, receive_window=0))
        else:
            self._send(OutgoingCallReply(0, peer_call_id, result, error, receive_window=0))

    @staticmethod
    def _own_id(call: Call) -> int:
        if call.call_id is None:
            raise UsageError("this call has no Call ID of ours yet")
        return call.call_id

    @staticmethod
    def _peers_id(call: Call) -> int:
        if call.peer_call_id is None:
            raise UsageError("this call has no Call ID of the peer's yet")
        return call.peer_call_id


def _refusal(
    what: str, results: type[OutgoingCallResult] | type[IncomingCallResult], result: int, error: int
) -> Terminated:
    word = next((member.name.lower() for member in results if member == result), "unknown result")
    return Terminated(TerminationCause.REFUSED, f"{what}: {word} (result {result}, error {error})")
