"""The send window and the adaptive time-out of RFC 2637 sections 4.2 to 4.4, which measure and never stall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pptp.channel import MAXIMUM_TIME_OUT, MINIMUM_TIME_OUT, Channel, ChannelConfig, SendWindow
from pptp.serial import difference
from pptp.wire.gre import build_v1, parse


@pytest.mark.parametrize(("maximum", "initial"), [(1, 1), (2, 1), (3, 1), (16, 8), (64, 32), (0xFFFF, 32767)])
def test_the_window_begins_at_half_and_never_below_one(maximum: int, initial: int) -> None:
    assert SendWindow(maximum, 0.0).status.window == initial


def test_the_window_grows_by_one_for_each_full_window_and_stays_within_its_maximum() -> None:
    window = SendWindow(6, 0.0)
    seen = [window.status.window]
    for sequence in range(40):
        window.sent(sequence, 0.0)
        assert window.acknowledged(sequence, 0.1)
        seen.append(window.status.window)
    assert seen[:9] == [3, 3, 3, 4, 4, 4, 4, 5, 5]
    assert max(seen) == seen[-1] == 6


def test_a_time_out_halves_the_window_rounding_up_and_doubles_the_round_trip() -> None:
    window = SendWindow(10, 2.0)
    window.sent(0, 0.0)
    seen = []
    for _ in range(4):
        window.timed_out()
        seen.append((window.status.window, window.status.round_trip))
    assert seen == [(3, 4.0), (2, 8.0), (1, 10.0), (1, 10.0)]
    assert window.status.time_outs == 4
    assert window.in_flight == 0


def test_the_estimate_follows_section_4_4_1() -> None:
    window = SendWindow(8, 1.0)
    window.sent(0, 0.0)
    window.acknowledged(0, 3.0)
    # DIFF = 2: DEV = 0.25 * 2, RTT = 1 + 0.125 * 2, ATO = RTT + 4 DEV
    assert (window.status.deviation, window.status.round_trip, window.time_out) == (0.5, 1.25, 3.25)
    window.sent(1, 3.0)
    window.acknowledged(1, 3.25)
    assert (window.status.deviation, window.status.round_trip) == (0.5 + 0.25 * (1.0 - 0.5), 1.25 - 0.125)


@given(st.lists(st.floats(0, 100), max_size=30))
def test_the_time_out_stays_within_its_bounds(samples: list[float]) -> None:
    window = SendWindow(8, 0.0)
    now = 0.0
    for sequence, sample in enumerate(samples):
        window.sent(sequence, now)
        now += sample
        window.acknowledged(sequence, now)
        assert MINIMUM_TIME_OUT <= window.time_out <= MAXIMUM_TIME_OUT


def test_only_the_highest_acknowledged_packet_is_timed() -> None:
    window = SendWindow(8, 1.0)
    window.sent(0, 0.0)
    window.sent(1, 9.0)
    window.acknowledged(1, 10.0)
    assert (window.status.round_trip, window.status.deviation) == (1.0, 0.0)


def test_forged_and_stale_acknowledgements_change_nothing() -> None:
    window = SendWindow(8, 1.0)
    for sequence in range(4):
        window.sent(sequence, 0.0)
    window.acknowledged(1, 1.0)
    before = window.status
    for acknowledgement in (1, 0, 4, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert not window.acknowledged(acknowledgement, 50.0)
    assert window.status == before


def test_a_peer_that_never_acknowledges_never_stalls_us() -> None:
    """The Linux kernel's pptp never sends an acknowledgement of its own."""
    sender = Channel(ChannelConfig(1, 2, send_window=4))
    now = 0.0
    for count in range(3000):
        now += 0.01
        assert parse(sender.encapsulate(b"x", now)).sequence == count
        while (due := sender.deadline()) is not None and due <= now:
            sender.handle_timeout(due)
    status = sender.window
    assert status.window == 1
    assert status.overflows > 2500
    assert status.time_outs >= 2
    assert status.in_flight <= 1001


def test_the_timer_stops_when_everything_is_acknowledged_and_0_means_no_flow_control() -> None:
    sender = Channel(ChannelConfig(1, 2, send_window=4))
    for _ in range(3):
        sender.encapsulate(b"x", 0.0)
    assert sender.deadline() == MINIMUM_TIME_OUT
    sender.receive(build_v1(1, acknowledgement=1), 0.5)
    assert sender.deadline() == 0.5 + sender.window.time_out
    sender.receive(build_v1(1, acknowledgement=2), 0.6)
    assert sender.deadline() is None
    free = Channel(ChannelConfig(1, 2, send_window=0))
    free.encapsulate(b"x", 0.0)
    assert free.deadline() is None


def test_numbers_wrap() -> None:
    window = SendWindow(8, 0.0)
    for sequence in (0, 0x40000000, 0x7FFFFFFF, 0xBFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0, 1):
        window.sent(sequence, 0.0)
        assert window.acknowledged(sequence, 0.0)
        assert window.in_flight == difference(sequence, sequence) == 0
