"""The ordinary server with real clients over fake streams: addresses, policies, and nothing left when they are gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP

from grepunch.ordinary.terms import link_local
from grepunch.progress import SessionDown, SessionUp
from pptp.errors import Drop, TerminationCause
from pptp.ordinary import Ipv6Up, NetworkDown
from pptp.wire.ppp import Protocol as PppProtocol
from tests.ordinary.server_world import Client, World

RANDOM_CUTS = 300
AT_ONCE = 50


def run(work: Callable[[World], Awaitable[None]], directory: Path, *overrides: str) -> None:
    async def whole() -> None:
        await work(World(directory, *overrides))

    asyncio.run(whole())


def down(world: World) -> list[SessionDown]:
    return [event for event in world.heard.told if isinstance(event, SessionDown)]


def test_a_client_gets_its_address_and_leaves_nothing(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        client = world.dial()
        up = await client.come_up()
        assert (str(up.local), str(up.remote)) == ("10.77.0.2", "10.77.0.1")
        assert [str(server) for server in up.dns] == ["10.77.0.1", "9.9.9.9"]
        (told,) = [event for event in world.heard.told if isinstance(event, SessionUp)]
        assert (told.peer, told.authentication, told.encryption) == ("alice", "mschapv2", "mppe128 stateless")
        assert told.mtu == 1300, "what the device carries, where the peer would take more"
        client.hang_up()
        await client.end()
        assert world.leftovers() == {}
        (ended,) = down(world)
        assert (ended.cause, ended.was_up, ended.windows_error) == ("peer_request", True, None)

    run(work, tmp_path)


def test_a_user_with_an_address_of_her_own_is_routed_to(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        client = world.dial("bob")
        assert str((await client.come_up()).local) == "10.99.0.9"
        assert world.tun.routes == [IPv4Network("10.99.0.9/32")]
        client.stream.abort()
        assert world.leftovers() == {}

    run(work, tmp_path)


def test_windows_gets_its_routes_by_dhcpinform(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        client = world.dial()
        up = await client.come_up()
        question = (
            IP(src=str(up.local), dst="255.255.255.255")
            / UDP(sport=68, dport=67)
            / BOOTP(op=1, htype=8, ciaddr=str(up.local), xid=7)
            / DHCP(options=[("message-type", "inform"), "end"])
        )
        client.tun.waiting = [bytes(question)]
        client.pump.tun_readable()
        async with asyncio.timeout(30):
            while not client.tun.written:  # noqa: ASYNC110  the fakes are moved by the loop itself
                await asyncio.sleep(0)
        answer = IP(client.tun.written[0])
        assert (answer.src, answer.dst, answer[BOOTP].xid) == ("10.77.0.1", str(up.local), 7)
        for code in (121, 249):
            assert bytes((code, 8)) + bytes.fromhex("18c0a80a0a4d0001") in bytes(answer[DHCP])
        assert world.tun.written == []

    run(work, tmp_path)


def test_nobody_gets_the_ipv6_address_of_another(tmp_path: Path) -> None:
    identifier = bytes(7) + b"\x09"
    wanted = b"\xfe\x80" + bytes(6) + identifier

    async def work(world: World) -> None:
        first = world.dial("alice", source=1, identifier=identifier)
        await first.until(lambda: first.up_v6 is not None and wanted in world.table.by_address)
        owner = world.table.by_address[wanted]
        thief = world.dial("carol", source=2, identifier=identifier)
        await thief.until(lambda: thief.up is not None and thief.up_v6 is not None)
        assert world.table.by_address[wanted] is owner
        (other,) = [call for call in world.table.calls.values() if call is not owner]
        assert wanted not in (other.sources or ())
        assert not other.ipv6
        for client in (thief, first):
            client.stream.abort()
        assert world.leftovers() == {}

    run(work, tmp_path)


def test_an_address_that_was_given_up_is_no_longer_sent_from(tmp_path: Path) -> None:
    """A client may negotiate IPv6 as often as it likes: what it was called before may be another's by now."""

    async def work(world: World) -> None:
        client = world.dial("alice", identifier=bytes(7) + b"\x09")
        await client.until(lambda: client.up_v6 is not None and client.up is not None)
        (call,) = world.table.calls.values()
        for number in range(10, 30):
            connection, local = call.connection, bytes(7) + b"\x01"
            world.server.happened(connection, NetworkDown(call.call_id, PppProtocol.IPV6))
            assert [address for address in call.sources or () if len(address) == 16] == []
            world.server.happened(connection, Ipv6Up(call.call_id, local, bytes(7) + bytes((number,)), 1300))
            world.server.happened(connection, Ipv6Up(call.call_id, local, bytes(7) + bytes((number,)), 1304))
        assert call.sources is not None
        assert len(call.sources) == len(call.destinations) == 2, "one of either family"
        old = b"\x60" + bytes(5) + b"\x3b\x40" + link_local(bytes(7) + b"\x09") + bytes(16)
        world.pump.deliver(call, PppProtocol.IPV6, old, 1.0)
        assert world.tun.written == []
        assert call.drops[Drop.NOT_ALLOWED] == 1
        client.stream.abort()
        assert world.leftovers() == {}

    run(work, tmp_path)


@pytest.mark.parametrize(
    ("policy", "cause"),
    [("replace", TerminationCause.PEER_REQUEST), ("deny", None), ("allow", None)],
)
def test_policies(tmp_path: Path, policy: str, cause: TerminationCause | None) -> None:
    async def work(world: World) -> None:
        first, second = world.dial(source=1), None
        address = (await first.come_up()).local
        second = world.dial(source=2)
        if policy == "deny":
            await second.end()
            assert second.cause is not None
            assert "limit_reached" in second.cause.detail
            assert first.cause is None
        else:
            other = (await second.come_up()).local
            assert (other == address) is (policy == "replace")
            if policy == "replace":
                await first.end()
            assert (first.cause is not None) is (policy == "replace")
        for client in (first, second):
            client.stream.abort()
        assert world.leftovers() == {}
        if cause is not None:
            assert any(event.cause == "replaced" for event in down(world))

    run(work, tmp_path, f"auth.session_policy={policy}")


def test_the_pool_is_never_overdrawn(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        clients: list[Client] = []
        for source in range(1, 4):
            clients.append(world.dial(source=source))
        for client in clients:
            await client.until(lambda c=client: c.up is not None or c.stream.closed)  # type: ignore[misc]
        assert sorted(client.up is not None for client in clients) == [False, False, True]
        refused = [event for event in down(world) if event.cause == "pool_exhausted"]
        assert [event.windows_error for event in refused] == [720, 720]
        for client in clients:
            client.stream.abort()
        assert world.leftovers() == {}

    run(work, tmp_path, "interface.pool=10.77.0.0/30", "auth.session_policy=allow")


def test_too_many_connections_of_one_source_and_wrong_passwords_are_turned_away(tmp_path: Path) -> None:
    async def work(world: World) -> None:
        for _ in range(10):
            client = world.dial(password="wrong")
            await client.end()
            assert client.cause is not None
            assert client.cause.cause is TerminationCause.AUTHENTICATION
        assert {event.windows_error for event in down(world)} == {691}
        assert world.dial().server_stream.user is None, "who fails so often waits"
        assert world.dial(source=2).server_stream.user is not None
        world.clients[IPv4Address("198.51.100.2")].stream.abort()
        assert world.leftovers() == {}

    run(work, tmp_path)


def test_tcp_cut_at_every_octet_of_the_handshake_leaves_nothing(tmp_path: Path) -> None:
    """The client says 156 + 168 octets, the server 156 + 32."""

    async def work(world: World) -> None:
        for side, octets in (("stream", 324), ("server_stream", 188)):
            for budget in range(1, octets + 1):
                client = world.dial("carol")
                getattr(client, side).budget = budget
                await client.end()
                assert world.leftovers() == {}, (side, budget)

    run(work, tmp_path)


def test_sessions_cut_at_random_points_leave_nothing(tmp_path: Path) -> None:
    rng = random.Random(1723)

    async def one(world: World, number: int) -> None:
        client = world.dial(rng.choice(("alice", "bob", "carol")), source=1 + number)
        client.gre_budget = rng.randrange(20)
        await client.until(lambda: client.stream.closed or client.up is not None)
        client.stream.abort()

    async def work(world: World) -> None:
        for _ in range(RANDOM_CUTS // AT_ONCE):
            await asyncio.gather(*(one(world, number) for number in range(AT_ONCE)))
            assert world.leftovers() == {}

    run(work, tmp_path, "auth.session_policy=replace", "listen.max_sessions=100")
