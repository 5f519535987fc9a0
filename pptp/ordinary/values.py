"""What an ordinary PPTP connection is told and what it tells: terms, admission, events and status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from pptp.channel import REORDER_LIMIT, REORDER_TIMEOUT, WindowStatus
from pptp.control import ControlConfig, Noted, PeerInfo
from pptp.crypto.mppe import MppeMode
from pptp.errors import Drop, Terminated
from pptp.ppp.auth import Authenticatee, Authenticator
from pptp.ppp.ccp import CcpPolicy
from pptp.ppp.chap import OPTION_CHAP_MD5
from pptp.ppp.link import Phase
from pptp.ppp.mschapv2 import OPTION_MSCHAPV2
from pptp.ppp.pap import OPTION_PAP
from pptp.value import value

# ours, because Windows, npppd and RouterOS are in the field with 1400 to 1460, and 1400 passes nearly everywhere
MRU = 1400
LARGEST_OUTER = 1500
# ours, because an LCP Configure-Request is repeated every 3 s: by then two of the peer's should have come
NO_GRE_WAIT = 6.0
# ours, because a user may be asked for the password again, and is given a minute for that
SETUP_WAIT = 120.0
# ours, because pptpd waits as long for the first message
FIRST_WAIT = 10.0
# ours: how long a control connection may be up without a call
IDLE_WAIT = 30.0
# ours, because mpd5 and pptp-linux place a few calls at most on one control connection
MAX_CALLS = 4
# ours, because a peer that is gone should be noticed within a minute or so
ECHO_INTERVAL = 20.0
ECHO_FAILURES = 3

_METHODS = {OPTION_MSCHAPV2: "mschapv2", OPTION_CHAP_MD5: "chap", OPTION_PAP: "pap"}


def method_name(option: bytes) -> str:
    """The short word for a value of LCP's Authentication-Protocol option."""
    return _METHODS.get(option, "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTerms:
    """What every call of a connection is negotiated to.

    ``authenticators`` (the best first) are for the serving side, ``authenticatees`` for the dialling one. ``mppe``
    ``None`` refuses encryption. ``mru`` is the largest information field we want, ``path_mtu`` the largest outer IPv4
    packet. ``address`` is what the dialling side asks for as its own, ``None`` for whatever it is given.
    ``echo_interval`` seconds between LCP Echo-Requests, ``echo_failures`` of them unanswered end a call.
    """

    authenticators: tuple[Authenticator, ...] = ()
    authenticatees: tuple[Authenticatee, ...] = ()
    mppe: CcpPolicy | None = None
    mru: int = MRU
    path_mtu: int = LARGEST_OUTER
    ipv6: bool = True
    interface_identifier: bytes | None = None
    echo_interval: float | None = ECHO_INTERVAL
    echo_failures: int = ECHO_FAILURES
    address: IPv4Address | None = None
    ask_dns: bool = True
    ask_wins: bool = False
    reorder_limit: int = REORDER_LIMIT
    reorder_timeout: float = REORDER_TIMEOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdinaryConfig:
    """One connection's policy. ``dials``: we are the PNS and place one call; else the PAC, which is asked for them.

    Times in seconds: a call without GRE from the peer ends after ``no_gre_wait``, one that carries no IP after
    ``setup_wait``; a connection that serves no call is stopped after ``idle_wait``.
    """

    dials: bool
    terms: CallTerms
    control: ControlConfig = field(default_factory=lambda: ControlConfig(first_wait=FIRST_WAIT, max_calls=MAX_CALLS))
    no_gre_wait: float = NO_GRE_WAIT
    setup_wait: float = SETUP_WAIT
    idle_wait: float = IDLE_WAIT


@value
class Admission:
    """A user may come in: ``local`` is our end of the tunnel, ``remote`` the user's; the servers are for who asks."""

    local: IPv4Address
    remote: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    wins: tuple[IPv4Address, ...] = ()


Admit = Callable[[int, str], Admission | Terminated]
"""Call ID and user (empty without authentication) to addresses or the reason of a refusal; asked once for each call."""


# -- what is to be sent ---------------------------------------------------------------------------------------


@value
class StreamOut:
    """Octets for the TCP connection."""

    data: bytes


@value
class GreOut:
    """A GRE packet, without an IP header, for the peer."""

    packet: bytes


OrdinaryOut = StreamOut | GreOut


# -- what happened --------------------------------------------------------------------------------------------


@value
class ControlUp:
    """The control connection is established."""

    peer: PeerInfo


@value
class CallUp:
    """A call is established, and GRE may flow. ``call_id`` is ours: it names the call in all that follows."""

    call_id: int
    peer_call_id: int


@value
class Authenticated:
    """``user`` is who the peer is (serving), or who we are to it (dialling). ``method``: mschapv2, chap or pap."""

    call_id: int
    user: str
    method: str


@value
class EncryptionUp:
    """MPPE has keys; ``None`` leaves a direction in clear. Comes again, with new keys, after a renegotiation."""

    call_id: int
    send: MppeMode | None
    receive: MppeMode | None


@value
class EncryptionDown:
    """MPPE is being renegotiated; no data goes out meanwhile."""

    call_id: int


@value
class Ipv4Up:
    """IPv4 packets of at most ``mtu`` octets may go both ways. ``dns`` and ``wins`` are what the peer gave us."""

    call_id: int
    local: IPv4Address
    remote: IPv4Address
    dns: tuple[IPv4Address, ...]
    wins: tuple[IPv4Address, ...]
    mtu: int


@value
class Ipv6Up:
    """IPv6 packets of at most ``mtu`` octets may go both ways; the interface identifiers have 8 octets."""

    call_id: int
    local: bytes
    remote: bytes
    mtu: int


@value
class NetworkDown:
    """Packets of ``protocol`` (0x0021, 0x0057) pass no longer; they may again after a renegotiation."""

    call_id: int
    protocol: int


@value
class PeerIdentified:
    """The peer described itself in LCP; ``text`` is escaped."""

    call_id: int
    text: str


@value
class CallOver:
    """A call that was up has ended: exactly one for each :class:`CallUp`."""

    call_id: int
    cause: Terminated


CallEvent = (
    CallUp | Authenticated | EncryptionUp | EncryptionDown | Ipv4Up | Ipv6Up | NetworkDown | PeerIdentified | CallOver
)
OrdinaryEvent = ControlUp | CallEvent | Noted | Terminated


# -- status ---------------------------------------------------------------------------------------------------


@value
class CallStatus:
    """One call as it stands. Times are of the clock that was handed in; packets and octets are IP's."""

    call_id: int
    peer_call_id: int
    phase: Phase
    user: str
    method: str
    encryption: str
    established_at: float
    last_packet_at: float | None
    received_packets: int
    received_octets: int
    sent_packets: int
    sent_octets: int
    drops: Mapping[Drop, int]
    window: WindowStatus


@value
class ConnectionStatus:
    """A connection as it stands; ``drops`` are GRE packets that belonged to no call."""

    peer: PeerInfo | None
    calls: tuple[CallStatus, ...]
    drops: Mapping[Drop, int]
