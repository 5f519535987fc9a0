"""The broker within its limits, and both machines under input that nobody honest sends."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from grepunch.rendezvous.broker import Broker, Tally
from grepunch.rendezvous.client import RendezvousClient
from grepunch.rendezvous.events import ServerFault
from grepunch.rendezvous.limits import BrokerLimits
from grepunch.rendezvous.messages import ClockRequest, CloseCode, Join, Leave, StillHere, build_blob, build_text

MAILBOX = b"m" * 16
ALICE = b"a" * 16
BOB = b"b" * 16
NOON = 20_000 * 86_400 + 43_200.0


def entropy_from(seed: int) -> Callable[[int], bytes]:
    rng = random.Random(seed)
    return rng.randbytes


def stranger(broker: Broker, connection: int, address: str = "192.0.2.1", now: float = 0.0) -> None:
    broker.connect(connection, IPv4Address(address), now)


def closes(broker: Broker) -> list[tuple[int, CloseCode]]:
    return [(event.connection_id, event.code) for event in broker.events()]


def texts(broker: Broker) -> list[str]:
    return [str(message) for _, message in broker.transmits()]


def test_connections_are_capped_per_source_and_in_all() -> None:
    limits = BrokerLimits(connections=5, connections_per_source=2, connects_per_source=(1.0, 4.0))
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON, limits=limits)
    for connection in (1, 2, 3):
        stranger(broker, connection)
    assert closes(broker) == [(3, CloseCode.TOO_MANY_CONNECTIONS)]
    broker.disconnect(2, 0.0)
    stranger(broker, 4)
    stranger(broker, 5)
    assert closes(broker) == [(5, CloseCode.TOO_MANY_CONNECTIONS)]  # one too many of them
    broker.disconnect(4, 0.0)
    stranger(broker, 6)
    assert closes(broker) == [(6, CloseCode.TOO_MANY_CONNECTIONS)]  # too quick
    stranger(broker, 7, now=2.0)
    assert closes(broker) == []
    for connection in range(10, 14):
        stranger(broker, connection, f"192.0.2.{connection}", 2.0)
    assert closes(broker) == [(13, CloseCode.SERVER_FULL)]
    assert broker.connections == 5


def test_a_whole_ipv6_subnet_is_one_source() -> None:
    limits = BrokerLimits(connections_per_source=3)
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON, limits=limits)
    for n in range(1, 6):
        broker.connect(n, IPv6Address(f"2001:db8::{n}"), 0.0)
    broker.connect(6, IPv6Address("2001:db8:0:1::1"), 0.0)
    assert closes(broker) == [(4, CloseCode.TOO_MANY_CONNECTIONS), (5, CloseCode.TOO_MANY_CONNECTIONS)]


def test_joins_are_capped_per_connection_per_source_and_in_all() -> None:
    limits = BrokerLimits(joins_per_connection=4, joins_per_source=6, joins=7)
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON, limits=limits)
    stranger(broker, 1)
    stranger(broker, 2)
    stranger(broker, 3, "192.0.2.3")
    broker.transmits()

    def reply(connection: int, handle: int) -> str:
        mailbox = bytes([connection, handle]) * 8
        broker.receive(connection, build_text(Join(handle, mailbox, ALICE)), 0.0)
        return texts(broker)[0]

    assert [("joined" in reply(1, handle)) for handle in range(1, 6)] == [True] * 4 + [False]
    assert [("joined" in reply(2, handle)) for handle in range(1, 4)] == [True] * 2 + [False]
    assert [("joined" in reply(3, handle)) for handle in range(1, 3)] == [True, False]
    assert '"server_full"' in reply(3, 9)
    broker.receive(1, build_text(Leave(1)), 0.0)
    assert "joined" in reply(3, 10)
    broker.disconnect(1, 0.0)
    broker.disconnect(2, 0.0)
    broker.disconnect(3, 0.0)
    assert broker.joins == broker.connections == 0


def test_too_many_texts_close_the_connection() -> None:
    limits = BrokerLimits(texts_per_connection=(2.0, 10.0))
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON, limits=limits)
    stranger(broker, 1)
    for n in range(11):
        broker.receive(1, build_text(ClockRequest(n)), 0.0)
    assert closes(broker) == [(1, CloseCode.RATE)]
    broker.receive(1, build_text(ClockRequest(1)), 0.0)
    assert broker.connections == 0


def test_a_connection_without_a_mailbox_is_closed_and_one_with_a_mailbox_is_not() -> None:
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON)
    stranger(broker, 1)
    stranger(broker, 2)
    broker.receive(2, build_text(Join(1, MAILBOX, ALICE)), 0.0)
    now = 0.0
    while (deadline := broker.deadline()) is not None and now < 600.0:
        now = deadline
        broker.handle_timeout(now)
        if closed := closes(broker):
            assert closed == [(1, CloseCode.IDLE)]
            assert 60.0 <= now <= 65.0
    assert broker.connections == 1


def test_an_empty_broker_forgets_its_sources_and_wants_no_timer() -> None:
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON)
    for n in range(50):
        stranger(broker, n, f"192.0.2.{n}")
        broker.disconnect(n, 0.0)
    for tick in range(1, 10):
        broker.handle_timeout(tick * 5.0)
    assert broker.deadline() is None


@pytest.mark.parametrize(
    "message",
    ["", "{}", '{"type":"joined","handle":1}', b"", b"\x00\x01", bytes(5000), "\ud800", "x" * 4098],
)
def test_a_malformed_message_closes_its_connection_only(message: str | bytes) -> None:
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON)
    stranger(broker, 1)
    stranger(broker, 2)
    broker.receive(1, message, 0.0)
    assert closes(broker) == [(1, CloseCode.MALFORMED)]
    assert broker.connections == 1


def test_a_handle_in_use_is_malformed_and_an_unknown_one_is_late() -> None:
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON)
    stranger(broker, 1)
    broker.receive(1, build_text(Leave(9)), 0.0)
    broker.receive(1, build_text(StillHere(9)), 0.0)
    broker.receive(1, build_blob(9, b"x"), 0.0)
    assert closes(broker) == []
    assert broker.tallies[Tally.BLOBS_DROPPED_NO_SIDE] == 1
    broker.receive(1, build_text(Join(1, MAILBOX, ALICE)), 0.0)
    broker.receive(1, build_text(Join(1, BOB, ALICE)), 0.0)
    assert closes(broker) == [(1, CloseCode.MALFORMED)]
    assert broker.joins == 0


def test_still_here_counts_only_in_time_and_only_against_another_connection() -> None:
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON)
    stranger(broker, 1)
    stranger(broker, 2)
    broker.receive(1, build_text(Join(1, MAILBOX, ALICE)), 0.0)
    broker.receive(1, build_text(Join(2, MAILBOX, ALICE)), 0.0)  # its own: no replacement
    broker.receive(1, build_text(StillHere(1)), 0.0)
    broker.receive(2, build_text(Join(1, MAILBOX, ALICE)), 0.0)
    broker.receive(1, build_text(StillHere(2)), 31.0)
    assert not any("used_twice" in text for text in texts(broker))
    broker.receive(1, build_text(Join(3, MAILBOX, ALICE)), 40.0)
    broker.receive(2, build_text(StillHere(1)), 69.0)
    assert sum("used_twice" in text for text in texts(broker)) == 2


def test_the_broker_keeps_its_books_under_random_and_mutated_input() -> None:
    seed = int.from_bytes(hashlib.sha256(b"rendezvous broker").digest()[:4])
    print(f"seed {seed:#x}")
    rng = random.Random(seed)
    limits = BrokerLimits(
        connections=6, connections_per_source=4, joins_per_connection=6, joins=20, queued_octets=600, idle=20.0
    )
    broker = Broker(entropy=rng.randbytes, unix_time=lambda: NOON, limits=limits)
    now, next_id, alive = 0.0, 0, set[int]()
    mailboxes, tags = [bytes([n]) * 16 for n in range(5)], [bytes([n]) * 16 for n in range(4)]
    delivered = 0
    for _ in range(20_000):
        now += rng.choice((0.0, 0.0, 0.01, 0.5, 7.0 if rng.random() < 0.01 else 0.0))
        dice = rng.random()
        if dice < 0.04 or not alive:
            next_id += 1
            alive.add(next_id)
            broker.connect(next_id, IPv4Address(f"192.0.2.{rng.randint(1, 3)}"), now)
        elif dice < 0.06:
            gone = rng.choice(sorted(alive))
            alive.discard(gone)
            broker.disconnect(gone, now)
        else:
            handle = rng.randint(1, 40)
            message: str | bytes
            match rng.randrange(6):
                case 0 | 1:
                    message = build_text(Join(handle, rng.choice(mailboxes), rng.choice(tags)))
                case 2:
                    message = build_text(rng.choice((Leave(handle), StillHere(handle), ClockRequest(handle))))
                case _:
                    message = build_blob(handle, rng.randbytes(rng.randint(1, 200)))
            if rng.random() < 0.02:
                spoiled = bytearray(message if isinstance(message, bytes) else message.encode())
                spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(7)
                message = bytes(spoiled) if isinstance(message, bytes) else spoiled.decode()
            broker.receive(rng.choice(sorted(alive)), message, now)
        if (deadline := broker.deadline()) is not None and deadline <= now:
            broker.handle_timeout(now)
        for connection, out in broker.transmits():
            delivered += isinstance(out, bytes)
            assert connection <= next_id
        for closing in broker.events():
            alive.discard(closing.connection_id)
        assert broker.connections == len(alive) <= 6
        assert 0 <= broker.joins <= 20
        assert 0 <= broker.queued_octets <= 600
    for connection in alive:
        broker.disconnect(connection, now)
    assert broker.connections == broker.joins == broker.queued_octets == 0
    assert delivered > 100
    assert all(broker.tallies[tally] for tally in (Tally.REPLACED, Tally.USED_TWICE, Tally.REFUSED))


def test_the_client_survives_20000_mutated_messages_of_the_server() -> None:
    seed = 0x636C69
    print(f"seed {seed:#x}")
    rng = random.Random(seed)
    broker = Broker(entropy=rng.randbytes, unix_time=lambda: NOON)
    stranger(broker, 1)
    machine = RendezvousClient(entropy=rng.randbytes)
    machine.join(MAILBOX, ALICE, 0.0)
    machine.connected(0.0)
    templates = [message for _, message in broker.transmits()] + [
        '{"type":"joined","handle":1}',
        '{"type":"refused","handle":1,"reason":"mailbox_full"}',
        '{"type":"present","handle":1,"incarnation":99}',
        '{"type":"absent","handle":1}',
        '{"type":"replaced","handle":1}',
        '{"type":"used_twice","handle":1}',
        '{"type":"clock","id":3,"microseconds":77}',
        build_blob(1, b"payload"),
    ]
    now, faults = 0.0, 0
    for _ in range(20_000):
        template = rng.choice(templates)
        spoiled = bytearray(template if isinstance(template, bytes) else template.encode())
        for _ in range(rng.randrange(3)):
            spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(7)
        now += 0.1
        machine.receive(bytes(spoiled) if isinstance(template, bytes) else spoiled.decode(), now)
        machine.handle_timeout(now)
        machine.transmits()
        if any(isinstance(event, ServerFault) for event in machine.events()):
            faults += 1
            machine.disconnected(now)
            machine.connected(now)
            machine.receive(str(templates[0]), now)
    assert faults > 1000
