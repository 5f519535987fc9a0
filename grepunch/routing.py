"""Which inner addresses belong to which peer: asked for every packet, both ways.

A packet out of the TUN device goes to the peer that owns its destination; a packet out of a peer's seal is let in
only if its source is that peer's own. Answers are remembered, with a cap, because a dictionary look-up is what a
packet can afford.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic, TypeVar

OwnerT = TypeVar("OwnerT")

# ours: enough for a busy network behind a peer, small enough that a scan through it costs little memory
REMEMBERED = 4096

_LINK_LOCAL = b"\xfe\x80" + bytes(6)


@dataclass(slots=True)
class _Owned(Generic[OwnerT]):
    owner: OwnerT
    networks: tuple[IPv4Network | IPv6Network, ...]
    interface_identifier: bytes | None = None
    verdicts: dict[bytes, bool] = field(default_factory=dict)


class AddressTable(Generic[OwnerT]):
    """The inner addresses of all peers. ``OwnerT`` is whatever the endpoint keeps for a peer."""

    def __init__(self) -> None:
        self._owned: dict[str, _Owned[OwnerT]] = {}
        self._destinations: dict[bytes, OwnerT | None] = {}

    def add(self, name: str, owner: OwnerT, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        """``name``'s addresses: its own as a /32, and the prefixes it is allowed."""
        known = self._owned.get(name)
        self._owned[name] = _Owned(owner, tuple(networks), known.interface_identifier if known is not None else None)
        self._destinations.clear()

    def set_interface_identifier(self, name: str, identifier: bytes | None) -> None:
        """The IPv6 interface identifier that IPV6CP agreed on for the peer (8 octets).

        Nobody gets one that another peer has: the other's packets would go astray.
        """
        if any(owned.interface_identifier == identifier for other, owned in self._owned.items() if other != name):
            identifier = None
        self._owned[name].interface_identifier = identifier
        self._owned[name].verdicts.clear()
        self._destinations.clear()

    def owner_of(self, destination: bytes) -> OwnerT | None:
        """Whose a destination is (4 or 16 octets); the longest prefix wins, None where nobody owns it."""
        try:
            return self._destinations[destination]
        except KeyError:
            pass
        if len(self._destinations) >= REMEMBERED:
            self._destinations.clear()
        owner = self._destinations[destination] = self._find(destination)
        return owner

    def may_send(self, name: str, source: bytes) -> bool:
        """Whether ``name`` may send from this inner source address (4 or 16 octets)."""
        owned = self._owned[name]
        try:
            return owned.verdicts[source]
        except KeyError:
            pass
        if len(owned.verdicts) >= REMEMBERED:
            owned.verdicts.clear()
        verdict = owned.verdicts[source] = self._match(owned, source) is not None
        return verdict

    def _find(self, destination: bytes) -> OwnerT | None:
        best: tuple[int, OwnerT] | None = None
        for owned in self._owned.values():
            length = self._match(owned, destination)
            if length is not None and (best is None or length > best[0]):
                best = (length, owned.owner)
        if best is None and destination[:1] == b"\xff" and len(destination) == 16 and len(self._owned) == 1:
            return next(iter(self._owned.values())).owner  # multicast has one way to go where there is one peer
        return best[1] if best is not None else None

    @staticmethod
    def _match(owned: _Owned[OwnerT], address: bytes) -> int | None:
        """The length of the longest prefix of this peer that holds ``address``."""
        if len(address) == 16 and address[:8] == _LINK_LOCAL and address[8:] == owned.interface_identifier:
            return 128
        value = IPv4Address(address) if len(address) == 4 else IPv6Address(address)
        return max((n.prefixlen for n in owned.networks if n.version == value.version and value in n), default=None)
