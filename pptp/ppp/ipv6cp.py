"""IPV6CP: the interface identifiers of the two ends (RFC 5072)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pptp.ppp.control_protocol import LinkContext, NetworkControl, NetworkUp
from pptp.ppp.negotiation import Entropy, Negotiation
from pptp.ppp.options import Ack, Nak, Rule, Verdict
from pptp.value import value
from pptp.wire.ppp import Protocol

# RFC 5072 section 4
OPTION_INTERFACE_IDENTIFIER = 1
_OCTETS = 8
_UNIVERSAL = 0x02  # the "u" bit of the first octet: 0 for identifiers that nobody assigned


@value
class Ipv6Up(NetworkUp):
    """IPv6 can be used; the link-local addresses are fe80::/64 with these interface identifiers of 8 octets."""

    local: bytes
    remote: bytes


class _InterfaceIdentifierRule(Rule):
    """Interface-Identifier (RFC 5072 section 4.1): non-zero, and another one at each end."""

    type = OPTION_INTERFACE_IDENTIFIER
    name = "interface identifier"

    def __init__(self, own: bytes | None, fixed: bool, entropy: Entropy) -> None:
        self._entropy = entropy
        self._own = own or self._draw()
        self._fixed = fixed

    def _draw(self) -> bytes:
        drawn = self._entropy(_OCTETS)
        return bytes((drawn[0] & ~_UNIVERSAL,)) + drawn[1:-1] + bytes((drawn[-1] or 1,))

    def required_locally(self) -> bool:
        return True

    def required_remotely(self) -> bool:
        return True

    def want(self) -> bytes | None:
        return self._own

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        """The peer has ours already: take its suggestion, or one of our own; where ours is fixed, ask again."""
        if self._fixed:
            return asked
        usable = len(suggested) == _OCTETS and any(suggested) and suggested != asked
        return suggested if usable else self._draw()

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        if len(value) != _OCTETS or not any(value) or value == own:
            return Nak(self._draw())
        return Ack()

    def missing(self) -> bytes | None:
        return self._draw()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv6cpPolicy:
    """Which interface identifier (8 octets, non-zero) we ask for; ``None``: a random one.

    Deviation: a ``fixed`` one is not given up where the peer wants another (RFC 5072 section 4.1 has us choose anew);
    IPV6CP then fails. That is for identifiers made from keys, of which no two are the same.
    """

    interface_identifier: bytes | None = None
    fixed: bool = False
    essential: bool = False

    def __post_init__(self) -> None:
        """Refuse an identifier that no peer could accept."""
        identifier = self.interface_identifier
        if identifier is not None and (len(identifier) != _OCTETS or not any(identifier)):
            raise ValueError(f"an interface identifier has {_OCTETS} octets and is not zero")

    @property
    def protocol(self) -> int:
        """IPV6CP."""
        return Protocol.IPV6CP

    @property
    def data_protocol(self) -> int:
        """IPv6."""
        return Protocol.IPV6

    def begin(self, context: LinkContext, now: float) -> NetworkControl:
        """Start negotiating."""
        rules = (_InterfaceIdentifierRule(self.interface_identifier, self.fixed, context.entropy),)
        negotiation = Negotiation("IPV6CP", rules, context.retransmission)
        negotiation.peer_mru = context.remote.mru
        return NetworkControl(negotiation, Protocol.IPV6, _report, now)


def _report(local: Mapping[int, bytes], remote: Mapping[int, bytes]) -> Ipv6Up:
    return Ipv6Up(Protocol.IPV6, local[OPTION_INTERFACE_IDENTIFIER], remote[OPTION_INTERFACE_IDENTIFIER])
