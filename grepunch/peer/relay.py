"""The way through the rendezvous, for a link that GRE cannot carry, or cannot carry yet.

Frames are sealed as ever; the server sees sizes and times. The way is open while the server relays, the peer is there
and both profiles say so. Whether it is any good is found out by asking for an answer now and then, but only while it
is in use: an idle way costs the server nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from grepunch.peer.hole import CHALLENGE_SIZE
from grepunch.ports import RelayPolicy
from pptp.mtu import INITIAL_OUTER, OVERHEAD_SEALED_V1, inner_mtu
from pptp.wire.vendor import SealedKind, build_vendor_network

# ours: a frame with its WebSocket and TLS headers fits one segment of the connection to the server, and a link that
# moves to a new GRE path, which begins with the same size, loses nothing by being too big there
RELAY_MTU = inner_mtu(INITIAL_OUTER, OVERHEAD_SEALED_V1)
# ours, because the connection to the server has its own keepalive; this finds a server or a peer that lets frames fall
ASK_INTERVAL = 5.0
SILENT_AFTER = 16.0


class RelayWay:
    """The relay towards one peer; a machine whose frames the peer machine seals."""

    def __init__(self, policy: RelayPolicy, *, entropy: Callable[[int], bytes]) -> None:
        self.policy = policy
        self.offered = False
        """The server where we meet the peer relays."""
        self.peer_policy: RelayPolicy | None = None
        """As the peer has said in this session."""
        self.rtt: float | None = None
        self._entropy = entropy
        self._asked: tuple[bytes, float] | None = None
        self._ask_at: float | None = None
        self._heard_at = 0.0
        self._silent = False
        self._out: list[bytes] = []

    @property
    def takes(self) -> bool:
        """Whether frames of the peer are taken from the relay."""
        return self.policy is RelayPolicy.AUTO

    @property
    def open(self) -> bool:
        """Whether frames may be sent: the server relays, and both sides have agreed to it."""
        return self.takes and self.offered and self.peer_policy is RelayPolicy.AUTO

    @property
    def usable(self) -> bool:
        """Whether it is open and frames arrive, as far as known."""
        return self.open and not self._silent

    @property
    def obstacle(self) -> str:
        """Why it is not usable, in words for the user; empty where it is."""
        if self.policy is RelayPolicy.NEVER:
            return "this profile forbids the relay (punch.relay)"
        if not self.offered:
            return "the rendezvous relays nothing for this pair"
        if self.policy is RelayPolicy.ASK:
            return "the rendezvous offers a relay, and this profile wants to be asked"
        if self.peer_policy is not RelayPolicy.AUTO:
            return "the peer's profile does not allow the relay (punch.relay there)"
        return "the relay lets every frame fall" if self._silent else ""

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[bytes]:
        """Drain the vendor network packets to be sealed and relayed."""
        out, self._out = self._out, []
        return out

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return self._ask_at

    def handle_timeout(self, now: float) -> None:
        """Ask, and judge the silence."""
        if self._ask_at is None or now < self._ask_at:
            return
        if now - self._heard_at >= SILENT_AFTER:
            self._silent = True
        self._ask(now)

    # -- commands and what arrives ----------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """This way is needed from now on; harmless when it was."""
        if self._ask_at is None:
            self._heard_at = now
            self._ask(now)

    def end(self) -> None:
        """It is needed no longer, or closed."""
        self._ask_at = self._asked = None
        self._silent = False

    def heard(self, now: float) -> None:
        """An authentic frame came out of the relay: the peer agrees to it, too."""
        self._heard_at = now
        self._silent = False
        self.peer_policy = RelayPolicy.AUTO

    def receive(self, kind: SealedKind, body: bytes, now: float) -> bool:
        """A sealed message about this way; False when it is none, or malformed."""
        match kind:
            case SealedKind.PATH_CHALLENGE if len(body) == CHALLENGE_SIZE:
                self._say(SealedKind.PATH_RESPONSE, body)
            case SealedKind.PATH_RESPONSE if len(body) == CHALLENGE_SIZE:
                if self._asked is not None and self._asked[0] == body:
                    self.rtt = now - self._asked[1]
                    self._asked = None
            case _:
                return False
        return True

    def _ask(self, now: float) -> None:
        self._asked = (self._entropy(CHALLENGE_SIZE), now)
        self._ask_at = now + ASK_INTERVAL
        self._say(SealedKind.PATH_CHALLENGE, self._asked[0])

    def _say(self, kind: SealedKind, body: bytes) -> None:
        self._out.append(build_vendor_network(kind, body))
