"""Writes `vectors.json` with the independent transcription; nothing of the product takes part.

    python -m tests.secure.vector_file > tests/secure/vectors.json

ML-KEM's encapsulation draws its own randomness, so one ciphertext is kept: it is taken from the file as it is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from tests.secure import independent
from tests.secure import independent_frames as beside

VECTOR_FILE = Path(__file__).with_name("vectors.json")

# Nothing up the sleeve: each secret is the hash of its own name.
INITIATOR_STATIC = hashlib.sha256(b"initiator static").digest()
RESPONDER_STATIC = hashlib.sha256(b"responder static").digest()
INITIATOR_EPHEMERAL = hashlib.sha256(b"initiator ephemeral").digest()
RESPONDER_EPHEMERAL = hashlib.sha256(b"responder ephemeral").digest()
KEM_SEED = hashlib.sha512(b"KEM seed").digest()
PRESHARED_KEY = hashlib.sha256(b"pre-shared key").digest()
COOKIE = hashlib.sha256(b"a cookie").digest()[:16]
INITIATOR_PUBLIC = independent.public_of(INITIATOR_STATIC)
RESPONDER_PUBLIC = independent.public_of(RESPONDER_STATIC)
DAY = 20_000
FRAME_PROTOCOL, FRAME_DATA, FRAME_COUNTER = 0x0021, b"an IPv4 packet, so to speak", 0


def initiator(suite: int) -> independent.Side:
    """Offers both suites, the wanted one first."""
    return independent.Side(INITIATOR_STATIC, b"session1", 0x01020304, 0x00000003, (suite, 3 - suite))


def responder() -> independent.Side:
    """Takes what comes first."""
    return independent.Side(RESPONDER_STATIC, b"session2", 0xA1A2A3A4, 0x00000005)


def one_vector(suite: int, psk: bytes, kem_ciphertext: bytes) -> dict[str, Any]:
    """Both messages, every step, every derived key, one sealed frame, and what travels beside the handshake."""
    kem = MLKEM768PrivateKey.from_seed_bytes(KEM_SEED)
    kem_secret = kem.decapsulate(kem_ciphertext)
    asked = independent.ask(initiator(suite), RESPONDER_PUBLIC, psk, INITIATOR_EPHEMERAL, KEM_SEED)
    message_2, answered = independent.answer(
        responder(),
        asked.message_1,
        lambda peer_public: psk,
        RESPONDER_EPHEMERAL,
        lambda encapsulation_key: (kem_ciphertext, kem_secret),
    )
    agreed = independent.conclude(asked, message_2)
    assert (agreed.send_key, agreed.receive_key) == (answered.receive_key, answered.send_key)
    assert agreed.state.steps == answered.state.steps
    split_initiator, split_responder = independent.split(agreed.state)
    values = {
        "preshared_key": psk,
        "kem_public_key": kem.public_key().public_bytes_raw(),
        "kem_ciphertext": kem_ciphertext,
        "kem_secret": kem_secret,
        "message_1": asked.message_1,
        "message_2": message_2,
        "handshake_hash": agreed.state.h,
        "chaining_key": agreed.state.ck,
        "split_initiator": split_initiator,
        "split_responder": split_responder,
        "traffic_key_initiator": agreed.send_key,
        "traffic_key_responder": agreed.receive_key,
        "probe_secret": agreed.probe_secret,
        "probe_key_initiator": beside.probe_key(agreed.probe_secret, INITIATOR_PUBLIC, RESPONDER_PUBLIC),
        "probe_key_responder": beside.probe_key(agreed.probe_secret, RESPONDER_PUBLIC, INITIATOR_PUBLIC),
        "sealed_frame": beside.seal(agreed, FRAME_COUNTER, FRAME_PROTOCOL, FRAME_DATA),
        "cookie": COOKIE,
        "cookie_reply": independent.cookie_reply(asked.message_1, COOKIE, RESPONDER_PUBLIC),
    }
    return {
        "suite": suite,
        **{name: value.hex() for name, value in values.items()},
        "steps": agreed.state.steps,
        "fragments_of_message_1": [part.hex() for part in beside.fragment(asked.message_1, RESPONDER_PUBLIC)],
    }


def vector_file(kem_ciphertext: bytes) -> dict[str, Any]:
    """The whole file."""
    first, second = initiator(1), responder()
    return {
        "about": "Handshake vectors of grepunch/secure/PROTOCOL.md. Octet strings are hexadecimal.",
        "inputs": {
            "protocol_name": independent.NAME.decode(),
            "prologue": independent.PROLOGUE.decode(),
            "initiator_static_private": INITIATOR_STATIC.hex(),
            "initiator_static_public": INITIATOR_PUBLIC.hex(),
            "responder_static_private": RESPONDER_STATIC.hex(),
            "responder_static_public": RESPONDER_PUBLIC.hex(),
            "initiator_ephemeral_private": INITIATOR_EPHEMERAL.hex(),
            "responder_ephemeral_private": RESPONDER_EPHEMERAL.hex(),
            "kem_seed": KEM_SEED.hex(),
            "initiator_index": first.index,
            "responder_index": second.index,
            "initiator_session_id": first.session_id.hex(),
            "responder_session_id": second.session_id.hex(),
            "initiator_capabilities": first.capabilities,
            "responder_capabilities": second.capabilities,
            "frame_protocol": FRAME_PROTOCOL,
            "frame_data": FRAME_DATA.hex(),
            "frame_counter": FRAME_COUNTER,
        },
        "static": {
            "shared_secret": independent.x25519(INITIATOR_STATIC, RESPONDER_PUBLIC).hex(),
            "day": DAY,
            "mailbox": beside.mailbox(INITIATOR_STATIC, RESPONDER_PUBLIC, DAY).hex(),
            "initiator_side_tag": beside.side_tag(INITIATOR_STATIC, RESPONDER_PUBLIC, DAY).hex(),
        },
        "vectors": [one_vector(suite, psk, kem_ciphertext) for suite in (1, 2) for psk in (bytes(32), PRESHARED_KEY)],
    }


if __name__ == "__main__":
    kept = json.loads(VECTOR_FILE.read_text())["vectors"][0]["kem_ciphertext"]
    print(json.dumps(vector_file(bytes.fromhex(kept)), indent=1))
