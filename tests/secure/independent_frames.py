"""What travels beside and after the handshake, a second time: fragments, sealed frames, probes, names and their keys.

Like `independent.py` it is written from PROTOCOL.md and the RFCs alone.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag

from tests.secure.independent import Agreement, Refused, aead, hkdf, labelled_mac, mac, nonce, public_of, x25519

PROBE, FRAGMENT = 1, 2

# In the hole


def vendor_specific(kind: int, body: bytes) -> bytes:
    """The PPP frame of an LCP Vendor-Specific packet (RFC 2153 section 2)."""
    return b"\xff\x03\xc0\x21" + struct.pack("!BBHI3sB", 0, 0, 12 + len(body), 0, b"\x02\x67\x70", kind) + body


def fragment(datagram: bytes, receiver_public: bytes) -> list[bytes]:
    """A datagram in one part, or in two when it has more than 900 octets."""
    half = (len(datagram) + 1) // 2
    parts = [datagram] if len(datagram) <= 900 else [datagram[:half], datagram[half:]]
    identifier = hashlib.sha256(datagram).digest()[:8]
    written = []
    for number, part in enumerate(parts):
        place = bytes([number, len(parts)])
        written.append(
            identifier + place + labelled_mac(b"fragment", receiver_public, identifier + place + part) + part
        )
    return written


def assemble(fragments: Iterable[bytes], own_public: bytes) -> bytes:
    """The datagram of which these are all the parts, in any order."""
    parts: dict[int, bytes] = {}
    identifiers, totals = set(), set()
    for one in fragments:
        if one[10:26] != labelled_mac(b"fragment", own_public, one[:10] + one[26:]):
            raise Refused("fragment's MAC")
        identifiers.add(one[:8])
        totals.add(one[9])
        parts[one[8]] = one[26:]
    whole = b"".join(parts[number] for number in sorted(parts))
    if identifiers != {hashlib.sha256(whole).digest()[:8]} or totals != {len(parts)}:
        raise Refused("fragments of one datagram")
    return whole


# Sealed frames


def seal(agreement: Agreement, counter: int, ppp_protocol: int, data: bytes, flags: int = 0) -> bytes:
    """A PPP frame of protocol 0x0053 to the peer."""
    clear = struct.pack("!HIQ", 0x0053, agreement.peer_index, counter)
    inner = struct.pack("!BH", flags, ppp_protocol) + data
    return clear + aead(agreement.suite, agreement.send_key).encrypt(nonce(counter), inner, clear)


def unseal(agreement: Agreement, frame: bytes) -> tuple[int, int, int, bytes]:
    """Counter, flags, PPP protocol and data of a frame from the peer."""
    protocol, index, counter = struct.unpack("!HIQ", frame[:14])
    if (protocol, index) != (0x0053, agreement.own_index):
        raise Refused("not a frame of this agreement")
    try:
        inner = aead(agreement.suite, agreement.receive_key).decrypt(nonce(counter), frame[14:], frame[:14])
    except InvalidTag as error:
        raise Refused("tag") from error
    flags, ppp_protocol = struct.unpack("!BH", inner[:3])
    if flags & ~1:
        raise Refused("flags")
    return counter, flags, ppp_protocol, inner[3:]


# What is derived outside the handshake


def mailbox(private: bytes, peer_public: bytes, day: int) -> bytes:
    """Where the two meet that day."""
    return hkdf(x25519(private, peer_public), b"mailbox" + struct.pack("!I", day))[:16]


def side_tag(private: bytes, peer_public: bytes, day: int) -> bytes:
    """What we are called there."""
    return hkdf(x25519(private, peer_public), b"side" + public_of(private) + struct.pack("!I", day))[:16]


def probe_key(secret: bytes, sender_public: bytes, receiver_public: bytes) -> bytes:
    """Key of the MAC of the probes that go from one to the other.

    `secret`: `Agreement.probe_secret`, or without a rendezvous the static-static Diffie-Hellman.
    """
    return hkdf(secret, b"probe" + sender_public + receiver_public)


def probe(key: bytes, ids: tuple[bytes, bytes], sequence: int, heard: int, hint: int) -> bytes:
    """A probe under a `probe_key`; `ids`: of our attempt, of the peer's."""
    body = ids[0] + struct.pack("!I", sequence) + ids[1] + struct.pack("!II", heard, hint)
    return body + mac(key, body)[:16]
