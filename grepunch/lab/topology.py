"""A small internet in namespaces: two sides behind NATs, a router between them, a public host where they meet.

::

    a ── a.nat1 [── a.nat2] ──┐              ┌── [b.nat2 ──] b.nat1 ── b
    a2 ──┘                    └──── wan ─────┘
                               │     │
    c ── c.nat1 [── c.nat2] ───┘    meet

``wan`` is a router, not a bridge: it takes one off the TTL, answers Time-Exceeded without a rate limit, and, like a
provider, lets nobody use a source address that is not his (strict reverse-path filter). ``a.nat1`` is the box nearest
to the hosts. A third side is there for hosts to move to. A side with a bad line has a node ``a.line`` before the router
(see :mod:`grepunch.lab.impairment`). All external addresses are from prefixes reserved for documentation and tests.

To be used inside :func:`grepunch.lab.sandbox.run`; outside it would need root and change the machine.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Self

from grepunch.lab.carrier import wait_for_carrier
from grepunch.lab.impairment import READY, Impairment
from grepunch.lab.namespaces import LOGS
from grepunch.lab.nat import GreTimers, NatClass, chain
from grepunch.lab.node import LabError, Node, Program, explain_nft
from grepunch.lab.offload import turn_off_offloads
from grepunch.lab.requirements import program
from pptp.value import value

MEET_NETWORK = IPv4Network("192.0.2.0/24")
MEET_ADDRESSES = (IPv4Address("192.0.2.10"), IPv4Address("192.0.2.11"))
MAX_BOXES = 2
_BOX = 10  # host number of a box on its outer network; its gateway there is number 1
_NEXT_ADDRESS = 2  # how far the next external address of a box that restarts is: a pool may have the one between
_FIRST_HOST = 100  # host number of the first host on a LAN
_VISITOR = 30  # how far after the first host's number is that of a host that moves there
_LINE_SEED = 4  # of what a bad line does; any will do
# A link that is narrow in silence: the router before it says nothing either.
_SILENT_ROUTER = (
    "table ip silent { chain output { type filter hook output priority filter; "
    "icmp type destination-unreachable icmp code frag-needed drop; }; }"
)


@value
class _Prefixes:
    """The networks of one side. ``public`` are routed to it for boxes that do not translate, innermost first."""

    external: IPv4Network
    public: tuple[IPv4Network, IPv4Network]
    private: tuple[IPv4Network, IPv4Network]


_PREFIXES: Mapping[str, _Prefixes] = {
    "a": _Prefixes(
        IPv4Network("198.51.100.0/25"),
        (IPv4Network("198.51.100.128/26"), IPv4Network("198.51.100.192/26")),
        (IPv4Network("192.168.1.0/24"), IPv4Network("100.64.1.0/24")),
    ),
    "b": _Prefixes(
        IPv4Network("203.0.113.0/25"),
        (IPv4Network("203.0.113.128/26"), IPv4Network("203.0.113.192/26")),
        (IPv4Network("10.1.1.0/24"), IPv4Network("100.64.2.0/24")),
    ),
    "c": _Prefixes(
        IPv4Network("198.18.0.0/25"),
        (IPv4Network("198.18.0.128/26"), IPv4Network("198.18.0.192/26")),
        (IPv4Network("172.16.1.0/24"), IPv4Network("100.64.3.0/24")),
    ),
}


@value
class SidePlan:
    """What one side is made of: its boxes from the hosts outwards, how many hosts, the boxes' GRE timers, its line.

    Timers and line replace those of the classes, where they have any.
    """

    boxes: tuple[NatClass, ...]
    hosts: int = 1
    gre_timers: GreTimers | None = None
    line: Impairment | None = None

    @classmethod
    def of(
        cls, text: str, *, hosts: int = 1, gre_timers: GreTimers | None = None, line: Impairment | None = None
    ) -> Self:
        """A plan from the text that :func:`grepunch.lab.nat.chain` reads (``"G2"``, ``"G15"``, ``"G2S+G5"``)."""
        boxes = chain(text)
        return cls(boxes, hosts, gre_timers, line or next((box.line for box in boxes if box.line), None))

    def __post_init__(self) -> None:
        if not 1 <= len(self.boxes) <= MAX_BOXES:
            raise ValueError(f"a side has one or two boxes, not {len(self.boxes)}")
        if not 1 <= self.hosts <= 20:
            raise ValueError(f"a side has 1 to 20 hosts, not {self.hosts}")


@dataclass(slots=True)
class Box:
    """A NAT or firewall with its addresses on both sides."""

    node: Node
    nat: NatClass
    inside: IPv4Network
    outside: IPv4Network
    address: IPv4Address

    @property
    def gateway(self) -> IPv4Address:
        """The next router outwards."""
        return self.outside[1]

    def reboot(self) -> None:
        """Forget every flow and every learned pair, and load the rules anew."""
        self.node.forget_flows()
        self.node.nft(self.nat.ruleset(self.address))


@dataclass(slots=True)
class BadLine:
    """The bad line of a side, between its outermost box and the router."""

    node: Node
    settings: Path
    impairment: Impairment
    program: Program | None = None
    _changes: int = 1

    def start(self) -> None:
        """Carry packets from now on."""
        self.impairment.write(self.settings)
        self.program = self.node.start_python(
            "grepunch.lab.impairment", "box", "wan", str(self.settings), str(_LINE_SEED)
        )
        self.program.wait_for(READY, 10.0)

    def become(self, impairment: Impairment) -> None:
        """Be another one from now on."""
        if self.program is None:
            raise LabError(f"{self.node.name} carries nothing yet")
        self.impairment = impairment
        impairment.write(self.settings)
        self._changes += 1
        self.program.process.send_signal(signal.SIGHUP)
        self.program.wait_for(f"{READY} {self._changes}$", 10.0)

    def end(self) -> list[dict[str, int]]:
        """Carry no more; the counters of both directions, outwards first."""
        if self.program is None:
            raise LabError(f"{self.node.name} carries nothing yet")
        self.program.stop()
        counters: list[dict[str, int]] = json.loads(self.program.stdout.splitlines()[-1])
        return counters


@dataclass(slots=True)
class Side:
    """A side that has been built. ``hosts`` and ``addresses`` go together; ``boxes`` from the hosts outwards."""

    name: str
    plan: SidePlan
    hosts: list[Node]
    addresses: list[IPv4Address]
    boxes: list[Box]
    line: BadLine | None = None

    @property
    def host(self) -> Node:
        """The first host."""
        return self.hosts[0]

    @property
    def address(self) -> IPv4Address:
        """The first host's own address."""
        return self.addresses[0]

    @property
    def external(self) -> IPv4Address:
        """The address the world sees the first host under."""
        return next((box.address for box in reversed(self.boxes) if box.nat.translates), self.address)


@dataclass(slots=True)
class _Wiring:
    """What is to be made: interfaces pairwise, then the lines for ``ip -batch`` of each node."""

    links: list[tuple[tuple[str, str], tuple[str, str]]] = field(default_factory=list)
    bridges: list[str] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)

    def link(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        self.links.append((one, other))
        for node, interface in (one, other):
            self.add(node, f"link set dev {interface} up")

    def add(self, node: str, *lines: str) -> None:
        self.lines.setdefault(node, ["link set dev lo up"]).extend(lines)


class Lab:
    """Two sides (or one) and what is between them, from the ``with`` statement's start to its end.

    ``a`` and ``b`` are plans or their texts; without ``b`` there is one side, for hosts behind the same NAT. ``c`` is
    for hosts to move to. ``wan`` has one interface per side, named like it, and ``meet``. Files go to a numbered folder
    of ``logs``.
    """

    def __init__(
        self,
        a: SidePlan | str,
        b: SidePlan | str | None = None,
        *,
        c: SidePlan | str | None = None,
        logs: Path = LOGS,
    ) -> None:
        plans = {"a": a, "b": b, "c": c}
        self._nodes: list[Node] = []
        self._wiring = _Wiring()
        self.directory = _new_folder(logs)
        self.wan = self._node("wan")
        self.meet = self._node("meet")
        self.sides: dict[str, Side] = {
            name: self._side(name, SidePlan.of(plan) if isinstance(plan, str) else plan)
            for name, plan in plans.items()
            if plan is not None
        }

    @property
    def a(self) -> Side:
        """The first side."""
        return self.sides["a"]

    @property
    def b(self) -> Side:
        """The second side."""
        return self.sides["b"]

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def change_external_address(self, side: str, address: IPv4Address) -> None:
        """Give a side's outermost box another address of its external network, as a provider does at night.

        Raises ``ValueError`` for an address outside that network, or a side whose outermost box does not translate.
        """
        box = self.sides[side].boxes[-1]
        if not box.nat.translates or address not in box.outside or address == box.gateway:
            raise ValueError(f"{address} cannot be the external address of side {side}")
        length = box.outside.prefixlen
        batch = f"address del {box.address}/{length} dev wan\naddress add {address}/{length} dev wan\n"
        if box.nat.pooled:
            old, new = box.nat.second(box.address), box.nat.second(address)
            batch += f"address del {old}/{length} dev wan\naddress add {new}/{length} dev wan\n"
        batch += f"route replace default via {box.gateway}\n"
        box.node.run(program("ip"), "-batch", "-", stdin=batch)
        box.address = address
        box.reboot()

    def restart_boxes(self) -> list[str]:
        """Restart what is of a class that restarts; the names of those boxes.

        The outermost one of a side comes back under the next address of its external network that no box uses.
        """
        restarted = []
        for name, side in self.sides.items():
            for box in side.boxes:
                if not box.nat.restarts:
                    continue
                if box is side.boxes[-1]:
                    self.change_external_address(name, box.address + _NEXT_ADDRESS)
                else:
                    box.reboot()
                restarted.append(box.node.name)
        return restarted

    def move(self, host: Node, side: str) -> IPv4Address:
        """Take a host to the LAN of another side, as a laptop from one network to the next; its address there.

        Its interface there is ``eth1``, and ``eth0`` is down. It has its new way out a moment before the old one goes.
        """
        box = self.sides[side].boxes[0]
        address = box.inside[_host_number(box.inside) + _VISITOR]
        gateway, length = box.inside[1], box.inside.prefixlen
        self._ip_batch([f"link add name visitor netns {box.node.name} type veth peer name eth1 netns {host.name}"])
        box.node.ip("link", "set", "dev", "visitor", "master", "lan", "up")
        batch = (
            f"link set dev eth1 up\naddress add {address}/{length} dev eth1\n"
            f"route replace default via {gateway} dev eth1\nlink set dev eth0 down\n"
        )
        host.run(program("ip"), "-batch", "-", stdin=batch)
        wait_for_carrier((host, box.node))
        return address

    def set_link_mtu(self, node: Node, interface: str, mtu: int) -> None:
        """Set the MTU of both ends of the link that ``interface`` of ``node`` is one end of."""
        for ends in self._wiring.links:
            if (node.name, interface) in ends:
                for name, end in ends:
                    self.wan.ip("-netns", name, "link", "set", "dev", end, "mtu", str(mtu))
                return
        raise ValueError(f"{node.name} has no link {interface}")

    def _node(self, name: str) -> Node:
        node = Node(name, self.directory)
        self._nodes.append(node)
        return node

    def _side(self, name: str, plan: SidePlan) -> Side:
        """Plan a side from the outside in: each box' outer network is the inner one of the box before."""
        prefixes = _PREFIXES[name]
        wiring = self._wiring
        boxes: list[Box] = []
        reach: list[tuple[str, IPv4Address]] = []  # who needs a route to what a box does not hide, and by which hop
        outside, upstream, public = prefixes.external, (self.wan.name, name), True
        wiring.add(self.wan.name, f"address add {outside[1]}/{outside.prefixlen} dev {name}")
        line = None
        if plan.line is not None:
            line = BadLine(self._node(f"{name}.line"), self.directory / f"{name}.line.json", plan.line)
            wiring.link(upstream, (line.node.name, "wan"))
            upstream = (line.node.name, "box")
        for position in reversed(range(len(plan.boxes))):
            nat = plan.boxes[position]
            public = public and not nat.translates
            inside = (prefixes.public if public else prefixes.private)[position]
            box = Box(self._node(f"{name}.nat{position + 1}"), nat, inside, outside, outside[_BOX])
            wiring.link(upstream, (box.node.name, "wan"))
            wiring.bridges.append(box.node.name)
            wiring.add(
                box.node.name,
                f"address add {box.address}/{outside.prefixlen} dev wan",
                f"route add default via {box.gateway}",
                "link set dev lan up",
                f"address add {inside[1]}/{inside.prefixlen} dev lan",
            )
            if nat.pooled:
                wiring.add(box.node.name, f"address add {nat.second(box.address)}/{outside.prefixlen} dev wan")
            if nat.mtu is not None:
                for node, interface in (upstream, (box.node.name, "wan")):
                    wiring.add(node, f"link set dev {interface} mtu {nat.mtu}")
            hop = self.wan.name if line is not None and upstream[0] == line.node.name else upstream[0]
            reach.append((hop, box.address))
            if nat.translates:
                reach = []
            for node, via in reach:
                wiring.add(node, f"route add {inside} via {via}")
            boxes.insert(0, box)
            outside, upstream = inside, (box.node.name, "port1")
        hosts = [self._node(name if number == 0 else f"{name}{number + 1}") for number in range(plan.hosts)]
        addresses = [outside[_host_number(outside) + number] for number in range(plan.hosts)]
        for number, (host, address) in enumerate(zip(hosts, addresses, strict=True), 1):
            wiring.link((upstream[0], f"port{number}"), (host.name, "eth0"))
            wiring.add(
                host.name,
                f"address add {address}/{outside.prefixlen} dev eth0",
                f"route add default via {outside[1]}",
            )
        return Side(name, plan, hosts, addresses, boxes, line)

    def _build(self) -> None:
        wiring = self._wiring
        wiring.link((self.wan.name, "meet"), (self.meet.name, "eth0"))
        length = MEET_NETWORK.prefixlen
        wiring.add(self.wan.name, f"address add {MEET_NETWORK[1]}/{length} dev meet")
        wiring.add(
            self.meet.name,
            *(f"address add {address}/{length} dev eth0" for address in MEET_ADDRESSES),
            f"route add default via {MEET_NETWORK[1]}",
        )
        batch = [f"netns add {node.name}" for node in self._nodes]
        batch += [f"link add name lan netns {node} type bridge" for node in wiring.bridges]
        for (one, one_end), (other, other_end) in wiring.links:
            batch.append(f"link add name {one_end} netns {one} type veth peer name {other_end} netns {other}")
            if one in wiring.bridges:
                wiring.lines[one].insert(0, f"link set dev {one_end} master lan")
        self._ip_batch(batch)
        boxes = [box for side in self.sides.values() for box in side.boxes]
        forwarding = {self.wan.name, *(box.node.name for box in boxes)}
        for node in self._nodes:
            node.set_sysctls(_sysctls(node, forwards=node.name in forwarding, strict=node is self.wan))
        self._configure(boxes)
        wait_for_carrier(self._nodes)
        for side in self.sides.values():
            for box in side.boxes:
                timers = side.plan.gre_timers or box.nat.gre_timers
                if timers is not None:
                    box.node.set_sysctls(_timer_sysctls(timers))
            if side.line is not None:
                turn_off_offloads(self.wan, side.name)
                turn_off_offloads(side.boxes[-1].node, "wan")
                side.line.start()
        if any(box.nat.mtu is not None for box in boxes):
            self.wan.nft(_SILENT_ROUTER)

    def _configure(self, boxes: Iterable[Box]) -> None:
        """Addresses, routes and rules of all nodes at once: each command takes milliseconds, and most of it waits."""
        jobs: list[tuple[subprocess.Popen[str], str]] = []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        for node in self._nodes:
            lines = self._wiring.lines[node.name]
            jobs.append((node.popen([program("ip"), "-batch", "-"], **pipes), "\n".join(lines) + "\n"))
        for box in boxes:
            jobs.append((box.node.popen([program("nft"), "-f", "-"], **pipes), box.nat.ruleset(box.address)))
        failures = []
        for process, text in jobs:
            said, _ = process.communicate(text)
            if process.returncode != 0:
                failures.append(explain_nft(LabError(f"{process.args!r} said: {said}\nof:\n{text}")))
        if failures:
            raise failures[0]

    def _ip_batch(self, lines: Iterable[str]) -> None:
        done = subprocess.run(
            [program("ip"), "-batch", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise LabError(f"ip -batch ended with {done.returncode}: {done.stderr}")

    def _remove(self) -> None:
        for node in self._nodes:
            for running in node.programs:
                running.process.terminate()  # all at once, so that their clean-ups do not wait for one another
        for node in self._nodes:
            node.stop()
        try:
            self._ip_batch(f"netns delete {node.name}" for node in self._nodes)
        except LabError as error:  # a half-built lab has fewer namespaces; the sandbox takes the rest with it
            print(f"lab: {error}", file=sys.stderr)


def _new_folder(logs: Path) -> Path:
    """The next numbered folder of ``logs``, made here: sandboxes side by side may keep their files at one place."""
    number = 1
    while True:
        folder = logs / str(number)
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def _host_number(network: IPv4Network) -> int:
    """The first host's number on its LAN: 100, or 20 where a routed public prefix is too small for that."""
    return _FIRST_HOST if network.num_addresses > _FIRST_HOST + 20 else 20


def _sysctls(node: Node, *, forwards: bool, strict: bool) -> dict[str, str | int]:
    # No type of ICMP is limited, neither towards one host nor in all; the latter is what a burst would run into.
    values: dict[str, str | int] = {"net.ipv4.icmp_ratemask": 0}
    if forwards:
        values["net.ipv4.ip_forward"] = 1
    with node.entered():
        # The filter in force is the larger of an interface's own and "all"; new interfaces copy "default".
        interfaces = [path.name for path in Path("/proc/sys/net/ipv4/conf").iterdir()]
    for interface in interfaces:
        values[f"net.ipv4.conf.{interface}.rp_filter"] = int(strict)
    return values


def _timer_sysctls(timers: GreTimers) -> dict[str, str | int]:
    return {
        "net.netfilter.nf_conntrack_gre_timeout": timers.unreplied,
        "net.netfilter.nf_conntrack_gre_timeout_stream": timers.replied,
    }
