"""What an endpoint is doing, as an immutable value without secrets: the source of `status`, logs and metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from grepunch.jsonvalue import record
from grepunch.options import Role
from grepunch.ports import CarrierKind
from grepunch.verdict import SCHEMA
from pptp.value import value


def by_cause(*counters: Mapping[Any, int]) -> Counter[str]:
    """Packets that several parts have dropped, under the names of the causes."""
    total: Counter[str] = Counter()
    for counter in counters:
        total.update({str(cause): count for cause, count in counter.items()})
    return total


class Stage(StrEnum):
    """How far the way to a peer has been gone; an error is named with the stage it came in."""

    STARTING = "starting"
    MEETING = "meeting"  # on the way to a rendezvous
    WAITING = "waiting"  # for the peer to appear
    PUNCHING = "punching"
    SILENT = "silent"  # between two windows, while the NATs forget
    HANDSHAKE = "handshake"
    LINK = "link"  # PPP inside the seal
    UP = "up"
    LOST = "lost"  # was up; on the way back
    STOPPING = "stopping"


@value
class LastError:
    """The last thing that went wrong with a peer: in which stage, what, and how many seconds ago."""

    stage: Stage
    text: str
    age: float


@value
class PeerStatus:
    """One peer. Times in seconds, octets and packets of the inner traffic since the process began."""

    name: str
    stage: Stage
    since: float
    """How long it has been in this stage."""
    address: IPv4Address | None = None
    """Its address inside the tunnel."""
    routes: tuple[IPv4Network, ...] | None = None
    """The networks that are routed to it now; None where there are none."""
    path: IPv4Address | None = None
    """Its external address, once proven."""
    form: str | None = None
    carrier: CarrierKind | None = None
    """What data takes: GRE to ``path`` in ``form``, or the relay."""
    relay_reason: str | None = None
    """Over the relay: why not directly."""
    remembered: str | None = None
    """What worked the last time from this network, and is tried first: form, and whether a PPTP call was needed."""
    mtu: int | None = None
    rtt: float | None = None
    loss: float | None = None
    """Share of the peer's frames under the present keys that did not arrive, from 0 to 1."""
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    tx_packets: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    last_error: LastError | None = None


@value
class RendezvousStatus:
    """One rendezvous: reached or not, the address it sees us at, and why it could not be reached the last time."""

    url: str
    connected: bool
    external_address: IPv4Address | None = None
    error: str | None = None


@value
class SessionStatus:
    """One call of ordinary PPTP. ``name`` is the user, or the server that is dialled; ``source`` the other side's
    address outside, ``address`` inside. Octets and packets of the inner traffic."""

    name: str
    stage: Stage
    since: float
    source: IPv4Address | None = None
    address: IPv4Address | None = None
    call_id: int | None = None
    authentication: str | None = None
    encryption: str | None = None
    mtu: int | None = None
    client: str | None = None
    """How the other side's program calls itself."""
    idle: float | None = None
    """Seconds since its last packet."""
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    tx_packets: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    last_error: LastError | None = None


@value
class OrdinaryStatus:
    """The ordinary PPTP of an endpoint: where it listens, what of it is breakable, and its sessions."""

    interface: str
    allowed: tuple[str, ...]
    """What [legacy] allows: breakable in a day."""
    mppe: str
    address: IPv4Interface | None = None
    """Ours inside, with its network (serving)."""
    listening: tuple[str, ...] = ()
    connections: int = 0
    pool_size: int | None = None
    pool_leased: int | None = None
    sessions: tuple[SessionStatus, ...] = ()


@value
class Status:
    """One endpoint."""

    profile: str
    role: Role
    pid: int
    uptime: float
    version: str
    interface: str
    address: IPv4Interface | None = None
    peers: tuple[PeerStatus, ...] = ()
    rendezvous: tuple[RendezvousStatus, ...] = ()
    ordinary: OrdinaryStatus | None = None
    drops: Mapping[str, int] = field(default_factory=dict)
    """Packets that belong to no peer, by cause."""

    def as_json(self) -> dict[str, object]:
        """One object for programs; what is absent is left out."""
        return {"schema": SCHEMA, **record(self)}
