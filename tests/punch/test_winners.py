"""What is remembered of paths that worked: how it is kept, how it orders, and that no file can do harm."""

from __future__ import annotations

import json
import random

import pytest

from grepunch.ports import Form
from grepunch.punch.winners import (
    MAX_OCTETS,
    MAX_WINNERS,
    PLACE_SIZE,
    Unreadable,
    Winner,
    Winners,
    decode,
    encode,
    ordered,
    usable,
)

SEED = 4242
HOME, CAFE = b"h" * PLACE_SIZE, b"c" * PLACE_SIZE
PLAIN, ENHANCED, CALLED = Winner(Form.V0), Winner(Form.V1), Winner(Form.V1, mirrored=True)
CALLING = Winner(Form.V1, mirrored=True, outgoing=True)


def place(number: int) -> bytes:
    return number.to_bytes(PLACE_SIZE)


def full() -> Winners:
    winners = Winners()
    for number in range(MAX_WINNERS + 10):
        winners = winners.with_winner(place(number), CALLED)
    return winners


def test_each_place_has_its_own_latest_winner() -> None:
    winners = Winners().with_winner(HOME, PLAIN).with_winner(CAFE, CALLED).with_winner(HOME, ENHANCED)
    assert winners.at(HOME) == ENHANCED
    assert winners.at(CAFE) == CALLED
    assert winners.at(place(1)) is None
    assert len(winners.entries) == 2


def test_the_oldest_goes_where_there_are_too_many_and_a_renewed_one_is_young() -> None:
    winners = full()
    assert len(winners.entries) == MAX_WINNERS
    assert winners.at(place(9)) is None
    assert winners.at(place(10)) == CALLED
    renewed = winners.with_winner(place(10), PLAIN).with_winner(HOME, PLAIN)
    assert renewed.at(place(10)) == PLAIN
    assert renewed.at(place(11)) is None


def test_an_outgoing_call_is_remembered_and_nothing_else_of_the_file_changes() -> None:
    assert decode(encode(Winners(((HOME, CALLING), (CAFE, CALLED))))).entries == ((HOME, CALLING), (CAFE, CALLED))
    assert str(CALLING) == "v1-0/0, mirrored, outgoing call"
    rows = json.loads(encode(Winners(((HOME, CALLING), (CAFE, CALLED)))))["winners"]
    assert [set(row) for row in rows] == [{"place", "form", "mirrored", "outgoing"}, {"place", "form", "mirrored"}]


def test_the_winner_goes_first_and_nothing_is_left_out() -> None:
    forms = (Form.V1, Form.V0)
    assert ordered(forms, None) == forms
    assert ordered(forms, ENHANCED) == forms
    assert ordered(forms, PLAIN) == (Form.V0, Form.V1)
    assert ordered((Form.V1,), PLAIN) == (Form.V1,)


def test_a_winner_whose_form_is_not_tried_orders_nothing() -> None:
    assert usable(PLAIN, (Form.V1,)) is None
    assert usable(PLAIN, (Form.V1, Form.V0)) == PLAIN
    assert usable(None, (Form.V1,)) is None


def test_what_is_written_is_what_is_read_in_the_same_order_and_within_bounds() -> None:
    for winners in (Winners(), Winners().with_winner(HOME, PLAIN).with_winner(CAFE, CALLED), full()):
        assert decode(encode(winners)) == winners
        assert len(encode(winners)) <= MAX_OCTETS


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 10_000, "no JSON"),
        (b"[]", "version"),
        (b'{"version": 2, "winners": []}', "version"),
        (b'{"version": 1}', "list"),
        (b'{"version": 1, "winners": {}}', "list"),
        (b'{"version": 1, "winners": [7]}', "entry"),
        (b'{"version": 1, "winners": [{"place": "00", "form": "v0", "mirrored": false}]}', "16 octets"),
        (b'{"version": 1, "winners": [{"place": "zz", "form": "v0", "mirrored": false}]}', "hexadecimal"),
        (b'{"version": 1, "winners": [{"place": "00", "form": "v9", "mirrored": false}]}', "form"),
        (b'{"version": 1, "winners": [{"place": "00", "form": "v0", "mirrored": 1}]}', "entry"),
        (b" " * (MAX_OCTETS + 1), "longer"),
    ],
)
def test_what_is_no_such_file_is_refused_with_the_reason(content: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        decode(content)


def test_too_many_entries_are_refused() -> None:
    row = {"place": HOME.hex(), "form": "v0", "mirrored": False}
    crowd = json.dumps({"version": 1, "winners": [row] * (MAX_WINNERS + 1)}, separators=(",", ":")).encode()
    with pytest.raises(Unreadable, match="at most"):
        decode(crowd)


def test_no_mutation_of_a_file_does_more_than_be_refused() -> None:
    rng = random.Random(SEED)
    whole = encode(Winners().with_winner(HOME, PLAIN).with_winner(CAFE, CALLED))
    for number in range(3000):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        del content[rng.randrange(len(content)) if number % 3 == 0 else len(content) :]
        try:
            winners = decode(bytes(content))
        except Unreadable:
            continue
        assert len(winners.entries) <= 2, f"seed {SEED}, number {number}: {content!r}"
