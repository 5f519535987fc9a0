"""Ours through two NATs, beside ours over a line without any.

::

    a ── a.nat1 ── b.nat1 ── b        the data: plain veth pairs, and nothing but the two NATs between them
            └── wan ──┘
                 │                    the rendezvous: a way of its own, which no packet of the tunnel takes
                meet

The lab's ordinary way leads over two bridges and a router more, which are no NATs and take as much of the same cores
as a NAT does. What brings the tunnel up is the same as there: real NATs, the real rendezvous, real punching.
"""

from __future__ import annotations

from grepunch.lab.carrier import wait_for_carrier
from grepunch.lab.node import LabError, Node
from grepunch.lab.requirements import program
from grepunch.lab.topology import Box, Lab, Side
from grepunch.scenario import INNER, Scenario
from tests.bench import loads
from tests.bench.own import Ours
from tests.bench.wire import Site, run_here

NATS = ("G2S", "G2S")
_UP_TIMEOUT = 60.0
# What goes to the rendezvous leaves by another interface than the rules of the NAT's class know.
_TO_MEET = """
table ip to_meet {
    chain masquerading { type nat hook postrouting priority srcnat; oifname "meet" masquerade random; }
}
"""


def measure(seconds: float) -> dict[str, float]:
    """TCP of ours, both ways, through two NATs and over a bare line, in turns: NATs, line, line, NATs."""
    with Lab(*NATS) as lab:
        shorten(lab)
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        for name in scenario.peers:
            scenario.start(name)
        scenario.up(_UP_TIMEOUT)
        check_direct(scenario)
        through = Site("nats", lab.directory, {"left": lab.a.host, "right": lab.b.host})
        through.inner = {"left": INNER["a"], "right": INNER["b"]}
        direct = Site("direct", lab.directory / "direct")
        try:
            direct.build()
            contender = Ours()
            contender.prepare(direct)
            contender.start(direct)
            direct.await_echo(_UP_TIMEOUT)
            for site in (through, direct):
                loads.tcp(site, 1.0)
            figures = {
                "nat_fwd": loads.tcp(through, seconds).mbit_s,
                "direct_fwd": loads.tcp(direct, seconds).mbit_s,
                "direct_rev": loads.tcp(direct, seconds, reverse=True).mbit_s,
                "nat_rev": loads.tcp(through, seconds, reverse=True).mbit_s,
            }
        finally:
            direct.close()
        check_direct(scenario)
    return figures


def shorten(lab: Lab) -> None:
    """Join the NATs of a lab's two sides by a veth pair, and let their hosts be at the end of one without a bridge.

    The way to the router stays, for the rendezvous alone. The NATs' own rules hold for the new ``wan``.
    """
    boxes = [lab.a.boxes[-1], lab.b.boxes[-1]]
    for box in boxes:
        _batch(box.node, "link set dev wan down", "link set dev wan name meet", "link set dev meet up")
        _batch(box.node, f"route add default via {box.gateway}")
        box.node.nft(_TO_MEET)
    one, other = boxes
    ends = ("type", "veth", "peer", "name", "wan", "netns", other.node.name)
    run_here(program("ip"), "link", "add", "name", "wan", "netns", one.node.name, *ends)
    for box, facing in ((one, other), (other, one)):
        _batch(box.node, f"address add {box.address} peer {facing.address} dev wan", "link set dev wan up")
        _without_bridge(box)
    wait_for_carrier([*(box.node for box in boxes), lab.wan, lab.a.host, lab.b.host])


def _without_bridge(box: Box) -> None:
    address = f"{box.inside[1]}/{box.inside.prefixlen}"
    _batch(box.node, "link delete dev lan", "link set dev port1 down", "link set dev port1 name lan")
    _batch(box.node, f"address add {address} dev lan", "link set dev lan up")


def _batch(node: Node, *lines: str) -> None:
    node.run(program("ip"), "-batch", "-", stdin="\n".join(lines) + "\n")


def check_direct(scenario: Scenario) -> None:
    """Raises :class:`LabError` unless both peers' packets go as GRE straight to the other's NAT."""
    facing: dict[str, Side] = {"a": scenario.lab.b, "b": scenario.lab.a}
    for name, other in facing.items():
        last = [event for event in scenario.events(name) if event["event"] in ("peer_up", "path_changed")][-1]
        carrier, path = last.get("carrier"), last.get("path")
        if (carrier, path) != ("direct", str(other.external)):
            raise LabError(f"peer {name} reaches the other by {carrier} and {path}, not by GRE to {other.external}")
