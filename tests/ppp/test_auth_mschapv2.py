"""MS-CHAPv2, one exchange at a time: names, proofs, failures and other tries (RFC 2759)."""

from __future__ import annotations

import hashlib

import pytest

from pptp.crypto.legacy import authenticator_response, challenge_hash, challenge_response, nt_password_hash
from pptp.errors import PeerViolation, WireError
from pptp.ppp.auth import AuthFailed, AuthRefused, AuthSucceeded
from pptp.ppp.chap import ChapMd5Authenticator
from pptp.ppp.credentials import Users
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.wire.auth import (
    ChapChallenge,
    ChapResponse,
    ChapResult,
    MsResponse,
    build_chap,
    build_ms_response,
    parse_chap,
    parse_ms_failure,
    parse_ms_response,
    parse_ms_success,
)
from tests.ppp.auth_support import (
    HASHED,
    KNOWN,
    PASSWORD,
    USERS,
    answered_client,
    begin,
    challenge_of,
    ms_response,
    one,
    result_of,
)


@pytest.mark.parametrize("name", [b"bob", b"\xff\x00\x1b[2J"])
def test_an_unknown_user_gets_in_by_no_stand_in(name: bytes) -> None:
    server = begin(ChapMd5Authenticator(USERS))
    challenge = challenge_of(server)
    value = hashlib.md5(bytes((challenge.identifier,)) + challenge.value).digest()  # noqa: S324 -- what CHAP is
    server.receive(build_chap(ChapResponse(challenge.identifier, value, name)), 0)
    server = begin(MsChapV2Authenticator(USERS, attempts=1))
    challenge = challenge_of(server)
    asked = challenge_hash(bytes(16), challenge.value, name)
    zero = build_ms_response(MsResponse(bytes(16), challenge_response(asked, bytes(16))))
    server.receive(build_chap(ChapResponse(challenge.identifier, zero, name)), 0)
    (event,) = server.events()
    assert isinstance(event, AuthFailed)
    assert "no such user" in event.detail
    assert event.detail.isprintable()


def test_interop_31_the_domain_stays_out_of_the_hash() -> None:
    server = begin(MsChapV2Authenticator(USERS))
    response = ms_response(challenge_of(server), "EXAMPLE\\alice", PASSWORD, hashed="alice")
    server.receive(build_chap(response), 0)
    (event,) = server.events()
    assert isinstance(event, AuthSucceeded)
    assert event.identity == "alice"


def test_interop_31_users_may_be_told_apart_by_domain() -> None:
    server = begin(MsChapV2Authenticator(Users(KNOWN.get, strip_domain=False)))
    response = ms_response(challenge_of(server), "EXAMPLE\\carol", PASSWORD, hashed="carol")
    server.receive(build_chap(response), 0)
    (event,) = server.events()
    assert isinstance(event, AuthSucceeded)
    assert event.identity == "EXAMPLE\\carol"


def test_interop_31_as_a_client_we_may_have_a_domain() -> None:
    client = begin(MsChapV2Authenticatee("EXAMPLE\\alice", HASHED))
    challenge = ChapChallenge(5, bytes(range(16)), b"server")
    client.receive(build_chap(challenge), 0)
    response = parse_chap(one(client))
    assert isinstance(response, ChapResponse)
    assert response.name == b"EXAMPLE\\alice"
    read = parse_ms_response(response.value)
    asked = challenge_hash(read.peer_challenge, challenge.value, b"alice")
    assert read.nt_response == challenge_response(asked, HASHED.nt_hash)


@pytest.mark.parametrize(("flags", "message"), [(0, b"Access granted"), (4, None)])
def test_interop_32_the_message_of_success_can_be_left_out(flags: int, message: bytes | None) -> None:
    server = begin(MsChapV2Authenticator(USERS))
    challenge = challenge_of(server)
    server.receive(build_chap(ms_response(challenge, "alice", PASSWORD, flags=flags)), 0)
    result = result_of(server)
    assert result.identifier == challenge.identifier
    success = parse_ms_success(result.message)
    assert success.message == message
    asked = challenge_hash(bytes(16), challenge.value, b"alice")
    nt_hash = nt_password_hash(PASSWORD)
    expected = authenticator_response(nt_hash, challenge_response(asked, nt_hash), asked)
    assert success.authenticator_response == expected
    assert result.message.startswith(b"S=" + expected.hex().upper().encode())


@pytest.mark.parametrize("after", [b"", b" ", b" M=", b"M=", b" M=Welcome"])
def test_interop_32_a_client_takes_success_with_and_without_message(after: bytes) -> None:
    client, proof = answered_client()
    client.receive(build_chap(ChapResult(5, True, b"S=" + proof.hex().upper().encode() + after)), 0)
    (event,) = client.events()
    assert isinstance(event, AuthSucceeded)


@pytest.mark.parametrize("message", [b"", b"Welcome", b"S=" + b"0" * 40, b"S=" + b"0" * 40 + b" M=Welcome"])
def test_a_client_believes_no_server_without_proof(message: bytes) -> None:
    client, _ = answered_client()
    client.receive(build_chap(ChapResult(5, True, message)), 0)
    (event,) = client.events()
    assert isinstance(event, AuthFailed)
    assert "know" in event.detail
    assert client.deadline() is None


def test_interop_33_a_failure_offers_another_try_with_a_new_challenge() -> None:
    server = begin(MsChapV2Authenticator(USERS, attempts=3))
    challenge = challenge_of(server)
    challenges = {challenge.value}
    for attempt in range(2):
        server.receive(build_chap(ms_response(challenge, "alice", "guess")), attempt)
        result = result_of(server)
        assert not result.success
        assert result.identifier == challenge.identifier
        failure = parse_ms_failure(result.message)
        assert (failure.error, failure.retry, failure.version) == (691, True, 3)
        assert failure.challenge is not None
        challenge = ChapChallenge((challenge.identifier + 1) & 0xFF, failure.challenge)
        challenges.add(challenge.value)
        assert server.events() == [AuthRefused("MS-CHAPv2: alice: wrong password")]
        assert server.deadline() == attempt + 60  # a user is asked again, and nobody hurries it
    server.receive(build_chap(ms_response(challenge, "alice", PASSWORD)), 2)
    assert result_of(server).success
    assert [type(event) for event in server.events()] == [AuthSucceeded]
    assert len(challenges) == 3


def test_interop_33_the_last_failure_is_final() -> None:
    server = begin(MsChapV2Authenticator(USERS, attempts=2))
    challenge = challenge_of(server)
    server.receive(build_chap(ms_response(challenge, "alice", "guess")), 0)
    failure = parse_ms_failure(result_of(server).message)
    assert failure.challenge is not None
    again = ChapChallenge((challenge.identifier + 1) & 0xFF, failure.challenge)
    server.receive(build_chap(ms_response(again, "alice", "guess")), 0)
    last = result_of(server)
    read = parse_ms_failure(last.message)
    assert (read.error, read.retry) == (691, False)
    assert b" C=" in last.message
    said = "MS-CHAPv2: alice: wrong password"
    assert server.events() == [AuthRefused(said), AuthFailed(said)]
    assert server.deadline() is None
    with pytest.raises(PeerViolation):  # not even the right one is taken now
        server.receive(build_chap(ms_response(again, "alice", PASSWORD)), 0)


def test_interop_33_an_old_challenge_is_not_answered_twice() -> None:
    server = begin(MsChapV2Authenticator(USERS))
    challenge = challenge_of(server)
    server.receive(build_chap(ms_response(challenge, "alice", "guess")), 0)
    server.transmits()
    with pytest.raises(PeerViolation):
        server.receive(build_chap(ms_response(challenge, "alice", PASSWORD)), 0)
    assert [type(event) for event in server.events()] == [AuthRefused]


def test_interop_33_a_user_who_does_not_try_again_is_given_up() -> None:
    server = begin(MsChapV2Authenticator(USERS))
    server.receive(build_chap(ms_response(challenge_of(server), "alice", "guess")), 1)
    server.transmits()
    server.handle_timeout(60.9)
    assert [type(event) for event in server.events()] == [AuthRefused]
    server.handle_timeout(61)
    assert (server.events(), server.transmits()) == ([AuthFailed("CHAP: the peer does not try again")], [])


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"E=691 R=1 C=" + b"0" * 32 + b" V=3 M=Go away", "wrong name or password (E=691): Go away"),
        (b"E=691 R=0 V=3", "wrong name or password (E=691)"),
        (b"E=646", "not at this hour (E=646)"),
        (b"E=647 R=0", "the account is disabled (E=647)"),
        (b"E=648 R=0 V=3", "the password has expired (E=648)"),
        (b"E=649", "the account may not dial in (E=649)"),
        (b"E=709", "the password could not be changed (E=709)"),
        (b"E=4242", "for another reason (E=4242)"),
        (b"\x1b[2Jno", "\\x1b[2Jno"),
    ],
)
def test_interop_33_a_client_says_why_it_was_refused(message: bytes, said: str) -> None:
    client, _ = answered_client()
    client.receive(build_chap(ChapResult(5, False, message)), 0)
    assert client.events() == [AuthFailed(f"CHAP: the peer refuses alice: {said}")]


def test_interop_34_another_response_gets_none() -> None:
    """One challenge is one guess."""
    server = begin(MsChapV2Authenticator(USERS))
    challenge = challenge_of(server)
    server.receive(build_chap(ms_response(challenge, "alice", PASSWORD)), 0)
    server.transmits()
    with pytest.raises(PeerViolation):
        server.receive(build_chap(ms_response(challenge, "alice", "guess")), 0)
    assert server.transmits() == []


def test_a_response_is_repeated_until_it_is_judged() -> None:
    client = begin(MsChapV2Authenticatee("alice", HASHED))
    client.receive(build_chap(ChapChallenge(5, bytes(16), b"server")), 10)
    sent = [*client.transmits()]
    assert client.deadline() == 13
    while (deadline := client.deadline()) is not None:
        client.handle_timeout(deadline)
        sent += client.transmits()
    assert (len(sent), len(set(sent))) == (10, 1)
    assert client.events() == [AuthFailed("CHAP: no answer to 10 Responses")]


def test_a_repeated_challenge_gets_the_same_response_and_another_one_another() -> None:
    client = begin(MsChapV2Authenticatee("alice", HASHED))
    challenge = build_chap(ChapChallenge(5, bytes(16), b"server"))
    client.receive(challenge, 0)
    first = one(client)
    client.receive(challenge, 1)
    assert one(client) == first
    client.receive(build_chap(ChapChallenge(5, b"\1" * 16, b"server")), 2)
    assert one(client) != first


def test_silence_after_success_ends_nothing() -> None:
    """A Challenge that somebody forged is answered, and that is that."""
    client, proof = answered_client()
    client.receive(build_chap(ChapResult(5, True, b"S=" + proof.hex().upper().encode())), 0)
    assert [type(event) for event in client.events()] == [AuthSucceeded]
    client.receive(build_chap(ChapChallenge(99, bytes(16), b"forger")), 1)
    assert len(client.transmits()) == 1
    while (deadline := client.deadline()) is not None:
        client.handle_timeout(deadline)
    assert client.events() == []


def test_interop_35_a_change_of_password_is_refused() -> None:
    server = begin(MsChapV2Authenticator(USERS))
    challenge = challenge_of(server)
    change = bytes((7, challenge.identifier)) + (586).to_bytes(2, "big") + bytes(582)
    server.receive(change, 0)
    result = result_of(server)
    assert not result.success
    assert result.identifier == challenge.identifier
    failure = parse_ms_failure(result.message)
    assert (failure.error, failure.retry) == (691, False)
    assert server.events() == [AuthFailed("MS-CHAPv2: the peer wants to change its password")]
    with pytest.raises(PeerViolation):
        server.receive(change, 0)


def test_interop_35_only_ms_chapv2_takes_a_change_of_password() -> None:
    assert 7 in begin(MsChapV2Authenticator(USERS)).codes
    assert 7 not in begin(ChapMd5Authenticator(USERS)).codes


@pytest.mark.parametrize("size", [0, 1, 8, 17, 255])
def test_challenges_of_another_method_are_not_answered(size: int) -> None:
    client = begin(MsChapV2Authenticatee("alice", HASHED))
    with pytest.raises(WireError):
        client.receive(b"\x01\x05" + (5 + size).to_bytes(2, "big") + bytes((size,)) + bytes(size), 0)
    assert (client.transmits(), client.events()) == ([], [])
