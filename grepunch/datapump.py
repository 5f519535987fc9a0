"""The plain packet loop: TUN to sealed GRE or the relay and back, one packet after the other, many per wake-up.

It is the readable reference of the data path. What it does not decide at a glance (a frame of PPP or control, a
frame from another source, keys seen for the first time) goes to the peer machine. Everything dropped is counted by
cause. The endpoint registers :meth:`DataPump.tun_readable` and :meth:`DataPump.gre_readable` with its event loop,
and :meth:`DataPump.drops` feeds status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Protocol

from grepunch.io.engine.checksum import completed
from grepunch.io.engine.checksum import find as find_checksum
from grepunch.neighbours import DISCOVERY_HOP_LIMIT, discovers_neighbours
from grepunch.peer import OVERHEAD, Carrier, PeerMachine
from grepunch.ports import RELAY, Form, GreFrame
from grepunch.routing import AddressTable
from pptp.datapath import SealedPair
from pptp.errors import Drop, DropError, WireError
from pptp.wire.ppp import Protocol as PppProtocol
from pptp.wire.sealed import is_sealed, receiver_index

# ours, because a longer drain lets the other direction and the timers wait
BATCH = 64

_IPV4 = int(PppProtocol.IPV4)
_IPV6 = int(PppProtocol.IPV6)


class GrePort(Protocol):
    """What the pump needs of the raw GRE socket."""

    def receive(self, limit: int) -> list[GreFrame]:
        """Up to ``limit`` frames that have arrived."""

    def send_frame(self, destination: IPv4Address, form: Form, frame: bytes) -> bool:
        """Send one PPP frame; False when the socket is full."""


class TunPort(Protocol):
    """What the pump needs of the TUN device."""

    def read(self, limit: int) -> list[bytes]:
        """Up to ``limit`` packets that the kernel sends."""

    def write(self, packet: bytes) -> bool:
        """Hand the kernel one packet; False when it does not take it."""


@dataclass(slots=True)
class PeerTraffic:
    """One peer as the pump sees it, with its counters of inner traffic."""

    name: str
    machine: PeerMachine
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    touched: bool = False  # in this batch
    heard: bool = False  # in this batch, from the hole
    largest: int = 0
    tap: Callable[[int, bytes, bool], None] | None = None  # for captures: protocol, packet, outgoing
    drops: Counter[Drop] = field(default_factory=Counter)


class DataPump:
    """Moves packets between one TUN device, one raw GRE socket and any number of peers."""

    def __init__(
        self,
        gre: GrePort,
        tun: TunPort,
        addresses: AddressTable[PeerTraffic],
        *,
        find_pair: Callable[[int], tuple[PeerTraffic, SealedPair] | None],
        clear_frame: Callable[[GreFrame], None],
        relay: Callable[[PeerTraffic, bytes], bool],
        settled: Callable[[PeerTraffic], None],
        news: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        """``find_pair`` gives peer and keys of a receiver index; ``clear_frame`` takes what is not sealed; ``relay``
        has a frame relayed; ``settled`` is called for each peer whose machine may have something to send after a
        batch, and ``news`` after each that has come in: the network may have said something about packets of ours
        (ICMP)."""
        self._gre = gre
        self._tun = tun
        self._addresses = addresses
        self._find_pair = find_pair
        self._clear_frame = clear_frame
        self._relay = relay
        self._settled = settled
        self._news = news
        self._now = now
        self.drops: Counter[Drop] = Counter()

    def pause(self) -> None:
        """There is nothing more to take at the moment."""

    def review(self) -> None:
        """A machine was called; here nothing is remembered of any."""

    def settle(self) -> None:
        """The end of a wake-up; here each batch has told the machines what there was to tell."""

    def tun_readable(self) -> None:
        """Seal and send what the kernel has for the tunnel."""
        packets = self._tun.read(BATCH)
        owner_of = self._addresses.owner_of
        touched: list[PeerTraffic] = []
        for packet in packets:
            version = packet[0] >> 4 if packet else 0
            if version == 4 and len(packet) >= 20:
                protocol, destination = _IPV4, packet[16:20]
            elif version == 6 and len(packet) >= 40:
                protocol, destination = _IPV6, packet[24:40]
            else:
                self.drops[Drop.MALFORMED] += 1
                continue
            traffic = owner_of(destination)
            if traffic is None:
                self.drops[Drop.NO_ROUTE] += 1
                continue
            machine = traffic.machine
            carrier, pair = machine.carrier, machine.sending_pair
            if carrier is None or pair is None or protocol not in machine.networks:
                traffic.drops[Drop.WRONG_PHASE] += 1
                continue
            if traffic.tap is not None:
                traffic.tap(protocol, packet, True)
            frame = pair.seal(protocol, packet)
            if carrier is RELAY:
                sent = self._relay(traffic, frame)
            else:
                sent = self._gre.send_frame(carrier[0], carrier[1], frame)
            if not sent:
                traffic.drops[Drop.QUEUE_FULL] += 1
                continue
            size = len(packet)
            traffic.tx_packets += 1
            traffic.tx_bytes += size
            if not traffic.touched:
                traffic.touched = True
                touched.append(traffic)
            if size > traffic.largest:
                traffic.largest = size
        if touched:
            now = self._now()
            for traffic in touched:
                carrier = traffic.machine.carrier
                if carrier is not None and carrier is not RELAY:
                    traffic.machine.sent(now, traffic.largest + OVERHEAD[carrier[1]])
                traffic.touched, traffic.largest = False, 0
                self._settled(traffic)

    def gre_readable(self) -> None:
        """Open what has arrived: data to the kernel, everything else to the peer machines."""
        touched: list[PeerTraffic] = []
        for frame in self._gre.receive(BATCH):
            ppp = frame.ppp
            if not is_sealed(ppp):
                self._clear_frame(frame)
                continue
            try:
                found = self._find_pair(receiver_index(ppp))
                if found is None:
                    self.drops[Drop.UNKNOWN_SESSION] += 1
                    continue
                traffic, pair = found
                protocol, data, flags = pair.open(ppp)
            except WireError:
                self.drops[Drop.MALFORMED] += 1
                continue
            except DropError:
                continue  # counted by the pair
            if self._opened((frame.source, frame.form), traffic, pair, protocol, data, flags):
                traffic.heard = True
            if not traffic.touched:
                traffic.touched = True
                touched.append(traffic)
        if touched:
            now = self._now()
            for traffic in touched:
                if traffic.heard:
                    traffic.machine.heard(now)
                traffic.touched = traffic.heard = False
                self._settled(traffic)
        self._news()

    def relayed(self, traffic: PeerTraffic, frame: bytes) -> None:
        """Open a frame that came over the relay, in the mailbox of this peer."""
        if not traffic.machine.relay.takes:
            traffic.drops[Drop.NOT_ALLOWED] += 1
            return
        try:
            found = self._find_pair(receiver_index(frame)) if is_sealed(frame) else None
            if found is None or found[0] is not traffic:  # a server that mixes mailboxes mixes no peers
                self.drops[Drop.UNKNOWN_SESSION] += 1
                return
            protocol, data, flags = found[1].open(frame)
        except WireError:
            self.drops[Drop.MALFORMED] += 1
            return
        except DropError:
            return  # counted by the pair
        if self._opened(RELAY, traffic, found[1], protocol, data, flags):
            traffic.machine.relay.heard(self._now())
        else:
            self._settled(traffic)

    def _opened(
        self, source: Carrier, traffic: PeerTraffic, pair: SealedPair, protocol: int, data: bytes, flags: int
    ) -> bool:
        """Take what a frame held; True when it was data that came the ordinary way."""
        machine = traffic.machine
        ordinary = machine.settled_on(pair, source)
        if protocol not in (_IPV4, _IPV6):
            machine.receive_opened(pair, protocol, bytes(data), source, self._now())
            return False
        if not ordinary and not machine.receive_opened(pair, protocol, b"", source, self._now()):
            return False
        if flags:
            place = find_checksum(data)
            if place is None:
                traffic.drops[Drop.MALFORMED] += 1
                return ordinary
            data = completed(data, place)  # this device has no offload: its packets are whole
        cause = refusal(self._addresses, traffic, protocol, data)
        if cause is not None:
            traffic.drops[cause] += 1
            return ordinary
        if traffic.tap is not None:
            traffic.tap(protocol, data, False)
        if self._tun.write(data):
            traffic.rx_packets += 1
            traffic.rx_bytes += len(data)
        else:
            traffic.drops[Drop.QUEUE_FULL] += 1
        return ordinary


def refusal(
    addresses: AddressTable[PeerTraffic], traffic: PeerTraffic, protocol: int, data: bytes | memoryview
) -> Drop | None:
    """Why an authentic packet of a peer is not let in; None when it is."""
    if protocol not in traffic.machine.networks:
        return Drop.WRONG_PHASE
    if protocol == _IPV4 and len(data) >= 20 and data[0] >> 4 == 4:
        source = bytes(data[12:16])
    elif protocol == _IPV6 and len(data) >= 40 and data[0] >> 4 == 6:
        source = bytes(data[8:24])
    else:
        return Drop.MALFORMED
    if protocol == _IPV6 and data[7] == DISCOVERY_HOP_LIMIT and discovers_neighbours(data):
        return Drop.NOT_ALLOWED
    return None if addresses.may_send(traffic.name, source) else Drop.NOT_ALLOWED
