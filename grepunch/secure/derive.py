"""Every key and name that is derived outside the handshake itself, each with its own label."""

from __future__ import annotations

import hashlib
import hmac

from grepunch.secure.constants import KEY_SIZE, MAC_SIZE
from pptp.crypto.aead import Suite

_HASH_SIZE = 32


def hkdf(secret: bytes, info: bytes, size: int = KEY_SIZE, *, salt: bytes = b"") -> bytes:
    """HKDF-SHA256 (RFC 5869): ``size`` octets, at most 8160."""
    pseudorandom_key = hmac.digest(salt or bytes(_HASH_SIZE), secret, "sha256")
    block, output = b"", b""
    for counter in range(1, -(-size // _HASH_SIZE) + 1):
        block = hmac.digest(pseudorandom_key, block + info + bytes([counter]), "sha256")
        output += block
    return output[:size]


def mac(key: bytes, *parts: bytes | memoryview) -> bytes:
    """HMAC-SHA-256 (RFC 2104) of the concatenated parts, cut to 16 octets."""
    return hmac.digest(key, b"".join(parts), "sha256")[:MAC_SIZE]


def mac1_key(receiver_public_key: bytes) -> bytes:
    """What MAC1 of a handshake message for this receiver is made with: no secret, but unknown to a mere scanner."""
    return hashlib.sha256(b"mac1" + receiver_public_key).digest()


def fragment_key(receiver_public_key: bytes) -> bytes:
    """The same for the MAC of a fragment."""
    return hashlib.sha256(b"fragment" + receiver_public_key).digest()


def cookie_key(responder_public_key: bytes) -> bytes:
    """The same for the MAC of a cookie reply, under the responder's own key, since it is the responder that speaks."""
    return hashlib.sha256(b"cookie" + responder_public_key).digest()


def mailbox_id(shared: bytes, day: int) -> bytes:
    """A pair's rendezvous mailbox on one day: ``shared`` is their static-static DH, ``day`` the rendezvous' own."""
    return hkdf(shared, b"mailbox" + _day(day), 16)


def side_tag(shared: bytes, own_public_key: bytes, day: int) -> bytes:
    """What one side shows in the mailbox: stable for the day, so that its own ghost can be replaced."""
    return hkdf(shared, b"side" + own_public_key + _day(day), 16)


def place_id(shared: bytes, network: bytes) -> bytes:
    """What stands for a network of ours and a peer where paths that worked are remembered; tells nobody either."""
    return hkdf(shared, b"place" + network, 16)


def probe_key(secret: bytes, sender_public_key: bytes, receiver_public_key: bytes) -> bytes:
    """The MAC key of probes in one direction; ``secret`` is the handshake's probe secret, or the static-static DH."""
    return hkdf(secret, b"probe" + sender_public_key + receiver_public_key)


def probe_secret(chaining_key: bytes, handshake_hash: bytes) -> bytes:
    """The handshake's output for probes, next to the traffic keys and independent of them."""
    return hkdf(chaining_key, b"probe secret", salt=handshake_hash)


def traffic_key(split_key: bytes, suite: Suite) -> bytes:
    """The AEAD key of one direction from one output of Noise's Split, bound to the suite it is for."""
    return hkdf(split_key, b"suite" + bytes([suite]))


def _day(day: int) -> bytes:
    return day.to_bytes(4, "big")
