"""The GRE echo server's runner: a raw socket, a small PPTP port, and the WebSocket connections of those who probe.

Created by the rendezvous server where it was asked for. It needs CAP_NET_RAW. A PPTP call here is scenery for the NATs
on the way: it carries nothing, and only a client with a cookie may place one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from grepunch.io import clock
from grepunch.io.echogre import EchoGre
from grepunch.io.meeting_link import send_or_drop
from grepunch.nat.echo import Answer, Dismissed, EchoDesk, Told
from pptp.errors import WireError
from pptp.wire.control import (
    EchoReply,
    EchoRequest,
    MessageSplitter,
    OutgoingCallReply,
    OutgoingCallRequest,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    build_message,
    parse_message,
)

PPTP_PORT = 1723  # RFC 2637 section 3.1
# ours
MOST_CALLS = 64  # connections to the PPTP port
CALL_LIFE = 300.0  # seconds
_READ = 4096


class EchoService:
    """See the module; :meth:`open` before the first connection, :meth:`close` at the end."""

    def __init__(self) -> None:
        self._gre = EchoGre()
        self.desk = EchoDesk(entropy=clock.entropy, now=clock.now())
        self._connections: dict[int, ServerConnection] = {}
        self._ids = itertools.count(1)
        self._calls = 0
        self._call_ids = itertools.cycle(range(1, 0x10000))
        self._timer: asyncio.TimerHandle | None = None
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, hosts: Sequence[str]) -> None:
        """Listen for calls on these addresses; raises :class:`OSError`."""
        for host in dict.fromkeys(hosts):
            self._servers.append(await asyncio.start_server(self._call, host, PPTP_PORT))
        asyncio.get_running_loop().add_reader(self._gre.fileno(), self._gre_readable)

    def close(self) -> None:
        """Stop listening and answering."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self._gre.fileno())
        self._gre.close()

    async def serve(self, connection: ServerConnection, address: IPv4Address, port: int) -> None:
        """The life of one client's connection; ``port`` 0 where it is not the client's own."""
        number = next(self._ids)
        self._connections[number] = connection
        self.desk.connect(number, address, port, clock.now())
        self._flush()
        try:
            while True:
                message = await connection.recv()
                self.desk.receive(number, message if isinstance(message, str) else "", clock.now())
                self._flush()
        except ConnectionClosed:
            pass  # the ordinary end
        finally:
            del self._connections[number]
            self.desk.disconnect(number)

    # -- PPTP -----------------------------------------------------------------------------------------------

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._calls += 1
        try:
            if self._calls <= MOST_CALLS:
                with suppress(TimeoutError, OSError, WireError):
                    async with asyncio.timeout(CALL_LIFE):
                        await self._converse(reader, writer)
        finally:
            self._calls -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        splitter, source = MessageSplitter(), IPv4Address(writer.get_extra_info("peername")[0])
        while data := await reader.read(_READ):
            splitter.feed(data)
            while (message := splitter.next_message()) is not None:
                reply = self._reply(parse_message(message), source)
                if reply is None:
                    return
                writer.write(reply)

    def _reply(self, message: object, source: IPv4Address) -> bytes | None:
        """What a PAC says to that; None where it hangs up."""
        match message:
            case StartControlConnectionRequest():
                return build_message(StartControlConnectionReply(host_name=b"echo", vendor_name=b"grepunch"))
            case EchoRequest(identifier=identifier):
                return build_message(EchoReply(identifier))
            case OutgoingCallRequest(call_id=call_id, phone_number=number) if len(number) == 8:
                with suppress(ValueError):
                    given = next(self._call_ids)
                    if self.desk.call_placed(int(number, 16), source, call_id, given):
                        self._flush()
                        return build_message(OutgoingCallReply(given, call_id))
        return None

    # -- the one exit -----------------------------------------------------------------------------------------

    def _gre_readable(self) -> None:
        for source, local, packet in self._gre.receive():
            self.desk.receive_gre(source, local, packet, clock.now())
        self._flush()

    def _flush(self) -> None:
        for item in self.desk.transmits():
            match item:
                case Answer(source=source, destination=destination, packet=packet):
                    self._gre.send(destination, packet, source)
                case Told(client=client, text=text):
                    connection = self._connections.get(client)
                    if connection is not None:
                        send_or_drop(connection, text)
                case Dismissed(client=client):
                    connection = self._connections.get(client)
                    if connection is not None:
                        closing = asyncio.get_running_loop().create_task(connection.close(1008))
                        self._tasks.add(closing)
                        closing.add_done_callback(self._tasks.discard)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.desk.deadline()
        if deadline is not None:
            delay = max(0.0, deadline - clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self.desk.handle_timeout(clock.now())
        self._flush()
