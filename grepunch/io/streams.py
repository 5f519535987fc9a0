"""TCP connections of the PPTP control channel: octets in and out, without a thought about what they mean.

Writing never blocks. A peer that does not read what it is sent is cut off, because a control connection that lags by
that much is of no use to anybody.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Protocol, cast

from grepunch.io.errors import AddressClash, HostError, NoPrivilege, Refused
from pptp.value import value

# ours
BACKLOG = 256
MOST_UNREAD = 64 * 1024  # octets; some hundred control messages


class ConnectFailed(Exception):
    """A server that could not be reached; the sentence says why."""


class StreamUser(Protocol):
    """Who a connection belongs to."""

    def data_received(self, data: bytes) -> None:
        """Octets have come."""

    def stream_closed(self, why: str) -> None:
        """The connection is over, by whoever's hand; the last call. ``why`` is empty for an orderly end."""


@value
class Ends:
    """The two addresses of a connection."""

    local: IPv4Address
    remote: IPv4Address
    remote_port: int


class Stream(asyncio.Protocol):
    """One connection. Made by :func:`listen` and :func:`connect`."""

    def __init__(self, opened: Callable[[Stream], StreamUser | None]) -> None:
        self._opened = opened
        self._user: StreamUser | None = None
        self._transport: asyncio.Transport | None = None
        self.ends: Ends

    def write(self, data: bytes) -> None:
        """Send octets, at once as far as the socket takes them; harmless after the end."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if transport.get_write_buffer_size() > MOST_UNREAD:
            transport.abort()

    def close(self) -> None:
        """Send what is left and end; ``stream_closed`` follows."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End at once; ``stream_closed`` follows."""
        if self._transport is not None:
            self._transport.abort()

    def detach(self) -> socket.socket:
        """The connection itself, for somebody else to move; this stream is over, and its user hears no more."""
        if self._transport is None:
            raise ValueError("a stream without a connection")
        self._user = None
        taken: socket.socket = self._transport.get_extra_info("socket").dup()
        self._transport.abort()  # which closes its own descriptor, and the connection stays open by the other
        return taken

    # -- asyncio's calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast(asyncio.Transport, transport)
        raw: socket.socket = transport.get_extra_info("socket")
        try:
            local, remote = raw.getsockname(), raw.getpeername()
        except OSError:  # gone again already
            self._transport.abort()
            return
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.ends = Ends(IPv4Address(local[0]), IPv4Address(remote[0]), remote[1])
        self._user = self._opened(self)
        if self._user is None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand octets on."""
        if self._user is not None:
            self._user.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that it is over."""
        user, self._user = self._user, None
        if user is not None:
            said = getattr(exc, "strerror", None) or (str(exc) if exc is not None else "")
            user.stream_closed(said)


async def listen(
    address: IPv4Address, port: int, opened: Callable[[Stream], StreamUser | None], *, shared: bool
) -> asyncio.AbstractServer:
    """Accept connections; ``opened`` gives each its user, or None to cut it off without a word.

    ``shared``: this process opens connections from the same port, too.
    Raises :class:`AddressClash`, :class:`NoPrivilege` or :class:`Refused`.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(lambda: Stream(opened), str(address), port, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        raise _explain(address, port, error) from error


def _explain(address: IPv4Address, port: int, error: OSError) -> HostError:
    what = f"TCP port {port} of {address} cannot be listened at"
    if error.errno == errno.EADDRINUSE:
        return AddressClash(f"{what}: it is in use.", "See `ss -ltnp`: another PPTP server (pptpd, accel-ppp) may run.")
    if isinstance(error, PermissionError):
        return NoPrivilege(f"{what}: permission denied.", "Ports below 1024 need CAP_NET_BIND_SERVICE.")
    return Refused(f"{what}: {_said(error)}.", "Name an address of this host, or 0.0.0.0 for all of them.")


async def connect(host: str, port: int, opened: Callable[[Stream], StreamUser | None], *, within: float) -> Stream:
    """Connect to a server by name or address, over IPv4, in so many seconds; raises :class:`ConnectFailed`.

    Of several addresses, each is tried in turn.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within):
            found = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            return await _connect_first(addresses, port, opened)
    except TimeoutError:
        raise ConnectFailed(f"TCP port {port} of {host} did not answer within {within:.0f} s") from None
    except socket.gaierror as error:
        raise ConnectFailed(f"{host} could not be looked up: {error.strerror}") from None
    except OSError as error:
        raise ConnectFailed(f"TCP port {port} of {host}: {_said(error)}") from None


def _said(error: OSError) -> str:
    """The system's own words; asyncio replaces them."""
    return os.strerror(error.errno).lower() if error.errno else str(error)


async def _connect_first(addresses: list[str], port: int, opened: Callable[[Stream], StreamUser | None]) -> Stream:
    loop = asyncio.get_running_loop()
    for number, address in enumerate(addresses):
        try:
            _, stream = await loop.create_connection(lambda: Stream(opened), address, port)
        except OSError:
            if number == len(addresses) - 1:
                raise
        else:
            return stream
    raise OSError("no address")
