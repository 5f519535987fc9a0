"""What PPTP itself offers, by the words a profile has for it. All of it is breakable; a profile allows it by name."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address

from pptp.value import value

PPTP_PORT = 1723  # RFC 2637 section 3


class AuthMethod(StrEnum):
    """How a user proves a password; the best first."""

    MSCHAPV2 = "mschapv2"
    CHAP = "chap"
    PAP = "pap"


class Weakness(StrEnum):
    """What [legacy] may allow."""

    MSCHAPV2 = "mschapv2"
    CHAP = "chap"
    PAP = "pap"
    MPPE128 = "mppe128"
    MPPE56 = "mppe56"
    MPPE40 = "mppe40"
    STATEFUL = "stateful"
    CLEARTEXT = "cleartext"


STRENGTHS = (Weakness.MPPE128, Weakness.MPPE56, Weakness.MPPE40)


class MppePolicy(StrEnum):
    """Whether a link is encrypted by MPPE."""

    REQUIRE = "require"
    ALLOW = "allow"  # as the peer wants it
    REFUSE = "refuse"


class MppeModes(StrEnum):
    """How MPPE changes its keys: with every packet, or with every 256th and on loss."""

    STATELESS = "stateless"
    STATEFUL = "stateful"
    ANY = "any"  # stateless is asked for first


class SessionPolicy(StrEnum):
    """What happens when a user who has a session comes again."""

    REPLACE = "replace"  # the new one takes over: the usual reason is a client that crashed
    DENY = "deny"
    ALLOW = "allow"


@value
class Listener:
    """An address and port to listen at."""

    address: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"
