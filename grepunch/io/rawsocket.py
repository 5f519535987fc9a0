"""What all raw GRE sockets of this process have in common: how they are opened, filtered and written to.

A raw socket gets every packet of its protocol that this host receives, so a filter in the kernel stands in front of
each. The kernel reports what the network says about a packet as the result of whatever system call comes next; that
call is repeated.
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
from grepunch.io.grefilter import REJECT_ALL, Instruction, attach

# linux/in.h, asm-generic/socket.h: not in the standard library's socket module
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT = 0  # no Don't Fragment
IP_PMTUDISC_PROBE = 3  # Don't Fragment on every packet, and the kernel's path MTU cache ignored
IP_RECVERR = 11
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33

_TTL = struct.Struct("i")

# ours
BUFFER_SIZE = 4 << 20  # a burst of about 2,000 packets while the loop is busy elsewhere
LARGEST_PACKET = 2048  # more than any frame of ours; the rest of a longer packet is cut off and the packet dropped

# What a system call may report about an *earlier* packet: the ICMP errors (net/ipv4/icmp.c, icmp_err_convert), and
# of a Time-Exceeded and a Parameter Problem.
LATE_NEWS = frozenset(
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
SEND_DROPS = {
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


def open_raw(program: tuple[Instruction, ...]) -> socket.socket:
    """A non-blocking raw GRE socket behind ``program``, with large buffers.

    Raises :class:`NoPrivilege` without CAP_NET_RAW and :class:`Unsupported` where the kernel has no such socket.
    """
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
        attach(raw, program)
        _enlarge(raw, _SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _enlarge(raw, _SO_SNDBUFFORCE, socket.SO_SNDBUF)
    except BaseException:
        raw.close()
        raise
    return raw


def put(
    raw: socket.socket,
    gre: bytes,
    address: tuple[str, int],
    ttl: int | None,
    drops: Counter[SocketDrop],
    *,
    again: bool = True,
) -> bool:
    """Hand the kernel one packet; False, and counted, when it did not take it."""
    try:
        if ttl is None:
            raw.sendto(gre, address)
        else:
            raw.sendmsg([gre], [(socket.IPPROTO_IP, socket.IP_TTL, _TTL.pack(ttl))], 0, address)
    except OSError as error:
        if again and error.errno in LATE_NEWS:  # most likely said of an earlier packet, and now it has been said
            return put(raw, gre, address, ttl, drops, again=False)
        cause = SEND_DROPS.get(error.errno or 0, SocketDrop.NO_ROUTE if error.errno in LATE_NEWS else None)
        if cause is None:
            raise
        drops[cause] += 1
        return False
    return True


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
