"""MS-CHAPv2: CHAP in which both ends prove that they know the password, and which leaves keys for MPPE (RFC 2759).

The method Windows asks for. It is broken: see :mod:`pptp.crypto.legacy`.
"""

from __future__ import annotations

import hmac
from dataclasses import field

from pptp.crypto.legacy import authenticator_response, challenge_hash, challenge_response, require_legacy_ciphers
from pptp.crypto.mppe_keys import master_key, start_keys
from pptp.errors import WireCause, WireError
from pptp.ppp.auth import AuthFailed, AuthSucceeded
from pptp.ppp.chap import (
    DEFAULT_NAME,
    ChapAuthenticateeExchange,
    ChapAuthenticatorExchange,
    Granted,
    Refused,
    require_name,
)
from pptp.ppp.credentials import Credential, Users, without_domain
from pptp.ppp.exchange import Patience
from pptp.ppp.negotiation import Entropy
from pptp.value import value
from pptp.wire.auth import (
    FLAG_NO_MESSAGE,
    MSCHAPV2_CHALLENGE_SIZE,
    ChapChallenge,
    ChapCode,
    ChapResponse,
    MsError,
    MsFailure,
    MsResponse,
    MsSuccess,
    build_ms_failure,
    build_ms_response,
    build_ms_success,
    parse_ms_failure,
    parse_ms_response,
    parse_ms_success,
)
from pptp.wire.cp import printable
from pptp.wire.ppp import Protocol

# RFC 2759 section 2
OPTION_MSCHAPV2 = b"\xc2\x23\x81"

# ours, because Windows asks its user twice
ATTEMPTS = 3

_WELCOME = b"Access granted"
_REFUSAL = b"Access denied"
_ERRORS = {
    MsError.RESTRICTED_LOGON_HOURS: "not at this hour",
    MsError.ACCOUNT_DISABLED: "the account is disabled",
    MsError.PASSWORD_EXPIRED: "the password has expired",
    MsError.NO_DIALIN_PERMISSION: "the account may not dial in",
    MsError.AUTHENTICATION_FAILURE: "wrong name or password",
    MsError.CHANGING_PASSWORD: "the password could not be changed",
}


class _Examiner:
    codes = frozenset({int(ChapCode.RESPONSE), int(ChapCode.CHANGE_PASSWORD)})

    def __init__(self, users: Users, name: str, attempts: int, entropy: Entropy) -> None:
        self.name = name.encode()
        self._users = users
        self._attempts = attempts
        self._entropy = entropy

    def challenge(self) -> bytes:
        return self._entropy(MSCHAPV2_CHALLENGE_SIZE)

    def examine(self, response: ChapResponse, challenge: bytes) -> Granted | Refused:
        """Only the user's name goes into the hash, as the peer wrote it, whatever it is looked up by."""
        read = parse_ms_response(response.value)
        claim = self._users.find(response.name)
        if claim is None:
            return self._refuse("the peer says no name", retry=False)
        nt_hash = claim.credential.nt_hash
        asked = challenge_hash(read.peer_challenge, challenge, without_domain(response.name))
        good = hmac.compare_digest(challenge_response(asked, nt_hash), read.nt_response)
        proof = authenticator_response(nt_hash, read.nt_response, asked)
        send_key, receive_key = start_keys(master_key(nt_hash, read.nt_response), authenticator=True)
        if not (good and claim.known):
            why = "wrong password" if claim.known else "no such user"
            return self._refuse(f"{printable(response.name)}: {why}", retry=True)
        message = None if read.flags & FLAG_NO_MESSAGE else _WELCOME
        return Granted(claim.name, build_ms_success(MsSuccess(proof, message)), send_key, receive_key)

    def refuse_change(self) -> Refused:
        return self._refuse("the peer wants to change its password", retry=False)

    def _refuse(self, detail: str, *, retry: bool) -> Refused:
        self._attempts -= 1
        again = retry and self._attempts > 0
        challenge = self.challenge()
        failure = MsFailure(MsError.AUTHENTICATION_FAILURE, again, challenge, message=_REFUSAL)
        return Refused(f"MS-CHAPv2: {detail}", build_ms_failure(failure), challenge if again else None)


class _Responder:
    def __init__(self, name: str, credential: Credential, entropy: Entropy) -> None:
        self.name = name
        self._nt_hash = credential.nt_hash
        self._entropy = entropy
        self._asked = b""
        self._nt_response = b""

    def respond(self, challenge: ChapChallenge) -> bytes:
        if len(challenge.value) != MSCHAPV2_CHALLENGE_SIZE:
            raise WireError("MS-CHAPv2 challenge", WireCause.BAD_LENGTH, f"{len(challenge.value)} octets")
        peer_challenge = self._entropy(MSCHAPV2_CHALLENGE_SIZE)
        self._asked = challenge_hash(peer_challenge, challenge.value, without_domain(self.name.encode()))
        self._nt_response = challenge_response(self._asked, self._nt_hash)
        return build_ms_response(MsResponse(peer_challenge, self._nt_response))

    def believe(self, message: bytes) -> AuthSucceeded | AuthFailed:
        """RFC 2759 section 5: without the right proof, "the peer MUST end the session"."""
        try:
            proof = parse_ms_success(message).authenticator_response
        except WireError as error:
            return AuthFailed(f"MS-CHAPv2: the peer does not prove that it knows the password: {error.detail}")
        expected = authenticator_response(self._nt_hash, self._nt_response, self._asked)
        if not hmac.compare_digest(expected, proof):
            return AuthFailed("MS-CHAPv2: the peer does not know the password")
        keys = start_keys(master_key(self._nt_hash, self._nt_response), authenticator=False)
        return AuthSucceeded(self.name, *keys)

    def explain(self, message: bytes) -> str:
        """Another try is not made, even where it is offered: it would be with the same password."""
        try:
            failure = parse_ms_failure(message)
        except WireError:
            return printable(message)
        known = {int(error): text for error, text in _ERRORS.items()}.get(failure.error, "for another reason")
        said = f": {printable(failure.message)}" if failure.message else ""
        return f"{known} (E={failure.error}){said}"


@value
class MsChapV2Authenticator:
    """The peer may prove itself by MS-CHAPv2. ``name`` is what we call ourselves; ``attempts`` it has in one link."""

    users: Users
    name: str = DEFAULT_NAME
    attempts: int = ATTEMPTS
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Refuse a name no packet carries; raises :class:`LegacyCipherUnavailable` where this cannot run at all."""
        require_name(self.name)
        require_legacy_ciphers()

    @property
    def protocol(self) -> int:
        """CHAP."""
        return Protocol.CHAP

    @property
    def option(self) -> bytes:
        """``c2 23 81``."""
        return OPTION_MSCHAPV2

    def authenticate_peer(self, entropy: Entropy) -> ChapAuthenticatorExchange:
        """Begin as the one who asks."""
        examiner = _Examiner(self.users, self.name, self.attempts, entropy)
        return ChapAuthenticatorExchange(examiner, self.patience, entropy(1)[0])


@value
class MsChapV2Authenticatee:
    """We prove ourselves by MS-CHAPv2. ``name`` may be ``DOMAIN\\user``."""

    name: str
    credential: Credential
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Refuse a name no packet carries; raises :class:`LegacyCipherUnavailable` where this cannot run at all."""
        require_name(self.name)
        require_legacy_ciphers()

    @property
    def protocol(self) -> int:
        """CHAP."""
        return Protocol.CHAP

    @property
    def option(self) -> bytes:
        """``c2 23 81``."""
        return OPTION_MSCHAPV2

    def answer_peer(self, entropy: Entropy) -> ChapAuthenticateeExchange:
        """Begin as the one who is asked."""
        return ChapAuthenticateeExchange(_Responder(self.name, self.credential, entropy), self.patience)
