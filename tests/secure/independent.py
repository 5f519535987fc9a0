"""The sealed protocol a second time, written from PROTOCOL.md, the Noise specification and the RFCs alone.

An oracle: it shares no line and no import with the product, so that where both agree, the document says what both do.
It is straightforward rather than fast or careful: the first thing wrong ends a handshake with `Refused`, and whatever
is random is handed in, so that vectors can be computed with it. Frames and names are in `independent_frames.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
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
    """HMAC-SHA256 (RFC 2104)."""
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
    """h, ck, k and n, and for the vector file what each step changed of them."""

    h: bytes
    ck: bytes
    k: bytes = b""
    n: int = 0
    steps: list[dict[str, str]] = field(default_factory=list)

    def copy(self) -> Symmetric:
        """For reading what may turn out bad."""
        return replace(self, steps=list(self.steps))

    def note(self, step: str) -> None:
        """Write down what is new since the last note."""
        before = {name: value for noted in self.steps for name, value in noted.items()}
        now = {"h": self.h.hex(), "ck": self.ck.hex(), "k": self.k.hex()}
        self.steps.append({"step": step, **{name: now[name] for name in now if now[name] != before.get(name, "")}})

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
    state.note("start")
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
    if not 1 <= count <= 8 or len(data) != 13 + count:
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
    state: Symmetric = field(repr=False)


def split(state: Symmetric) -> list[bytes]:
    """k1 and k2 of Noise's Split."""
    return noise_hkdf(state.ck, b"", 2)


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
    k1, k2 = (hkdf(key, b"suite" + bytes([suite])) for key in split(state))
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
        state=state,
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
    state.note("header 1")
    own_ephemeral = public_of(ephemeral)
    state.mix_ephemeral(own_ephemeral)
    state.note("e")
    state.mix_key(x25519(ephemeral, responder_public))
    state.note("es")
    encapsulation_key = MLKEM768PrivateKey.from_seed_bytes(kem_seed).public_key().public_bytes_raw()
    e1 = state.encrypt(encapsulation_key)
    state.note("e1")
    s = state.encrypt(public_of(side.private))
    state.note("s")
    state.mix_key(x25519(side.private, responder_public))
    state.note("ss")
    contents = state.encrypt(payload(side.session_id, side.capabilities, side.suites))
    state.note("payload 1")
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
    state.note("header 1")
    peer_ephemeral = message[12:44]
    state.mix_ephemeral(peer_ephemeral)
    state.note("e")
    state.mix_key(x25519(side.private, peer_ephemeral))
    state.note("es")
    encapsulation_key = state.decrypt(message[44:1244])
    state.note("e1")
    peer_public = state.decrypt(message[1244:1292])
    state.note("s")
    state.mix_key(x25519(side.private, peer_public))
    state.note("ss")
    peer_session_id, offered_capabilities, offered = read_payload(state.decrypt(message[1292:]))
    state.note("payload 1")
    suite = next((suite for suite in offered if suite in side.suites), None)
    if suite is None:
        raise Refused("no suite in common")

    clear = header(MESSAGE_2, side.index, peer_index)
    state.mix_hash(clear)
    state.note("header 2")
    own_ephemeral = public_of(ephemeral)
    state.mix_ephemeral(own_ephemeral)
    state.note("e")
    state.mix_key(x25519(ephemeral, peer_ephemeral))
    state.note("ee")
    ciphertext, shared_secret = encapsulation(encapsulation_key)
    ekem1 = state.encrypt(ciphertext)
    state.mix_key(shared_secret)
    state.note("ekem1")
    state.mix_key(x25519(ephemeral, peer_public))
    state.note("se")
    state.mix_key_and_hash(psk_of(peer_public))
    state.note("psk")
    contents = state.encrypt(payload(side.session_id, side.capabilities, (suite,)))
    state.note("payload 2")
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

    state = asked.state.copy()
    state.mix_hash(message[:12])
    state.note("header 2")
    peer_ephemeral = message[12:44]
    state.mix_ephemeral(peer_ephemeral)
    state.note("e")
    state.mix_key(x25519(asked.ephemeral, peer_ephemeral))
    state.note("ee")
    ciphertext = state.decrypt(message[44:1148])
    state.mix_key(MLKEM768PrivateKey.from_seed_bytes(asked.kem_seed).decapsulate(ciphertext))
    state.note("ekem1")
    state.mix_key(x25519(side.private, peer_ephemeral))
    state.note("se")
    state.mix_key_and_hash(asked.psk)
    state.note("psk")
    peer_session_id, peer_capabilities, chosen = read_payload(state.decrypt(message[1148:]))
    state.note("payload 2")
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
