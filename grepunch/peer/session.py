"""What lives and dies with one pair of session ids: the control stream, the PPTP session and the traversal.

The three speak to the peer through one another: PPTP's control messages and the traversal's own travel in the
reliable stream, and the traversal's result is the path that PPP needs. The peer machine seals what comes out and hands
in what was opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from grepunch.peer.mirror import Mirror, MirrorKeep, MirrorTransmit
from grepunch.ports import GreSend, RelayPolicy
from grepunch.signalling.arq import Arq, ArqFailed, Delivered
from grepunch.signalling.messages import CallStep, OutgoingCall, PptpMessage, RelayWish, build, parse
from grepunch.traversal import PathProven, RoundFailed, RoundStarts, Traversal, TraversalEvent
from pptp.errors import Drop, PeerViolation, Terminated, TerminationCause, WireError
from pptp.machine import earliest
from pptp.session import ControlOut, Session, SessionEvent
from pptp.value import value
from pptp.wire.ppp import PppFrame


@value
class SegmentOut:
    """A segment of the control stream, to be sealed and sent on the best carrier."""

    body: bytes


@dataclass(slots=True)
class Taps:
    """Who wants to see the inside (a capture): control messages and PPP frames, and whether they are ours."""

    control: Callable[[bytes, bool], None] | None = None
    ppp: Callable[[int, bytes, bool], None] | None = None


SealedTransmit = SegmentOut | PppFrame | GreSend | MirrorTransmit
SealedEvent = SessionEvent | TraversalEvent | RelayWish


class SealedSession:
    """See the module; made by the peer machine when keys for a new session are live."""

    def __init__(self, arq: Arq, pptp: Session, traversal: Traversal, taps: Taps) -> None:
        self.traversal = traversal
        self.mirror = Mirror(traversal.afford)
        self.drops: Counter[Drop] = Counter()
        self._arq = arq
        self._pptp = pptp
        self._taps = taps
        self._out: list[SealedTransmit] = []
        self._events: list[SealedEvent] = []

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[SealedTransmit]:
        """Drain what is to be sent."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[SealedEvent]:
        """Drain what happened; ``Terminated`` is the end of the session."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self._arq.deadline(), self._pptp.deadline(), self.traversal.deadline(), self.mirror.deadline())

    def handle_timeout(self, now: float) -> None:
        """Act on what is due."""
        self._arq.handle_timeout(now)
        self._pptp.handle_timeout(now)
        self.traversal.handle_timeout(now)
        self.mirror.handle_timeout(now)
        self.settle(now)

    # -- commands ---------------------------------------------------------------------------------------------

    def open(self, relay: RelayPolicy, now: float) -> None:
        """Begin: tell what we think of the relay; the dialer starts the control connection."""
        self._send_message(build(RelayWish(relay)), now)
        self._pptp.open(now)
        self.settle(now)

    def path_up(self, now: float) -> None:
        """PPP has a path, and the control stream a better carrier."""
        self._arq.carrier_changed(now)
        self._pptp.path_up(now)
        self.settle(now)

    def reach(self, reachable: bool, now: float) -> None:
        """Whether there is a way to the peer that may work; without one the control stream waits patiently."""
        self._arq.reach(reachable, now)

    def carrier_changed(self, now: float) -> None:
        """There is a fresh way to the peer: what is unacknowledged goes out again at once."""
        self._arq.reach(True, now)
        self._arq.carrier_changed(now)

    def stop_punching(self, now: float) -> None:
        """There is a path: look for no other."""
        self.traversal.stop(now)
        self.mirror.settled()

    def close(self, now: float) -> None:
        """Say goodbye."""
        self.stop_punching(now)
        self._pptp.close(now)
        self.settle(now)

    def abandon(self) -> list[MirrorTransmit]:
        """The session is over for us, whatever was still to be said; what closes its connection."""
        self.mirror.hang_up()
        return self.mirror.transmits()

    @property
    def idle(self) -> bool:
        """Whether the peer has acknowledged everything we said."""
        return self._arq.idle

    def aims_at(self, address: IPv4Address) -> bool:
        """Whether our probes go there."""
        return self.traversal.aims_at(address)

    # -- what arrives -----------------------------------------------------------------------------------------

    def receive_segment(self, body: bytes, now: float) -> None:
        """A segment of the control stream."""
        try:
            self._arq.receive(body, now)
        except WireError:
            self.drops[Drop.MALFORMED] += 1
        except PeerViolation:
            self.drops[Drop.WRONG_PHASE] += 1
        self.settle(now)

    def receive_ppp(self, protocol: int, information: bytes, now: float) -> None:
        """A PPP frame that is not data."""
        if self._taps.ppp is not None:
            self._taps.ppp(protocol, information, False)
        self._pptp.receive_ppp(protocol, information, now)
        self.settle(now)

    # -- what follows -----------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Pass on what the machines have for one another, until none has anything left.

        To be called after the traversal was told something directly.
        """
        while self._pass_on(now):
            pass

    def _pass_on(self, now: float) -> bool:
        arq_events = self._arq.events()
        for heard in arq_events:
            match heard:
                case Delivered(message=message):
                    self._receive_message(message, now)
                case ArqFailed():
                    self._events.append(Terminated(TerminationCause.LOST_CARRIER, "control messages went unanswered"))
        pptp_out = self._pptp.transmits()
        for out in pptp_out:
            if isinstance(out, ControlOut):
                if self._taps.control is not None:
                    self._taps.control(out.message, True)
                self._send_message(build(PptpMessage(out.message)), now)
            else:
                if self._taps.ppp is not None:
                    self._taps.ppp(out.protocol, bytes(out.information), True)
                self._out.append(out)
        traversal_out = self.traversal.transmits()
        for item in traversal_out:
            if isinstance(item, GreSend):
                self._out.append(item)
            else:
                self._send_message(build(item), now)
        self._take_segments()
        events: list[SealedEvent] = [*self._pptp.events(), *self.traversal.events()]
        for event in events:
            match event:
                case RoundStarts():
                    self.mirror.begin(
                        event.number, event.at, event.external, first=event.call_first, outgoing=event.outgoing
                    )
                case PathProven() | RoundFailed(slot_taken=True):
                    self.mirror.settled()
                case _:
                    pass
        mirror_says, mirror_out = self.mirror.messages(), self.mirror.transmits()
        for said in mirror_says:
            self._send_message(build(said), now)
        if any(isinstance(item, MirrorKeep) for item in mirror_out):
            self.traversal.call_seen(now)
        self._out += mirror_out
        self._events += events
        return bool(arq_events or pptp_out or traversal_out or events or mirror_says or mirror_out)

    def _send_message(self, message: bytes, now: float) -> None:
        self._arq.send(message, now)
        self._take_segments()  # in order: a call's answer goes before the first PPP frame of the call

    def _take_segments(self) -> None:
        self._out.extend(SegmentOut(segment) for segment in self._arq.transmits())

    def _receive_message(self, message: bytes, now: float) -> None:
        try:
            parsed = parse(message)
        except WireError:
            self.drops[Drop.MALFORMED] += 1
            return
        match parsed:
            case PptpMessage(data):
                if self._taps.control is not None:
                    self._taps.control(data, False)
                self._pptp.receive_control(data, now)
            case RelayWish():
                self._events.append(parsed)
            case OutgoingCall(step=CallStep.NEXT | CallStep.SEEN):
                self.mirror.told(parsed, now)
            case _:
                self.traversal.receive(parsed, now)
