"""Keys as text, Diffie-Hellman, derivations, and secrets that never print."""

from __future__ import annotations

import base64
from dataclasses import fields, is_dataclass

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.secure import derive
from grepunch.secure.handshake import derive_secrets, open_initiation, open_response
from grepunch.secure.identity import (
    Identity,
    decode_key,
    encode_key,
    generate_private_key,
    public_key,
    shared_secret,
)
from pptp.crypto.aead import Suite
from pptp.errors import Drop, DropError, UsageError, WireError
from tests.secure.exchange_world import World

# RFC 7748 section 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

# What X25519 maps to zero whatever the private key (points of small order, in their several encodings)
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 19 - 1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 19 + 1).to_bytes(32, "little"),
]


def test_rfc_7748_vector() -> None:
    assert public_key(ALICE) == ALICE_PUBLIC
    assert public_key(BOB) == BOB_PUBLIC
    assert shared_secret(ALICE, BOB_PUBLIC) == shared_secret(BOB, ALICE_PUBLIC) == SHARED


@pytest.mark.parametrize("point", LOW_ORDER)
def test_an_all_zero_secret_is_refused(point: bytes) -> None:
    with pytest.raises(DropError) as caught:
        shared_secret(ALICE, point)
    assert caught.value.cause is Drop.BAD_KEY


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_keys_as_text(key: bytes) -> None:
    assert decode_key(encode_key(key)) == key
    assert decode_key(f"  {encode_key(key)}\n") == key
    assert encode_key(key) == base64.b64encode(key).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret!",
        "A" * 43,
        base64.b64encode(b"s3cret" * 5).decode(),
        base64.b64encode(bytes(33)).decode(),
        base64.b64encode(bytes(31)).decode(),
        "ü" * 44,
        base64.b64encode(bytes(32)).decode()[:-2] + "B=",  # the last two bits are not zero
        base64.b64encode(b"\xff" * 32).decode().replace("/", "_"),
        base64.b64encode(bytes(32)).decode() + "\n" + "A",
    ],
)
def test_text_that_is_no_key_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_key(text)
    assert not text or text not in str(caught.value)


def test_entropy_becomes_the_private_key() -> None:
    assert generate_private_key(lambda size: bytes(range(size))) == bytes(range(32))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_another_size_are_our_bug(size: int) -> None:
    with pytest.raises(UsageError):
        public_key(bytes(size))
    with pytest.raises(UsageError):
        shared_secret(ALICE, bytes(size))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(1, 200), st.binary(max_size=80))
def test_hkdf_agrees_with_another_implementation(secret: bytes, info: bytes, size: int, salt: bytes) -> None:
    other = HKDF(algorithm=hashes.SHA256(), length=size, salt=salt or None, info=info)
    assert derive.hkdf(secret, info, size, salt=salt) == other.derive(secret)


def test_rfc_5869_vector() -> None:
    """RFC 5869 appendix A.1."""
    output = derive.hkdf(
        bytes.fromhex("0b" * 22),
        bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"),
        42,
        salt=bytes.fromhex("000102030405060708090a0b0c"),
    )
    assert output.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_names_differ_by_side_by_day_and_by_label() -> None:
    names = {
        derive.mailbox_id(SHARED, 1),
        derive.mailbox_id(SHARED, 2),
        derive.side_tag(SHARED, ALICE_PUBLIC, 1),
        derive.side_tag(SHARED, BOB_PUBLIC, 1),
        derive.side_tag(SHARED, ALICE_PUBLIC, 2),
        derive.probe_key(SHARED, ALICE_PUBLIC, BOB_PUBLIC),
        derive.probe_key(SHARED, BOB_PUBLIC, ALICE_PUBLIC),
    }
    assert len(names) == 7


def texts(*things: object) -> str:
    """Everything these things, and what is inside them, say about themselves."""
    said = []
    for thing in things:
        said += [repr(thing), str(thing)]
        if is_dataclass(thing):
            said += [repr(getattr(thing, field.name)) for field in fields(thing) if field.repr]
    return "\n".join(said)


def test_planted_keys_print_nowhere() -> None:
    psk = bytes(range(100, 132))
    world = World(1, psk_a=psk, psk_b=psk)
    world.initiate(world.a)
    message = world.recorded[0][1]
    opened = open_initiation(world.b.identity, message)
    attempt = world.a.exchange._attempt
    world.run_for(2)
    assert attempt is not None
    answer = next(datagram for host, datagram in world.recorded if host is world.b)
    finished, payload = open_response(attempt._state, world.a.identity, answer)
    secrets = derive_secrets(finished, Suite.AES_256_GCM)
    live = world.a.exchange._keyring.live
    assert live is not None
    said = texts(
        world.a.identity, world.a.exchange, attempt, attempt._state, opened, finished, payload, secrets, live,
        live.pair, world.a.exchange._keyring, world.a.admission, *world.a.log, *world.b.log,
    )  # fmt: skip
    planted = [
        psk,
        world.a.identity.private_key,
        world.b.identity.private_key,
        secrets.initiator_key,
        secrets.responder_key,
        secrets.probe_secret,
        live.probe_secret,
        finished.chaining_key,
    ]
    assert live.probe_secret == secrets.probe_secret
    for secret in planted:
        for form in (repr(secret)[2:-1], secret.hex(), encode_key(secret)):
            assert form not in said
    assert repr(Identity.from_private_key(ALICE)) == f"Identity(public_key={ALICE_PUBLIC!r})"
