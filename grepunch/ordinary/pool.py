"""The addresses that an ordinary PPTP server hands out. Pure; the server makes one and is told who comes and goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network

# ours: users whose last address is remembered; who comes back keeps it as long as it is free
REMEMBERED = 4096


class AddressPool:
    """One pool. Never gives out an address twice, nor ours, the network's, the broadcast one or another user's own."""

    def __init__(self, network: IPv4Network, own: IPv4Address) -> None:
        """``own`` is this server's address inside the tunnel."""
        self._network = network
        self._own = own
        self._leased: dict[IPv4Address, str] = {}
        self._untouched: Iterator[IPv4Address] = network.hosts()
        self._returned: dict[IPv4Address, None] = {}  # in the order in which they came back
        self._last: dict[str, IPv4Address] = {}

    @property
    def size(self) -> int:
        """How many addresses it can give out at most."""
        hosts = self._network.num_addresses - 2
        return hosts - (self._own in self._network)

    @property
    def leases(self) -> Mapping[IPv4Address, str]:
        """Who has which address now."""
        return self._leased

    def lease(self, user: str, reserved: Mapping[IPv4Address, str]) -> IPv4Address | None:
        """An address for a user, or None where there is none; ``reserved`` says whose own an address is.

        Their own where they have one and it is free, else the one they had the last time, else another one.
        """
        mine = next((address for address, owner in reserved.items() if owner == user), None)
        for wanted in (mine, self._last.get(user)):
            if wanted is not None and self._may_have(wanted, user, reserved):
                return self._take(wanted, user)
        for candidate in self._candidates():
            if self._may_have(candidate, user, reserved):
                return self._take(candidate, user)
        return None

    def release(self, address: IPv4Address) -> None:
        """An address is free again; harmless for one that is."""
        if self._leased.pop(address, None) is not None and address in self._network:
            self._returned[address] = None

    def _candidates(self) -> Iterator[IPv4Address]:
        """Addresses nobody has had, then those that came back, the oldest first."""
        for address in self._untouched:
            self._returned[address] = None  # wherever it ends up, it is not lost
            yield address
        yield from list(self._returned)

    def _may_have(self, address: IPv4Address, user: str, reserved: Mapping[IPv4Address, str]) -> bool:
        return address != self._own and address not in self._leased and reserved.get(address, user) == user

    def _take(self, address: IPv4Address, user: str) -> IPv4Address:
        self._leased[address] = user
        self._returned.pop(address, None)
        self._last.pop(user, None)
        if len(self._last) >= REMEMBERED:
            del self._last[next(iter(self._last))]
        self._last[user] = address
        return address
