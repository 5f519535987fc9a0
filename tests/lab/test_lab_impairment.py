"""What a bad line does to packets: as much of each as was asked for, by one seed, and ARP unharmed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from grepunch.lab.impairment import HELD_BACK, Direction, Impairment

ETHERNET = bytes(12) + b"\x08\x00"
ARP = bytes(12) + b"\x08\x06" + b"who has?"
MANY = 4000


def carry(impairment: Impairment, seed: int = 1, interval: float = 0.001) -> list[tuple[float, bytes]]:
    """Many packets at equal distances; when each came out, and what of it, in that order."""
    direction = Direction(impairment, Random(seed))
    for number in range(MANY):
        direction.take(ETHERNET + number.to_bytes(8, "big") * 10, number * interval)
    out = []
    while (due := direction.deadline()) is not None:
        out += [(due, frame) for frame in direction.arrived(due)]
    return out


def number_of(frame: bytes) -> int:
    return int.from_bytes(frame[14:22], "big")


def test_a_good_line_changes_nothing() -> None:
    assert [(at, number_of(frame)) for at, frame in carry(Impairment())] == [(n * 0.001, n) for n in range(MANY)]


def test_each_kind_of_harm_is_done_as_often_as_asked_for() -> None:
    lost = carry(Impairment(loss=0.05))
    assert MANY * 0.04 < MANY - len(lost) < MANY * 0.06
    twice = carry(Impairment(duplication=0.02))
    assert MANY * 0.01 < len(twice) - MANY < MANY * 0.03
    assert len({number_of(frame) for _, frame in twice}) == MANY
    altered = carry(Impairment(corruption=0.01))
    wrong = [frame for number, (_, frame) in enumerate(altered) if frame != ETHERNET + number.to_bytes(8, "big") * 10]
    assert MANY * 0.005 < len(wrong) < MANY * 0.015
    for frame in wrong:
        assert frame[:14] == ETHERNET  # the frame still arrives; its content is another


def test_one_bit_of_an_altered_packet_is_another() -> None:
    direction = Direction(Impairment(corruption=1.0), Random(2))
    direction.take(ETHERNET + bytes(100), 0.0)
    (frame,) = direction.arrived(0.0)
    assert sum(octet.bit_count() for octet in frame[14:]) == 1


def test_jitter_changes_when_and_never_in_which_order() -> None:
    out = carry(Impairment(delay=0.020, jitter=0.005))
    assert [number_of(frame) for _, frame in out] == list(range(MANY))
    took = [at - 0.001 * number_of(frame) for at, frame in out]
    assert min(took) >= 0.0149
    assert 0.024 < max(took) < 0.0251 + HELD_BACK
    assert len(set(took)) > 100


def test_only_what_is_reordered_is_overtaken() -> None:
    out = carry(Impairment(reorder=0.10, delay=0.020, jitter=0.005), interval=0.0001)
    numbers = [number_of(frame) for _, frame in out]
    assert sorted(numbers) == list(range(MANY))
    highest, late = -1, 0
    for number in numbers:
        late += number < highest
        highest = max(highest, number)
    assert MANY * 0.05 < late < MANY * 0.11


def test_arp_passes_at_once_and_unharmed() -> None:
    direction = Direction(Impairment(loss=1.0, delay=1.0), Random(3))
    direction.take(ARP, 5.0)
    assert direction.arrived(5.0) == [ARP]


def test_the_same_seed_does_the_same() -> None:
    bad = Impairment(0.05, 0.02, 0.1, 0.01, 0.02, 0.005)
    assert carry(bad, seed=9) == carry(bad, seed=9)
    assert carry(bad, seed=9) != carry(bad, seed=10)


@pytest.mark.parametrize(
    "wrong", [{"loss": 1.1}, {"corruption": -0.1}, {"jitter": 0.1}, {"delay": 0.01, "jitter": 0.02}]
)
def test_a_line_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no line can be like this"):
        Impairment(**wrong)


def test_settings_are_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "line.json"
    Impairment(loss=0.5).write(path)
    Impairment(delay=0.5).write(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["line.json"]
    assert '"delay": 0.5' in path.read_text()
