"""The raw GRE socket: every punched path of this process goes through one of these.

One unconnected socket. A connected one would make the kernel answer every other source with ICMP
protocol-unreachable; while this one is open, the kernel answers nobody. A filter in the kernel (see
:mod:`grepunch.io.grefilter`) admits only what a grepunch peer may say.

What the network says about our packets (ICMP) arrives on the socket's error queue and is news, never a fault. The
kernel reports such an error a second time, as the result of whatever system call comes next; that call is repeated.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Protocol

from grepunch.io.errors import NoPrivilege, Unsupported
from grepunch.io.grefilter import (
    ADMIT,
    GRE_PROTOCOL_PPP,
    GRE_V0_FLAGS,
    GRE_V0_SIZE,
    GRE_V1_FLAGS,
    GRE_V1_SIZE,
    REJECT_ALL,
    attach,
)
from grepunch.io.icmpnews import ERROR_QUEUE_SPACE, parse_error
from grepunch.ports import Form, GreFrame, GreSend, PathNews
from pptp.mtu import IPV4_HEADER
from pptp.serial import increment

# linux/in.h, asm-generic/socket.h: not in the standard library's socket module
_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_PROBE = 3  # Don't Fragment on every packet, and the kernel's path MTU cache ignored
_IP_RECVERR = 11
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

_V1_HEADER = struct.Struct("!HHHHI")  # flags, protocol type, payload length, Call ID, sequence number
_V0_HEADER = struct.Struct("!HH")
_PLAIN_HEADER = _V0_HEADER.pack(GRE_V0_FLAGS, GRE_PROTOCOL_PPP)
_IPV4_START = struct.Struct("!BxH2xHBB2x4s")  # version and length, total length, fragment, TTL, protocol, source
_TTL = struct.Struct("i")
_FRAGMENT_MASK = 0x3FFF  # more fragments, and the offset

# ours
BUFFER_SIZE = 4 << 20  # a burst of about 2,000 packets while the loop is busy elsewhere
_LARGEST_PACKET = 2048  # more than any frame of ours; the rest of a longer packet is cut off and the packet dropped
_MOST_DESTINATIONS = 4096  # sequence counters kept; the oldest is forgotten, and would begin at 0 again
_MOST_SOURCES = 4096  # address objects kept, because making one costs as much as receiving a packet

# What a system call may report about an *earlier* packet: the ICMP errors (net/ipv4/icmp.c, icmp_err_convert), and
# of a Time-Exceeded and a Parameter Problem.
_LATE_NEWS = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENOPROTOOPT,
        errno.ECONNREFUSED,
        errno.EMSGSIZE,
        errno.EOPNOTSUPP,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EPROTO,
    }
)


class SocketDrop(StrEnum):
    """Why the socket did not send, or did not hand on, a packet."""

    SEND_QUEUE_FULL = "send_queue_full"  # socket or interface buffer; it is IP: dropped, not queued
    TOO_BIG = "too_big"  # larger than the interface's MTU, with Don't Fragment set
    NO_ROUTE = "no_route"
    FIREWALLED = "firewalled"  # this host's own packet filter
    TRUNCATED = "truncated"  # longer than any frame of ours
    MALFORMED = "malformed"  # headers that contradict themselves


# How a send fails for good. EINVAL is a blackhole route, EACCES a prohibit route or a broadcast address.
_SEND_DROPS = {
    errno.EAGAIN: SocketDrop.SEND_QUEUE_FULL,
    errno.ENOBUFS: SocketDrop.SEND_QUEUE_FULL,
    errno.EMSGSIZE: SocketDrop.TOO_BIG,
    errno.EPERM: SocketDrop.FIREWALLED,
    errno.EACCES: SocketDrop.NO_ROUTE,
    errno.EINVAL: SocketDrop.NO_ROUTE,
    errno.ENETUNREACH: SocketDrop.NO_ROUTE,
    errno.EHOSTUNREACH: SocketDrop.NO_ROUTE,
    errno.ENETDOWN: SocketDrop.NO_ROUTE,
    errno.EADDRNOTAVAIL: SocketDrop.NO_ROUTE,
}


class WireTap(Protocol):
    """Who wants to see every packet as it is on the wire (a capture)."""

    def sent(self, destination: IPv4Address, ttl: int | None, gre: bytes) -> None:
        """A GRE packet has been handed to the kernel, which puts the IPv4 header before it."""

    def received(self, packet: bytes) -> None:
        """A whole IPv4 packet has arrived and passed the filter."""


class _Destination:
    """Where packets go, as the system call wants it, and the number of the next one."""

    __slots__ = ("address", "sequence")

    def __init__(self, destination: IPv4Address) -> None:
        self.address = (str(destination), 0)
        self.sequence = 0


class RawGre:
    """Opened by the endpoint before any route into the tunnel exists, closed last.

    Raises :class:`NoPrivilege` without CAP_NET_RAW and :class:`Unsupported` where the kernel has no such socket.
    Register :meth:`fileno` for reading; when it is readable call :meth:`receive` *and* :meth:`news`, because waiting
    news too make it readable until they are taken.
    """

    def __init__(self, tap: WireTap | None = None) -> None:
        self._socket = _open()
        self._tap = tap
        self._buffer = bytearray(_LARGEST_PACKET)
        self._view = memoryview(self._buffer)
        self._destinations: dict[IPv4Address, _Destination] = {}
        self._last: tuple[IPv4Address | None, _Destination] = (None, _Destination(IPv4Address(0)))
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
                if error.errno not in _LATE_NEWS:
                    raise
                continue
            if size > _LARGEST_PACKET:
                self.drops[SocketDrop.TRUNCATED] += 1
                continue
            if self._tap is not None:
                self._tap.received(bytes(view[:size]))
            parsed = parse_packet(view[:size])
            if parsed is None:
                self.drops[SocketDrop.MALFORMED] += 1
                continue
            source, form, ppp, ttl = parsed
            frames.append(GreFrame(self._address(source), form, ppp, ttl))
        self.received += len(frames)
        return frames

    def news(self, limit: int = 64) -> list[PathNews]:
        """What the network has said about packets of ours, at most ``limit`` messages. Unauthenticated: hints only."""
        news: list[PathNews] = []
        for _ in range(limit):
            try:
                quoted, ancillary, _, destination = self._socket.recvmsg(
                    _LARGEST_PACKET, ERROR_QUEUE_SPACE, socket.MSG_ERRQUEUE
                )
            except BlockingIOError:
                break
            message = parse_error(quoted, ancillary, destination)
            if message is not None:
                news.append(message)
        return news

    def _send(self, destination: IPv4Address, form: Form, frame: bytes, ttl: int | None) -> bool:
        known = self._find(destination)
        if form is Form.V1:
            gre = _V1_HEADER.pack(GRE_V1_FLAGS, GRE_PROTOCOL_PPP, len(frame), 0, known.sequence) + frame
        else:
            gre = _PLAIN_HEADER + frame
        if not self._put(gre, known.address, ttl):
            return False
        if form is Form.V1:  # a packet that the kernel refused has used up no number
            known.sequence = increment(known.sequence)
        self.sent += 1
        if self._tap is not None:
            self._tap.sent(destination, ttl, gre)
        return True

    def _find(self, destination: IPv4Address) -> _Destination:
        last, known = self._last
        if last is destination:  # hashing an IPv4Address costs more than the rest of this function
            return known
        found = self._destinations.get(destination)
        if found is None:
            if len(self._destinations) >= _MOST_DESTINATIONS:
                del self._destinations[next(iter(self._destinations))]
            found = self._destinations[destination] = _Destination(destination)
        self._last = (destination, found)
        return found

    def _put(self, gre: bytes, address: tuple[str, int], ttl: int | None, *, again: bool = True) -> bool:
        """Hand the kernel one packet; False when it did not take it."""
        try:
            if ttl is None:
                self._socket.sendto(gre, address)
            else:
                self._socket.sendmsg([gre], [(socket.IPPROTO_IP, socket.IP_TTL, _TTL.pack(ttl))], 0, address)
        except OSError as error:
            if again and error.errno in _LATE_NEWS:  # most likely said of an earlier packet, and now it has been said
                return self._put(gre, address, ttl, again=False)
            cause = _SEND_DROPS.get(error.errno or 0, SocketDrop.NO_ROUTE if error.errno in _LATE_NEWS else None)
            if cause is None:
                raise
            self.drops[cause] += 1
            return False
        return True

    def _address(self, source: bytes) -> IPv4Address:
        known = self._sources.get(source)
        if known is None:
            if len(self._sources) >= _MOST_SOURCES:
                self._sources.clear()
            known = self._sources[source] = IPv4Address(source)
        return known


def parse_packet(packet: bytes | memoryview) -> tuple[bytes, Form, bytes, int] | None:
    """Source, form, PPP frame and TTL of a whole IPv4 packet that has passed the filter; None where it is malformed.

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
        return source, Form.V0, bytes(packet[start + GRE_V0_SIZE :]), ttl
    if flags != GRE_V1_FLAGS or size < start + GRE_V1_SIZE:
        return None
    # The Call ID is whatever a NAT's helper made of our 0, and the sequence number is anybody's: both unread.
    end = start + GRE_V1_SIZE + _V1_HEADER.unpack_from(packet, start)[2]
    if end > size:
        return None
    return source, Form.V1, bytes(packet[start + GRE_V1_SIZE : end]), ttl


def _open() -> socket.socket:
    try:
        raw = socket.socket(
            socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_GRE
        )
    except PermissionError:
        raise NoPrivilege(
            "A raw socket may not be opened: CAP_NET_RAW is missing.",
            "Run it as root, or give it the capability: systemd's AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN.",
        ) from None
    except OSError as error:
        raise Unsupported(f"This kernel opens no raw GRE socket: {error.strerror}.") from error
    try:
        # The kernel delivers to a raw socket from its making on. So: let nothing in, empty it, then let ours in.
        attach(raw, REJECT_ALL)
        _empty(raw)
        attach(raw, ADMIT)
        raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        raw.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        _enlarge(raw, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _enlarge(raw, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
    except BaseException:
        raw.close()
        raise
    return raw


def _empty(raw: socket.socket) -> None:
    try:
        while True:
            raw.recv(1)
    except BlockingIOError:
        return


def _enlarge(raw: socket.socket, force: int, ordinary: int) -> None:
    """Ask for a large buffer beyond the system's limit, and where that is not ours to do, up to the limit."""
    try:
        raw.setsockopt(socket.SOL_SOCKET, force, BUFFER_SIZE)
    except PermissionError:  # CAP_NET_ADMIN is missing
        raw.setsockopt(socket.SOL_SOCKET, ordinary, BUFFER_SIZE)


def local_address_towards(destination: IPv4Address) -> IPv4Address | None:
    """The source address with which this host would send there now; None without a route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect((str(destination), 9))
        except OSError:
            return None
        return IPv4Address(probe.getsockname()[0])
