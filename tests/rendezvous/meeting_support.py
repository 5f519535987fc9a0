"""What the tests of the rendezvous over real sockets share: certificates, a running server, a peer to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from grepunch.io.meeting import (
    MeetingClient,
    MeetingEvent,
)
from grepunch.io.meeting_server import (
    RendezvousServerOptions,
    serve_rendezvous,
)
from grepunch.rendezvous.client import RendezvousClient

MAILBOX = b"m" * 16
ALICE = b"a" * 16
BOB = b"b" * 16
PATIENCE = 20.0  # seconds after which a test that waits for an event has failed

EventT = TypeVar("EventT", bound=MeetingEvent)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine; everything it started has to be over when it ends."""
    asyncio.run(asyncio.wait_for(test, 2 * PATIENCE))


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own, and a server certificate it issued for 127.0.0.1."""

    ca_file: Path
    certificate: Path
    key: Path


def issue_authority(directory: Path, name: str = "ca", *, host: str = "127.0.0.1", days: int = 1) -> Authority:
    """Write an authority and one server certificate, which expires ``days`` from now."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test authority {name}")])
    builder = x509.CertificateBuilder().issuer_name(ca_name).not_valid_before(now - datetime.timedelta(days=9))
    ca_certificate = (
        builder.subject_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_after(now + datetime.timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(host))]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    authority = Authority(*(directory / f"{name}-{part}.pem" for part in ("ca", "server", "key")))
    authority.ca_file.write_bytes(ca_certificate.public_bytes(serialization.Encoding.PEM))
    authority.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    authority.key.write_bytes(private_pem(key, serialization.NoEncryption()))
    return authority


def private_pem(key: ec.EllipticCurvePrivateKey, protection: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


PLAIN = RendezvousServerOptions(listen=(("127.0.0.1", 0),))


@contextlib.asynccontextmanager
async def serving(options: RendezvousServerOptions) -> AsyncIterator[int]:
    """A running server; yields its port."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve_rendezvous(options, lambda address: port.set_result(address[1])))
    try:
        yield await asyncio.wait_for(port, PATIENCE)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Peer:
    """A meeting client that remembers what it was told, and can be waited for."""

    def __init__(self, url: str, side: bytes | None = None, ca_file: Path | None = None) -> None:
        self.seen: list[MeetingEvent] = []
        self._news = asyncio.Event()
        self.client = MeetingClient(url, RendezvousClient(entropy=os.urandom), self._on_event, ca_file=ca_file)
        if side is not None:
            self.client.join(MAILBOX, side)

    def _on_event(self, event: MeetingEvent) -> None:
        self.seen.append(event)
        self._news.set()

    async def wait_for(self, kind: type[EventT], nth: int = 1) -> EventT:
        """The ``nth`` event of a kind, now or within the test's patience."""
        async with asyncio.timeout(PATIENCE):
            while len(found := [event for event in self.seen if isinstance(event, kind)]) < nth:
                self._news.clear()
                await self._news.wait()
        return found[nth - 1]

    async def __aenter__(self) -> Peer:
        self._task = asyncio.create_task(self.client.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
