"""Addresses, MTU and routes of the tunnel interface, and their exact removal.

What is done is a list of steps, each with its undoing; they are undone in reverse order, also when applying failed
half-way. Everything is tagged: the interface by its alias, the routes by their protocol number, so that what a killed
process left behind is recognised as ours (:func:`remove_leftovers`) and nothing else ever is.

pyroute2 is imported on first use only, and no more of it than is used (all of it costs 160 ms). It cannot run on a
thread that runs an event loop: calls from such a thread are carried out on another one, and block for a few
milliseconds.
"""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec, module_from_spec
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from grepunch.io import nftguard
from grepunch.io.errors import AddressClash, DeviceGone, HostError, NoPrivilege, Refused
from grepunch.io.tun import check_name
from pptp.mtu import IPV6_MINIMUM

if TYPE_CHECKING:
    from pyroute2 import IPRoute

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
ResultT = TypeVar("ResultT")

# ours: any number that rtnetlink.h and common routing daemons leave free (`ip route show proto 171`)
ROUTE_PROTOCOL = 171
ALIAS_PREFIX = "grepunch-pptp:"

# The kernel's own. It is for bursts of small packets while the endpoint has no processor: UDP packets of 64 octets go
# through at 57,000 a second with 500, as with OpenVPN, and at 36,000 with 50. It would be a long wait where each is up
# to 64 KB: a ping under four TCP streams through a device that was read in order took 2.9 ms with a queue of 4 (394
# Mbit/s), 12 with 16 (446) and 20 with 50 (465). But the engine empties the device at every turn and keeps the trains
# apart (see ``backlog``): 2.2 ms with 50, 2.3 with 500, at the same throughput. `make bench ARGS="--queue"` is a curve.
TRANSMIT_QUEUE = 500

# linux/rtnetlink.h, linux/if_link.h
_MAIN_TABLE = 254
_SCOPE_LINK = 253
_SCOPE_UNIVERSE = 0
_ADDR_GEN_MODE_NONE = 1
_INET, _INET6 = 2, 10

_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT, errno.ENETDOWN})


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class SetAlias:
    """Tag the interface as ours, shorten its queue, and keep the kernel from inventing IPv6 addresses for it."""

    alias: str


@dataclass(frozen=True, slots=True)
class SetMtu:
    """Set the interface's MTU."""

    mtu: int


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give the interface an address; the kernel adds the route to its network."""

    address: Interface


@dataclass(frozen=True, slots=True)
class SetUp:
    """Bring the interface up."""


@dataclass(frozen=True, slots=True)
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
            _with_netlink(lambda netlink: self._apply(netlink, plan))
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
        name = plan.name
        errors: list[HostError] = []

        def work(netlink: IPRoute) -> None:
            for step in reversed(done):
                try:
                    _undo(netlink, name, step)
                except HostError as error:
                    errors.append(error)

        _with_netlink(work)
        if errors:
            raise errors[0]

    def _apply(self, netlink: IPRoute, plan: InterfacePlan) -> None:
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
    alias = ALIAS_PREFIX + profile

    def work(netlink: IPRoute) -> list[str]:
        ours = [link for link in netlink.get_links() if link.get_attr("IFLA_IFALIAS") == alias]
        for link in ours:
            _checked(f"remove the interface {_name(link)}", partial(netlink.link, "del", index=link["index"]))
        return [f"interface {_name(link)}, its addresses and routes" for link in ours]

    removed = _with_netlink(work)
    if nftguard.remove(profile):
        removed.append(f"nft table {nftguard.table_name(profile)}")
    return removed


def host_interfaces(own: str) -> list[IPv4Interface]:
    """This host's IPv4 addresses with their networks, without loopback, the interface ``own`` and others of ours."""

    def work(netlink: IPRoute) -> tuple[set[str], list[tuple[str, Interface]]]:
        links = netlink.get_links()
        tunnels = {_name(link) for link in links if str(link.get_attr("IFLA_IFALIAS")).startswith(ALIAS_PREFIX)}
        return tunnels, list(_addresses_of_others(netlink, own))

    tunnels, others = _with_netlink(work)
    return [
        address
        for name, address in others
        if isinstance(address, IPv4Interface) and not address.ip.is_loopback and name not in tunnels
    ]


def _with_netlink(work: Callable[[IPRoute], ResultT]) -> ResultT:
    """Call ``work`` with a netlink socket, on a thread that runs no event loop."""

    def call() -> ResultT:
        with _pyroute2().IPRoute() as netlink:
            return work(netlink)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


class _Pyroute2(NamedTuple):
    IPRoute: Callable[[], IPRoute]
    NetlinkError: type[Exception]


@cache
def _pyroute2() -> _Pyroute2:
    """What is used of pyroute2. Its package imports everything there is in it, which takes twice the time and memory;
    so the two modules are imported under a package that is bare, and nobody else ever sees."""
    package = find_spec("pyroute2")
    if package is not None and "pyroute2" not in sys.modules:
        sys.modules["pyroute2"] = module_from_spec(package)
        try:
            from pyroute2.iproute.linux import IPRoute
            from pyroute2.netlink.exceptions import NetlinkError

            return _Pyroute2(IPRoute, NetlinkError)
        except ImportError:
            pass  # another release, with its modules in other places
        finally:
            del sys.modules["pyroute2"]
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    return _Pyroute2(IPRoute, NetlinkError)


def _checked(what: str, call: Callable[[], ResultT]) -> ResultT:
    """``call()``, with the kernel's refusal as one of our errors; ``what`` completes "could not …"."""
    try:
        return call()
    except _pyroute2().NetlinkError as error:
        said = f"The kernel would not {what}: {error.args[1] if len(error.args) > 1 else error}."
        match getattr(error, "code", None):
            case errno.EPERM | errno.EACCES:
                raise NoPrivilege(said, "CAP_NET_ADMIN is missing, or IPv6 is disabled on the interface.") from error
            case errno.EEXIST:
                raise AddressClash(said, "It is there already: see `ip address` and `ip route`.") from error
            case code if code in _GONE:
                raise DeviceGone(said) from error
        raise Refused(said) from error


def _index(netlink: IPRoute, name: str) -> int:
    found: list[int] = _checked(f"find {name}", lambda: netlink.link_lookup(ifname=name))
    if not found:
        raise DeviceGone(f"There is no interface {name}.")
    return found[0]


def _do(netlink: IPRoute, name: str, step: Step, *, ours: bool) -> None:
    """``ours``: a route to the same prefix is there already, and made by us."""
    index = _index(netlink, name)
    match step:
        case SetAlias(alias):
            quiet = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE]]}]]}
            tags = {"ifalias": alias, "txqlen": TRANSMIT_QUEUE, "IFLA_AF_SPEC": quiet}
            _checked(f"tag {name}", lambda: netlink.link("set", index=index, **tags))
        case SetMtu(mtu):
            _checked(f"set the MTU of {name} to {mtu}", lambda: netlink.link("set", index=index, mtu=mtu))
        case AddAddress(address):
            _checked(f"give {name} the address {address}", lambda: netlink.addr("add", **_address(index, address)))
        case SetUp():
            _checked(f"bring {name} up", lambda: netlink.link("set", index=index, state="up"))
        case AddRoute(network, mtu):
            route = _route(index, network) | ({"metrics": {"mtu": mtu}} if mtu is not None else {})
            _checked(f"route {network} into {name}", lambda: netlink.route("replace" if ours else "add", **route))


def _undo(netlink: IPRoute, name: str, step: Step) -> None:
    try:
        index = _index(netlink, name)
        match step:
            case SetAlias() | SetMtu():
                pass  # gone with the interface
            case AddAddress(address):
                _checked(f"take {address} from {name}", lambda: netlink.addr("del", **_address(index, address)))
            case SetUp():
                _checked(f"bring {name} down", lambda: netlink.link("set", index=index, state="down"))
            case AddRoute(network, _):
                _checked(f"remove the route to {network}", lambda: netlink.route("del", **_route(index, network)))
    except DeviceGone:
        pass  # the interface, the address or the route was removed by somebody else: undone


def _address(index: int, address: Interface) -> dict[str, Any]:
    request = {"index": index, "address": str(address.ip), "prefixlen": address.network.prefixlen}
    return request if address.version == 4 else {**request, "family": _INET6}


def _route(index: int, network: Network) -> dict[str, Any]:
    return {
        "dst": str(network),
        "oif": index,
        "proto": ROUTE_PROTOCOL,
        "table": _MAIN_TABLE,
        "family": _INET if network.version == 4 else _INET6,
        "scope": _SCOPE_LINK if network.version == 4 else _SCOPE_UNIVERSE,
    }


def _refuse_clashes(netlink: IPRoute, plan: InterfacePlan, new: Iterable[Step]) -> None:
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


def _addresses_of_others(netlink: IPRoute, own: str) -> Iterable[tuple[str, Interface]]:
    names = {link["index"]: _name(link) for link in netlink.get_links()}
    for message in netlink.get_addr():
        name = names.get(message["index"], "?")
        # On a point-to-point link IFA_ADDRESS is the other end's and IFA_LOCAL is ours; IPv6 knows only the former.
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if name == own or text is None:
            continue
        make = IPv4Interface if message["family"] == _INET else IPv6Interface
        address = make(f"{text}/{message['prefixlen']}")
        if not address.ip.is_link_local:  # every interface may have the same ones
            yield name, address


def _name(link: Any) -> str:
    return str(link.get_attr("IFLA_IFNAME"))


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _within(one: Network, other: Network) -> bool:
    return _overlap(one, other) and one.prefixlen >= other.prefixlen
