"""Authenticated encryption with a counter nonce: what seals frames and, inside Noise, handshake messages.

Both suites take 32-octet keys and 16-octet tags. The nonce is 4 zero octets and the counter as 64 bits in
big-endian order. Deviation: Noise (revision 34, section 12.3) encodes the counter little-endian for ChaChaPoly;
one order for both suites leaves nothing to get wrong, and nobody but ourselves is at the other end.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from pptp.errors import Drop, DropError, UsageError

__all__ = ["KEY_SIZE", "NONCE_SIZE", "TAG_SIZE", "AeadKey", "InvalidTag", "Suite"]

KEY_SIZE = 32
TAG_SIZE = 16

NONCE_SIZE = 12

_NONCE = struct.Struct("!4xQ")


class Suite(IntEnum):
    """The AEAD suites, by the number they have in handshakes."""

    AES_256_GCM = 1  # NIST SP 800-38D
    CHACHA20_POLY1305 = 2  # RFC 8439


class AeadKey:
    """One key of one direction. The caller never seals twice with the same counter.

    ``seal_into(nonce, plaintext, aad, out)`` and ``open_into(nonce, ciphertext, aad, out)`` are the cipher's own, for
    loops that keep their buffers: ``out`` is as long as the result, and a bad tag raises
    :class:`InvalidTag`. ``counter.to_bytes(NONCE_SIZE, "big")`` is the nonce.
    """

    __slots__ = ("_cipher", "open_into", "seal_into")

    def __init__(self, suite: Suite, key: bytes) -> None:
        """``key`` is 32 octets; anything else is a :class:`UsageError`."""
        if len(key) != KEY_SIZE:
            raise UsageError(f"AEAD key of {len(key)} octets")
        self._cipher: AESGCM | ChaCha20Poly1305 = AESGCM(key) if suite is Suite.AES_256_GCM else ChaCha20Poly1305(key)
        self.seal_into = self._cipher.encrypt_into
        self.open_into = self._cipher.decrypt_into

    def seal(self, counter: int, aad: bytes, plaintext: bytes) -> bytes:
        """Ciphertext and tag of ``plaintext``, authenticating ``aad`` as well."""
        return self._cipher.encrypt(_NONCE.pack(counter), plaintext, aad)

    def open(self, counter: int, aad: bytes | memoryview, ciphertext: bytes | memoryview) -> bytes:
        """The plaintext of ciphertext and tag; raises :class:`DropError` with ``BAD_TAG``."""
        try:
            return self._cipher.decrypt(_NONCE.pack(counter), ciphertext, aad)
        except InvalidTag:
            raise DropError(Drop.BAD_TAG) from None
