"""One PPTP session: a control connection, the one call on it, and the PPP link in that call.

The owner carries control messages (over TCP 1723, or over the reliable stream between two grepunch peers) and PPP
frames (over whatever GRE path it has), and decides when the path is there. The session decides everything between:
the PNS starts the control connection and places the call, the PAC answers; when the call is established and
the path is there the link opens; when any of the three ends, the others end with it, and the last event is
``Terminated``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from pptp.control import (
    CallEnded,
    CallEstablished,
    CallRequested,
    ControlConfig,
    ControlConnection,
    ControlEstablished,
    ControlEvent,
)
from pptp.errors import Terminated, TerminationCause
from pptp.machine import earliest
from pptp.ppp.link import Link, LinkEvent
from pptp.ppp.policy import LinkConfig
from pptp.timers import Timers
from pptp.value import value
from pptp.wire.ppp import PppFrame

# ours, because RFC 1661 section 3.7 wants the peer's Terminate-Ack waited for, and a user who stops does not wait long
LINK_CLOSE_WAIT = 0.5


@value
class ControlOut:
    """One whole control message to send."""

    message: bytes


@value
class SessionConfig:
    """``dials``: we are the PNS. ``call_id`` is the one we assign (0 between grepunch peers)."""

    dials: bool
    call_id: int
    control: ControlConfig
    link: LinkConfig


@value
class CallUp:
    """Event: control connection and call are established; PPP may flow."""

    call_id: int
    peer_call_id: int


SessionEvent = CallUp | LinkEvent | Terminated


class _Timer(Enum):
    LINK_CLOSE = "link_close"


class Session:
    """See the module. Made for one call; the owner drops it after ``Terminated``."""

    def __init__(self, config: SessionConfig, *, entropy: Callable[[int], bytes]) -> None:
        self._config = config
        self._control = ControlConnection(config.control, initiator=config.dials)
        self._link = Link(config.link, entropy=entropy)
        self._reason: Terminated | None = None
        self._call_up = False
        self._path_up = False
        self._link_open = False
        self._closing = False
        self._over = False
        self._out: list[ControlOut | PppFrame] = []
        self._events: list[SessionEvent] = []
        self._timers: Timers[_Timer] = Timers()

    # -- the machine contract ------------------------------------------------------------------------------

    def transmits(self) -> list[ControlOut | PppFrame]:
        """Drain control messages and PPP frames to send."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[SessionEvent]:
        """Drain what happened; nothing follows ``Terminated``."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        if self._over:
            return None
        return earliest(self._timers.deadline(), self._control.deadline(), self._link.deadline())

    def handle_timeout(self, now: float) -> None:
        """Act on what is due."""
        if self._over:
            return
        if self._timers.pop_expired(now):
            self._stop_control(now)
        self._control.handle_timeout(now)
        self._link.handle_timeout(now)
        self._settle(now)

    # -- commands --------------------------------------------------------------------------------------------

    def open(self, now: float) -> None:
        """The control channel is there: the PNS begins, the PAC waits to be asked."""
        self._control.open(now)
        self._settle(now)

    def path_up(self, now: float) -> None:
        """PPP frames have a path. Harmless when they had one."""
        self._path_up = True
        self._settle(now)

    def close(self, now: float) -> None:
        """Say goodbye: link, call, control connection. ``Terminated`` follows."""
        if self._closing or self._over:
            return
        self._closing = True
        if self._link_open:
            self._link.close(now)
            self._timers.arm(_Timer.LINK_CLOSE, now + LINK_CLOSE_WAIT)
        else:
            self._stop_control(now)
        self._settle(now)

    # -- what arrives ----------------------------------------------------------------------------------------

    def receive_control(self, message: bytes, now: float) -> None:
        """One whole control message of the peer."""
        if not self._over:
            self._control.receive_message(message, now)
            self._settle(now)

    def receive_ppp(self, protocol: int, information: bytes, now: float) -> None:
        """A PPP frame of the peer that is not data of an open network protocol."""
        if not self._over:
            self._link.receive(protocol, information, now)
            self._settle(now)

    # -- what follows ------------------------------------------------------------------------------------------

    def _stop_control(self, now: float) -> None:
        self._control.stop(now)

    def _settle(self, now: float) -> None:
        """Let link and control connection tell each other what happened, until nothing follows any more."""
        while not self._over:
            control_events = self._control.events()
            for control_event in control_events:
                self._take_control(control_event, now)
            if self._call_up and self._path_up and not self._link_open and not self._closing:
                self._link_open = True
                self._link.open(now)
            link_events = self._link.events()
            for link_event in link_events:
                self._take_link(link_event, now)
            self._out.extend(ControlOut(message) for message in self._control.transmits())
            self._out.extend(self._link.transmits())
            if not control_events and not link_events:
                return

    def _take_control(self, event: ControlEvent, now: float) -> None:
        match event:
            case ControlEstablished() if self._config.dials:
                self._control.place_outgoing_call(self._config.call_id, now)
            case CallRequested(call=call) if not self._config.dials and not call.incoming and not self._call_up:
                self._control.accept_call(call.handle, self._config.call_id, now)
            case CallRequested(call=call):
                self._control.refuse_call(call.handle, now)
            case CallEstablished(call=call):
                self._call_up = True
                self._events.append(CallUp(call.call_id or 0, call.peer_call_id or 0))
            case CallEnded(cause=reason):
                self._call_up = False
                self._reason = self._reason or reason
                if not self._closing:
                    self._closing = True
                    self._stop_control(now)
            case Terminated():
                self._end(self._reason or event, now)
            case _:
                pass

    def _take_link(self, event: LinkEvent, now: float) -> None:
        if not isinstance(event, Terminated):
            self._events.append(event)
            return
        self._reason = self._reason or event
        self._timers.stop_all()
        self._closing = True
        self._stop_control(now)

    def _end(self, reason: Terminated, now: float) -> None:
        if self._link_open:
            self._link.lower_down(now)
            for event in self._link.events():
                if not isinstance(event, Terminated):
                    self._events.append(event)
                elif reason.cause is TerminationCause.PEER_REQUEST and event.cause is reason.cause:
                    reason = event  # the link's goodbye says more than the control connection's
        self._out.extend(ControlOut(message) for message in self._control.transmits())
        self._over = True
        self._events.append(reason)
