"""Both packet loops, the plain one and the engine, between fakes of the system: so that one test can hold for both."""

from __future__ import annotations

import errno
import select
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any, cast

from grepunch.datapump import DataPump, PeerTraffic, refusal
from grepunch.io.engine.batches import SLOT_SIZE, SLOTS, GreBatches, ReceiveRing, SendRing
from grepunch.io.engine.loop import Engine
from grepunch.io.rawgre import Destination, parse_packet
from grepunch.io.rawsocket import SocketDrop, WireTap
from grepunch.peer import PeerMachine
from grepunch.ports import RELAY, Form, GreFrame, Way
from grepunch.routing import AddressTable
from pptp.crypto.aead import Suite
from pptp.datapath import SealedPair
from pptp.wire.ppp import Protocol
from tests.engine import kernel
from tests.engine.kernel import UDP, Flow

HERE, THERE = IPv4Address("198.51.100.7"), IPv4Address("203.0.113.9")
LOOPS = ("plain", "engine")
IPV4, IPV6, LCP = 0x21, 0x57, 0xC021
PACKET = Flow(protocol=UDP).packet(b"a datagram", partial=False)
EVERYTHING = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


def outer(source: IPv4Address, destination: IPv4Address, gre: bytes, *, options: bytes = b"") -> bytes:
    """A packet as the raw socket gives it. The kernel has seen to the checksum."""
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | size // 4, 0, size + len(gre), 0, 0x4000, 61, 47, 0, source.packed, destination.packed
    )
    return head + options + gre


@dataclass
class FakeRelay:
    """What a peer's machine knows of the relay."""

    takes: bool = True
    heard_at: list[float] = field(default_factory=list)

    def heard(self, now: float) -> None:
        self.heard_at.append(now)


@dataclass
class FakeMachine:
    """A peer whose link is up; what is not data it only notes."""

    sending_pair: SealedPair | None
    receiving: SealedPair
    hole: tuple[IPv4Address, Form] | None
    networks: frozenset[int] = frozenset({int(Protocol.IPV4), int(Protocol.IPV6)})
    settled: bool = True
    good: bool = True
    opened: list[tuple[int, bytes]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    largest: int = 0
    relayed: bool = False
    relay: FakeRelay = field(default_factory=FakeRelay)

    @property
    def carrier(self) -> tuple[IPv4Address, Form] | Way | None:
        return RELAY if self.relayed else self.hole

    def settled_on(self, pair: SealedPair, source: object) -> bool:
        return self.settled and pair is self.receiving and source in (RELAY, self.hole)

    def receive_opened(self, pair: SealedPair, protocol: int, data: bytes, source: object, now: float) -> bool:
        self.opened.append((protocol, data))
        return self.good

    def heard(self, now: float) -> None:
        self.calls.append("heard")

    def sent(self, now: float, largest: int) -> None:
        self.calls.append("sent")
        self.largest = max(self.largest, largest)


class FakeSocket:
    """A raw GRE socket for both loops. ``sent`` packets are whole; ``failures`` answers coming sends with errors."""

    def __init__(self, address: IPv4Address) -> None:
        self.own = address
        self.sent_packets: list[bytes] = []
        self.batches: list[int] = []
        self.waiting: list[bytes] = []
        self.failures: list[int] = []
        self.drops: Counter[SocketDrop] = Counter()
        self.sent = self.received = 0
        self.tap: WireTap | None = None
        self._destinations: dict[IPv4Address, Destination] = {}
        self._addresses: dict[bytes, IPv4Address] = {}

    def fileno(self) -> int:
        return -1

    def destination(self, address: IPv4Address) -> Destination:
        return self._destinations.setdefault(address, Destination(address))

    def address(self, packed: bytes) -> IPv4Address:
        return self._addresses.setdefault(packed, IPv4Address(packed))

    # the plain loop's face

    def send_frame(self, destination: IPv4Address, form: Form, frame: bytes) -> bool:
        if self.failures and self.failures.pop(0):
            return False
        known = self.destination(destination)
        if form is Form.V1:
            gre = struct.pack("!HHHHI", 0x3001, 0x880B, len(frame), known.call_id, known.sequence)
            known.sequence += 1
        else:
            gre = struct.pack("!HH", 0, 0x880B)
        self.sent_packets.append(outer(self.own, destination, gre + frame))
        return True

    def receive(self, limit: int) -> list[GreFrame]:
        now, self.waiting = self.waiting[:limit], self.waiting[limit:]
        parsed = [parse_packet(packet) for packet in now if len(packet) <= SLOT_SIZE]
        return [GreFrame(self.address(p[0]), p[1], p[2], p[3]) for p in parsed if p is not None]


class FakeSendRing(SendRing):
    """Sends to a list."""

    def __init__(self, socket: FakeSocket) -> None:
        super().__init__(-1)
        self._socket = socket

    def transmit(self, first: int, count: int) -> int:
        socket = self._socket
        for number in range(count):
            if socket.failures and (failure := socket.failures.pop(0)):
                if number:
                    socket.failures.insert(0, failure)  # said at the next call, as sendmmsg does
                return number or -failure
            lane, packet = self.sent_to(first + number)
            socket.sent_packets.append(outer(socket.own, lane.to, bytes(packet)))
        socket.batches.append(count)
        return count


class FakeReceiveRing(ReceiveRing):
    """Receives from a list."""

    def __init__(self, socket: FakeSocket) -> None:
        super().__init__(-1)
        self._socket = socket

    def collect_one(self) -> int:
        if not self._socket.waiting:
            raise BlockingIOError(errno.EAGAIN, "none")
        packet = self._socket.waiting.pop(0)
        kept = packet[: SLOT_SIZE + 1]
        self.memory[: len(kept)] = kept
        return len(kept)

    def collect(self) -> int:
        now, self._socket.waiting = self._socket.waiting[:SLOTS], self._socket.waiting[SLOTS:]
        for slot, packet in enumerate(now):
            base = slot * SLOT_SIZE
            self.memory[base : base + min(len(packet), SLOT_SIZE)] = packet[:SLOT_SIZE]
            self.sizes[slot] = len(packet)
        return len(now) or -errno.EAGAIN


class FakeDevice:
    """A TUN device of either kind: what the kernel has to say, and what it was told."""

    def __init__(self, *, udp: bool = True) -> None:
        self.udp = udp
        self.waiting: list[bytes] = []
        self.written: list[bytes] = []
        self.full = False

    def read(self, limit: int) -> list[bytes]:
        now, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return now

    def read_into(self, buffer: bytearray) -> int:
        if not self.waiting:
            return 0
        packet = self.waiting.pop(0)
        buffer[: len(packet)] = packet
        return len(packet)

    def write(self, packet: bytes | Sequence[memoryview]) -> bool:
        if self.full:
            return False
        self.written.append(bytes(packet) if isinstance(packet, bytes | memoryview) else b"".join(packet))
        return True


@dataclass
class End:
    """One loop with its fakes and one peer."""

    loop: str
    pump: Any
    socket: FakeSocket
    device: FakeDevice
    machine: FakeMachine
    traffic: PeerTraffic
    clear: list[GreFrame]
    frames: list[bytes] = field(default_factory=list)  # for the relay
    relay_full: bool = False
    told: Counter[str] = field(default_factory=Counter)  # of peers that were settled, or whose data moved

    def relay(self, traffic: PeerTraffic, frame: bytes) -> bool:
        """The relay takes a frame, or does not."""
        if not self.relay_full:
            self.frames.append(frame)
        return not self.relay_full

    def receive_relayed(self, frames: Sequence[bytes]) -> list[bytes]:
        """Let these frames come over the relay; what is written to the device."""
        for frame in frames:
            self.pump.relayed(self.traffic, frame)
        written, self.device.written = self.device.written, []
        return written

    def send(self) -> list[bytes]:
        """Let the loop read its device until there is no more; the packets on the wire."""
        self.pump.review()  # as after every call of a machine: the tests change theirs
        while self.device.waiting or self.waits():
            self.pump.tun_readable()
        self._rest()
        sent, self.socket.sent_packets = self.socket.sent_packets, []
        return sent

    def _rest(self) -> None:
        """The end of a wake-up."""
        self.pump.pause()
        self.pump.settle()

    def waits(self) -> bool:
        """Whether the loop wants to be called though its device has nothing."""
        if self.loop == "plain":
            return False
        poll = select.poll()
        poll.register(self.pump, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self, packets: Sequence[bytes]) -> list[bytes]:
        """Let these packets arrive; what is written to the device."""
        self.pump.review()
        self.socket.waiting += packets
        while self.socket.waiting:
            self.pump.gre_readable()
        self._rest()
        written, self.device.written = self.device.written, []
        return written


def make_pump(
    loop: str,
    socket: FakeSocket,
    device: FakeDevice,
    addresses: AddressTable[PeerTraffic],
    *,
    find_pair: Callable[[int], tuple[PeerTraffic, SealedPair] | None],
    clear_frame: Callable[[GreFrame], None],
    relay: Callable[[PeerTraffic, bytes], bool] = lambda traffic, frame: False,
    now: Callable[[], float] = lambda: 0.0,
    told: Callable[[str], None] = lambda what: None,
) -> Any:
    """The plain loop or the engine, between these fakes."""
    common: dict[str, Any] = {
        "find_pair": find_pair,
        "clear_frame": clear_frame,
        "relay": relay,
        "settled": lambda traffic: told("settled"),
        "news": lambda: told("news"),
        "now": now,
    }
    if loop == "plain":
        return DataPump(socket, cast(Any, device), addresses, **common)
    batches = GreBatches(socket, lambda _: FakeSendRing(socket), lambda _: FakeReceiveRing(socket))
    return Engine(
        batches,
        device,
        owner_of=addresses.owner_of,
        refusal=partial(refusal, addresses),
        moved=lambda traffic: told("moved"),
        **common,
    )


def make_end(
    loop: str,
    pair: SealedPair,
    *,
    form: Form = Form.V1,
    local: IPv4Address = HERE,
    remote: IPv4Address = THERE,
    udp: bool = True,
    allowed: Sequence[IPv4Network | IPv6Network] = EVERYTHING,
) -> End:
    """One end with a peer at ``remote`` that may use ``allowed``."""
    socket, device = FakeSocket(local), FakeDevice(udp=udp)
    machine = FakeMachine(pair, pair, (socket.address(remote.packed), form))
    traffic = PeerTraffic("peer", cast(PeerMachine, machine))
    addresses: AddressTable[PeerTraffic] = AddressTable()
    addresses.add("peer", traffic, allowed)
    clear: list[GreFrame] = []

    def find_pair(index: int) -> tuple[PeerTraffic, SealedPair] | None:
        return (traffic, pair) if index == pair.local_index else None

    end = End(loop, None, socket, device, machine, traffic, clear)
    end.pump = make_pump(
        loop,
        socket,
        device,
        addresses,
        find_pair=find_pair,
        clear_frame=clear.append,
        relay=end.relay,
        told=lambda what: end.told.update([what]),
    )
    return end


def make_ends(
    sender: str,
    receiver: str,
    *,
    elides: bool = True,
    form: Form = Form.V1,
    suite: Suite = Suite.AES_256_GCM,
    **options: Any,
) -> tuple[End, End]:
    """Two ends of one link."""
    keys = bytes(range(32)), bytes(range(32, 64))
    left = SealedPair(11, 22, suite, *keys, elides=elides)
    right = SealedPair(22, 11, suite, *reversed(keys), elides=elides)
    return (
        make_end(sender, left, form=form, **options),
        make_end(receiver, right, form=form, local=THERE, remote=HERE, **options),
    )


def offer(end: End, *packets: bytes) -> None:
    """Packets that the kernel has finished, checksum and all."""
    end.device.waiting += [bytes(10) + packet if end.loop == "engine" else packet for packet in packets]


def seen(end: End, *frames: bytes) -> list[bytes]:
    """What the kernel sees when these arrive."""
    written = end.receive(frames)
    return written if end.loop == "plain" else [packet for one in written for packet in kernel.take(one)]


def gre_v1(frame: bytes, sequence: int = 0) -> bytes:
    return struct.pack("!HHHHI", 0x3001, 0x880B, len(frame), 0, sequence) + frame


def sealed(end: End, protocol: int, data: bytes, flags: int = 0, source: IPv4Address = HERE) -> bytes:
    """A frame of the peer of ``end``'s other side, as it arrives."""
    pair = end.machine.sending_pair
    assert pair is not None
    return outer(source, THERE, gre_v1(pair.seal(protocol, data, flags)))
