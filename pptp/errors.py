"""The ways in which things go wrong, as values.

Three kinds are kept apart (h11's distinction of local from remote fault):

* :class:`WireError` -- bytes that are not what they claim to be. Raised by codecs only, caught by the
  machine that asked for the parse, counted by :class:`WireCause`, never answered to a stranger.
* :class:`PeerViolation` -- well-formed bytes that the protocol forbids in this state. Theirs.
* :class:`UsageError` -- a call this program should not have made in this state. Ours: a bug.

How a session ended is not an exception but a value, :class:`Terminated`, the last event of its machine.
"""

from __future__ import annotations

from enum import StrEnum

from pptp.value import value


class WireCause(StrEnum):
    """Why a parse was refused. Every codec refuses each malformation with the one that fits."""

    TRUNCATED = "truncated"  # fewer bytes than the fixed part of the header or message needs
    TRAILING = "trailing"  # bytes left over after everything that was announced
    BAD_LENGTH = "bad_length"  # a length field that contradicts the message or its container
    BAD_MAGIC = "bad_magic"  # a magic constant, OUI or cookie with another value
    BAD_TYPE = "bad_type"  # a type, code or protocol this codec does not know
    BAD_VERSION = "bad_version"
    BAD_FLAGS = "bad_flags"  # reserved or mandatory bits with the wrong value
    BAD_VALUE = "bad_value"  # any other field outside its domain
    OVERSIZE = "oversize"  # longer than this protocol ever permits


class WireError(ValueError):
    """Bytes refused by a codec. ``what`` names the structure, ``cause`` the reason, ``detail`` the evidence."""

    def __init__(self, what: str, cause: WireCause, detail: str = "") -> None:
        super().__init__(f"{what}: {cause}" + (f" ({detail})" if detail else ""))
        self.what = what
        self.cause = cause
        self.detail = detail


class PeerViolation(Exception):
    """A well-formed message that the protocol forbids here; carries the sentence for the log."""


class UsageError(RuntimeError):
    """This program called a machine in a way its state forbids: our bug, never the peer's."""


class Drop(StrEnum):
    """Why a packet of the data path was dropped. Every drop is counted under one of these."""

    MALFORMED = "malformed"
    UNKNOWN_SESSION = "unknown_session"  # no session for this source, Call ID or receiver index
    UNPROVEN_SOURCE = "unproven_source"
    REPLAYED = "replayed"
    TOO_OLD = "too_old"  # behind the replay window, or a late packet that can no longer be ordered
    SEQUENCE_JUMP = "sequence_jump"  # a sequence number far from the stream's, as a forger's would be
    BAD_TAG = "bad_tag"  # authentication failed
    BAD_KEY = "bad_key"  # a public key that no honest peer sends (low order, not an ML-KEM key)
    EXPIRED_KEY = "expired_key"
    WRONG_PHASE = "wrong_phase"  # valid, but the link is not in a phase that takes it
    NOT_ALLOWED = "not_allowed"  # inner source address outside the peer's allowed prefixes
    NO_ROUTE = "no_route"  # no peer for this inner destination
    CLEARTEXT = "cleartext"  # unsealed where sealed is required
    TOO_BIG = "too_big"
    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"


class DropError(Exception):
    """A packet that has to be dropped, silently towards its sender; whoever catches it counts ``cause``."""

    def __init__(self, cause: Drop, detail: str = "") -> None:
        super().__init__(f"{cause} ({detail})" if detail else str(cause))
        self.cause = cause
        self.detail = detail


class TerminationCause(StrEnum):
    """Why a session, call or link ended."""

    LOCAL_REQUEST = "local_request"
    PEER_REQUEST = "peer_request"
    PEER_SILENT = "peer_silent"  # keepalive or retransmission ran out
    LOST_CARRIER = "lost_carrier"
    NOT_AGREED = "not_agreed"  # negotiation did not converge
    REFUSED = "refused"  # the peer said no (result code in the detail)
    AUTHENTICATION = "authentication"
    PROTOCOL_ERROR = "protocol_error"
    TIMEOUT = "timeout"  # a session or idle limit
    REPLACED = "replaced"  # a newer session of the same peer took over
    NO_GRE = "no_gre"  # the control connection is up, and nothing comes through GRE
    ENCRYPTION = "encryption"  # one end wants MPPE that the other does not have (both offers in the detail)
    POOL_EXHAUSTED = "pool_exhausted"  # no address is left to give
    LIMIT_REACHED = "limit_reached"  # as many sessions as there may be
    DENIED = "denied"  # authenticated, but not allowed in


@value
class Terminated:
    """The last event of every session: what ended it, in one word and one sentence."""

    cause: TerminationCause
    detail: str = ""
