"""What happens to the hosts of a world of peers: their addresses change, they move to another network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from tests.punch import simnat
from tests.sim.peer_world import SERVER_PATIENCE, Host, World


def new_external_address(world: World, host: Host, last_octet: int) -> None:
    """The provider gives the host's NAT another address: every flow and connection through it is dead."""
    for nat in host.side.nats:
        nat.flows.clear()
    host.side.nats[-1].external = IPv4Address(f"203.0.113.{last_octet}")
    _cut(world, host)


def roam(world: World, host: Host, kind: str, number: int) -> None:
    """The host is in another network, and its kernel says so."""
    elsewhere = simnat.build_side(host.name, simnat.CLASSES[kind], number)
    host.side.nats, host.side.address = elsewhere.nats, elsewhere.address
    host.interfaces = (IPv4Interface(f"{host.side.address}/24"),)
    _cut(world, host)
    host.machine.network_changed(host.now)
    world.settle(host)
    world.reconnect(host)  # its local address is gone: there is nothing to wait for


def _cut(world: World, host: Host) -> None:
    host.stale = host.name in world.meeting.joined
    world.at(world.now + SERVER_PATIENCE, lambda: world.reconnect(host))
