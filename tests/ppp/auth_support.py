"""What the tests of the authentication methods share: users, and exchanges of both sides that have started."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from pptp.crypto.legacy import authenticator_response, challenge_hash, challenge_response, nt_password_hash
from pptp.ppp.auth import Exchange
from pptp.ppp.chap import ChapMd5Authenticatee, ChapMd5Authenticator
from pptp.ppp.credentials import Credential, Users
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.ppp.pap import PapAuthenticatee, PapAuthenticator
from pptp.wire.auth import (
    ChapChallenge,
    ChapResponse,
    ChapResult,
    MsResponse,
    build_chap,
    build_ms_response,
    parse_chap,
    parse_ms_response,
)

Asker = PapAuthenticator | ChapMd5Authenticator | MsChapV2Authenticator
Answerer = PapAuthenticatee | ChapMd5Authenticatee | MsChapV2Authenticatee

PASSWORD = "pässwörd"
HASHED = Credential.of_nt_hash(nt_password_hash(PASSWORD))
KNOWN = {"alice": Credential.of_password(PASSWORD), "hashed": HASHED, "EXAMPLE\\carol": HASHED}
USERS = Users(KNOWN.get)


def begin(method: Asker | Answerer, seed: int = 1) -> Exchange:
    """An exchange that has started at time 0."""
    entropy = random.Random(seed).randbytes
    exchange: Exchange
    match method:
        case PapAuthenticator() | ChapMd5Authenticator() | MsChapV2Authenticator():
            exchange = method.authenticate_peer(entropy)
        case _:
            exchange = method.answer_peer(entropy)
    exchange.start(0)
    return exchange


def one(exchange: Exchange) -> bytes:
    """The only packet it sends."""
    (packet,) = exchange.transmits()
    return packet


def challenge_of(exchange: Exchange) -> ChapChallenge:
    challenge = parse_chap(one(exchange))
    assert isinstance(challenge, ChapChallenge)
    return challenge


def ms_response(
    challenge: ChapChallenge, name: str, password: str, *, hashed: str = "", flags: int = 0
) -> ChapResponse:
    """A Response as a client makes it; ``hashed`` is the name that goes into the hash, where it is another."""
    asked = challenge_hash(bytes(16), challenge.value, (hashed or name).encode())
    nt_response = challenge_response(asked, nt_password_hash(password))
    return ChapResponse(
        challenge.identifier, build_ms_response(MsResponse(bytes(16), nt_response, flags)), name.encode()
    )


def result_of(exchange: Exchange) -> ChapResult:
    result = parse_chap(one(exchange))
    assert isinstance(result, ChapResult)
    return result


@dataclass(frozen=True)
class Method:
    """Both sides of one method."""

    authenticator: Asker
    authenticatee: Callable[[str, str], Answerer]
    keys: int = 0  # octets of the keys that it leaves

    def server(self, seed: int = 1) -> Exchange:
        return begin(self.authenticator, seed)

    def client(self, name: str, password: str, seed: int = 2) -> Exchange:
        return begin(self.authenticatee(name, password), seed)


METHODS = {
    "pap": Method(PapAuthenticator(USERS), PapAuthenticatee),
    "md5": Method(ChapMd5Authenticator(USERS), ChapMd5Authenticatee),
    "ms": Method(
        MsChapV2Authenticator(USERS, attempts=1),
        lambda name, password: MsChapV2Authenticatee(name, Credential.of_password(password)),
        keys=16,
    ),
}


def answered_client() -> tuple[Exchange, bytes]:
    """A client that has answered challenge 5, and the proof it wants to see."""
    client = begin(MsChapV2Authenticatee("alice", HASHED))
    challenge = ChapChallenge(5, bytes(range(16)), b"server")
    client.receive(build_chap(challenge), 0)
    response = parse_chap(one(client))
    assert isinstance(response, ChapResponse)
    read = parse_ms_response(response.value)
    asked = challenge_hash(read.peer_challenge, challenge.value, b"alice")
    return client, authenticator_response(HASHED.nt_hash, read.nt_response, asked)
