"""A server and a client of ordinary PPTP on a virtual clock: a TCP stream between them, and a line for GRE.

The stream is cut into pieces at random and never loses anything; the line may lose, duplicate and swap packets. Each
end has an owner who gives out Call IDs, admits users, and keeps what was handed up.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import TypeVar

from pptp.crypto.mppe_keys import Strength
from pptp.errors import Terminated, TerminationCause
from pptp.machine import earliest
from pptp.ordinary import (
    Admission,
    Admit,
    CallOver,
    CallTerms,
    CallUp,
    GreOut,
    Ipv4Up,
    OrdinaryConfig,
    OrdinaryConnection,
    OrdinaryEvent,
    StreamOut,
)
from pptp.ppp.auth import Authenticatee, Authenticator
from pptp.ppp.ccp import CcpPolicy
from pptp.ppp.chap import ChapMd5Authenticatee, ChapMd5Authenticator
from pptp.ppp.credentials import Credential, Users
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.ppp.pap import PapAuthenticatee, PapAuthenticator
from pptp.wire.ppp import Protocol

SERVER, CLIENT = 0, 1
SERVER_ADDRESS, CLIENT_ADDRESS = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.9")
DNS = (IPv4Address("10.77.0.1"), IPv4Address("9.9.9.9"))
USER, PASSWORD = "alice", "pässwörd"
MPPE_128 = CcpPolicy()

EventT = TypeVar("EventT", bound=OrdinaryEvent)


def users(**passwords: str) -> Users:
    """The users of a server, ``alice`` where none is named."""
    known = {name: Credential.of_password(said) for name, said in (passwords or {USER: PASSWORD}).items()}
    return Users(known.get)


def authenticators(*methods: str) -> tuple[Authenticator, ...]:
    """The serving side's methods by their short words."""
    made: dict[str, Callable[[], Authenticator]] = {
        "mschapv2": lambda: MsChapV2Authenticator(users()),
        "chap": lambda: ChapMd5Authenticator(users()),
        "pap": lambda: PapAuthenticator(users()),
    }
    return tuple(made[method]() for method in methods)


def authenticatees(*methods: str, password: str = PASSWORD) -> tuple[Authenticatee, ...]:
    """The dialling side's methods by their short words."""
    made: dict[str, Callable[[], Authenticatee]] = {
        "mschapv2": lambda: MsChapV2Authenticatee(USER, Credential.of_password(password)),
        "chap": lambda: ChapMd5Authenticatee(USER, password),
        "pap": lambda: PapAuthenticatee(USER, password),
    }
    return tuple(made[method]() for method in methods)


def serving(*methods: str, mppe: CcpPolicy | None = MPPE_128, **terms: object) -> OrdinaryConfig:
    """A server that asks for ``methods``, MS-CHAPv2 where none is named."""
    own = CallTerms(authenticators=authenticators(*(methods or ("mschapv2",))), mppe=mppe)
    return OrdinaryConfig(dials=False, terms=replace(own, **terms))  # type: ignore[arg-type]


def dialling(
    *methods: str, mppe: CcpPolicy | None = MPPE_128, password: str = PASSWORD, **terms: object
) -> OrdinaryConfig:
    """A client that can do ``methods``, MS-CHAPv2 where none is named."""
    own = CallTerms(authenticatees=authenticatees(*(methods or ("mschapv2",)), password=password), mppe=mppe)
    return OrdinaryConfig(dials=True, terms=replace(own, **terms))  # type: ignore[arg-type]


def stateful(*strengths: Strength, required: bool = True) -> CcpPolicy:
    """MPPE of these strengths, 128 where none is named, in stateful mode alone."""
    return CcpPolicy(
        required=required, strengths=frozenset(strengths or {Strength.BITS_128}), stateless=False, stateful=True
    )


def stateless(*strengths: Strength, required: bool = True) -> CcpPolicy:
    """MPPE of these strengths, in stateless mode alone."""
    return CcpPolicy(required=required, strengths=frozenset(strengths or {Strength.BITS_128}))


def ip_packet(number: int, size: int = 84) -> bytes:
    """A packet of IPv4 that says which it is, with the sum that belongs to it."""
    words = (0x4500, size, number >> 16, number & 0xFFFF, 0x4001)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!6H", *words, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + bytes(size - 12)


def admit_one(call_id: int, user: str) -> Admission | Terminated:
    """One address for whoever comes."""
    return Admission(SERVER_ADDRESS, CLIENT_ADDRESS, DNS)


class CallIds:
    """Who gives out Call IDs, and sees that each comes back once."""

    def __init__(self, first: int, *, most: int = 16) -> None:
        self.free = list(range(first, first + most))
        self.out: set[int] = set()

    def allocate(self) -> int | None:
        """A free one."""
        if not self.free:
            return None
        self.out.add(self.free[0])
        return self.free.pop(0)

    def release(self, call_id: int) -> None:
        """It is used no more."""
        self.out.remove(call_id)
        self.free.append(call_id)


@dataclass(eq=False)
class End:
    """One end: the connection, its Call IDs, and what its owner saw."""

    connection: OrdinaryConnection
    call_ids: CallIds
    events: list[OrdinaryEvent] = field(default_factory=list)
    received: list[tuple[int, bytes]] = field(default_factory=list)
    over: bool = False

    def of(self, kind: type[EventT]) -> list[EventT]:
        """The events of one kind, oldest first."""
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[EventT]) -> EventT:
        """The only event of a kind."""
        (event,) = self.of(kind)
        return event

    @property
    def call_id(self) -> int:
        """Of the latest call."""
        return self.of(CallUp)[-1].call_id

    @property
    def cause(self) -> TerminationCause:
        """Why it ended."""
        return self.one(Terminated).cause

    @property
    def up(self) -> bool:
        """Whether IPv4 is up."""
        return bool(self.of(Ipv4Up)) and not self.of(CallOver)


def end(
    config: OrdinaryConfig,
    seed: int,
    *,
    admit: Admit | None = admit_one,
    most: int = 16,
    entropy: Callable[[int], bytes] | None = None,
) -> End:
    """A connection and its owner."""
    call_ids = CallIds(100 if config.dials else 5000, most=most)
    connection = OrdinaryConnection(
        config,
        entropy=entropy or random.Random(seed).randbytes,
        allocate_call_id=call_ids.allocate,
        release_call_id=call_ids.release,
        admit=None if config.dials else admit,
    )
    return End(connection, call_ids)


@dataclass
class World:
    """The two ends and what is between them. Probabilities are of each GRE packet, ``delay`` is in seconds."""

    server: OrdinaryConfig
    client: OrdinaryConfig
    seed: int = 0
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    delay: float = 0.02
    late: float = 0.1
    admit: Admit = admit_one
    lose: Callable[[int, bytes], bool] = lambda sender, packet: False
    now: float = 0.0
    wire: list[tuple[float, int, StreamOut | GreOut]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.ends = (
            end(self.server, 2 * self.seed, admit=self.admit),
            end(self.client, 2 * self.seed + 1),
        )
        self._queue: list[tuple[float, int, int, StreamOut | GreOut]] = []
        self._stream_at = [0.0, 0.0]  # when the last octet of each direction arrives
        self._sent = 0
        self._closed = [False, False]
        for each in self.ends:
            each.connection.open(self.now)

    @property
    def up(self) -> bool:
        """Whether both ends carry IPv4."""
        return all(each.up for each in self.ends)

    def send_data(self, side: int, number: int, protocol: int = Protocol.IPV4, size: int = 84) -> bool:
        """Send one IP packet; whether it could go."""
        each = self.ends[side]
        call_ups = each.of(CallUp)
        if not call_ups:
            return False
        packet = each.connection.send_network(call_ups[-1].call_id, protocol, ip_packet(number, size), self.now)
        if packet is not None:
            self._send_gre(side, GreOut(packet))
        return packet is not None

    def flush(self) -> None:
        """Carry out what the ends say."""
        for side, each in enumerate(self.ends):
            for out in each.connection.transmits():
                assert not each.over or isinstance(out, StreamOut)
                if isinstance(out, StreamOut):
                    self._send_stream(side, out)
                else:
                    self._send_gre(side, out)
            for event in each.connection.events():
                assert not each.over, f"{event} after the end"
                each.events.append(event)
                if isinstance(event, Terminated):
                    each.over = True
                    self._push(max(self.now + self.delay, self._stream_at[side]), 1 - side, StreamOut(b""))

    def _send_stream(self, side: int, out: StreamOut) -> None:
        self.wire.append((self.now, side, out))
        data = out.data
        while data:
            size = self.dice.randint(1, len(data))
            self._stream_at[side] = max(self._stream_at[side], self.now + self.delay)
            self._push(self._stream_at[side], 1 - side, StreamOut(data[:size]))
            data = data[size:]

    def _send_gre(self, side: int, out: GreOut) -> None:
        self.wire.append((self.now, side, out))
        if self.dice.random() < self.loss or self.lose(side, out.packet):
            return
        for _ in range(1 + (self.dice.random() < self.duplication)):
            late = self.dice.uniform(0, self.late) if self.dice.random() < self.reordering else 0.0
            self._push(self.now + self.delay + late, 1 - side, out)

    def _push(self, at: float, receiver: int, out: StreamOut | GreOut) -> None:
        self._sent += 1
        heapq.heappush(self._queue, (at, self._sent, receiver, out))

    def _deliver(self, receiver: int, out: StreamOut | GreOut) -> None:
        each = self.ends[receiver]
        if isinstance(out, GreOut):
            got = each.connection.receive_gre(memoryview(out.packet), self.now)
            each.received += [(protocol, bytes(data)) for protocol, data in got]
        elif out.data:
            each.connection.receive_stream(out.data, self.now)
        else:
            each.connection.stream_closed(self.now)

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass."""
        self.flush()
        while not stop():
            deadlines = [each.connection.deadline() for each in self.ends]
            due = earliest(*deadlines, self._queue[0][0] if self._queue else None)
            if due is None or due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            while self._queue and self._queue[0][0] <= self.now:
                _, _, receiver, out = heapq.heappop(self._queue)
                self._deliver(receiver, out)
                self.flush()
            for each in self.ends:
                each.connection.handle_timeout(self.now)
                each.received += [(protocol, bytes(data)) for _, protocol, data in each.connection.released()]
            self.flush()

    def numbers(self, side: int) -> list[int]:
        """Which of the numbered packets one end has received, in order."""
        return [int.from_bytes(data[4:8], "big") for protocol, data in self.ends[side].received if protocol == 0x21]
