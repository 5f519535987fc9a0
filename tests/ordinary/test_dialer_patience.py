"""How often a dialler tries and how long it waits in between: no socket, no device, and pauses only counted."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from ipaddress import IPv4Address
from types import TracebackType

import pytest

from grepunch.io.streams import ConnectFailed, Ends
from grepunch.options import EndpointOptions, Role
from grepunch.ordinary import dialer
from grepunch.ordinary.dialer import FIRST_PAUSE, LONGEST_PAUSE, OrdinaryDialer, own_route
from grepunch.progress import Notice
from grepunch.recording import Recording
from grepunch.verdict import Failure, Verdict, VerdictKind
from tests.config.ordinary_profiles import CLIENT
from tests.config.profiles import read
from tests.ordinary.server_world import FakeStream, Heard


class FakeDevice:
    """A descriptor that never becomes readable, as the raw socket and the TUN device."""

    name = "pptp-cli"

    def __init__(self, *_: object) -> None:
        self._ends = os.pipe()
        self.drops: Counter[str] = Counter()

    def fileno(self) -> int:
        return self._ends[0]

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


class FakeInterface:
    """The device with its configuration."""

    def __init__(self, *_: object) -> None:
        self.device = FakeDevice()

    def __enter__(self) -> FakeInterface:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self.device.close()


class Network:
    """What answers: nobody, or a server at an address."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried = 0
        self.pauses: list[float] = []
        self.give_up_after = 10**6
        self.address: IPv4Address | None = None
        monkeypatch.setattr(dialer, "CallGre", FakeDevice)
        monkeypatch.setattr(dialer, "CallInterface", FakeInterface)
        monkeypatch.setattr(dialer, "connect", self.connect)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def connect(self, host: str, port: int, opened: object, *, within: float) -> object:
        self.tried += 1
        if self.tried > self.give_up_after:
            raise asyncio.CancelledError
        if self.address is None:
            raise ConnectFailed(f"TCP port {port} of {host}: connection refused")
        assert callable(opened)
        return opened(FakeStream(Ends(IPv4Address("192.0.2.1"), self.address, port)))

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


def run(retry: int | None, heard: Heard) -> Verdict:
    async def work() -> Verdict:
        options = EndpointOptions(Role.DIAL, retry=retry)
        return await OrdinaryDialer(read(CLIENT), "secret", options, heard, Recording(None, None)).run()

    return asyncio.run(work())


def test_one_failure_is_the_verdict_where_no_retry_is_wanted(network: Network) -> None:
    verdict = run(0, Heard())
    assert verdict.kind is VerdictKind.PEER_ABSENT
    assert "connection refused" in verdict.detail
    assert "TCP 1723" in verdict.try_next
    assert (network.tried, network.pauses) == (1, [])


def test_so_many_retries_with_pauses_that_grow_to_a_minute(network: Network) -> None:
    heard = Heard()
    assert run(9, heard).kind is VerdictKind.PEER_ABSENT
    assert network.tried == 10
    for pause, longest in zip(network.pauses, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert 0.8 * longest <= pause <= longest
    said = [event.text for event in heard.told if isinstance(event, Notice) and "trying again" in event.text]
    assert len(said) == 9
    assert (FIRST_PAUSE, LONGEST_PAUSE) == (1.0, 60.0)


def test_for_ever_is_until_it_is_ended(network: Network) -> None:
    network.give_up_after = 200
    with pytest.raises(asyncio.CancelledError):
        run(None, Heard())
    assert network.tried == 201


def test_a_route_that_holds_the_server_ends_it(network: Network) -> None:
    network.address = IPv4Address("192.168.10.7")
    with pytest.raises(Failure) as raised:
        run(None, Heard())
    assert raised.value.verdict.kind is VerdictKind.PROFILE_INVALID
    assert "its own tunnel" in raised.value.verdict.detail


@pytest.mark.parametrize(
    ("kind", "retry", "retries", "again"),
    [
        (VerdictKind.AUTH_FAILED, 5, 0, False),
        (VerdictKind.AUTH_FAILED, None, 1000, True),
        (VerdictKind.NOT_AGREED, None, 0, False),
        (VerdictKind.LINK_LOST, 2, 1, True),
        (VerdictKind.LINK_LOST, 2, 2, False),
        (VerdictKind.NO_GRE_FROM_PEER, None, 1000, True),
        (VerdictKind.POOL_EXHAUSTED, 1, 0, True),
    ],
)
def test_what_is_worth_another_try(
    network: Network, kind: VerdictKind, retry: int | None, retries: int, again: bool
) -> None:
    async def work() -> bool:
        options = EndpointOptions(Role.DIAL, retry=retry)
        dialling = OrdinaryDialer(read(CLIENT), "secret", options, Heard(), Recording(None, None))
        dialling._interface.device.close()
        return dialling._may_retry(Verdict(kind), retries)

    assert asyncio.run(work()) is again


@pytest.mark.parametrize(
    ("inside", "address", "routed"),
    [
        ("10.77.0.1", None, True),
        ("100.64.0.1", None, True),
        ("10.77.0.1", "10.77.0.5/24", False),
        ("10.78.0.1", "10.77.0.5/24", True),
        ("192.168.1.1", None, False),
        ("8.8.8.8", None, False),
        (str(IPv4Address(0)), None, False),
        ("10.0.0.53", None, False),
    ],
    ids=["private", "shared", "covered", "beside", "the server itself", "somebody else's", "not told", "our resolver"],
)
def test_a_server_chooses_no_route_but_to_itself(
    monkeypatch: pytest.MonkeyPatch, inside: str, address: str | None, routed: bool
) -> None:
    monkeypatch.setattr(dialer, "resolvers", lambda: frozenset({IPv4Address("10.0.0.53")}))
    text = CLIENT if address is None else CLIENT.replace("[server]", f'address = "{address}"\n[server]')
    routes = own_route(IPv4Address(inside), IPv4Address("192.168.1.1"), read(text))
    assert [str(route) for route in routes] == ([f"{inside}/32"] if routed else [])
