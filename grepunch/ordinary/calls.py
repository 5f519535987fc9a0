"""The calls of this process, and the plain packet loop between their GRE and one TUN device.

Both directions cost one look in a dictionary: a packet out of the device goes to the call that owns its destination,
a GRE packet to the connection that was given its Call ID *and* has its source address. Whoever knows a Call ID but
sends from elsewhere reaches nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Protocol

from grepunch.io.callgre import CallGre, call_key
from grepunch.neighbours import DISCOVERY_HOP_LIMIT, discovers_neighbours
from grepunch.ordinary.mss import clamp_mss
from grepunch.ordinary.toobig import fragments, too_big
from pptp.errors import Drop
from pptp.wire.ppp import Protocol as PppProtocol

if TYPE_CHECKING:
    from grepunch.ordinary.connection import Connection

_IPV4 = int(PppProtocol.IPV4)
_IPV6 = int(PppProtocol.IPV6)
_UDP = 17

# RFC 2637 section 2.7 has 16 bits; 0 is what some peers take for "none", and what punched paths use
_CALL_IDS = range(1, 0x10000)
# ours, because a longer drain lets the other direction and the timers wait
BATCH = 64
# ours: a sender that does not listen is told again, but not for every packet; seconds
_COMPLAINT_INTERVAL = 0.1
# ours: beyond so many calls, finding a free Call ID at random takes too long
MOST_CALLS = 0x8000


class CallDevice(Protocol):
    """What the pump needs of the TUN device (:func:`grepunch.io.tun.open_call_tun`)."""

    def read(self, limit: int) -> list[bytes]:
        """Up to ``limit`` packets that the kernel sends."""

    def write(self, packet: bytes) -> bool:
        """Hand the kernel one packet, now or with the next :meth:`flush`; False when it does not take it."""

    def flush(self) -> None:
        """Let go what is held back."""


@dataclass(slots=True, eq=False)
class Call:
    """One call that is up, with its counters of inner traffic."""

    connection: Connection
    call_id: int
    since: float
    user: str = ""
    method: str = ""
    encryption: str = "none"
    local: IPv4Address | None = None
    remote: IPv4Address | None = None
    mtu: int = 0
    ipv6: bool = False
    up_since: float | None = None
    local_v6: bytes = bytes(16)
    complained: float = 0.0  # when its size was last told to a sender
    heard: float = 0.0  # the last packet of the peer's inside
    sources: set[bytes] | None = None  # inner addresses the peer may send from; None: any
    destinations: list[bytes] = field(default_factory=list)
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    drops: Counter[Drop] = field(default_factory=Counter)
    tap: Callable[[int, bytes, bool], None] | None = None


class CallTable:
    """Who is behind a Call ID and behind an inner address. One for each process."""

    def __init__(self, gre: CallGre, entropy: Callable[[int], bytes]) -> None:
        self.gre = gre
        self._entropy = entropy
        self.calls: dict[int, Call] = {}
        self.by_key: dict[bytes, Connection] = {}
        self.by_address: dict[bytes, Call] = {}
        self._keys: dict[int, bytes] = {}

    def allocate(self, connection: Connection) -> int | None:
        """A Call ID that no other call of this process has; None where there are too many."""
        if len(self._keys) >= MOST_CALLS:
            return None
        while (call_id := int.from_bytes(self._entropy(2), "big")) in self._keys or call_id not in _CALL_IDS:
            pass
        key = self._keys[call_id] = call_key(connection.source, call_id)
        self.by_key[key] = connection
        return call_id

    def release(self, call_id: int) -> None:
        """The Call ID is free again."""
        self.by_key.pop(self._keys.pop(call_id), None)

    def knows(self, call_id: int) -> bool:
        """Whether a Call ID is in use, whoever's it is."""
        return call_id in self._keys

    def route(self, call: Call, destination: bytes) -> None:
        """Packets to this inner address (4 or 16 octets) go into this call from now on, to none other of its family.

        Where the peer's addresses are looked at, it may send from this one.
        """
        self.unroute(call, len(destination))
        self.by_address[destination] = call
        call.destinations.append(destination)
        if call.sources is not None:
            call.sources.add(destination)

    def unroute(self, call: Call, size: int | None = None) -> None:
        """No packet goes into this call any more; with ``size``, none to addresses of so many octets.

        Where the peer's addresses are looked at, none comes out of it either: by now they may be another's.
        """
        for destination in call.destinations:
            if size in (None, len(destination)) and self.by_address.get(destination) is call:
                del self.by_address[destination]
        call.destinations = [d for d in call.destinations if size is not None and len(d) != size]
        if call.sources is not None:
            call.sources = {source for source in call.sources if size is not None and len(source) != size}

    def forget(self, call_id: int) -> None:
        """The call is over."""
        call = self.calls.pop(call_id, None)
        if call is not None:
            self.unroute(call)

    def find(self, destination: bytes) -> Call | None:
        """Whose an inner destination is. With one call there is one way, whatever the address."""
        call = self.by_address.get(destination)
        if call is None and len(self.calls) == 1:
            only = next(iter(self.calls.values()))
            if only.connection.dials or destination[0] == 0xFF:  # IPv6 multicast
                return only
        return call


class CallPump:
    """Moves packets between one TUN device and the calls."""

    def __init__(
        self,
        table: CallTable,
        tun: CallDevice,
        *,
        mss_clamp: bool,
        asks_us: Callable[[Call, bytes], bytes | None],
        now: Callable[[], float],
    ) -> None:
        """``asks_us`` gets every UDP packet over IPv4 of a peer first, and returns the answer to one that was a
        question to this server itself, b"" for one to be ignored."""
        self._table = table
        self._tun = tun
        self._clamp = mss_clamp
        self._asks_us = asks_us
        self._now = now
        self.drops: Counter[Drop] = Counter()
        self.strays: Counter[bytes] = Counter()

    def tun_readable(self) -> None:
        """Send what the kernel has for the calls."""
        now, by_address = self._now(), self._table.by_address
        touched: set[Connection] = set()
        for packet in self._tun.read(BATCH):
            version = packet[0] >> 4 if packet else 0
            if version == 4 and len(packet) >= 20:
                protocol, destination = _IPV4, packet[16:20]
            elif version == 6 and len(packet) >= 40:
                protocol, destination = _IPV6, packet[24:40]
            else:
                self.drops[Drop.MALFORMED] += 1
                continue
            call = by_address.get(destination) or self._table.find(destination)
            if call is None:
                self.drops[Drop.NO_ROUTE] += 1
                continue
            self._send(call, protocol, packet, now)
            touched.add(call.connection)
        self._flush()
        for connection in touched:
            connection.settle()

    def send(self, call: Call, protocol: int, packet: bytes, now: float) -> None:
        """Send one IP packet into a call, now."""
        self._send(call, protocol, packet, now)
        self._flush()

    def _flush(self) -> None:
        """Let go what has been sent."""
        for call, size in self._table.gre.flush():
            if isinstance(call, Call):
                call.tx_packets -= 1
                call.tx_bytes -= size
                call.drops[Drop.QUEUE_FULL] += 1

    def _send(self, call: Call, protocol: int, packet: bytes, now: float) -> None:
        if call.mtu:
            if len(packet) > call.mtu:
                self._send_too_big(call, protocol, packet, now)
                return
            if self._clamp:
                packet = clamp_mss(packet, call.mtu)
        gre = call.connection.machine.send_network(call.call_id, protocol, packet, now)
        if gre is None:
            return  # counted there
        if call.tap is not None:
            call.tap(protocol, packet, True)
        size = len(packet)
        call.connection.queue(gre, (call, size))
        call.tx_packets += 1
        call.tx_bytes += size

    def _send_too_big(self, call: Call, protocol: int, packet: bytes, now: float) -> None:
        """What the device carries and this call does not."""
        parts = fragments(packet, call.mtu)
        for part in parts:
            self._send(call, protocol, part, now)
        if parts:
            return
        call.drops[Drop.TOO_BIG] += 1
        if call.local is not None and now - call.complained >= _COMPLAINT_INTERVAL:
            call.complained = now
            answer = too_big(packet, call.mtu, call.local, call.local_v6)
            if answer is not None:
                self._tun.write(answer)

    def gre_readable(self) -> None:
        """Take what has arrived for the calls."""
        now, by_key = self._now(), self._table.by_key
        touched: set[Connection] = set()
        for key, gre in self._table.gre.receive():
            connection = by_key.get(key)
            if connection is None:
                self._stray(key)
                continue
            received = connection.machine.receive_gre(gre, now)
            if received:
                call = self._table.calls.get(int.from_bytes(key[4:], "big"))
                if call is not None and call.sources is None and not connection.dials:
                    connection.settle()  # the call has come up in this very batch: its addresses are told first
                for protocol, packet in received:
                    if call is not None:
                        self._deliver(call, protocol, bytes(packet), now)
            touched.add(connection)
        self._tun.flush()
        for connection in touched:
            connection.settle()

    def deliver(self, call: Call, protocol: int, packet: bytes, now: float) -> None:
        """Hand the kernel an IP packet of a peer, if it may send it."""
        self._deliver(call, protocol, packet, now)
        self._tun.flush()

    def _deliver(self, call: Call, protocol: int, packet: bytes, now: float) -> None:
        if protocol == _IPV4 and len(packet) >= 20 and packet[0] >> 4 == 4:
            source = packet[12:16]
        elif protocol == _IPV6 and len(packet) >= 40 and packet[0] >> 4 == 6:
            source = packet[8:24]
        else:
            call.drops[Drop.MALFORMED] += 1
            return
        call.heard = now
        if call.sources is not None and source not in call.sources:
            call.drops[Drop.NOT_ALLOWED] += 1
            return
        if protocol == _IPV6 and packet[7] == DISCOVERY_HOP_LIMIT and discovers_neighbours(packet):
            call.drops[Drop.NOT_ALLOWED] += 1
            return
        if call.tap is not None:
            call.tap(protocol, packet, False)
        if protocol == _IPV4 and packet[9] == _UDP and (answer := self._asks_us(call, packet)) is not None:
            if answer:
                self.send(call, _IPV4, answer, now)
            return
        if self._clamp and call.mtu:
            packet = clamp_mss(packet, call.mtu)
        if self._tun.write(packet):
            call.rx_packets += 1
            call.rx_bytes += len(packet)
        else:
            call.drops[Drop.QUEUE_FULL] += 1

    def take_strays(self, call_id: int) -> str:
        """Where GRE for a call that is over came from that was not its peer, as the end of a sentence; or nothing."""
        number = call_id.to_bytes(2, "big")
        found = [key for key in self.strays if key[4:] == number]
        for key in found:
            del self.strays[key]
        sources = ", ".join(str(IPv4Address(key[:4])) for key in found)
        return f"; GRE for this call came from {sources} instead" if sources else ""

    def _stray(self, key: bytes) -> None:
        """A packet of no call: a late one, a forged one, or one whose sender's address a NAT has made another."""
        self.drops[Drop.UNKNOWN_SESSION] += 1
        if self._table.knows(int.from_bytes(key[4:], "big")) and (key in self.strays or len(self.strays) < BATCH):
            self.strays[key] += 1
