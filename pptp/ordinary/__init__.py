"""Ordinary PPTP: one TCP control connection and the calls on it, as PAC (serving) and as PNS (dialling).

``connection`` holds the machine that an owner uses; ``call`` the one that nests in it, a call's GRE channel, PPP link
and MPPE; ``values`` what goes in and comes out.
"""

from pptp.ordinary.connection import OrdinaryConnection
from pptp.ordinary.values import (
    Admission,
    Admit,
    Authenticated,
    CallOver,
    CallStatus,
    CallTerms,
    CallUp,
    ConnectionStatus,
    ControlUp,
    EncryptionDown,
    EncryptionUp,
    GreOut,
    Ipv4Up,
    Ipv6Up,
    NetworkDown,
    OrdinaryConfig,
    OrdinaryEvent,
    OrdinaryOut,
    PeerIdentified,
    StreamOut,
)

__all__ = [
    "Admission",
    "Admit",
    "Authenticated",
    "CallOver",
    "CallStatus",
    "CallTerms",
    "CallUp",
    "ConnectionStatus",
    "ControlUp",
    "EncryptionDown",
    "EncryptionUp",
    "GreOut",
    "Ipv4Up",
    "Ipv6Up",
    "NetworkDown",
    "OrdinaryConfig",
    "OrdinaryConnection",
    "OrdinaryEvent",
    "OrdinaryOut",
    "PeerIdentified",
    "StreamOut",
]
