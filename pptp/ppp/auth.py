"""What an authentication protocol has to look like to be used by a link (RFC 1661 section 3.5, 6.2).

A *method* is policy: an option value that LCP negotiates, and the way to begin. It begins as an
:class:`Exchange`, a machine that lives as long as LCP stays opened. PAP, CHAP with MD5 and MS-CHAPv2 are methods; the
link knows none of them by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Protocol

from pptp.ppp.negotiation import Entropy
from pptp.value import value


@value
class AuthSucceeded:
    """This direction is authenticated.

    ``identity`` is the peer's name for an authenticator, our own for an authenticatee. The keys are the master keys
    that the method leaves behind for MPPE (RFC 3079 section 3.4; empty where it has none), from our side.
    """

    identity: str
    send_key: bytes = field(default=b"", repr=False)
    receive_key: bytes = field(default=b"", repr=False)


@value
class AuthFailed:
    """This direction failed for good; the link ends with ``detail``."""

    detail: str


@value
class AuthRefused:
    """An attempt of the peer failed, and it may make another; if it does not, this is why it is not in."""

    detail: str


AuthEvent = AuthSucceeded | AuthFailed | AuthRefused


class Exchange(Protocol):
    """One run of an authentication protocol in one direction; a machine (``pptp/machine.py``).

    ``codes`` are the packet codes it receives: two exchanges of opposite direction may share a protocol (a CHAP
    authenticator takes Responses, an authenticatee Challenges), and the link tells them apart by code. It keeps
    running after success, so that a repeated Response gets the same answer and a new Challenge can come; a second
    success changes nothing, a failure ends the link. Whoever waits sets its own timer.
    """

    @property
    def protocol(self) -> int:
        """The PPP protocol it speaks."""

    @property
    def codes(self) -> frozenset[int]:
        """The codes of the packets that are for it."""

    def start(self, now: float) -> None:
        """LCP is opened."""

    def receive(self, information: bytes, now: float) -> None:
        """Take one packet; raises :class:`WireError` or :class:`PeerViolation` for a bad one, which is then counted."""

    def transmits(self) -> Sequence[bytes]:
        """Drain the packets to be sent, oldest first."""

    def events(self) -> Sequence[AuthEvent]:
        """Drain what happened, oldest first."""

    def deadline(self) -> float | None:
        """When ``handle_timeout`` is wanted next, or ``None``."""

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that is due."""


class Authenticator(Protocol):
    """A method by which the peer may authenticate itself to us."""

    @property
    def protocol(self) -> int:
        """The PPP protocol it speaks."""

    @property
    def option(self) -> bytes:
        """Value of LCP's Authentication-Protocol option, as ``c2 23 81``."""

    def authenticate_peer(self, entropy: Entropy) -> Exchange:
        """Begin as the one who asks."""


class Authenticatee(Protocol):
    """A method by which we can authenticate ourselves to the peer."""

    @property
    def protocol(self) -> int:
        """The PPP protocol it speaks."""

    @property
    def option(self) -> bytes:
        """Value of LCP's Authentication-Protocol option, as ``c2 23 81``."""

    def answer_peer(self, entropy: Entropy) -> Exchange:
        """Begin as the one who is asked."""
