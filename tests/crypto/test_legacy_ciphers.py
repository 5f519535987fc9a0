"""DES, RC4 and the hashes of MS-CHAPv2, against published vectors and plain transcriptions."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import ECB

from pptp.crypto import legacy
from pptp.crypto.legacy import (
    LegacyCipherUnavailable,
    Rc4,
    Rc4Keys,
    authenticator_response,
    challenge_hash,
    challenge_response,
    des_encrypt,
    nt_password_hash,
    require_legacy_ciphers,
)
from pptp.crypto.md4 import md4

# RFC 2759 section 9.2
USER = b"User"
PASSWORD = "clientPass"
AUTHENTICATOR_CHALLENGE = bytes.fromhex("5B5D7C7D7B3F2F3E3C2C602132262628")
PEER_CHALLENGE = bytes.fromhex("21402324255E262A28295F2B3A337C7E")
CHALLENGE = bytes.fromhex("D02E4386BCE91226")
NT_HASH = bytes.fromhex("44EBBA8D5312B8D611474411F56989AE")
NT_RESPONSE = bytes.fromhex("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")
NT_HASH_HASH = bytes.fromhex("41C00C584BD2D91C4017A2A12FA59F3F")
PROOF = bytes.fromhex("407A5589115FD0D6209F510FE9C04566932CDA56")


def test_rfc_2759_section_9_2() -> None:
    assert nt_password_hash(PASSWORD) == NT_HASH
    assert md4(NT_HASH) == NT_HASH_HASH
    assert challenge_hash(PEER_CHALLENGE, AUTHENTICATOR_CHALLENGE, USER) == CHALLENGE
    assert challenge_response(CHALLENGE, NT_HASH) == NT_RESPONSE
    assert authenticator_response(NT_HASH, NT_RESPONSE, CHALLENGE) == PROOF


@pytest.mark.parametrize(
    ("raw", "with_parity"), [("FC156AF7EDCD6C", "FD0B5B5E7F6E34D9"), ("0EDDE3337D427F", "0E6E796737EA08FE")]
)
def test_rfc_2759_section_9_3_des_keys(raw: str, with_parity: str) -> None:
    """Expanded to eight octets a key encrypts as it does for a DES that takes eight."""
    assert _parity(bytes.fromhex(raw)) == bytes.fromhex(with_parity)
    context = Cipher(TripleDES(3 * bytes.fromhex(with_parity)), ECB()).encryptor()  # noqa: S305 -- the RFC's vector
    assert des_encrypt(CHALLENGE, bytes.fromhex(raw)) == context.update(CHALLENGE)


def _parity(key: bytes) -> bytes:
    """DES key expansion as in text books: seven bits and one of odd parity."""
    bits = "".join(f"{octet:08b}" for octet in key)
    octets = [bits[at : at + 7] for at in range(0, 56, 7)]
    return bytes(int(seven + str(1 - seven.count("1") % 2), 2) for seven in octets)


def test_des_against_its_published_vector() -> None:
    """The "Now is t" vector of FIPS 81, key 0123456789abcdef, squeezed to its 56 bits."""
    key = bytes.fromhex("0123456789abcdef")
    bits = "".join(f"{octet:08b}"[:7] for octet in key)
    squeezed = int(bits, 2).to_bytes(7, "big")
    assert des_encrypt(b"Now is t", squeezed).hex() == "3fa40e8a984d4815"


def plain_rc4(key: bytes, data: bytes) -> bytes:
    """RC4 as everybody writes it down."""
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) & 0xFF
        state[i], state[j] = state[j], state[i]
    i = j = 0
    out = bytearray()
    for octet in data:
        i = (i + 1) & 0xFF
        j = (j + state[i]) & 0xFF
        state[i], state[j] = state[j], state[i]
        out.append(octet ^ state[(state[i] + state[j]) & 0xFF])
    return bytes(out)


@pytest.mark.parametrize("size", [5, 8, 16])
def test_rc4_against_a_plain_transcription(size: int) -> None:
    key = bytes(range(1, size + 1))
    stream = Rc4(key)
    assert stream.update(b"abc") + stream.update(memoryview(b"defghi")) == plain_rc4(key, b"abcdefghi")


def test_rc4_vector_of_rfc_6229() -> None:
    assert Rc4(bytes.fromhex("0102030405")).update(bytes(16)).hex() == "b2396305f03dc027ccc3524a0a1118a8"


def test_interop_31_passwords_are_utf_16_little_endian() -> None:
    assert nt_password_hash("pässwörd") == md4("pässwörd".encode("utf-16-le"))
    assert nt_password_hash("pässwörd") != md4(b"".join(bytes((o, 0)) for o in "pässwörd".encode()))
    assert nt_password_hash("🔑") == md4(bytes.fromhex("3dd811dd"))
    assert nt_password_hash("\udc80") == md4(bytes.fromhex("80dc"))  # never raises


def test_key_streams_one_after_the_other_are_those_of_their_keys() -> None:
    for size in (8, 16):
        streams = Rc4Keys(size)
        first, second = (bytes(range(at, at + size)) for at in (1, 77))
        one, other = streams.stream(first), streams.stream(second)  # both go on, whichever was made last
        assert one(bytes(9)) + one(bytes(9)) == Rc4(first).update(bytes(18))
        assert other(memoryview(bytes(18))) == Rc4(second).update(bytes(18))


def test_a_missing_cipher_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, *arguments: object, **keywords: object) -> None:
            raise UnsupportedAlgorithm("no such cipher here")

    monkeypatch.setattr(legacy, "Cipher", Refusing)
    with pytest.raises(LegacyCipherUnavailable, match="RC4 is not available") as rc4:
        Rc4(bytes(16))
    assert rc4.value.cipher == "RC4"
    with pytest.raises(LegacyCipherUnavailable, match="RC4 is not available"):
        Rc4Keys(16)
    with pytest.raises(LegacyCipherUnavailable, match="DES"):
        require_legacy_ciphers()


def test_no_deprecation_warning_is_seen() -> None:
    code = "from pptp.crypto.legacy import require_legacy_ciphers; require_legacy_ciphers()"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
