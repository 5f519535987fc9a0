"""What a key exchange tells its owner, and the words for its states."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import Self

from grepunch.secure.keyring import Keys
from pptp.datapath import SealedPair
from pptp.value import value


class ExchangeState(StrEnum):
    """Where the exchange is, for status and for the table in PROTOCOL.md; everything is decided from the keyring."""

    IDLE = "idle"  # no keys, nobody asked
    SENT = "sent"  # message 1 is out, no keys yet
    PENDING = "pending"  # keys are agreed, and no frame has verified under them
    LIVE = "live"
    REKEYING = "rekeying"  # live, and a handshake is under way
    DEAD = "dead"  # closed


class FailureReason(StrEnum):
    """Why an attempt of ours came to nothing, as the sentence for the user."""

    NO_ANSWER = "no answer to the handshake"
    PRESHARED_KEY = "wrong pre-shared key, or tampering"
    NOT_CONFIRMED = "no frame under the new keys"


@value
class _KeysEvent:
    """``initiator``: we asked. ``new_session``: nothing of an earlier one goes on. ``session``: (own id, peer's)."""

    pair: SealedPair
    initiator: bool
    new_session: bool
    session: tuple[bytes, bytes]
    capabilities: int
    probe_secret: bytes = field(repr=False)

    @classmethod
    def about(cls, keys: Keys, new_session: bool) -> Self:
        """The event that tells of ``keys``."""
        return cls(keys.pair, keys.initiator, new_session, keys.session, keys.capabilities, keys.probe_secret)


@value
class KeysReady(_KeysEvent):
    """A handshake is done: the initiator may send under the pair, the responder only receive."""


@value
class KeysLive(_KeysEvent):
    """A frame of the peer has verified under the pair: it is in use both ways."""


@value
class KeysDropped:
    """The pair of this index is gone, and the index is free."""

    local_index: int


@value
class ConfirmWanted:
    """Send an empty sealed frame under :attr:`KeyExchange.current` now."""


@value
class ExchangeFailed:
    """An attempt of ours ended without keys in use; where live keys exist they stay, and it is tried again."""

    reason: FailureReason

    @property
    def authentication(self) -> bool:
        """Whether the peer answered, but not with our pre-shared key."""
        return self.reason is FailureReason.PRESHARED_KEY


ExchangeEvent = KeysReady | KeysLive | KeysDropped | ConfirmWanted | ExchangeFailed
