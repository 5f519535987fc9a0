"""The broken ciphers and hashes that MS-CHAPv2 and MPPE stand on (RFC 2759 section 8): DES, RC4, MD4, SHA-1.

A recorded MS-CHAPv2 exchange gives its password hash away for the price of one DES key search, whatever the password,
and MPPE's keys follow from it. Nothing here protects anything; it is what other systems speak.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4, TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import ECB

from pptp.crypto.md4 import md4

# RFC 2759 section 8.7
_MAGIC_SIGNING = b"Magic server to client signing constant"
_MAGIC_ITERATION = b"Pad to make it do more than one iteration"

NT_HASH_SIZE = 16
_DES_KEY_SIZE = 7
_CHALLENGE_SIZE = 8


class LegacyCipherUnavailable(RuntimeError):
    """This machine's OpenSSL does not do the named cipher, so that MS-CHAPv2 or MPPE cannot be had here."""

    def __init__(self, cipher: str) -> None:
        super().__init__(f"{cipher} is not available: OpenSSL was built, or is configured, without it")
        self.cipher = cipher


class Rc4:
    """One RC4 key stream, from its beginning on. Encrypting and decrypting are the same."""

    __slots__ = ("_context",)

    def __init__(self, key: bytes) -> None:
        """``key`` has 5 to 16 octets; raises :class:`LegacyCipherUnavailable`."""
        try:
            self._context = Cipher(ARC4(key), mode=None).encryptor()
        except UnsupportedAlgorithm:
            raise LegacyCipherUnavailable("RC4") from None

    def update(self, data: bytes | memoryview) -> bytes:
        """``data`` under the next octets of the stream."""
        return self._context.update(data)


class Rc4Keys:
    """Key streams under one key after the other, for whoever has another key for every packet.

    To make an :class:`Rc4` costs as much as to encrypt a small packet with it. A third of that is making and checking
    the objects that hold the key, which are made once here.
    """

    __slots__ = ("_algorithm", "_encryptor")

    def __init__(self, key_size: int) -> None:
        """``key_size`` is 5 to 16 octets; raises :class:`LegacyCipherUnavailable`."""
        Rc4(bytes(key_size))
        self._algorithm = ARC4(bytes(key_size))
        self._encryptor = Cipher(self._algorithm, mode=None).encryptor

    def stream(self, key: bytes) -> Callable[[bytes | memoryview], bytes]:
        """What :meth:`Rc4.update` is, of a stream that begins under ``key``, which has the size that was said."""
        self._algorithm.key = key
        return self._encryptor().update


def des_encrypt(block: bytes, key: bytes) -> bytes:
    """One block of 8 octets under a key of 7 (RFC 2759 section 8.6); raises :class:`LegacyCipherUnavailable`."""
    bits = int.from_bytes(key, "big")
    with_parity = bytes((bits >> 49 - 7 * octet & 0x7F) << 1 for octet in range(8))
    try:
        # DES three times with one key, encrypting, decrypting, encrypting, is DES once
        return Cipher(TripleDES(3 * with_parity), ECB()).encryptor().update(block)  # noqa: S305 -- what the RFC says
    except UnsupportedAlgorithm:
        raise LegacyCipherUnavailable("DES") from None


def require_legacy_ciphers() -> None:
    """Raise :class:`LegacyCipherUnavailable` unless DES and RC4 can be had; to be asked before any link needs them."""
    des_encrypt(bytes(8), bytes(_DES_KEY_SIZE))
    Rc4(bytes(NT_HASH_SIZE))


def nt_password_hash(password: str) -> bytes:
    """The 16 octets that stand for a password: MD4 over UTF-16LE (RFC 2759 section 8.3)."""
    return md4(password.encode("utf-16-le", "surrogatepass"))


def challenge_hash(peer_challenge: bytes, authenticator_challenge: bytes, user_name: bytes) -> bytes:
    """The 8 octets that are answered (RFC 2759 section 8.2); ``user_name`` is as the peer wrote it, less a domain."""
    return _sha1(peer_challenge, authenticator_challenge, user_name)[:_CHALLENGE_SIZE]


def challenge_response(challenge: bytes, nt_hash: bytes) -> bytes:
    """The 24 octets of NT-Response: ``challenge`` under three DES keys (RFC 2759 section 8.5)."""
    keys = nt_hash.ljust(3 * _DES_KEY_SIZE, b"\0")
    return b"".join(des_encrypt(challenge, keys[at : at + _DES_KEY_SIZE]) for at in range(0, len(keys), _DES_KEY_SIZE))


def authenticator_response(nt_hash: bytes, nt_response: bytes, challenge: bytes) -> bytes:
    """The 20 octets by which the authenticator proves that it knows the password too (RFC 2759 section 8.7)."""
    return _sha1(_sha1(md4(nt_hash), nt_response, _MAGIC_SIGNING), challenge, _MAGIC_ITERATION)


def _sha1(*parts: bytes) -> bytes:
    return hashlib.sha1(b"".join(parts), usedforsecurity=False).digest()
