"""The control ARQ over a bad wire on a virtual clock, and against a peer that lies."""

from __future__ import annotations

import random
import struct

import pytest

from grepunch.signalling.arq import (
    LARGEST_MESSAGE,
    MAX_QUEUED,
    MAX_TRIES,
    WINDOW,
    Arq,
    ArqFailed,
    Delivered,
)
from pptp.errors import PeerViolation, UsageError, WireError


def exchange(seed: int, count: int, *, loss: float, duplicate: float, jitter: float) -> tuple[list[bytes], list[bytes]]:
    """Both ends send ``count`` messages over a seeded wire; returns what each end got."""
    rng = random.Random(seed)
    ends = (Arq(), Arq())
    got: tuple[list[bytes], list[bytes]] = ([], [])
    wire: list[tuple[float, int, bytes]] = []
    now = 0.0
    unsent = [[b"%d/%d" % (side, n) for n in range(count)] for side in (0, 1)]
    while now < 600:
        for side, end in enumerate(ends):
            if unsent[side] and end.idle:
                for message in unsent[side][:5]:
                    end.send(message, now)
                del unsent[side][:5]
            for segment in end.transmits():
                for _ in range(1 + (rng.random() < duplicate)):
                    if rng.random() >= loss:
                        wire.append((now + 0.01 + rng.random() * jitter, 1 - side, segment))
            for event in end.events():
                assert isinstance(event, Delivered), f"seed {seed}"
                got[side].append(event.message)
        if all(end.idle for end in ends) and not any(unsent) and not wire:
            break
        deadlines = [d for d in (*(end.deadline() for end in ends), *(at for at, _, _ in wire)) if d is not None]
        now = max(now, min(deadlines, default=now + 1))
        for item in [item for item in wire if item[0] <= now]:
            wire.remove(item)
            ends[item[1]].receive(item[2], now)
        for end in ends:
            end.handle_timeout(now)
    return got


@pytest.mark.parametrize("seed", range(20))
def test_delivers_everything_once_and_in_order_over_a_bad_wire(seed: int) -> None:
    got = exchange(seed, 40, loss=0.2, duplicate=0.2, jitter=0.5)
    assert got[1] == [b"0/%d" % n for n in range(40)]
    assert got[0] == [b"1/%d" % n for n in range(40)]


def test_a_clean_wire_costs_one_segment_per_message_and_one_acknowledgement() -> None:
    a, b = Arq(), Arq()
    a.send(b"hello", 0)
    (segment,) = a.transmits()
    b.receive(segment, 0.01)
    assert b.events() == [Delivered(b"hello")]
    (acknowledgement,) = b.transmits()
    a.receive(acknowledgement, 0.02)
    assert a.idle
    assert a.deadline() is None
    assert a.transmits() == []


def test_gives_up_after_the_last_try_and_says_so_once() -> None:
    arq = Arq()
    arq.send(b"x", 0)
    sent = len(arq.transmits())
    now = 0.0
    for _ in range(50):
        deadline = arq.deadline()
        if deadline is None:
            break
        now = deadline
        arq.handle_timeout(now)
        sent += len(arq.transmits())
    assert sent == MAX_TRIES
    assert arq.events() == [ArqFailed()]
    assert 40 < now < 80, "an outage of a 30 s NAT timer must be survivable"


def test_an_outage_ends_at_once_when_a_carrier_appears() -> None:
    arq = Arq()
    arq.send(b"x", 0)
    arq.transmits()
    for _ in range(5):
        deadline = arq.deadline()
        assert deadline is not None
        arq.handle_timeout(deadline)
        arq.transmits()
    arq.carrier_changed(10.0)
    assert arq.deadline() == 10.0
    arq.handle_timeout(10.0)
    assert len(arq.transmits()) == 1


def test_a_spurious_timeout_sends_nothing() -> None:
    arq = Arq()
    arq.send(b"x", 0)
    arq.transmits()
    arq.handle_timeout(0.01)
    assert arq.transmits() == []


@pytest.mark.parametrize(
    "segment",
    [struct.pack("!II", 0, 1), struct.pack("!II", 0, 0x7FFFFFFF), struct.pack("!II", WINDOW, 0) + b"x"],
    ids=["ack of the unsent", "ack far ahead", "message beyond the window"],
)
def test_a_lying_peer_is_a_violation_and_changes_nothing(segment: bytes) -> None:
    arq = Arq()
    with pytest.raises(PeerViolation):
        arq.receive(segment, 0)
    assert arq.transmits() == []
    assert arq.events() == []


@pytest.mark.parametrize("size", range(8))
def test_truncated_segments_are_refused(size: int) -> None:
    with pytest.raises(WireError):
        Arq().receive(bytes(size), 0)


def test_caps_are_kept() -> None:
    arq = Arq()
    with pytest.raises(UsageError):
        arq.send(b"", 0)
    with pytest.raises(UsageError):
        arq.send(bytes(LARGEST_MESSAGE + 1), 0)
    for _ in range(WINDOW + MAX_QUEUED):
        arq.send(b"x", 0)
    assert not arq.events()
    for _ in range(2):
        arq.send(b"x", 0)
    assert arq.events() == [ArqFailed()]
    with pytest.raises(WireError):
        arq.receive(bytes(8) + bytes(LARGEST_MESSAGE + 1), 0)


def test_sequence_numbers_wrap() -> None:
    a, b = Arq(), Arq()
    for arq in (a, b):
        arq._next_sequence = 0xFFFFFFFE
        arq._expected = 0xFFFFFFFE
    for n in range(5):
        a.send(bytes([n + 1]), 0)
    for segment in a.transmits():
        b.receive(segment, 0)
    assert b.events() == [Delivered(bytes([n + 1])) for n in range(5)]
    for segment in b.transmits():
        a.receive(segment, 0)
    assert a.idle


def test_tries_without_any_carrier_do_not_count_and_begin_anew_with_one() -> None:
    arq = Arq()
    arq.send(b"patient", 0.0)
    arq.reach(False, 1.0)
    now = 0.0
    for _ in range(3 * MAX_TRIES):
        now = arq.deadline() or now
        arq.handle_timeout(now)
        assert arq.transmits()
    assert not arq.events()
    arq.reach(True, now)
    assert arq.deadline() == now  # at once, and from then on as often as ever
    for _ in range(MAX_TRIES):
        assert not arq.events()
        now = arq.deadline() or now
        arq.handle_timeout(now)
    assert arq.events() == [ArqFailed()]
