"""A probe's connections to the echo server: the WebSocket, raw GRE, and a PPTP call.

:class:`EchoClient` moves messages and decides nothing; :mod:`grepunch.probing` asks it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from ipaddress import IPv4Address
from pathlib import Path

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from grepunch.io.echogre import EchoGre
from grepunch.io.meeting import OPEN_TIMEOUT, ConnectHere, Unreachability, describe_failure, tls_context
from grepunch.io.meeting_link import CLOSE_TIMEOUT, QUIET
from grepunch.nat import messages, packets
from grepunch.nat.messages import SUBPROTOCOL, More, Text
from pptp.errors import WireError
from pptp.wire.control import (
    TCP_PORT,
    MessageSplitter,
    OutgoingCallReply,
    OutgoingCallRequest,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    build_message,
    parse_message,
)

CALL_WAIT = 3.0  # ours: seconds for a call to be made, TCP included
_READ = 4096
ANOTHER_SERVER = "Name a rendezvous that was started with --gre-echo; another may just not offer it."
OWN_CERTIFICATE = "Name the certificates to trust with --ca-file, or a rendezvous whose own this machine trusts."


class NoEchoServer(Exception):
    """The server cannot be asked; its text says why, ``advice`` what to try."""

    def __init__(self, text: str, advice: str = ANOTHER_SERVER) -> None:
        super().__init__(text)
        self.advice = advice


class EchoClient:
    """One probe's connections; an async context manager. Raises :class:`NoEchoServer`, and
    :class:`~grepunch.io.errors.NoPrivilege` without CAP_NET_RAW."""

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None,
        on_text: Callable[[Text], None],
        on_packet: Callable[[packets.EchoPacket], None],
    ) -> None:
        self._url = url
        self._tls: ssl.SSLContext | None = tls_context(url, ca_file)
        self._on_text = on_text
        self._on_packet = on_packet
        self._stack = AsyncExitStack()
        self._gre: EchoGre | None = None
        self._connection: ClientConnection | None = None
        self.server = IPv4Address(0)
        self.local_port = 0

    async def __aenter__(self) -> EchoClient:
        try:
            self._gre = EchoGre()
            self._stack.callback(self._gre.close)
            self._connection = await self._connect()
            self._stack.push_async_callback(self._connection.close)
            self.server = IPv4Address(self._connection.remote_address[0])
            self.local_port = self._connection.local_address[1]
            loop = asyncio.get_running_loop()
            loop.add_reader(self._gre.fileno(), self._gre_readable)
            self._stack.callback(loop.remove_reader, self._gre.fileno())
            reading = loop.create_task(self._read(self._connection))
            self._stack.callback(reading.cancel)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _connect(self) -> ClientConnection:
        try:
            return await ConnectHere(
                self._url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                user_agent_header=None,
                proxy=None,
                open_timeout=OPEN_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                max_size=messages.LARGEST_TEXT,
                logger=QUIET,
                family=socket.AF_INET,
                ssl=self._tls,
            )
        except (OSError, WebSocketException, EOFError) as error:
            why, sentence = describe_failure(error)
            advice = OWN_CERTIFICATE if why is Unreachability.TLS_NOT_TRUSTED else ANOTHER_SERVER
            raise NoEchoServer(f"{self._url}: {sentence}", advice) from None

    # -- what a probe asks ------------------------------------------------------------------------------------

    def send(self, packet: packets.EchoPacket) -> bool:
        """Send a packet with Don't Fragment; False where this host did not take it."""
        return self._gre is not None and self._gre.send(self.server, packets.build(packet))

    async def ask_for_cookie(self) -> None:
        """Have the server hand out another one."""
        if self._connection is not None:
            with suppress(ConnectionClosed):
                await self._connection.send(messages.build(More()))

    async def call(self, identifier: int, call_id: int) -> tuple[int, int] | None:
        """Place a PPTP call, which stays until the end; the Call IDs that the reply holds (the server's, ours), or
        None where it could not be made."""
        with suppress(OSError, TimeoutError, WireError):
            async with asyncio.timeout(CALL_WAIT):
                reader, writer = await asyncio.open_connection(str(self.server), TCP_PORT)
                self._stack.callback(writer.close)
                splitter = MessageSplitter()
                writer.write(build_message(StartControlConnectionRequest(host_name=b"probe")))
                while data := await reader.read(_READ):
                    splitter.feed(data)
                    while (message := splitter.next_message()) is not None:
                        match parse_message(message):
                            case StartControlConnectionReply():
                                number = b"%08x" % identifier
                                writer.write(build_message(OutgoingCallRequest(call_id, phone_number=number)))
                            case OutgoingCallReply(call_id=given, peer_call_id=ours):
                                return given, ours
        return None

    # -- what arrives -----------------------------------------------------------------------------------------

    def _gre_readable(self) -> None:
        if self._gre is None:
            return
        for source, _, data in self._gre.receive():
            if source != self.server:
                continue
            try:
                packet = packets.parse(data)
            except WireError:
                continue  # other traffic of this host
            if packet.answer:
                self._on_packet(packet)

    async def _read(self, connection: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = await connection.recv()
                if isinstance(message, str):
                    with suppress(WireError):  # of a newer server
                        self._on_text(messages.parse(message))
