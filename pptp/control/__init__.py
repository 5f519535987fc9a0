"""The PPTP control connection and its calls (RFC 2637 section 3), as PNS and as PAC.

``connection`` holds the machine of section 3.1 and is what an owner uses; ``calls`` the machine of section 3.2 that
nests in it; ``values`` what goes in and comes out.
"""

from pptp.control.connection import ControlConnection, higher_address_wins
from pptp.control.values import (
    Call,
    CallEnded,
    CallEstablished,
    CallHandle,
    CallRequested,
    CallState,
    CloseTransport,
    ControlConfig,
    ControlEstablished,
    ControlEvent,
    LinkInfoReceived,
    Noted,
    PeerInfo,
    Role,
    WanErrorsReceived,
)

__all__ = [
    "Call",
    "CallEnded",
    "CallEstablished",
    "CallHandle",
    "CallRequested",
    "CallState",
    "CloseTransport",
    "ControlConfig",
    "ControlConnection",
    "ControlEstablished",
    "ControlEvent",
    "LinkInfoReceived",
    "Noted",
    "PeerInfo",
    "Role",
    "WanErrorsReceived",
    "higher_address_wins",
]
