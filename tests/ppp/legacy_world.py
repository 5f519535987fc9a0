"""Two links of ordinary PPTP on a virtual clock, and a line between them that carries their data as well.

The line numbers the frames of each direction, and can lose and swap them; a reorder buffer as the data channel has it
stands before each receiver where ``ordered`` says so.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from pptp.channel import Channel, ChannelConfig
from pptp.crypto.mppe import MppePath
from pptp.errors import DropError
from pptp.machine import earliest
from pptp.ppp.ccp import EncryptionUp
from pptp.ppp.control_protocol import NetworkDown
from pptp.ppp.credentials import Credential, Users
from pptp.ppp.ipcp import IpcpPolicy
from pptp.ppp.link import Link, LinkEvent
from pptp.ppp.policy import LinkConfig
from pptp.wire.ppp import PppFrame, Protocol, build, parse

SERVER_ADDRESS, CLIENT_ADDRESS = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.9")
SERVER_IP = IpcpPolicy(local=SERVER_ADDRESS, remote=CLIENT_ADDRESS, strict=True)
CLIENT_IP = IpcpPolicy()
PASSWORD = "pässwörd"


def users(**passwords: str) -> Users:
    """The users of a server, ``alice`` where none is named."""
    known = {name: Credential.of_password(password) for name, password in (passwords or {"alice": PASSWORD}).items()}
    return Users(known.get)


def ip_packet(number: int) -> bytes:
    """A packet that says which it is."""
    return b"\x45\0\0\x20" + number.to_bytes(4, "big") + bytes(24)


@dataclass
class World:
    """The server's link is links[0], the client's links[1]; ``lose`` may pick frames by sender, on top of ``loss``."""

    server: LinkConfig
    client: LinkConfig
    seed: int = 0
    loss: float = 0.0
    reordering: float = 0.0
    delay: float = 0.02
    required: bool = False
    now: float = 0.0
    lose: Callable[[int, PppFrame], bool] = lambda side, frame: False

    log: tuple[list[LinkEvent], list[LinkEvent]] = field(default_factory=lambda: ([], []))
    seen: list[tuple[int, PppFrame]] = field(default_factory=list)
    carried: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))  # by receiver
    drops: list[DropError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.links = tuple(
            Link(config, entropy=random.Random(2 * self.seed + side).randbytes)
            for side, config in enumerate((self.server, self.client))
        )
        self.paths = tuple(MppePath(required=self.required) for _ in self.links)
        self.channels = tuple(Channel(ChannelConfig(side, 1 - side, acknowledge=False)) for side in (0, 1))
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._sent = 0
        for link in self.links:
            link.open(self.now)

    def send_data(self, side: int, number: int) -> None:
        """Send one IP packet, if it may go out."""
        if not self.links[side].carries(Protocol.IPV4):
            return
        try:
            self._transmit(side, *self.paths[side].seal(Protocol.IPV4, ip_packet(number)))
        except DropError as error:
            self.drops.append(error)

    def flush(self) -> None:
        """Carry out what the links say."""
        for side, link in enumerate(self.links):
            for frame in link.transmits():
                self.seen.append((side, frame))
                self._transmit(side, frame.protocol, bytes(frame.information))
            for event in link.events():
                self.log[side].append(event)
                match event:
                    case EncryptionUp(_, encryptor, decryptor):
                        self.paths[side].rekey(encryptor, decryptor)
                    case NetworkDown(Protocol.MPPE):
                        self.paths[side].rekey(None, None)

    def _transmit(self, side: int, protocol: int, information: bytes | memoryview) -> None:
        packet = self.channels[side].encapsulate(build(protocol, information), self.now)
        if self.dice.random() < self.loss or self.lose(side, PppFrame(protocol, information)):
            return
        late = self.dice.uniform(0, 5 * self.delay) if self.dice.random() < self.reordering else 0.0
        self._sent += 1
        heapq.heappush(self._queue, (self.now + self.delay + late, self._sent, 1 - side, packet))

    def _receive(self, side: int, frame: bytes | memoryview) -> None:
        read = parse(frame)
        try:
            protocol, data = self.paths[side].open(read.protocol, read.information)
        except DropError as error:
            self.drops.append(error)
            return
        if protocol == Protocol.IPV4 and self.links[side].carries(protocol):
            self.carried[side].append(int.from_bytes(data[4:8], "big"))
        else:
            self.links[side].receive(protocol, data, self.now)

    def run(self, until: float) -> None:
        """Let time pass."""
        self.flush()
        while True:
            deadlines = [link.deadline() for link in self.links] + [channel.deadline() for channel in self.channels]
            due = earliest(*deadlines, self._queue[0][0] if self._queue else None)
            if due is None or due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            while self._queue and self._queue[0][0] <= self.now:
                _, _, side, packet = heapq.heappop(self._queue)
                for frame in self.channels[side].receive(packet, self.now):
                    self._receive(side, frame)
                self.flush()
            for side, channel in enumerate(self.channels):
                channel.handle_timeout(self.now)
                for frame in channel.events():
                    self._receive(side, frame)
            for link in self.links:
                link.handle_timeout(self.now)
            self.flush()

    @property
    def up(self) -> bool:
        """Whether both ends carry IPv4."""
        return all(link.carries(Protocol.IPV4) for link in self.links)
