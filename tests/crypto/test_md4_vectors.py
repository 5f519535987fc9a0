"""MD4 against the vectors of its RFC, and against an independent transcription of it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pptp.crypto.md4 import md4

# RFC 1320 appendix A.5
VECTORS = {
    b"": "31d6cfe0d16ae931b73c59d7e0c089c0",
    b"a": "bde52cb31de33e46245e05fbdbd6fb24",
    b"abc": "a448017aaf21d8525fc10ae87aa6729d",
    b"message digest": "d9130a8164549fe818874806e1c7014b",
    b"abcdefghijklmnopqrstuvwxyz": "d79e1c308aa5bbcdeea8ed63df412da9",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789": "043f8582f241db351ce627e153e7f0e4",
    b"1234567890" * 8: "e33b4ddc9c38f2199c3e7b164fcc0536",
}


@pytest.mark.parametrize("data", VECTORS, ids=len)
def test_rfc_1320_vectors(data: bytes) -> None:
    assert md4(data).hex() == VECTORS[data]


def second_transcription(data: bytes) -> bytes:
    """RFC 1320 written out step by step, in the order of its section 3.4."""
    data_bits = 8 * len(data)
    data += b"\x80"
    data += b"\0" * ((56 - len(data) % 64) % 64) + struct.pack("<Q", data_bits)
    a, b, c, d = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476

    def rotate(value: int, by: int) -> int:
        value &= 0xFFFFFFFF
        return (value << by | value >> (32 - by)) & 0xFFFFFFFF

    for at in range(0, len(data), 64):
        x = struct.unpack("<16I", data[at : at + 64])
        aa, bb, cc, dd = a, b, c, d
        for i in (0, 4, 8, 12):
            a = rotate(a + ((b & c) | (~b & d)) + x[i], 3)
            d = rotate(d + ((a & b) | (~a & c)) + x[i + 1], 7)
            c = rotate(c + ((d & a) | (~d & b)) + x[i + 2], 11)
            b = rotate(b + ((c & d) | (~c & a)) + x[i + 3], 19)
        for i in (0, 1, 2, 3):
            a = rotate(a + ((b & c) | (b & d) | (c & d)) + x[i] + 0x5A827999, 3)
            d = rotate(d + ((a & b) | (a & c) | (b & c)) + x[i + 4] + 0x5A827999, 5)
            c = rotate(c + ((d & a) | (d & b) | (a & b)) + x[i + 8] + 0x5A827999, 9)
            b = rotate(b + ((c & d) | (c & a) | (d & a)) + x[i + 12] + 0x5A827999, 13)
        for i in (0, 2, 1, 3):
            a = rotate(a + (b ^ c ^ d) + x[i] + 0x6ED9EBA1, 3)
            d = rotate(d + (a ^ b ^ c) + x[i + 8] + 0x6ED9EBA1, 9)
            c = rotate(c + (d ^ a ^ b) + x[i + 4] + 0x6ED9EBA1, 11)
            b = rotate(b + (c ^ d ^ a) + x[i + 12] + 0x6ED9EBA1, 15)
        a, b, c, d = (value & 0xFFFFFFFF for value in (a + aa, b + bb, c + cc, d + dd))
    return struct.pack("<4I", a, b, c, d)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_two_transcriptions_agree(data: bytes) -> None:
    assert md4(data) == second_transcription(data)


@pytest.mark.parametrize("size", [55, 56, 57, 63, 64, 65, 119, 120, 128])
def test_the_edges_of_the_padding(size: int) -> None:
    assert md4(bytes(size)) == second_transcription(bytes(size))
