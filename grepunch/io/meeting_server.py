"""The rendezvous server's runner: WebSocket listeners, with TLS or behind a proxy that does it, around one broker.

Called by the ``rendezvous`` command. State lives in memory and dies with the process: clients return by themselves,
so a restart (for a new certificate, say) costs two seconds. The log holds counts, and neither addresses nor blobs.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from grepunch.io import clock
from grepunch.io.doorway import Doorway
from grepunch.io.echo_server import EchoService
from grepunch.io.errors import AddressClash, HostError, NoPrivilege
from grepunch.io.framequeue import FrameQueue
from grepunch.io.meeting_link import CLOSE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT, QUIET, send_or_drop
from grepunch.nat.messages import SUBPROTOCOL as PROBE_SUBPROTOCOL
from grepunch.rendezvous.broker import Broker, Tally, source_key, unmapped
from grepunch.rendezvous.limits import BrokerLimits
from grepunch.rendezvous.messages import LARGEST_MESSAGE, SUBPROTOCOL, count_frames, is_relayed
from pptp.value import value

OPEN_TIMEOUT = 5.0  # ours: for TLS and for HTTP each; what a stranger who sends nothing may hold a socket
BACKLOG = 512  # ours: a restart brings every client back within two seconds
# ours: a handshake takes 300 kB with TLS, and 150 MB is what strangers may cost a small machine
UNFINISHED = 512
UNFINISHED_PER_SOURCE = 64
COUNTS_INTERVAL = 600.0  # ours: seconds between two lines of counts in the log

HEALTH = f"grepunch-pptp rendezvous server, protocol {SUBPROTOCOL}\n"

_log = logging.getLogger("grepunch.rendezvous")

Address = IPv4Address | IPv6Address


class ServerFailure(StrEnum):
    """Why the server could not start; the word of a verdict."""

    ADDRESS_IN_USE = "address_in_use"
    ADDRESS_NOT_HERE = "address_not_here"  # no interface has it, or the name has none
    NO_PRIVILEGE = "no_privilege"  # a port below 1024
    CERTIFICATE_UNREADABLE = "certificate_unreadable"
    KEY_UNREADABLE = "key_unreadable"
    CERTIFICATE_BAD = "certificate_bad"  # not PEM, or the key of another certificate, or a key with a password


class RendezvousServerError(Exception):
    """The server cannot start: why, in a word (``failure``) and in a sentence."""

    def __init__(self, failure: ServerFailure, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure


@value
class RendezvousServerOptions:
    """What ``serve_rendezvous`` needs to know. Port 0 takes any free one.

    Without ``certificate`` it speaks plain WebSocket, for a proxy in front of it or a laboratory; ``private_key`` may
    be left out where the certificate's file holds it. X-Forwarded-For is believed of ``trusted_proxies`` only.
    """

    listen: tuple[tuple[str, int], ...]
    certificate: Path | None = None
    private_key: Path | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    limits: BrokerLimits = field(default_factory=BrokerLimits)
    """Of everyone, and whether frames are relayed."""
    gre_echo: bool = False


async def serve_rendezvous(
    options: RendezvousServerOptions, ready: Callable[[tuple[str, int]], None] | None = None
) -> None:
    """Serve until cancelled, then close every connection cleanly; raises :class:`RendezvousServerError` at the start.

    ``ready`` is called once for each address listened on, when all of them are open.
    """
    tls = _tls_context(options)
    try:
        service = _Service(options)
    except NoPrivilege as error:
        raise RendezvousServerError(ServerFailure.NO_PRIVILEGE, f"--gre-echo: {error.sentence}") from None
    async with AsyncExitStack() as stack:
        if service.echo is not None:
            stack.callback(service.echo.close)
            await _open_echo(service.echo, options)
        stack.callback(service.stop)  # last, after the connections are closed
        servers = [
            await stack.enter_async_context(server)
            for host, port in options.listen
            for server in await _listen(service, host, port, tls)
        ]
        for address in (listener.getsockname()[:2] for server in servers for listener in server.sockets):
            _log.info("event=listening address=%s port=%d tls=%s", *address, "yes" if tls else "no")
            if ready is not None:
                ready(address)
        await service.run()


class _Service:
    """One broker and its connections; created by ``serve_rendezvous`` and as long-lived."""

    def __init__(self, options: RendezvousServerOptions) -> None:
        self._trusted = options.trusted_proxies
        self.doorway = Doorway(
            self._counted_source,
            clock.now,
            in_all=UNFINISHED,
            per_source=UNFINISHED_PER_SOURCE,
            patience=2 * OPEN_TIMEOUT,
        )
        self.echo = EchoService() if options.gre_echo else None
        self._broker = Broker(
            entropy=clock.entropy, unix_time=time.time, limits=options.limits, gre_echo=options.gre_echo
        )
        self._connections: dict[int, tuple[ServerConnection, FrameQueue]] = {}
        self._ids = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._closing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Nothing but to write the counts to the log from time to time; ends by being cancelled."""
        last = self._counts()
        try:
            while True:
                await asyncio.sleep(COUNTS_INTERVAL)
                if self._counts() != last:
                    last = self._counts()
                    _log.info("event=counts %s", last)
        finally:
            _log.info("event=stopping %s", self._counts())

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        """A plain GET is a health check, or somebody who wonders what lives here."""
        self.doorway.finished(connection.remote_address or ())
        if "Upgrade" in request.headers:
            return None
        if request.path.partition("?")[0] != "/":
            return connection.respond(404, "not found\n")
        return connection.respond(200, HEALTH)

    async def serve_connection(self, connection: ServerConnection) -> None:
        """The life of one connection, from its greeting to its end."""
        connection_id = next(self._ids)
        forwarded = connection.request.headers.get_all("X-Forwarded-For") if connection.request else []
        peer = connection.remote_address
        if not peer:
            return  # it was gone before we looked
        source = source_address(peer[0], forwarded, self._trusted)
        if self.echo is not None and connection.subprotocol == PROBE_SUBPROTOCOL:
            if isinstance(source, IPv4Address):
                its_own = source == unmapped(ip_address(peer[0]))
                await self.echo.serve(connection, source, peer[1] if its_own else 0)
            return
        frames = FrameQueue(connection, clock.now, count_frames)
        self._connections[connection_id] = connection, frames
        self._broker.connect(connection_id, source, clock.now())
        self._flush()
        try:
            while True:
                message = await connection.recv()
                self._broker.receive(connection_id, message, clock.now())
                self._flush()
        except ConnectionClosed:
            pass  # the ordinary end
        finally:
            del self._connections[connection_id]
            frames.close()
            self._broker.tallies[Tally.FRAMES_DROPPED_SLOW_RECEIVER] += frames.dropped
            self._broker.disconnect(connection_id, clock.now())
            self._flush()

    def _counted_source(self, host: str) -> object | None:
        """A proxy of ours brings everybody's connections from one address."""
        address = unmapped(ip_address(host.partition("%")[0]))
        return None if any(address in network for network in self._trusted) else source_key(address)

    # --- the one exit

    def _flush(self) -> None:
        for connection_id, message in self._broker.transmits():
            receiver = self._connections.get(connection_id)
            if receiver is None:
                continue
            if isinstance(message, bytes) and is_relayed(message):
                receiver[1].send(message)
            elif not send_or_drop(receiver[0], message):
                self._broker.tallies[Tally.BLOBS_DROPPED_SLOW_RECEIVER] += 1
        for event in self._broker.events():
            closing = self._connections.get(event.connection_id)
            if closing is not None:
                task = asyncio.get_running_loop().create_task(closing[0].close(event.code, event.reason))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._rearm()

    def _rearm(self) -> None:
        """Have the broker's timer fire at its deadline or before: too early is harmless, and cheaper than anew."""
        deadline = self._broker.deadline()
        if deadline is None or (self._timer is not None and self._due <= deadline):
            return
        self.stop()
        self._due = deadline
        self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - clock.now()), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._broker.handle_timeout(clock.now())
        self._flush()

    def _counts(self) -> str:
        now = f"open={self._broker.connections} joined={self._broker.joins} queued={self._broker.queued_octets}"
        return " ".join([now, *(f"{tally}={count}" for tally, count in sorted(self._broker.tallies.items()))])


async def _open_echo(echo: EchoService, options: RendezvousServerOptions) -> None:
    try:
        await echo.open([host for host, _ in options.listen])
    except HostError as error:
        failure = {
            AddressClash: ServerFailure.ADDRESS_IN_USE,
            NoPrivilege: ServerFailure.NO_PRIVILEGE,
        }.get(type(error), ServerFailure.ADDRESS_NOT_HERE)
        raise RendezvousServerError(failure, f"--gre-echo: {error.sentence}") from None


async def _listen(service: _Service, host: str, port: int, tls: ssl.SSLContext | None) -> list[Server]:
    """Listeners on every address of ``host``."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        doors = service.doorway.listen(
            list(dict.fromkeys((family, address) for family, _, _, _, address in found)), BACKLOG
        )
    except socket.gaierror as error:
        sentence = f"{host}: not an address of this host ({error.strerror})"
        raise RendezvousServerError(ServerFailure.ADDRESS_NOT_HERE, sentence) from None
    except OSError as error:
        failure, reason = {
            errno.EADDRINUSE: (ServerFailure.ADDRESS_IN_USE, "another program listens there"),
            errno.EACCES: (ServerFailure.NO_PRIVILEGE, "this port needs CAP_NET_BIND_SERVICE"),
        }.get(error.errno or 0, (ServerFailure.ADDRESS_NOT_HERE, error.strerror or str(error)))
        raise RendezvousServerError(failure, f"cannot listen on {host} port {port}: {reason}") from None
    return [
        await serve(
            service.serve_connection,
            sock=door,
            origins=[None],  # no web page has any business here
            subprotocols=[
                Subprotocol(SUBPROTOCOL),
                *([Subprotocol(PROBE_SUBPROTOCOL)] if service.echo is not None else ()),
            ],
            compression=None,  # blobs are ciphertext
            process_request=service.answer_http,
            server_header=None,
            open_timeout=OPEN_TIMEOUT,
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            max_size=LARGEST_MESSAGE,
            logger=QUIET,
            ssl=tls,
            backlog=BACKLOG,
        )
        for door in doors
    ]


def source_address(peer: str, forwarded: Sequence[str], trusted: Sequence[IPv4Network | IPv6Network]) -> Address:
    """Whose connection it is: the last hop of ``forwarded`` (X-Forwarded-For) that no trusted proxy is.

    Read from the right, where our own proxies write; what a stranger wrote further left is never reached. A hop that
    is no address ends the walk at the proxy that vouched for it.
    """
    address = unmapped(ip_address(peer))
    hops = [hop.strip() for header in forwarded for hop in header.split(",")]
    while hops and any(address in network for network in trusted):
        try:
            address = unmapped(ip_address(hops.pop()))
        except ValueError:
            break
    return address


def _tls_context(options: RendezvousServerOptions) -> ssl.SSLContext | None:
    certificate, key = options.certificate, options.private_key
    if certificate is None:
        if key is not None:
            raise RendezvousServerError(ServerFailure.CERTIFICATE_BAD, "a private key without a certificate")
        return None
    _readable(certificate, ServerFailure.CERTIFICATE_UNREADABLE)
    if key is not None:
        _readable(key, ServerFailure.KEY_UNREADABLE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        why = "the private key belongs to another certificate" if mismatch else "no PEM certificate with its key"
        raise RendezvousServerError(ServerFailure.CERTIFICATE_BAD, f"{certificate}: {why}") from None
    except PermissionError:  # raised by _no_password; the files themselves were readable
        sentence = f"{key or certificate}: the private key is protected by a password"
        raise RendezvousServerError(ServerFailure.CERTIFICATE_BAD, sentence) from None
    return context


def _readable(path: Path, failure: ServerFailure) -> None:
    try:
        with path.open("rb"):
            return
    except OSError as error:
        raise RendezvousServerError(failure, f"{path}: {error.strerror}") from None


def _no_password() -> str:
    """Asked by OpenSSL for an encrypted key's password; without this it would prompt on the terminal."""
    raise PermissionError
