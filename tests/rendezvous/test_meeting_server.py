"""The rendezvous server over real sockets: what it refuses, what it says, what it logs, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from grepunch.io.meeting import (
    Connected,
    Unreachability,
    Unreachable,
)
from grepunch.io.meeting_link import QUIET
from grepunch.io.meeting_server import (
    HEALTH,
    RendezvousServerError,
    RendezvousServerOptions,
    ServerFailure,
    serve_rendezvous,
    source_address,
)
from grepunch.rendezvous.events import (
    BlobReceived,
    MailboxJoined,
    PeerPresent,
)
from grepunch.rendezvous.limits import BrokerLimits
from grepunch.rendezvous.messages import LARGEST_MESSAGE, SUBPROTOCOL, ClockRequest, CloseCode, Join, build_text
from tests.rendezvous.meeting_support import (
    ALICE,
    BOB,
    MAILBOX,
    PATIENCE,
    PLAIN,
    Authority,
    Peer,
    issue_authority,
    private_pem,
    run,
    serving,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return issue_authority(tmp_path_factory.mktemp("authority"))


async def start_and_fail(options: RendezvousServerOptions) -> RendezvousServerError:
    with pytest.raises(RendezvousServerError) as caught:
        await asyncio.wait_for(serve_rendezvous(options), PATIENCE)
    return caught.value


def test_an_address_that_cannot_be_had_has_its_word() -> None:
    async def test() -> None:
        async with serving(PLAIN) as port:
            error = await start_and_fail(replace(PLAIN, listen=(("127.0.0.1", port),)))
            assert error.failure is ServerFailure.ADDRESS_IN_USE
            assert str(port) in str(error)
        for host in ("192.0.2.1", "rendezvous.invalid"):
            error = await start_and_fail(replace(PLAIN, listen=((host, 0),)))
            assert error.failure is ServerFailure.ADDRESS_NOT_HERE

    run(test())


def test_a_certificate_that_cannot_be_used_has_its_word(authority: Authority, tmp_path: Path) -> None:
    other = issue_authority(tmp_path, "other")
    key = serialization.load_pem_private_key(other.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    locked, empty = tmp_path / "locked.pem", tmp_path / "empty.pem"
    locked.write_bytes(private_pem(key, serialization.BestAvailableEncryption(b"password")))
    empty.write_text("nothing\n")

    async def test() -> None:
        for certificate, private_key, failure, sentence in (
            (tmp_path / "none", other.key, ServerFailure.CERTIFICATE_UNREADABLE, "No such file"),
            (other.certificate, tmp_path / "none", ServerFailure.KEY_UNREADABLE, "No such file"),
            (other.certificate, tmp_path, ServerFailure.KEY_UNREADABLE, "Is a directory"),
            (authority.certificate, other.key, ServerFailure.CERTIFICATE_BAD, "another certificate"),
            (other.certificate, locked, ServerFailure.CERTIFICATE_BAD, "password"),
            (empty, other.key, ServerFailure.CERTIFICATE_BAD, "no PEM certificate"),
            (None, other.key, ServerFailure.CERTIFICATE_BAD, "without a certificate"),
        ):
            error = await start_and_fail(replace(PLAIN, certificate=certificate, private_key=private_key))
            assert error.failure is failure
            assert sentence in str(error)

    run(test())


async def http_get(port: int, path: str) -> tuple[str, str]:
    """Status line and body of a plain GET."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), PATIENCE)).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head.partition("\r\n")[0], body


def test_a_plain_get_says_what_lives_here() -> None:
    async def test() -> None:
        async with serving(PLAIN) as port:
            status, body = await http_get(port, "/")
            assert ("200" in status, body) == (True, HEALTH)
            assert "404" in (await http_get(port, "/other"))[0]

    run(test())


def test_web_pages_and_other_protocol_versions_are_turned_away() -> None:
    async def test() -> None:
        async with serving(PLAIN) as port:
            url = f"ws://127.0.0.1:{port}"
            with pytest.raises(InvalidStatus) as caught:
                await connect(
                    url, origin=Origin("https://example.org"), subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None
                )
            assert caught.value.response.status_code == 403
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, subprotocols=[Subprotocol("grepunch-pptp.rendezvous.999")], proxy=None)
            assert caught.value.response.status_code == 400

    run(test())


async def close_code_after(port: int, *messages: str | bytes) -> int:
    """The code with which the server ends a connection that sends ``messages``."""
    async with connect(
        f"ws://127.0.0.1:{port}", subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, proxy=None, logger=QUIET
    ) as connection:
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                await connection.send(message)
            while True:
                await asyncio.wait_for(connection.recv(), PATIENCE)
    assert connection.close_code is not None
    return connection.close_code


def test_the_server_says_why_it_closes() -> None:
    async def test() -> None:
        limits = BrokerLimits(connections_per_source=2, texts_per_connection=(1.0, 20.0))
        async with serving(replace(PLAIN, limits=limits)) as port:
            url = f"ws://127.0.0.1:{port}"
            assert await close_code_after(port, "nonsense") == CloseCode.MALFORMED
            assert await close_code_after(port, bytes(LARGEST_MESSAGE + 1)) == 1009  # RFC 6455: too big
            assert await close_code_after(port, *[build_text(ClockRequest(1))] * 50) == CloseCode.RATE
            async with Peer(url) as one, Peer(url) as two, Peer(url) as three:
                await one.wait_for(Connected)
                await two.wait_for(Connected)
                failure = await three.wait_for(Unreachable)
                assert failure.reason is Unreachability.CLOSED_BY_SERVER
                assert failure.detail == "the server closed the connection: too many connections from this address"

    run(test())


def test_a_stopping_server_says_good_bye_and_leaves_nothing_behind() -> None:
    async def test() -> None:
        before = asyncio.all_tasks()
        async with serving(PLAIN) as port:
            url = f"ws://127.0.0.1:{port}"
            connection = await connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None)
            await connection.recv()
        await connection.wait_closed()
        assert connection.close_code == 1001
        await asyncio.wait({task for task in asyncio.all_tasks() - before if not task.done()} or before, timeout=0.1)
        assert asyncio.all_tasks() == before
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(test())


def test_a_receiver_that_does_not_read_costs_the_server_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        limits = BrokerLimits(blobs_per_side=(1e6, 1e6), blobs_per_connection=(1e6, 1e6))
        async with serving(replace(PLAIN, limits=limits)) as port, Peer(f"ws://127.0.0.1:{port}", ALICE) as alice:
            url = f"ws://127.0.0.1:{port}"
            sleeper = await connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None, max_queue=1)
            await sleeper.send(build_text(Join(1, MAILBOX, BOB)))
            await alice.wait_for(PeerPresent)
            for n in range(3000):  # 12 MB towards somebody who reads nothing
                alice.client.send(MAILBOX, bytes(4096))
                if n % 10 == 0:
                    await asyncio.sleep(0)
            alice.client.leave(MAILBOX)
            alice.client.join(MAILBOX, ALICE)
            await alice.wait_for(PeerPresent, 2)
            sleeper.transport.abort()

    with caplog.at_level(logging.INFO, logger="grepunch.rendezvous"):
        run(test())
    (counts,) = [record.getMessage() for record in caplog.records if "event=stopping" in record.getMessage()]
    assert "blobs_dropped_slow_receiver=" in counts


def test_the_log_holds_neither_addresses_of_peers_nor_mailboxes_nor_blobs(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with serving(PLAIN) as port:
            async with Peer(f"ws://127.0.0.1:{port}", ALICE) as alice, Peer(f"ws://127.0.0.1:{port}", BOB) as bob:
                await alice.wait_for(PeerPresent)
                alice.client.send(MAILBOX, b"planted-blob")
                await bob.wait_for(BlobReceived)
            assert await close_code_after(port, "planted-nonsense") == CloseCode.MALFORMED

    with caplog.at_level(logging.DEBUG):
        run(test())
    log = "\n".join(record.getMessage() for record in caplog.records if record.name != "asyncio")
    assert "event=stopping" in log
    assert "event=listening" in log
    for secret in ("planted", MAILBOX.hex(), ALICE.hex(), repr(MAILBOX)):
        assert secret not in log


def test_the_forwarded_address_is_what_a_peer_is_told() -> None:
    async def observed(options: RendezvousServerOptions) -> str:
        async with serving(options) as port:
            url = f"ws://127.0.0.1:{port}"
            headers = {"X-Forwarded-For": "203.0.113.66, 198.51.100.7"}
            async with connect(
                url, subprotocols=[Subprotocol(SUBPROTOCOL)], additional_headers=headers, proxy=None
            ) as connection:
                return str(await connection.recv())

    async def test() -> None:
        assert '"observed":"127.0.0.1"' in await observed(PLAIN)
        trusting = replace(PLAIN, trusted_proxies=(ip_network("127.0.0.0/8"),))
        assert '"observed":"198.51.100.7"' in await observed(trusting)

    run(test())


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),  # no proxy of ours
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.66, 198.51.100.7"], "198.51.100.7"),  # further left a stranger wrote
        ("10.0.0.1", ["203.0.113.66", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:80"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["2001:db8::5"], "2001:db8::5"),
        ("fe80::1%eth0", [], "fe80::1%eth0"),
    ],
)
def test_only_listed_proxies_are_believed(peer: str, forwarded: list[str], address: str) -> None:
    trusted = (ip_network("10.0.0.0/24"),)
    expected: IPv4Address | IPv6Address = IPv6Address(address) if ":" in address else IPv4Address(address)
    assert source_address(peer, forwarded, trusted) == expected


def test_several_addresses_are_listened_on_and_each_is_reported() -> None:
    async def test() -> None:
        reported: list[tuple[str, int]] = []
        both = asyncio.Event()

        def ready(address: tuple[str, int]) -> None:
            reported.append(address)
            if len(reported) == 2:
                both.set()

        options = replace(PLAIN, listen=(("127.0.0.1", 0), ("127.0.0.2", 0)))
        task = asyncio.create_task(serve_rendezvous(options, ready))
        await asyncio.wait_for(both.wait(), PATIENCE)
        async with (
            Peer(f"ws://127.0.0.1:{reported[0][1]}", ALICE) as alice,
            Peer(f"ws://127.0.0.2:{reported[1][1]}", BOB) as bob,
        ):
            await alice.wait_for(PeerPresent)  # two listeners, one broker
            await bob.wait_for(MailboxJoined)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run(test())
