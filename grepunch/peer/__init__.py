"""One punched peer: the machine that joins key exchange, session, traversal and path, and its parts."""

from grepunch.peer.context import PeerContext
from grepunch.peer.events import (
    CarrierChanged,
    HandshakeFailed,
    MailboxDoubted,
    MailboxSend,
    PathUp,
    PeerConfig,
    PeerEvent,
    PeerState,
    PeerTransmit,
    PunchFailed,
    RelaySend,
    SessionEnded,
    StateChanged,
)
from grepunch.peer.hole import OVERHEAD, InnerMtu
from grepunch.peer.machine import PeerMachine
from grepunch.peer.mirror import (
    MirrorClosed,
    MirrorConnected,
    MirrorData,
    MirrorDial,
    MirrorHangUp,
    MirrorKeep,
    MirrorReceived,
    MirrorTransmit,
)
from grepunch.peer.ways import Carrier

__all__ = [
    "OVERHEAD",
    "Carrier",
    "CarrierChanged",
    "HandshakeFailed",
    "InnerMtu",
    "MailboxDoubted",
    "MailboxSend",
    "MirrorClosed",
    "MirrorConnected",
    "MirrorData",
    "MirrorDial",
    "MirrorHangUp",
    "MirrorKeep",
    "MirrorReceived",
    "MirrorTransmit",
    "PathUp",
    "PeerConfig",
    "PeerContext",
    "PeerEvent",
    "PeerMachine",
    "PeerState",
    "PeerTransmit",
    "PunchFailed",
    "RelaySend",
    "SessionEnded",
    "StateChanged",
]
