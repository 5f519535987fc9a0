"""MPPE packets: what is sent, what is taken, and what never derails a stream."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from pptp.crypto.legacy import Rc4, Rc4Keys
from pptp.crypto.mppe import (
    MPPE_PROTOCOL,
    OVERHEAD,
    MppeDecryptor,
    MppeEncryptor,
    MppeMode,
    MppePath,
    is_encrypted_by_mppe,
)
from pptp.crypto.mppe_keys import KeyChange, Strength, initial_session_key, next_session_key
from pptp.errors import Drop, DropError, UsageError

START_KEY = bytes(range(16))
STATELESS = MppeMode(Strength.BITS_128, stateless=True)
STATEFUL = MppeMode(Strength.BITS_128, stateless=False)
MODES = [MppeMode(strength, stateless) for strength in Strength for stateless in (True, False)]
IPV4, IPV6 = 0x0021, 0x0057
IPV6_PACKET = b"\x60\0\0\0\0\x03" + bytes(34) + b"six"
FLUSHED, ENCRYPTED = 0x8000, 0x1000


def ip_packet(number: int, size: int = 24) -> bytes:
    return struct.pack("!HHI", 0x4500, size, number) + bytes(size - 8)


def pair(mode: MppeMode) -> tuple[MppeEncryptor, MppeDecryptor]:
    return MppeEncryptor(START_KEY, mode), MppeDecryptor(START_KEY, mode)


def header(packet: bytes) -> int:
    return int(struct.unpack_from("!H", packet)[0])


def take(decryptor: MppeDecryptor, packet: bytes) -> int | Drop:
    """The number in the packet, or why it is dropped."""
    try:
        protocol, data = decryptor.decrypt(packet)
    except DropError as error:
        return error.cause
    assert protocol == IPV4
    return int.from_bytes(data[4:8], "big")


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_carries_more_packets_than_there_are_counts(mode: MppeMode) -> None:
    encryptor, decryptor = pair(mode)
    for number in range(5000):
        assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(number))) == number
    assert decryptor.drops == {}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_interop_41_counts_begin_at_zero_and_bits_are_as_the_rfc_says(mode: MppeMode) -> None:
    encryptor, _ = pair(mode)
    headers = [header(encryptor.encrypt(IPV4, ip_packet(0))) for _ in range(4200)]
    assert [each & 0x0FFF for each in headers] == [number % 4096 for number in range(4200)]
    assert all(each & ENCRYPTED for each in headers)
    flagged = [number for number, each in enumerate(headers) if each & FLUSHED]
    assert flagged == [number for number in range(4200) if mode.stateless or number % 256 == 255]


def test_interop_41_a_stateless_packet_by_hand() -> None:
    encryptor, decryptor = pair(STATELESS)
    key = initial_session_key(START_KEY, Strength.BITS_128)
    for count in range(3):
        key = next_session_key(START_KEY, key, Strength.BITS_128)
        expected = struct.pack("!H", FLUSHED | ENCRYPTED | count) + Rc4(key).update(b"\x00\x57" + IPV6_PACKET)
        assert encryptor.encrypt(IPV6, IPV6_PACKET) == expected
        assert decryptor.decrypt(expected) == (IPV6, IPV6_PACKET)


def test_interop_42_a_stateful_stream_by_hand() -> None:
    """The key stream runs on, and changes before a flag packet; as with all known peers the first has no bit A."""
    encryptor, _ = pair(STATEFUL)
    key = initial_session_key(START_KEY, Strength.BITS_128)
    stream = Rc4(key)
    for count in range(600):
        flag = count % 256 == 255
        if flag:
            key = next_session_key(START_KEY, key, Strength.BITS_128)
            stream = Rc4(key)
        bits = (FLUSHED if flag else 0) | ENCRYPTED | count
        expected = struct.pack("!H", bits) + stream.update(b"\x00\x21" + ip_packet(count))
        assert encryptor.encrypt(IPV4, ip_packet(count)) == expected


def test_interop_41_late_packets_cost_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encryptor, decryptor = pair(STATELESS)
    packets = [encryptor.encrypt(IPV4, ip_packet(number)) for number in range(2100)]
    assert take(decryptor, packets[0]) == 0
    assert take(decryptor, packets[2047]) == 2047
    changes = 0

    def counted(streams: Rc4Keys, key: bytes) -> Callable[[bytes | memoryview], bytes]:
        nonlocal changes
        changes += 1
        return original(streams, key)

    original = Rc4Keys.stream
    monkeypatch.setattr(Rc4Keys, "stream", counted)
    late = [take(decryptor, packet) for packet in packets[:2048]]
    assert late == [Drop.TOO_OLD] * 2048
    assert changes <= 2048 // 2 + 4 * 4096  # the latter once, for keys that will be wanted anyway
    monkeypatch.undo()
    assert take(decryptor, packets[2048]) == 2048


def test_interop_41_far_packets_cost_each_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged counts, of any place in the stream: they neither move it nor rekey it anew."""
    changes = 0

    def counted(self: KeyChange, key: bytes) -> bytes:
        nonlocal changes
        changes += 1
        return original(self, key)

    original = KeyChange.next
    monkeypatch.setattr(KeyChange, "next", counted)
    encryptor, decryptor = pair(STATELESS)
    assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(0))) == 0
    dice = random.Random(41)
    for _ in range(3000):
        forged = struct.pack("!H", FLUSHED | ENCRYPTED | dice.randrange(4096)) + dice.randbytes(40)
        assert isinstance(take(decryptor, forged), Drop)
    assert changes <= 5 * 4096 + 2  # not that many for each of them
    assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(1))) == 1


@pytest.mark.parametrize("mode", [STATELESS, STATEFUL], ids=str)
def test_packets_under_other_keys_change_nothing(mode: MppeMode) -> None:
    encryptor, decryptor = pair(mode)
    stranger = MppeEncryptor(bytes(16), mode)
    for number in range(700):
        foreign = stranger.encrypt(IPV4, ip_packet(number))
        assert take(decryptor, foreign) in (Drop.MALFORMED, Drop.SEQUENCE_JUMP, Drop.TOO_OLD)
        assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(number))) == number
        decryptor.reset_wanted = False


@pytest.mark.parametrize("mode", [STATELESS, STATEFUL], ids=str)
@pytest.mark.parametrize(
    ("packet", "cause"),
    [
        (b"", Drop.MALFORMED),
        (b"\x90", Drop.MALFORMED),
        (b"\x90\x00\x21", Drop.MALFORMED),
        (b"\x80\x00\x00\x21\x45", Drop.CLEARTEXT),
        (b"\x00\x00\x00\x21\x45", Drop.CLEARTEXT),
        (b"\x9f\xff\x00\x21\x45", Drop.TOO_OLD),
        (b"\x98\x00\x00\x21\x45", Drop.TOO_OLD),  # half the space away, one way as far as the other
    ],
)
def test_interop_44_broken_packets_are_counted_by_cause(mode: MppeMode, packet: bytes, cause: Drop) -> None:
    encryptor, decryptor = pair(mode)
    assert take(decryptor, packet) is cause
    assert decryptor.drops == {cause: 1}
    assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(7))) == 7


def test_interop_41_a_stateless_packet_without_bit_a_is_dropped() -> None:
    encryptor, decryptor = pair(STATELESS)
    packet = encryptor.encrypt(IPV4, ip_packet(1))
    assert take(decryptor, bytes((packet[0] & 0x7F,)) + packet[1:]) is Drop.MALFORMED
    assert take(decryptor, packet) == 1


def test_interop_42_a_flag_packet_without_bit_a_is_dropped() -> None:
    encryptor, decryptor = pair(STATEFUL)
    for number in range(255):
        take(decryptor, encryptor.encrypt(IPV4, ip_packet(number)))
    packet = encryptor.encrypt(IPV4, ip_packet(255))
    assert take(decryptor, bytes((packet[0] & 0x7F,)) + packet[1:]) is Drop.MALFORMED
    assert take(decryptor, packet) == 255


@pytest.mark.parametrize("protocol", [b"\x00\x21", b"\x21"])
def test_interop_43_the_inner_protocol_may_have_one_octet(protocol: bytes) -> None:
    _, decryptor = pair(STATELESS)
    key = next_session_key(START_KEY, initial_session_key(START_KEY, Strength.BITS_128), Strength.BITS_128)
    packet = struct.pack("!H", FLUSHED | ENCRYPTED) + Rc4(key).update(protocol + ip_packet(9))
    assert take(decryptor, packet) == 9


def test_interop_43_two_octets_are_sent() -> None:
    encryptor, _ = pair(STATELESS)
    assert len(encryptor.encrypt(IPV4, ip_packet(0))) == len(ip_packet(0)) + OVERHEAD
    assert OVERHEAD == 4


@pytest.mark.parametrize(
    "inner",
    [
        b"\x00\x21",
        b"\x21",
        b"\x00\x21" + IPV6_PACKET,
        b"\x00\x57" + ip_packet(1, 60),
        b"\x00\x21" + ip_packet(1)[:-1],
        b"\x00\x21" + ip_packet(1) + bytes(64),
        b"\x00\x21" + ip_packet(1, 60)[:12],
        b"\xc0\x21" + ip_packet(1),
        b"\x00\xfd" + ip_packet(1),
    ],
)
def test_what_decrypts_to_no_ip_packet_changes_nothing(inner: bytes) -> None:
    encryptor, decryptor = pair(STATELESS)
    key = next_session_key(START_KEY, initial_session_key(START_KEY, Strength.BITS_128), Strength.BITS_128)
    odd = struct.pack("!H", FLUSHED | ENCRYPTED) + Rc4(key).update(inner)
    assert take(decryptor, odd) is Drop.MALFORMED
    assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(3))) == 3


def test_interop_43_only_network_protocols_are_encrypted() -> None:
    encryptor, _ = pair(STATELESS)
    assert [protocol for protocol in range(0x10000) if is_encrypted_by_mppe(protocol)] == list(range(0x21, 0xFB))
    for protocol in (0x0001, 0x00FB, 0x00FD, 0x8021, 0xC021):
        with pytest.raises(UsageError):
            encryptor.encrypt(protocol, b"")


def test_interop_42_a_loss_wants_a_reset_and_the_next_flag_packet_mends_it() -> None:
    encryptor, decryptor = pair(STATEFUL)
    for number in range(10):
        assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(number))) == number
    encryptor.encrypt(IPV4, ip_packet(10))  # lost
    for number in range(11, 14):
        assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(number))) is Drop.SEQUENCE_JUMP
    assert decryptor.reset_wanted
    encryptor.flush()
    encryptor.flush()  # the request was repeated: that changes nothing
    packet = encryptor.encrypt(IPV4, ip_packet(14))
    assert header(packet) == FLUSHED | ENCRYPTED | 0x0FF
    assert take(decryptor, packet) == 14
    assert not decryptor.reset_wanted
    following = encryptor.encrypt(IPV4, ip_packet(15))
    assert header(following) == ENCRYPTED | 0x100
    assert take(decryptor, following) == 15
    assert decryptor.drops == {Drop.SEQUENCE_JUMP: 3}


def test_interop_42_without_a_request_a_flag_packet_mends_a_loss_too() -> None:
    encryptor, decryptor = pair(STATEFUL)
    lost = {3, 255, 600, 601}
    taken = []
    for number in range(1024):
        packet = encryptor.encrypt(IPV4, ip_packet(number))
        if number not in lost and take(decryptor, packet) == number:
            taken.append(number)
    # 255 itself was lost, so that the next chance is 511
    assert taken == [0, 1, 2, *range(511, 600), *range(767, 1024)]


def test_interop_42_a_late_packet_that_closes_the_gap_is_taken() -> None:
    encryptor, decryptor = pair(STATEFUL)
    first, second, third = (encryptor.encrypt(IPV4, ip_packet(number)) for number in range(3))
    assert take(decryptor, first) == 0
    assert take(decryptor, third) is Drop.SEQUENCE_JUMP
    assert take(decryptor, second) == 1
    assert not decryptor.reset_wanted
    assert take(decryptor, third) == 2


def real_packet(number: int, size: int) -> bytes:
    """As on a network: the sum of the header is right."""
    return bytes(IP(src="10.0.0.1", dst="10.0.0.2", id=number) / UDP() / bytes(size - 28))


@pytest.mark.parametrize("strength", list(Strength))
@pytest.mark.parametrize("lost", range(1, 9))
def test_interop_42_the_place_behind_lost_packets_is_found_without_a_reset(lost: int, strength: Strength) -> None:
    encryptor, decryptor = pair(MppeMode(strength, stateless=False))
    rng = random.Random(lost)
    number = 0
    for _ in range(12):
        data = real_packet(number, rng.randrange(28, 1501))
        assert decryptor.decrypt(encryptor.encrypt(IPV4, data)) == (IPV4, data)
        for _ in range(lost):
            encryptor.encrypt(*rng.choice(((IPV4, real_packet(0, rng.randrange(28, 1501))), (IPV6, IPV6_PACKET))))
        number += 1 + lost
        data = real_packet(number, rng.randrange(28, 1501))
        assert decryptor.decrypt(encryptor.encrypt(IPV4, data)) == (IPV4, data)
        assert not decryptor.reset_wanted
        for _ in range(2):
            assert decryptor.decrypt(encryptor.encrypt(IPV6, IPV6_PACKET)) == (IPV6, IPV6_PACKET)
        encryptor.encrypt(IPV6, IPV6_PACKET)
        assert decryptor.decrypt(encryptor.encrypt(IPV6, IPV6_PACKET)) == (IPV6, IPV6_PACKET)
        number += 5
        if number & 0xFF > 0xFF - 4 * lost - 12:
            break


@pytest.mark.parametrize("lost", [2047, 2048, 4095, 4096, 9000, 18_000])
def test_without_state_a_stream_goes_on_behind_any_loss_that_a_second_brings(lost: int) -> None:
    encryptor, decryptor = pair(STATELESS)
    first = real_packet(0, 60)
    for _ in range(lost):
        encryptor.encrypt(IPV4, first)
    packets = [real_packet(number, 60) for number in range(30)]
    opened = [take(decryptor, encryptor.encrypt(IPV4, packet)) for packet in packets]
    senseless = [one for one in opened if isinstance(one, Drop)]
    assert len(senseless) == (0 if lost < 2048 else 7)
    assert not any(isinstance(one, Drop) for one in opened[len(senseless) :])


@pytest.mark.parametrize("forged", range(1, 20))
def test_a_packet_that_opens_is_not_looked_for_elsewhere(monkeypatch: pytest.MonkeyPatch, forged: int) -> None:
    """Forged ones before it must not make it cost the keys of a few rounds of the count."""
    encryptor, decryptor = pair(STATELESS)
    dice = random.Random(42)
    assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(0))) == 0
    for _ in range(forged):
        take(decryptor, struct.pack("!H", FLUSHED | ENCRYPTED | 1) + dice.randbytes(40))
    monkeypatch.setattr(MppeDecryptor, "_open_rounds_ahead", None)
    assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(1))) == 1


def test_interop_42_more_lost_packets_and_lost_flag_packets_want_a_reset() -> None:
    encryptor, decryptor = pair(STATEFUL)
    assert decryptor.decrypt(encryptor.encrypt(IPV4, real_packet(0, 60)))
    for number in range(9):
        encryptor.encrypt(IPV4, real_packet(number, 60))
    assert take(decryptor, encryptor.encrypt(IPV4, real_packet(10, 60))) is Drop.SEQUENCE_JUMP
    assert decryptor.reset_wanted
    encryptor, decryptor = pair(STATEFUL)
    for number in range(0x101):
        packet = encryptor.encrypt(IPV4, real_packet(number, 60))
        if number < 0xFF:
            assert decryptor.decrypt(packet)
    assert header(packet) & 0xFFF == 0x100  # the one before it changed the key, and was lost
    assert take(decryptor, packet) is Drop.SEQUENCE_JUMP
    assert decryptor.reset_wanted


def test_interop_42_noise_is_no_place_and_moves_nothing() -> None:
    encryptor, decryptor = pair(STATEFUL)
    rng = random.Random(42)
    for number in range(20):
        assert decryptor.decrypt(encryptor.encrypt(IPV4, real_packet(number, 100)))
        for ahead in range(1, 200):
            forged = struct.pack("!H", ENCRYPTED | (number + 1 + ahead % 9)) + rng.randbytes(rng.randrange(2, 1500))
            assert isinstance(take(decryptor, forged), Drop)
    assert decryptor.decrypt(encryptor.encrypt(IPV4, real_packet(20, 100)))


def test_a_stateless_stream_ignores_a_reset() -> None:
    encryptor, decryptor = pair(STATELESS)
    encryptor.flush()
    assert header(packet := encryptor.encrypt(IPV4, ip_packet(0))) == FLUSHED | ENCRYPTED
    assert take(decryptor, packet) == 0


class OtherStateful:
    """A stateful end as other systems read the RFC, sender and receiver in one (make one for each direction)."""

    changes_key: bool  # at any bit A, or at flag packets alone

    def __init__(self) -> None:
        self.key = initial_session_key(START_KEY, Strength.BITS_128)
        self.stream = Rc4(self.key)
        self.count = 0  # of the next packet
        self.lost_place = False
        self.flush = False

    def change(self) -> None:
        self.key = next_session_key(START_KEY, self.key, Strength.BITS_128)

    def encrypt(self, data: bytes) -> bytes:
        flag = self.count & 0xFF == 0xFF
        bits = 0
        if flag or self.flush:
            bits, self.flush = FLUSHED, False
            if flag or self.changes_key:
                self.change()
            self.stream = Rc4(self.key)
        packet = struct.pack("!H", bits | ENCRYPTED | self.count) + self.stream.update(b"\x00\x21" + data)
        self.count = (self.count + 1) & 0xFFF
        return packet

    def decrypt(self, packet: bytes) -> bytes | None:
        bits = header(packet)
        if not self.finds_place(bits & 0xFFF, bool(bits & FLUSHED)):
            return None
        return self.stream.update(packet[2:])

    def finds_place(self, count: int, flushed: bool) -> bool:
        raise AssertionError("one of the two below")


class LikeNpppd(OtherStateful):
    """FreeBSD and npppd: bit A starts the stream of the present key anew; flag packets that were missed count."""

    changes_key = False

    def finds_place(self, count: int, flushed: bool) -> bool:
        if not flushed and count != self.count:
            return False
        while self.count != count:
            if self.count & 0xFF == 0xFF:
                self.change()
            self.count = (self.count + 1) & 0xFFF
        if count & 0xFF == 0xFF:
            self.change()
        if flushed:
            self.stream = Rc4(self.key)
        self.count = (count + 1) & 0xFFF
        return True


class LikeLinux(OtherStateful):
    """Linux and lwIP: bit A changes the key, and the packet after a gap is lost even if it has one."""

    changes_key = True

    def finds_place(self, count: int, flushed: bool) -> bool:
        if not self.lost_place and count != self.count:
            self.lost_place = True
            return False
        if self.lost_place:
            if not flushed:
                return False
            while count & 0xF00 != self.count & 0xF00:
                self.change()
                self.count = (self.count + 0x100) & 0xFFF
            self.lost_place = False
        if flushed:
            self.change()
            self.stream = Rc4(self.key)
        self.count = (count + 1) & 0xFFF
        return True


BOTH_KINDS = pytest.mark.parametrize("kind", [LikeNpppd, LikeLinux])


@BOTH_KINDS
def test_interop_42_our_resets_reach_both_kinds_of_receivers(kind: type[OtherStateful]) -> None:
    encryptor = MppeEncryptor(START_KEY, STATEFUL)
    other = kind()
    dice = random.Random(42)
    taken, since_reset = 0, 0
    for number in range(4000):
        packet = encryptor.encrypt(IPV4, ip_packet(number))
        if dice.random() < 0.01:
            continue
        plain = other.decrypt(packet)
        if plain is None:
            since_reset += 1
            if since_reset % 5 == 1:
                encryptor.flush()
            continue
        since_reset = 0
        taken += 1
        assert plain == b"\x00\x21" + ip_packet(number)
    assert taken > 3500


@BOTH_KINDS
def test_interop_42_resets_of_both_kinds_of_senders_are_understood(kind: type[OtherStateful]) -> None:
    other = kind()
    decryptor = MppeDecryptor(START_KEY, STATEFUL)
    dice = random.Random(43)
    taken = wrong = 0
    for number in range(4000):
        packet = other.encrypt(ip_packet(number))
        if dice.random() < 0.02:
            continue  # now and then the flushed packet itself
        got = take(decryptor, packet)
        if got == number:
            taken += 1
        elif isinstance(got, int):
            wrong += 1
        if decryptor.reset_wanted:
            other.flush = True
    assert wrong == 0
    assert taken > 3600


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(0, 4095), st.booleans())
def test_a_stateless_stream_takes_exactly_what_is_ahead(order: list[int], skipped: int, weak: bool) -> None:
    """Whatever is lost, repeated or swapped: a packet is taken if it is later than all taken before, else dropped."""
    mode = MppeMode(Strength.BITS_40 if weak else Strength.BITS_128, stateless=True)
    encryptor, decryptor = pair(mode)
    for number in range(skipped):
        packet = encryptor.encrypt(IPV4, ip_packet(number))
        if number % 1000 == 999:
            take(decryptor, packet)
    packets = [encryptor.encrypt(IPV4, ip_packet(number)) for number in range(61)]
    latest = -1
    for number in order:
        expected = number if number > latest else Drop.TOO_OLD
        assert take(decryptor, packets[number]) == expected
        latest = max(latest, number)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=80), st.integers(0, 600))
def test_a_stateful_stream_never_says_anything_wrong(steps: list[tuple[bool, int]], skipped: int) -> None:
    """Losses, and resets that arrive or not: what is taken is what was sent, and after a reset packets are taken."""
    encryptor, decryptor = pair(STATEFUL)
    for number in range(skipped):
        take(decryptor, encryptor.encrypt(IPV4, ip_packet(number)))
    number = skipped
    for reset, lost in steps:
        for _ in range(lost):
            encryptor.encrypt(IPV4, ip_packet(number))
            number += 1
        if reset and decryptor.reset_wanted:
            encryptor.flush()
        got = take(decryptor, encryptor.encrypt(IPV4, ip_packet(number)))
        assert got in (number, Drop.SEQUENCE_JUMP)
        number += 1
    encryptor.flush()
    assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(number))) == number
    assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(number + 1))) == number + 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_octets_are_an_ip_packet_or_a_drop(packet: bytes, stateless: bool) -> None:
    encryptor, decryptor = pair(MppeMode(Strength.BITS_128, stateless))
    try:
        _, data = decryptor.decrypt(packet)
    except DropError:
        assert take(decryptor, encryptor.encrypt(IPV4, ip_packet(0))) == 0
    else:
        assert data[0] >> 4 in (4, 6)


@pytest.mark.parametrize("mode", [STATELESS, STATEFUL], ids=str)
def test_views_of_a_buffer_will_do(mode: MppeMode) -> None:
    encryptor, decryptor = pair(mode)
    packet = encryptor.encrypt(IPV4, memoryview(ip_packet(1)))
    assert decryptor.decrypt(memoryview(b"before" + packet)[6:]) == (IPV4, ip_packet(1))


def test_padding_is_left_to_the_ip_packet() -> None:
    encryptor, decryptor = pair(STATEFUL)
    assert decryptor.decrypt(encryptor.encrypt(IPV4, ip_packet(1) + bytes(22)))[1] == ip_packet(1) + bytes(22)


def test_interop_44_nothing_passes_in_clear_where_encryption_is_required() -> None:
    path = MppePath(required=True)
    for protocol in (IPV4, IPV6):
        for way in (path.seal, path.open):
            with pytest.raises(DropError) as dropped:
                way(protocol, ip_packet(1))
            assert dropped.value.cause is Drop.CLEARTEXT
    with pytest.raises(DropError) as dropped:
        path.open(MPPE_PROTOCOL, b"\x90\x00\x00\x21\x45")
    assert dropped.value.cause is Drop.WRONG_PHASE
    for protocol in (0x8021, 0x80FD, 0xC021, 0xC223):
        assert path.seal(protocol, b"control") == path.open(protocol, b"control") == (protocol, b"control")
    encryptor, decryptor = pair(STATELESS)
    path.rekey(encryptor, decryptor)
    assert path.open(*path.seal(IPV4, ip_packet(1))) == (IPV4, ip_packet(1))
    with pytest.raises(DropError):
        path.open(IPV4, ip_packet(1))
    path.rekey(None, None)
    with pytest.raises(DropError):
        path.seal(IPV4, ip_packet(2))
    assert path.drops == {Drop.CLEARTEXT: 6, Drop.WRONG_PHASE: 1}


def test_interop_44_an_optional_path_is_clear_until_it_is_keyed() -> None:
    path = MppePath(required=False)
    assert path.seal(IPV4, ip_packet(1)) == path.open(IPV4, ip_packet(1)) == (IPV4, ip_packet(1))
    encryptor, decryptor = pair(STATEFUL)
    path.rekey(None, decryptor)  # the peer encrypts, we do not
    assert path.seal(IPV4, ip_packet(1)) == (IPV4, ip_packet(1))
    assert path.open(MPPE_PROTOCOL, encryptor.encrypt(IPV4, ip_packet(2))) == (IPV4, ip_packet(2))
    with pytest.raises(DropError):
        path.open(IPV4, ip_packet(1))
    with pytest.raises(DropError):
        path.open(MPPE_PROTOCOL, b"\x00\x00 in clear")
    assert path.drops == {Drop.CLEARTEXT: 2}
    assert decryptor.drops == {Drop.CLEARTEXT: 1}
