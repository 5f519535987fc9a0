"""The product on one side of a table, the transcription of PROTOCOL.md on the other."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from grepunch.secure.events import KeysReady
from grepunch.secure.exchange import KeyExchange
from grepunch.secure.identity import Identity
from pptp.crypto.aead import Suite
from tests.secure import independent

SEED = 0x6770
PSK = bytes(range(32))
BOTH = (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305)
OFFERS = {
    "aes": (BOTH[:1], BOTH),
    "chacha": (BOTH[1:], BOTH),
    "aes first": (BOTH, BOTH),
    "chacha first": (BOTH[::-1], BOTH),
    "responder has chacha only": (BOTH, BOTH[1:]),
}


product_initiates_or_not = pytest.mark.parametrize("product_initiates", [True, False], ids=["asks", "answers"])
with_and_without_psk = pytest.mark.parametrize("psk", [None, PSK], ids=["no_psk", "psk"])
every_offer = pytest.mark.parametrize("offer", OFFERS)


@dataclass
class Table:
    """The product on one side, the transcription on the other; every key from one seed."""

    product: KeyExchange
    product_key: bytes
    side: independent.Side
    psk: bytes
    rng: random.Random

    @property
    def product_public(self) -> bytes:
        return independent.public_of(self.product_key)

    @property
    def side_public(self) -> bytes:
        return independent.public_of(self.side.private)

    def ask(self, side: independent.Side | None = None, ephemeral: bytes | None = None) -> independent.Asked:
        """A message 1 of the transcription."""
        ephemeral = self.rng.randbytes(32) if ephemeral is None else ephemeral
        return independent.ask(side or self.side, self.product_public, self.psk, ephemeral, self.rng.randbytes(64))

    def answer(self, message_1: bytes) -> tuple[bytes, independent.Agreement]:
        """The transcription's message 2."""
        return independent.answer(self.side, message_1, lambda peer: self.psk, self.rng.randbytes(32))

    def product_asks(self) -> bytes:
        self.product.initiate(0.0)
        (message_1,) = self.product.transmits()
        return message_1

    def product_answers(self, message_1: bytes) -> list[bytes]:
        """What the product says to a message 1, if anything."""
        opened = self.product.open_initiation(message_1)
        if opened is not None:
            self.product.receive_initiation(opened, 0.0)
        return self.product.transmits()

    def ready(self) -> KeysReady:
        """The one agreement the product has reported."""
        (event,) = (event for event in self.product.events() if isinstance(event, KeysReady))
        return event


def lay(psk: bytes | None = None, suites: tuple[Suite, ...] = BOTH, own: tuple[Suite, ...] = BOTH) -> Table:
    """Both sides; ``suites`` are the product's, ``own`` the transcription's."""
    rng = random.Random(SEED)
    product_key, side_key = rng.randbytes(32), rng.randbytes(32)
    product = KeyExchange(
        identity=Identity.from_private_key(product_key),
        peer_public_key=independent.public_of(side_key),
        preshared_key=psk,
        session_id=b"product!",
        capabilities=0xF0F0F0F1,
        suites=suites,
        entropy=rng.randbytes,
        allocate_index=lambda: rng.randrange(1, 1 << 32),
        release_index=lambda index: None,
    )
    side = independent.Side(side_key, b"oracle!!", 0xDEADBEEF, 0x8FFF0001, tuple(int(suite) for suite in own))
    return Table(product, product_key, side, psk or independent.NO_PSK, rng)


def meet(product_initiates: bool, psk: bytes | None, offer: str) -> tuple[Table, KeysReady, independent.Agreement]:
    """One whole handshake."""
    offered, taken = OFFERS[offer]
    table = lay(psk, *((offered, taken) if product_initiates else (taken, offered)))
    if product_initiates:
        message_2, agreement = table.answer(table.product_asks())
        table.product.receive(message_2, 0.0)
    else:
        asked = table.ask()
        (message_2,) = table.product_answers(asked.message_1)
        agreement = independent.conclude(asked, message_2)
    return table, table.ready(), agreement


def mirrored(agreement: independent.Agreement) -> independent.Agreement:
    """The same as its other side has it."""
    return replace(
        agreement,
        send_key=agreement.receive_key,
        receive_key=agreement.send_key,
        own_index=agreement.peer_index,
        peer_index=agreement.own_index,
    )
