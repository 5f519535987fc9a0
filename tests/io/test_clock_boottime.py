"""The clock counts suspend, and entropy is not a constant."""

from __future__ import annotations

import time

from grepunch.io.clock import entropy, now


def test_now_is_the_time_since_boot() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= now() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_entropy_has_the_size_asked_for_and_does_not_repeat() -> None:
    assert [len(entropy(size)) for size in (0, 1, 32)] == [0, 1, 32]
    assert entropy(16) != entropy(16)
