"""The sealed protocol a second time, written from PROTOCOL.md, the Noise specification and the RFCs alone.

An oracle: it shares no line and no import with the product, so that where both agree, the document says what both do.
It is straightforward rather than fast or careful: the first thing wrong ends a handshake with `Refused`, and whatever
is random is handed in, so that vectors can be computed with it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

NAME = b"Noise_IKhfs+psk2_25519+MLKEM768_AESGCM_SHA256"
PROLOGUE = b"grepunch-pptp/1"
NO_PSK = bytes(32)
AES_256_GCM, CHACHA20_POLY1305 = 1, 2
MESSAGE_1, MESSAGE_2, COOKIE_REPLY = 1, 2, 3
MESSAGE_1_FIXED = 12 + 32 + 1184 + 16 + 32 + 16 + 13 + 16 + 16 + 16  # and one octet for each suite offered
MESSAGE_2_SIZE = 12 + 32 + 1088 + 16 + 14 + 16 + 16

# from an encapsulation key: ciphertext and shared secret
Encapsulate = Callable[[bytes], tuple[bytes, bytes]]


class Refused(Exception):
    """What came is not what the document says may come."""


# Primitives


def public_of(private: bytes) -> bytes:
    """X25519 public key of a private key (RFC 7748)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def x25519(private: bytes, public: bytes) -> bytes:
    """Diffie-Hellman; a result of 32 zero octets is refused."""
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # the library's word for the all-zero result
        raise Refused("all-zero Diffie-Hellman") from error


def mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.new(key, data, hashlib.sha256).digest()


def labelled_mac(label: bytes, public: bytes, data: bytes) -> bytes:
    """The 16 octets with which who knows a public key marks what is meant for (or comes from) its owner."""
    return mac(hashlib.sha256(label + public).digest(), data)[:16]


def hkdf(secret: bytes, info: bytes, salt: bytes = b"") -> bytes:
    """32 octets of RFC 5869 with SHA-256: extract, and the first block of expand."""
    extracted = mac(salt or bytes(32), secret)
    return mac(extracted, info + b"\x01")


def noise_hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Noise section 4.3, HKDF with two or three outputs."""
    temporary = mac(chaining_key, material)
    blocks = [b""]
    for number in range(1, outputs + 1):
        blocks.append(mac(temporary, blocks[-1] + bytes([number])))
    return blocks[1:]


def aead(suite: int, key: bytes) -> AESGCM | ChaCha20Poly1305:
    """The cipher of a suite."""
    return AESGCM(key) if suite == AES_256_GCM else ChaCha20Poly1305(key)


def nonce(counter: int) -> bytes:
    """4 zero octets and a 64-bit big-endian counter, for both suites."""
    return struct.pack("!4xQ", counter)


def encapsulate(encapsulation_key: bytes) -> tuple[bytes, bytes]:
    """ML-KEM-768 with the library's own randomness: ciphertext, shared secret."""
    try:
        shared_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(encapsulation_key).encapsulate()
    except ValueError as error:
        raise Refused("encapsulation key") from error
    return ciphertext, shared_secret


# Noise's SymmetricState (section 5.2) with the CipherState (5.1) inside


@dataclass
class Symmetric:
    """h, ck, k and n."""

    h: bytes
    ck: bytes
    k: bytes = b""
    n: int = 0

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.ck, self.k = noise_hkdf(self.ck, material, 2)
        self.n = 0

    def mix_key_and_hash(self, material: bytes) -> None:
        self.ck, middle, self.k = noise_hkdf(self.ck, material, 3)
        self.mix_hash(middle)
        self.n = 0

    def mix_ephemeral(self, public: bytes) -> None:
        """Token `e` in a pattern with a PSK (section 9.2)."""
        self.mix_hash(public)
        self.mix_key(public)

    def encrypt(self, plain: bytes) -> bytes:
        sealed = AESGCM(self.k).encrypt(nonce(self.n), plain, self.h)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        try:
            plain = AESGCM(self.k).decrypt(nonce(self.n), sealed, self.h)
        except InvalidTag as error:
            raise Refused("tag") from error
        self.n += 1
        self.mix_hash(sealed)
        return plain


def begin(responder_public: bytes) -> Symmetric:
    """Initialize with name, prologue and the pre-message `<- s`."""
    h = hashlib.sha256(NAME).digest()  # the name is longer than a hash
    state = Symmetric(h=h, ck=h)
    state.mix_hash(PROLOGUE)
    state.mix_hash(responder_public)
    return state


# The datagrams around Noise


def header(kind: int, sender_index: int, receiver_index: int) -> bytes:
    """The clear 12 octets."""
    return struct.pack("!BBHII", kind, 1, 0, sender_index, receiver_index)


def read_header(datagram: bytes, kind: int) -> tuple[int, int]:
    """Sender and receiver index of a datagram of that type."""
    found, version, zero, sender_index, receiver_index = struct.unpack("!BBHII", datagram[:12])
    if (found, version, zero) != (kind, 1, 0):
        raise Refused("header")
    return sender_index, receiver_index


def payload(session_id: bytes, capabilities: int, suites: Sequence[int]) -> bytes:
    """Session id, capabilities, suites offered or chosen."""
    return session_id + struct.pack("!IB", capabilities, len(suites)) + bytes(suites)


def read_payload(data: bytes) -> tuple[bytes, int, tuple[int, ...]]:
    """Session id, capabilities, suites."""
    capabilities, count = struct.unpack("!IB", data[8:13])
    if count == 0 or len(data) != 13 + count:
        raise Refused("payload")
    return data[:8], capabilities, tuple(data[13:])


@dataclass(frozen=True)
class Agreement:
    """What one side holds after message 2."""

    send_key: bytes
    receive_key: bytes
    suite: int
    own_index: int  # stands in the frames that come
    peer_index: int  # stands in the frames that go
    peer_public: bytes
    peer_session_id: bytes
    capabilities: int
    probe_secret: bytes
    h: bytes


def agree(
    state: Symmetric,
    *,
    is_initiator: bool,
    suite: int,
    indices: tuple[int, int],
    peer: tuple[bytes, bytes],
    capabilities: int,
) -> Agreement:
    """Split, and what is derived beside it. `indices`: own, peer's; `peer`: public key, session id."""
    k1, k2 = (hkdf(key, b"suite" + bytes([suite])) for key in noise_hkdf(state.ck, b"", 2))
    return Agreement(
        send_key=k1 if is_initiator else k2,
        receive_key=k2 if is_initiator else k1,
        suite=suite,
        own_index=indices[0],
        peer_index=indices[1],
        peer_public=peer[0],
        peer_session_id=peer[1],
        capabilities=capabilities,
        probe_secret=hkdf(state.ck, b"probe secret", salt=state.h),
        h=state.h,
    )


@dataclass(frozen=True)
class Side:
    """Who speaks, and what it puts into its payload."""

    private: bytes
    session_id: bytes
    index: int
    capabilities: int = 0
    suites: tuple[int, ...] = (AES_256_GCM, CHACHA20_POLY1305)


@dataclass(frozen=True)
class Asked:
    """An initiator between its two messages."""

    side: Side
    responder_public: bytes
    psk: bytes
    ephemeral: bytes
    kem_seed: bytes
    state: Symmetric = field(repr=False)
    message_1: bytes


def ask(side: Side, responder_public: bytes, psk: bytes, ephemeral: bytes, kem_seed: bytes) -> Asked:
    """Initiator, `-> e, es, e1, s, ss`. `kem_seed`: d ‖ z of FIPS 203, 64 octets."""
    state = begin(responder_public)
    clear = header(MESSAGE_1, side.index, 0)
    state.mix_hash(clear)
    own_ephemeral = public_of(ephemeral)
    state.mix_ephemeral(own_ephemeral)
    state.mix_key(x25519(ephemeral, responder_public))
    encapsulation_key = MLKEM768PrivateKey.from_seed_bytes(kem_seed).public_key().public_bytes_raw()
    e1 = state.encrypt(encapsulation_key)
    s = state.encrypt(public_of(side.private))
    state.mix_key(x25519(side.private, responder_public))
    contents = state.encrypt(payload(side.session_id, side.capabilities, side.suites))
    message = clear + own_ephemeral + e1 + s + contents
    message_1 = message + labelled_mac(b"mac1", responder_public, message) + bytes(16)
    return Asked(side, responder_public, psk, ephemeral, kem_seed, state, message_1)


def answer(
    side: Side,
    datagram: bytes,
    psk_of: Callable[[bytes], bytes],
    ephemeral: bytes,
    encapsulation: Encapsulate = encapsulate,
) -> tuple[bytes, Agreement]:
    """Responder: read message 1, write message 2 (`<- e, ee, ekem1, se, psk`)."""
    own_public = public_of(side.private)
    message, mac1 = datagram[:-32], datagram[-32:-16]
    if len(datagram) <= MESSAGE_1_FIXED or mac1 != labelled_mac(b"mac1", own_public, message):
        raise Refused("MAC1")
    peer_index, receiver_index = read_header(datagram, MESSAGE_1)
    if peer_index == 0 or receiver_index != 0:
        raise Refused("index")

    state = begin(own_public)
    state.mix_hash(message[:12])
    peer_ephemeral = message[12:44]
    state.mix_ephemeral(peer_ephemeral)
    state.mix_key(x25519(side.private, peer_ephemeral))
    encapsulation_key = state.decrypt(message[44:1244])
    peer_public = state.decrypt(message[1244:1292])
    state.mix_key(x25519(side.private, peer_public))
    peer_session_id, offered_capabilities, offered = read_payload(state.decrypt(message[1292:]))
    suite = next((suite for suite in offered if suite in side.suites), None)
    if suite is None:
        raise Refused("no suite in common")

    clear = header(MESSAGE_2, side.index, peer_index)
    state.mix_hash(clear)
    own_ephemeral = public_of(ephemeral)
    state.mix_ephemeral(own_ephemeral)
    state.mix_key(x25519(ephemeral, peer_ephemeral))
    ciphertext, shared_secret = encapsulation(encapsulation_key)
    ekem1 = state.encrypt(ciphertext)
    state.mix_key(shared_secret)
    state.mix_key(x25519(ephemeral, peer_public))
    state.mix_key_and_hash(psk_of(peer_public))
    contents = state.encrypt(payload(side.session_id, side.capabilities, (suite,)))
    reply = clear + own_ephemeral + ekem1 + contents
    return reply + labelled_mac(b"mac1", peer_public, reply), agree(
        state,
        is_initiator=False,
        suite=suite,
        indices=(side.index, peer_index),
        peer=(peer_public, peer_session_id),
        capabilities=side.capabilities & offered_capabilities,
    )


def conclude(asked: Asked, datagram: bytes) -> Agreement:
    """Initiator: read message 2. What is refused leaves `asked` as it was."""
    side = asked.side
    own_public = public_of(side.private)
    message, mac1 = datagram[:-16], datagram[-16:]
    if len(datagram) != MESSAGE_2_SIZE or mac1 != labelled_mac(b"mac1", own_public, message):
        raise Refused("MAC1")
    peer_index, receiver_index = read_header(datagram, MESSAGE_2)
    if peer_index == 0 or receiver_index != side.index:
        raise Refused("index")

    state = replace(asked.state)
    state.mix_hash(message[:12])
    peer_ephemeral = message[12:44]
    state.mix_ephemeral(peer_ephemeral)
    state.mix_key(x25519(asked.ephemeral, peer_ephemeral))
    ciphertext = state.decrypt(message[44:1148])
    state.mix_key(MLKEM768PrivateKey.from_seed_bytes(asked.kem_seed).decapsulate(ciphertext))
    state.mix_key(x25519(side.private, peer_ephemeral))
    state.mix_key_and_hash(asked.psk)
    peer_session_id, peer_capabilities, chosen = read_payload(state.decrypt(message[1148:]))
    if len(chosen) != 1 or chosen[0] not in side.suites:
        raise Refused("a suite not offered")
    return agree(
        state,
        is_initiator=True,
        suite=chosen[0],
        indices=(side.index, peer_index),
        peer=(asked.responder_public, peer_session_id),
        capabilities=side.capabilities & peer_capabilities,
    )


# Cookies


def cookie_reply(message_1: bytes, cookie: bytes, responder_public: bytes) -> bytes:
    """Responder: the 44 octets that answer a message 1 above the rate."""
    initiator_index, _ = read_header(message_1, MESSAGE_1)
    reply = header(COOKIE_REPLY, 0, initiator_index) + cookie
    return reply + labelled_mac(b"cookie", responder_public, message_1[-32:-16] + reply)


def with_cookie(asked: Asked, reply: bytes) -> bytes:
    """Initiator: the same message 1, the cookie of a genuine reply in its field."""
    mac1 = asked.message_1[-32:-16]
    sender_index, receiver_index = read_header(reply, COOKIE_REPLY)
    if len(reply) != 44 or (sender_index, receiver_index) != (0, asked.side.index):
        raise Refused("cookie reply")
    if reply[28:] != labelled_mac(b"cookie", asked.responder_public, mac1 + reply[:28]):
        raise Refused("cookie reply's MAC")
    return asked.message_1[:-16] + reply[12:28]


# Fragments


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
