"""The data channel: numbering, order, acknowledgement, jumps; two channels over a link that loses and reorders."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pptp.channel import (
    ACKNOWLEDGE_DELAY,
    BRANCH_RUN,
    BRANCH_SILENCE,
    BRANCH_TRUST,
    FLOOD_LIMIT,
    JUMP_LIMIT,
    REORDER_TIMEOUT,
    SHORTEST_WAIT,
    Channel,
    ChannelConfig,
)
from pptp.errors import Drop, UsageError
from pptp.serial import increment
from pptp.wire.gre import GrePacket, build_v0, build_v1, parse

OURS, PEERS = 0x1111, 0x2222


def channel(**options: object) -> Channel:
    return Channel(ChannelConfig(OURS, PEERS, **options))  # type: ignore[arg-type]


def packet(sequence: int, frame: bytes | None = None, acknowledgement: int | None = None) -> bytes:
    return build_v1(OURS, frame if frame is not None else b"frame %d" % sequence, sequence, acknowledgement)


def receive(target: Channel, *sequences: int, now: float = 0.0) -> list[int]:
    """Which of these numbered frames came out, as their numbers."""
    frames = [frame for sequence in sequences for frame in target.receive(packet(sequence), now)]
    return [int(bytes(frame).split()[1]) for frame in frames]


def test_numbers_start_at_zero_and_count_every_frame() -> None:
    sender = channel()
    packets = [parse(sender.encapsulate(b"x%d" % n, 0.0)) for n in range(3)]
    assert packets == [GrePacket(1, b"x%d" % n, PEERS, n) for n in range(3)]


def test_empty_and_tiny_frames_can_be_sent_and_oversized_ones_are_our_bug() -> None:
    sender = channel()
    for size in range(4):
        assert parse(sender.encapsulate(bytes(size), 0.0)).payload == bytes(size)
    with pytest.raises(UsageError):
        sender.encapsulate(bytes(0x10000), 0.0)


@pytest.mark.parametrize("first", [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_any_first_number_is_accepted_and_numbers_wrap(first: int) -> None:
    target = channel()
    sequences = [increment(first, step) for step in range(4)]
    assert receive(target, *sequences) == sequences


def test_a_swapped_pair_comes_out_in_order_and_a_duplicate_once() -> None:
    target = channel()
    assert receive(target, 0, 2, 2, 1, 1, 3) == [0, 1, 2, 3]
    assert target.drops == {Drop.REPLAYED: 1, Drop.TOO_OLD: 1}


def test_without_a_buffer_late_frames_are_dropped_and_gaps_skipped() -> None:
    target = channel(reorder_limit=0)
    assert receive(target, 0, 2, 1, 3) == [0, 2, 3]
    assert target.drops == {Drop.TOO_OLD: 1}
    assert target.deadline() == pytest.approx(ACKNOWLEDGE_DELAY)


def test_a_missing_frame_is_waited_for_so_long_and_no_longer() -> None:
    target = channel(acknowledge=False)
    assert receive(target, 10, 12, now=1.0) == [10]
    assert receive(target, 14, now=1.2) == []
    assert target.deadline() == pytest.approx(1.0 + REORDER_TIMEOUT)
    target.handle_timeout(1.1)
    assert target.events() == []
    target.handle_timeout(1.0 + REORDER_TIMEOUT)
    assert target.events() == [b"frame 12"]
    assert target.deadline() == pytest.approx(1.2 + REORDER_TIMEOUT / 2)
    assert receive(target, 13, now=1.34) == [13, 14]
    assert target.deadline() is None
    assert receive(target, 11, now=1.4) == []


def lose_one(target: Channel, first: int, now: float) -> float:
    """Let number ``first`` be lost and the next come; how long that one waits."""
    assert receive(target, first + 1, now=now) == []
    due = target.deadline()
    assert due is not None
    target.handle_timeout(due)
    assert target.events() == [b"frame %d" % (first + 1)]
    return due - now


def test_a_line_that_loses_packets_is_waited_for_less_and_less() -> None:
    target = channel(acknowledge=False)
    receive(target, 0)
    waits = [lose_one(target, 1 + 2 * number, now=float(number)) for number in range(7)]
    assert waits[:3] == pytest.approx([REORDER_TIMEOUT, REORDER_TIMEOUT / 2, REORDER_TIMEOUT / 4])
    assert waits[-2:] == pytest.approx([SHORTEST_WAIT] * 2)


def test_one_that_also_delays_them_is_waited_for_as_long_as_that_takes() -> None:
    target = channel(acknowledge=False)
    receive(target, 0)
    for number in range(8):
        lose_one(target, 1 + 2 * number, now=float(number))
    assert receive(target, 18, now=10.0) == []
    target.handle_timeout(10.0 + SHORTEST_WAIT)  # too early, as it turns out
    assert target.events() == [b"frame 18"]
    assert receive(target, 17, now=10.08) == []
    for number in range(20, 40, 2):
        now = float(number)
        assert receive(target, number, now=now) == []
        target.handle_timeout(now + 0.08)
        assert receive(target, number - 1, now=now + 0.08) == [number - 1, number]
    assert lose_one(target, 39, now=50.0) == pytest.approx(0.16)
    assert 0.13 < lose_one(target, 41, now=51.0) < 0.15  # forgotten little by little


def test_what_came_twice_was_not_late() -> None:
    target = channel(acknowledge=False)
    receive(target, 0)
    for number in range(8):
        lose_one(target, 1 + 2 * number, now=float(number))
    assert receive(target, 16, 14, now=10.0) == []
    assert lose_one(target, 17, now=11.0) == pytest.approx(SHORTEST_WAIT)
    assert receive(target, 1, now=30.0) == []  # later than anybody waits
    assert lose_one(target, 19, now=31.0) == pytest.approx(SHORTEST_WAIT)


def test_one_that_comes_again_and_again_teaches_once() -> None:
    """A copy of one packet must not hold up all that are lost after it."""
    target = channel(acknowledge=False)
    receive(target, 0)
    for number in range(8):
        lose_one(target, 1 + 2 * number, now=float(number))
    assert receive(target, 18, 19, now=10.0) == []
    target.handle_timeout(10.0 + SHORTEST_WAIT)
    assert target.events() == [b"frame 18", b"frame 19"]
    for late in (0.02, 0.1, 0.2, 0.29):
        assert receive(target, 17, now=10.0 + late) == []
    assert lose_one(target, 20, now=11.0) == pytest.approx(0.04)


def test_each_of_several_that_are_late_teaches() -> None:
    target = channel(acknowledge=False)
    receive(target, 0)
    for number in range(8):
        lose_one(target, 1 + 2 * number, now=float(number))
    assert receive(target, 20, now=10.0) == []
    target.handle_timeout(10.0 + SHORTEST_WAIT)
    assert target.events() == [b"frame 20"]
    for sequence, late in ((18, 0.02), (17, 0.05), (19, 0.08), (18, 0.2)):  # the last one has come before
        assert receive(target, sequence, now=10.0 + late) == []
    assert lose_one(target, 21, now=11.0) == pytest.approx(0.16)


def test_nothing_is_waited_for_longer_than_was_set() -> None:
    target = channel(acknowledge=False)
    receive(target, 0)
    assert lose_one(target, 1, now=0.0) == pytest.approx(REORDER_TIMEOUT)
    assert receive(target, 1, now=REORDER_TIMEOUT - 0.001) == []  # as late as can be
    waits = [lose_one(target, 3 + 2 * number, now=1.0 + number) for number in range(3)]
    assert waits == pytest.approx([REORDER_TIMEOUT] * 3)


def test_a_wait_that_is_set_shorter_stays_so() -> None:
    target = channel(acknowledge=False, reorder_timeout=0.005)
    receive(target, 0)
    assert [lose_one(target, n, now=float(n)) for n in (1, 3, 5)] == pytest.approx([0.005] * 3)


def test_frames_let_go_by_a_timeout_precede_those_that_come_later() -> None:
    target = channel(acknowledge=False)
    assert receive(target, 0, 2, now=0.0) == [0]
    target.handle_timeout(REORDER_TIMEOUT)
    assert receive(target, 3, now=REORDER_TIMEOUT) == [2, 3]
    assert target.events() == []


def test_a_full_buffer_lets_go_of_the_first_gap() -> None:
    target = channel(reorder_limit=4)
    assert receive(target, 0, 2, 3, 5, 7) == [0]
    assert receive(target, 8) == [2, 3]
    assert receive(target, 4, 6) == [4, 5, 6, 7, 8]


def test_a_buffered_frame_does_not_alias_the_receive_buffer() -> None:
    target = channel()
    receive(target, 0)
    buffer = bytearray(packet(2))
    assert target.receive(memoryview(buffer), 0.0) == []
    buffer[:] = bytes(len(buffer))
    assert receive(target, 1) == [1, 2]


@pytest.mark.parametrize(
    ("octets", "cause"),
    [
        (b"", Drop.MALFORMED),
        (packet(0)[:-1], Drop.MALFORMED),
        (build_v0(b"frame"), Drop.UNKNOWN_SESSION),
        (build_v1(OURS + 1, b"frame", 0), Drop.UNKNOWN_SESSION),
        (build_v1(PEERS, b"frame", 0), Drop.UNKNOWN_SESSION),
    ],
)
def test_what_is_not_ours_is_counted_and_changes_nothing(octets: bytes, cause: Drop) -> None:
    target = channel()
    assert target.receive(octets, 0.0) == []
    assert target.drops == {cause: 1}
    assert target.deadline() is None


def test_packets_without_a_frame_are_taken_silently() -> None:
    target = channel()
    for octets in (build_v1(OURS), build_v1(OURS, acknowledgement=9), build_v1(OURS, b"", 0)):
        assert target.receive(octets, 0.0) == []
    assert target.drops == {}
    assert receive(target, 1) == [1]


def test_call_ids_a_nat_rewrote_can_be_accepted_too() -> None:
    target = Channel(ChannelConfig(7, 9, also_accepted=frozenset({0})))
    assert target.receive(build_v1(0, b"a", 0), 0.0) == [b"a"]
    assert target.receive(build_v1(7, b"b", 1), 0.0) == [b"b"]


# -- acknowledgement --------------------------------------------------------------------------------------------


def test_an_acknowledgement_rides_on_the_next_frame_and_only_once() -> None:
    target = channel()
    receive(target, 5, 6)
    assert parse(target.encapsulate(b"x", 0.0)).acknowledgement == 6
    assert parse(target.encapsulate(b"y", 0.0)).acknowledgement is None
    assert target.deadline() is None
    target.handle_timeout(10.0)
    assert target.transmits() == []


def test_an_acknowledgement_goes_alone_after_its_delay() -> None:
    target = channel()
    receive(target, 5, now=1.0)
    receive(target, 6, now=1.05)
    assert target.deadline() == pytest.approx(1.0 + ACKNOWLEDGE_DELAY)
    target.handle_timeout(1.0 + ACKNOWLEDGE_DELAY)
    assert target.transmits() == [build_v1(PEERS, acknowledgement=6)]
    assert target.deadline() is None


def test_half_a_window_is_acknowledged_at_once() -> None:
    target = channel(receive_window=8)
    receive(target, 0, 1, 2)
    assert target.transmits() == []
    receive(target, 3)
    assert target.transmits() == [build_v1(PEERS, acknowledgement=3)]


def test_the_highest_number_is_acknowledged_though_one_is_missing() -> None:
    target = channel()
    receive(target, 0, 2)
    assert parse(target.encapsulate(b"x", 0.0)).acknowledgement == 2


def test_a_sealed_channel_takes_frames_as_they_come_and_acknowledges_nothing() -> None:
    target = Channel(ChannelConfig.sealed())
    frames = [target.receive(build_v1(0, b"%d" % n, n), 0.0) for n in (5, 3, 3, 900_000, 4)]
    assert frames == [[b"5"], [b"3"], [b"3"], [b"900000"], [b"4"]]
    assert target.deadline() is None
    assert target.drops == {}
    assert parse(target.encapsulate(b"x", 0.0)) == GrePacket(1, b"x", 0, 0)


def test_a_sealed_channel_in_version_0() -> None:
    target = Channel(ChannelConfig.sealed(version=0))
    assert target.encapsulate(b"x", 0.0) == build_v0(b"x")
    assert target.receive(build_v0(b"y"), 0.0) == [b"y"]
    assert target.receive(build_v1(0, b"y", 0), 0.0) == []
    with pytest.raises(UsageError):
        Channel(ChannelConfig.sealed(version=2))


# -- jumps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 64])
def test_forged_numbers_cost_a_live_stream_nothing(limit: int) -> None:
    """Twenty forged packets for every real one, at random and in pairs that confirm one another."""
    seed = 2637
    rng = random.Random(seed)
    target = channel(acknowledge=False, reorder_limit=limit)
    delivered = receive(target, 0)
    for sequence in range(1, 2001):
        now = sequence * 0.01
        for _ in range(10):
            forged = rng.randrange(2_000_000, 1 << 32)
            delivered += receive(target, forged, increment(forged), now=now)
        delivered += receive(target, sequence, now=now)
    assert delivered == list(range(2001)), f"seed {seed}"
    assert target.drops == {Drop.SEQUENCE_JUMP: 40_000}


def test_a_forger_who_speaks_into_silence_gives_way_at_once() -> None:
    target = channel(acknowledge=False)
    assert receive(target, 0, now=0.0) == [0]
    assert receive(target, 1, now=5.0) == [1]
    assert receive(target, 70_000, 70_001, now=9.0) == [70_001]
    assert receive(target, 2, 3, now=9.1) == [2, 3]
    assert receive(target, 70_002, now=9.2) == []


def test_a_forger_who_speaks_first_is_forgotten_after_a_second() -> None:
    target = channel(acknowledge=False)
    receive(target, 3_000_000, now=0.0)
    assert receive(target, 0, 1, 2, now=0.5) == []
    assert receive(target, 3, 5, 4, now=1.1) == [3, 4, 5]
    assert receive(target, 3_000_001, now=1.2) == []


def follow(
    target: Channel, start: float, step: float, count: int, *, first: int = 1_000_000
) -> list[tuple[float, int]]:
    """A peer that jumped to ``first`` at ``start``, one frame each ``step`` seconds: what came up and when."""
    return [
        (now, sequence)
        for now, number in ((start + index * step, increment(first, index)) for index in range(count))
        for sequence in receive(target, number, now=now)
    ]


def test_a_peer_that_jumped_is_followed_after_a_second_of_silence() -> None:
    target = channel(acknowledge=False)
    receive(target, 0, now=0.0)
    receive(target, 1, now=30.0)
    came = follow(target, 30.05, 0.05, 100)
    assert came[0][0] == pytest.approx(30.0 + BRANCH_SILENCE, abs=0.06)
    assert [sequence for _, sequence in came] == list(range(came[0][1], 1_000_100))
    assert receive(target, 2, now=36.0) == [2]  # the old stream had lived longer


def test_a_flood_that_overran_the_buffer_is_followed_after_a_few_packets() -> None:
    target = channel(acknowledge=False)
    receive(target, 0, now=30.0)
    came = follow(target, 30.001, 0.0001, 100, first=10_000)
    assert [sequence for _, sequence in came] == list(range(10_000 + BRANCH_RUN - 1, 10_100))


@pytest.mark.parametrize(
    "first", [FLOOD_LIMIT + 2, 1_000_000, 0x7FFFFFFF, 0x80000000, increment(0, -FLOOD_LIMIT), increment(0, -1000)]
)
def test_a_forger_of_many_in_a_row_is_not_taken_for_a_flood_that_overran_it(first: int) -> None:
    """No flood brings so many at once, and none goes back."""
    target = channel(acknowledge=False)
    receive(target, 0, now=30.0)
    assert follow(target, 30.001, 0.0001, 4 * BRANCH_RUN, first=first) == []
    assert receive(target, 1, now=30.02) == [1]


def test_a_forger_of_many_packets_gives_way_to_the_stream() -> None:
    target = channel(acknowledge=False)
    receive(target, 0, now=30.0)
    for number in range(1, 10):
        now = 30.0 + number * BRANCH_SILENCE / 2
        assert follow(target, now, 0.0001, BRANCH_RUN - 1, first=10_000) == []
        assert receive(target, number, now=now + BRANCH_SILENCE / 4) == [number]
    now += BRANCH_SILENCE / 2
    assert len(follow(target, now, 0.0001, 2 * BRANCH_RUN, first=10_000)) == BRANCH_RUN + 1
    assert receive(target, 10, now=now + BRANCH_SILENCE / 4) == [10]


@pytest.mark.parametrize(("life", "trusted_after"), [(10.0, 10.0), (5000.0, BRANCH_TRUST)])
def test_a_branch_becomes_the_stream_after_as_long_a_life(life: float, trusted_after: float) -> None:
    for margin, owns in ((-2.0, False), (2.0, True)):
        target = channel(acknowledge=False)
        receive(target, 0, now=0.0)
        receive(target, 1, now=life)
        assert follow(target, life, 0.5, int((BRANCH_SILENCE + trusted_after + margin) / 0.5))
        assert receive(target, 2, now=life + 500.0) == ([] if owns else [2])


def test_the_edges_of_the_jump_limit() -> None:
    target = channel(acknowledge=False, reorder_limit=0)
    assert receive(target, 1000) == [1000]
    assert receive(target, 1001 + JUMP_LIMIT) == [1001 + JUMP_LIMIT]
    assert receive(target, 2 + 1001 + 2 * JUMP_LIMIT + 1) == []
    assert target.drops == {Drop.SEQUENCE_JUMP: 1}
    assert receive(target, 1002) == []
    assert target.drops == {Drop.SEQUENCE_JUMP: 1, Drop.TOO_OLD: 1}


# -- over a bad link --------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 0xFFFFFFFF),
    st.lists(st.tuples(st.floats(0, 0.5), st.booleans(), st.floats(0, 0.5)), max_size=80),
    st.sampled_from([0, 1, 4, 64]),
)
def test_a_bad_link_never_duplicates_or_disorders(
    first: int, fates: list[tuple[float, bool, float]], limit: int
) -> None:
    """Each packet leaves 10 ms after the one before; it is lost (delay > 0.4), delayed, perhaps duplicated."""
    target = channel(reorder_limit=limit)
    arrivals: list[tuple[float, int]] = []
    for index, (delay, twice, second) in enumerate(fates):
        if delay <= 0.4:
            arrivals.append((index * 0.01 + delay, index))
        if twice:
            arrivals.append((index * 0.01 + second, index))
    out: list[int] = []

    def tick(now: float) -> None:
        while (due := target.deadline()) is not None and due <= now:
            target.handle_timeout(due)
        out.extend(int(bytes(frame)) for frame in target.events())

    now = 0.0
    for now, index in sorted(arrivals):
        tick(now)
        out += [int(bytes(f)) for f in target.receive(build_v1(OURS, b"%d" % index, increment(first, index)), now)]
    tick(now + 2 * REORDER_TIMEOUT)
    assert out == sorted(set(out))
    assert target.deadline() is None
    accounted = len(out) + sum(target.drops.values())
    assert accounted == len(arrivals)
    lossless = {index for _, index in arrivals} == set(range(len(fates)))
    if limit == 64 and lossless and arrivals and max(at - index * 0.01 for at, index in arrivals) < REORDER_TIMEOUT:
        start = sorted(arrivals)[0][1]
        assert out == sorted({index for _, index in arrivals if index >= start})


def test_two_channels_over_a_lossy_link_keep_order_both_ways() -> None:
    seed = 4
    rng = random.Random(seed)
    ends = (Channel(ChannelConfig(1, 2, send_window=16)), Channel(ChannelConfig(2, 1, send_window=16)))
    wire: list[tuple[float, int, int, bytes]] = []
    got: tuple[list[int], list[int]] = ([], [])
    serial = 0
    for step in range(4000):
        now = step * 0.005
        for end in (0, 1):
            ends[end].handle_timeout(now)
            got[end].extend(int(bytes(frame)) for frame in ends[end].events())
            packets = ends[end].transmits()
            if step < 3600 and rng.random() < 0.5:
                packets.append(ends[end].encapsulate(b"%d" % step, now))
            for octets in packets:
                for _ in range(rng.choices((0, 1, 2), (5, 93, 2))[0]):
                    serial += 1
                    wire.append((now + 0.02 + rng.random() * rng.choice((0.002, 0.08)), serial, 1 - end, octets))
        wire.sort()
        while wire and wire[0][0] <= now:
            _, _, end, octets = wire.pop(0)
            got[end].extend(int(bytes(frame)) for frame in ends[end].receive(octets, now))
    for end in (0, 1):
        assert got[end] == sorted(set(got[end])), f"seed {seed}"
        assert len(got[end]) > 1600, f"seed {seed}"
        assert 0.02 < ends[end].window.round_trip < 0.5, f"seed {seed}"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=24), max_size=10), st.lists(st.integers(0, 0xFFFFFFFF), max_size=10))
def test_any_octets_are_dropped_and_counted_or_taken(octets: list[bytes], numbers: list[int]) -> None:
    target = channel(send_window=8)
    packets = octets + [packet(number, b"f", number) for number in numbers]
    taken = sum(len(target.receive(data, 0.0)) for data in packets)
    target.handle_timeout(1000.0)
    taken += len(target.events())
    assert taken + sum(target.drops.values()) >= len(numbers)
    assert target.window.in_flight == 0
