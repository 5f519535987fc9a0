"""The ways to a peer: the hole, the relay and the mailbox, and which of them takes what.

Data takes the hole, or the relay where that is open and the hole is not proven both ways: so a link can begin on the
relay, move to GRE without a gap, and be back on the relay when GRE falls silent. Each side decides for what it sends.
What comes out of either is taken at any time: a frame in flight when its sender moved is as good as the next.
"""

from __future__ import annotations

from grepunch.peer.events import MailboxSend, PeerTransmit, RelaySend
from grepunch.peer.hole import Hole, Place
from grepunch.peer.relay import RelayWay
from grepunch.ports import RELAY, GreSend, Way
from grepunch.secure.fragments import build_fragments
from pptp.datapath import SealedPair
from pptp.machine import earliest
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear

Carrier = Place | Way


class Ways:
    """See the module; one for each peer. A new session has another ``hole``."""

    def __init__(self, hole: Hole, relay: RelayWay, peer_public_key: bytes) -> None:
        self.hole = hole
        self.relay = relay
        self.mailbox = False
        """The peer is in the mailbox."""
        self.carrier: Carrier | None = None
        """What data takes; None while there is no way for it. Kept up to date by :meth:`choose`."""
        self._peer_public_key = peer_public_key

    def renew(self, hole: Hole) -> None:
        """The session is over: nothing is known of any way."""
        self.hole = hole
        self.carrier = None
        self.relay.end()

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self.hole.deadline(), self.relay.deadline())

    def handle_timeout(self, now: float) -> None:
        """Act on what is due in the hole and at the relay."""
        self.hole.handle_timeout(now)
        self.relay.handle_timeout(now)

    def choose(self, now: float, *, live: bool) -> bool:
        """See anew what data takes; True when that has changed. ``live``: there is a session."""
        hole, relay, before = self.hole, self.relay, self.carrier
        if live and relay.open and not hole.confirmed:
            relay.begin(now)
        else:
            relay.end()
        if hole.place is not None and (hole.confirmed or not (live and relay.usable)):
            self.carrier = hole.place
        else:
            self.carrier = RELAY if live and relay.usable else None
        return self.carrier != before

    def control(self, *, doubted: bool) -> Place | None:
        """What control messages and handshakes take: the hole while it is good and nobody looks for another, else the
        mailbox (None), else the hole after all."""
        return self.hole.place if not self.mailbox or (self.hole.alive and not doubted) else None

    def sealed(self, pair: SealedPair | None, protocol: int, data: bytes, way: Carrier | None) -> list[PeerTransmit]:
        """Seal for a way, None being the mailbox; nothing where there are no keys or the way is not there."""
        if pair is None or (way is None and not self.mailbox):
            return []
        frame = pair.seal(protocol, data)
        if way is None:
            return [MailboxSend(frame)]
        return [RelaySend(frame)] if isinstance(way, Way) else [GreSend(*way, frame)]

    def handshake(self, datagram: bytes, place: Place | None) -> list[PeerTransmit]:
        """A handshake datagram for the hole, in fragments, or for the mailbox (None)."""
        if place is None:
            return [MailboxSend(datagram)] if self.mailbox else []
        parts = build_fragments(datagram, self._peer_public_key)
        packets = (build_clear(ClearPacket(ClearKind.HANDSHAKE_FRAGMENT, part)) for part in parts)
        return [GreSend(*place, packet) for packet in packets]
