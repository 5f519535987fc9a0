"""Peers that meet over real sockets on loopback: TLS, restarts, and why a server cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from grepunch.io.meeting import (
    MeetingClient,
    MeetingConfigError,
    MeetingEvent,
    Unreachability,
    Unreachable,
    describe_failure,
)
from grepunch.rendezvous.client import RendezvousClient
from grepunch.rendezvous.events import (
    BlobReceived,
    ClockSynced,
    Disconnected,
    PeerAbsent,
    PeerPresent,
    Welcomed,
)
from grepunch.rendezvous.messages import SUBPROTOCOL, Hello, build_text
from tests.rendezvous.meeting_support import ALICE, BOB, MAILBOX, PLAIN, Authority, Peer, issue_authority, run, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return issue_authority(tmp_path_factory.mktemp("authority"))


def test_two_peers_meet_over_tls_and_exchange_blobs(authority: Authority) -> None:
    async def test() -> None:
        options = replace(PLAIN, certificate=authority.certificate, private_key=authority.key)
        async with serving(options) as port:
            url = f"wss://127.0.0.1:{port}"
            async with (
                Peer(url, ALICE, authority.ca_file) as alice,
                Peer(url, BOB, authority.ca_file) as bob,
            ):
                assert (await alice.wait_for(Welcomed)).observed == IPv4Address("127.0.0.1")
                await alice.wait_for(PeerPresent)
                await bob.wait_for(PeerPresent)
                for size in (1, 1310, 4096):
                    assert alice.client.send(MAILBOX, bytes(size))
                assert len((await bob.wait_for(BlobReceived, 3)).payload) == 4096
                assert bob.client.send(MAILBOX, b"back")
                assert (await alice.wait_for(BlobReceived)).payload == b"back"
                synced = await alice.wait_for(ClockSynced)
                assert 0 < synced.rtt < 5
                assert synced.error == synced.rtt / 2
            assert not any(isinstance(event, Unreachable) for event in alice.seen + bob.seen)

    run(test())


def test_a_peer_that_ends_is_told_to_the_other_at_once() -> None:
    async def test() -> None:
        async with serving(PLAIN) as port, Peer(f"ws://127.0.0.1:{port}", ALICE) as alice:
            async with Peer(f"ws://127.0.0.1:{port}", BOB):
                await alice.wait_for(PeerPresent)
            await alice.wait_for(PeerAbsent)

    run(test())


def test_peers_return_by_themselves_when_the_server_does() -> None:
    async def test() -> None:
        async with serving(PLAIN) as port:
            url = f"ws://127.0.0.1:{port}"
            alice, bob = Peer(url, ALICE), Peer(url, BOB)
            await alice.__aenter__()
            await bob.__aenter__()
            await alice.wait_for(PeerPresent)
            await bob.wait_for(PeerPresent)
        lost = await alice.wait_for(Unreachable)
        assert lost.reason is Unreachability.LOST
        assert 0.2 <= lost.retry_in <= 0.4
        await alice.wait_for(Disconnected)
        async with serving(replace(PLAIN, listen=(("127.0.0.1", port),))):
            started = asyncio.get_running_loop().time()
            await alice.wait_for(PeerPresent, 2)
            await bob.wait_for(PeerPresent, 2)
            assert asyncio.get_running_loop().time() - started < 4.0
            alice.client.send(MAILBOX, b"again")
            assert (await bob.wait_for(BlobReceived)).payload == b"again"
            await alice.__aexit__()
            await bob.__aexit__()

    run(test())


def test_a_silent_connection_that_is_doubted_is_replaced_within_seconds() -> None:
    async def test() -> None:
        frozen: list[asyncio.Transport] = []

        async def greet_and_freeze(connection: ServerConnection) -> None:
            hello = build_text(Hello(bytes(16), 1, 9, None))
            await connection.send(hello)
            if not frozen:
                frozen.append(connection.transport)
                connection.transport.pause_reading()
            await connection.wait_closed()

        async with (
            serve(
                greet_and_freeze, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], close_timeout=0.1
            ) as server,
            Peer(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}") as peer,
        ):
            await peer.wait_for(Welcomed)
            peer.client.doubt()
            peer.client.doubt()
            assert (await peer.wait_for(Unreachable)).reason is Unreachability.LOST
            await peer.wait_for(Welcomed, 2)
            peer.client.doubt()  # this one answers, and stays
            frozen[0].abort()

    run(test())


def test_a_connection_may_be_asked_about_while_it_breaks(authority: Authority) -> None:
    async def test() -> None:
        options = replace(PLAIN, certificate=authority.certificate, private_key=authority.key)
        async with (
            serving(options) as port,
            Peer(f"wss://127.0.0.1:{port}", ALICE, authority.ca_file) as peer,
        ):
            await peer.wait_for(Welcomed)
            assert str(peer.client.server_address) == "127.0.0.1"
            connection = peer.client._connection
            assert connection is not None
            connection.transport.abort()  # as doubt does, and the kernel: a socket of TLS then forgets its addresses
            for _ in range(20):
                peer.client.doubt()
                await asyncio.sleep(0)
            await peer.wait_for(Welcomed, 2)

    run(test())


def test_a_retry_that_waits_starts_at_once_when_the_network_has_changed() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        async with Peer(f"ws://127.0.0.1:{port}", ALICE) as peer:
            refused = await peer.wait_for(Unreachable)
            assert refused.reason is Unreachability.REFUSED
            peer.client.doubt()
            again = await peer.wait_for(Unreachable, 2)
            assert again.retry_in >= 0.2

    run(test())


def test_commands_from_within_an_event_are_carried_out_after_it() -> None:
    async def test() -> None:
        async with serving(PLAIN) as port, Peer(f"ws://127.0.0.1:{port}", BOB) as bob:
            order: list[str] = []
            client: MeetingClient

            def on_event(event: MeetingEvent) -> None:
                order.append(type(event).__name__)
                if isinstance(event, PeerPresent):
                    client.send(MAILBOX, b"the moment I saw you")
                if isinstance(event, Welcomed):
                    client.join(MAILBOX, ALICE)

            client = MeetingClient(f"ws://127.0.0.1:{port}", RendezvousClient(entropy=os.urandom), on_event)
            task = asyncio.create_task(client.run())
            assert (await bob.wait_for(BlobReceived)).payload == b"the moment I saw you"
            assert order[:4] == ["Connected", "Welcomed", "DaysChanged", "MailboxJoined"]
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    run(test())


# --- why the server cannot be reached


async def first_failure(url: str, ca_file: Path | None = None) -> Unreachable:
    async with Peer(url, ca_file=ca_file) as peer:
        return await peer.wait_for(Unreachable)


def test_a_server_of_another_authority_is_not_trusted_and_the_reason_is_said(
    authority: Authority, tmp_path: Path
) -> None:
    other, expired = issue_authority(tmp_path, "other"), issue_authority(tmp_path, "expired", days=-1)
    elsewhere = issue_authority(tmp_path, "elsewhere", host="192.0.2.1")

    async def test() -> None:
        for issuer, ca_file, sentence in (
            (authority, other.ca_file, "unable to get local issuer certificate"),
            (authority, None, "unable to get local issuer certificate"),
            (expired, expired.ca_file, "certificate has expired"),
            (elsewhere, elsewhere.ca_file, "IP address mismatch"),
        ):
            options = replace(PLAIN, certificate=issuer.certificate, private_key=issuer.key)
            async with serving(options) as port:
                failure = await first_failure(f"wss://127.0.0.1:{port}", ca_file)
            assert failure.reason is Unreachability.TLS_NOT_TRUSTED
            assert sentence in failure.detail

    run(test())


def test_a_server_without_tls_and_one_with_are_told_apart(authority: Authority) -> None:
    async def test() -> None:
        async with serving(PLAIN) as port:
            failure = await first_failure(f"wss://127.0.0.1:{port}")
            assert failure.reason is Unreachability.NOT_A_RENDEZVOUS
            assert "TLS" in failure.detail
        options = replace(PLAIN, certificate=authority.certificate, private_key=authority.key)
        async with serving(options) as port:
            assert (await first_failure(f"ws://127.0.0.1:{port}")).reason is Unreachability.NOT_A_RENDEZVOUS

    run(test())


def test_other_servers_are_recognised_as_such() -> None:
    async def echo(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async def chatter(connection: ServerConnection) -> None:
        await connection.send("hello there")
        await connection.wait_closed()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def complain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        writer.close()

    async def test() -> None:
        async with serve(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert (await first_failure(f"ws://127.0.0.1:{port}")).reason is Unreachability.NOT_A_RENDEZVOUS
        async with serve(
            echo, "127.0.0.1", 0, process_request=lambda connection, _: connection.respond(403, "no\n")
        ) as server:
            failure = await first_failure(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            assert (failure.reason, "403" in failure.detail) == (Unreachability.HTTP_STATUS, True)
        async with serve(chatter, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)]) as server:
            failure = await first_failure(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            assert failure.reason is Unreachability.PROTOCOL_FAULT
        for scheme, behaviour, reason in (
            ("ws", hang_up, Unreachability.NOT_A_RENDEZVOUS),
            ("wss", complain, Unreachability.TLS_FAILED),
        ):
            async with await asyncio.start_server(behaviour, "127.0.0.1", 0) as plain:
                failure = await first_failure(f"{scheme}://127.0.0.1:{plain.sockets[0].getsockname()[1]}")
            assert failure.reason is reason

    run(test())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("same_host", [True, False])
def test_nobody_is_sent_to_another_server(status: int, same_host: bool) -> None:
    visits: list[str] = []

    async def elsewhere(connection: ServerConnection) -> None:
        visits.append(str(connection.remote_address))

    async def test() -> None:
        async with serve(elsewhere, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)]) as other:
            there = f"ws://{'127.0.0.1' if same_host else 'localhost'}:{other.sockets[0].getsockname()[1]}/"

            def redirect(connection: ServerConnection, _: Request) -> Response:
                response = connection.respond(status, "over there\n")
                response.headers["Location"] = there
                return response

            async with serve(elsewhere, "127.0.0.1", 0, process_request=redirect) as server:
                failure = await first_failure(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert failure.reason is Unreachability.NOT_A_RENDEZVOUS
        assert str(status) in failure.detail

    run(test())
    assert visits == [], "our address is for the server that the profile names"


def test_a_name_that_does_not_exist_is_a_matter_of_dns() -> None:
    async def test() -> None:
        assert (await first_failure("wss://rendezvous.invalid")).reason is Unreachability.DNS

    run(test())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), Unreachability.TIMEOUT),
        (OSError(101, "Network is unreachable"), Unreachability.NO_ROUTE),
        (ConnectionResetError(), Unreachability.NOT_A_RENDEZVOUS),
        (EOFError(), Unreachability.NOT_A_RENDEZVOUS),
        (ssl.SSLError(1, "odd"), Unreachability.TLS_FAILED),
    ],
)
def test_every_other_failure_has_its_word(error: OSError | EOFError, reason: Unreachability) -> None:
    assert describe_failure(error)[0] is reason


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "wss://",
        "example.org",
        "wss://user@example.org",
        "wss://[2001:db8::1]/",
        "wss://a:99999",
        f"wss://{'a' * 64}.org",
    ],
)
def test_a_url_that_can_never_work_is_refused_at_once(url: str) -> None:
    with pytest.raises(MeetingConfigError):
        MeetingClient(url, RendezvousClient(entropy=os.urandom), print)


def test_a_ca_file_that_can_never_work_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(MeetingConfigError, match=name):
            MeetingClient("wss://h", RendezvousClient(entropy=os.urandom), print, ca_file=tmp_path / name)
