"""Both AEAD suites against published vectors whose nonces have our form, and against every kind of tampering."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from pptp.crypto.aead import TAG_SIZE, AeadKey, Suite
from pptp.errors import Drop, DropError, UsageError

# RFC 8439 appendix A.5: its nonce is 4 zero octets and 0102030405060708
RFC_8439_KEY = bytes.fromhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0")
RFC_8439_COUNTER = 0x0102030405060708
RFC_8439_AAD = bytes.fromhex("f33388860000000000004e91")
RFC_8439_SEALED = bytes.fromhex(
    "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0"
    "bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855"
    "9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e9"
    "9040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a"
    "0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130"
    "305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b"
    "eead9d67890cbb22392336fea1851f38"
)
RFC_8439_PLAINTEXT = (
    "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, or "
    "obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference material "
    "or to cite them other than as /“work in progress./”"
).encode()

# McGrew and Viega, The Galois/Counter Mode of Operation (submitted to NIST), test cases 13 and 14: nonce all zero
GCM_CASES = [
    (b"", "530f8afbc74536b9a963b4f1c4cb738b"),
    (bytes(16), "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
]


def test_rfc_8439_vector() -> None:
    key = AeadKey(Suite.CHACHA20_POLY1305, RFC_8439_KEY)
    assert key.seal(RFC_8439_COUNTER, RFC_8439_AAD, RFC_8439_PLAINTEXT) == RFC_8439_SEALED
    assert key.open(RFC_8439_COUNTER, RFC_8439_AAD, RFC_8439_SEALED) == RFC_8439_PLAINTEXT


@pytest.mark.parametrize(("plaintext", "sealed"), GCM_CASES)
def test_gcm_vectors(plaintext: bytes, sealed: str) -> None:
    key = AeadKey(Suite.AES_256_GCM, bytes(32))
    assert key.seal(0, b"", plaintext).hex() == sealed
    assert key.open(0, b"", bytes.fromhex(sealed)) == plaintext


@pytest.mark.parametrize("counter", [0, 1, 255, 256, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize(
    ("suite", "cipher"), [(Suite.AES_256_GCM, AESGCM), (Suite.CHACHA20_POLY1305, ChaCha20Poly1305)]
)
def test_the_nonce_is_four_zero_octets_and_a_big_endian_counter(suite: Suite, cipher: type, counter: int) -> None:
    key, aad, plaintext = bytes(range(32)), b"header", b"contents"
    expected = cipher(key).encrypt(bytes(4) + counter.to_bytes(8, "big"), plaintext, aad)
    assert AeadKey(suite, key).seal(counter, aad, plaintext) == expected


@pytest.mark.parametrize("suite", Suite)
def test_any_change_is_a_bad_tag(suite: Suite) -> None:
    key = AeadKey(suite, bytes(32))
    sealed = key.seal(7, b"aad", b"plaintext")
    assert len(sealed) == len(b"plaintext") + TAG_SIZE
    flipped = [
        sealed[:at] + bytes([sealed[at] ^ (1 << bit)]) + sealed[at + 1 :]
        for at in range(len(sealed))
        for bit in range(8)
    ]
    for counter, aad, ciphertext in [
        *((7, b"aad", one) for one in flipped),
        *((7, b"aad", sealed[:size]) for size in range(len(sealed))),
        (8, b"aad", sealed),
        (7, b"aaD", sealed),
        (7, b"", sealed),
    ]:
        with pytest.raises(DropError) as caught:
            key.open(counter, aad, ciphertext)
        assert caught.value.cause is Drop.BAD_TAG
    assert key.open(7, b"aad", memoryview(sealed)) == b"plaintext"


@pytest.mark.parametrize("suite", Suite)
def test_other_keys_do_not_open(suite: Suite) -> None:
    rng = random.Random(3)
    sealed = AeadKey(suite, bytes(32)).seal(0, b"", b"x")
    for _ in range(50):
        with pytest.raises(DropError):
            AeadKey(suite, rng.randbytes(32)).open(0, b"", sealed)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_our_bug(size: int) -> None:
    with pytest.raises(UsageError):
        AeadKey(Suite.AES_256_GCM, bytes(size))
