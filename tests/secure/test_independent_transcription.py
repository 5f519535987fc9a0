"""The product against a transcription of PROTOCOL.md that shares nothing with it: handshakes in either role."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from grepunch.secure.handshake import build_cookie_reply, open_cookie_reply
from pptp.crypto.aead import Suite
from pptp.errors import Drop, DropError
from tests.secure import independent
from tests.secure.independent_table import (
    BOTH,
    OFFERS,
    PSK,
    Table,
    every_offer,
    lay,
    meet,
    product_initiates_or_not,
    with_and_without_psk,
)
from tests.secure.vector_file import VECTOR_FILE, vector_file

# Handshakes


@product_initiates_or_not
@with_and_without_psk
@every_offer
def test_both_agree_on_everything(product_initiates: bool, psk: bytes | None, offer: str) -> None:
    table, ready, agreement = meet(product_initiates, psk, offer)
    assert ready.initiator is product_initiates
    assert ready.pair.suite == agreement.suite == (OFFERS[offer][0][0] if "only" not in offer else Suite(2))
    assert (ready.pair.local_index, ready.pair.remote_index) == (agreement.peer_index, agreement.own_index)
    assert ready.session == (agreement.peer_session_id, table.side.session_id) == (b"product!", b"oracle!!")
    assert ready.capabilities == agreement.capabilities == 0x80F00001
    assert ready.probe_secret == agreement.probe_secret
    assert agreement.peer_public == table.product_public


@product_initiates_or_not
def test_another_preshared_key_makes_no_keys(product_initiates: bool) -> None:
    table = lay(PSK)
    table.psk = independent.NO_PSK
    if product_initiates:
        table.product.receive(table.answer(table.product_asks())[0], 0.0)
        assert table.product.drops == {Drop.BAD_TAG: 1}
        assert not table.product.pairs
    else:
        asked = table.ask()
        (message_2,) = table.product_answers(asked.message_1)
        with pytest.raises(independent.Refused, match="tag"):
            independent.conclude(asked, message_2)


def test_the_attempt_outlives_a_bad_message_2() -> None:
    table = lay()
    message_2, agreement = table.answer(table.product_asks())
    table.product.receive(message_2[:-17] + bytes([message_2[-17] ^ 1]) + message_2[-16:], 0.0)
    table.product.receive(message_2, 0.0)
    assert table.ready().probe_secret == agreement.probe_secret


def test_no_suite_in_common_is_silence() -> None:
    table = lay(suites=BOTH[:1], own=BOTH[1:])
    assert table.product_answers(table.ask().message_1) == []
    assert table.product.drops == {Drop.NOT_ALLOWED: 1}
    table = lay(suites=BOTH[:1], own=BOTH[1:])
    with pytest.raises(independent.Refused, match="no suite in common"):
        table.answer(table.product_asks())


@pytest.mark.parametrize("suites", [(2,), (1, 1), (0,)])
def test_an_initiator_refuses_what_it_did_not_offer(suites: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    table = lay(suites=BOTH[:1])
    message_1 = table.product_asks()
    honest = independent.payload
    monkeypatch.setattr(independent, "payload", lambda identifier, bits, chosen: honest(identifier, bits, suites))
    table.product.receive(table.answer(message_1)[0], 0.0)
    assert table.product.drops == {Drop.NOT_ALLOWED: 1}
    assert not table.product.pairs


@pytest.mark.parametrize(("offered", "chosen"), [((9, 2, 1), 2), ((0, 255, 1), 1), ((2, 2), 2), ((7,) * 7 + (1,), 1)])
def test_unknown_suites_are_passed_over(offered: tuple[int, ...], chosen: int) -> None:
    table = lay()
    asked = table.ask(replace(table.side, suites=offered))
    (message_2,) = table.product_answers(asked.message_1)
    assert independent.conclude(asked, message_2).suite == table.ready().pair.suite == chosen


@pytest.mark.parametrize("offered", [(), (1,) * 9])
def test_an_offer_has_one_to_eight_suites(offered: tuple[int, ...]) -> None:
    table = lay()
    message_1 = table.ask(replace(table.side, suites=offered)).message_1
    assert table.product_answers(message_1) == []
    assert table.product.drops == {Drop.MALFORMED: 1}
    assert_oracle_refuses(table, message_1)


# What is authentic, but not as it should be


def assert_oracle_refuses(table: Table, message_1: bytes) -> None:
    """The transcription in the product's place."""
    side = independent.Side(table.product_key, b"product!", 1)
    with pytest.raises(independent.Refused):
        independent.answer(side, message_1, lambda peer: table.psk, table.rng.randbytes(32))


@pytest.mark.parametrize("changed", ["version", "zero", "no sender index", "receiver index", "type"])
def test_both_refuse_the_same_headers(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything verifies, since who knows our key has built it so."""
    honest = independent.header

    def header(kind: int, sender_index: int, receiver_index: int) -> bytes:
        match changed:
            case "no sender index":
                return honest(kind, 0, receiver_index)
            case "receiver index":
                return honest(kind, sender_index, receiver_index ^ 1)
            case "type":
                return honest(9, sender_index, receiver_index)
            case _:
                at = {"version": 1, "zero": 3}[changed]
                clear = bytearray(honest(kind, sender_index, receiver_index))
                clear[at] ^= 2
                return bytes(clear)

    table = lay()
    message_1_of_product = table.product_asks()
    with monkeypatch.context() as patch:
        patch.setattr(independent, "header", header)
        message_1 = table.ask().message_1
        message_2, _ = table.answer(message_1_of_product)
    assert table.product_answers(message_1) == []
    assert_oracle_refuses(table, message_1)
    table.product.receive(message_2, 0.0)
    assert not table.product.pairs
    assert sum(table.product.drops.values()) == 2


def test_both_refuse_a_message_1_with_a_spoilt_encapsulation_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coefficients not below 3329 fail the modulus check of FIPS 203 section 7.2."""
    table = lay()

    class Spoilt:
        @staticmethod
        def from_seed_bytes(seed: bytes) -> Spoilt:
            return Spoilt()

        def public_key(self) -> Spoilt:
            return self

        def public_bytes_raw(self) -> bytes:
            return b"\xff" * 1184

    with monkeypatch.context() as patch:
        patch.setattr(independent, "MLKEM768PrivateKey", Spoilt)
        message_1 = table.ask().message_1
    assert table.product_answers(message_1) == []
    assert table.product.drops == {Drop.BAD_KEY: 1}
    assert not table.product.pairs
    assert_oracle_refuses(table, message_1)


@product_initiates_or_not
def test_both_refuse_an_ephemeral_key_of_low_order(product_initiates: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    table = lay()
    message_1_of_product = table.product_asks() if product_initiates else b""
    honest_public, honest_dh = independent.public_of, independent.x25519
    low = b"low order".ljust(32)
    with monkeypatch.context() as patch:
        patch.setattr(independent, "public_of", lambda key: bytes(32) if key == low else honest_public(key))
        patch.setattr(independent, "x25519", lambda key, public: bytes(32) if key == low else honest_dh(key, public))
        if product_initiates:
            message_2, _ = independent.answer(table.side, message_1_of_product, lambda peer: table.psk, low)
        else:
            message_1 = table.ask(ephemeral=low).message_1
    if product_initiates:
        table.product.receive(message_2, 0.0)
    else:
        assert table.product_answers(message_1) == []
        assert_oracle_refuses(table, message_1)
    assert table.product.drops == {Drop.BAD_KEY: 1}
    assert not table.product.pairs


def spoil(message: bytes, position: int, public: bytes, tail: int) -> bytes:
    """One bit changed in front of MAC1, which anyone who knows ``public`` can make good again."""
    body = bytearray(message[: len(message) - tail])
    body[position] ^= 1 << position % 8
    return bytes(body) + independent.labelled_mac(b"mac1", public, bytes(body)) + message[len(message) - tail + 16 :]


def test_both_refuse_every_field_spoilt() -> None:
    """First, last and one more octet of each field of message 1 and 2."""
    table = lay()
    asked = table.ask()
    for position in (0, 1, 2, 4, 8, 11, 12, 43, 44, 700, 1243, 1244, 1280, 1291, 1292, 1300, 1322):
        spoilt = spoil(asked.message_1, position, table.product_public, tail=32)
        assert table.product_answers(spoilt) == [], position
        assert_oracle_refuses(table, spoilt)
    assert not table.product.pairs
    (message_2,) = table.product_answers(asked.message_1)
    own, _ = table.answer(lay().product_asks())
    other = lay()
    other.product_asks()
    for position in (0, 1, 2, 4, 8, 11, 12, 43, 44, 700, 1147, 1148, 1160, 1177):
        with pytest.raises(independent.Refused):
            independent.conclude(asked, spoil(message_2, position, table.side_public, tail=16))
        other.product.receive(spoil(own, position, other.product_public, tail=16), 0.0)
    assert not other.product.pairs
    other.product.receive(own, 0.0)
    assert other.product.pairs


def test_a_message_1_for_somebody_else_is_not_opened() -> None:
    table = lay()
    other = independent.public_of(table.rng.randbytes(32))
    asked = independent.ask(table.side, other, table.psk, table.rng.randbytes(32), table.rng.randbytes(64))
    assert table.product_answers(asked.message_1) == []
    assert_oracle_refuses(table, asked.message_1)
    stranger = replace(table.side, private=table.rng.randbytes(32))
    assert table.product_answers(table.ask(stranger).message_1) == []
    assert table.product.drops == {Drop.BAD_TAG: 1, Drop.NOT_ALLOWED: 1}


# Cookies


def test_cookies_both_ways() -> None:
    table = lay()
    message_1 = table.product_asks()
    table.product.receive(independent.cookie_reply(message_1, b"sixteen octets..", table.side_public), 0.0)
    (again,) = table.product.transmits()
    assert again == message_1[:-16] + b"sixteen octets.."
    message_2, agreement = table.answer(again)
    table.product.receive(message_2, 0.0)
    assert table.ready().probe_secret == agreement.probe_secret

    asked = lay().ask()
    reply = build_cookie_reply(table.product_public, asked.message_1, b"another cookie!!")
    again = independent.with_cookie(asked, reply)
    assert again == asked.message_1[:-16] + b"another cookie!!"
    (message_2,) = lay().product_answers(again)
    independent.conclude(asked, message_2)
    for position in range(44):
        spoilt = reply[:position] + bytes([reply[position] ^ 1]) + reply[position + 1 :]
        with pytest.raises(independent.Refused):
            independent.with_cookie(asked, spoilt)
        with pytest.raises(DropError):
            open_cookie_reply(table.product_public, asked.message_1, spoilt)


def test_the_transcription_writes_the_vector_file_to_the_octet() -> None:
    text = VECTOR_FILE.read_text()
    kept = json.loads(text)["vectors"][0]["kem_ciphertext"]
    assert json.dumps(vector_file(bytes.fromhex(kept)), indent=1) + "\n" == text
