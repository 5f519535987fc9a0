"""What the kernel says about this host's own network: that something has changed, and which way packets take now.

That a message came says little (every container that starts makes dozens of them, and so does our own tunnel); who
wants to know whether a path is affected compares :func:`way_to` before and after, which costs microseconds.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

from grepunch.io.rtnetlink import NETLINK_ROUTE, Rtnetlink, WayOut

# linux/rtnetlink.h
_GROUPS = 0x1 | 0x10 | 0x40  # links, IPv4 addresses, IPv4 routes
_BUFFER = 1 << 16


class NetworkWatch:
    """Hears of every change of links, IPv4 addresses and IPv4 routes. Raises ``OSError`` where that is not to be had.

    Register :meth:`fileno` for reading; when it is readable, :meth:`drain`.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, NETLINK_ROUTE
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
        with Rtnetlink() as netlink:
            return netlink.way_to(destination)
    except OSError:
        return None
