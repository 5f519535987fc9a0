"""What the kernel says about this host's own network: that something has changed, and which way packets take now.

rtnetlink spoken directly: a look costs microseconds, may be taken on the event loop, and needs no privilege. That a
message came says little (every container that starts makes dozens of them, and so does our own tunnel); who wants to
know whether a path is affected compares :func:`way_to` before and after.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address

# linux/netlink.h, linux/rtnetlink.h
_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x10 | 0x40  # links, IPv4 addresses, IPv4 routes
_RTM_NEWROUTE = 24
_RTM_GETROUTE = 26
_NLM_F_REQUEST = 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths of both prefixes, TOS, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")
_BUFFER = 1 << 16


@dataclass(frozen=True, slots=True)
class WayOut:
    """How this host would send to a destination: from which address, through which interface and next hop."""

    source: IPv4Address
    interface: int
    gateway: IPv4Address | None


class NetworkWatch:
    """Hears of every change of links, IPv4 addresses and IPv4 routes. Raises ``OSError`` where that is not to be had.

    Register :meth:`fileno` for reading; when it is readable, :meth:`drain`.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _NETLINK_ROUTE
        )
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Take every message that waits; what it says is left to a look at :func:`way_to`."""
        while True:
            try:
                self._socket.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost, which is news enough
                continue

    def close(self) -> None:
        """Hear nothing more; harmless when it is closed."""
        self._socket.close()


def way_to(destination: IPv4Address) -> WayOut | None:
    """The way packets to ``destination`` take now; None where there is none, or the kernel does not say."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as netlink:
            netlink.settimeout(1.0)  # it answers at once
            netlink.bind((0, 0))
            netlink.send(_question(destination))
            return _answer(netlink.recv(_BUFFER))
    except OSError:
        return None


def _question(destination: IPv4Address) -> bytes:
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + 4, _RTA_DST) + destination.packed
    route = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
    length = _HEADER.size + len(route) + len(attribute)
    return _HEADER.pack(length, _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + route + attribute


def _answer(message: bytes) -> WayOut | None:
    length, kind, *_ = _HEADER.unpack_from(message)
    if kind != _RTM_NEWROUTE:
        return None  # an error: no route
    found: dict[int, bytes] = {}
    offset = _HEADER.size + _ROUTE.size
    while offset + _ATTRIBUTE.size <= length:
        size, attribute = _ATTRIBUTE.unpack_from(message, offset)
        found[attribute] = message[offset + _ATTRIBUTE.size : offset + size]
        offset += (size + 3) & ~3
    if _RTA_PREFSRC not in found or _RTA_OIF not in found:
        return None
    gateway = IPv4Address(found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else None
    interface = int.from_bytes(found[_RTA_OIF], sys.byteorder)
    return WayOut(IPv4Address(found[_RTA_PREFSRC]), interface, gateway)
