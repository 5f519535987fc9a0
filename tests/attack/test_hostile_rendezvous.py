"""A rendezvous server that lies: about the day, the clock and the address it saw. It may be useless, never harmful."""

from __future__ import annotations

import asyncio
import itertools
import random
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from grepunch.meetings import BLOBS, INITIATION_COST, Meetings, Member
from grepunch.punch.plan import START_LIMIT, acceptable_start, propose_start
from grepunch.rendezvous.client import TEXTS, RendezvousClient
from grepunch.rendezvous.events import BlobReceived, ServerFault
from grepunch.rendezvous.messages import Absent, Hello, Joined, Present, build_text
from grepunch.rendezvous.schedule import DayClock
from grepunch.secure.derive import mailbox_id
from grepunch.secure.handshake import MessageType
from grepunch.signalling.messages import parse
from pptp.errors import Drop
from tests.attack.hostile import HERE, SEED, Siege

THIRD = IPv4Address("198.51.100.99")  # a host that has nothing to do with it

EXTREME_DAYS = (0, 1, 2**31 - 1)
EXTREME_SECONDS = (1, 3599, 3600, 3601, 43_200, 82_799, 82_800, 82_801, 86_400)


@pytest.mark.parametrize(("day", "seconds"), list(itertools.product(EXTREME_DAYS, EXTREME_SECONDS)))
def test_every_day_a_server_can_name_has_a_mailbox(day: int, seconds: int) -> None:
    clock = DayClock(day, seconds, 0.0)
    for later in (0.0, seconds - 0.5, seconds + 0.5):
        assert all(len(mailbox_id(bytes(32), named)) == 16 for named in clock.days(later))


def joined(siege: Siege) -> Meetings:
    """The victim at a server that has greeted it and said that the peer is there. Needs a running loop."""
    meetings = Meetings(
        ["ws://127.0.0.1:9"],
        [Member("attacker", siege.machine, bytes(32))],
        own_public_key=siege.victim.public_key,
        ca_file=None,
        entropy=random.Random(SEED).randbytes,
        now=lambda: siege.now,
        on_change=lambda name: None,
        on_relayed=lambda name, frame: None,
        on_notice=lambda text, peer: None,
    )
    server = meetings.servers[0]
    server.machine.connected(siege.now)
    server.machine.receive(build_text(Hello(bytes(16), 0, 86_400, None)), siege.now)
    assert server.client is not None
    server.client._flush()  # a runner would have called it; an exception here ends the endpoint
    return meetings


def test_a_greeting_from_the_first_day_of_time_harms_nobody() -> None:
    async def greet() -> None:
        assert joined(Siege()).servers[0].mailboxes

    asyncio.run(greet())


def test_what_a_lying_echo_says_makes_one_round_and_only_where_it_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[IPv4Address, ...]] = [(HERE,), (HERE, THIRD), (HERE, THIRD), ()]

    async def gre_sources(url: str, *, ca_file: Path | None) -> tuple[IPv4Address, ...]:
        return told.pop(0)

    async def learn() -> list[int]:
        siege = Siege()
        rounds: list[float] = []
        siege.machine.network_changed = rounds.append  # type: ignore[method-assign, assignment]
        meetings = joined(siege)
        server = meetings.servers[0]
        server.external = HERE
        meetings._members["attacker"].server = server
        counts = []
        while told:
            await meetings._learn_sources(server)
            counts.append(len(rounds))
        return counts

    monkeypatch.setattr("grepunch.meetings.gre_sources", gre_sources)
    assert asyncio.run(learn()) == [0, 1, 1, 2]


class Timid(Siege):
    """Counts what its machine has to look at."""

    looked_at = 0

    def watch(self) -> None:
        take = self.machine.receive_blob

        def receive_blob(blob: bytes, now: float) -> None:
            self.looked_at += 1
            take(blob, now)

        self.machine.receive_blob = receive_blob  # type: ignore[method-assign]


@pytest.mark.parametrize(("kind", "cost"), [(MessageType.INITIATION, INITIATION_COST), (MessageType.RESPONSE, 1.0)])
def test_blobs_are_looked_at_as_far_as_there_is_time(kind: MessageType, cost: float) -> None:
    async def flood() -> None:
        siege = Timid()
        siege.watch()
        server = joined(siege).servers[0]
        server.machine._clock.offset = 0.0  # as if it had been measured
        (mailbox,) = list(server.mailboxes)[:1]
        blob = bytes([kind]) + siege.rng.randbytes(60)
        rate, burst = BLOBS
        began = siege.now
        for _ in range(int(3 * burst)):
            siege.now += 1 / (4 * rate)
            server.client._on_event(BlobReceived(mailbox, blob))  # type: ignore[union-attr]
        assert burst / cost <= siege.looked_at <= (burst + rate * (siege.now - began)) / cost
        assert server.drops[Drop.RATE_LIMITED] == 3 * burst - siege.looked_at

    asyncio.run(flood())


def test_a_server_that_never_stops_talking_is_left() -> None:
    machine = RendezvousClient(entropy=random.Random(SEED).randbytes)
    machine.connected(0.0)
    machine.receive(build_text(Hello(bytes(16), 0, 86_400, None)), 0.0)
    machine.events()
    rate, burst = TEXTS
    for number in range(2 * int(burst)):
        machine.receive(build_text(Absent(1)), number / (4 * rate))
    assert [type(event) for event in machine.events()] == [ServerFault]


def test_a_server_that_has_much_to_say_at_the_beginning_is_heard() -> None:
    machine = RendezvousClient(entropy=random.Random(SEED).randbytes)
    machine.connected(0.0)
    machine.receive(build_text(Hello(bytes(16), 0, 86_400, None)), 0.0)
    machine.events()
    for number in range(1024):
        machine.join(number.to_bytes(16), bytes(16), 0.0)
    for number in range(1, 1025):
        machine.receive(build_text(Joined(number)), 0.0)
        machine.receive(build_text(Present(number, 1)), 0.0)
    assert not any(isinstance(event, ServerFault) for event in machine.events())


@pytest.mark.parametrize("rtt", [0.0, 60.0, 5000.0, 1e9])
def test_a_clock_held_back_for_hours_is_told_as_far_as_the_field_goes(rtt: float) -> None:
    siege = Siege()
    siege.clock.rtt = rtt
    siege.handshake()
    candidates = [parse(body[12:]) for protocol, body in siege.heard if protocol == 0x005B and len(body) > 12]
    assert candidates, f"nothing was said, seed {SEED}"


@pytest.mark.parametrize("peer_rtt", [0.0, 4294.0])
@pytest.mark.parametrize("own_rtt", [0.0, 1e6])
def test_nobody_s_round_trip_puts_a_start_off_for_hours(own_rtt: float, peer_rtt: float) -> None:
    start = propose_start(1000.0, own_rtt, peer_rtt)
    assert 1000.0 < start <= 1000.0 + START_LIMIT
    assert acceptable_start(start, 1000.0)
