"""MPPE's keys against the RFC's vectors; the vectors of a recorded exchange stand in test_ccp_recorded.py."""

from __future__ import annotations

import pytest

from pptp.crypto.legacy import Rc4
from pptp.crypto.mppe_keys import Strength, initial_session_key, master_key, next_session_key, start_keys

# RFC 3079 section 3.5.1 to 3.5.3, whose exchange is that of RFC 2759 section 9.2
NT_HASH = bytes.fromhex("44EBBA8D5312B8D611474411F56989AE")
NT_RESPONSE = bytes.fromhex("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")
MASTER_KEY = bytes.fromhex("FDECE3717A8C838CB388E527AE3CDD31")
SEND_START_KEY = bytes.fromhex("8B7CDC149B993A1BA118CB153F56DCCB")
MESSAGE = b"test message"


def test_rfc_3079_master_and_start_keys() -> None:
    assert master_key(NT_HASH, NT_RESPONSE) == MASTER_KEY
    assert start_keys(MASTER_KEY, authenticator=True)[0] == SEND_START_KEY


@pytest.mark.parametrize(
    ("strength", "session_key", "encrypted"),
    [
        (Strength.BITS_40, "D1269EC49FA62E3E", "929137917E5803D668D75898"),
        # the RFC misprints the last octet as 58: RC4 under the key that it names makes B8 of it
        (Strength.BITS_56, "D15C00C49FA62E3E", "3F106833FA448DA842BC57B8"),
        (Strength.BITS_128, "405CB2247A7956E6E211007AE27B22D4", "81848317DF68846272FB5ABE"),
    ],
)
def test_rfc_3079_session_keys(strength: Strength, session_key: str, encrypted: str) -> None:
    key = initial_session_key(SEND_START_KEY, strength)
    assert key.hex().upper() == session_key
    assert Rc4(key).update(MESSAGE).hex().upper() == encrypted


def test_interop_40_the_ends_have_each_others_keys() -> None:
    send, receive = start_keys(MASTER_KEY, authenticator=True)
    assert start_keys(MASTER_KEY, authenticator=False) == (receive, send)
    assert receive.hex() == "d5f0e9521e3ea9589645e86051c82226"  # as other implementations compute it
    assert len({send, receive}) == 2


@pytest.mark.parametrize("strength", Strength)
def test_every_key_of_a_weak_strength_shows_its_known_octets(strength: Strength) -> None:
    key = initial_session_key(SEND_START_KEY, strength)
    seen = {key}
    for _ in range(50):
        key = next_session_key(SEND_START_KEY, key, strength)
        assert len(key) == strength.key_size
        assert key.startswith(strength.known)
        seen.add(key)
    assert len(seen) == 51
    assert 8 * (strength.key_size - len(strength.known)) == strength
