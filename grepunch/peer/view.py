"""What a peer is made of, and what the endpoint asks of it without changing anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Address

from grepunch.peer.context import PeerContext
from grepunch.peer.direct import DirectPunch
from grepunch.peer.events import PeerState
from grepunch.peer.hole import Place
from grepunch.peer.relay import RelayWay
from grepunch.peer.session import SealedSession
from grepunch.peer.ways import Carrier
from grepunch.ports import RELAY, CallIds
from grepunch.punch.path import PathManager
from grepunch.punch.report import FormSummary
from grepunch.secure.exchange import KeyExchange
from pptp.datapath import SealedPair
from pptp.errors import Drop


class PeerView:
    """The readable half of :class:`~grepunch.peer.machine.PeerMachine`, which alone changes any of it."""

    def __init__(self, context: PeerContext, exchange: KeyExchange) -> None:
        self.config = context.config
        self.taps = context.taps
        self.state = PeerState.WAITING
        self.drops: Counter[Drop] = Counter()
        self.networks: frozenset[int] = frozenset()  # the network protocols that are open
        self._context = context
        self._exchange = exchange
        self._ways = context.make_ways()
        self._session: SealedSession | None = None
        self._direct: DirectPunch | None = None
        self._last_address: IPv4Address | None = None

    @property
    def hole(self) -> Place | None:
        """The punched path; None while there is none."""
        return self._ways.hole.place

    @property
    def call_ids(self) -> CallIds | None:
        """What enhanced GRE on the path carries where a mirrored call was made for it."""
        return self._session.mirror.call_ids if self._session is not None else None

    @property
    def carrier(self) -> Carrier | None:
        """Where data goes; None while there is no way for it."""
        return self._ways.carrier

    @property
    def relay(self) -> RelayWay:
        """What is known of the relay."""
        return self._ways.relay

    @property
    def path(self) -> PathManager:
        """What is known of the path."""
        return self._ways.hole.path

    @property
    def sending_pair(self) -> SealedPair | None:
        """The keys to seal with."""
        return self._exchange.current

    def pair(self, local_index: int) -> SealedPair | None:
        """The keys to open with."""
        return self._exchange.pairs.get(local_index)

    def settled_on(self, pair: SealedPair, source: Carrier) -> bool:
        """Whether a frame under ``pair`` from ``source`` tells nothing new about keys or paths."""
        hole = self._ways.hole
        return pair is self._exchange.live and (source is RELAY or (source == hole.place and hole.heard))

    def sends_to(self, address: IPv4Address) -> bool:
        """Whether packets of ours go there: news from the network and probes are not this peer's unless they do."""
        parts = (self._ways.hole, self._direct, self._session)
        return any(part is not None and part.aims_at(address) for part in parts)

    def occupies(self, address: IPv4Address) -> bool:
        """Whether this peer has the one GRE session there can be with an address, or is about to have it."""
        place, session = self._ways.hole.place, self._session
        return (place is not None and place[0] == address) or (
            session is not None and session.traversal.claims(address)
        )

    def trusts(self, address: IPv4Address) -> bool:
        """Whether the peer has proven that it receives at ``address``: only there a handshake is answered."""
        place = self._ways.hole.place
        if (place is not None and place[0] == address) or address == self._last_address:
            return True
        return self._direct is not None and self._direct.has_proven(address)

    @property
    def peer_external(self) -> IPv4Address | None:
        """The peer's external address, as far as known."""
        if self._ways.hole.place is not None:
            return self._ways.hole.place[0]
        if self._session is not None and self._session.traversal.peer_external is not None:
            return self._session.traversal.peer_external
        return self.config.last_known_address

    @property
    def punch_counts(self) -> tuple[FormSummary, ...]:
        """What the punch under way has sent and heard so far."""
        report = self._session.traversal.report if self._session is not None else None
        if report is None and self._direct is not None:
            report = self._direct.report
        return report.summaries() if report is not None else ()

    @property
    def pair_drops(self) -> Mapping[Drop, int]:
        """What the key exchange and its pairs have dropped, by cause."""
        return self._exchange.drops
