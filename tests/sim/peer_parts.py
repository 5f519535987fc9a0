"""What stands around two simulated endpoints: the rendezvous and its clock, a raw socket, a TUN device."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from grepunch.ports import Form, GreFrame, GreSend

if TYPE_CHECKING:
    from tests.sim.peer_world import Host, World


@dataclass
class Meeting:
    """The rendezvous: who is there, and what it does with blobs. Delays in seconds, one way between host and server."""

    delay: float = 0.02
    loss: float = 0.0
    running: bool = True
    relays: bool = False
    run_number: int = 1
    joined: dict[str, int] = field(default_factory=dict)
    joins: int = 0


@dataclass
class MeetingClock:
    """The rendezvous' clock as one host knows it, ``error`` seconds wrong."""

    world: World
    host: Host
    error: float

    @property
    def instance(self) -> bytes:
        return self.world.meeting.run_number.to_bytes(8, "big")

    @property
    def rtt(self) -> float:
        return 2 * self.world.meeting.delay

    @property
    def external(self) -> IPv4Address:
        return self.host.seen_external

    @property
    def gre_sources(self) -> tuple[IPv4Address, ...]:
        return ()

    def server_time(self, now: float) -> float:
        return now - self.host.clock_base + self.error

    def local_time(self, server_time: float) -> float:
        return server_time + self.host.clock_base - self.error


class QueuedFrames:
    """What the pump takes for the raw socket of one host."""

    def __init__(self, world: World, host: Host) -> None:
        self.arrived: list[GreFrame] = []
        self._world = world
        self._host = host

    def receive(self, limit: int) -> list[GreFrame]:
        frames, self.arrived = self.arrived[:limit], self.arrived[limit:]
        return frames

    def send_frame(self, destination: IPv4Address, form: Form, frame: bytes) -> bool:
        self._world.send_gre(self._host, GreSend(destination, form, frame))
        return True


class QueuedPackets:
    """What the pump takes for the TUN device of one host."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.written: list[bytes] = []

    def read(self, limit: int) -> list[bytes]:
        packets, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return packets

    def write(self, packet: bytes) -> bool:
        self.written.append(packet)
        return True
