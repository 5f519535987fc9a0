"""What a peer machine is told at its making, what it sends, and what it tells."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from ipaddress import IPv4Address

from grepunch.peer.hole import InnerMtu
from grepunch.peer.mirror import MirrorTransmit
from grepunch.ports import Form, GreSend, RelayPolicy
from grepunch.punch.report import FormSummary
from pptp.errors import Terminated
from pptp.ppp.control_protocol import NetworkDown, NetworkUp
from pptp.value import value


class PeerState(StrEnum):
    """Where a peer stands."""

    WAITING = "waiting"  # for the peer to be there
    HANDSHAKE = "handshake"
    PUNCHING = "punching"
    NEGOTIATING = "negotiating"  # PPTP and PPP, over a path that is proven
    UP = "up"
    REPAIRING = "repairing"  # a live session whose path has fallen silent
    CLOSED = "closed"


@value
class PeerConfig:
    """What the profile says about one peer. ``last_known_address`` lets it work without a rendezvous."""

    name: str
    public_key: bytes
    dialing: bool
    uses_rendezvous: bool
    forms: tuple[Form, ...] = (Form.V1, Form.V0)
    last_known_address: IPv4Address | None = None
    keepalive: float = 4.0
    window: float = 30.0
    relay: RelayPolicy = RelayPolicy.NEVER


@value
class MailboxSend:
    """Send this through the rendezvous to the peer."""

    blob: bytes = field(repr=False)


@value
class RelaySend:
    """Have this frame relayed by the rendezvous."""

    frame: bytes = field(repr=False)


@value
class StateChanged:
    """A new state, with what was seen in words."""

    state: PeerState
    detail: str = ""


@value
class PathUp:
    """The first sealed frame of the peer came over this path, ``seconds`` after both were present.

    ``same_lan``: the path lies within a network that both are connected to. ``mirrored``: the NATs on it have seen a
    PPTP call made for it.
    """

    address: IPv4Address
    form: Form
    seconds: float
    same_lan: bool
    mirrored: bool


@value
class CarrierChanged:
    """Data takes another way now: GRE to an address, or the relay (both None)."""

    address: IPv4Address | None = None
    form: Form | None = None


@value
class PunchFailed:
    """A window went by in vain: both sides' counts (``theirs`` empty where unknown).

    ``slot_taken``: another host behind the dialler's NAT has the GRE session with the same peer.
    ``next_in``: seconds of silence before the next one; None where sparse packets go on meanwhile. ``withheld``
    packets of ours were due and not sent, because the budget for an address that has not answered was spent.
    """

    ours: tuple[FormSummary, ...]
    theirs: tuple[FormSummary, ...]
    same_nat: bool
    next_in: float | None
    withheld: int = 0
    slot_taken: bool = False


@value
class HandshakeFailed:
    """The key exchange gave up; ``reason`` is its sentence. ``authentication``: the peer answered, but wrongly."""

    reason: str
    authentication: bool


@value
class MailboxDoubted:
    """Nothing comes over the path where something was due: is the connection to the rendezvous still any good?"""


@value
class SessionEnded:
    """The session is over; the machine looks for the next one, unless it was closed."""

    cause: Terminated


PeerEvent = (
    StateChanged
    | PathUp
    | CarrierChanged
    | PunchFailed
    | HandshakeFailed
    | MailboxDoubted
    | InnerMtu
    | NetworkUp
    | NetworkDown
    | SessionEnded
)
PeerTransmit = MailboxSend | RelaySend | GreSend | MirrorTransmit
