"""A TCP connection that both ends open at once, from one well-known port to the same (RFC 9293 section 3.5).

Each SYN opens its sender's own NAT for the other's; the kernel repeats it until they have met. The port is bound with
SO_REUSEPORT, so that a server of this host that does likewise may keep it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import IPv4Address

from grepunch.io.errors import Refused

# ours, because the handshake's five messages of either side are 1 KiB
LARGEST_READ = 4096
_ABORT = struct.pack("ii", 1, 0)  # linger for no time: no TIME_WAIT, which would keep the pair of ports from us


class SimultaneousOpen:
    """One connection, from the first SYN on. Raises :class:`Refused` where the port is taken by another program."""

    def __init__(self, address: IPv4Address, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._socket.bind(("", port))
            failed = self._socket.connect_ex((str(address), port))
        except OSError as error:
            self._socket.close()
            raise Refused(f"TCP port {port} cannot be used: {error.strerror}") from error
        if failed not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise Refused(f"no connection to {address} port {port}: {os.strerror(failed)}")

    def fileno(self) -> int:
        """For the event loop: writable once connected or failed, readable from then on."""
        return self._socket.fileno()

    def finish(self) -> bool:
        """Whether the connection has come to be."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0

    def send(self, message: bytes) -> bool:
        """Send one segment; False when the connection does not take it whole."""
        try:
            return self._socket.send(message) == len(message)
        except OSError:
            return False

    def receive(self) -> bytes | None:
        """What has arrived; empty at the end of the connection, None when there is nothing yet."""
        try:
            return self._socket.recv(LARGEST_READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def close(self) -> None:
        """Abort it. Harmless when closed."""
        self._socket.close()
