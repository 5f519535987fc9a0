"""The tunnel interface of a profile: device, addresses, MTU and routes, following which peers are up.

The routes to what lies behind a peer are there while the peer's session is; they stay through a repair, so that
nothing leaks past the tunnel meanwhile. Every peer has an MTU of its own: the device takes the largest, and the routes
to the others a smaller one each, so that no peer's path narrows another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NoReturn

from grepunch.config import Profile
from grepunch.io import capabilities, nftguard
from grepunch.io.errors import AddressClash, BadName, DeviceGone, HostError, NameTaken, NoPrivilege
from grepunch.io.hostnet import forwards_ipv4
from grepunch.io.netconf import InterfacePlan, Netconf, host_interfaces, remove_leftovers, render
from grepunch.io.tun import OffloadTun, Tun, open_tun
from grepunch.progress import Level, Notice
from grepunch.verdict import Failure, Verdict, VerdictKind
from pptp.mtu import INITIAL_OUTER, IPV6_MINIMUM, OVERHEAD_SEALED_V1, inner_mtu

_KINDS = {
    NoPrivilege: VerdictKind.NO_PRIVILEGE,
    BadName: VerdictKind.PROFILE_INVALID,
    AddressClash: VerdictKind.ADDRESS_CLASH,
    NameTaken: VerdictKind.ADDRESS_CLASH,
    DeviceGone: VerdictKind.LINK_LOST,
}

_KEPT_TO_ITSELF = "IPv4 forwarding is off: this host reaches {}, its neighbours do not (sysctl net.ipv4.ip_forward=1)"

START_MTU = inner_mtu(INITIAL_OUTER, OVERHEAD_SEALED_V1)


def verdict_of(error: HostError) -> Verdict:
    """The verdict that a refusal of this host amounts to."""
    return Verdict(_KINDS.get(type(error), VerdictKind.UNSUPPORTED_HOST), error.sentence, error.advice)


@contextmanager
def host_verdicts() -> Iterator[None]:
    """What this host refuses inside the block leaves it as a :class:`Failure`."""
    try:
        yield
    except HostError as error:
        _fail(error)


def _fail(error: HostError) -> NoReturn:
    raise Failure(verdict_of(error)) from error


def obstacle() -> Verdict | None:
    """The first thing that keeps this host from running an endpoint, or None. Touches nothing."""
    missing = next((need.error for need in capabilities.check() if need.required and need.error is not None), None)
    return verdict_of(missing) if missing is not None else None


def clean_up(profile: str) -> list[str]:
    """Remove what a killed process of this profile left; what it was, in words. The caller holds the lock."""
    with host_verdicts():
        return remove_leftovers(profile)


def planned(profile: Profile) -> list[str]:
    """Everything that running a profile would do to this host, as commands that would do the same."""
    networks = [network for peer in profile.peers for network in _networks(profile, peer.name)]
    return [*render(_plan(profile, networks)), *nftguard.rules(profile.name).splitlines()]


def _plan(profile: Profile, networks: Sequence[IPv4Network]) -> InterfacePlan:
    address = profile.interface.address
    return InterfacePlan(
        profile=profile.name,
        name=profile.interface.name,
        addresses=(address,) if address is not None else (),
        mtu=profile.interface.mtu or START_MTU,
        routes=tuple(networks),
    )


def _networks(profile: Profile, name: str) -> list[IPv4Network]:
    """What is to be routed to a peer: its address where the interface's network does not hold it, and the profile's
    routes that it is allowed."""
    peer = next(peer for peer in profile.peers if peer.name == name)
    connected = profile.interface.address
    own: list[IPv4Network] = []
    if peer.address is not None and (connected is None or peer.address not in connected.network):
        own.append(IPv4Network(peer.address))
    return own + [
        route for route in profile.interface.routes if any(route.subnet_of(allowed) for allowed in peer.allowed)
    ]


def _refuse_loop(networks: Sequence[IPv4Network], outer: Iterable[IPv4Address]) -> None:
    """Keep the tunnel's own packets out of the tunnel: each would be sealed and sent into it again."""
    for address in outer:
        for network in networks:
            if address in network:
                text = f"{network} is to be routed into the tunnel, and the tunnel's own packets go to {address}."
                _fail(AddressClash(text, f"Name networks without {address} in interface.routes."))


class TunnelInterface:
    """One TUN device with its configuration; a context manager that leaves nothing behind.

    Entering and every change raise :class:`Failure` with the host's own words.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._plan = _plan(profile, ())
        self._netconf = Netconf()
        self._tun: Tun | OffloadTun | None = None
        self._routes: dict[str, list[IPv4Network]] = {}
        self._hosts: dict[str, dict[int, IPv4Network | IPv6Network]] = {}  # the peers' own addresses, by IP version
        self._mtus: dict[str, int] = {}
        self.notices: list[Notice] = []
        """What the user is to know of the host, once the interface is there."""

    def __enter__(self) -> TunnelInterface:
        with host_verdicts():
            self._tun = open_tun(self._profile.interface.name)
            try:
                self._netconf.apply(self._plan)
            except BaseException:
                self._tun.close()
                raise
            left_out = nftguard.install(self._profile.name)
        if left_out is not None:
            self.notices.append(Notice(left_out.sentence, Level.WARNING))
        if (networks := self._profile.interface.routes) and not forwards_ipv4():
            self.notices.append(Notice(_KEPT_TO_ITSELF.format(", ".join(map(str, networks)))))
        return self

    def __exit__(self, *_: object) -> None:
        with host_verdicts(), ExitStack() as stack:  # one that fails keeps none of the others from being done
            stack.callback(self.device.close)
            stack.callback(nftguard.remove, self._profile.name)
            stack.callback(self._netconf.undo)

    @property
    def device(self) -> Tun | OffloadTun:
        """The device itself, for the data pump."""
        if self._tun is None:
            raise ValueError("the interface is not open")
        return self._tun

    @property
    def mtu(self) -> int:
        """The inner MTU of the device."""
        return self._plan.mtu

    def peer_up(self, name: str, local: IPv4Address, remote: IPv4Address, outer: Iterable[IPv4Address] = ()) -> None:
        """IPv4 is up with a peer: its routes, and the addresses that it gave where the profile has none.

        ``outer`` are the addresses that the tunnel's own packets go to. Where this raises everything is as it was.
        """
        if local == remote:
            _fail(AddressClash(f"{remote} is the address of both ends.", "Set interface.address and peer.address."))
        _refuse_loop([*_networks(self._profile, name), *self._routed()], outer)
        before, plan = self._routes.get(name), self._plan
        self._routes[name] = _networks(self._profile, name)
        addresses = plan.addresses
        if self._profile.interface.address is None:
            addresses = (IPv4Interface(f"{local}/32"), *(a for a in addresses if a.version == 6))
            self._routes[name].append(IPv4Network(remote))
        hosts = dict(self._hosts)
        self._hosts[name] = self._hosts.get(name, {}) | {4: IPv4Network(remote)}
        try:
            self._apply(replace(plan, addresses=addresses))
        except Failure:
            self._hosts = hosts
            if before is None:
                del self._routes[name]
            else:
                self._routes[name] = before
            self._restore()
            raise

    def check_outer(self, outer: Iterable[IPv4Address]) -> None:
        """The tunnel's own packets go to these addresses from now on: raises where a route would take them in."""
        _refuse_loop(self._routed(), outer)

    def ipv6_up(self, name: str, local: bytes, remote: bytes) -> None:
        """IPV6CP is up with a peer: our link-local address, in any other's place. Identifiers have 8 octets.

        Our identifier is made from our key, so that it is the same with every peer.
        """
        self._hosts[name] = self._hosts.get(name, {}) | {6: IPv6Network(_link_local(remote))}
        addresses = self._plan.addresses
        if self._plan.mtu >= IPV6_MINIMUM:
            addresses = (*(a for a in addresses if a.version == 4), IPv6Interface((_link_local(local), 64)))
        self._apply(replace(self._plan, addresses=addresses))

    def peer_down(self, name: str) -> None:
        """The session with a peer is over."""
        self._mtus.pop(name, None)
        self._hosts.pop(name, None)
        self._routes.pop(name, None)
        self._apply(self._plan)

    def peer_mtu(self, name: str, mtu: int) -> None:
        """The largest inner packet that the path to a peer carries."""
        self._mtus[name] = mtu
        self._apply(self._plan)

    def routes_to(self, name: str) -> tuple[IPv4Network, ...]:
        """What is routed to a peer now."""
        return tuple(self._routes.get(name, ()))

    def host_interfaces(self) -> list[IPv4Interface]:
        """This host's other addresses, for LAN candidates."""
        with host_verdicts():
            return host_interfaces(self._profile.interface.name)

    def _routed(self) -> list[IPv4Network]:
        """What the peers that are up have routed to them."""
        return [network for networks in self._routes.values() for network in networks]

    def _restore(self) -> None:
        """After a change that this host refused half-way: back to what was there before."""
        with host_verdicts():
            self._netconf.apply(self._plan)

    def _apply(self, plan: InterfacePlan) -> None:
        """Make the interface what ``plan`` says of its addresses; routes and MTUs follow from the peers."""
        mtu = self._profile.interface.mtu or max(self._mtus.values(), default=plan.mtu)
        narrow: dict[IPv4Network | IPv6Network, int] = {}
        for name, peer_mtu in self._mtus.items():
            if peer_mtu < mtu and name in self._routes:
                hosts = [h for h in self._hosts.get(name, {}).values() if h.version == 4 or peer_mtu >= IPV6_MINIMUM]
                narrow |= dict.fromkeys([*hosts, *self._routes[name]], peer_mtu)
        everything = tuple(dict.fromkeys([*self._routed(), *narrow]))
        plan = replace(plan, mtu=mtu, routes=everything, narrow=tuple(narrow.items()))
        if plan != self._plan:
            with host_verdicts():
                self._netconf.apply(plan)
            self._plan = plan


def _link_local(identifier: bytes) -> IPv6Address:
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)
