"""The TCP connections that a mirrored handshake may come to run on, whichever side's SYN gets through.

Both ends connect from one well-known port to the same (simultaneous open, RFC 9293 section 3.5): each SYN opens its
sender's own NAT for the other's, and the kernel repeats it until they have met. Where a NAT draws another port, the
other side may still be reachable at that port as any server is: so each also calls it from a port of no meaning, and
listens, deaf to all other addresses, so that nobody else learns of it. The port is shared by SO_REUSEPORT: a server of
this host that does likewise may keep it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from ipaddress import IPv4Address

from grepunch.io import grefilter
from grepunch.io.errors import Refused

# ours, because the handshake's five messages of either side are 1 KiB
LARGEST_READ = 4096
BACKLOG = 16  # ours: only peers that are awaited get as far
# ours, because a SYN that none of three has met will not be met by a fourth, 7 s after the first
_SYN_REPEATS = 2
_ABORT = struct.pack("ii", 1, 0)  # linger for no time: no TIME_WAIT, which would keep the pair of ports from us


def _stream(port: int | None) -> socket.socket:
    try:
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise Refused(f"no TCP socket is to be had: {error.strerror}") from error
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, _SYN_REPEATS)
    if port is None:
        return stream
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        stream.bind(("", port))
    except OSError as error:
        stream.close()
        raise Refused(f"TCP port {port} cannot be used: {error.strerror}") from error
    return stream


class Connection:
    """A stream that is there, or is about to be."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream

    def fileno(self) -> int:
        """For the event loop: writable once connected or failed, readable from then on."""
        return self._socket.fileno()

    def finish(self) -> bool:
        """Whether connecting has succeeded, once writable."""
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
        """Abort it, in two steps. Harmless when closed.

        A NAT takes a SYN for the beginning of another connection only after a FIN, or a reset of the SYN's own
        direction; else it keeps what it knows of this one, with the call its helper has seen, and the next call would
        be for nothing.
        """
        with suppress(OSError):  # there was never a connection
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()


def connect(address: IPv4Address, port: int, *, from_same: bool) -> Connection:
    """Begin to connect to ``port``, from the same port or from any.

    Raises :class:`Refused` where another program has it to itself, or there is no route.
    """
    stream = _stream(port if from_same else None)
    failed = stream.connect_ex((str(address), port))
    if failed not in (0, errno.EINPROGRESS):
        stream.close()
        raise Refused(f"no connection to {address} port {port}: {os.strerror(failed)}")
    return Connection(stream)


def adopt(stream: socket.socket) -> Connection:
    """A connection that somebody else has accepted."""
    stream.setblocking(False)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    return Connection(stream)


class Listener:
    """Waits on ``port`` for SYNs from ``addresses`` alone; the kernel drops every other without an answer.

    Raises :class:`Refused`.
    """

    def __init__(self, addresses: Collection[IPv4Address], port: int) -> None:
        self._socket = _stream(port)
        try:
            self.hear(addresses)
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise Refused(f"TCP port {port} cannot be listened at: {error.strerror}") from error

    def hear(self, addresses: Collection[IPv4Address]) -> None:
        """Wait for these from now on."""
        grefilter.attach(self._socket, grefilter.from_sources(addresses))

    def fileno(self) -> int:
        """For the event loop: readable when somebody is there."""
        return self._socket.fileno()

    def accept(self) -> tuple[IPv4Address, Connection] | None:
        """Who has called, and the connection, if it is still there."""
        try:
            stream, (source, _) = self._socket.accept()
        except OSError:
            return None
        return IPv4Address(source), adopt(stream)

    def close(self) -> None:
        """Listen no longer. Harmless when closed."""
        self._socket.close()
