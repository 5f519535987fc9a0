"""A probe's questions and what it makes of the answers, against a NAT that is a function; no time passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from grepunch import probing
from grepunch.io.echo_client import NoEchoServer
from grepunch.nat.messages import CallSeen, Cookie, Seen
from grepunch.nat.packets import COOKIE_SIZE, OVERHEAD, EchoPacket
from grepunch.nat.report import Alg, ProbeReport
from grepunch.probing import SIZES, Prober, Question

SERVER, ADDRESS, POOL = (IPv4Address(text) for text in ("192.0.2.10", "198.51.100.7", "198.51.100.8"))
PORT = 40000
REWRITTEN = 1723


@dataclass
class Nat:
    """The server behind a NAT: ``leaves`` and ``returns`` say what passes, by packet and whether a call was made."""

    leaves: Callable[[EchoPacket, bool], bool] = lambda packet, called: True
    returns: Callable[[EchoPacket, bool], bool] = lambda packet, called: True
    source: IPv4Address = ADDRESS
    port: int = PORT
    calls: bool = True
    rewrites: bool = False
    forgets_after: tuple[int, int] = (30, 180)
    prober: Prober | None = None
    server: IPv4Address = SERVER
    local_port: int = PORT
    called: bool = False
    cookies: int = 0

    def greet(self) -> None:
        assert self.prober is not None
        self.cookies += 1
        self.prober.on_text(Cookie(bytes([self.cookies] * COOKIE_SIZE), ADDRESS, self.port))

    def send(self, packet: EchoPacket) -> bool:
        assert self.prober is not None
        if self.leaves(packet, self.called):
            answered = self.source == ADDRESS
            seen = Seen(packet.test, packet.sequence, self.source, packet.version, packet.call_id, answered)
            self.prober.on_text(seen)
            timer = self.forgets_after[packet.sequence < 100 and self.replied]
            if answered and self.returns(packet, self.called) and packet.delay < timer:
                self.replied = packet.sequence >= 100
                self.prober.on_packet(packet.answered())
        return True

    replied = False

    async def ask_for_cookie(self) -> None:
        self.greet()

    async def call(self, identifier: int, call_id: int) -> tuple[int, int] | None:
        assert self.prober is not None
        if not self.calls:
            return None
        self.called = True
        self.prober.on_text(CallSeen(REWRITTEN if self.rewrites else call_id, 9))
        return 9, call_id


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GAP", "PATIENCE", "GREETING"):
        monkeypatch.setattr(probing, name, 0.02 if name == "PATIENCE" else 0.0 if name == "GAP" else 0.1)


def ask(nat: Nat, **options: object) -> ProbeReport:
    async def run() -> ProbeReport:
        nat.prober = Prober(lambda text: None)
        nat.greet()
        return await nat.prober.run(nat, **options)  # type: ignore[arg-type]

    return asyncio.run(run())


def zero(packet: EchoPacket) -> bool:
    return packet.version == 0 or packet.call_id == packet.answer_call_id == 0


def test_a_nat_that_passes_everything() -> None:
    report = ask(Nat())
    assert (report.v0, report.v1_zero, report.v1_equal, report.v1_different, report.v1_called) == (True,) * 5
    assert report.port_preserved
    assert report.alg is Alg.NOT_NEEDED
    assert report.mtu == max(SIZES)
    assert (report.gre_address, report.pooled) == (ADDRESS, False)


def test_netfilter_with_and_without_a_helper() -> None:
    plain = ask(Nat(returns=lambda packet, called: zero(packet)))
    assert (plain.v0, plain.v1_zero, plain.v1_equal, plain.v1_called, plain.alg) == (True, True, False, False, Alg.NONE)
    helped = Nat(
        returns=lambda packet, called: zero(packet) or (called and packet.test == Question.CALLED), rewrites=True
    )
    report = ask(helped)
    assert (report.v1_called, report.alg, report.call_id_rewritten) == (True, Alg.OPENS, True)


def test_a_box_that_wants_a_call_first() -> None:
    report = ask(Nat(leaves=lambda packet, called: packet.test == Question.CALLED))
    assert (report.v0, report.v1_zero, report.v1_called, report.alg) == (False, False, True, Alg.MANDATORY)
    assert report.mtu is None, "not tested"


def test_no_way_out_and_no_way_back() -> None:
    out = ask(Nat(leaves=lambda packet, called: False))
    assert (out.outward, out.inward, out.gre_address) == (False, None, None)
    back = ask(Nat(returns=lambda packet, called: False))
    assert (back.outward, back.inward) == (True, False)


def test_a_pool_of_addresses_leaves_open_what_the_server_does_not_answer() -> None:
    report = ask(Nat(source=POOL))
    assert (report.v0, report.v1_zero, report.inward) == (None, None, None)
    assert report.pooled
    assert report.gre_address == POOL


def test_what_cannot_be_tried_is_not_tested() -> None:
    report = ask(Nat(calls=False, port=0))
    assert (report.pptp_control, report.v1_called, report.alg, report.port_preserved) == (False, None, None, None)
    assert report.call_id_rewritten is None


def test_the_first_packet_alone_is_not_enough() -> None:
    report = ask(Nat(returns=lambda packet, called: packet.sequence == 0))
    assert report.v0 is False
    assert report.inward is True


def test_a_server_that_goes_away_in_the_middle_is_not_taken_for_a_nat() -> None:
    class Gone(Nat):
        async def ask_for_cookie(self) -> None:
            """Nobody hears it."""

    with pytest.raises(NoEchoServer, match="fell silent"):
        ask(Gone(leaves=lambda packet, called: packet.test == Question.V0, calls=False))
    with pytest.raises(NoEchoServer, match="fell silent"):
        ask(Gone(leaves=lambda packet, called: False))


def test_the_largest_packet_that_comes_back() -> None:
    def fits(packet: EchoPacket, called: bool) -> bool:
        return packet.padding + OVERHEAD[packet.version] <= 1450

    assert ask(Nat(returns=fits)).mtu == 1430
    assert ask(Nat(leaves=lambda packet, called: packet.version == 0 and fits(packet, called))).mtu == 1430


def test_timers_are_told_as_between_two_silences(monkeypatch: pytest.MonkeyPatch) -> None:
    async def asleep(seconds: float) -> None:
        del seconds

    monkeypatch.setattr(asyncio, "sleep", asleep)
    real = Prober._until

    async def until(self: Prober, done: Callable[[], bool], seconds: float) -> bool:
        return await real(self, done, min(seconds, 0.02))

    monkeypatch.setattr(Prober, "_until", until)
    report = ask(Nat(forgets_after=(30, 180)), timers=True)
    assert (report.timer_unreplied, report.timer_replied) == ((20, 35), (120, 200))
    assert ask(Nat(forgets_after=(1, 300)), timers=True).timer_unreplied == (0, 2)
    assert ask(Nat(forgets_after=(90, 300)), timers=True).timer_replied == (200, None)


def test_a_server_that_hands_out_no_cookie() -> None:
    async def run() -> None:
        nat = Nat(prober=Prober(lambda text: None))
        assert nat.prober is not None
        await nat.prober.run(nat)

    with pytest.raises(NoEchoServer, match="no cookie"):
        asyncio.run(run())
