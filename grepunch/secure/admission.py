"""Who may cost us asymmetric cryptography: MAC1, cookies and token buckets, for all peers of a host together.

Up to 50 handshakes a second are answered as they come. Beyond that a cookie is asked for, which only its
receiver can show, so that from there on sources are real and can be limited one by one. Whoever forges sources
can use up the open 50, never the share of those who came back with a cookie.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable

from grepunch.secure.constants import (
    COOKIE_ROTATION,
    COOKIE_SIZE,
    COOKIED_PER_SECOND,
    HANDSHAKES_PER_SECOND,
    KEY_SIZE,
    MAX_SOURCES,
    SOURCE_BURST,
    SOURCE_PER_SECOND,
)
from grepunch.secure.derive import mac
from grepunch.secure.handshake import build_cookie_reply, check_initiation, cookie_of
from pptp.errors import Drop, DropError

_NO_COOKIE = bytes(COOKIE_SIZE)


class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` of them saved up."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def take(self, now: float) -> bool:
        """Whether there was a token."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class CookieJar:
    """Cookies bound to a source and good for one to two rotations; nothing is kept but two keys."""

    __slots__ = ("_entropy", "_keys", "_rotates")

    def __init__(self, entropy: Callable[[int], bytes], now: float) -> None:
        self._entropy = entropy
        self._keys = (entropy(KEY_SIZE), entropy(KEY_SIZE))
        self._rotates = now + COOKIE_ROTATION

    def make(self, source: bytes, now: float) -> bytes:
        """The cookie of ``source``."""
        self._rotate(now)
        return mac(self._keys[0], source)

    def check(self, source: bytes, cookie: bytes, now: float) -> bool:
        """Whether this is a cookie that ``source`` was given not too long ago."""
        self._rotate(now)
        return any(hmac.compare_digest(cookie, mac(key, source)) for key in self._keys)

    def _rotate(self, now: float) -> None:
        while self._rotates <= now:
            # After a long sleep both keys are replaced: the second round of the loop sees to it.
            self._keys = (self._entropy(KEY_SIZE), self._keys[0])
            self._rotates = max(self._rotates, now - COOKIE_ROTATION) + COOKIE_ROTATION


class Admission:
    """The door of a host; :meth:`admit` is called with every message 1 before it is opened."""

    def __init__(self, own_public_key: bytes, entropy: Callable[[int], bytes], now: float) -> None:
        self._own_public_key = own_public_key
        self._cookies = CookieJar(entropy, now)
        self._open = TokenBucket(HANDSHAKES_PER_SECOND, HANDSHAKES_PER_SECOND, now)
        self._cookied = TokenBucket(COOKIED_PER_SECOND, COOKIED_PER_SECOND, now)
        self._sources: OrderedDict[bytes, TokenBucket] = OrderedDict()

    @property
    def sources(self) -> int:
        """How many sources are remembered."""
        return len(self._sources)

    def admit(self, datagram: bytes, source: bytes, now: float) -> bytes | None:
        """``None``: open this message 1. Octets: send this cookie reply to ``source`` instead.

        Raises :class:`WireError` or :class:`DropError` where there is nothing to do but drop it.
        """
        check_initiation(self._own_public_key, datagram)
        cookie = cookie_of(datagram)
        if cookie == _NO_COOKIE:
            if self._open.take(now):
                return None
        elif self._cookies.check(source, cookie, now):
            if not (self._bucket_of(source, now).take(now) and self._cookied.take(now)):
                raise DropError(Drop.RATE_LIMITED)
            return None
        # Too many without a cookie, or a cookie that is stale or was tampered with.
        return build_cookie_reply(self._own_public_key, datagram, self._cookies.make(source, now))

    def _bucket_of(self, source: bytes, now: float) -> TokenBucket:
        bucket = self._sources.get(source)
        if bucket is None:
            if len(self._sources) == MAX_SOURCES:
                self._sources.popitem(last=False)
            bucket = self._sources[source] = TokenBucket(SOURCE_PER_SECOND, SOURCE_BURST, now)
        self._sources.move_to_end(source)
        return bucket
