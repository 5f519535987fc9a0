"""Addresses, MTU and routes of the tunnel interface, and their exact removal.

What is done is a list of steps, each with its undoing; they are undone in reverse order, also when applying failed
half-way. Everything is tagged: the interface by its alias, the routes by their protocol number, so that what a killed
process left behind is recognised as ours (:func:`remove_leftovers`) and nothing else ever is.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Interface

from grepunch.io import nftguard
from grepunch.io.errors import AddressClash, DeviceGone, HostError, NoPrivilege, Refused
from grepunch.io.rtnetlink import Interface, Network, Rtnetlink
from grepunch.io.tun import check_name
from pptp.mtu import IPV6_MINIMUM
from pptp.value import value

# ours: any number that rtnetlink.h and common routing daemons leave free (`ip route show proto 171`)
ROUTE_PROTOCOL = 171
ALIAS_PREFIX = "grepunch-pptp:"

# The kernel's own. It is for bursts of small packets while the endpoint has no processor: UDP packets of 64 octets go
# through at 57,000 a second with 500, as with OpenVPN, and at 36,000 with 50. It would be a long wait where each is up
# to 64 KB: a ping under four TCP streams through a device that was read in order took 2.9 ms with a queue of 4 (394
# Mbit/s), 12 with 16 (446) and 20 with 50 (465). But the engine empties the device at every turn and keeps the trains
# apart (see ``backlog``): 2.2 ms with 50, 2.3 with 500, at the same throughput. `make bench ARGS="--queue"` is a curve.
TRANSMIT_QUEUE = 500

_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT, errno.ENETDOWN})


@value
class InterfacePlan:
    """What the tunnel interface of a profile is to look like. The interface itself exists already (see ``tun``).

    ``routes`` are the prefixes behind the peers: each peer's own address (as /32), where the interface's network does
    not hold it, and what else it is allowed. A default route is none of them: it would catch the tunnel's own packets.
    ``narrow`` are those among them whose packets may be no larger than so many octets, less than the interface's MTU.
    """

    profile: str
    name: str
    addresses: tuple[Interface, ...]
    mtu: int
    routes: tuple[Network, ...] = ()
    narrow: tuple[tuple[Network, int], ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        for route in self.routes:
            if route.prefixlen == 0:
                raise AddressClash(
                    f"{route} cannot be routed into {self.name}: the tunnel's own packets would go there too.",
                    "Name the prefixes behind the peer instead.",
                )


@value
class SetAlias:
    """Tag the interface as ours, shorten its queue, and keep the kernel from inventing IPv6 addresses for it."""

    alias: str


@value
class SetMtu:
    """Set the interface's MTU."""

    mtu: int


@value
class AddAddress:
    """Give the interface an address; the kernel adds the route to its network."""

    address: Interface


@value
class SetUp:
    """Bring the interface up."""


@value
class AddRoute:
    """Route a prefix into the interface, where ``mtu`` is set with a smaller MTU than the interface's."""

    network: Network
    mtu: int | None = None


Step = SetAlias | SetMtu | AddAddress | SetUp | AddRoute


def steps(plan: InterfacePlan) -> tuple[Step, ...]:
    """What applying ``plan`` does, in order. IPv6 is left out of an interface too narrow for it, as the kernel does."""
    connected = {address.network for address in plan.addresses}
    narrow = dict(plan.narrow)

    def fits(what: Interface | Network) -> bool:
        return what.version == 4 or plan.mtu >= IPV6_MINIMUM

    return (
        SetAlias(ALIAS_PREFIX + plan.profile),
        SetMtu(plan.mtu),
        *(AddAddress(address) for address in dict.fromkeys(plan.addresses) if fits(address)),
        SetUp(),
        *(
            AddRoute(network, narrow.get(network))
            for network in dict.fromkeys(plan.routes)
            if fits(network) and network not in connected
        ),
    )


def render(plan: InterfacePlan) -> list[str]:
    """The steps as lines that ip(8) would take: what ``--dry-run`` prints. Touches nothing."""
    return [_render(plan.name, step) for step in steps(plan)]


def _render(name: str, step: Step) -> str:
    match step:
        case SetAlias(alias):
            return f"ip link set dev {name} addrgenmode none txqueuelen {TRANSMIT_QUEUE} alias {alias}"
        case SetMtu(mtu):
            return f"ip link set dev {name} mtu {mtu}"
        case AddAddress(address):
            return f"ip address add {address} dev {name}"
        case SetUp():
            return f"ip link set dev {name} up"
        case AddRoute(network, mtu):
            return f"ip route add {network} dev {name} proto {ROUTE_PROTOCOL}" + (f" mtu {mtu}" if mtu else "")


class Netconf:
    """The configuration of one interface; made by the endpoint, ended with :meth:`undo` before the TUN is closed.

    Methods raise :class:`AddressClash`, :class:`NoPrivilege`, :class:`DeviceGone` or :class:`Refused`.
    """

    def __init__(self) -> None:
        self._plan: InterfacePlan | None = None
        self._done: list[Step] = []

    def apply(self, plan: InterfacePlan) -> None:
        """Make the interface what ``plan`` says. A second call carries out the difference to the first.

        Raises with nothing left behind when the first call fails; a later one that fails leaves what it has got to,
        and :meth:`undo` still removes all of it.
        """
        first = self._plan is None
        if self._plan is not None and (plan.name, plan.profile) != (self._plan.name, self._plan.profile):
            raise ValueError(f"a plan for {plan.name}, after one for {self._plan.name}")
        try:
            with _netlink() as netlink:
                self._apply(netlink, plan)
        except BaseException:
            if first:
                self.undo()
            raise

    def set_mtu(self, mtu: int) -> None:
        """Set the interface's MTU, for a path whose size has changed. The plan must have been applied."""
        if self._plan is None:
            raise ValueError("no plan was applied")
        self.apply(replace(self._plan, mtu=mtu))

    def undo(self) -> None:
        """Undo every step that was done, the last one first; what is gone already counts as undone.

        A step that cannot be undone does not keep the others: the first error is raised after all were tried.
        """
        plan, done = self._plan, self._done
        self._plan, self._done = None, []
        if plan is None or not done:
            return
        errors: list[HostError] = []
        with _netlink() as netlink:
            for step in reversed(done):
                try:
                    _undo(netlink, plan.name, step)
                except HostError as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    def _apply(self, netlink: Rtnetlink, plan: InterfacePlan) -> None:
        wanted = steps(plan)
        _refuse_clashes(netlink, plan, [step for step in wanted if step not in self._done])
        self._plan = plan
        routed = {step.network for step in wanted if isinstance(step, AddRoute)}
        replaced: set[Network] = set()
        for step in [done for done in reversed(self._done) if done not in wanted]:
            # What takes an old step's place leaves no gap: a packet without its route would go out beside the tunnel.
            if isinstance(step, AddRoute) and step.network in routed:
                replaced.add(step.network)
            elif not isinstance(step, SetMtu):
                _undo(netlink, plan.name, step)
            self._done.remove(step)
        for step in wanted:
            if step not in self._done:
                _do(netlink, plan.name, step, ours=isinstance(step, AddRoute) and step.network in replaced)
                self._done.append(step)


def remove_leftovers(profile: str) -> list[str]:
    """Remove what a killed process of this profile left behind; the removed things, for the log.

    Only for a caller that holds the profile's lock: it cannot tell a leftover from what is in use.
    """
    removed = []
    with _netlink() as netlink:
        for link in netlink.links():
            if link.alias == ALIAS_PREFIX + profile:
                with _refusals(f"remove the interface {link.name}"):
                    netlink.remove_link(link.index)
                removed.append(f"interface {link.name}, its addresses and routes")
    if nftguard.remove(profile):
        removed.append(f"nft table {nftguard.table_name(profile)}")
    return removed


def host_interfaces(own: str) -> list[IPv4Interface]:
    """This host's IPv4 addresses with their networks, without loopback, the interface ``own`` and others of ours."""
    with _netlink() as netlink:
        tunnels = {link.name for link in netlink.links() if link.alias.startswith(ALIAS_PREFIX)}
        others = list(_addresses_of_others(netlink, own))
    return [
        address
        for name, address in others
        if isinstance(address, IPv4Interface) and not address.ip.is_loopback and name not in tunnels
    ]


@contextmanager
def _netlink() -> Iterator[Rtnetlink]:
    """A socket to ask and to change things by; what fails about it, or in asking, is a refusal of this host as well."""
    with _refusals("tell of its interfaces by netlink"), Rtnetlink() as netlink:
        yield netlink


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """The kernel's refusal inside the block leaves it as one of our errors; ``what`` completes "could not …"."""
    try:
        yield
    except OSError as error:
        said = f"The kernel would not {what}: {error.strerror or error}."
        match error.errno:
            case errno.EPERM | errno.EACCES:
                raise NoPrivilege(said, "CAP_NET_ADMIN is missing, or IPv6 is disabled on the interface.") from error
            case errno.EEXIST:
                raise AddressClash(said, "It is there already: see `ip address` and `ip route`.") from error
            case code if code in _GONE:
                raise DeviceGone(said) from error
        raise Refused(said) from error


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise DeviceGone(f"There is no interface {name}.") from error


def _do(netlink: Rtnetlink, name: str, step: Step, *, ours: bool) -> None:
    """``ours``: a route to the same prefix is there already, and made by us."""
    index = _index(name)
    match step:
        case SetAlias(alias):
            with _refusals(f"tag {name}"):
                netlink.tag_link(index, alias, TRANSMIT_QUEUE)
        case SetMtu(mtu):
            with _refusals(f"set the MTU of {name} to {mtu}"):
                netlink.set_mtu(index, mtu)
        case AddAddress(address):
            with _refusals(f"give {name} the address {address}"):
                netlink.add_address(index, address)
        case SetUp():
            with _refusals(f"bring {name} up"):
                netlink.set_up(index, up=True)
        case AddRoute(network, mtu):
            with _refusals(f"route {network} into {name}"):
                netlink.add_route(index, network, ROUTE_PROTOCOL, mtu=mtu, replace=ours)


def _undo(netlink: Rtnetlink, name: str, step: Step) -> None:
    try:
        index = _index(name)
        match step:
            case SetAlias() | SetMtu():
                pass  # gone with the interface
            case AddAddress(address):
                with _refusals(f"take {address} from {name}"):
                    netlink.remove_address(index, address)
            case SetUp():
                with _refusals(f"bring {name} down"):
                    netlink.set_up(index, up=False)
            case AddRoute(network, _):
                with _refusals(f"remove the route to {network}"):
                    netlink.remove_route(index, network, ROUTE_PROTOCOL)
    except DeviceGone:
        pass  # the interface, the address or the route was removed by somebody else: undone


def _refuse_clashes(netlink: Rtnetlink, plan: InterfacePlan, new: Iterable[Step]) -> None:
    """Refuse what would take an address or network away from another interface of this host.

    A route that is *wider* than another interface's network is no clash: the more specific network wins.
    """
    others = list(_addresses_of_others(netlink, plan.name))
    for step in new:
        match step:
            case AddAddress(address):
                for name, other in others:
                    if address.ip == other.ip or _overlap(address.network, other.network):
                        raise AddressClash(
                            f"{address} overlaps with {other}, which the interface {name} has.",
                            "Choose another interface.address in both profiles.",
                        )
            case AddRoute(network):
                for name, other in others:
                    if _within(network, other.network):
                        raise AddressClash(
                            f"A route to {network} would take part of {other.network} away from the interface {name}.",
                            "Both ends use the same network; one of them has to be renumbered.",
                        )


def _addresses_of_others(netlink: Rtnetlink, own: str) -> Iterator[tuple[str, Interface]]:
    """Addresses with the names of their interfaces, without those that every interface may have."""
    names = {link.index: link.name for link in netlink.links()}
    for address in netlink.addresses():
        name = names.get(address.link, "?")
        if name != own and not address.interface.is_link_local:
            yield name, address.interface


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _within(one: Network, other: Network) -> bool:
    return _overlap(one, other) and one.prefixlen >= other.prefixlen
