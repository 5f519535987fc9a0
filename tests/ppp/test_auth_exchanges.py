"""PAP, CHAP with MD5 and MS-CHAPv2, one exchange at a time: who gets in, what is repeated, and when it is given up."""

from __future__ import annotations

import hashlib

import pytest

from pptp.crypto.legacy import nt_password_hash
from pptp.errors import PeerViolation, UsageError, WireError
from pptp.ppp.auth import AuthFailed, AuthSucceeded, Exchange
from pptp.ppp.chap import ChapMd5Authenticatee, ChapMd5Authenticator
from pptp.ppp.credentials import Credential, Users
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.ppp.pap import PapAuthenticatee, PapAuthenticator
from pptp.wire.auth import (
    ChapChallenge,
    ChapResponse,
    ChapResult,
    PapReply,
    PapRequest,
    build_chap,
    build_pap,
    parse_chap,
    parse_pap,
)
from tests.ppp.auth_support import (
    HASHED,
    KNOWN,
    METHODS,
    PASSWORD,
    USERS,
    answered_client,
    begin,
    challenge_of,
    one,
    result_of,
)


def converse(server: Exchange, client: Exchange) -> tuple[list[object], list[object]]:
    """Let both talk until they are silent; what each reports."""
    log: tuple[list[object], list[object]] = ([], [])
    busy = True
    while busy:
        busy = False
        for side, (each, other) in enumerate(((server, client), (client, server))):
            for packet in each.transmits():
                busy = True
                assert packet[0] in other.codes
                other.receive(packet, 0)
            log[side].extend(each.events())
    return log


@pytest.mark.parametrize("method", METHODS)
def test_the_right_password_lets_in(method: str) -> None:
    server, client = METHODS[method].server(), METHODS[method].client("alice", PASSWORD)
    assert server.protocol == client.protocol == METHODS[method].authenticator.protocol
    assert not server.codes & client.codes
    (theirs,), (ours,) = converse(server, client)
    assert isinstance(theirs, AuthSucceeded)
    assert isinstance(ours, AuthSucceeded)
    assert (theirs.identity, ours.identity) == ("alice", "alice")
    assert (theirs.send_key, theirs.receive_key) == (ours.receive_key, ours.send_key)
    assert len(theirs.send_key) == len(theirs.receive_key) == METHODS[method].keys
    assert server.deadline() is client.deadline() is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "word", "why"), [("alice", "guess", "wrong password"), ("bob", PASSWORD, "no such user")]
)
def test_anything_else_does_not(method: str, name: str, word: str, why: str) -> None:
    (theirs,), (ours,) = converse(METHODS[method].server(), METHODS[method].client(name, word))
    assert isinstance(theirs, AuthFailed)
    assert isinstance(ours, AuthFailed)
    assert why in theirs.detail
    assert name in theirs.detail
    assert why not in ours.detail  # the peer is not told which it was
    assert word not in theirs.detail + ours.detail


@pytest.mark.parametrize("method", ["pap", "ms"])
def test_an_nt_hash_does_for_pap_and_ms(method: str) -> None:
    (theirs,), _ = converse(METHODS[method].server(), METHODS[method].client("hashed", PASSWORD))
    assert isinstance(theirs, AuthSucceeded)


def test_an_nt_hash_does_not_do_for_md5() -> None:
    """Nor does the empty secret that stands in for what is not known."""
    server = METHODS["md5"].server()
    challenge = challenge_of(server)
    value = hashlib.md5(bytes((challenge.identifier,)) + challenge.value).digest()  # noqa: S324 -- what CHAP is
    server.receive(build_chap(ChapResponse(challenge.identifier, value, b"hashed")), 0)
    (event,) = server.events()
    assert isinstance(event, AuthFailed)
    assert "needs the password" in event.detail


def test_an_unknown_user_takes_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same hashes and ciphers are computed, in the same order, whoever knocks."""
    calls: list[str] = []

    def watch(module: str, name: str) -> None:
        original = getattr(__import__(module, fromlist=[name]), name)

        def watched(*arguments: object, **keywords: object) -> object:
            calls.append(name)
            return original(*arguments, **keywords)

        monkeypatch.setattr(f"{module}.{name}", watched)

    for name in ("challenge_hash", "challenge_response", "authenticator_response", "start_keys", "master_key"):
        watch("pptp.ppp.mschapv2", name)
    watch("pptp.ppp.pap", "nt_password_hash")
    watch("pptp.ppp.chap", "_md5")
    seen = []
    for user in (b"alice", b"hashed", b"bob"):
        calls.clear()
        server = begin(MsChapV2Authenticator(USERS))
        response = build_chap(ChapResponse(challenge_of(server).identifier, bytes(49), user))
        server.receive(response, 0)
        pap = begin(PapAuthenticator(USERS))
        pap.receive(build_pap(PapRequest(1, user, b"guess")), 0)
        md5 = begin(ChapMd5Authenticator(USERS))
        md5.receive(build_chap(ChapResponse(challenge_of(md5).identifier, bytes(16), user)), 0)
        seen.append(list(calls))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 7


@pytest.mark.parametrize(
    ("name", "password"), [(b"", b""), (b"alice", b""), (b"", PASSWORD.encode()), (b"DOM\\", b"x")]
)
def test_empty_names_and_passwords_are_refused_by_pap(name: bytes, password: bytes) -> None:
    server = begin(PapAuthenticator(Users({"": KNOWN["alice"], "alice": KNOWN["alice"]}.get)))
    server.receive(build_pap(PapRequest(1, name, password)), 0)
    reply = parse_pap(one(server))
    assert isinstance(reply, PapReply)
    assert not reply.accepted
    assert server.events() == [AuthFailed("PAP: the peer says no name or no password")]


@pytest.mark.parametrize("name", [b"", b"DOM\\"])
@pytest.mark.parametrize(
    "authenticator", [ChapMd5Authenticator(USERS), MsChapV2Authenticator(USERS)], ids=["md5", "ms"]
)
def test_empty_names_are_refused_by_chap(
    name: bytes, authenticator: ChapMd5Authenticator | MsChapV2Authenticator
) -> None:
    server = begin(authenticator)
    size = 49 if isinstance(authenticator, MsChapV2Authenticator) else 16
    server.receive(build_chap(ChapResponse(challenge_of(server).identifier, bytes(size), name)), 0)
    assert not result_of(server).success
    (event,) = server.events()
    assert isinstance(event, AuthFailed)
    assert "no name" in event.detail


def test_empty_passwords_are_never_credentials() -> None:
    with pytest.raises(UsageError, match="empty password"):
        Credential.of_password("")
    with pytest.raises(UsageError, match="empty password"):
        Credential.of_nt_hash(nt_password_hash(""))
    with pytest.raises(UsageError):
        Credential.of_nt_hash(b"short")
    with pytest.raises(UsageError):
        PapAuthenticatee("alice", "")
    with pytest.raises(UsageError):
        PapAuthenticatee("", "x")
    with pytest.raises(UsageError):
        ChapMd5Authenticatee("alice", "")
    with pytest.raises(UsageError):
        MsChapV2Authenticatee("", HASHED)
    with pytest.raises(UsageError):
        MsChapV2Authenticator(USERS, name="n" * 256)


def test_secrets_are_not_printed() -> None:
    for secret in (KNOWN["alice"], PapAuthenticatee("a", PASSWORD), ChapMd5Authenticatee("a", PASSWORD)):
        assert PASSWORD not in repr(secret)
        assert repr(HASHED.nt_hash) not in repr(secret)
    assert PASSWORD not in repr(MsChapV2Authenticatee("a", KNOWN["alice"]))


@pytest.mark.parametrize("password", [PASSWORD, "guess"])
@pytest.mark.parametrize("method", ["md5", "ms"])
def test_interop_34_a_repeated_response_gets_the_same_answer(method: str, password: str) -> None:
    server, client = METHODS[method].server(), METHODS[method].client("alice", password)
    client.receive(one(server), 0)
    response = one(client)
    server.receive(response, 0)
    answer = one(server)
    events = server.events()
    for _ in range(5):
        server.receive(response, 1)
        assert one(server) == answer
    assert len(events) == 1
    assert server.events() == []


@pytest.mark.parametrize("good", [True, False])
def test_interop_34_a_repeated_request_gets_the_same_reply_from_pap(good: bool) -> None:
    server = begin(PapAuthenticator(USERS))
    for identifier in (7, 8, 8):
        server.receive(build_pap(PapRequest(identifier, b"alice", (PASSWORD if good else "guess").encode())), 0)
        reply = parse_pap(one(server))
        assert isinstance(reply, PapReply)
        assert (reply.identifier, reply.accepted) == (identifier, good)
    assert len(server.events()) == 1
    server.receive(build_pap(PapRequest(9, b"alice", (PASSWORD if not good else "guess").encode())), 0)
    reply = parse_pap(one(server))
    assert isinstance(reply, PapReply)
    assert reply.accepted is good
    assert server.events() == []


@pytest.mark.parametrize(("method", "sends"), [("pap", "client"), ("md5", "server"), ("ms", "server")])
def test_interop_34_a_question_is_asked_ten_times_every_three_seconds(method: str, sends: str) -> None:
    asking = METHODS[method].server() if sends == "server" else METHODS[method].client("alice", PASSWORD)
    sent = [*asking.transmits()]
    times = [0.0]
    while (deadline := asking.deadline()) is not None:
        asking.handle_timeout(deadline - 0.1)
        asking.handle_timeout(deadline)
        times.append(deadline)
        sent += asking.transmits()
    assert times == [3.0 * step for step in range(11)]
    assert (len(sent), len(set(sent))) == (10, 1)
    (event,) = asking.events()
    assert isinstance(event, AuthFailed)
    assert "no answer to 10" in event.detail


@pytest.mark.parametrize(("method", "waits"), [("pap", "server"), ("md5", "client"), ("ms", "client")])
def test_who_is_never_spoken_to_gives_up(method: str, waits: str) -> None:
    waiting = METHODS[method].server() if waits == "server" else METHODS[method].client("alice", PASSWORD)
    assert (waiting.transmits(), waiting.deadline()) == ([], 60.0)
    waiting.handle_timeout(60)
    (event,) = waiting.events()
    assert isinstance(event, AuthFailed)
    assert waiting.deadline() is None


def test_verdicts_on_nothing_are_violations() -> None:
    client = begin(MsChapV2Authenticatee("alice", HASHED))
    for success in (True, False):
        with pytest.raises(PeerViolation):
            client.receive(build_chap(ChapResult(5, success)), 0)
    client, _ = answered_client()
    with pytest.raises(PeerViolation):
        client.receive(build_chap(ChapResult(6, False)), 0)
    pap = begin(PapAuthenticatee("alice", PASSWORD))
    request = parse_pap(one(pap))
    with pytest.raises(PeerViolation):
        pap.receive(build_pap(PapReply((request.identifier + 1) & 0xFF, True)), 0)
    assert [*client.events(), *pap.events()] == []


@pytest.mark.parametrize("method", ["md5", "ms"])
def test_responses_of_another_method_change_nothing(method: str) -> None:
    server = METHODS[method].server()
    challenge = challenge_of(server)
    with pytest.raises(WireError):
        server.receive(build_chap(ChapResponse(challenge.identifier, b"x", b"alice")), 0)
    assert (server.transmits(), server.events()) == ([], [])
    assert server.deadline() == 3


def test_rfc_1994_md5_by_hand() -> None:
    client = begin(ChapMd5Authenticatee("alice", "secret"))
    client.receive(build_chap(ChapChallenge(0x28, bytes.fromhex("4e11757a68"), b"server")), 0)
    response = parse_chap(one(client))
    assert isinstance(response, ChapResponse)
    expected = hashlib.md5(b"\x28secret" + bytes.fromhex("4e11757a68")).digest()  # noqa: S324 -- what CHAP is
    assert (response.identifier, response.value, response.name) == (0x28, expected, b"alice")


def test_md5_against_what_pppd_sent() -> None:
    """Recorded from pppd 2.4.9, password s3cretPW."""
    client = begin(ChapMd5Authenticatee("vpnuser", "s3cretPW"))
    value = bytes.fromhex("4e11757a68eda995dc3b7daace7ace1298dd668797")
    client.receive(build_chap(ChapChallenge(0x28, value, b"pptpd")), 0)
    response = parse_chap(one(client))
    assert isinstance(response, ChapResponse)
    assert response.value.hex() == "dcb00d3cf93d8f05ddc3ba7c8ae0be60"
