"""What an endpoint is doing, as an immutable value without secrets: the source of `status`, logs and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface

from grepunch.jsonvalue import record
from grepunch.options import Role
from grepunch.ports import Form
from grepunch.verdict import SCHEMA


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


@dataclass(frozen=True, slots=True)
class LastError:
    """The last thing that went wrong with a peer: in which stage, what, and how many seconds ago."""

    stage: Stage
    text: str
    age: float


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer. Times in seconds, octets and packets of the inner traffic since the process began."""

    name: str
    stage: Stage
    since: float
    """How long it has been in this stage."""
    address: IPv4Address | None = None
    """Its address inside the tunnel."""
    path: IPv4Address | None = None
    """Its external address, once proven."""
    form: Form | None = None
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


@dataclass(frozen=True, slots=True)
class RendezvousStatus:
    """One rendezvous: reached or not, the address it sees us at, and why it could not be reached the last time."""

    url: str
    connected: bool
    external_address: IPv4Address | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
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
    drops: Mapping[str, int] = field(default_factory=dict)
    """Packets that belong to no peer, by cause."""

    def as_json(self) -> dict[str, object]:
        """One object for programs; what is absent is left out."""
        return {"schema": SCHEMA, **record(self)}
