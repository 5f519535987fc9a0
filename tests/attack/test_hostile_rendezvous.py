"""A rendezvous server that lies: about the day, the clock and the address it saw. It may be useless, never harmful."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from grepunch.meetings import Meetings, Member
from grepunch.punch.plan import START_LIMIT, acceptable_start, propose_start
from grepunch.rendezvous.messages import Hello, build_text
from grepunch.rendezvous.schedule import DayClock
from grepunch.secure.derive import mailbox_id
from grepunch.signalling.messages import parse
from tests.attack.hostile import SEED, Siege

EXTREME_DAYS = (0, 1, 2**31 - 1)
EXTREME_SECONDS = (1, 3599, 3600, 3601, 43_200, 82_799, 82_800, 82_801, 86_400)


@pytest.mark.parametrize(("day", "seconds"), list(itertools.product(EXTREME_DAYS, EXTREME_SECONDS)))
def test_every_day_a_server_can_name_has_a_mailbox(day: int, seconds: int) -> None:
    clock = DayClock(day, seconds, 0.0)
    for later in (0.0, seconds - 0.5, seconds + 0.5):
        assert all(len(mailbox_id(bytes(32), named)) == 16 for named in clock.days(later))


def test_a_greeting_from_the_first_day_of_time_harms_nobody() -> None:
    async def greet() -> None:
        siege = Siege()
        meetings = Meetings(
            ["ws://127.0.0.1:9"],
            [Member("attacker", siege.machine, bytes(32))],
            own_public_key=siege.victim.public_key,
            ca_file=None,
            entropy=random.Random(SEED).randbytes,
            now=lambda: siege.now,
            on_change=lambda name: None,
            on_notice=lambda text, peer: None,
        )
        server = meetings.servers[0]
        server.machine.connected(siege.now)
        server.machine.receive(build_text(Hello(bytes(16), 0, 86_400, None)), siege.now)
        assert server.client is not None
        server.client._flush()  # a runner would have called it; an exception here ends the endpoint
        assert server.mailboxes

    asyncio.run(greet())


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
