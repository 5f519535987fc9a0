"""The probe codec: 44 octets, authentic or refused."""

from __future__ import annotations

import hashlib
import hmac
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grepunch.punch.probe import PROBE_SIZE, Probe, SequenceWindow, open_probe, seal_probe
from pptp.errors import WireCause, WireError
from pptp.mtu import GRE_V1_HEADER, IPV4_HEADER
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear

KEY = bytes(range(32))
u32 = st.integers(0, 2**32 - 1)
ids = st.binary(min_size=8, max_size=8)
probes = st.builds(Probe, ids, u32, ids, u32, st.booleans(), st.integers(0, 255), heard_count=st.integers(0, 2**16 - 1))


@given(probes)
def test_a_probe_comes_back_as_it_was(probe: Probe) -> None:
    body = seal_probe(KEY, probe)
    assert len(body) == PROBE_SIZE == 44
    assert open_probe(KEY, body) == probe
    assert open_probe(KEY, memoryview(body)) == probe


def test_the_layout_octet_by_octet() -> None:
    probe = Probe(b"ATTEMPT1", 0x01020304, b"PEERSONE", 0x05060708, True, 61, 70000)
    fields = b"ATTEMPT1" + bytes.fromhex("01020304") + b"PEERSONE" + bytes.fromhex("05060708 01 3d ffff")
    assert seal_probe(KEY, probe) == fields + hmac.new(KEY, fields, hashlib.sha256).digest()[:16]


def test_a_whole_packet_stays_under_a_hundred_octets() -> None:
    frame = build_clear(ClearPacket(ClearKind.PROBE, seal_probe(KEY, Probe(b"ATTEMPT1", 1))))
    assert IPV4_HEADER + GRE_V1_HEADER + len(frame) == 92


def test_every_single_bit_flip_is_refused() -> None:
    body = seal_probe(KEY, Probe(b"ATTEMPT1", 7, b"PEERSONE", 9))
    for bit in range(len(body) * 8):
        mutated = bytearray(body)
        mutated[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError) as refused:
            open_probe(KEY, bytes(mutated))
        assert refused.value.cause is WireCause.BAD_VALUE


@pytest.mark.parametrize(
    ("size", "cause"), [(0, WireCause.TRUNCATED), (43, WireCause.TRUNCATED), (45, WireCause.TRAILING)]
)
def test_another_size_is_refused(size: int, cause: WireCause) -> None:
    with pytest.raises(WireError) as refused:
        open_probe(KEY, (seal_probe(KEY, Probe(b"ATTEMPT1", 7)) + b"\0")[:size])
    assert refused.value.cause is cause


def test_a_reflected_probe_is_a_forged_one() -> None:
    with pytest.raises(WireError):
        open_probe(bytes(32), seal_probe(KEY, Probe(b"ATTEMPT1", 7)))


def test_each_sequence_number_is_taken_once() -> None:
    seed = 20240611
    rng = random.Random(seed)
    window, taken, highest = SequenceWindow(), set[int](), -1
    for _ in range(5000):
        sequence = max(0, highest + rng.randint(-200, 20))
        expected = sequence not in taken and sequence > highest - SequenceWindow.SIZE
        assert window.take(sequence) is expected, f"seed {seed}"
        taken.add(sequence)
        highest = max(highest, sequence)


def test_a_jump_over_the_whole_number_space_costs_nothing() -> None:
    window = SequenceWindow()
    assert window.take(1)
    assert window.take(2**32 - 1)
    assert not window.take(1)
