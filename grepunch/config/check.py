"""What no single key can tell: the rules between the keys of a profile.

They run on whatever could be read, so that one round shows every fault; a rule whose input is itself at fault says
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeVar

from grepunch.config import rules
from grepunch.config.check_ordinary import check_ordinary
from grepunch.config.faults import KeyPath, dotted
from grepunch.config.reading import Findings, read_each, read_value, table_of
from grepunch.config.rules import Rule
from pptp.value import value

# ours, because every peer without a rendezvous is sent probes for as long as it is away
MOST_PROBED = 8

ValueT = TypeVar("ValueT", bound=Hashable)


@value
class _Peer:
    """What of one [[peer]] could be read; None or empty where it is absent or at fault."""

    path: KeyPath
    name: str | None
    public_key: bytes | None
    address: IPv4Address | None
    last_known_address: IPv4Address | None
    allowed: list[tuple[KeyPath, IPv4Network]]
    at_fault: frozenset[str]  # keys that are there and could not be read
    keys: frozenset[str]

    def own(self) -> Iterator[tuple[KeyPath, IPv4Network]]:
        """Its address and all it is allowed, as prefixes with the key that says so."""
        if self.address is not None:
            yield (*self.path, "address"), IPv4Network(self.address)
        yield from self.allowed


def check(data: Mapping[str, object]) -> Findings:
    """Check a parsed TOML file, valid or not."""
    found = Findings()
    peers = list(_peers(data.get("peer")))
    if isinstance(data.get("peer"), list) and not data["peer"]:
        found.faults.append((("peer",), "at least one [[peer]] is needed"))
    _check_twice(peers, found)
    _check_overlaps(peers, found)
    _check_ways_to_meet(data, peers, found)
    _check_interface(table_of(data, "interface"), peers, found)
    check_ordinary(data, found)
    return found


def _peers(tables: object) -> Iterator[_Peer]:
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        if not isinstance(table, dict):
            continue
        path: KeyPath = ("peer", index)
        read = {key: read_value(table, key, rule) for key, rule in _PEER_RULES.items()}
        allowed, whole = read_each(table, "allowed", rules.PREFIX, path)
        at_fault = {key for key, value in read.items() if key in table and value is None}
        if not whole:
            at_fault.add("allowed")
        name, key, address, last = read["name"], read["public_key"], read["address"], read["last_known_address"]
        yield _Peer(
            path,
            name if isinstance(name, str) else None,
            key if isinstance(key, bytes) else None,
            address if isinstance(address, IPv4Address) else None,
            last if isinstance(last, IPv4Address) else None,
            [(where, prefix) for where, prefix in allowed if isinstance(prefix, IPv4Network)],
            frozenset(at_fault),
            frozenset(table),
        )


_PEER_RULES: Mapping[str, Rule] = {
    "name": rules.PEER_NAME,
    "public_key": rules.PUBLIC_KEY,
    "address": rules.ADDRESS,
    "last_known_address": rules.EXTERNAL_ADDRESS,
}


def _check_twice(peers: list[_Peer], found: Findings) -> None:
    """Names and keys tell peers apart, and two peers at one external address share one slot of every NAT."""
    _once(peers, "name", lambda peer: peer.name, found)
    _once(peers, "public_key", lambda peer: peer.public_key, found)
    _once(
        peers,
        "last_known_address",
        lambda peer: peer.last_known_address,
        found,
        ": GRE has no ports, so only one of them can be reached there",
    )


def _once(peers: list[_Peer], key: str, of: Callable[[_Peer], ValueT | None], found: Findings, why: str = "") -> None:
    first: dict[ValueT, KeyPath] = {}
    for peer in peers:
        if (value := of(peer)) is None:
            continue
        if value in first:
            found.faults.append(((*peer.path, key), f"the same as {dotted((*first[value], key))}{why}"))
        else:
            first[value] = peer.path


def _check_overlaps(peers: list[_Peer], found: Findings) -> None:
    """An inner address belongs to one peer, else a packet to it would have two ways."""
    claims: list[tuple[int, KeyPath, IPv4Network]] = []
    for number, peer in enumerate(peers):
        for path, prefix in peer.own():
            for other, other_path, other_prefix in claims:
                if other != number and prefix.overlaps(other_prefix):
                    text = f"{_shown(prefix)} overlaps {_shown(other_prefix)} of {dotted(other_path)}"
                    found.faults.append((path, text))
                    break
        claims.extend((number, path, prefix) for path, prefix in peer.own())


def _shown(prefix: IPv4Network) -> str:
    return str(prefix.network_address if prefix.prefixlen == 32 else prefix)


def _check_ways_to_meet(data: Mapping[str, object], peers: list[_Peer], found: Findings) -> None:
    probed = [peer for peer in peers if "last_known_address" in peer.keys]
    for peer in probed[MOST_PROBED:]:
        path = (*peer.path, "last_known_address")
        found.faults.append(
            (path, f"at most {MOST_PROBED} peers of a profile may have one: each is probed all the time")
        )
    if "rendezvous" in data:
        if table_of(data, "rendezvous").get("urls") == []:
            found.faults.append((("rendezvous", "urls"), "at least one URL is needed"))
        return
    for peer in peers:
        if "last_known_address" not in peer.keys:
            found.faults.append((peer.path, "needs a last_known_address, because there is no [rendezvous] to meet at"))


def _check_interface(table: Mapping[str, object], peers: list[_Peer], found: Findings) -> None:
    address = read_value(table, "address", rules.INTERFACE_ADDRESS)
    own = address if isinstance(address, IPv4Interface) else None
    if "address" not in table and len(peers) > 1:
        found.faults.append((("interface", "address"), "is missing: with several peers none may choose it"))
    for peer in peers:
        _check_peer_address(peer, own, len(peers), found)
    routes, _ = read_each(table, "routes", rules.ROUTE, ("interface",))
    for path, route in routes:
        if isinstance(route, IPv4Network):
            if own is not None and own.network == route:
                found.faults.append((path, f"{route} is the prefix of interface.address, which is routed anyway"))
            _check_route(path, route, peers, found)


def _check_peer_address(peer: _Peer, own: IPv4Interface | None, peers: int, found: Findings) -> None:
    path = (*peer.path, "address")
    if "address" not in peer.keys and peers > 1:
        found.faults.append((path, "is missing: with several peers each needs its own"))
    if own is None or peer.address is None:
        return
    if peer.address == own.ip:
        found.faults.append((path, "the same as interface.address, which is ours"))
    elif peer.address not in own.network:
        found.warnings.append((path, f"{peer.address} lies outside {own.network}, the prefix of interface.address"))


def _check_route(path: KeyPath, route: IPv4Network, peers: list[_Peer], found: Findings) -> None:
    for peer in peers:
        if peer.last_known_address is not None and peer.last_known_address in route:
            text = f"{route} contains {dotted(peer.path)}.last_known_address: the tunnel would be routed into itself"
            found.faults.append((path, text))
    if not peers or any("allowed" in peer.at_fault or "address" in peer.at_fault for peer in peers):
        return
    if not any(route.subnet_of(prefix) for peer in peers for _, prefix in peer.own()):
        found.faults.append((path, f"{route} lies outside what any peer is allowed: add it to that peer's allowed"))
