"""Handshake datagrams: every flipped bit, every cut, cookies, fragments and floods."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.secure.admission import Admission
from grepunch.secure.constants import (
    COOKIE_ROTATION,
    FRAGMENT_DATA,
    HANDSHAKES_PER_SECOND,
    MAX_MESSAGE,
    MAX_SOURCES,
    REASSEMBLY_SLOTS,
    REASSEMBLY_SOURCES,
    REASSEMBLY_TIME,
    SOURCE_BURST,
)
from grepunch.secure.derive import fragment_key, mac, mac1_key
from grepunch.secure.events import KeysLive
from grepunch.secure.fragments import Reassembler, build_fragments
from grepunch.secure.handshake import (
    MessageType,
    build_cookie_reply,
    cookie_of,
    open_cookie_reply,
    open_initiation,
    parse_header,
    with_cookie,
)
from grepunch.secure.identity import Identity
from pptp.errors import Drop, DropError, UsageError, WireCause, WireError
from tests.secure.exchange_world import Host, Link, World

MALFORMED_OR_DROPPED = (WireError, DropError)


def initiation(world: World, host: Host | None = None) -> bytes:
    host = host if host is not None else world.a
    host.exchange.initiate(world.now)
    (message,) = host.exchange.transmits()
    return message


def flips(datagram: bytes) -> list[bytes]:
    return [
        datagram[:at] + bytes([datagram[at] ^ (1 << bit)]) + datagram[at + 1 :]
        for at in range(len(datagram))
        for bit in range(8)
    ]


# -- tampering ------------------------------------------------------------------------------------------------


def test_no_flipped_bit_of_message_1_completes_and_the_genuine_one_still_does() -> None:
    world = World(1)
    genuine = initiation(world)
    for forged in flips(genuine):
        world.deliver(world.b, forged)
        world.now += 1 / HANDSHAKES_PER_SECOND
    assert not world.b.log
    assert not world.b.exchange.pairs
    # A changed cookie field is answered by a cookie, and by nothing more.
    answers = [datagram for host, datagram in world.recorded if host is world.b]
    assert {datagram[0] for datagram in answers} == {MessageType.COOKIE}
    assert len(answers) == 128
    world.wire.clear()
    world.deliver(world.b, genuine)
    world.run_for(1)
    assert world.agree()


def test_no_flipped_bit_of_message_2_completes_and_the_genuine_one_still_does() -> None:
    world = World(2)
    world.initiate(world.a)
    world.run_for(0.021)
    genuine = next(datagram for host, datagram in world.recorded if host is world.b)
    world.wire.clear()
    forgeries = flips(genuine)
    for forged in forgeries:
        world.deliver(world.a, forged)
    assert not world.a.log
    assert not world.a.exchange.pairs
    assert sum(world.a.exchange.drops.values()) == len(forgeries)
    world.deliver(world.a, genuine)
    world.run_for(1)
    assert world.agree()
    assert len(world.b.of(KeysLive)) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_flips_that_renew_mac1_fail_in_the_handshake_itself(number: int) -> None:
    """MAC1 is no secret: who knows the public key can renew it, and gains nothing."""
    world = World(3)
    genuine = initiation(world)
    victim, tail = world.b, 16
    if number == 2:
        world.deliver(world.b, genuine)
        genuine = next(datagram for host, datagram in world.recorded if host is world.b)
        victim, tail = world.a, 0
        world.b.log.clear()
    end = len(genuine) - 16 - tail
    for at in [*range(12), *range(12, end, 3)]:
        forged = bytearray(genuine)
        forged[at] ^= 1 << (at % 8)
        forged[end : end + 16] = mac(mac1_key(victim.identity.public_key), bytes(forged[:end]))
        world.deliver(victim, bytes(forged))
        world.now += 1 / HANDSHAKES_PER_SECOND
    assert not victim.log
    assert not world.a.exchange.pairs
    world.wire.clear()
    world.deliver(victim, genuine)
    world.run_for(1)
    assert world.agree()


def test_every_cut_is_refused() -> None:
    world = World(4)
    genuine = initiation(world)
    for size in range(len(genuine)):
        with pytest.raises(MALFORMED_OR_DROPPED):
            open_initiation(world.b.identity, genuine[:size])
    with pytest.raises(MALFORMED_OR_DROPPED):
        open_initiation(world.b.identity, genuine + b"\0")


def test_a_message_1_for_somebody_else_is_not_opened() -> None:
    world, other = World(5), World(6)
    with pytest.raises(DropError) as caught:
        open_initiation(other.b.identity, initiation(world))
    assert caught.value.cause is Drop.BAD_TAG


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        ((0, 1, 0, 1, 0), WireCause.BAD_TYPE),
        ((4, 1, 0, 1, 0), WireCause.BAD_TYPE),
        ((1, 2, 0, 1, 0), WireCause.BAD_VERSION),
        ((1, 1, 1, 1, 0), WireCause.BAD_FLAGS),
        ((1, 1, 0, 0, 0), WireCause.BAD_VALUE),
        ((1, 1, 0, 1, 1), WireCause.BAD_VALUE),
        ((2, 1, 0, 1, 0), WireCause.BAD_VALUE),
        ((2, 1, 0, 0, 1), WireCause.BAD_VALUE),
        ((3, 1, 0, 1, 1), WireCause.BAD_VALUE),
        ((3, 1, 0, 0, 1), WireCause.TRAILING),
    ],
)
def test_headers_that_are_none(header: tuple[int, int, int, int, int], cause: WireCause) -> None:
    with pytest.raises(WireError) as caught:
        parse_header(struct.pack("!BBHII", *header) + bytes(100))
    assert caught.value.cause is cause


@pytest.mark.parametrize(("size", "cause"), [(43, WireCause.TRUNCATED), (MAX_MESSAGE + 1, WireCause.OVERSIZE)])
def test_datagrams_of_no_plausible_size(size: int, cause: WireCause) -> None:
    with pytest.raises(WireError) as caught:
        parse_header(b"\x01\x01\x00\x00".ljust(size, b"\1"))
    assert caught.value.cause is cause


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=1500), st.sampled_from([1, 2, 3]))
def test_noise_in_handshakes_is_dropped_silently(noise: bytes, kind: int) -> None:
    world = WORLD
    for datagram in (noise, bytes([kind, 1, 0, 0]) + noise):
        before = len(world.recorded)
        if datagram:
            world.deliver(world.a, datagram)
            world.deliver(world.b, datagram)
        assert len(world.recorded) == before
        assert not world.b.exchange.pairs


WORLD = World(7)
WORLD.initiate(WORLD.a)


# -- cookies and floods ---------------------------------------------------------------------------------------


def test_a_cookie_reply_is_bound_to_the_request_and_to_the_responder() -> None:
    world = World(8)
    first = initiation(world)
    cookie = bytes(range(16))
    reply = build_cookie_reply(world.b.identity.public_key, first, cookie)
    assert len(reply) == 44 < len(first)
    assert open_cookie_reply(world.b.identity.public_key, first, reply) == cookie
    second = initiation(World(9))
    for key, request, forged in [
        (world.a.identity.public_key, first, reply),
        (world.b.identity.public_key, second, reply),
        *((world.b.identity.public_key, first, flipped) for flipped in flips(reply)),
    ]:
        with pytest.raises(DropError):
            open_cookie_reply(key, request, forged)


def test_a_forged_cookie_reply_does_not_disturb_the_attempt() -> None:
    world = World(10)
    world.initiate(world.a)
    mine = world.recorded[0][1]
    index = parse_header(mine).sender_index
    stranger = struct.pack("!BBHII", 3, 1, 0, 0, index) + bytes(32)  # knows the index, not MAC1
    world.deliver(world.a, stranger)
    assert world.a.exchange.drops == {Drop.BAD_TAG: 1}
    assert len(world.recorded) == 1


def flood(world: World, seconds: float, rate: int, *, target: Host) -> int:
    """Strangers who know the public key send messages 1 from forged sources; returns how many would be opened."""
    key = mac1_key(target.identity.public_key)
    bodies = [initiation(World(seed))[:-32] for seed in range(100, 103)]
    messages = [body + mac(key, body) + bytes(16) for body in bodies]
    admitted = 0
    for number in range(int(seconds * rate)):
        world.run_for(1 / rate)
        source = world.rng.randbytes(4)
        admitted += target.admission.admit(messages[number % 3], source, world.now) is None
    return admitted


def test_a_dial_succeeds_amid_a_flood_of_2000_a_second() -> None:
    world = World(11)
    flood(world, 0.5, 2000, target=world.b)
    world.initiate(world.a)
    admitted = flood(world, 1.0, 2000, target=world.b)
    assert world.agree()
    assert admitted <= HANDSHAKES_PER_SECOND * 1.1
    assert world.b.admission.sources <= 2  # strangers without a cookie are not remembered
    sent = [datagram for host, datagram in world.recorded if host is world.a and datagram[0] == 1]
    assert cookie_of(sent[0]) == bytes(16)
    assert cookie_of(sent[-1]) != bytes(16)
    assert sent[0][:-16] == sent[-1][:-16]  # identical but for the cookie


def test_a_source_with_a_cookie_is_limited_on_its_own() -> None:
    world = World(12)
    message = initiation(world)
    door = Admission(world.b.identity.public_key, world.rng.randbytes, world.now)
    reply = door.admit(with_cookie(message, b"?" * 16), b"source", world.now)
    assert reply is not None
    cookie = open_cookie_reply(world.b.identity.public_key, message, reply)
    for _ in range(int(SOURCE_BURST)):
        assert door.admit(with_cookie(message, cookie), b"source", world.now) is None
    for _ in range(100):
        with pytest.raises(DropError) as caught:
            door.admit(with_cookie(message, cookie), b"source", world.now)
        assert caught.value.cause is Drop.RATE_LIMITED
    assert door.admit(with_cookie(message, cookie), b"other source", world.now) is not None
    assert door.admit(message, b"source", world.now) is None  # the open share is untouched


def test_cookies_rotate_and_sources_are_forgotten() -> None:
    world = World(13)
    message = initiation(world)
    door = Admission(world.b.identity.public_key, world.rng.randbytes, 0.0)

    def cookie_for(source: bytes, now: float) -> bytes:
        reply = door.admit(with_cookie(message, b"?" * 16), source, now)
        assert reply is not None
        return open_cookie_reply(world.b.identity.public_key, message, reply)

    cookie = cookie_for(b"s", 1.0)
    assert door.admit(with_cookie(message, cookie), b"s", COOKIE_ROTATION + 1) is None
    assert door.admit(with_cookie(message, cookie), b"s", 2 * COOKIE_ROTATION + 1) is not None
    late = cookie_for(b"s", 500.0)
    assert door.admit(with_cookie(message, late), b"s", 100_000.0) is not None  # after a long sleep
    for number in range(MAX_SOURCES + 100):
        source = number.to_bytes(4, "big")
        now = 200_000.0 + number / 10
        door.admit(with_cookie(message, cookie_for(source, now)), source, now)
    assert door.sources == MAX_SOURCES


# -- fragments ------------------------------------------------------------------------------------------------

OWN = Identity.from_private_key(bytes(range(1, 33)))


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=MAX_MESSAGE), st.randoms(use_true_random=False))
def test_fragments_come_together_in_any_order(datagram: bytes, rng: random.Random) -> None:
    parts = build_fragments(datagram, OWN.public_key)
    assert len(parts) == (1 if len(datagram) <= FRAGMENT_DATA else 2)
    assert all(len(part) <= 26 + FRAGMENT_DATA for part in parts)
    rng.shuffle(parts)
    reassembler = Reassembler(OWN.public_key)
    whole = [reassembler.receive("peer", part, 0.0) for part in parts]
    assert whole == [None] * (len(parts) - 1) + [datagram]
    assert reassembler.held == 0


def test_a_part_lost_of_the_first_sending_is_made_good_by_the_second() -> None:
    datagram = random.Random(1).randbytes(1355)
    reassembler = Reassembler(OWN.public_key)
    assert reassembler.receive("peer", build_fragments(datagram, OWN.public_key)[0], 0.0) is None
    assert reassembler.receive("peer", build_fragments(datagram, OWN.public_key)[1], 0.5) == datagram


def test_parts_wait_no_longer_than_their_time_and_not_for_another_source() -> None:
    first, second = build_fragments(random.Random(2).randbytes(1355), OWN.public_key)
    reassembler = Reassembler(OWN.public_key)
    assert reassembler.receive("peer", first, 0.0) is None
    assert reassembler.receive("other", second, 0.1) is None
    assert reassembler.receive("peer", second, REASSEMBLY_TIME) is None
    assert reassembler.receive("peer", first, REASSEMBLY_TIME + 0.1) is not None


def test_every_flipped_bit_of_a_fragment_is_refused_before_it_takes_memory() -> None:
    (part,) = build_fragments(b"short", OWN.public_key)
    first, _ = build_fragments(bytes(1355), OWN.public_key)
    reassembler = Reassembler(OWN.public_key)
    for forged in [*flips(part), *flips(first)[:400], part[:26], b"", part + b"\0", first[:-1], part + bytes(1000)]:
        with pytest.raises(MALFORMED_OR_DROPPED):
            reassembler.receive("peer", forged, 0.0)
    assert reassembler.held == 0


def test_parts_that_do_not_belong_together_are_refused() -> None:
    def part(number: int, count: int, data: bytes) -> bytes:
        head = b"same id!" + bytes([number, count])
        return head + mac(fragment_key(OWN.public_key), head, data) + data

    reassembler = Reassembler(OWN.public_key)
    assert reassembler.receive("peer", part(0, 2, b"one"), 0.0) is None
    with pytest.raises(DropError) as caught:
        reassembler.receive("peer", part(1, 2, b"two"), 0.0)
    assert caught.value.cause is Drop.MALFORMED
    assert reassembler.held == 0
    for number, count in ((0, 0), (1, 1), (2, 2), (0, 3)):
        with pytest.raises(WireError):
            reassembler.receive("peer", part(number, count, b"data"), 0.0)


def test_reassembly_memory_is_capped_and_the_newest_gets_through() -> None:
    rng = random.Random(4)
    reassembler = Reassembler(OWN.public_key)
    for source in range(REASSEMBLY_SOURCES + 50):
        for _ in range(REASSEMBLY_SLOTS + 4):
            reassembler.receive(source, build_fragments(rng.randbytes(MAX_MESSAGE), OWN.public_key)[0], 0.0)
    assert reassembler.held == REASSEMBLY_SOURCES * REASSEMBLY_SLOTS * FRAGMENT_DATA < 1_000_000
    datagram = rng.randbytes(1355)
    parts = build_fragments(datagram, OWN.public_key)
    assert [reassembler.receive("genuine", part, 0.0) for part in parts] == [None, datagram]


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1])
def test_a_datagram_that_cannot_travel_is_our_bug(size: int) -> None:
    with pytest.raises(UsageError):
        build_fragments(bytes(size), OWN.public_key)


def test_the_sizes_of_the_messages() -> None:
    world = World(14, Link())
    world.initiate(world.a)
    world.run_for(0.05)
    message_1, message_2 = (datagram for _, datagram in world.recorded[:2])
    assert (len(message_1), len(message_2)) == (1355, 1194)
