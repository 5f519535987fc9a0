"""PAP: the peer says its name and password in clear (RFC 1334 section 2)."""

from __future__ import annotations

import hmac
from dataclasses import field

from pptp.crypto.legacy import nt_password_hash
from pptp.errors import PeerViolation, UsageError
from pptp.ppp.auth import AuthFailed, AuthSucceeded
from pptp.ppp.credentials import Users
from pptp.ppp.exchange import AskingExchange, Patience
from pptp.ppp.negotiation import Entropy
from pptp.value import value
from pptp.wire.auth import PapCode, PapReply, PapRequest, build_pap, parse_pap
from pptp.wire.cp import printable
from pptp.wire.ppp import Protocol

# RFC 1661 section 6.2
OPTION_PAP = b"\xc0\x23"

_WELCOME = b"Access granted"
_REFUSAL = b"Access denied"


class PapAuthenticatorExchange(AskingExchange):
    """The authenticator's side: waits to be told, and says yes or no once for all."""

    protocol = int(Protocol.PAP)
    codes = frozenset({int(PapCode.AUTHENTICATE_REQUEST)})

    def __init__(self, users: Users, patience: Patience) -> None:
        super().__init__(patience)
        self._users = users
        self._verdict: bool | None = None

    def start(self, now: float) -> None:
        """LCP is opened."""
        self._wait(self._patience.first_word_timer, now)

    def receive(self, information: bytes, now: float) -> None:
        """Take an Authenticate-Request; raises :class:`WireError`.

        A repeated one gets the same answer, whatever it says (RFC 1334 section 2.2.1).
        """
        request = parse_pap(information)
        if not isinstance(request, PapRequest):
            raise PeerViolation("an answer to what was not asked")
        if self._verdict is None:
            self._settle()
            event = self._judge(request)
            self._verdict = isinstance(event, AuthSucceeded)
            self._events.append(event)
        message = _WELCOME if self._verdict else _REFUSAL
        self._out.append(build_pap(PapReply(request.identifier, self._verdict, message)))

    def _judge(self, request: PapRequest) -> AuthSucceeded | AuthFailed:
        """The octets are UTF-8; others are the password of nobody. Compared are hashes, in constant time."""
        claim = self._users.find(request.name)
        if claim is None or not request.password:
            return AuthFailed("PAP: the peer says no name or no password")
        offered = nt_password_hash(request.password.decode("utf-8", "surrogateescape"))
        good = hmac.compare_digest(offered, claim.credential.nt_hash)
        if good and claim.known:
            return AuthSucceeded(claim.name)
        return AuthFailed(f"PAP: {printable(request.name)}: " + ("wrong password" if claim.known else "no such user"))

    def _gave_up(self) -> None:
        self._verdict = False
        self._events.append(AuthFailed("PAP: the peer does not authenticate itself"))


class PapAuthenticateeExchange(AskingExchange):
    """The peer's side: says it until it is answered.

    Deviation: RFC 1334 section 2.2.1 wants another identifier for every Authenticate-Request. A repeated one keeps its
    identifier, so that an answer that was slow in coming is good.
    """

    protocol = int(Protocol.PAP)
    codes = frozenset({int(PapCode.AUTHENTICATE_ACK), int(PapCode.AUTHENTICATE_NAK)})

    def __init__(self, name: str, password: str, patience: Patience, identifier: int) -> None:
        super().__init__(patience)
        self._name = name
        self._request = PapRequest(identifier, name.encode(), password.encode())

    def start(self, now: float) -> None:
        """LCP is opened: speak first."""
        self._ask(build_pap(self._request), now)

    def receive(self, information: bytes, now: float) -> None:
        """Take an Ack or a Nak; raises :class:`WireError`, :class:`PeerViolation` for one that answers nothing."""
        reply = parse_pap(information)
        if not isinstance(reply, PapReply) or not self._waiting or reply.identifier != self._request.identifier:
            raise PeerViolation("an answer to what was not asked")
        self._settle()
        if reply.accepted:
            self._events.append(AuthSucceeded(self._name))
        else:
            self._events.append(AuthFailed(f"PAP: the peer refuses {self._name}: {printable(reply.message)}"))

    def _gave_up(self) -> None:
        self._events.append(AuthFailed(f"PAP: no answer to {self._patience.max_asked} Authenticate-Requests"))


@value
class PapAuthenticator:
    """The peer may tell us its password."""

    users: Users
    patience: Patience = field(default_factory=Patience)

    @property
    def protocol(self) -> int:
        """PAP."""
        return Protocol.PAP

    @property
    def option(self) -> bytes:
        """``c0 23``."""
        return OPTION_PAP

    def authenticate_peer(self, entropy: Entropy) -> PapAuthenticatorExchange:
        """Begin as the one who asks."""
        return PapAuthenticatorExchange(self.users, self.patience)


@value
class PapAuthenticatee:
    """We tell the peer our password, whoever it is."""

    name: str
    password: str = field(repr=False)
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Refuse what no PAP packet carries, and what proves nothing."""
        if not (0 < len(self.name.encode()) <= 0xFF and 0 < len(self.password.encode()) <= 0xFF):
            raise UsageError("PAP needs a name and a password of 1 to 255 octets")

    @property
    def protocol(self) -> int:
        """PAP."""
        return Protocol.PAP

    @property
    def option(self) -> bytes:
        """``c0 23``."""
        return OPTION_PAP

    def answer_peer(self, entropy: Entropy) -> PapAuthenticateeExchange:
        """Begin as the one who is asked."""
        return PapAuthenticateeExchange(self.name, self.password, self.patience, entropy(1)[0])
