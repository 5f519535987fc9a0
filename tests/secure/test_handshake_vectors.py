"""The product against the vector file, which the independent transcription writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from grepunch.secure import derive
from grepunch.secure.constants import PROLOGUE
from grepunch.secure.events import ConfirmWanted, KeysLive, KeysReady
from grepunch.secure.exchange import KeyExchange
from grepunch.secure.fragments import build_fragments
from grepunch.secure.handshake import (
    Payload,
    build_cookie_reply,
    build_initiation,
    build_response,
    derive_secrets,
    open_cookie_reply,
    open_initiation,
    open_response,
)
from grepunch.secure.identity import Identity, shared_secret
from grepunch.secure.noise import IK_HFS_PSK2, HandshakeState
from pptp.crypto.aead import Suite
from pptp.datapath import SealedPair
from tests.secure.vector_file import VECTOR_FILE

FILE = json.loads(VECTOR_FILE.read_text())
INPUTS = FILE["inputs"]
VECTORS = FILE["vectors"]
INITIATOR = Identity.from_private_key(bytes.fromhex(INPUTS["initiator_static_private"]))
RESPONDER = Identity.from_private_key(bytes.fromhex(INPUTS["responder_static_private"]))


def name_of(vector: dict[str, Any]) -> str:
    return f"suite{vector['suite']}-{'psk' if int(vector['preshared_key'], 16) else 'no_psk'}"


def entropy_of(*names: str) -> Callable[[int], bytes]:
    queue = [bytes.fromhex(INPUTS[name]) for name in names]

    def entropy(size: int) -> bytes:
        piece = queue.pop(0)
        assert len(piece) == size
        return piece

    return entropy


def offered(vector: dict[str, Any]) -> tuple[Suite, Suite]:
    return Suite(vector["suite"]), Suite(3 - vector["suite"])


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_handshake_vector(vector: dict[str, Any]) -> None:
    known = {name: bytes.fromhex(value) for name, value in vector.items() if isinstance(value, str)}
    first = HandshakeState(IK_HFS_PSK2, PROLOGUE, INITIATOR, RESPONDER.public_key)
    first.preshared_key = known["preshared_key"]
    message_1 = build_initiation(
        first,
        INPUTS["initiator_index"],
        Payload(
            bytes.fromhex(INPUTS["initiator_session_id"]),
            INPUTS["initiator_capabilities"],
            offered(vector),
        ),
        entropy_of("initiator_ephemeral_private", "kem_seed"),
    )
    assert message_1 == known["message_1"]
    opened = open_initiation(RESPONDER, message_1)
    assert opened.peer_public_key == INITIATOR.public_key
    opened.state.preshared_key = known["preshared_key"]

    def encapsulate(kem_public_key: bytes) -> tuple[bytes, bytes]:
        assert kem_public_key == known["kem_public_key"]
        return known["kem_secret"], known["kem_ciphertext"]

    message_2 = build_response(
        opened.state,
        INPUTS["responder_index"],
        opened.sender_index,
        Payload(bytes.fromhex(INPUTS["responder_session_id"]), INPUTS["responder_capabilities"], (vector["suite"],)),
        entropy_of("responder_ephemeral_private"),
        encapsulate,
    )
    assert message_2 == known["message_2"]
    finished, payload = open_response(first, INITIATOR, message_2)
    assert payload.suites == (vector["suite"],)
    for state in (finished, opened.state):
        assert state.handshake_hash == known["handshake_hash"]
        assert state.chaining_key == known["chaining_key"]
        assert state.split() == (known["split_initiator"], known["split_responder"])
        secrets = derive_secrets(state, Suite(vector["suite"]))
        assert secrets.initiator_key == known["traffic_key_initiator"]
        assert secrets.responder_key == known["traffic_key_responder"]
        assert secrets.probe_secret == known["probe_secret"]


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_vectors_of_what_travels_beside(vector: dict[str, Any]) -> None:
    known = {name: bytes.fromhex(value) for name, value in vector.items() if isinstance(value, str)}
    pair = SealedPair(
        INPUTS["initiator_index"],
        INPUTS["responder_index"],
        Suite(vector["suite"]),
        known["traffic_key_initiator"],
        known["traffic_key_responder"],
    )
    assert pair.seal(INPUTS["frame_protocol"], bytes.fromhex(INPUTS["frame_data"])) == known["sealed_frame"]
    keys = [INITIATOR.public_key, RESPONDER.public_key]
    assert derive.probe_key(known["probe_secret"], *keys) == known["probe_key_initiator"]
    assert derive.probe_key(known["probe_secret"], *keys[::-1]) == known["probe_key_responder"]
    reply = build_cookie_reply(RESPONDER.public_key, known["message_1"], known["cookie"])
    assert reply == known["cookie_reply"]
    assert open_cookie_reply(RESPONDER.public_key, known["message_1"], reply) == known["cookie"]
    parts = [bytes.fromhex(part) for part in vector["fragments_of_message_1"]]
    assert build_fragments(known["message_1"], RESPONDER.public_key) == parts


def test_vectors_of_the_static_keys() -> None:
    static = FILE["static"]
    shared = shared_secret(INITIATOR.private_key, RESPONDER.public_key)
    assert shared == shared_secret(RESPONDER.private_key, INITIATOR.public_key)
    assert shared.hex() == static["shared_secret"]
    assert derive.mailbox_id(shared, static["day"]).hex() == static["mailbox"]
    assert derive.side_tag(shared, INITIATOR.public_key, static["day"]).hex() == static["initiator_side_tag"]


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_two_exchanges_reproduce_the_vector(vector: dict[str, Any]) -> None:
    """The machines add nothing of their own: given the same entropy they send these very octets."""
    known = {name: bytes.fromhex(value) for name, value in vector.items() if isinstance(value, str)}

    def make(side: str, other: str, **more: Any) -> KeyExchange:
        names = ("initiator_ephemeral_private", "kem_seed") if side == "initiator" else ("responder_ephemeral_private",)
        return KeyExchange(
            identity=Identity.from_private_key(bytes.fromhex(INPUTS[f"{side}_static_private"])),
            peer_public_key=bytes.fromhex(INPUTS[f"{other}_static_public"]),
            preshared_key=known["preshared_key"],
            session_id=bytes.fromhex(INPUTS[f"{side}_session_id"]),
            capabilities=INPUTS[f"{side}_capabilities"],
            suites=offered(vector),
            entropy=entropy_of(*names),
            allocate_index=lambda: int(INPUTS[f"{side}_index"]),
            release_index=lambda index: None,
            **more,
        )

    first = make("initiator", "responder")
    second = make("responder", "initiator", encapsulate=lambda key: (known["kem_secret"], known["kem_ciphertext"]))
    first.initiate(0.0)
    assert first.transmits() == [known["message_1"]]
    second.receive_initiation(open_initiation(RESPONDER, known["message_1"]), 0.0)
    assert second.transmits() == [known["message_2"]]
    first.receive(known["message_2"], 0.0)
    ready, confirm = first.events()
    assert isinstance(ready, KeysReady)
    assert isinstance(confirm, ConfirmWanted)
    assert ready.probe_secret == known["probe_secret"]
    assert ready.capabilities == INPUTS["initiator_capabilities"] & INPUTS["responder_capabilities"]
    assert ready.pair.seal(INPUTS["frame_protocol"], bytes.fromhex(INPUTS["frame_data"])) == known["sealed_frame"]
    second.events()
    (pair,) = second.pairs.values()
    assert pair.open(known["sealed_frame"])[1] == bytes.fromhex(INPUTS["frame_data"])
    second.frame_verified(pair.local_index, 0.0)
    assert isinstance(second.events()[0], KeysLive)
