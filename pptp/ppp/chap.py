"""CHAP: a challenge, a response, a verdict (RFC 1994); and the method in it that hashes with MD5.

The exchange is the same for every method of CHAP. What a Challenge says, whether a Response is good and what is said
about it is for an :class:`Examiner`; how a Challenge is answered and whether to believe the verdict for a
:class:`Responder`. MS-CHAPv2 is another pair of these.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import field
from typing import Protocol as Interface

from pptp.errors import PeerViolation, UsageError, WireCause, WireError
from pptp.ppp.auth import AuthFailed, AuthRefused, AuthSucceeded
from pptp.ppp.credentials import Users
from pptp.ppp.exchange import AskingExchange, Patience
from pptp.ppp.negotiation import Entropy
from pptp.value import value
from pptp.wire.auth import (
    NAME_MAXIMUM,
    ChapChallenge,
    ChapChangePassword,
    ChapCode,
    ChapResponse,
    ChapResult,
    build_chap,
    parse_chap,
)
from pptp.wire.cp import printable
from pptp.wire.ppp import Protocol

# RFC 1994 section 3
OPTION_CHAP_MD5 = b"\xc2\x23\x05"
_MD5_SIZE = 16

# ours, because RFC 1994 section 4.1 wants a challenge no shorter than the hash
_CHALLENGE_SIZE = 16
# ours: what the peer reads as our name, where none is given
DEFAULT_NAME = "grepunch-pptp"
# ours, because RFC 2759 section 6 has us wait for a user who is asked again, and users are slow
_SECOND_TRY_TIMER = 60.0

_WELCOME = b"Access granted"
_REFUSAL = b"Access denied"


@value
class Granted:
    """A Response is good. ``message`` is the text of Success; the keys are as in :class:`AuthSucceeded`."""

    identity: str
    message: bytes
    send_key: bytes = field(default=b"", repr=False)
    receive_key: bytes = field(default=b"", repr=False)


@value
class Refused:
    """A Response is not good. ``message`` is the text of Failure; with a ``challenge`` the peer may try again."""

    detail: str
    message: bytes
    challenge: bytes | None = None


class Examiner(Interface):
    """A method of CHAP, as the authenticator runs it; one for each exchange."""

    name: bytes
    codes: frozenset[int]

    def challenge(self) -> bytes:
        """A new challenge."""

    def examine(self, response: ChapResponse, challenge: bytes) -> Granted | Refused:
        """Judge a Response; raises :class:`WireError` for one that is none of this method."""

    def refuse_change(self) -> Refused:
        """What a peer gets that wants to change its password."""


class Responder(Interface):
    """A method of CHAP, as the peer runs it; one for each exchange."""

    name: str

    def respond(self, challenge: ChapChallenge) -> bytes:
        """The value of a Response; raises :class:`WireError` for a Challenge that is none of this method."""

    def believe(self, message: bytes) -> AuthSucceeded | AuthFailed:
        """What to make of a Success."""

    def explain(self, message: bytes) -> str:
        """What a Failure says."""


class ChapAuthenticatorExchange(AskingExchange):
    """The authenticator's side: asks, judges, and gives a repeated Response the answer it has had."""

    protocol = int(Protocol.CHAP)

    def __init__(self, examiner: Examiner, patience: Patience, identifier: int) -> None:
        super().__init__(patience)
        self._examiner = examiner
        self._identifier = identifier
        self._challenge = b""
        self._answers: dict[ChapResponse, bytes] = {}  # one for each challenge, and these are counted

    @property
    def codes(self) -> frozenset[int]:
        """The codes of the packets that are for it."""
        return self._examiner.codes

    def start(self, now: float) -> None:
        """LCP is opened: ask.

        Deviation: RFC 1994 section 4.1 wants another identifier and another challenge whenever one is sent. An
        unanswered one is sent again as it was, as pppd does, so that an answer that was slow in coming is good.
        """
        self._challenge = self._examiner.challenge()
        self._ask(build_chap(ChapChallenge(self._identifier, self._challenge, self._examiner.name)), now)

    def receive(self, information: bytes, now: float) -> None:
        """Take a Response; raises :class:`WireError`, :class:`PeerViolation` for one that answers no challenge."""
        packet = parse_chap(information)
        match packet:
            case ChapResponse() if packet in self._answers:
                self._out.append(self._answers[packet])
            case ChapResponse() if self._waiting and packet.identifier == self._identifier:
                verdict = self._examiner.examine(packet, self._challenge)
                self._answers[packet] = self._pronounce(verdict, now)
            case ChapChangePassword() if self._waiting and packet.identifier == self._identifier:
                self._pronounce(self._examiner.refuse_change(), now)
            case _:
                raise PeerViolation("an answer to no challenge")

    def _pronounce(self, verdict: Granted | Refused, now: float) -> bytes:
        """Tell the peer, and the owner what follows; returns the answer."""
        self._settle()
        answer = build_chap(ChapResult(self._identifier, isinstance(verdict, Granted), verdict.message))
        self._out.append(answer)
        match verdict:
            case Granted(identity, _, send_key, receive_key):
                self._events.append(AuthSucceeded(identity, send_key, receive_key))
            case Refused(detail, _, bytes(challenge)):
                self._events.append(AuthRefused(detail))
                self._challenge = challenge
                self._identifier = (self._identifier + 1) & 0xFF
                self._wait(_SECOND_TRY_TIMER, now)
            case Refused(detail):
                self._events.append(AuthFailed(detail))
        return answer

    def _gave_up(self) -> None:
        silence = "the peer does not try again" if self._answers else f"no answer to {self._asked} Challenges"
        self._events.append(AuthFailed(f"CHAP: {silence}"))


class ChapAuthenticateeExchange(AskingExchange):
    """The peer's side: answers every Challenge, a repeated one as before, and repeats its answer until it is judged."""

    protocol = int(Protocol.CHAP)
    codes = frozenset({int(ChapCode.CHALLENGE), int(ChapCode.SUCCESS), int(ChapCode.FAILURE)})

    def __init__(self, responder: Responder, patience: Patience) -> None:
        super().__init__(patience)
        self._responder = responder
        self._answered: tuple[ChapChallenge, bytes] | None = None
        self._succeeded = False

    def start(self, now: float) -> None:
        """LCP is opened: wait to be asked."""
        self._wait(self._patience.first_word_timer, now)

    def receive(self, information: bytes, now: float) -> None:
        """Take a Challenge or a verdict; raises :class:`WireError`, :class:`PeerViolation` for a verdict on nothing."""
        packet = parse_chap(information)
        match packet:
            case ChapChallenge():
                self._respond(packet, now)
            case ChapResult(identifier) if self._is_awaited(identifier):
                self._settle()
                self._conclude(packet)
            case _:
                raise PeerViolation("a verdict on nothing that was said")

    def _is_awaited(self, identifier: int) -> bool:
        return self._waiting and self._answered is not None and self._answered[0].identifier == identifier

    def _respond(self, challenge: ChapChallenge, now: float) -> None:
        if self._answered is not None and challenge == self._answered[0]:
            self._out.append(self._answered[1])
            return
        value = self._responder.respond(challenge)
        answer = build_chap(ChapResponse(challenge.identifier, value, self._responder.name.encode()))
        self._answered = (challenge, answer)
        self._ask(answer, now)

    def _conclude(self, result: ChapResult) -> None:
        if result.success:
            event = self._responder.believe(result.message)
            self._succeeded = isinstance(event, AuthSucceeded)
            self._events.append(event)
        else:
            said = self._responder.explain(result.message)
            self._events.append(AuthFailed(f"CHAP: the peer refuses {self._responder.name}: {said}"))

    def _gave_up(self) -> None:
        """Silence ends nothing that has succeeded: anyone could make us answer a Challenge that the peer never sent."""
        if self._succeeded:
            return
        silence = "no Challenge comes" if self._answered is None else f"no answer to {self._asked} Responses"
        self._events.append(AuthFailed(f"CHAP: {silence}"))


class _Md5Examiner:
    codes = frozenset({int(ChapCode.RESPONSE)})

    def __init__(self, users: Users, name: str, entropy: Entropy) -> None:
        self.name = name.encode()
        self._users = users
        self._entropy = entropy

    def challenge(self) -> bytes:
        return self._entropy(_CHALLENGE_SIZE)

    def examine(self, response: ChapResponse, challenge: bytes) -> Granted | Refused:
        if len(response.value) != _MD5_SIZE:
            raise WireError("CHAP response", WireCause.BAD_LENGTH, f"{len(response.value)} octets")
        claim = self._users.find(response.name)
        if claim is None:
            return Refused("CHAP: the peer says no name", _REFUSAL)
        expected = _md5(response.identifier, (claim.credential.password or "").encode(), challenge)
        good = hmac.compare_digest(expected, response.value)
        if good and claim.credential.password is not None:
            return Granted(claim.name, _WELCOME)
        why = "wrong password"
        if not claim.known:
            why = "no such user"
        elif claim.credential.password is None:
            why = "CHAP with MD5 needs the password, and only its hash is known"
        return Refused(f"CHAP: {printable(response.name)}: {why}", _REFUSAL)

    def refuse_change(self) -> Refused:
        return Refused("CHAP: the peer wants to change its password", _REFUSAL)


class _Md5Responder:
    def __init__(self, name: str, password: str) -> None:
        self.name = name
        self._secret = password.encode()

    def respond(self, challenge: ChapChallenge) -> bytes:
        return _md5(challenge.identifier, self._secret, challenge.value)

    def believe(self, message: bytes) -> AuthSucceeded | AuthFailed:
        return AuthSucceeded(self.name)

    def explain(self, message: bytes) -> str:
        return printable(message)


@value
class ChapMd5Authenticator:
    """The peer may prove that it knows its password, by CHAP with MD5. ``name`` is what we call ourselves."""

    users: Users
    name: str = DEFAULT_NAME
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Refuse a name that no packet carries."""
        require_name(self.name)

    @property
    def protocol(self) -> int:
        """CHAP."""
        return Protocol.CHAP

    @property
    def option(self) -> bytes:
        """``c2 23 05``."""
        return OPTION_CHAP_MD5

    def authenticate_peer(self, entropy: Entropy) -> ChapAuthenticatorExchange:
        """Begin as the one who asks."""
        return ChapAuthenticatorExchange(_Md5Examiner(self.users, self.name, entropy), self.patience, entropy(1)[0])


@value
class ChapMd5Authenticatee:
    """We prove that we know our password, by CHAP with MD5."""

    name: str
    password: str = field(repr=False)
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Refuse a name that no packet carries, and an empty password."""
        require_name(self.name)
        if not self.password:
            raise UsageError("CHAP needs a password")

    @property
    def protocol(self) -> int:
        """CHAP."""
        return Protocol.CHAP

    @property
    def option(self) -> bytes:
        """``c2 23 05``."""
        return OPTION_CHAP_MD5

    def answer_peer(self, entropy: Entropy) -> ChapAuthenticateeExchange:
        """Begin as the one who is asked."""
        return ChapAuthenticateeExchange(_Md5Responder(self.name, self.password), self.patience)


def require_name(name: str) -> None:
    """Raise :class:`UsageError` for a name that is empty or longer than CHAP carries."""
    if not 0 < len(name.encode()) <= NAME_MAXIMUM:
        raise UsageError(f"CHAP needs a name of 1 to {NAME_MAXIMUM} octets")


def _md5(identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """RFC 1994 section 4.1."""
    return hashlib.md5(bytes((identifier,)) + secret + challenge, usedforsecurity=False).digest()
