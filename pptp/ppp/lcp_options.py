"""LCP's options: what each is worth to us, and what is agreed in the end (RFC 1661 section 6, RFC 1662 section 7.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pptp.errors import PeerViolation
from pptp.ppp.negotiation import Entropy
from pptp.ppp.options import Ack, Nak, Rej, Rule, Verdict
from pptp.value import value
from pptp.wire.ppp import DEFAULT_MRU

# RFC 1661 section 6, RFC 1662 section 7.1
OPTION_MRU = 1
OPTION_ACCM = 2
OPTION_AUTHENTICATION = 3
OPTION_MAGIC_NUMBER = 5
OPTION_PFC = 7
OPTION_ACFC = 8

_MRU_OCTETS = 2
_ACCM_OCTETS = 4
_MAGIC_OCTETS = 4

# ours, because no IP runs below it and pppd draws the same line
SMALLEST_MRU = 128

# ours, because two peers draw the same number this often in a row never
LOOP_LIMIT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LcpPolicy:
    """What we want of the link, and what we let the peer have.

    ``mru`` is the largest information field we want to receive. ``pfc`` and ``acfc`` allow the peer to ask for
    compressed headers; we never ask, because receiving all forms needs no agreement. ``echo_interval`` seconds between
    Echo-Requests of ours (``None``: none); after ``echo_failures`` in a row without an answer the link ends (0: never).
    """

    mru: int = DEFAULT_MRU
    magic_number: bool = True
    pfc: bool = True
    acfc: bool = True
    echo_interval: float | None = None
    echo_failures: int = 0


@value
class LcpOptions:
    """One direction's agreed options, as said by the side that receives: *local* binds the peer, *remote* binds us.

    ``mru`` is the largest information field that side wants; ``pfc`` and ``acfc`` that it takes compressed headers;
    ``authentication`` the option value by which it wants the other to authenticate itself (empty: not at all).
    """

    mru: int = DEFAULT_MRU
    magic_number: int = 0
    pfc: bool = False
    acfc: bool = False
    authentication: bytes = b""

    @classmethod
    def of(cls, options: Mapping[int, bytes]) -> LcpOptions:
        """From option values that the rules have accepted."""
        return cls(
            mru=int.from_bytes(options.get(OPTION_MRU, DEFAULT_MRU.to_bytes(_MRU_OCTETS, "big")), "big"),
            magic_number=int.from_bytes(options.get(OPTION_MAGIC_NUMBER, b""), "big"),
            pfc=OPTION_PFC in options,
            acfc=OPTION_ACFC in options,
            authentication=options.get(OPTION_AUTHENTICATION, b""),
        )


class _MruRule(Rule):
    """Maximum-Receive-Unit (RFC 1661 section 6.1). Absent, it is 1500."""

    type = OPTION_MRU
    name = "MRU"

    def __init__(self, mru: int) -> None:
        self._mru = mru

    def want(self) -> bytes | None:
        return None if self._mru == DEFAULT_MRU else self._mru.to_bytes(_MRU_OCTETS, "big")

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        """Take what we could receive anyhow: anything up to the default, which every peer must be able to receive."""
        size = int.from_bytes(suggested, "big")
        fits = len(suggested) == _MRU_OCTETS and SMALLEST_MRU <= size <= max(self._mru, DEFAULT_MRU)
        return suggested if fits else None

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        if len(value) != _MRU_OCTETS:
            return Nak(DEFAULT_MRU.to_bytes(_MRU_OCTETS, "big"))
        if int.from_bytes(value, "big") < SMALLEST_MRU:
            return Nak(SMALLEST_MRU.to_bytes(_MRU_OCTETS, "big"))
        return Ack()


class _AccmRule(Rule):
    """Async-Control-Character-Map: acknowledged and ignored, as synchronous links do (RFC 1662 section 6)."""

    type = OPTION_ACCM
    name = "ACCM"

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        return Ack() if len(value) == _ACCM_OCTETS else Nak(bytes(_ACCM_OCTETS))


class _AuthenticationRule(Rule):
    """Authentication-Protocol (RFC 1661 section 6.2): each side names what the other is to use."""

    type = OPTION_AUTHENTICATION
    name = "authentication protocol"

    def __init__(self, demanded: tuple[bytes, ...], answerable: tuple[bytes, ...]) -> None:
        self._demanded = demanded
        self._answerable = answerable

    def required_locally(self) -> bool:
        return True

    def want(self) -> bytes | None:
        return self._demanded[0] if self._demanded else None

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        """Take the suggestion if it is one of ours, else go on to our next."""
        if asked is None:
            return None
        if suggested in self._demanded:
            return suggested
        following = self._demanded[self._demanded.index(asked) + 1 :]
        return following[0] if following else None

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        if value in self._answerable:
            return Ack()
        return Nak(self._answerable[0]) if self._answerable else Rej()


class _MagicNumberRule(Rule):
    """Magic-Number (RFC 1661 section 6.4): tells a looped-back link from a peer."""

    type = OPTION_MAGIC_NUMBER
    name = "magic number"

    def __init__(self, wanted: bool, loop_limit: int, entropy: Entropy) -> None:
        self._loop_limit = loop_limit
        self._entropy = entropy
        self._own = self._draw() if wanted else None
        self._collisions = 0

    def _draw(self) -> bytes:
        """Zero is illegal."""
        drawn = self._entropy(_MAGIC_OCTETS)
        return drawn if any(drawn) else b"\x00\x00\x00\x01"

    def want(self) -> bytes | None:
        return self._own

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        """Whatever is suggested, take a fresh one: on a looped link the suggestion is our own."""
        if asked is None:
            return None
        self._own = self._draw()
        return self._own

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        if len(value) != _MAGIC_OCTETS or not any(value):
            return Nak(self._draw())
        if value != own:
            self._collisions = 0
            return Ack()
        self._collisions += 1
        if self._collisions >= self._loop_limit:
            raise PeerViolation("the link is looped back: our own magic number keeps coming")
        return Nak(self._draw())


class _FlagRule(Rule):
    """An option without a value that the peer may ask for: PFC, ACFC (RFC 1661 sections 6.5, 6.6)."""

    def __init__(self, kind: int, name: str, allowed: bool) -> None:
        self.type = kind
        self.name = name
        self._allowed = allowed

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        if not self._allowed:
            return Rej()
        return Nak(b"") if value else Ack()


def lcp_rules(
    policy: LcpPolicy,
    *,
    demanded: tuple[bytes, ...],
    answerable: tuple[bytes, ...],
    max_failure: int,
    entropy: Entropy,
) -> tuple[Rule, ...]:
    """The options LCP knows. Callback, MRRU and everything else is rejected by having no rule.

    ``demanded`` are the Authentication-Protocol values that we accept of the peer, the best first; ``answerable``
    those that the peer may ask of us. A loop must be told before ``max_failure`` Naks: then only Rejects are left.
    """
    return (
        _MruRule(policy.mru),
        _AccmRule(),
        _AuthenticationRule(demanded, answerable),
        _MagicNumberRule(policy.magic_number, min(LOOP_LIMIT, max_failure), entropy),
        _FlagRule(OPTION_PFC, "PFC", policy.pfc),
        _FlagRule(OPTION_ACFC, "ACFC", policy.acfc),
    )
