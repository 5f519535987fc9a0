"""Sealed frames: layout, replay, tampering, and what a pair counts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pptp.crypto.aead import AeadKey, Suite
from pptp.datapath import SealedPair
from pptp.errors import Drop, DropError, WireCause, WireError
from pptp.mtu import SEALED_OVERHEAD
from pptp.wire.sealed import (
    EMPTY_PROTOCOL,
    FLAG_CHECKSUM_ELIDED,
    INNER_HEADER,
    SEALED_HEADER,
    SMALLEST_FRAME,
    is_sealed,
    parse_header,
    receiver_index,
)

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
SUITES = list(Suite)


def pairs(suite: Suite = Suite.AES_256_GCM, *, elides: bool = True) -> tuple[SealedPair, SealedPair]:
    left = SealedPair(11, 22, suite, ONE, TWO, elides=elides)
    return left, SealedPair(22, 11, suite, TWO, ONE, elides=elides)


@pytest.mark.parametrize("suite", SUITES)
def test_layout(suite: Suite) -> None:
    left, _ = pairs(suite)
    left.sent_frames = 0x0102030405060708
    frame = left.seal(0x0021, b"datagram", FLAG_CHECKSUM_ELIDED)
    assert frame[:14] == bytes.fromhex("0053 00000016 0102030405060708")
    assert len(frame) == len(b"datagram") + SEALED_OVERHEAD
    inner = AeadKey(suite, ONE).open(0x0102030405060708, frame[:14], frame[14:])
    assert inner == b"\x01\x00\x21datagram"


@settings(max_examples=60, deadline=None)
@given(
    suite=st.sampled_from(SUITES),
    protocol=st.integers(0, 0xFFFF),
    data=st.binary(max_size=1600),
    elided=st.booleans(),
)
def test_round_trip(suite: Suite, protocol: int, data: bytes, elided: bool) -> None:
    left, right = pairs(suite)
    flags = FLAG_CHECKSUM_ELIDED if elided and protocol in (0x21, 0x57) else 0
    for view in (bytes, memoryview):
        frame = left.seal(protocol, data, flags)
        assert is_sealed(frame)
        assert receiver_index(frame) == 22
        assert right.open(view(frame)) == (protocol, data, flags)
    assert left.sent_frames == right.opened_frames == 2
    assert right.highest_received == 1
    assert not right.drops


def test_an_empty_frame_is_the_smallest() -> None:
    left, right = pairs()
    frame = left.seal_empty()
    assert len(frame) == SMALLEST_FRAME == 33
    assert right.open(frame) == (EMPTY_PROTOCOL, b"", 0)


def test_each_direction_has_its_own_key() -> None:
    left, right = pairs()
    reflected = bytearray(left.seal(0x21, b"x"))
    reflected[2:6] = (11).to_bytes(4, "big")  # as if right had sent it
    with pytest.raises(DropError) as caught:
        left.open(bytes(reflected))
    assert caught.value.cause is Drop.BAD_TAG
    assert right.seal(0x21, b"x")[14:] != left.seal(0x21, b"x")[14:]


@pytest.mark.parametrize("suite", SUITES)
def test_no_flipped_bit_gets_through_and_none_moves_the_window(suite: Suite) -> None:
    left, right = pairs(suite)
    frame = left.seal(0x21, b"some data")
    for at in range(len(frame)):
        for bit in range(8):
            forged = bytearray(frame)
            forged[at] ^= 1 << bit
            with pytest.raises(DropError):
                right.open(bytes(forged))
    for size in range(len(frame)):
        with pytest.raises(DropError):
            right.open(frame[:size])
    assert right.highest_received == -1
    assert right.opened_frames == 0
    assert sum(right.drops.values()) == len(frame) * 9
    assert right.open(frame) == (0x21, b"some data", 0)


def test_a_forged_high_counter_does_not_shut_the_window() -> None:
    left, right = pairs()
    frames = [left.seal(0x21, bytes([number])) for number in range(3)]
    forged = bytearray(frames[2])
    forged[6:14] = b"\xff" * 8
    with pytest.raises(DropError):
        right.open(bytes(forged))
    assert [right.open(frame)[1] for frame in frames] == [b"\0", b"\1", b"\2"]


def test_replays_and_old_frames_are_told_apart() -> None:
    left, right = pairs()
    frames = [left.seal(0x21, b"") for _ in range(9000)]
    right.open(frames[-1])
    for number, cause in ((8999, Drop.REPLAYED), (9000 - 8193, Drop.TOO_OLD), (0, Drop.TOO_OLD)):
        with pytest.raises(DropError) as caught:
            right.open(frames[number])
        assert caught.value.cause is cause
    right.open(frames[9000 - 8192])
    assert right.drops == {Drop.REPLAYED: 1, Drop.TOO_OLD: 2}


def test_reordered_frames_arrive_once_each() -> None:
    seed = 5
    rng = random.Random(seed)
    left, right = pairs()
    frames = [left.seal(0x21, number.to_bytes(2, "big")) for number in range(2000)]
    shuffled = sorted(range(2000), key=lambda number: number + rng.random() * 300)
    arrived = [right.open(frames[number])[1] for number in shuffled]
    assert sorted(arrived) == [number.to_bytes(2, "big") for number in range(2000)], f"seed {seed}"
    for frame in frames:
        with pytest.raises(DropError):
            right.open(frame)
    assert right.opened_frames == 2000


@pytest.mark.parametrize(
    ("protocol", "flags", "elides"),
    [
        (0x21, 0x02, True),
        (0x21, FLAG_CHECKSUM_ELIDED, False),  # not agreed on
        (0xC021, FLAG_CHECKSUM_ELIDED, True),  # not of IP
    ],
)
def test_flags_without_meaning_are_dropped_though_authentic(protocol: int, flags: int, elides: bool) -> None:
    left, right = pairs(elides=elides)
    with pytest.raises(DropError) as caught:
        right.open(left.seal(protocol, b"", flags))
    assert caught.value.cause is Drop.MALFORMED
    assert right.open(left.seal(protocol, b"")) == (protocol, b"", 0)


@settings(max_examples=40, deadline=None)
@given(suite=st.sampled_from(SUITES), data=st.binary(max_size=1600), flags=st.integers(0, 255))
def test_sealing_and_opening_into_buffers_is_the_same(suite: Suite, data: bytes, flags: int) -> None:
    left, right = pairs(suite)
    plaintext = INNER_HEADER.pack(flags, 0x21) + data
    for counter in range(2):
        frame = bytearray(14 + len(plaintext) + 16)
        SEALED_HEADER.pack_into(frame, 0, 0x53, left.remote_index, counter)
        view = memoryview(frame)
        left.seal_into(counter.to_bytes(12, "big"), plaintext, view[:14], view[14:])
        left.sent_frames = counter
        assert frame == left.seal(0x21, data, flags)
        opened = bytearray(len(plaintext))
        assert right.open_into(counter, view[:14], view[14:], memoryview(opened)) is None
        assert opened == plaintext
        assert right.open_into(counter, view[:14], view[14:], memoryview(opened)) is Drop.REPLAYED
    view[20] ^= 1
    SEALED_HEADER.pack_into(frame, 0, 0x53, left.remote_index, 9)
    assert right.open_into(9, view[:14], view[14:], memoryview(opened)) is Drop.BAD_TAG
    assert (right.highest_received, right.opened_frames) == (1, 2)
    assert right.drops == {Drop.REPLAYED: 2, Drop.BAD_TAG: 1}


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (b"", WireCause.TRUNCATED),
        (b"\x00\x53" + bytes(30), WireCause.TRUNCATED),
        (b"\x00\x21" + bytes(40), WireCause.BAD_TYPE),
        (b"\xff\x03\x00\x53" + bytes(40), WireCause.BAD_TYPE),
    ],
)
def test_what_is_no_sealed_frame(frame: bytes, cause: WireCause) -> None:
    with pytest.raises(WireError) as caught:
        parse_header(frame)
    assert caught.value.cause is cause
    _, right = pairs()
    with pytest.raises(DropError) as dropped:
        right.open(frame)
    assert dropped.value.cause is Drop.MALFORMED


def test_a_frame_for_another_pair() -> None:
    left, _ = pairs()
    stranger = SealedPair(33, 11, Suite.AES_256_GCM, TWO, ONE)
    with pytest.raises(DropError) as caught:
        stranger.open(left.seal(0x21, b""))
    assert caught.value.cause is Drop.UNKNOWN_SESSION


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_noise_raises_nothing_but_a_drop(noise: bytes) -> None:
    _, right = pairs()
    for frame in (noise, b"\x00\x53" + noise, b"\x00\x53\x00\x00\x00\x16" + noise):
        with pytest.raises(DropError):
            right.open(frame)
