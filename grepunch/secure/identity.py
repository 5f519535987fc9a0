"""Who a host is: one X25519 key pair (RFC 7748), written in base64 as WireGuard writes it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from grepunch.secure.constants import KEY_SIZE
from pptp.errors import Drop, DropError, UsageError, WireCause, WireError
from pptp.value import value


def generate_private_key(entropy: Callable[[int], bytes]) -> bytes:
    """A private key: 32 octets of ``entropy`` (RFC 7748 section 5 clamps them whenever they are used)."""
    return entropy(KEY_SIZE)


def public_key(private_key: bytes) -> bytes:
    """The 32-octet public key of a private key."""
    if len(private_key) != KEY_SIZE:
        raise UsageError(f"private key of {len(private_key)} octets")
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def shared_secret(private_key: bytes, peer_public_key: bytes) -> bytes:
    """X25519 of both; raises :class:`DropError` with ``BAD_KEY`` on an all-zero result (RFC 7748 section 6.1)."""
    if len(private_key) != KEY_SIZE or len(peer_public_key) != KEY_SIZE:
        raise UsageError("X25519 takes keys of 32 octets")
    try:
        return X25519PrivateKey.from_private_bytes(private_key).exchange(
            X25519PublicKey.from_public_bytes(peer_public_key)
        )
    except ValueError:
        raise DropError(Drop.BAD_KEY, "a public key of low order") from None


def encode_key(key: bytes) -> str:
    """A 32-octet key as 44 characters of base64."""
    return base64.b64encode(key).decode("ascii")


def decode_key(text: str) -> bytes:
    """The 32 octets of a base64 key; raises :class:`WireError`, which never quotes the text: it may be a secret."""
    try:
        key = base64.b64decode(text.strip().encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise WireError("key", WireCause.BAD_VALUE, "not base64") from None
    if len(key) != KEY_SIZE:
        raise WireError("key", WireCause.BAD_LENGTH, f"{len(key)} octets instead of {KEY_SIZE}")
    if encode_key(key) != text.strip():
        raise WireError("key", WireCause.BAD_VALUE, "base64 with stray bits")
    return key


@value
class Identity:
    """A host's key pair. The private half never prints."""

    private_key: bytes = field(repr=False)
    public_key: bytes

    @classmethod
    def from_private_key(cls, private_key: bytes) -> Identity:
        """The identity of a private key of 32 octets."""
        return cls(private_key, public_key(private_key))
