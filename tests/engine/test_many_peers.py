"""Hundreds of peers in one loop: each packet to its own, each from its own, whatever the order."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from grepunch.datapump import PeerTraffic
from grepunch.peer import PeerMachine
from grepunch.ports import Form
from grepunch.routing import AddressTable
from pptp.crypto.aead import Suite
from pptp.datapath import SealedPair
from tests.engine import kernel
from tests.engine.kernel import UDP, Flow
from tests.engine.loops import HERE, LOOPS, FakeDevice, FakeMachine, FakeSocket, make_pump, outer

PEERS = 500
SEED = 500


class Host:
    """One loop that serves ``PEERS`` peers, and the other ends' keys."""

    def __init__(self, loop: str) -> None:
        self.loop, self.socket, self.device = loop, FakeSocket(HERE), FakeDevice()
        self.peers: dict[int, tuple[PeerTraffic, SealedPair]] = {}
        self.theirs: dict[int, SealedPair] = {}
        addresses: AddressTable[PeerTraffic] = AddressTable()
        for number in range(1, PEERS + 1):
            keys = [bytes([way]) + number.to_bytes(31, "big") for way in (1, 2)]
            pair = SealedPair(number, number + 1000, Suite.AES_256_GCM, keys[0], keys[1])
            self.theirs[number] = SealedPair(number + 1000, number, Suite.AES_256_GCM, keys[1], keys[0])
            form = Form.V0 if number % 3 == 0 else Form.V1
            machine = FakeMachine(pair, pair, (self.socket.address(external(number).packed), form))
            traffic = PeerTraffic(f"peer {number}", cast(PeerMachine, machine))
            addresses.add(traffic.name, traffic, [IPv4Network((inner(number), 32))])
            self.peers[number] = (traffic, pair)
        self.pump = make_pump(
            loop, self.socket, self.device, addresses, find_pair=self.peers.get, clear_frame=lambda frame: None
        )


def inner(number: int) -> IPv4Address:
    return IPv4Address("10.70.0.0") + number


def external(number: int) -> IPv4Address:
    return IPv4Address("203.0.113.0") + number


def gre(number: int, frame: bytes) -> bytes:
    if number % 3 == 0:
        return b"\0\0\x88\x0b" + frame
    return struct.pack("!HHHHI", 0x3001, 0x880B, len(frame), 0, 0) + frame


@pytest.mark.parametrize("loop", LOOPS)
def test_each_packet_goes_its_own_way(loop: str) -> None:
    host, rng = Host(loop), random.Random(SEED)
    order = [rng.randint(1, PEERS) for _ in range(2000)]
    for number in order:
        packet = Flow(protocol=UDP, destination=inner(number).packed).packet(b"%d" % number, partial=False)
        host.device.waiting.append(bytes(10) + packet if loop == "engine" else packet)
    while host.device.waiting:
        host.pump.tun_readable()
    assert [IPv4Address(packet[16:20]) for packet in host.socket.sent_packets] == [external(n) for n in order]
    sequences: dict[int, int] = {}
    for number, packet in zip(order, host.socket.sent_packets, strict=True):
        start = 24 if number % 3 == 0 else 32
        assert host.theirs[number].open(packet[start:])[1].endswith(b"%d" % number)
        if start == 32:
            assert int.from_bytes(packet[28:32], "big") == sequences.get(number, 0)
            sequences[number] = sequences.get(number, 0) + 1


@pytest.mark.parametrize("loop", LOOPS)
def test_each_packet_is_its_peers(loop: str) -> None:
    host, rng = Host(loop), random.Random(SEED)
    expected = []
    for _ in range(2000):
        number = rng.randint(1, PEERS)
        said = number if rng.random() < 0.9 else rng.randint(1, PEERS)  # in one of ten, another peer's address
        packet = Flow(protocol=UDP, source=inner(said).packed).packet(bytes(40), partial=False)
        host.socket.waiting.append(outer(external(number), HERE, gre(number, host.theirs[number].seal(0x21, packet))))
        if said == number:
            expected.append(packet)
    while host.socket.waiting:
        host.pump.gre_readable()
    written = host.device.written
    assert (written if loop == "plain" else [p for one in written for p in kernel.take(one)]) == expected
    assert sum(traffic.rx_packets for traffic, _ in host.peers.values()) == len(expected)
    assert sum(sum(traffic.drops.values()) for traffic, _ in host.peers.values()) == 2000 - len(expected)
