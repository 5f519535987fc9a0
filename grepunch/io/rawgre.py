"""The raw GRE socket: every punched path of this process goes through one of these.

One unconnected socket. A connected one would make the kernel answer every other source with ICMP
protocol-unreachable; while this one is open, the kernel answers nobody. A filter in the kernel (see
:mod:`grepunch.io.grefilter`) admits only what a grepunch peer may say.

What the network says about our packets (ICMP) arrives on the socket's error queue and is news, never a fault. The
kernel reports such an error a second time, as the result of whatever system call comes next (see ``rawsocket``).
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from ipaddress import IPv4Address

from grepunch.io.grefilter import (
    ADMIT,
    GRE_PROTOCOL_PPP,
    GRE_V0_FLAGS,
    GRE_V0_SIZE,
    GRE_V1_FLAGS,
    GRE_V1_SIZE,
)
from grepunch.io.icmpnews import ERROR_QUEUE_SPACE, parse_error
from grepunch.io.rawsocket import (
    IP_MTU_DISCOVER,
    IP_PMTUDISC_PROBE,
    IP_RECVERR,
    LARGEST_PACKET,
    LATE_NEWS,
    SocketDrop,
    WireTap,
    open_raw,
    put,
)
from grepunch.ports import Form, GreFrame, GreSend, PathNews
from pptp.mtu import IPV4_HEADER
from pptp.serial import increment

_V1_HEADER = struct.Struct("!HHHHI")  # flags, protocol type, payload length, Call ID, sequence number
_V0_HEADER = struct.Struct("!HH")
_PLAIN_HEADER = _V0_HEADER.pack(GRE_V0_FLAGS, GRE_PROTOCOL_PPP)
_IPV4_START = struct.Struct("!BxH2xHBB2x4s")  # version and length, total length, fragment, TTL, protocol, source
_FRAGMENT_MASK = 0x3FFF  # more fragments, and the offset

# ours
_MOST_DESTINATIONS = 4096  # sequence counters kept; the oldest is forgotten, and would begin at 0 again
_MOST_SOURCES = 4096  # address objects kept, because making one costs as much as receiving a packet


class Destination:
    """Where packets go, as the system call wants it, and what the v1 form says there: Call ID and next number."""

    __slots__ = ("address", "call_id", "sequence")

    def __init__(self, destination: IPv4Address) -> None:
        self.address = (str(destination), 0)
        self.call_id = 0
        self.sequence = 0


class RawGre:
    """Opened by the endpoint before any route into the tunnel exists, closed last.

    Raises :class:`NoPrivilege` without CAP_NET_RAW and :class:`Unsupported` where the kernel has no such socket.
    Register :meth:`fileno` for reading; when it is readable call :meth:`receive` *and* :meth:`news`, because waiting
    news too make it readable until they are taken.
    """

    def __init__(self, tap: WireTap | None = None) -> None:
        self._socket = _open()
        self.tap = tap
        self._buffer = bytearray(LARGEST_PACKET)
        self._view = memoryview(self._buffer)
        self._destinations: dict[IPv4Address, Destination] = {}
        self._last: tuple[IPv4Address | None, Destination] = (None, Destination(IPv4Address(0)))
        self._sources: dict[bytes, IPv4Address] = {}
        self.drops: Counter[SocketDrop] = Counter()
        self.sent = 0
        self.received = 0

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; harmless when it is closed."""
        self._socket.close()

    def send(self, packet: GreSend) -> bool:
        """Send one PPP frame with the TTL asked for; False when it was dropped (and counted)."""
        return self._send(packet.destination, packet.form, packet.ppp, packet.ttl)

    def send_frame(self, destination: IPv4Address, form: Form, frame: bytes) -> bool:
        """Send one PPP frame with the system's TTL; False when it was dropped (and counted). The fast path."""
        return self._send(destination, form, frame, None)

    def receive(self, limit: int) -> list[GreFrame]:
        """The PPP frames that have arrived, at most ``limit``; fewer mean that the socket is empty."""
        frames: list[GreFrame] = []
        receive_into = self._socket.recv_into
        buffer, view = self._buffer, self._view
        for _ in range(limit):
            try:
                size = receive_into(buffer, 0, socket.MSG_TRUNC)  # the flag: tell the packet's true size
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in LATE_NEWS:
                    raise
                continue
            if size > LARGEST_PACKET:
                self.drops[SocketDrop.TRUNCATED] += 1
                continue
            if self.tap is not None:
                self.tap.received(bytes(view[:size]))
            parsed = parse_packet(view[:size])
            if parsed is None:
                self.drops[SocketDrop.MALFORMED] += 1
                continue
            source, form, ppp, ttl = parsed
            frames.append(GreFrame(self.address(source), form, ppp, ttl))
        self.received += len(frames)
        return frames

    def news(self, limit: int = 64) -> list[PathNews]:
        """What the network has said about packets of ours, at most ``limit`` messages. Unauthenticated: hints only."""
        news: list[PathNews] = []
        for _ in range(limit):
            try:
                quoted, ancillary, _, destination = self._socket.recvmsg(
                    LARGEST_PACKET, ERROR_QUEUE_SPACE, socket.MSG_ERRQUEUE
                )
            except BlockingIOError:
                break
            message = parse_error(quoted, ancillary, destination)
            if message is not None:
                news.append(message)
        return news

    def _send(self, destination: IPv4Address, form: Form, frame: bytes, ttl: int | None) -> bool:
        known = self.destination(destination)
        if form is Form.V1:
            gre = _V1_HEADER.pack(GRE_V1_FLAGS, GRE_PROTOCOL_PPP, len(frame), known.call_id, known.sequence) + frame
        else:
            gre = _PLAIN_HEADER + frame
        if not put(self._socket, gre, known.address, ttl, self.drops):
            return False
        if form is Form.V1:  # a packet that the kernel refused has used up no number
            known.sequence = increment(known.sequence)
        self.sent += 1
        if self.tap is not None:
            self.tap.sent(destination, ttl, gre)
        return True

    def destination(self, destination: IPv4Address) -> Destination:
        """Where to, with the sequence numbers of everything that goes there from this socket."""
        last, known = self._last
        if last is destination:  # hashing an IPv4Address costs more than the rest of this function
            return known
        found = self._destinations.get(destination)
        if found is None:
            if len(self._destinations) >= _MOST_DESTINATIONS:
                del self._destinations[self._oldest()]
            found = self._destinations[destination] = Destination(destination)
        self._last = (destination, found)
        return found

    def set_call_id(self, destination: IPv4Address, call_id: int) -> None:
        """The Call ID of all enhanced GRE to this address from now on: a call has been made for it, or is over (0)."""
        self.destination(destination).call_id = call_id

    def _oldest(self) -> IPv4Address:
        """The destination to forget, if possible one without a call."""
        known = self._destinations
        return next((address for address in known if not known[address].call_id), next(iter(known)))

    def address(self, source: bytes) -> IPv4Address:
        """The address object of a source, from its four octets."""
        known = self._sources.get(source)
        if known is None:
            if len(self._sources) >= _MOST_SOURCES:
                self._sources.clear()
            known = self._sources[source] = IPv4Address(source)
        return known


def parse_packet(packet: bytes | memoryview) -> tuple[bytes, Form, bytes, int] | None:
    """Source, form, PPP frame and TTL of a whole IPv4 packet that has passed the filter; None where it is malformed."""
    found = locate_frame(packet)
    if found is None:
        return None
    source, form, start, end, ttl = found
    return source, form, bytes(packet[start:end]), ttl


def locate_frame(packet: bytes | memoryview) -> tuple[bytes, Form, int, int, int] | None:
    """The same, with where the PPP frame begins and ends in place of the frame.

    Checks what the filter cannot: that every length fits. (RFC 791 section 3.1, RFC 2637 section 4.1, RFC 2784.)
    """
    size = len(packet)
    if size < IPV4_HEADER:
        return None
    first, total, fragment, ttl, protocol, source = _IPV4_START.unpack_from(packet)
    start = (first & 0x0F) * 4
    if first >> 4 != 4 or start < IPV4_HEADER or total != size or protocol != socket.IPPROTO_GRE:
        return None
    if fragment & _FRAGMENT_MASK or size < start + GRE_V0_SIZE:
        return None
    flags, kind = _V0_HEADER.unpack_from(packet, start)
    if kind != GRE_PROTOCOL_PPP:
        return None
    if flags == GRE_V0_FLAGS:
        return source, Form.V0, start + GRE_V0_SIZE, size, ttl
    if flags != GRE_V1_FLAGS or size < start + GRE_V1_SIZE:
        return None
    # The Call ID is whatever a NAT's helper made of the peer's, and the sequence number is anybody's: both unread.
    end = start + GRE_V1_SIZE + _V1_HEADER.unpack_from(packet, start)[2]
    if end > size:
        return None
    return source, Form.V1, start + GRE_V1_SIZE, end, ttl


def _open() -> socket.socket:
    raw = open_raw(ADMIT)
    try:
        raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        raw.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    except BaseException:
        raw.close()
        raise
    return raw
