"""Received IPv4 packets to PPP frames: every length is checked, nothing raises."""

from __future__ import annotations

import random
import struct

import pytest

from grepunch.io.rawgre import parse_packet
from grepunch.ports import Form
from tests.io.test_gre_filter import admitted

SOURCE = bytes([192, 0, 2, 1])
FRAME = bytes.fromhex("0053") + bytes(range(31))


def packet(
    gre: bytes, *, options: bytes = b"", total: int | None = None, protocol: int = 47, fragment: int = 0
) -> bytes:
    words = 5 + len(options) // 4
    length = 4 * words + len(gre) if total is None else total
    header = struct.pack("!BBHHHBBH", 0x40 | words, 0, length, 7, fragment, 61, protocol, 0)
    return header + SOURCE + bytes(4) + options + gre


def v1(frame: bytes, length: int | None = None) -> bytes:
    return struct.pack("!HHHHI", 0x3001, 0x880B, len(frame) if length is None else length, 1723, 5) + frame


def v0(frame: bytes) -> bytes:
    return struct.pack("!HH", 0, 0x880B) + frame


@pytest.mark.parametrize("options", [b"", bytes(4), bytes(40)])
def test_both_forms_with_and_without_ip_options(options: bytes) -> None:
    assert parse_packet(packet(v1(FRAME), options=options)) == (SOURCE, Form.V1, FRAME, 61)
    assert parse_packet(packet(v0(FRAME), options=options)) == (SOURCE, Form.V0, FRAME, 61)


def test_what_is_beyond_the_payload_length_is_padding() -> None:
    assert parse_packet(packet(v1(FRAME + b"pad", len(FRAME)))) == (SOURCE, Form.V1, FRAME, 61)


def test_dont_fragment_is_no_fragment() -> None:
    assert parse_packet(packet(v0(FRAME), fragment=0x4000)) is not None


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        packet(v0(FRAME))[:19],
        packet(v0(FRAME), total=10),
        packet(v0(FRAME), total=1500),
        packet(v0(FRAME), protocol=6),
        packet(v0(FRAME), fragment=0x2000),
        packet(v0(FRAME), fragment=0x0001),
        b"\x44" + packet(v0(FRAME))[1:],
        b"\x65" + packet(v0(FRAME))[1:],
        packet(b"\x00\x00\x88"),
        packet(v1(FRAME)[:11]),
        packet(v1(FRAME, len(FRAME) + 1)),
        packet(b"\x30\x81" + v1(FRAME)[2:]),
        packet(b"\x00\x00\x65\x58" + FRAME),
    ],
)
def test_malformed_packets_are_none(malformed: bytes) -> None:
    assert parse_packet(malformed) is None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mutated_packets_are_parsed_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    wells = [packet(v1(FRAME)), packet(v0(FRAME)), packet(v1(FRAME), options=bytes(8))]
    taken = 0
    for _ in range(20_000):
        mutant = bytearray(chance.choice(wells))
        for _ in range(chance.randint(1, 3)):
            mutant[chance.randrange(len(mutant))] = chance.randrange(256)
        if chance.random() < 0.3:
            del mutant[chance.randrange(len(mutant)) :]
        parsed = parse_packet(memoryview(mutant))
        if parsed is not None:
            taken += 1
            _, form, frame, _ = parsed
            assert len(frame) <= len(mutant) - 24
            assert form in Form
            if frame[:2] == FRAME[:2]:
                assert admitted(bytes(mutant))
    assert taken > 1000
