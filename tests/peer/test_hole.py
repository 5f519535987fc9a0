"""The hole in use: it is measured, it follows the peer's nomination, and it moves only after an answer from there."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest

from grepunch.peer.hole import (
    CHALLENGE_INTERVAL,
    FIRST_MEASURE,
    STRANGE_ANSWER_INTERVAL,
    FirstFrame,
    Hole,
    HoleEvent,
    InnerMtu,
    Moved,
    Place,
    Silent,
)
from grepunch.ports import Form
from pptp.wire.sealed import EMPTY_PROTOCOL
from pptp.wire.vendor import VENDOR_NETWORK_PROTOCOL, SealedKind, parse_vendor_network

HERE: Place = (IPv4Address("198.51.100.10"), Form.V1)
SAME_ADDRESS: Place = (HERE[0], Form.V0)
ELSEWHERE: Place = (IPv4Address("203.0.113.77"), Form.V1)


def hole() -> Hole:
    made = Hole(keepalive=4.0, entropy=random.Random(1).randbytes)
    made.use(HERE, 0.0)
    return made


def said(made: Hole) -> list[tuple[SealedKind | None, bytes, Place]]:
    """What the hole wants to send; None for an empty frame."""
    out: list[tuple[SealedKind | None, bytes, Place]] = []
    for item in made.transmits():
        if item.protocol == EMPTY_PROTOCOL:
            out.append((None, item.data, item.place))
        else:
            assert item.protocol == VENDOR_NETWORK_PROTOCOL
            kind, body = parse_vendor_network(item.data)
            out.append((kind, body, item.place))
    return out


def kinds(events: list[HoleEvent]) -> list[type[object]]:
    return [type(event) for event in events]


def test_a_nominated_path_is_told_to_the_peer_at_once() -> None:
    made = hole()
    assert (None, b"", HERE) in said(made)
    assert InnerMtu(1335) in made.events()
    assert not made.heard
    made.frame_from(HERE, 0.1, follow=False, current=True)
    assert made.events() == [FirstFrame(HERE)]
    made.frame_from(HERE, 0.2, follow=False, current=True)
    assert made.events() == []


def test_the_round_trip_is_measured() -> None:
    made = hole()
    made.frame_from(HERE, 0.0, follow=False, current=True)
    said(made)
    made.handle_timeout(FIRST_MEASURE)
    (challenge,) = [body for kind, body, place in said(made) if kind is SealedKind.PATH_CHALLENGE and place == HERE]
    assert made.receive(SealedKind.PATH_RESPONSE, b"another!", HERE, FIRST_MEASURE + 0.01)
    assert made.path.rtt is None
    assert made.receive(SealedKind.PATH_RESPONSE, challenge, ELSEWHERE, FIRST_MEASURE + 0.01)
    assert made.path.rtt is None, "an answer from elsewhere measures nothing"
    assert made.receive(SealedKind.PATH_RESPONSE, challenge, HERE, FIRST_MEASURE + 0.025)
    assert made.path.rtt is not None
    assert abs(made.path.rtt - 0.025) < 1e-9


def test_the_pac_follows_the_form_that_the_pns_nominated() -> None:
    made = hole()
    made.frame_from(SAME_ADDRESS, 1.0, follow=True, current=True)
    assert made.place == SAME_ADDRESS
    assert FirstFrame(SAME_ADDRESS) in made.events()
    leader = hole()
    leader.frame_from(SAME_ADDRESS, 1.0, follow=False, current=True)
    assert leader.place == HERE


def test_another_source_is_asked_before_anything_moves_there() -> None:
    made = hole()
    said(made)
    made.events()
    made.frame_from(ELSEWHERE, 1.0, follow=True, current=False)
    assert said(made) == [], "a frame under older keys moves nothing"
    for n in range(5):
        made.frame_from(ELSEWHERE, 1.0 + n / 10, follow=True, current=True)
    ((kind, value, place),) = said(made)
    assert (kind, place) == (SealedKind.PATH_CHALLENGE, ELSEWHERE), "once a second, and no more"
    assert made.place == HERE
    made.receive(SealedKind.PATH_RESPONSE, value, HERE, 1.6)
    assert made.place == HERE, "the answer has to come from there"
    made.receive(SealedKind.PATH_RESPONSE, value, ELSEWHERE, 1.7)
    assert made.place == ELSEWHERE
    assert Moved(ELSEWHERE) in made.events()
    made.receive(SealedKind.PATH_RESPONSE, value, HERE, 1.8)
    assert made.place == ELSEWHERE, "an answer counts once"
    made.frame_from(HERE, 1.0 + CHALLENGE_INTERVAL + 1, follow=True, current=True)
    assert any(kind is SealedKind.PATH_CHALLENGE for kind, _, _ in said(made))


def test_answers_are_no_larger_than_what_asked_for_them() -> None:
    made = hole()
    said(made)
    assert made.receive(SealedKind.PATH_CHALLENGE, b"8 octets", ELSEWHERE, 1.0)
    assert said(made) == [(SealedKind.PATH_RESPONSE, b"8 octets", ELSEWHERE)]
    assert made.receive(SealedKind.MTU_PROBE, (1500).to_bytes(2, "big") + bytes(1400), HERE, 1.0)
    assert said(made) == [(SealedKind.MTU_REPLY, (1500).to_bytes(2, "big"), HERE)]
    for kind, body in (
        (SealedKind.PATH_CHALLENGE, b"7 octet"),
        (SealedKind.MTU_PROBE, b"1"),
        (SealedKind.MTU_REPLY, b"123"),
    ):
        assert not made.receive(kind, body, HERE, 1.0)
    assert said(made) == []


@pytest.mark.parametrize("kind", [SealedKind.PATH_CHALLENGE, SealedKind.MTU_PROBE])
def test_places_that_have_proven_nothing_are_answered_once_a_second(kind: SealedKind) -> None:
    made = hole()
    said(made)
    for number in range(300):  # as whoever rewrites source addresses on the path can have it
        assert made.receive(kind, bytes(8), (ELSEWHERE[0] + number, Form.V1), number / 100)
    assert len(said(made)) == 3 / STRANGE_ANSWER_INTERVAL
    for _ in range(100):
        made.receive(kind, bytes(8), HERE, 3.0)
    assert len(said(made)) == 100, "the hole itself is always answered"


def test_silence_is_told_and_a_hole_that_was_left_says_nothing() -> None:
    made = hole()
    made.frame_from(HERE, 0.0, follow=False, current=True)
    told: list[HoleEvent] = []
    now = 0.0
    while now < 16:
        deadline = made.deadline()
        assert deadline is not None
        now = max(now, deadline)
        made.handle_timeout(now)
        told += made.events()
    silences = [event for event in told if isinstance(event, Silent)]
    assert [event.dead for event in silences] == [False, True]
    assert not made.alive
    said(made)
    made.leave()
    made.handle_timeout(now + 60)
    assert said(made) == []


def test_the_pns_gives_the_pac_a_moment_to_follow_before_it_asks_at_another_form() -> None:
    made = hole()
    made.use(HERE, 0.0)
    made.transmits()
    made.frame_from(SAME_ADDRESS, 0.5, follow=False, current=True)
    assert made.transmits() == []
    made.frame_from(SAME_ADDRESS, 1.0, follow=False, current=True)
    assert [out.place for out in made.transmits()] == [SAME_ADDRESS]
