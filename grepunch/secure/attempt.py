"""One attempt of ours to agree on keys: a message 1, sent again unchanged until it is answered or time is up."""

from __future__ import annotations

from collections.abc import Callable

from grepunch.secure.constants import COOKIE_ROTATION, PROLOGUE, RETRANSMIT_DELAYS
from grepunch.secure.events import FailureReason
from grepunch.secure.handshake import Payload, build_initiation, open_cookie_reply, open_response, with_cookie
from grepunch.secure.identity import Identity
from grepunch.secure.noise import IK_HFS_PSK2, HandshakeState
from pptp.errors import Drop, DropError


class CookieShelf:
    """The cookie the peer gave us last, for as long as it is surely good."""

    __slots__ = ("_cookie", "_until")

    def __init__(self) -> None:
        self._cookie: bytes | None = None
        self._until = 0.0

    def put(self, cookie: bytes, now: float) -> bool:
        """Keep ``cookie``; False when it is the one that was here already."""
        fresh = cookie != self._cookie
        self._cookie, self._until = cookie, now + COOKIE_ROTATION
        return fresh

    def apply(self, message: bytes, now: float) -> bytes:
        """Message 1 with the cookie, where there is one."""
        return with_cookie(message, self._cookie) if self._cookie is not None and now < self._until else message


class Attempt:
    """Made by the key exchange, which owns its timers. ``suspended``: the peer's own attempt goes first.

    Reading an answer leaves the attempt as it was, so that a bad message 2 costs nothing but itself.
    """

    __slots__ = ("_bad_answer", "_identity", "_message", "_peer_public_key", "_sent", "_state", "_yielded",
                 "local_index", "suspended")  # fmt: skip

    def __init__(
        self,
        identity: Identity,
        peer_public_key: bytes,
        preshared_key: bytes | None,
        local_index: int,
        payload: Payload,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.local_index = local_index
        self.suspended = False
        self._identity = identity
        self._peer_public_key = peer_public_key
        self._state = HandshakeState(IK_HFS_PSK2, PROLOGUE, identity, peer_public_key)
        if preshared_key is not None:
            self._state.preshared_key = preshared_key
        self._message = build_initiation(self._state, local_index, payload, entropy)
        self._sent = 0
        self._yielded = False
        self._bad_answer = False

    @property
    def exhausted(self) -> bool:
        """Whether it has been sent as often as it ever will be."""
        return self._sent == len(RETRANSMIT_DELAYS)

    @property
    def failure(self) -> FailureReason:
        """Why it came to nothing, once it has."""
        return FailureReason.PRESHARED_KEY if self._bad_answer else FailureReason.NO_ANSWER

    def take_message(self, cookies: CookieShelf, now: float) -> tuple[bytes, float]:
        """Message 1 to send now, and how long to wait for an answer."""
        delay = RETRANSMIT_DELAYS[self._sent]
        self._sent += 1
        return cookies.apply(self._message, now), delay

    def suspend(self) -> bool:
        """Let the peer go first; False when that has been done before: replays must not hold us back for long."""
        if self._yielded:
            return False
        self.suspended = self._yielded = True
        return True

    def open_cookie(self, datagram: bytes) -> bytes:
        """The cookie in a reply to this message 1; raises :class:`DropError`."""
        return open_cookie_reply(self._peer_public_key, self._message, datagram)

    def open_response(self, datagram: bytes) -> tuple[HandshakeState, Payload]:
        """The finished handshake and what message 2 says; raises :class:`DropError` or :class:`WireError`."""
        try:
            return open_response(self._state, self._identity, datagram)
        except DropError as error:
            self._bad_answer |= error.cause is Drop.BAD_TAG
            raise
