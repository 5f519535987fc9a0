"""`probe`: asks a GRE echo server, packet by packet, what the NATs on the way do with GRE.

Tests that a NAT might take for one flow go one after the other; those with Call IDs of their own go together. Each
sends a few packets, a tenth of a second apart, and waits a second for what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from grepunch.io.clock import entropy
from grepunch.io.echo_client import EchoClient, NoEchoServer
from grepunch.nat.messages import CallSeen, Cookie, Seen, Text
from grepunch.nat.packets import OVERHEAD, EchoPacket, cookie_identifier
from grepunch.nat.report import ENOUGH, PACKETS, ProbeReport, Tally

# ours
GAP = 0.1  # seconds between two packets of a test
PATIENCE = 1.2  # seconds for the last answer
GREETING = 5.0  # seconds for the server's cookie
SIZES = (1500, 1476, 1460, 1430, 1400, 1360, 1280, 1200)  # octets of outer packets
UNREPLIED_STEPS = (65, 35, 20, 10, 5, 2)  # seconds of silence, longest first: a flow that has answered lives on
REPLIED_STEPS = (200, 120, 65, 35, 20, 10, 5)


class Question(IntEnum):
    """What a packet asks; its number travels in it."""

    V0 = 1
    ZERO = 2
    EQUAL = 3
    DIFFERENT = 4
    CALLED = 5
    SIZE = 6
    TIMER = 7


class Asker(Protocol):
    """What the prober needs of its connections; :class:`~grepunch.io.echo_client.EchoClient` is one."""

    server: IPv4Address
    local_port: int

    def send(self, packet: EchoPacket) -> bool:
        """Send a packet."""

    async def ask_for_cookie(self) -> None:
        """Have the server hand out another cookie."""

    async def call(self, identifier: int, call_id: int) -> tuple[int, int] | None:
        """Place a PPTP call."""


class Prober:
    """One probe, from the greeting to the report."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._cookie: Cookie | None = None
        self._call: CallSeen | None = None
        self._tallies = {test: Tally() for test in Question}
        self._news = asyncio.Event()

    def on_text(self, text: Text) -> None:
        """The server says something."""
        match text:
            case Cookie():
                self._cookie = text
            case CallSeen():
                self._call = text
            case Seen() if text.test in self._tallies:
                tally = self._tallies[Question(text.test)]
                tally.seen.add(text.sequence)
                tally.sources.add(text.source)
        self._news.set()

    def on_packet(self, packet: EchoPacket) -> None:
        """An answer came by GRE."""
        if packet.test in self._tallies:
            self._tallies[Question(packet.test)].answers.add(packet.sequence)
            self._news.set()

    async def run(
        self,
        asker: Asker,
        *,
        timers: bool = False,
        unreplied: Sequence[int] = UNREPLIED_STEPS,
        replied: Sequence[int] = REPLIED_STEPS,
    ) -> ProbeReport:
        """All tests; raises :class:`NoEchoServer` where the server hands out no cookie, or is not there to the end."""
        if not await self._until(lambda: self._cookie is not None, GREETING) or self._cookie is None:
            raise NoEchoServer("the server hands out no cookie: too many probe from here, or it is full")
        first = self._cookie
        port_kept = first.port == asker.local_port if first.port else None
        self._told("GRE version 0")
        await self._test(asker, self._packet(Question.V0, 0))
        self._told("GRE version 1, Call ID 0")
        await self._test(asker, self._packet(Question.ZERO, 1))
        self._told("Call IDs, without a call and with one")
        identifiers = [int.from_bytes(entropy(2)) | 1 for _ in range(3)]
        placed, *_ = await asyncio.gather(
            self._called(asker, identifiers[2]),
            self._test(asker, self._packet(Question.EQUAL, 1, identifiers[0], identifiers[0])),
            self._test(asker, self._packet(Question.DIFFERENT, 1, identifiers[1], identifiers[1] ^ 0x5A5A)),
        )
        report = self._judge(asker.server, first.address, port_kept, placed, identifiers[2])
        working = 1 if report.v1_zero else 0 if report.v0 else None
        if working is not None:
            self._told("packet sizes")
            report = replace(report, mtu=await self._sizes(asker, working))
        if not await self._renewed(asker):  # or its silence would be taken for that of a NAT
            raise NoEchoServer(
                "the server fell silent during the tests, so they tell nothing", "Ask it, or another, anew."
            )
        if timers and working is not None:
            report = replace(report, timer_unreplied=await self._timer(asker, working, unreplied, answered=False))
            report = replace(report, timer_replied=await self._timer(asker, working, replied, answered=True))
        return report

    def _judge(
        self, server: IPv4Address, address: IPv4Address, port_kept: bool | None, placed: bool, call_id: int
    ) -> ProbeReport:
        tallies = self._tallies
        passed = {test: tally.passed(address) for test, tally in tallies.items()}
        sources = set().union(*(tally.sources for tally in tallies.values()))
        seen = any(tally.seen for tally in tallies.values())
        answered = any(tally.answers for tally in tallies.values())
        return ProbeReport(
            server=server,
            address=address,
            port_preserved=port_kept,
            v0=passed[Question.V0],
            v1_zero=passed[Question.ZERO],
            v1_equal=passed[Question.EQUAL],
            v1_different=passed[Question.DIFFERENT],
            v1_called=passed[Question.CALLED],
            pptp_control=placed,
            call_id_rewritten=self._call.call_id != call_id if self._call is not None else None,
            gre_address=next(iter(sources)) if len(sources) == 1 else None,
            outward=seen,
            inward=True if answered else None if not seen or sources - {address} else False,
        )

    # -- the tests --------------------------------------------------------------------------------------------

    async def _test(self, asker: Asker, packet: EchoPacket) -> None:
        """Send the packets of one test, and wait for their answers."""
        tally = self._tallies[Question(packet.test)]
        for sequence in range(PACKETS):
            asker.send(replace(packet, sequence=sequence))
            tally.sent += 1
            await asyncio.sleep(GAP)
        await self._until(lambda: len(tally.answers) >= ENOUGH, PATIENCE)

    async def _called(self, asker: Asker, call_id: int) -> bool:
        """Make a PPTP call, then send with its Call IDs; whether it could be made."""
        cookie = self._cookie
        placed = await asker.call(cookie_identifier(cookie.cookie), call_id) if cookie is not None else None
        if placed is None or not await self._until(lambda: self._call is not None, PATIENCE) or self._call is None:
            return False
        await self._test(asker, self._packet(Question.CALLED, 1, placed[0], self._call.call_id))
        return True

    async def _sizes(self, asker: Asker, version: int) -> int | None:
        """The largest outer packet that comes back."""
        tally = self._tallies[Question.SIZE]
        for _ in range(2):
            for number, size in enumerate(SIZES):
                packet = self._packet(Question.SIZE, version)
                asker.send(replace(packet, sequence=number, padding=size - OVERHEAD[version]))
            await self._until(lambda: 0 in tally.answers, PATIENCE)
        return max((SIZES[number] for number in tally.answers if number < len(SIZES)), default=None)

    async def _timer(
        self, asker: Asker, version: int, steps: Sequence[int], *, answered: bool
    ) -> tuple[int, int | None] | None:
        """How long the NAT remembers a flow: silence of each length, longest first, then a packet of the server's."""
        tally, shorter_than = self._tallies[Question.TIMER], None
        for number, seconds in enumerate(steps):
            self._told(f"{seconds} s of silence after {'an answer' if answered else 'a packet without one'}")
            if not answered and number == 0:
                await asyncio.sleep(steps[0] * 3)  # what the other tests have opened has to be forgotten first
            if not await self._renewed(asker):
                return None
            tally.answers.clear()
            if answered:
                asker.send(replace(self._packet(Question.TIMER, version), sequence=100 + number))
                if not await self._until(lambda: 100 + number in tally.answers, PATIENCE):  # noqa: B023  awaited here
                    return None
            asker.send(replace(self._packet(Question.TIMER, version), sequence=number, delay=seconds))
            if await self._until(lambda: number in tally.answers, seconds + PATIENCE):  # noqa: B023  awaited here
                return seconds, shorter_than
            shorter_than = seconds
        return 0, shorter_than

    async def _renewed(self, asker: Asker) -> bool:
        """Have a cookie that has just been handed out."""
        before = self._cookie
        await asker.ask_for_cookie()
        return await self._until(lambda: self._cookie is not before, GREETING)

    # -- small change -----------------------------------------------------------------------------------------

    def _packet(self, test: Question, version: int, call_id: int = 0, answer_call_id: int = 0) -> EchoPacket:
        cookie = self._cookie.cookie if self._cookie is not None else b""
        return EchoPacket(version, call_id, cookie, test, 0, answer_call_id=answer_call_id)

    async def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait for news until ``done``, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True


async def probe(url: str, *, ca_file: Path | None, timers: bool, told: Callable[[str], None]) -> ProbeReport:
    """Probe with the server at ``url``; raises :class:`NoEchoServer` and
    :class:`~grepunch.io.errors.NoPrivilege`."""
    prober = Prober(told)
    async with EchoClient(url, ca_file=ca_file, on_text=prober.on_text, on_packet=prober.on_packet) as asker:
        return await prober.run(asker, timers=timers)
