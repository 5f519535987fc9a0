"""IPCP: which IPv4 addresses and name servers the two ends use (RFC 1332, RFC 1877)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from pptp.errors import PeerViolation
from pptp.ppp.control_protocol import LinkContext, NetworkControl, NetworkUp
from pptp.ppp.negotiation import Negotiation
from pptp.ppp.options import Ack, Nak, Rej, Rule, Verdict
from pptp.value import value
from pptp.wire.ppp import Protocol

# RFC 1332 section 3.3, RFC 1877 section 1
OPTION_IP_ADDRESS = 3
OPTION_PRIMARY_DNS = 129
OPTION_PRIMARY_WINS = 130
OPTION_SECONDARY_DNS = 131
OPTION_SECONDARY_WINS = 132

_DNS = (OPTION_PRIMARY_DNS, OPTION_SECONDARY_DNS)
_WINS = (OPTION_PRIMARY_WINS, OPTION_SECONDARY_WINS)
_NAMES = {
    OPTION_PRIMARY_DNS: "primary DNS server",
    OPTION_PRIMARY_WINS: "primary WINS server",
    OPTION_SECONDARY_DNS: "secondary DNS server",
    OPTION_SECONDARY_WINS: "secondary WINS server",
}

_OCTETS = 4
_UNKNOWN = IPv4Address(0)  # "give me one" in a request, "not told" in a result


@value
class Ipv4Up(NetworkUp):
    """IPv4 can be used between ``local`` and ``remote`` (0.0.0.0: the peer did not say).

    The servers are those that the peer gave us, of those we asked for.
    """

    local: IPv4Address
    remote: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    wins: tuple[IPv4Address, ...] = ()


def _usable(value: bytes) -> bool:
    """Whether an option value can be the address of a host."""
    if len(value) != _OCTETS:
        return False
    address = IPv4Address(value)
    return bool(value[0]) and not (address.is_loopback or address.is_multicast or address.is_reserved)


def _any_address(address: IPv4Address) -> bool:
    return True


class _AddressRule(Rule):
    """IP-Address (RFC 1332 section 3.3), of both ends."""

    type = OPTION_IP_ADDRESS
    name = "IP address"

    def __init__(self, policy: IpcpPolicy) -> None:
        self._local = policy.local
        self._remote = None if policy.remote is None else policy.remote.packed
        self._strict = policy.strict
        self._may_choose = policy.may_choose

    def required_locally(self) -> bool:
        return self._strict or self._local is None

    def required_remotely(self) -> bool:
        return self._strict

    def want(self) -> bytes | None:
        return (self._local or _UNKNOWN).packed

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        """Insist where the address is fixed, else take what the peer gives."""
        if asked is None or (self._strict and self._local is not None):
            return asked
        return suggested if self._choosable(suggested) else asked

    def agreed(self, value: bytes | None) -> None:
        if value is not None and not _usable(value):
            raise PeerViolation("the peer gives us no address")

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        if value == self._remote or (self._choosable(value) and not (self._strict and self._remote)):
            return Ack()
        if self._remote is None and _usable(value):
            raise PeerViolation(f"the peer's address {IPv4Address(value)} is not one that it may choose")
        return Rej() if self._remote is None else Nak(self._remote)

    def _choosable(self, value: bytes) -> bool:
        return _usable(value) and self._may_choose(IPv4Address(value))

    def missing(self) -> bytes | None:
        return _UNKNOWN.packed if self._remote is None and self._strict else self._remote


class _ServerRule(Rule):
    """One name server address (RFC 1877): we ask for ours, and give the peer what ``give`` says."""

    def __init__(self, kind: int, give: IPv4Address | None, ask: bool) -> None:
        self.type = kind
        self.name = _NAMES[kind]
        self._give = None if give is None else give.packed
        self._ask = ask

    def want(self) -> bytes | None:
        return _UNKNOWN.packed if self._ask else None

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        return suggested if asked is not None and _usable(suggested) else None

    def review(self, value: bytes, own: bytes | None) -> Verdict:
        if self._give is None:
            return Rej()
        return Ack() if value == self._give else Nak(self._give)


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcpPolicy:
    """Which addresses IPCP may end in.

    ``local`` and ``remote`` are the addresses of the two ends, ``None`` what the peer says. With ``strict`` the
    result is exactly these or IPCP fails; without, the peer may have another address than ``remote`` and may give us
    another than ``local``. Of what is the peer's to say, ``may_choose`` tells which addresses are good. ``dns`` and
    ``wins`` (at most two each) are given to a peer that asks; with ``ask_dns`` and ``ask_wins`` we ask for the peer's.
    """

    local: IPv4Address | None = None
    remote: IPv4Address | None = None
    strict: bool = False
    dns: tuple[IPv4Address, ...] = ()
    wins: tuple[IPv4Address, ...] = ()
    ask_dns: bool = False
    ask_wins: bool = False
    essential: bool = True
    may_choose: Callable[[IPv4Address], bool] = _any_address

    @property
    def protocol(self) -> int:
        """IPCP."""
        return Protocol.IPCP

    @property
    def data_protocol(self) -> int:
        """IPv4."""
        return Protocol.IPV4

    def begin(self, context: LinkContext, now: float) -> NetworkControl:
        """Start negotiating."""
        negotiation = Negotiation("IPCP", self._rules(), context.retransmission)
        negotiation.peer_mru = context.remote.mru
        return NetworkControl(negotiation, Protocol.IPV4, self._report, now)

    def _rules(self) -> Iterator[Rule]:
        """In the order in which other systems ask: 3, 129, 130, 131, 132."""
        yield _AddressRule(self)
        give = dict(zip(_DNS, self.dns, strict=False)) | dict(zip(_WINS, self.wins, strict=False))
        for kind in sorted(_DNS + _WINS):
            yield _ServerRule(kind, give.get(kind), self.ask_dns if kind in _DNS else self.ask_wins)

    def _report(self, local: Mapping[int, bytes], remote: Mapping[int, bytes]) -> Ipv4Up:
        """An address that was left out of the agreement is the one we have been told."""

        def servers(kinds: tuple[int, ...]) -> tuple[IPv4Address, ...]:
            return tuple(IPv4Address(local[kind]) for kind in kinds if _usable(local.get(kind, b"")))

        ours, theirs = local.get(OPTION_IP_ADDRESS), remote.get(OPTION_IP_ADDRESS)
        return Ipv4Up(
            Protocol.IPV4,
            IPv4Address(ours) if ours else self.local or _UNKNOWN,
            IPv4Address(theirs) if theirs else self.remote or _UNKNOWN,
            servers(_DNS),
            servers(_WINS),
        )
