"""The rendezvous connection of a peer: WebSocket over TLS, opened again whenever it is lost.

:class:`MeetingClient` runs one :class:`~grepunch.rendezvous.client.RendezvousClient`. It decides nothing about
mailboxes: it moves messages, keeps time for the machine and says in typed words why the server cannot be reached.
``websockets`` takes 0.1 s to import; the module is imported only where a rendezvous is named.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from grepunch.io.clock import entropy, now
from grepunch.io.framequeue import FrameQueue
from grepunch.io.meeting_link import CLOSE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT, QUIET, send_or_drop
from grepunch.io.netwatch import way_to
from grepunch.rendezvous.client import RendezvousClient
from grepunch.rendezvous.events import ClientEvent, ServerFault
from grepunch.rendezvous.messages import (
    CLOSE_SENTENCES,
    LARGEST_FRAME,
    LARGEST_MESSAGE,
    MOST_FRAMES,
    SUBPROTOCOL,
    CloseCode,
    count_frames,
)
from grepunch.rendezvous.schedule import retry_delay
from pptp.value import value

# ours
OPEN_TIMEOUT = 6.0  # DNS, TCP with two retransmitted SYNs, TLS and HTTP
VERIFY_WITHIN = 2.0  # how long a doubted connection has to answer
STEADY_AFTER = 5.0  # a connection that lasted so long ends an outage


class Unreachability(StrEnum):
    """Why there is no rendezvous; the word of a verdict."""

    DNS = "dns"
    REFUSED = "refused"
    NO_ROUTE = "no_route"
    TIMEOUT = "timeout"
    TLS_NOT_TRUSTED = "tls_not_trusted"
    TLS_FAILED = "tls_failed"
    HTTP_STATUS = "http_status"
    NOT_A_RENDEZVOUS = "not_a_rendezvous"
    LOST = "lost"
    CLOSED_BY_SERVER = "closed_by_server"
    PROTOCOL_FAULT = "protocol_fault"


_REDIRECTS = range(300, 400)
_OVERLOAD = (Unreachability.TIMEOUT, Unreachability.HTTP_STATUS, Unreachability.CLOSED_BY_SERVER)


@value
class Unreachable:
    """There is no connection: why, in a word and a sentence, and in how many seconds the next try starts."""

    reason: Unreachability
    detail: str
    retry_in: float


@value
class Connected:
    """The WebSocket is open; the machine's ``Welcomed`` follows."""


MeetingEvent = ClientEvent | Connected | Unreachable


class ConnectHere(connect):
    """Goes nowhere else: the profile names the server, and it alone is to see our address."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow no redirect."""
        return exc


class MeetingConfigError(ValueError):
    """The URL or the CA file cannot be used at all; trying again is of no use."""


class MeetingClient:
    """Keeps one machine connected to the server at ``url`` (``wss://``, or ``ws://`` for a laboratory).

    Created by whoever wants to meet; lives as long as :meth:`run`. ``on_event`` is told everything, in order; it may
    call the commands below. ``ca_file`` replaces the system's certificate authorities.
    """

    def __init__(
        self,
        url: str,
        machine: RendezvousClient,
        on_event: Callable[[MeetingEvent], None],
        *,
        ca_file: Path | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.url = url
        self._machine = machine
        self._on_event = on_event
        self._clock = clock or now
        self._tls = tls_context(url, ca_file)
        self._connection: ClientConnection | None = None
        self._ends: tuple[str, str] | None = None  # its addresses, ours first; a closed socket has forgotten them
        self._frames: FrameQueue | None = None
        self._frames_dropped = 0  # on earlier connections, or before any
        self._together: dict[bytes, list[bytes]] = {}  # frames of this turn of the event loop, by mailbox
        self._fault: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flushing = False
        self._hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- commands; the machine's own, with the clock put in

    def join(self, mailbox: bytes, side: bytes) -> None:
        """Want to be in ``mailbox`` from now on."""
        self._machine.join(mailbox, side, self._clock())
        self._flush()

    def leave(self, mailbox: bytes) -> None:
        """Want to be in ``mailbox`` no longer."""
        self._machine.leave(mailbox, self._clock())
        self._flush()

    def send(self, mailbox: bytes, blob: bytes) -> bool:
        """Hand a blob over for the other side; False where that is not possible now."""
        sent = self._machine.send(mailbox, blob, self._clock())
        self._flush()
        return sent

    @property
    def server_address(self) -> IPv4Address | None:
        """The server's address on the present connection."""
        return IPv4Address(self._ends[1]) if self._ends is not None else None

    def relay(self, mailbox: bytes, frame: bytes) -> bool:
        """Have a frame relayed to the other side; False where that is not possible now. It may yet be dropped.

        Frames that come within one turn of the event loop go together.
        """
        if self._frames is None or len(frame) > LARGEST_FRAME or not self._machine.is_in(mailbox):
            return False
        together = self._together.get(mailbox)
        if together is None:
            together = self._together[mailbox] = []
            if len(self._together) == 1:
                asyncio.get_running_loop().call_soon(self._send_frames)
        together.append(frame)
        if len(together) == MOST_FRAMES:
            self._send_frames()
        return True

    @property
    def frames_dropped(self) -> int:
        """Frames that :meth:`relay` took and the connection did not, or not soon enough."""
        return self._frames_dropped + (self._frames.dropped if self._frames is not None else 0)

    def doubt(self) -> None:
        """The network may have changed: the connection has two seconds to prove itself, a pending retry starts now.

        A connection from an address that this host would no longer use has no time: no answer could reach it.
        """
        self._hurry.set()
        if self._connection is None or self._ends is None:
            return
        local, server = self._ends
        way = way_to(IPv4Address(server))
        if way is not None and str(way.source) != local:
            self._connection.transport.abort()
        elif not self._tasks:
            task = asyncio.get_running_loop().create_task(self._verify(self._connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Connect, serve the machine, connect again; until cancelled, and then close the connection cleanly."""
        failures, down_since = 0, self._clock()
        try:
            while True:
                self._hurry.clear()
                started = self._clock()
                failure = await self._one_connection()
                ended = self._clock()
                lasted = ended - started
                if failure[0] in (Unreachability.LOST, Unreachability.CLOSED_BY_SERVER) and lasted > STEADY_AFTER:
                    failures, down_since = 0, ended
                failures += 1
                delay = retry_delay(failures, ended - down_since, _chance(), overloaded=failure[0] in _OVERLOAD)
                self._on_event(Unreachable(*failure, delay))
                await self._pause(delay)
        finally:
            for task in self._tasks:
                task.cancel()
            if self._timer is not None:
                self._timer.cancel()

    # --- one connection

    async def _one_connection(self) -> tuple[Unreachability, str]:
        """Open a connection and serve it until it ends; why it could not be opened, or how it ended."""
        try:
            connection = await ConnectHere(
                self.url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,  # blobs are ciphertext
                user_agent_header=None,
                proxy=None,  # a proxy would show the server its own address instead of our NAT's
                open_timeout=OPEN_TIMEOUT,
                ping_interval=PING_INTERVAL,
                ping_timeout=PING_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                max_size=LARGEST_MESSAGE,
                logger=QUIET,
                family=socket.AF_INET,  # GRE is punched over IPv4, so the server must see that address
                ssl=self._tls,
            )
        except (OSError, WebSocketException, EOFError) as error:
            return describe_failure(error)
        try:
            if connection.subprotocol != SUBPROTOCOL:
                return Unreachability.NOT_A_RENDEZVOUS, "the server speaks WebSocket, but not our protocol"
            return await self._serve(connection)
        finally:
            await connection.close()

    async def _serve(self, connection: ClientConnection) -> tuple[Unreachability, str]:
        self._connection, self._fault = connection, None
        if connection.local_address and connection.remote_address:
            self._ends = connection.local_address[0], connection.remote_address[0]
        self._frames = frames = FrameQueue(connection, self._clock, count_frames)
        self._on_event(Connected())
        self._machine.connected(self._clock())
        self._flush()
        try:
            while True:
                message = await connection.recv()
                self._machine.receive(message, self._clock())
                self._flush()
        except ConnectionClosed as closed:
            if self._fault is not None:
                return Unreachability.PROTOCOL_FAULT, self._fault
            return _describe_close(closed)
        finally:
            self._connection = self._frames = None
            frames.close()
            self._frames_dropped += frames.dropped
            self._machine.disconnected(self._clock())
            self._flush()

    async def _verify(self, connection: ClientConnection) -> None:
        try:
            async with asyncio.timeout(VERIFY_WITHIN):
                await (await connection.ping())
        except (TimeoutError, ConnectionClosed):
            connection.transport.abort()  # a dead path would hold up a clean close

    async def _pause(self, delay: float) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._hurry.wait()
        except TimeoutError:
            pass  # the ordinary end: nobody hurried us

    # --- the one exit

    def _flush(self) -> None:
        if self._flushing:
            return  # a command from within on_event: the loop below picks it up
        self._flushing = True
        try:
            self._drain()
        finally:
            self._flushing = False
        self._rearm()

    def _drain(self) -> None:
        while True:
            messages, events = self._machine.transmits(), self._machine.events()
            if not messages and not events:
                return
            for message in messages:
                self._send(message)
            for event in events:
                if isinstance(event, ServerFault):
                    self._end_faulty(event.detail)
                self._on_event(event)

    def _send_frames(self) -> None:
        together, self._together = self._together, {}
        for mailbox, frames in together.items():
            message = self._machine.relayed(mailbox, frames)
            if message is None or self._frames is None:
                self._frames_dropped += len(frames)
            else:
                self._frames.send(message)

    def _send(self, message: str | bytes) -> None:
        if self._connection is not None:
            send_or_drop(self._connection, message)  # the peers' own retransmission makes up for a dropped blob

    def _end_faulty(self, detail: str) -> None:
        self._fault = detail
        if self._connection is not None:
            task = asyncio.get_running_loop().create_task(self._connection.close(1002))  # RFC 6455: protocol error
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._machine.deadline()
        if deadline is not None:
            delay = max(0.0, deadline - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self._machine.handle_timeout(self._clock())
        self._flush()


def describe_failure(error: OSError | WebSocketException | EOFError) -> tuple[Unreachability, str]:
    """Why a connection could not be opened, in a word and in a sentence."""
    match error:
        case socket.gaierror():
            return Unreachability.DNS, f"the name has no IPv4 address: {error.strerror}"
        case ssl.SSLCertVerificationError():
            return Unreachability.TLS_NOT_TRUSTED, f"its certificate is not to be trusted: {error.verify_message}"
        case ssl.SSLError():
            reason: str = getattr(error, "reason", None) or str(error)  # OpenSSL's own errors have it, others do not
            return Unreachability.TLS_FAILED, f"TLS failed: {reason.lower().replace('_', ' ')}"
        case TimeoutError():
            return Unreachability.TIMEOUT, f"no answer within {OPEN_TIMEOUT:.0f} s"
        case ConnectionRefusedError():
            return Unreachability.REFUSED, "nothing listens at this address and port"
        case ConnectionError() | InvalidMessage() | EOFError():
            return Unreachability.NOT_A_RENDEZVOUS, "closed before any greeting: is it wss with TLS and ws without?"
        case OSError():
            return Unreachability.NO_ROUTE, f"no way there: {error.strerror or error}"
        case InvalidStatus() if error.response.status_code in _REDIRECTS:
            status = f"HTTP status {error.response.status_code}"
            return Unreachability.NOT_A_RENDEZVOUS, f"it sends us elsewhere ({status}), and redirects are not followed"
        case InvalidStatus():
            return Unreachability.HTTP_STATUS, f"it answers with HTTP status {error.response.status_code}"
        case _:
            return Unreachability.NOT_A_RENDEZVOUS, f"it does not speak our protocol: {error}"


def _describe_close(closed: ConnectionClosed) -> tuple[Unreachability, str]:
    if closed.rcvd is None:
        return Unreachability.LOST, "the connection was lost"
    try:
        sentence = CLOSE_SENTENCES[CloseCode(closed.rcvd.code)]
    except ValueError:
        return Unreachability.LOST, f"the server closed the connection (code {closed.rcvd.code})"
    return Unreachability.CLOSED_BY_SERVER, f"the server closed the connection: {sentence}"


def tls_context(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """The TLS settings for ``url``, None without TLS; raises :class:`MeetingConfigError`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")  # what the resolver will do; a label may be too long
    except ValueError as error:
        raise MeetingConfigError(f"{url}: {error}") from None
    if parts.scheme not in ("ws", "wss") or not host:
        raise MeetingConfigError(f"{url}: expected wss://HOST or wss://HOST:PORT")
    if parts.username is not None or parts.fragment:
        raise MeetingConfigError(f"{url}: a rendezvous takes neither a user name nor a fragment")
    if ":" in host:
        raise MeetingConfigError(f"{url}: a rendezvous has to be met over IPv4")
    if parts.scheme == "ws":
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise MeetingConfigError(f"{ca_file}: holds no certificate in PEM form") from None
    except OSError as error:
        raise MeetingConfigError(f"{ca_file}: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _chance() -> float:
    return int.from_bytes(entropy(4)) / 2**32
