"""The device of ordinary PPTP: nothing that it hands over is left to us, so that the kernel segments and computes
checksums for its peers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface

from grepunch.config import Profile
from grepunch.interface import host_verdicts
from grepunch.io.netconf import InterfacePlan, Netconf, render
from grepunch.io.tun import JoiningTun, Tun, open_call_tun
from grepunch.ordinary.terms import device_mtu, device_name, link_local, own_address
from pptp.mtu import IPV6_MINIMUM


def planned(profile: Profile) -> list[str]:
    """Everything that ordinary PPTP would do to this host, as commands that would do the same."""
    lines = render(_plan(profile, profile.interface.routes if profile.server is not None else ()))
    if profile.listen is not None:
        lines += [f"# listen at TCP {listener}" for listener in profile.listen.tcp]
    return lines


def _plan(profile: Profile, routes: Sequence[IPv4Network]) -> InterfacePlan:
    address = own_address(profile) if profile.listen is not None else profile.interface.address
    pool = profile.interface.pool
    if profile.listen is not None and pool is not None and address is not None and not pool.subnet_of(address.network):
        routes = (*routes, pool)
    return InterfacePlan(
        profile=profile.name,
        name=device_name(profile),
        addresses=(address,) if address is not None else (),
        mtu=device_mtu(profile),
        routes=tuple(routes),
    )


class CallInterface:
    """One TUN device with its configuration; a context manager that leaves nothing behind.

    Entering and every change raise :class:`Failure` with the host's own words.
    """

    def __init__(self, profile: Profile) -> None:
        self._base = self._plan = _plan(profile, ())
        self._netconf = Netconf()
        self._tun: Tun | JoiningTun | None = None
        self._identifiers: list[bytes] = []
        self._routes: list[IPv4Network] = []
        self._address: IPv4Interface | None = None

    def __enter__(self) -> CallInterface:
        with host_verdicts():
            self._tun = open_call_tun(self._plan.name)
            try:
                self._netconf.apply(self._plan)
            except BaseException:
                self._tun.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        with host_verdicts(), ExitStack() as stack:
            stack.callback(self.device.close)
            stack.callback(self._netconf.undo)

    @property
    def device(self) -> Tun | JoiningTun:
        """The device itself, for the pump."""
        if self._tun is None:
            raise ValueError("the interface is not open")
        return self._tun

    @property
    def mtu(self) -> int:
        """The MTU of the device."""
        return self._plan.mtu

    @property
    def networks(self) -> tuple[IPv4Network, ...]:
        """What is routed into the device however few calls are up."""
        connected = (address.network for address in self._base.addresses if isinstance(address, IPv4Interface))
        return (*connected, *(route for route in self._base.routes if isinstance(route, IPv4Network)))

    def set_mtu(self, mtu: int) -> None:
        """What the one call there is carries (dialling)."""
        self._base = replace(self._base, mtu=mtu)
        self._apply()

    def set_address(self, address: IPv4Address | None) -> None:
        """Our address as the server gave it (dialling, with none in the profile); None takes it away."""
        self._address = IPv4Interface(address) if address is not None and not self._base.addresses else None
        self._apply()

    def add_routes(self, networks: Iterable[IPv4Network]) -> None:
        """Route these into the device."""
        self._routes += networks
        self._apply()

    def remove_routes(self, networks: Iterable[IPv4Network]) -> None:
        """The reverse of :meth:`add_routes`, call by call."""
        for network in networks:
            self._routes.remove(network)
        self._apply()

    def add_identifier(self, identifier: bytes) -> None:
        """A call knows us by this IPv6 interface identifier (8 octets)."""
        self._identifiers.append(identifier)
        self._apply()

    def remove_identifier(self, identifier: bytes) -> None:
        """The reverse of :meth:`add_identifier`, call by call. The address stays while another call has it."""
        self._identifiers.remove(identifier)
        self._apply()

    def _apply(self) -> None:
        plan = self._base
        addresses = list(plan.addresses)
        if self._address is not None:
            addresses.append(self._address)
        if plan.mtu >= IPV6_MINIMUM:
            addresses += [IPv6Interface((IPv6Address(link_local(one)), 64)) for one in dict.fromkeys(self._identifiers)]
        plan = replace(plan, addresses=tuple(addresses), routes=(*plan.routes, *dict.fromkeys(self._routes)))
        if plan != self._plan:
            with host_verdicts():
                self._netconf.apply(plan)
            self._plan = plan
