"""Candidates: the addresses a peer might be reached at, and the few of them that probes may be aimed at.

The dialer gathers :func:`own_candidates` and sends them to the peer (sealed); what the peer sends goes through
:func:`select_targets`, whose result is all that a :class:`~grepunch.punch.puncher.Puncher` ever aims at. Both are
pure. The selection is a guard as much as a choice: neither a rendezvous nor a peer may turn our probes on
loopback, multicast or a private network that is not our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from pptp.value import value

# RFC 1918 section 3, RFC 6598 section 7, RFC 3927 section 2.1, RFC 1122 section 3.2.1.3
_INSIDE = tuple(
    IPv4Network(prefix)
    for prefix in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8")
)
# RFC 1122 section 3.2.1.3, RFC 5771 section 3, RFC 1112 section 4: nothing there is one host
_NEVER = tuple(IPv4Network(prefix) for prefix in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"))

# ours, because a pool has been seen to use a few addresses for one subscriber, and each target costs a budget
MAX_GRE_SOURCES = 3
MAX_EXTERNAL = 1 + MAX_GRE_SOURCES
MAX_LAN = 4


class CandidateKind(StrEnum):
    """Where an address comes from."""

    EXTERNAL = "external"  # seen from outside, by the rendezvous or a GRE echo
    LAN = "lan"  # an interface's own address
    KNOWN = "known"  # the last known address that the user wrote into the profile


@value
class Candidate:
    """One address and where it comes from."""

    address: IPv4Address
    kind: CandidateKind


class Refusal(StrEnum):
    """Why a candidate is not a target."""

    NOT_A_HOST = "not_a_host"  # unspecified, loopback, multicast, reserved
    OWN_ADDRESS = "own_address"
    PRIVATE = "private"  # private, but in no prefix we are connected to
    NOT_ON_OUR_LAN = "not_on_our_lan"  # a LAN address outside our connected prefixes, or not behind our NAT
    SAME_NAT = "same_nat"  # our own external address: GRE cannot hairpin through an IP-pair keyed NAT
    TOO_MANY = "too_many"


@value
class Selection:
    """What to aim at, in order, and what was refused and why.

    ``same_nat`` says that both sides share an external address: without a LAN target nothing can be punched,
    and the verdict is due at once.
    """

    targets: tuple[Candidate, ...]
    refused: tuple[tuple[Candidate, Refusal], ...]
    same_nat: bool


def is_public(address: IPv4Address) -> bool:
    """Whether a router with this address stands outside every NAT of ours.

    Not ``ipaddress.is_global``: that calls documentation and benchmarking ranges private, which labs use as
    their Internet, and 100.64.0.0/10 neither, which is the inside of carrier NATs.
    """
    return not any(address in network for network in _INSIDE)


def is_host(address: IPv4Address) -> bool:
    """Whether the address can be one other host's at all."""
    return not any(address in network for network in _NEVER)


def own_candidates(
    interfaces: Iterable[IPv4Interface], external: IPv4Address | None, gre_sources: Sequence[IPv4Address] = ()
) -> tuple[Candidate, ...]:
    """What to tell the peer: where we were seen from, what a GRE echo saw, and our addresses on LANs.

    ``interfaces`` are the host's addresses without the tunnel's own; ``external`` is what the rendezvous saw,
    ``gre_sources`` what a GRE echo saw (a pooling NAT may give GRE another address than TCP).
    """
    outside = dict.fromkeys([*([external] if external else []), *gre_sources[:MAX_GRE_SOURCES]])
    inside = dict.fromkeys(interface.ip for interface in interfaces if is_host(interface.ip))
    return (
        *(Candidate(address, CandidateKind.EXTERNAL) for address in outside),
        *(Candidate(address, CandidateKind.LAN) for address in list(inside)[:MAX_LAN]),
    )


def select_targets(
    interfaces: Sequence[IPv4Interface], external: IPv4Address | None, peer: Sequence[Candidate]
) -> Selection:
    """Choose among the peer's candidates those that probes may be aimed at.

    With an equal external address only LAN candidates within a connected prefix remain; else the external ones.
    An external candidate within a connected prefix is a neighbour, and becomes a LAN target.

    Deviation: a KNOWN address may be private, or in one of our prefixes. The rule against those is one against
    being aimed by others; this address is the word of our own user, and two sites of one company do use RFC 1918
    addresses between them.
    """
    same_nat = external is not None and any(c.kind is CandidateKind.EXTERNAL and c.address == external for c in peer)
    targets: dict[IPv4Address, Candidate] = {}
    refused: list[tuple[Candidate, Refusal]] = []
    for candidate in peer:
        connected = any(candidate.address in interface.network for interface in interfaces)
        refusal = _refusal(candidate, connected, same_nat, external)
        if any(candidate.address == interface.ip for interface in interfaces):
            refusal = Refusal.OWN_ADDRESS
        elif refusal is None and candidate.address not in targets and len(targets) >= max(MAX_EXTERNAL, MAX_LAN):
            refusal = Refusal.TOO_MANY
        if refusal is not None:
            refused.append((candidate, refusal))
        elif candidate.kind is CandidateKind.EXTERNAL and connected:
            targets.setdefault(candidate.address, Candidate(candidate.address, CandidateKind.LAN))
        else:
            targets.setdefault(candidate.address, candidate)
    return Selection(tuple(targets.values()), tuple(refused), same_nat)


def _refusal(candidate: Candidate, connected: bool, same_nat: bool, external: IPv4Address | None) -> Refusal | None:
    if not is_host(candidate.address):
        return Refusal.NOT_A_HOST
    match candidate.kind:
        case CandidateKind.EXTERNAL if same_nat and not connected:
            return Refusal.SAME_NAT
        case CandidateKind.EXTERNAL if not connected and not is_public(candidate.address):
            return Refusal.PRIVATE
        case CandidateKind.LAN if not (same_nat and connected):
            return Refusal.NOT_ON_OUR_LAN
        case CandidateKind.KNOWN if candidate.address == external:
            return Refusal.SAME_NAT
    return None
