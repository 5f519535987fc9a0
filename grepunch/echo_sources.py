"""Where this host's GRE comes from, as a rendezvous with a GRE echo sees it: a pool may give it an address of its own.

A few packets of both forms, as peers send them, and what the server says it saw of them. It is the server's word, as
the address that it saw our connection come from is; what a peer does with either is limited there.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

from grepunch.io.echo_client import EchoClient, NoEchoServer
from grepunch.io.errors import NoPrivilege
from grepunch.nat.messages import Cookie, Seen, Text
from grepunch.nat.packets import EchoPacket

# ours
PACKETS = 3  # of each form; one that is lost is not missed
GAP = 0.1  # seconds between two of them
GREETING = 5.0  # seconds for the cookie
PATIENCE = 1.0  # seconds for the last word


class _Listener:
    """What the server said."""

    def __init__(self) -> None:
        self.cookie = b""
        self.versions: set[int] = set()
        self.sources: dict[IPv4Address, None] = {}  # in order
        self.news = asyncio.Event()

    def on_text(self, text: Text) -> None:
        match text:
            case Cookie(cookie=cookie):
                self.cookie = cookie
            case Seen(source=source, version=version):
                self.sources[source] = None
                self.versions.add(version)
        self.news.set()

    def on_packet(self, packet: EchoPacket) -> None:
        """An answer: the server has said all about it."""


async def gre_sources(url: str, *, ca_file: Path | None) -> tuple[IPv4Address, ...]:
    """The addresses in the order seen; none where the server says nothing, or this host may not send."""
    listener = _Listener()
    try:
        async with EchoClient(url, ca_file=ca_file, on_text=listener.on_text, on_packet=listener.on_packet) as client:
            async with asyncio.timeout(GREETING):
                while not listener.cookie:
                    await listener.news.wait()
                    listener.news.clear()
            for sequence in range(PACKETS):
                for version in (1, 0):
                    client.send(EchoPacket(version, 0, listener.cookie, test=version, sequence=sequence))
                await asyncio.sleep(GAP)
                if listener.versions == {0, 1}:
                    break
            else:
                await asyncio.sleep(PATIENCE)
    except (NoEchoServer, NoPrivilege, TimeoutError):
        pass  # punching goes on towards the address that the rendezvous itself has seen
    return tuple(listener.sources)
