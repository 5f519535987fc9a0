"""The mirrored handshake: one TCP connection on which each side is PNS and PAC at once.

A NAT with a PPTP helper admits enhanced GRE for a call whose control connection it saw as the client's NAT. Where
both peers are behind such NATs each has to look like the client, so each sends what a PNS sends and answers what a
PAC is asked: two control connections (RFC 2637 section 3.1) on one TCP connection between port 1723 and port 1723,
mirror images of each other. The call comes in two forms, and both sides go by the same:

- incoming: announced by the PAC (Incoming-Call-Request, section 2.9) with Call ID 0. It opens the same flow of GRE that
  passes NATs without a helper, so one form serves both kinds.
- outgoing: requested by the PNS (Outgoing-Call-Request, section 2.7), for NATs that know only this one. They put a
  Call ID of their own in the place of the PNS's; netfilter takes the NATed TCP port, so that all are 1723 where the
  port is preserved. Both calls have to be one flow: each side's Call ID as PAC must be what its NAT made of the one it
  has as PNS. Only the peer sees that, and tells it beside this connection (``PeerCallSeen``,
  :meth:`MirroredCall.seen_as`); the peer's request is answered when it is known.

Deviation: section 3.1.3 settles a collision of two Start-Control-Connection-Requests by giving one of them up; here
both are answered, because each NAT waits for the reply to the one it saw go out.

The owner carries the stream, one message in one segment (helpers read no further than the first), and keeps the
connection open and quiet for as long as the call is wanted: any goodbye on it, and its end, makes the helpers forget
the flow. There is none in here, therefore; who is done closes the transport.
"""

from __future__ import annotations

from pptp.control import (
    CallEnded,
    CallEstablished,
    CallHandle,
    CallRequested,
    ControlConfig,
    ControlConnection,
    ControlEstablished,
    ControlEvent,
    Role,
)
from pptp.errors import Terminated, TerminationCause, WireError
from pptp.machine import earliest
from pptp.value import value
from pptp.wire.control import TCP_PORT, ControlType, MessageSplitter, control_type, parse_message

# RFC 2637 section 4.1, with what NATs without a helper make of it: only 0 in both directions is passed by all
CALL_ID = 0
# ours: what netfilter makes of any other where the port is preserved, so that those NATs have nothing to rewrite
OUTGOING_CALL_ID = TCP_PORT
# ours, because both sides are there and began together: what has not come by then will not come
ANSWER_WAIT = 10.0

# what concerns the control connection that we started, and our call as PNS; the rest concerns the peer's
_FOR_OURS = frozenset(
    {
        ControlType.START_REPLY,
        ControlType.ECHO_REPLY,
        ControlType.OUTGOING_CALL_REPLY,
        ControlType.INCOMING_CALL_REQUEST,
        ControlType.INCOMING_CALL_CONNECTED,
        ControlType.CALL_DISCONNECT_NOTIFY,
    }
)


@value
class MirroredCallUp:
    """Event: both calls are established, so both NATs have seen what they wait for.

    ``call_ids``: what our enhanced GRE carries from now on, and what the peer's does.
    """

    call_ids: tuple[int, int] = (CALL_ID, CALL_ID)


@value
class PeerCallSeen:
    """Event, in the outgoing form: the peer's request with this serial number arrived with this Call ID. Tell it."""

    serial_number: int
    call_id: int


MirroredEvent = MirroredCallUp | PeerCallSeen | Terminated


class MirroredCall:
    """See the module. Made when the TCP connection is up and gone with it; the last event is ``Terminated``.

    ``outgoing`` is the form; ``serial_number`` (16 bits) tells our request from those of earlier connections.
    """

    def __init__(self, *, outgoing: bool = False, serial_number: int = 0) -> None:
        self._outgoing = outgoing
        self._serial_number = serial_number
        self._external_id: int | None = None if outgoing else CALL_ID
        self._peer_id = CALL_ID
        self._requested: CallHandle | None = None
        config = ControlConfig(
            first_wait=ANSWER_WAIT,
            reply_wait=ANSWER_WAIT,
            call_wait=ANSWER_WAIT,
            max_calls=1,
            echo_interval=None,
            echo_wait=None,
        )
        self._ours = ControlConnection(config, initiator=True)
        self._theirs = ControlConnection(config, initiator=False)
        self._splitter = MessageSplitter()
        self._established = 0
        self._calls = 0
        self._over = False
        self._out: list[bytes] = []
        self._events: list[MirroredEvent] = []

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[bytes]:
        """Drain the messages to send, each to be a segment of its own."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[MirroredEvent]:
        """Drain what happened; nothing follows ``Terminated``."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return None if self._over else earliest(self._ours.deadline(), self._theirs.deadline())

    def handle_timeout(self, now: float) -> None:
        """End it where the peer has been silent too long."""
        if not self._over:
            self._ours.handle_timeout(now)
            self._theirs.handle_timeout(now)
            self._settle(now)

    # -- commands -------------------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """The TCP connection is up."""
        self._ours.open(now)
        self._theirs.open(now)
        self._settle(now)

    def receive(self, data: bytes, now: float) -> None:
        """Octets of the stream. What is no control message ends it, unanswered."""
        if self._over:
            return
        try:
            self._splitter.feed(data)
            while not self._over and (message := self._splitter.next_message()) is not None:
                concerned = self._ours if control_type(parse_message(message)) in _FOR_OURS else self._theirs
                concerned.receive_message(message, now)
                self._settle(now)
        except WireError as error:
            self._end(Terminated(TerminationCause.PROTOCOL_ERROR, str(error)))

    def seen_as(self, serial_number: int, call_id: int, now: float) -> None:
        """The peer says with which Call ID our request arrived; what is about another connection's is ignored."""
        if self._outgoing and self._external_id is None and serial_number == self._serial_number:
            self._external_id = call_id
            self._answer(now)
            self._settle(now)

    def transport_closed(self, now: float) -> None:
        """The TCP connection is gone, and with it what the NATs knew."""
        self._end(Terminated(TerminationCause.LOST_CARRIER, "the mirrored control connection was closed"))

    @property
    def up(self) -> bool:
        """Whether both calls are established."""
        return self._calls == 2 and not self._over

    # -- what follows ---------------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        while not self._over:
            events = [(one, event) for one in (self._ours, self._theirs) for event in one.events()]
            for one, event in events:
                self._take(one, event, now)
            if self._over:
                return
            self._out += [*self._ours.transmits(), *self._theirs.transmits()]
            if not events:
                return

    def _take(self, one: ControlConnection, event: ControlEvent, now: float) -> None:
        match event:
            case ControlEstablished():
                self._established += 1
                if self._established == 2:  # not sooner: the peer's NAT must have seen our reply to its request
                    self._place(now)
            case CallRequested(call=call) if call.incoming and not self._outgoing:
                one.accept_call(call.handle, CALL_ID, now)
            case CallRequested(call=call) if self._outgoing and not call.incoming:
                self._requested = call.handle
                self._events.append(PeerCallSeen(call.serial_number, call.peer_call_id or 0))
                self._answer(now)
            case CallEstablished(call=call):
                self._calls += 1
                if self._outgoing and call.role is Role.PNS:
                    self._peer_id = call.peer_call_id or 0
                if self._calls == 2 and self._external_id is not None:
                    self._events.append(MirroredCallUp((self._peer_id, self._external_id)))
            case CallEnded(cause=cause) | (Terminated() as cause):
                self._end(cause)
            case _:
                pass

    def _place(self, now: float) -> None:
        if self._outgoing:
            self._ours.place_outgoing_call(OUTGOING_CALL_ID, now, serial_number=self._serial_number)
        else:
            self._theirs.place_incoming_call(CALL_ID, now)

    def _answer(self, now: float) -> None:
        """Accept the peer's request for an outgoing call, once it is known with which Call ID."""
        if self._requested is not None and self._external_id is not None:
            self._theirs.accept_call(self._requested, self._external_id, now)

    def _end(self, cause: Terminated) -> None:
        if not self._over:
            self._over = True
            self._out.clear()  # the peer hears of it by the end of the connection
            self._events.append(cause)
