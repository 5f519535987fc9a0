"""A load of ordinary PPTP clients in one process: each a whole client with TCP, GRE, PPP, MS-CHAPv2 and MPPE-128.

``python -m tests.live.ordinary_load JSON`` is told an :class:`Order`, brings so many sessions up against a server,
pings through each of them, says ``up``, waits for SIGUSR1, and ends them all; it prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from grepunch.io.callgre import CallGre
from grepunch.io.clock import entropy, now
from grepunch.io.streams import ConnectFailed, Stream, connect
from grepunch.ordinary.calls import Call, CallPump, CallTable
from grepunch.ordinary.connection import Connection
from pptp.crypto.mppe_keys import Strength
from pptp.errors import Terminated
from pptp.ordinary import Admission, CallTerms, Ipv4Up, OrdinaryConfig, OrdinaryEvent
from pptp.ppp.ccp import CcpPolicy
from pptp.ppp.credentials import Credential
from pptp.ppp.mschapv2 import MsChapV2Authenticatee
from pptp.wire.ppp import Protocol

PORT = 1723
PATIENCE = 30.0  # seconds for what is still missing at the end
LONGEST_LIFE = 0.4  # seconds to a cut: sessions take about as long to come up


@dataclass(frozen=True)
class Order:
    """``rate`` sessions a second, or all at once where it is 0. ``cut``: each is cut off wherever it stands."""

    server: str
    user: str
    password: str
    count: int
    rate: float
    seed: int
    cut: bool = False


class Client:
    """One session; the owner of its connection."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.number = number
        self.began = now()
        self.seconds: float | None = None
        self.question: tuple[int, bytes] | None = None
        self.answered = False
        self.connection: Connection | None = None
        self.over = asyncio.Event()
        self.cause = ""

    def opened(self, stream: Stream) -> Connection:
        """TCP is there."""
        self.connection = Connection(stream, self.load.config, self.load.table, self)
        asyncio.get_running_loop().call_soon(self.connection.open)
        return self.connection

    def admit(self, connection: Connection, call_id: int, user: str) -> Admission | Terminated:
        """Only servers are asked."""
        raise AssertionError

    def happened(self, connection: Connection, event: OrdinaryEvent) -> None:
        """The session's events; once it is up, a ping."""
        match event:
            case Ipv4Up(call_id=call_id, local=local, remote=remote):
                self.seconds = now() - self.began
                self.load.waiting[local.packed] = self
                self.question = (call_id, echo_request(local, remote, self.number))
                self.ping()
            case Terminated():
                self.cause = f"{event.cause}: {event.detail}"

    def ping(self) -> None:
        """Ask through the tunnel, where that has not been answered yet."""
        if self.question is not None and self.connection is not None and not self.answered:
            call_id, packet = self.question
            gre = self.connection.machine.send_network(call_id, int(Protocol.IPV4), packet, now())
            if gre is not None:
                self.connection.queue(gre, (self, len(packet)))
                self.load.table.gre.flush()

    def deliver(self, call: Call, protocol: int, packet: bytes | memoryview) -> None:
        """What waited for its turn."""
        self.load.write(bytes(packet))

    def connection_lost(self, connection: Connection) -> None:
        """The end."""
        self.over.set()


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(source: IPv4Address, destination: IPv4Address, identifier: int) -> bytes:
    """A ping (RFC 792)."""
    icmp = struct.pack("!BBHHH", 8, 0, 0, identifier, 1) + b"grepunch" * 4
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0, source.packed, destination.packed)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + icmp


class Load:
    """All clients, the one raw socket that their GRE shares, and the device their packets end in: ``write``."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.table = CallTable(CallGre(), entropy)
        self.pump = CallPump(self.table, self, mss_clamp=False, asks_us=lambda call, packet: None, now=now)
        self.released = asyncio.Event()
        self.clients: list[Client] = []
        self.waiting: dict[bytes, Client] = {}  # for the answer to a ping, by inner address
        self.rng = random.Random(order.seed)
        self.config = OrdinaryConfig(
            dials=True,
            terms=CallTerms(
                authenticatees=(MsChapV2Authenticatee(order.user, Credential.of_password(order.password)),),
                mppe=CcpPolicy(required=True, strengths=frozenset({Strength.BITS_128})),
            ),
        )

    def read(self, limit: int) -> list[bytes]:
        """Nothing comes from here."""
        return []

    def flush(self) -> None:
        """Nothing is held."""

    def write(self, packet: bytes) -> bool:
        """A packet out of a tunnel: somebody's echo reply."""
        client = self.waiting.get(packet[16:20])
        if client is not None:
            client.answered |= packet[9] == 1 and packet[20] == 0 and packet[24:26] == struct.pack("!H", client.number)
        return True

    async def one(self, number: int) -> Client:
        """One session: up, or cut in the middle; its end is for later."""
        client = Client(self, number)
        self.clients.append(client)
        try:
            await connect(self.order.server, PORT, client.opened, within=PATIENCE)
        except ConnectFailed as failed:
            client.cause = str(failed)
            client.over.set()
            return client
        connection = client.connection
        if self.order.cut and connection is not None:
            await asyncio.sleep(self.rng.random() * LONGEST_LIFE)
            connection.abort()
        return client

    async def run(self) -> dict[str, Any]:
        """Bring all up, say how it went, end them."""
        began = now()
        starts = []
        for number in range(self.order.count):
            if self.order.rate:
                await asyncio.sleep(max(0.0, began + number / self.order.rate - now()))
            starts.append(asyncio.create_task(self.one(number)))
        await asyncio.gather(*starts)
        if self.order.cut:
            await asyncio.gather(*(client.over.wait() for client in self.clients))
            return {"cut": len(self.clients), "came_up": sum(c.seconds is not None for c in self.clients)}
        while now() - began < PATIENCE + self.order.count / (self.order.rate or self.order.count):
            if all(client.answered or client.over.is_set() for client in self.clients):
                break
            await asyncio.sleep(0.5)
            for client in self.clients:
                client.ping()  # the other end may have come up a moment later
        seconds = sorted(client.seconds for client in self.clients if client.seconds is not None)
        print("up", flush=True)
        await self.released.wait()  # the caller looks at the server meanwhile
        for client in self.clients:
            if client.connection is not None:
                client.connection.close()
        await asyncio.wait_for(asyncio.gather(*(client.over.wait() for client in self.clients)), PATIENCE)
        return {
            "up": len(seconds),
            "answered": sum(client.answered for client in self.clients),
            "p50": seconds[len(seconds) // 2] if seconds else None,
            "p99": seconds[len(seconds) * 99 // 100] if seconds else None,
            "all_up_after": max((c.began + c.seconds for c in self.clients if c.seconds is not None), default=0)
            - began,
            "causes": sorted({client.cause for client in self.clients}),
        }


async def main(order: Order) -> None:
    """Run the load; print what it saw."""
    load = Load(order)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, load.released.set)
    loop.add_reader(load.table.gre.fileno(), load.pump.gre_readable)
    try:
        print(json.dumps(await load.run()), flush=True)
    finally:
        loop.remove_reader(load.table.gre.fileno())
        load.table.gre.close()


if __name__ == "__main__":
    asyncio.run(main(Order(**json.loads(sys.argv[1]))))
