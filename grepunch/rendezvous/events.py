"""What a :class:`~grepunch.rendezvous.client.RendezvousClient` tells its owner."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from .messages import RefusalReason


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The server greeted us. ``observed`` is the address it saw us come from.

    ``relay``: what it relays for each side of a mailbox, in octets per second; 0 where it does not.
    ``gre_echo``: it tells where our GRE comes from.
    """

    server_instance: bytes
    day: int
    seconds_to_next_day: int
    observed: IPv4Address | None
    relay: int = 0
    gre_echo: bool = False


@dataclass(frozen=True, slots=True)
class DaysChanged:
    """The days whose mailboxes are to be joined; follows every :class:`Welcomed` and every change."""

    days: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClockSynced:
    """The server's clock is known: the best round trip, in seconds, and the error it leaves (half of it)."""

    rtt: float
    error: float


@dataclass(frozen=True, slots=True)
class MailboxJoined:
    """We are in; :class:`PeerPresent` follows at once where the peer is, too."""

    mailbox: bytes


@dataclass(frozen=True, slots=True)
class PeerPresent:
    """The peer is in the mailbox. Another ``incarnation`` means that it joined anew; they have no order."""

    mailbox: bytes
    incarnation: int


@dataclass(frozen=True, slots=True)
class PeerAbsent:
    """The peer left the mailbox."""

    mailbox: bytes


@dataclass(frozen=True, slots=True)
class BlobReceived:
    """A blob of the peer's, or of whoever runs the server: it is to be authenticated by the owner."""

    mailbox: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class FramesRelayed:
    """Frames that came through the server's relay together: each to be authenticated by the owner, as any other."""

    mailbox: bytes
    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RelayUsedUp:
    """The server relays no more for this mailbox today."""

    mailbox: bytes


@dataclass(frozen=True, slots=True)
class ReplacedHere:
    """Another connection took our side of the mailbox; we try again after a while."""

    mailbox: bytes


@dataclass(frozen=True, slots=True)
class KeyInUseTwice:
    """Another live program uses our key; ``holding`` says which of the two keeps the mailbox."""

    mailbox: bytes
    holding: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The server did not let us in; we try again after a while."""

    mailbox: bytes
    reason: RefusalReason


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; whether any peer is present is not known until the next :class:`Welcomed`."""


@dataclass(frozen=True, slots=True)
class ServerFault:
    """The server breaks the protocol, in a sentence. The runner is to close the connection and try again later."""

    detail: str


ClientEvent = (
    Welcomed
    | DaysChanged
    | ClockSynced
    | MailboxJoined
    | PeerPresent
    | PeerAbsent
    | BlobReceived
    | FramesRelayed
    | RelayUsedUp
    | ReplacedHere
    | KeyInUseTwice
    | Refused
    | Disconnected
    | ServerFault
)
