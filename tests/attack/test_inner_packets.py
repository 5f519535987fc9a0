"""What a peer may put into the tunnel: never what would have our kernel take it for its router."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address
from typing import Any

import pytest

from grepunch.datapump import PeerTraffic
from grepunch.routing import AddressTable
from pptp.datapath import SealedPair
from pptp.errors import Drop
from pptp.wire.ppp import Protocol
from tests.attack.hostile import HERE, PLACE, SEED, THERE, Siege
from tests.engine import kernel
from tests.engine.loops import LOOPS, FakeDevice, FakeSocket, make_pump, outer

IDENTIFIER = bytes(7) + b"\x66"
LINK_LOCAL = b"\xfe\x80" + bytes(6) + IDENTIFIER
EVERYBODY = IPv6Address("ff02::1").packed

ICMPV6, UDP, HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 58, 17, 0, 43, 44, 60
ECHO_REQUEST, MLD_REPORT = 128, 143
NEIGHBOUR_DISCOVERY = (133, 134, 135, 136, 137)  # RFC 4861 section 4


@dataclass
class Tunnel:
    """A victim's pump with everything up, and the attacker's way to put packets in."""

    siege: Siege
    traffic: PeerTraffic
    loop: str
    socket: FakeSocket
    device: FakeDevice
    pump: Any

    def passes(self, protocol: int, packet: bytes) -> bool:
        self.device.written.clear()
        frame = self.siege.seal(protocol, packet)
        gre = struct.pack("!HHHHI", 0x3001, 0x880B, len(frame), 0, 0) + frame
        self.socket.waiting.append(outer(THERE, HERE, gre))
        self.pump.gre_readable()
        written = self.device.written
        if self.loop == "engine":
            written = [packet for one in written for packet in kernel.take(one)]
        return written == [packet]


@pytest.fixture(params=LOOPS)
def tunnel(request: pytest.FixtureRequest) -> Tunnel:
    siege = Siege()
    siege.handshake()
    siege.enter_hole()
    siege.machine.networks = frozenset({int(Protocol.IPV4), int(Protocol.IPV6)})
    traffic = PeerTraffic("attacker", siege.machine)
    addresses: AddressTable[PeerTraffic] = AddressTable()
    addresses.add("attacker", traffic, (IPv4Network("10.66.0.2/32"),))
    addresses.set_interface_identifier("attacker", IDENTIFIER)

    def find_pair(index: int) -> tuple[PeerTraffic, SealedPair] | None:
        pair = siege.machine.pair(index)
        return (traffic, pair) if pair is not None else None

    socket, device = FakeSocket(HERE), FakeDevice()
    pump = make_pump(
        request.param,
        socket,
        device,
        addresses,
        find_pair=find_pair,
        clear_frame=lambda frame: None,
        relay=lambda traffic, frame: False,
        now=lambda: siege.now,
    )
    assert siege.machine.hole == PLACE, f"seed {SEED}"
    return Tunnel(siege, traffic, request.param, socket, device, pump)


def ipv6(next_header: int, payload: bytes, *, hop_limit: int = 255) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(payload), next_header, hop_limit)
    return header + LINK_LOCAL + EVERYBODY + payload


def icmpv6(kind: int) -> bytes:
    return struct.pack("!BBH", kind, 0, 0) + bytes(20)


@pytest.mark.parametrize("kind", NEIGHBOUR_DISCOVERY)
def test_neighbour_discovery_stays_outside(tunnel: Tunnel, kind: int) -> None:
    # One Router Advertisement, let in, gives a Linux host a default route and an address through the tunnel.
    assert not tunnel.passes(Protocol.IPV6, ipv6(ICMPV6, icmpv6(kind)))
    assert tunnel.traffic.drops[Drop.NOT_ALLOWED] == 1


@pytest.mark.parametrize("extension", [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION])
def test_nor_does_it_come_in_behind_another_header(tunnel: Tunnel, extension: int) -> None:
    hidden = bytes([ICMPV6, 0, 1, 4]) + bytes(4) + icmpv6(134)
    assert not tunnel.passes(Protocol.IPV6, ipv6(extension, hidden))


@pytest.mark.parametrize(
    "packet",
    [
        ipv6(ICMPV6, icmpv6(ECHO_REQUEST), hop_limit=64),
        ipv6(ICMPV6, icmpv6(ECHO_REQUEST)),
        ipv6(ICMPV6, icmpv6(134), hop_limit=254),  # no kernel takes it (RFC 4861 section 6.1.2)
        ipv6(UDP, bytes(20)),  # multicast DNS
        ipv6(HOP_BY_HOP, bytes([ICMPV6, 0, 5, 2, 0, 0, 1, 0]) + icmpv6(MLD_REPORT), hop_limit=1),
    ],
)
def test_everything_else_passes(tunnel: Tunnel, packet: bytes) -> None:
    assert tunnel.passes(Protocol.IPV6, packet)


@pytest.mark.parametrize("length", [0, 1, 20, 39, 40, 41])
def test_short_packets_are_no_trouble(tunnel: Tunnel, length: int) -> None:
    tunnel.passes(Protocol.IPV6, ipv6(ICMPV6, b"\x86")[:length])
    tunnel.passes(Protocol.IPV4, bytes([0x45]) + bytes(length))
