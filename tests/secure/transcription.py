"""The handshake of PROTOCOL.md once more, in a straight line and with nothing of the product in it.

It serves as the second opinion on the product, and writes the vector file:

    python -m tests.secure.transcription > tests/secure/vectors.json

ML-KEM's encapsulation draws its own randomness, so ciphertext and secret are inputs, taken from the file as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

VECTOR_FILE = Path(__file__).with_name("vectors.json")

PROTOCOL_NAME = b"Noise_IKhfs+psk2_25519+MLKEM768_AESGCM_SHA256"
PROLOGUE = b"grepunch-pptp/1"

# Fixed inputs: nothing up the sleeve, each is the hash of its own name.
INITIATOR_STATIC = hashlib.sha256(b"initiator static").digest()
RESPONDER_STATIC = hashlib.sha256(b"responder static").digest()
INITIATOR_EPHEMERAL = hashlib.sha256(b"initiator ephemeral").digest()
RESPONDER_EPHEMERAL = hashlib.sha256(b"responder ephemeral").digest()
KEM_SEED = hashlib.sha512(b"KEM seed").digest()
PRESHARED_KEY = hashlib.sha256(b"pre-shared key").digest()
INITIATOR_INDEX, RESPONDER_INDEX = 0x01020304, 0xA1A2A3A4
INITIATOR_SESSION, RESPONDER_SESSION = b"session1", b"session2"
INITIATOR_CAPABILITIES, RESPONDER_CAPABILITIES = 0x00000003, 0x00000005
INNER_PROTOCOL, INNER_DATA, FRAME_COUNTER = 0x0021, b"an IPv4 packet, so to speak", 0


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, peer: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(peer))


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def hmac256(key: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def noise_hkdf(ck: bytes, material: bytes) -> tuple[bytes, bytes, bytes]:
    temporary = hmac256(ck, material)
    one = hmac256(temporary, b"\x01")
    two = hmac256(temporary, one, b"\x02")
    return one, two, hmac256(temporary, two, b"\x03")


def rfc5869(salt: bytes, secret: bytes, info: bytes) -> bytes:
    """HKDF of RFC 5869 for one block of output."""
    return hmac256(hmac256(salt or bytes(32), secret), info, b"\x01")


def nonce(counter: int) -> bytes:
    return bytes(4) + struct.pack(">Q", counter)


def transcribe(suite: int, psk: bytes, kem_ciphertext: bytes) -> dict[str, Any]:
    """One vector: inputs, every step, both messages, every derived key and one sealed frame."""
    initiator_public, responder_public = public(INITIATOR_STATIC), public(RESPONDER_STATIC)
    kem = MLKEM768PrivateKey.from_seed_bytes(KEM_SEED)
    kem_secret = kem.decapsulate(kem_ciphertext)
    steps: list[dict[str, str]] = []

    def step(name: str, **values: bytes) -> None:
        steps.append({"step": name, **{key: value.hex() for key, value in values.items()}})

    # Start
    h = ck = sha256(PROTOCOL_NAME)  # longer than 32 octets
    h = sha256(h, PROLOGUE)
    h = sha256(h, responder_public)
    step("start", h=h, ck=ck)

    # Message 1: header, then -> e, es, e1, s, ss, payload
    header_1 = struct.pack(">BBHII", 1, 1, 0, INITIATOR_INDEX, 0)
    h = sha256(h, header_1)
    step("header 1", h=h)
    e_i = public(INITIATOR_EPHEMERAL)
    h = sha256(h, e_i)
    ck, k, _ = noise_hkdf(ck, e_i)
    step("e", h=h, ck=ck, k=k)
    ck, k, _ = noise_hkdf(ck, dh(INITIATOR_EPHEMERAL, responder_public))
    step("es", ck=ck, k=k)
    sealed_e1 = AESGCM(k).encrypt(nonce(0), kem.public_key().public_bytes_raw(), h)
    h = sha256(h, sealed_e1)
    step("e1", h=h)
    sealed_s = AESGCM(k).encrypt(nonce(1), initiator_public, h)
    h = sha256(h, sealed_s)
    step("s", h=h)
    ck, k, _ = noise_hkdf(ck, dh(INITIATOR_STATIC, responder_public))
    step("ss", ck=ck, k=k)
    payload_1 = INITIATOR_SESSION + struct.pack(">IBBB", INITIATOR_CAPABILITIES, 2, suite, 3 - suite)
    sealed_payload_1 = AESGCM(k).encrypt(nonce(0), payload_1, h)
    h = sha256(h, sealed_payload_1)
    step("payload 1", h=h)
    body_1 = header_1 + e_i + sealed_e1 + sealed_s + sealed_payload_1
    message_1 = body_1 + hmac256(sha256(b"mac1", responder_public), body_1)[:16] + bytes(16)

    # Message 2: header, then <- e, ee, ekem1, se, psk, payload
    header_2 = struct.pack(">BBHII", 2, 1, 0, RESPONDER_INDEX, INITIATOR_INDEX)
    h = sha256(h, header_2)
    step("header 2", h=h)
    e_r = public(RESPONDER_EPHEMERAL)
    h = sha256(h, e_r)
    ck, k, _ = noise_hkdf(ck, e_r)
    step("e", h=h, ck=ck, k=k)
    ck, k, _ = noise_hkdf(ck, dh(RESPONDER_EPHEMERAL, e_i))
    step("ee", ck=ck, k=k)
    sealed_ekem1 = AESGCM(k).encrypt(nonce(0), kem_ciphertext, h)
    h = sha256(h, sealed_ekem1)
    ck, k, _ = noise_hkdf(ck, kem_secret)
    step("ekem1", h=h, ck=ck, k=k)
    ck, k, _ = noise_hkdf(ck, dh(RESPONDER_EPHEMERAL, initiator_public))
    step("se", ck=ck, k=k)
    ck, to_hash, k = noise_hkdf(ck, psk)
    h = sha256(h, to_hash)
    step("psk", h=h, ck=ck, k=k)
    payload_2 = RESPONDER_SESSION + struct.pack(">IBB", RESPONDER_CAPABILITIES, 1, suite)
    sealed_payload_2 = AESGCM(k).encrypt(nonce(0), payload_2, h)
    h = sha256(h, sealed_payload_2)
    step("payload 2", h=h)
    body_2 = header_2 + e_r + sealed_ekem1 + sealed_payload_2
    message_2 = body_2 + hmac256(sha256(b"mac1", initiator_public), body_2)[:16]

    # Outputs
    split_initiator, split_responder, _ = noise_hkdf(ck, b"")
    key_initiator = rfc5869(b"", split_initiator, b"suite" + bytes([suite]))
    key_responder = rfc5869(b"", split_responder, b"suite" + bytes([suite]))
    probe_secret = rfc5869(h, ck, b"probe secret")

    # One sealed frame of the initiator
    frame_header = struct.pack(">HIQ", 0x0053, RESPONDER_INDEX, FRAME_COUNTER)
    inner = struct.pack(">BH", 0, INNER_PROTOCOL) + INNER_DATA
    cipher: AESGCM | ChaCha20Poly1305 = AESGCM(key_initiator) if suite == 1 else ChaCha20Poly1305(key_initiator)
    frame = frame_header + cipher.encrypt(nonce(FRAME_COUNTER), inner, frame_header)

    # What travels beside the handshake
    cookie = sha256(b"a cookie")[:16]
    cookie_head = struct.pack(">BBHII", 3, 1, 0, 0, INITIATOR_INDEX) + cookie
    cookie_mac = hmac256(sha256(b"cookie", responder_public), message_1[-32:-16], cookie_head)[:16]
    parts = []
    half = -(-len(message_1) // 2)
    for number in range(2):
        head = sha256(message_1)[:8] + bytes([number, 2])
        data = message_1[number * half : (number + 1) * half]
        parts.append(head + hmac256(sha256(b"fragment", responder_public), head, data)[:16] + data)

    values = {
        "preshared_key": psk,
        "kem_public_key": kem.public_key().public_bytes_raw(),
        "kem_ciphertext": kem_ciphertext,
        "kem_secret": kem_secret,
        "message_1": message_1,
        "message_2": message_2,
        "handshake_hash": h,
        "chaining_key": ck,
        "split_initiator": split_initiator,
        "split_responder": split_responder,
        "traffic_key_initiator": key_initiator,
        "traffic_key_responder": key_responder,
        "probe_secret": probe_secret,
        "probe_key_initiator": rfc5869(b"", probe_secret, b"probe" + initiator_public + responder_public),
        "probe_key_responder": rfc5869(b"", probe_secret, b"probe" + responder_public + initiator_public),
        "sealed_frame": frame,
        "cookie": cookie,
        "cookie_reply": cookie_head + cookie_mac,
    }
    return {
        "suite": suite,
        **{name: value.hex() for name, value in values.items()},
        "steps": steps,
        "fragments_of_message_1": [part.hex() for part in parts],
    }


def vector_file(kem_ciphertext: bytes) -> dict[str, Any]:
    """The whole file."""
    static_static = dh(INITIATOR_STATIC, public(RESPONDER_STATIC))
    day = struct.pack(">I", 20_000)
    return {
        "about": "Handshake vectors of grepunch/secure/PROTOCOL.md. Octet strings are hexadecimal.",
        "inputs": {
            "protocol_name": PROTOCOL_NAME.decode(),
            "prologue": PROLOGUE.decode(),
            "initiator_static_private": INITIATOR_STATIC.hex(),
            "initiator_static_public": public(INITIATOR_STATIC).hex(),
            "responder_static_private": RESPONDER_STATIC.hex(),
            "responder_static_public": public(RESPONDER_STATIC).hex(),
            "initiator_ephemeral_private": INITIATOR_EPHEMERAL.hex(),
            "responder_ephemeral_private": RESPONDER_EPHEMERAL.hex(),
            "kem_seed": KEM_SEED.hex(),
            "initiator_index": INITIATOR_INDEX,
            "responder_index": RESPONDER_INDEX,
            "initiator_session_id": INITIATOR_SESSION.hex(),
            "responder_session_id": RESPONDER_SESSION.hex(),
            "initiator_capabilities": INITIATOR_CAPABILITIES,
            "responder_capabilities": RESPONDER_CAPABILITIES,
            "frame_protocol": INNER_PROTOCOL,
            "frame_data": INNER_DATA.hex(),
            "frame_counter": FRAME_COUNTER,
        },
        "static": {
            "shared_secret": static_static.hex(),
            "day": 20_000,
            "mailbox": rfc5869(b"", static_static, b"mailbox" + day)[:16].hex(),
            "initiator_side_tag": rfc5869(b"", static_static, b"side" + public(INITIATOR_STATIC) + day)[:16].hex(),
        },
        "vectors": [transcribe(suite, psk, kem_ciphertext) for suite in (1, 2) for psk in (bytes(32), PRESHARED_KEY)],
    }


if __name__ == "__main__":
    kept = json.loads(VECTOR_FILE.read_text())["vectors"][0]["kem_ciphertext"]
    print(json.dumps(vector_file(bytes.fromhex(kept)), indent=1))
