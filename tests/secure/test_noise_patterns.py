"""The Noise core against the public cacophony vectors and against another implementation; the hybrid against itself.

Source of the vectors: the cacophony set, as carried in mcginty/snow tests/vectors/cacophony.txt.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from noise.connection import Keypair, NoiseConnection

from grepunch.secure.identity import Identity
from grepunch.secure.noise import IK, IK_HFS_PSK2, IK_PSK2, HandshakeState, Pattern, encapsulate
from pptp.crypto.aead import AeadKey, Suite
from pptp.errors import Drop, DropError, UsageError

VECTORS = json.loads(Path(__file__).with_name("cacophony.json").read_text())["vectors"]
PATTERNS = {pattern.protocol_name.decode(): pattern for pattern in (IK, IK_PSK2, IK_HFS_PSK2)}
ORACLE_HANDSHAKES = 40
ENTROPY = random.Random(99).randbytes


def fixed(*pieces: bytes) -> Callable[[int], bytes]:
    queue = list(pieces)

    def entropy(size: int) -> bytes:
        piece = queue.pop(0)
        assert len(piece) == size
        return piece

    return entropy


def pair_of(
    pattern: Pattern, initiator: Identity, responder: Identity, prologue: bytes, psk: bytes | None = None
) -> tuple[HandshakeState, HandshakeState]:
    first = HandshakeState(pattern, prologue, initiator, responder.public_key)
    second = HandshakeState(pattern, prologue, responder)
    if psk is not None:
        first.preshared_key = second.preshared_key = psk
    return first, second


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["protocol_name"])
def test_cacophony_vector(vector: dict[str, Any]) -> None:
    initiator = Identity.from_private_key(bytes.fromhex(vector["init_static"]))
    responder = Identity.from_private_key(bytes.fromhex(vector["resp_static"]))
    assert responder.public_key.hex() == vector["init_remote_static"]
    first, second = pair_of(
        PATTERNS[vector["protocol_name"]],
        initiator,
        responder,
        bytes.fromhex(vector["init_prologue"]),
        bytes.fromhex(vector["init_psks"][0]) if "init_psks" in vector else None,
    )
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    transcript = []
    ephemerals = [bytes.fromhex(vector[name]) for name in ("init_ephemeral", "resp_ephemeral")]
    turns = zip(messages, ephemerals, (first, second), (second, first), strict=False)
    for (payload, ciphertext), ephemeral, writer, reader in turns:
        assert writer.write_message(payload, fixed(ephemeral)) == ciphertext
        assert reader.read_message(ciphertext) == payload
        assert writer.handshake_hash == reader.handshake_hash
        transcript.append(writer.handshake_hash)
    # The set's "handshake_hash" is not the last one: it is h after message 1, in PSK mode after the `e` of message 2.
    # The last one is held against another implementation below, and every ciphertext authenticates the one before it.
    recorded = transcript[0]
    if "init_psks" in vector:
        recorded = hashlib.sha256(recorded + messages[1][1][:32]).digest()
    assert recorded.hex() == vector["handshake_hash"]
    assert second.remote_static_key == initiator.public_key
    assert first.split() == second.split()
    keys = [AeadKey(Suite.AES_256_GCM, key) for key in first.split()]
    for number, (payload, ciphertext) in enumerate(messages[2:]):
        assert keys[number % 2].seal(number // 2, b"", payload) == ciphertext


@pytest.mark.parametrize("pattern", [IK, IK_PSK2], ids=["IK", "IKpsk2"])
def test_many_random_handshakes_with_another_implementation(pattern: Pattern) -> None:
    seed = 20240607
    rng = random.Random(seed)
    for number in range(ORACLE_HANDSHAKES):
        ours_first = number % 2 == 0
        own, peer = (Identity.from_private_key(rng.randbytes(32)) for _ in range(2))
        psk = rng.randbytes(32)
        oracle: Any = NoiseConnection.from_name(pattern.protocol_name)
        if pattern.uses_psk:
            oracle.set_psks(psk)
        oracle.set_prologue(b"a prologue")
        oracle.set_keypair_from_private_bytes(Keypair.STATIC, peer.private_key)
        if ours_first:
            oracle.set_as_responder()
        else:
            oracle.set_as_initiator()
            oracle.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, own.public_key)
        oracle.start_handshake()
        state = HandshakeState(pattern, b"a prologue", own, peer.public_key if ours_first else None)
        state.preshared_key = psk
        payloads = [rng.randbytes(rng.randrange(100)) for _ in range(2)]
        if ours_first:
            assert oracle.read_message(state.write_message(payloads[0], rng.randbytes)) == payloads[0], seed
            assert state.read_message(bytes(oracle.write_message(payloads[1]))) == payloads[1], seed
        else:
            assert state.read_message(bytes(oracle.write_message(payloads[0]))) == payloads[0], seed
            assert oracle.read_message(state.write_message(payloads[1], rng.randbytes)) == payloads[1], seed
        assert oracle.get_handshake_hash() == state.handshake_hash
        send, receive = state.split() if ours_first else reversed(state.split())
        data = rng.randbytes(50)
        assert oracle.decrypt(AeadKey(Suite.AES_256_GCM, send).seal(0, b"", data)) == data
        assert AeadKey(Suite.AES_256_GCM, receive).open(0, b"", oracle.encrypt(data)) == data


def hybrid(rng: random.Random) -> tuple[HandshakeState, HandshakeState]:
    return pair_of(
        IK_HFS_PSK2,
        Identity.from_private_key(rng.randbytes(32)),
        Identity.from_private_key(rng.randbytes(32)),
        b"hybrid",
        rng.randbytes(32),
    )


def test_hybrid_agrees_and_has_the_sizes_of_its_tokens() -> None:
    first, second = hybrid(random.Random(1))
    message_1 = first.write_message(b"one", ENTROPY)
    assert len(message_1) == 32 + (1184 + 16) + (32 + 16) + (3 + 16)
    assert second.read_message(message_1) == b"one"
    message_2 = second.write_message(b"two", ENTROPY)
    assert len(message_2) == 32 + (1088 + 16) + (3 + 16)
    assert first.read_message(message_2) == b"two"
    assert first.split() == second.split()
    assert first.handshake_hash == second.handshake_hash
    assert len({*first.split(), first.chaining_key, first.handshake_hash}) == 4


def test_the_kem_secret_takes_part() -> None:
    """With the same X25519 keys throughout, another encapsulation gives other traffic keys."""
    keys = set()
    for _ in range(2):
        rng = random.Random(7)
        first, second = hybrid(rng)
        second.read_message(first.write_message(b"", rng.randbytes))
        first.read_message(second.write_message(b"", rng.randbytes))
        keys.add(first.split())
    assert len(keys) == 2


def test_a_message_is_read_on_a_copy_and_the_state_lives() -> None:
    first, second = hybrid(random.Random(2))
    second.read_message(first.write_message(b"", ENTROPY))
    message = second.write_message(b"answer", ENTROPY)
    spoilt = bytearray(message)
    spoilt[40] ^= 1
    with pytest.raises(DropError) as caught:
        first.copy().read_message(bytes(spoilt))
    assert caught.value.cause is Drop.BAD_TAG
    assert not first.finished
    assert first.read_message(message) == b"answer"


@pytest.mark.parametrize("size", [0, 31, 32, 100, 1231, 1232, 1279, 1280, 1295])
def test_a_short_message_is_malformed(size: int) -> None:
    first, second = hybrid(random.Random(3))
    with pytest.raises(DropError):
        second.copy().read_message(first.write_message(b"", ENTROPY)[:size])
    assert not second.finished


def test_an_all_zero_shared_secret_is_refused() -> None:
    first, second = hybrid(random.Random(4))
    message = first.write_message(b"", ENTROPY)
    with pytest.raises(DropError) as caught:
        second.copy().read_message(bytes(32) + message[32:])
    assert caught.value.cause is Drop.BAD_KEY


def test_what_is_no_kem_key_is_refused() -> None:
    with pytest.raises(DropError) as caught:
        encapsulate(b"\xff" * 1184)  # coefficients above the modulus: FIPS 203 section 7.2
    assert caught.value.cause is Drop.BAD_KEY


def test_messages_out_of_turn_are_our_bug() -> None:
    first, second = hybrid(random.Random(5))
    with pytest.raises(UsageError):
        second.write_message(b"", ENTROPY)
    with pytest.raises(UsageError):
        first.read_message(b"")
    with pytest.raises(UsageError):
        first.split()
    second.read_message(first.write_message(b"", ENTROPY))
    with pytest.raises(UsageError):
        first.write_message(b"", ENTROPY)
