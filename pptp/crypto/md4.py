"""The MD4 message digest (RFC 1320), for NT password hashes alone: it has been broken since 1995.

Our own, because OpenSSL has it in its legacy provider only, and the standard library only where OpenSSL has it.
"""

from __future__ import annotations

import struct

_MASK = 0xFFFFFFFF
_BLOCK = 64
_LENGTH = struct.Struct("<Q")
_WORDS = struct.Struct("<16I")
_STATE = struct.Struct("<4I")

# RFC 1320 section 3.3 and 3.4
_INITIAL = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_ADDEND = (0, 0x5A827999, 0x6ED9EBA1)
_SHIFT = ((3, 7, 11, 19), (3, 5, 9, 13), (3, 9, 11, 15))
_ORDER = (
    range(16),
    (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
    (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15),
)


def md4(data: bytes) -> bytes:
    """The 16 octets of the digest of ``data``."""
    padding = b"\x80" + bytes((55 - len(data)) % _BLOCK)
    padded = data + padding + _LENGTH.pack(8 * len(data) & 0xFFFFFFFFFFFFFFFF)
    state: tuple[int, ...] = _INITIAL
    for at in range(0, len(padded), _BLOCK):
        state = _compress(state, _WORDS.unpack_from(padded, at))
    return _STATE.pack(*state)


def _compress(state: tuple[int, ...], words: tuple[int, ...]) -> tuple[int, ...]:
    a, b, c, d = state
    for number, (addend, shifts, order) in enumerate(zip(_ADDEND, _SHIFT, _ORDER, strict=True)):
        for step, word in enumerate(order):
            if number == 0:
                mixed = b & c | ~b & d
            elif number == 1:
                mixed = b & c | b & d | c & d
            else:
                mixed = b ^ c ^ d
            total = (a + mixed + words[word] + addend) & _MASK
            shift = shifts[step % 4]
            a, b, c, d = d, (total << shift | total >> 32 - shift) & _MASK, b, c
    return tuple((old + new) & _MASK for old, new in zip(state, (a, b, c, d), strict=True))
