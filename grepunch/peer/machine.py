"""One punched peer, from "not there" to an open PPP link and back: the machine that joins all the others.

It owns the key exchange, the reliable control stream, the PPTP session, the traversal, the ways to the peer and (where
there is no rendezvous) a direct attempt; the endpoint owns it, moves its bytes and hears its events. Handshakes and
control messages travel in the hole or through the mailbox, PPP and data in the hole or over the relay.

The life of a peer is :class:`~grepunch.peer.events.PeerState`. A session ends with a goodbye of either side, with
keys that expired unrenewed, or when the same peer begins a newer one; silence alone never ends it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from grepunch.peer.constants import DIRECT_AFTER, GOODBYE_WAIT, HANDSHAKE_RETRY, SETTLE_ROUNDS
from grepunch.peer.context import PeerContext
from grepunch.peer.events import (
    CarrierChanged,
    HandshakeFailed,
    MailboxDoubted,
    PathUp,
    PeerEvent,
    PeerState,
    PeerTransmit,
    PunchFailed,
    SessionEnded,
    StateChanged,
)
from grepunch.peer.hole import FirstFrame, HeardAgain, InnerMtu, Moved, Place, Silent, Unanswered
from grepunch.peer.mirror import MirrorData, MirrorDial, MirrorHangUp, MirrorKeep, MirrorNews
from grepunch.peer.relay import RELAY_MTU
from grepunch.peer.session import SealedSession, SegmentOut
from grepunch.peer.view import PeerView
from grepunch.peer.ways import Carrier
from grepunch.ports import RELAY, GreFrame, GreSend, PathNews, Way
from grepunch.punch.plan import Proven
from grepunch.punch.puncher import WindowEnded
from grepunch.secure.events import ConfirmWanted, ExchangeFailed, KeysDropped, KeysLive, KeysReady
from grepunch.secure.exchange import KeyExchange
from grepunch.secure.handshake import MessageType, OpenedInitiation
from grepunch.signalling.messages import RelayWish
from grepunch.traversal import PathDoubted, PathProven, RoundFailed
from pptp.datapath import SealedPair
from pptp.errors import Drop, DropError, Terminated, TerminationCause, WireError
from pptp.machine import earliest
from pptp.ppp.control_protocol import NetworkDown, NetworkUp
from pptp.timers import Timers
from pptp.wire.ppp import Protocol
from pptp.wire.sealed import EMPTY_PROTOCOL, is_sealed, receiver_index
from pptp.wire.vendor import (
    VENDOR_NETWORK_PROTOCOL,
    SealedKind,
    build_vendor_network,
    parse_vendor_network,
)

_IP_PROTOCOLS = frozenset({int(Protocol.IPV4), int(Protocol.IPV6)})


class _Timer(Enum):
    GOODBYE = "goodbye"
    DIRECT = "direct"
    HANDSHAKE = "handshake"


class PeerMachine(PeerView):
    """See the module. ``exchange`` is the peer's own, and knows its key."""

    def __init__(self, context: PeerContext, exchange: KeyExchange) -> None:
        super().__init__(context, exchange)
        self._incarnation: object = None
        self._same_lan = False
        self._moved = False  # since the path in use was proven
        self._reply_to: Place | None = None
        self._present_since: float | None = None
        self._closing = False
        self._ending: Terminated | None = None
        self._timers: Timers[_Timer] = Timers()
        self._out: list[PeerTransmit] = []
        self._events: list[PeerEvent] = []

    # -- the machine contract --------------------------------------------------------------------------------

    def transmits(self) -> list[PeerTransmit]:
        """Drain what is to be sent."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[PeerEvent]:
        """Drain what happened."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(
            self._timers.deadline(),
            self._exchange.deadline(),
            self._ways.deadline(),
            self._direct.deadline() if self._direct is not None else None,
            self._session.deadline() if self._session is not None else None,
        )

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that is due."""
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.GOODBYE if self._session is not None:
                    self._end_session(Terminated(TerminationCause.LOCAL_REQUEST), now)
                case _Timer.DIRECT if not self._ways.mailbox:
                    self._present_since = now
                    self._punch_directly(now)
                case _Timer.HANDSHAKE:
                    self._initiate(now)
        self._exchange.handle_timeout(now)
        self._ways.handle_timeout(now)
        if self._direct is not None:
            self._direct.handle_timeout(now)
        if self._session is not None:
            self._session.reach(self._ways.hole.alive or self._ways.mailbox, now)
            self._session.handle_timeout(now)
        self._settle(now)

    # -- commands ---------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Begin: at once where there is no rendezvous to wait for."""
        self._look_for_peer(now)
        self._settle(now)

    def mailbox_up(self, incarnation: object, now: float) -> None:
        """The peer is in the mailbox. A new incarnation may be a new process of it: the dialer makes sure."""
        renewed = incarnation != self._incarnation
        self._ways.mailbox, self._incarnation = True, incarnation
        if renewed and not self._closing:
            self._timers.stop(_Timer.DIRECT)
            if self._session is None:
                self._stop_direct(now)
                self._present_since = now
                self._set_state(PeerState.HANDSHAKE)
            else:
                self._met_again(self._session, now)
            self._initiate(now)
        self._settle(now)

    def mailbox_down(self, now: float) -> None:
        """The peer left the mailbox, or the rendezvous is gone: a live tunnel does not care."""
        self._ways.mailbox = False
        self._incarnation = None
        if self._session is None and not self._closing:
            self._look_for_peer(now)
        self._settle(now)

    def network_changed(self, now: float) -> None:
        """This host's own way to the peer is another: see whether the path still works, and look for one from here."""
        self._moved = True
        self._ways.hole.look(now)
        if self._session is not None and not self._closing:
            self._punch_again(self._session, now)
        self._settle(now)

    def relay_offered(self, offered: bool, now: float) -> None:
        """Whether the rendezvous where the peer is met relays frames."""
        if offered is not self._ways.relay.offered:
            self._ways.relay.offered = offered
            self._settle(now)

    def close(self, now: float) -> None:
        """Say goodbye; the state CLOSED follows, within ``GOODBYE_WAIT`` even if nobody answers."""
        self._closing = True
        self._stop_direct(now)
        self._timers.stop_all()
        if self._session is None:
            self._set_state(PeerState.CLOSED)
        else:
            self._session.close(now)
            self._timers.arm(_Timer.GOODBYE, now + GOODBYE_WAIT)
        self._settle(now)

    def refuse(self, why: str, now: float) -> None:
        """End this session, and tell the peer: this host will not have what was agreed on."""
        if self._session is not None and not self._closing:
            self._ending = Terminated(TerminationCause.NOT_AGREED, why)
            self._session.close(now)
        self._settle(now)

    def heard(self, now: float) -> None:
        """The fast path took data from the hole (once per batch)."""
        self._ways.hole.received(now)

    def sent(self, now: float, largest: int) -> None:
        """The fast path sent data into the hole (once per batch); ``largest`` outer packet in octets."""
        self._ways.hole.sent(now, largest)

    # -- what arrives ------------------------------------------------------------------------------------------

    def receive_blob(self, blob: bytes, now: float) -> None:
        """A blob from the mailbox: a sealed frame or a handshake datagram."""
        if is_sealed(blob):
            self._receive_sealed(blob, now)
        elif blob[:1] == bytes([MessageType.INITIATION]):
            opened = self._exchange.open_initiation(blob)
            if opened is not None:
                self.receive_initiation(opened, None, now)
        else:
            self.receive_answer(blob, now)
        self._settle(now)

    def receive_initiation(self, opened: OpenedInitiation, source: Place | None, now: float) -> None:
        """Message 1 of this peer, from the mailbox (``source`` None) or out of the hole."""
        if not self._closing:
            self._reply_to = source
            self._exchange.receive_initiation(opened, now)
        self._settle(now)

    def receive_answer(self, datagram: bytes, now: float) -> None:
        """Message 2 or a cookie."""
        self._exchange.receive(datagram, now)
        self._settle(now)

    def receive_probe(self, frame: GreFrame, body: bytes, now: float) -> bool:
        """A probe from the hole; True when it is of this peer and fresh."""
        under_way = (self._session.traversal if self._session is not None else None, self._direct)
        for attempt in under_way:
            if attempt is not None and attempt.receive_probe(frame.source, frame.form, body, frame.ttl, now):
                self._settle(now)
                return True
        return False

    def receive_news(self, news: PathNews, now: float) -> None:
        """ICMP about a packet of ours."""
        if self._session is not None:
            self._session.traversal.receive_news(news, now)
        if self._direct is not None:
            self._direct.receive_news(news, now)
        self._ways.hole.receive_news(news, now)
        self._settle(now)

    def receive_opened(self, pair: SealedPair, protocol: int, data: bytes, source: Carrier, now: float) -> bool:
        """What a sealed frame from the hole or the relay held, opened by ``pair``; of data only that it came.

        False: the frame is to be dropped, its keys are not those that both sides will use.
        """
        good = self._verified(pair, source, now)
        if good and protocol not in _IP_PROTOCOLS:
            self._receive_inner(protocol, data, source, now)
        self._settle(now)
        return good

    def receive_mirror(self, news: MirrorNews, now: float) -> None:
        """What became of the connection of ``MirrorDial``. With a call that was up its path is gone, most likely."""
        if self._session is not None and self._session.mirror.receive(news, now):
            self._ways.hole.look(now)
        self._settle(now)

    # -- sealed frames --------------------------------------------------------------------------------------------

    def _receive_sealed(self, frame: bytes, now: float) -> None:
        """A sealed frame from the mailbox."""
        try:
            pair = self._exchange.pairs.get(receiver_index(frame))
            if pair is None:
                self.drops[Drop.UNKNOWN_SESSION] += 1
                return
            protocol, data, _ = pair.open(frame)
        except WireError:
            self.drops[Drop.MALFORMED] += 1
        except DropError:
            pass  # counted by the pair
        else:
            if self._verified(pair, None, now):
                self._receive_inner(protocol, data, None, now)

    def _verified(self, pair: SealedPair, source: Carrier | None, now: float) -> bool:
        """An authentic frame came under ``pair``: what that says about keys and paths. False: it is to be dropped."""
        if not self._exchange.frame_verified(pair.local_index, now):
            self.drops[Drop.EXPIRED_KEY] += 1
            return False
        self._follow_exchange(now)
        if isinstance(source, Way):
            self._ways.relay.heard(now)
            if self._session is not None:
                self._follow_ways(self._session, now)
        elif source is not None and self._session is not None:
            current = pair is self._exchange.current
            self._ways.hole.frame_from(source, now, follow=not self.config.dialing, current=current)
        return True

    def _receive_inner(self, protocol: int, data: bytes, source: Carrier | None, now: float) -> None:
        session = self._session
        if session is None or protocol == EMPTY_PROTOCOL:
            return
        if protocol == VENDOR_NETWORK_PROTOCOL:
            try:
                kind, body = parse_vendor_network(data)
            except WireError:
                self.drops[Drop.MALFORMED] += 1
                return
            if kind is SealedKind.SEGMENT:
                session.receive_segment(body, now)
            elif isinstance(source, Way):
                if not self._ways.relay.receive(kind, body, now):
                    self.drops[Drop.MALFORMED] += 1
            elif source is None or not self._ways.hole.receive(kind, body, source, now):
                self.drops[Drop.MALFORMED] += 1
        elif source is None or protocol in _IP_PROTOCOLS:
            self.drops[Drop.WRONG_PHASE] += 1
        else:
            session.receive_ppp(protocol, data, now)

    def _send_sealed(self, protocol: int, data: bytes, way: Carrier | None) -> None:
        """Seal and send; None is the mailbox. Without keys or a way it is lost, as any frame may be."""
        self._out += self._ways.sealed(self._exchange.current, protocol, data, way)

    @property
    def _best_carrier(self) -> Place | None:
        """Of control messages and handshakes."""
        return self._ways.control(doubted=self._session is not None and self._session.traversal.punching)

    # -- keys --------------------------------------------------------------------------------------------------------

    def _initiate(self, now: float) -> None:
        """Ask for keys, where asking is ours and there is a way to ask."""
        if self.config.dialing and not self._closing and (self._ways.mailbox or self._ways.hole.place is not None):
            self._exchange.initiate(now)

    def _follow_exchange(self, now: float) -> bool:
        events = self._exchange.events()
        for event in events:
            match event:
                case KeysReady(initiator=True) | KeysLive(initiator=False) if event.new_session:
                    self._begin_session(event.probe_secret, now)
                case ConfirmWanted():
                    self._send_sealed(EMPTY_PROTOCOL, b"", self._best_carrier)
                case KeysDropped() if self._exchange.current is None and self._session is not None:
                    self._end_session(Terminated(TerminationCause.PEER_SILENT, "the keys expired unrenewed"), now)
                case ExchangeFailed(reason=reason, authentication=authentication):
                    self._events.append(HandshakeFailed(str(reason), authentication))
                    self._timers.arm(_Timer.HANDSHAKE, now + HANDSHAKE_RETRY)
                case _:
                    pass
        return bool(events)

    def _send_handshakes(self, datagrams: Iterable[bytes]) -> None:
        for datagram in datagrams:
            asks = datagram[:1] == bytes([MessageType.INITIATION])
            self._out += self._ways.handshake(datagram, self._best_carrier if asks else self._reply_to)

    # -- session -----------------------------------------------------------------------------------------------------

    def _begin_session(self, probe_secret: bytes, now: float) -> None:
        if self._session is not None:
            self._forget_session(Terminated(TerminationCause.REPLACED, "the peer started anew"), now)
        self._session = session = self._context.make_session(probe_secret)
        self._ways.relay.peer_policy = None
        session.open(self._ways.relay.policy, now)
        if self._ways.hole.place is not None:
            self._use_hole(self._ways.hole.place, now)  # the keys are new, so its first sealed frame is still to come
        else:
            self._set_state(PeerState.PUNCHING)
            session.traversal.begin(now)

    def _forget_session(self, cause: Terminated, now: float) -> None:
        """Drop the session and what hung on it. A hole that was proven under the static keys stays."""
        direct = self._direct is not None and not self._ways.mailbox
        place = self._ways.hole.place if direct else None
        if self._session is not None:
            self.drops.update(self._session.drops)
            self._out += self._session.abandon()
        self._session = None
        self._ending = None
        self.networks = frozenset()
        self._ways.renew(self._context.make_hole())
        if place is not None:
            self._ways.hole.use(place, now)
        self._events.append(SessionEnded(cause))

    def _end_session(self, cause: Terminated, now: float) -> None:
        """The end; unless we are closing, the next session is looked for."""
        self._stop_direct(now)
        self._forget_session(cause, now)
        self._timers.stop_all()
        self._exchange.forget(now)
        if self._closing:
            self._set_state(PeerState.CLOSED)
            return
        self._look_for_peer(now)
        if self._ways.mailbox and cause.cause is not TerminationCause.PEER_REQUEST:
            self._present_since = now
            self._timers.arm(_Timer.HANDSHAKE, now + HANDSHAKE_RETRY)

    def _look_for_peer(self, now: float) -> None:
        self._present_since = None
        self._set_state(PeerState.WAITING)
        if self.config.last_known_address is None or self._ways.mailbox:
            return
        if self.config.uses_rendezvous:
            self._timers.arm(_Timer.DIRECT, now + DIRECT_AFTER)
        else:
            self._present_since = now
            self._punch_directly(now)

    def _follow_session(self, session: SealedSession, now: float) -> bool:
        session.settle(now)
        self._follow_ways(session, now)
        out = session.transmits()
        for item in out:
            match item:
                case GreSend() | MirrorDial() | MirrorData() | MirrorKeep() | MirrorHangUp():
                    self._out.append(item)
                case SegmentOut(body=body):
                    sealed = build_vendor_network(SealedKind.SEGMENT, body)
                    self._send_sealed(VENDOR_NETWORK_PROTOCOL, sealed, self._best_carrier)
                case _ if self._ways.carrier is not None:
                    self._send_sealed(item.protocol, bytes(item.information), self._ways.carrier)
        events = session.events()
        for event in events:
            match event:
                case NetworkUp(protocol=protocol):
                    self.networks |= {protocol}
                    self._events.append(event)
                    if protocol == Protocol.IPV4:
                        self._set_state(PeerState.UP)
                case NetworkDown(protocol=protocol):
                    self.networks -= {protocol}
                    self._events.append(event)
                    if protocol == Protocol.IPV4 and self.state is PeerState.UP:
                        self._set_state(PeerState.NEGOTIATING)
                case PathProven(address=address, form=form, same_lan=same_lan):
                    self._same_lan = same_lan
                    self._use_hole((address, form), now)
                case RoundFailed():
                    self._punch_failed(event, now)
                case PathDoubted(occupied=occupied):
                    self._ways.hole.doubt(now, occupied=occupied)
                case RelayWish(policy=policy):
                    self._ways.relay.peer_policy = policy
                case Terminated():
                    self._ending = self._ending or event
                case _:
                    pass
        return bool(out or events)

    # -- the hole ---------------------------------------------------------------------------------------------------

    def _use_hole(self, place: Place, now: float) -> None:
        """A path has been proven: everything takes it from now on."""
        self._last_address, self._moved = place[0], False
        self._ways.hole.use(place, now)
        if self._session is None:
            return
        self._carried()
        self._session.path_up(now)

    def _carried(self) -> None:
        """There is a way for PPP and data."""
        self._set_state(PeerState.UP if Protocol.IPV4 in self.networks else PeerState.NEGOTIATING)

    def _follow_ways(self, session: SealedSession, now: float) -> None:
        """See what takes the data now, and tell where that has changed."""
        if not self._ways.choose(now, live=True):
            return
        match self._ways.carrier:
            case Way.RELAY:
                self._events.append(CarrierChanged())
                if self._ways.hole.place is None:
                    self._events.append(InnerMtu(RELAY_MTU))
                self._carried()
                session.path_up(now)
            case None:
                self._set_state(PeerState.REPAIRING, "the relay is gone")
            case place:
                self._events.append(CarrierChanged(*place))
                if not self._ways.hole.alive:
                    self._set_state(PeerState.REPAIRING, "the relay is gone, and so is the path")

    def _punch_failed(self, failed: RoundFailed, now: float) -> None:
        if not self._ways.hole.alive:
            self._ways.hole.leave()
        why = (failed.same_nat, failed.next_round_in, failed.withheld, failed.slot_taken)
        self._events.append(PunchFailed(failed.ours, failed.theirs, *why))

    def _follow_hole(self, now: float) -> bool:
        out = self._ways.hole.transmits()
        for item in out:
            self._send_sealed(item.protocol, item.data, item.place)
        for packet in self._ways.relay.transmits():
            self._send_sealed(VENDOR_NETWORK_PROTOCOL, packet, RELAY)
        events = self._ways.hole.events()
        for event in events:
            match event:
                case FirstFrame(place=place):
                    self._stop_punching(now)
                    mirrored = self._session is not None and self._session.mirror.called
                    since = self._present_since if self._present_since is not None else now
                    self._events.append(PathUp(*place, now - since, self._same_lan, mirrored))
                case Silent(seconds=seconds, dead=dead):
                    relayed = self._ways.relay.usable
                    if not relayed:
                        self._set_state(PeerState.REPAIRING, f"nothing heard for {seconds:.1f} s")
                    self._repair(now)
                    if dead and not relayed:
                        self._initiate(now)
                case Unanswered():
                    self._events.append(MailboxDoubted())
                case HeardAgain():
                    self._stop_punching(now)
                    self._carried()
                case InnerMtu():
                    self._events.append(event)
                case Moved(place=place):
                    self._use_hole(place, now)
        return bool(out or events)

    def _repair(self, now: float) -> None:
        session = self._session
        if session is None:
            return
        self._ways.hole.heard = False
        self._present_since = now
        if not self._ways.mailbox or not session.traversal.punching:
            self._punch_again(session, now)

    def _punch_again(self, session: SealedSession, now: float) -> None:
        """Look for a path while the one in use, if there is one, goes on carrying what it can."""
        if self._ways.mailbox:
            session.traversal.begin(now)
        else:
            self._punch_directly(now)

    def _met_again(self, session: SealedSession, now: float) -> None:
        """Back in the mailbox with the peer: what waited for a carrier goes out, and a path is looked for where the one
        in use is silent, or we are seen elsewhere than when it was proven."""
        session.carrier_changed(now)
        if self._moved or session.traversal.seen_elsewhere or not (self._ways.hole.alive or session.traversal.punching):
            self._punch_again(session, now)

    def _stop_punching(self, now: float) -> None:
        if self._session is not None:
            self._session.stop_punching(now)
        self._stop_direct(now)

    # -- without a rendezvous ----------------------------------------------------------------------------------------

    def _punch_directly(self, now: float) -> None:
        """Probe under the static keys."""
        if self._direct is not None or self._closing:
            return
        self._direct = self._context.make_direct(self._last_address, now)
        if self._direct is not None and self._session is None:
            self._set_state(PeerState.PUNCHING)

    def _stop_direct(self, now: float) -> None:
        if self._direct is not None:
            self._direct.stop(now)
            self._direct = None

    def _follow_direct(self, now: float) -> bool:
        if self._direct is None:
            return False
        self._out.extend(self._direct.transmits())
        events = self._direct.events()
        for event in events:
            match event:
                case Proven(address=address, form=form):
                    if self._ways.hole.place != (address, form) or not self._ways.hole.alive:
                        self._use_hole((address, form), now)
                    if self._session is None:
                        self._set_state(PeerState.HANDSHAKE)
                    self._initiate(now)
                case WindowEnded(report=report):
                    if not self._ways.hole.alive:
                        self._ways.hole.leave()
                    self._events.append(PunchFailed(report.summaries(), (), False, None, report.withheld))
        return bool(events)

    # -- one exit ------------------------------------------------------------------------------------------------------

    def _set_state(self, state: PeerState, detail: str = "") -> None:
        if state is not self.state:
            self.state = state
            self._events.append(StateChanged(state, detail))

    def _settle(self, now: float) -> None:
        """Let the machines hand each other what they have until none has anything left."""
        for _ in range(SETTLE_ROUNDS):
            progress = self._follow_exchange(now)
            datagrams = self._exchange.transmits()
            self._send_handshakes(datagrams)
            progress |= self._follow_hole(now) | self._follow_direct(now) | bool(datagrams)
            session = self._session
            if session is not None:
                progress |= self._follow_session(session, now)
            if progress:
                continue
            if self._ending is None or session is None or (self._closing and not session.idle):
                return
            self._end_session(self._ending, now)
