"""MPPE's keys: from an MS-CHAPv2 exchange to the key of each packet (RFC 3079 section 3, RFC 3078 section 7).

A *start key* comes from the authentication, one for each direction. The first *session key* is made of it, and each
following one of the start key and the one before.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

from pptp.crypto.legacy import Rc4Keys
from pptp.crypto.md4 import md4

# RFC 3079 section 3.4
_MAGIC_MASTER = b"This is the MPPE Master Key"
_MAGIC_TO_AUTHENTICATOR = b"On the client side, this is the send key; on the server side, it is the receive key."
_MAGIC_FROM_AUTHENTICATOR = b"On the client side, this is the receive key; on the server side, it is the send key."
_PAD_1 = bytes(40)
_PAD_2 = b"\xf2" * 40

START_KEY_SIZE = 16


class Strength(IntEnum):
    """How many bits of a session key are secret."""

    BITS_40 = 40
    BITS_56 = 56
    BITS_128 = 128

    @property
    def key_size(self) -> int:
        """Octets of a key: the two weaker ones have 8, of which the first are known (RFC 3079 section 3.1, 3.2)."""
        return 16 if self is Strength.BITS_128 else 8

    @property
    def known(self) -> bytes:
        """The first octets of every session key."""
        return {40: b"\xd1\x26\x9e", 56: b"\xd1", 128: b""}[self]


def master_key(nt_hash: bytes, nt_response: bytes) -> bytes:
    """The 16 octets both ends share after MS-CHAPv2 (RFC 3079 section 3.4, GetMasterKey)."""
    return _sha1(md4(nt_hash), nt_response, _MAGIC_MASTER)[:START_KEY_SIZE]


def start_keys(master: bytes, *, authenticator: bool) -> tuple[bytes, bytes]:
    """The start keys to send and to receive with, 16 octets each (RFC 3079 section 3.4, GetAsymmetricStartKey).

    A weaker key is the beginning of the full one. ``authenticator`` is the side that asked in MS-CHAPv2, which the
    RFC calls the server.
    """
    to_authenticator = _sha1(master, _PAD_1, _MAGIC_TO_AUTHENTICATOR, _PAD_2)[:START_KEY_SIZE]
    from_authenticator = _sha1(master, _PAD_1, _MAGIC_FROM_AUTHENTICATOR, _PAD_2)[:START_KEY_SIZE]
    return (from_authenticator, to_authenticator) if authenticator else (to_authenticator, from_authenticator)


def initial_session_key(start_key: bytes, strength: Strength) -> bytes:
    """The first session key of a direction (RFC 3079 section 3.1 to 3.3)."""
    start = start_key[: strength.key_size]
    return _weaken(_new_key(start, start), strength)


class KeyChange:
    """How the session keys of one direction follow one another: what that takes for every packet, made once."""

    __slots__ = ("_before", "_key_size", "_known", "_known_size", "_streams")

    def __init__(self, start_key: bytes, strength: Strength) -> None:
        self._key_size = strength.key_size
        self._before = start_key[: self._key_size] + _PAD_1
        self._known = strength.known
        self._known_size = len(self._known)
        self._streams = Rc4Keys(self._key_size)

    def next(self, session_key: bytes) -> bytes:
        """The session key after ``session_key`` (RFC 3078 section 7.3): as the first one, and then under itself."""
        digest = hashlib.sha1(self._before + session_key + _PAD_2, usedforsecurity=False).digest()
        interim = digest[: self._key_size]
        return self._known + self._streams.stream(interim)(interim)[self._known_size :]


def next_session_key(start_key: bytes, session_key: bytes, strength: Strength) -> bytes:
    """One step of :class:`KeyChange`."""
    return KeyChange(start_key, strength).next(session_key)


def _new_key(start_key: bytes, session_key: bytes) -> bytes:
    """RFC 3079 section 3.4, GetNewKeyFromSHA."""
    return _sha1(start_key, _PAD_1, session_key, _PAD_2)[: len(start_key)]


def _weaken(key: bytes, strength: Strength) -> bytes:
    return strength.known + key[len(strength.known) :]


def _sha1(*parts: bytes) -> bytes:
    return hashlib.sha1(b"".join(parts), usedforsecurity=False).digest()
