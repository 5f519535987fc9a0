"""The Noise Protocol Framework (revision 34), as far as this project speaks it, driven by tables.

A pattern is its two messages, and a message is its tokens; :class:`HandshakeState` walks them. Three patterns
are here: IK and IKpsk2, because public test vectors exist for them, and IKhfs+psk2, which adds a KEM by the
tokens ``e1`` and ``ekem1`` of the Hybrid Forward Secrecy extension (revision 1draft) and is what peers speak.
Cipher and hash are always AESGCM and SHA256.

The state can be copied: whoever reads message 2 reads it on a copy, and drops the copy if the message is bad.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from grepunch.secure.constants import KEM_CIPHERTEXT_SIZE, KEM_PUBLIC_KEY_SIZE, KEM_SEED_SIZE, KEY_SIZE
from grepunch.secure.identity import Identity, public_key, shared_secret
from pptp.crypto.aead import TAG_SIZE, AeadKey, Suite
from pptp.errors import Drop, DropError, UsageError
from pptp.value import value

HASH_SIZE = 32

KeyT = TypeVar("KeyT", bytes, MLKEM768PrivateKey)

Encapsulate = Callable[[bytes], tuple[bytes, bytes]]
"""Public key of a KEM -> (shared secret, ciphertext); raises :class:`DropError` on a key that is none."""


class Token(Enum):
    """What a message of a pattern consists of (sections 7.1 and 9; HFS extension)."""

    E = "e"
    S = "s"
    EE = "ee"
    ES = "es"
    SE = "se"
    SS = "ss"
    PSK = "psk"
    E1 = "e1"
    EKEM1 = "ekem1"


@value
class Pattern:
    """A handshake pattern of two messages in which the initiator knows the responder's static key beforehand."""

    protocol_name: bytes
    messages: tuple[tuple[Token, ...], tuple[Token, ...]]

    @property
    def uses_psk(self) -> bool:
        """Whether a pre-shared key takes part; then every ``e`` is mixed into the key as well (section 9.2)."""
        return any(Token.PSK in message for message in self.messages)


IK = Pattern(
    b"Noise_IK_25519_AESGCM_SHA256",
    (
        (Token.E, Token.ES, Token.S, Token.SS),
        (Token.E, Token.EE, Token.SE),
    ),
)
IK_PSK2 = Pattern(
    b"Noise_IKpsk2_25519_AESGCM_SHA256",
    (
        (Token.E, Token.ES, Token.S, Token.SS),
        (Token.E, Token.EE, Token.SE, Token.PSK),
    ),
)
IK_HFS_PSK2 = Pattern(
    b"Noise_IKhfs+psk2_25519+MLKEM768_AESGCM_SHA256",
    (
        (Token.E, Token.ES, Token.E1, Token.S, Token.SS),
        (Token.E, Token.EE, Token.EKEM1, Token.SE, Token.PSK),
    ),
)


def encapsulate(kem_public_key: bytes) -> tuple[bytes, bytes]:
    """ML-KEM-768 (FIPS 203): shared secret and ciphertext. Draws its own randomness inside ``cryptography``."""
    try:
        return MLKEM768PublicKey.from_public_bytes(kem_public_key).encapsulate()
    except ValueError:
        raise DropError(Drop.BAD_KEY, "not an ML-KEM-768 encapsulation key") from None


class SymmetricState:
    """Chaining key, transcript hash and cipher of a handshake (section 5.2, with 5.1 folded in)."""

    __slots__ = ("_cipher", "_counter", "chaining_key", "handshake_hash")

    def __init__(self, protocol_name: bytes) -> None:
        if len(protocol_name) <= HASH_SIZE:
            self.handshake_hash = protocol_name.ljust(HASH_SIZE, b"\0")
        else:
            self.handshake_hash = hashlib.sha256(protocol_name).digest()
        self.chaining_key = self.handshake_hash
        self._cipher: AeadKey | None = None
        self._counter = 0

    def copy(self) -> SymmetricState:
        """An independent state with the same contents."""
        other = SymmetricState.__new__(SymmetricState)
        other.chaining_key = self.chaining_key
        other.handshake_hash = self.handshake_hash
        other._cipher = self._cipher
        other._counter = self._counter
        return other

    def mix_hash(self, data: bytes) -> None:
        """MixHash."""
        self.handshake_hash = hashlib.sha256(self.handshake_hash + data).digest()

    def mix_key(self, key_material: bytes) -> None:
        """MixKey."""
        self.chaining_key, key = _noise_hkdf(self.chaining_key, key_material, 2)
        self._set_key(key)

    def mix_key_and_hash(self, key_material: bytes) -> None:
        """MixKeyAndHash."""
        self.chaining_key, to_hash, key = _noise_hkdf(self.chaining_key, key_material, 3)
        self.mix_hash(to_hash)
        self._set_key(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """EncryptAndHash."""
        ciphertext = plaintext
        if self._cipher is not None:
            ciphertext = self._cipher.seal(self._counter, self.handshake_hash, plaintext)
            self._counter += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """DecryptAndHash; raises :class:`DropError` with ``BAD_TAG``."""
        plaintext = ciphertext
        if self._cipher is not None:
            plaintext = self._cipher.open(self._counter, self.handshake_hash, ciphertext)
            self._counter += 1
        self.mix_hash(ciphertext)
        return plaintext

    def sealed_size(self, size: int) -> int:
        """How long ``size`` octets become when encrypted now: a tag is added once there is a key."""
        return size if self._cipher is None else size + TAG_SIZE

    def split(self) -> tuple[bytes, bytes]:
        """Split, as two keys: the initiator sends under the first, the responder under the second."""
        first, second = _noise_hkdf(self.chaining_key, b"", 2)
        return first, second

    def _set_key(self, key: bytes) -> None:
        self._cipher = AeadKey(Suite.AES_256_GCM, key)
        self._counter = 0


class HandshakeState:
    """One handshake of one side (section 5.3). Messages alternate, the initiator writes the first.

    ``remote_static_key`` is the responder's public key and makes this side the initiator; the responder is made
    without and finds the initiator's in message 1.
    """

    __slots__ = (
        "_ephemeral_key",
        "_identity",
        "_initiator",
        "_kem_private_key",
        "_message_index",
        "_pattern",
        "_remote_ephemeral_key",
        "_remote_kem_key",
        "_remote_static_key",
        "_symmetric",
        "preshared_key",
    )

    def __init__(
        self, pattern: Pattern, prologue: bytes, identity: Identity, remote_static_key: bytes | None = None
    ) -> None:
        self.preshared_key = bytes(KEY_SIZE)
        self._remote_static_key = remote_static_key
        self._pattern = pattern
        self._identity = identity
        self._initiator = remote_static_key is not None
        self._message_index = 0
        self._ephemeral_key: bytes | None = None
        self._remote_ephemeral_key: bytes | None = None
        self._kem_private_key: MLKEM768PrivateKey | None = None
        self._remote_kem_key: bytes | None = None
        self._symmetric = SymmetricState(pattern.protocol_name)
        self._symmetric.mix_hash(prologue)
        self._symmetric.mix_hash(identity.public_key if remote_static_key is None else remote_static_key)

    def copy(self) -> HandshakeState:
        """An independent state with the same contents."""
        other = HandshakeState.__new__(HandshakeState)
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        other._symmetric = self._symmetric.copy()
        return other

    @property
    def finished(self) -> bool:
        """Whether both messages have been processed."""
        return self._message_index == len(self._pattern.messages)

    @property
    def remote_static_key(self) -> bytes:
        """The peer's static key: known to the initiator, and to the responder once it has read message 1."""
        return _known(self._remote_static_key)

    @property
    def handshake_hash(self) -> bytes:
        """``h``: what both sides have seen so far."""
        return self._symmetric.handshake_hash

    @property
    def chaining_key(self) -> bytes:
        """``ck``: for deriving further keys once :attr:`finished`."""
        return self._symmetric.chaining_key

    def mix_hash(self, data: bytes) -> None:
        """Bind clear bytes that travel beside the next message (its header) into the transcript."""
        self._symmetric.mix_hash(data)

    def write_message(
        self, payload: bytes, entropy: Callable[[int], bytes], encapsulate: Encapsulate = encapsulate
    ) -> bytes:
        """The next message, which is ours. ``entropy`` gives 32 octets for ``e`` and 64 for ``e1``."""
        out = [self._write(token, entropy, encapsulate) for token in self._take_turn(ours=True)]
        out.append(self._symmetric.encrypt_and_hash(payload))
        return b"".join(out)

    def read_message(self, message: bytes) -> bytes:
        """The payload of the next message, which is the peer's; raises :class:`DropError` and is then spoilt."""
        rest = message
        for token in self._take_turn(ours=False):
            rest = self._read(token, rest)
        if len(rest) < self._symmetric.sealed_size(0):
            raise DropError(Drop.MALFORMED, "handshake message too short")
        return self._symmetric.decrypt_and_hash(rest)

    def split(self) -> tuple[bytes, bytes]:
        """The keys of both directions: (initiator's, responder's)."""
        if not self.finished:
            raise UsageError("the handshake has not finished")
        return self._symmetric.split()

    def _take_turn(self, *, ours: bool) -> tuple[Token, ...]:
        if self.finished or (self._message_index % 2 == 0) is not (self._initiator is ours):
            raise UsageError("a handshake message out of turn")
        tokens = self._pattern.messages[self._message_index]
        self._message_index += 1
        return tokens

    def _write(self, token: Token, entropy: Callable[[int], bytes], encapsulate: Encapsulate) -> bytes:
        symmetric = self._symmetric
        match token:
            case Token.E:
                self._ephemeral_key = entropy(KEY_SIZE)
                ephemeral = public_key(self._ephemeral_key)
                self._mix_ephemeral(ephemeral)
                return ephemeral
            case Token.S:
                return symmetric.encrypt_and_hash(self._identity.public_key)
            case Token.E1:
                self._kem_private_key = MLKEM768PrivateKey.from_seed_bytes(entropy(KEM_SEED_SIZE))
                return symmetric.encrypt_and_hash(self._kem_private_key.public_key().public_bytes_raw())
            case Token.EKEM1:
                secret, ciphertext = encapsulate(_known(self._remote_kem_key))
                sealed = symmetric.encrypt_and_hash(ciphertext)
                symmetric.mix_key(secret)
                return sealed
            case _:
                self._mix_secret(token)
                return b""

    def _read(self, token: Token, rest: bytes) -> bytes:
        """Process ``token`` at the head of ``rest``; returns what follows it."""
        symmetric = self._symmetric
        match token:
            case Token.E:
                self._remote_ephemeral_key, rest = _take(rest, KEY_SIZE)
                self._mix_ephemeral(self._remote_ephemeral_key)
            case Token.S:
                sealed, rest = _take(rest, symmetric.sealed_size(KEY_SIZE))
                self._remote_static_key = symmetric.decrypt_and_hash(sealed)
            case Token.E1:
                sealed, rest = _take(rest, symmetric.sealed_size(KEM_PUBLIC_KEY_SIZE))
                self._remote_kem_key = symmetric.decrypt_and_hash(sealed)
            case Token.EKEM1:
                sealed, rest = _take(rest, symmetric.sealed_size(KEM_CIPHERTEXT_SIZE))
                ciphertext = symmetric.decrypt_and_hash(sealed)
                symmetric.mix_key(_known(self._kem_private_key).decapsulate(ciphertext))
            case _:
                self._mix_secret(token)
        return rest

    def _mix_ephemeral(self, ephemeral: bytes) -> None:
        self._symmetric.mix_hash(ephemeral)
        if self._pattern.uses_psk:
            self._symmetric.mix_key(ephemeral)

    def _mix_secret(self, token: Token) -> None:
        if token is Token.PSK:
            self._symmetric.mix_key_and_hash(self.preshared_key)
            return
        # The first letter is the initiator's key, the second the responder's.
        own, remote = token.value if self._initiator else reversed(token.value)
        private = self._ephemeral_key if own == "e" else self._identity.private_key
        public = self._remote_ephemeral_key if remote == "e" else self._remote_static_key
        self._symmetric.mix_key(shared_secret(_known(private), _known(public)))


def _known(key: KeyT | None) -> KeyT:
    """A key that an earlier token of the pattern has set."""
    if key is None:
        raise UsageError("the pattern uses a key before it is known")
    return key


def _noise_hkdf(chaining_key: bytes, key_material: bytes, outputs: int) -> tuple[bytes, ...]:
    """HKDF of section 4.3: RFC 5869 with the chaining key as salt and no info."""
    temporary = hmac.digest(chaining_key, key_material, "sha256")
    blocks = [b""]
    for counter in range(1, outputs + 1):
        blocks.append(hmac.digest(temporary, blocks[-1] + bytes([counter]), "sha256"))
    return tuple(blocks[1:])


def _take(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise DropError(Drop.MALFORMED, "handshake message too short")
    return data[:size], data[size:]
