"""What a :class:`~grepunch.rendezvous.client.RendezvousClient` tells its owner."""

from __future__ import annotations

from ipaddress import IPv4Address

from pptp.value import value

from .messages import RefusalReason


@value
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


@value
class DaysChanged:
    """The days whose mailboxes are to be joined; follows every :class:`Welcomed` and every change."""

    days: tuple[int, ...]


@value
class ClockSynced:
    """The server's clock is known: the best round trip, in seconds, and the error it leaves (half of it)."""

    rtt: float
    error: float


@value
class MailboxJoined:
    """We are in; :class:`PeerPresent` follows at once where the peer is, too."""

    mailbox: bytes


@value
class PeerPresent:
    """The peer is in the mailbox. Another ``incarnation`` means that it joined anew; they have no order."""

    mailbox: bytes
    incarnation: int


@value
class PeerAbsent:
    """The peer left the mailbox."""

    mailbox: bytes


@value
class BlobReceived:
    """A blob of the peer's, or of whoever runs the server: it is to be authenticated by the owner."""

    mailbox: bytes
    payload: bytes


@value
class FramesRelayed:
    """Frames that came through the server's relay together: each to be authenticated by the owner, as any other."""

    mailbox: bytes
    frames: tuple[bytes, ...]


@value
class RelayUsedUp:
    """The server relays no more for this mailbox today."""

    mailbox: bytes


@value
class ReplacedHere:
    """Another connection took our side of the mailbox; we try again after a while."""

    mailbox: bytes


@value
class KeyInUseTwice:
    """Another live program uses our key; ``holding`` says which of the two keeps the mailbox."""

    mailbox: bytes
    holding: bool


@value
class Refused:
    """The server did not let us in; we try again after a while."""

    mailbox: bytes
    reason: RefusalReason


@value
class Disconnected:
    """The connection is gone; whether any peer is present is not known until the next :class:`Welcomed`."""


@value
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
