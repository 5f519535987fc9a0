"""Who waits for whom on the way out: single packets for nobody, trains for each other, a flow's packets in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from grepunch.io.engine.backlog import BUFFER_SIZE, MOST_WAITING, Backlog
from pptp.errors import Drop
from tests.engine import kernel
from tests.engine.kernel import ACK, PSH, UDP, Flow, Train
from tests.engine.loops import End, make_ends

BULK = Train(Flow(), bytes(range(250)) * 48, 500)
IPV6_BULK = Train(Flow(version=6), bytes(range(250)) * 48, 500)
OTHER_BULK = replace(BULK, flow=Flow(source=bytes([10, 66, 0, 7])))
PING = Flow(protocol=UDP, source=bytes([10, 66, 0, 9])).packet(b"ping", partial=False)
IPV6_PING = Flow(version=6, protocol=UDP, source6=b"\xfd" + bytes(14) + b"\x09").packet(b"ping", partial=False)


def single(packet: bytes) -> bytes:
    return bytes(10) + packet


def arrived(right: End, wire: Sequence[bytes]) -> list[bytes]:
    return [packet for one in right.receive(wire) for packet in kernel.take(one)]


def test_a_single_packet_overtakes_the_trains_of_others() -> None:
    left, right = make_ends("engine", "engine")
    left.device.waiting += [BULK.read(), OTHER_BULK.read(), single(PING), IPV6_BULK.read(), single(IPV6_PING)]
    expected = [PING, IPV6_PING, *BULK.packets(), *OTHER_BULK.packets(), *IPV6_BULK.packets()]
    assert arrived(right, left.send()) == expected
    assert left.socket.batches[0] == 1  # it went by itself, before the first train was cut


def test_a_short_train_goes_at_once_where_nothing_came_for_a_while() -> None:
    left, right = make_ends("engine", "engine")
    short = replace(BULK, payload=bytes(1500))
    left.device.waiting += [short.read(), single(PING)]
    assert arrived(right, left.send()) == [*short.packets(), PING]
    assert left.socket.batches[0] == 3


def test_nothing_overtakes_its_own_flow() -> None:
    for train in (BULK, IPV6_BULK):
        left, right = make_ends("engine", "engine")
        end = Train(train.flow, b"the end", 500, sequence=2000, flags=ACK | PSH, identification=4)
        left.device.waiting += [train.read(), end.read(), single(PING), train.read()]
        assert arrived(right, left.send()) == [PING, *train.packets(), *end.packets(), *train.packets()]


def test_what_finds_no_room_is_dropped_and_counted_and_holds_nobody_up() -> None:
    left, right = make_ends("engine", "engine")
    room = MOST_WAITING // len(BULK.read())
    left.device.waiting += [*[BULK.read()] * (room + 3), single(PING)]
    assert arrived(right, left.send()) == [PING, *BULK.packets() * room]
    assert left.traffic.drops == {Drop.QUEUE_FULL: 3}


def test_there_is_room_for_as_many_octets_of_short_trains() -> None:
    left, right = make_ends("engine", "engine")
    short = replace(BULK, payload=bytes(1000))
    room = MOST_WAITING // len(short.read())
    left.device.waiting += [BULK.read(), *[short.read()] * 300, single(PING)]
    assert room > 300
    assert arrived(right, left.send()) == [PING, *BULK.packets(), *short.packets() * 300]
    assert not left.traffic.drops


@pytest.mark.parametrize(("segments", "trains_at_a_time"), [(50, 1), (10, 3)])
def test_the_other_direction_has_its_turn_after_a_train_or_a_few_short_ones(
    segments: int, trains_at_a_time: int
) -> None:
    left, _ = make_ends("engine", "engine")
    train = Train(Flow(), bytes(segments * 200), 200)
    left.device.waiting += [train.read()]
    left.pump.tun_readable()
    assert (len(left.socket.sent_packets), left.waits()) == (segments, False)
    left.device.waiting += [train.read()] * 2 * trains_at_a_time
    left.pump.tun_readable()
    sent = (1 + trains_at_a_time) * segments
    assert (len(left.socket.sent_packets), left.device.waiting, left.waits()) == (sent, [], True)
    left.pump.tun_readable()
    sent += trains_at_a_time * segments
    assert (len(left.socket.sent_packets), left.waits()) == (sent, False)
    left.pump.close()


def test_a_flood_of_single_packets_leaves_the_trains_their_turn() -> None:
    left, _ = make_ends("engine", "engine")
    left.device.waiting += [BULK.read(), *[single(PING)] * 500]
    left.pump.tun_readable()  # the first one goes at once
    left.pump.tun_readable()
    assert len(left.device.waiting) >= 400
    assert len(left.socket.sent_packets) == 500 - len(left.device.waiting) + len(BULK.packets())


def test_buffers_are_used_again() -> None:
    backlog = Backlog()
    first, second = bytearray(BUFFER_SIZE), bytearray(BUFFER_SIZE)
    given = backlog.put(first, 40_000, b"a")
    assert given is not None
    assert given is not first
    assert backlog.put(second, 50_000, b"a") is not None
    assert (backlog.holds(b"a"), backlog.holds(b"b")) == (True, False)
    assert backlog.take() == (first, 40_000, b"a")
    backlog.spare(first)
    assert backlog.holds(b"a")
    assert backlog.put(given, 60_000, b"b") is first
    assert [backlog.take().flow for _ in range(2)] == [b"a", b"b"]
    assert not backlog.holds(b"a")
    backlog.close()
    backlog.close()


def test_what_is_short_takes_no_more_room_than_it_has_octets() -> None:
    backlog = Backlog()
    buffer = bytearray(BUFFER_SIZE)
    buffer[:4] = b"abcd"
    assert backlog.put(buffer, 4, b"a") is buffer
    buffer[:4] = b"efgh"
    kept, end, _ = backlog.take()
    assert (bytes(kept[:end]), len(kept) < 100) == (b"abcd", True)
    backlog.spare(kept)
    assert backlog.put(buffer, BUFFER_SIZE, b"a") not in (None, kept)
    backlog.close()
