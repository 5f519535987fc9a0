"""The table of calls and the packet loop: who gets a packet, who may send one, and what reaches nobody."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, cast

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_RA, IPv6

from grepunch.io.callgre import CallGre, Note, call_key
from grepunch.ordinary.calls import Call, CallPump, CallTable
from grepunch.ordinary.connection import Connection
from pptp.errors import Drop

IPV4, IPV6 = 0x0021, 0x0057
ALICE, BOB, EVE = (IPv4Address(f"198.51.100.{n}") for n in (1, 2, 3))
INSIDE = {ALICE: IPv4Address("10.77.0.2"), BOB: IPv4Address("10.77.0.3")}


@dataclass
class FakeGre:
    """Stands in for the raw socket."""

    waiting: list[tuple[bytes, bytes]] = field(default_factory=list)
    refused: list[Note] = field(default_factory=list)

    def receive(self) -> list[tuple[bytes, bytes]]:
        taken, self.waiting = self.waiting, []
        return taken

    def flush(self) -> list[Note]:
        refused, self.refused = self.refused, []
        return refused


@dataclass
class FakeTun:
    """Stands in for the device."""

    waiting: list[bytes] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)

    def read(self, limit: int) -> list[bytes]:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def write(self, packet: bytes) -> bool:
        self.written.append(packet)
        return True

    def flush(self) -> None:
        pass


class FakeMachine:
    """Its GRE is the packet behind one octet of Call ID; an empty one is held back."""

    def send_network(self, call_id: int, protocol: int, packet: bytes, now: float) -> bytes | None:
        return bytes([call_id & 0xFF]) + packet

    def receive_gre(self, packet: bytes, now: float) -> list[tuple[int, bytes]]:
        return [(IPV6 if packet[0] >> 4 == 6 else IPV4, packet)] if packet else []


@dataclass(eq=False)
class FakeConnection:
    """One client."""

    source: IPv4Address
    dials: bool = False
    machine: FakeMachine = field(default_factory=FakeMachine)
    sent: list[bytes] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    settled: int = 0

    def queue(self, gre: bytes, note: Note) -> None:
        self.sent.append(gre)
        self.notes.append(note)

    def settle(self) -> None:
        self.settled += 1


class World:
    """A table, a pump, and clients with a call each."""

    def __init__(self, *sources: IPv4Address, dials: bool = False, mtu: int = 1396) -> None:
        rng = random.Random(2637)
        self.gre, self.tun = FakeGre(), FakeTun()
        self.table = CallTable(cast(CallGre, self.gre), rng.randbytes)
        self.pump = CallPump(
            self.table, self.tun, mss_clamp=True, asks_us=lambda call, packet: self.answer, now=lambda: 7.0
        )
        self.answer: bytes | None = None
        self.calls: dict[IPv4Address, Call] = {}
        for source in sources:
            connection = cast(Connection, FakeConnection(source, dials))
            call_id = self.table.allocate(connection)
            assert call_id is not None
            call = self.table.calls[call_id] = self.calls[source] = Call(connection, call_id, 0.0)
            call.local, call.mtu = IPv4Address("10.77.0.1"), mtu
            if not dials:
                call.sources = {INSIDE[source].packed}
                self.table.route(call, INSIDE[source].packed)

    def sent(self, source: IPv4Address) -> list[bytes]:
        return cast(Any, self.calls[source].connection).sent  # type: ignore[no-any-return]


def packet(source: object, destination: object, payload: object = b"data") -> bytes:
    return bytes(IP(src=str(source), dst=str(destination)) / UDP(sport=5, dport=6) / payload)


def test_call_ids_are_never_zero_never_twice_and_come_back() -> None:
    world = World()
    connection = cast(Connection, FakeConnection(ALICE))
    given = [world.table.allocate(connection) for _ in range(5000)]
    assert len(set(given)) == 5000
    assert all(call_id is not None and 1 <= call_id <= 65535 for call_id in given)
    for call_id in given:
        world.table.release(cast(int, call_id))
    assert world.table.by_key == {}
    assert not world.table.knows(cast(int, given[0]))


def test_packets_go_to_the_call_that_owns_their_destination() -> None:
    world = World(ALICE, BOB)
    world.tun.waiting = [packet("10.0.0.1", INSIDE[BOB]), packet("10.0.0.1", "10.77.0.99"), b"", b"\x45"]
    world.pump.tun_readable()
    assert world.sent(ALICE) == []
    assert [gre[1:] for gre in world.sent(BOB)] == [packet("10.0.0.1", INSIDE[BOB])]
    assert world.pump.drops == {Drop.NO_ROUTE: 1, Drop.MALFORMED: 2}
    assert cast(Any, world.calls[BOB].connection).settled == 1


def test_a_packet_that_the_socket_refuses_is_a_drop_and_was_not_sent() -> None:
    world = World(ALICE)
    world.tun.waiting = [packet("10.0.0.1", INSIDE[ALICE])] * 3
    call = world.calls[ALICE]
    size = len(world.tun.waiting[0])
    world.gre.refused = [(call, size)]
    world.pump.tun_readable()
    assert cast(Any, call.connection).notes == [(call, size)] * 3
    assert (call.tx_packets, call.tx_bytes) == (2, 2 * size)
    assert call.drops == {Drop.QUEUE_FULL: 1}


def test_a_call_id_from_another_source_reaches_nobody_and_is_remembered_for_the_verdict() -> None:
    world = World(ALICE, BOB)
    call = world.calls[ALICE]
    forged = packet(INSIDE[ALICE], "10.0.0.1")
    world.gre.waiting = [(call_key(EVE, call.call_id), forged), (call_key(ALICE, call.call_id ^ 1), forged)]
    world.pump.gre_readable()
    assert world.tun.written == []
    assert world.pump.drops[Drop.UNKNOWN_SESSION] == 2
    assert world.pump.take_strays(call.call_id) == f"; GRE for this call came from {EVE} instead"
    assert world.pump.take_strays(world.calls[BOB].call_id) == ""
    assert not world.pump.strays, "told once, and not kept for who gets the Call ID next"
    world.gre.waiting = [(call_key(ALICE, call.call_id), forged)]
    world.pump.gre_readable()
    assert world.tun.written == [forged]
    assert (call.rx_packets, call.heard) == (1, 7.0)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (packet(INSIDE[BOB], "10.0.0.1"), Drop.NOT_ALLOWED),
        (bytes(IPv6(src="fe80::9", dst="fe80::1") / ICMPv6EchoRequest()), Drop.NOT_ALLOWED),
        (bytes(IPv6(src="fe80::2", dst="ff02::1", hlim=255) / ICMPv6ND_RA()), Drop.NOT_ALLOWED),
        (b"\x45\x00", Drop.MALFORMED),
        (b"\x55" + bytes(30), Drop.MALFORMED),
    ],
    ids=["another's address", "another's link-local", "router advertisement", "short", "version"],
)
def test_a_client_cannot_speak_for_another_nor_as_a_router(data: bytes, cause: Drop) -> None:
    world = World(ALICE, BOB)
    call = world.calls[ALICE]
    assert call.sources is not None
    call.sources.add(bytes.fromhex("fe80" + "00" * 13 + "02"))
    world.gre.waiting = [(call_key(ALICE, call.call_id), data)]
    world.pump.gre_readable()
    assert world.tun.written == []
    assert call.drops == {cause: 1}


def test_a_dialler_has_one_way_for_everything_and_takes_everything() -> None:
    world = World(ALICE, dials=True)
    world.tun.waiting = [packet("10.0.0.1", "192.168.10.7"), bytes(IPv6(dst="ff02::1") / ICMPv6EchoRequest())]
    world.pump.tun_readable()
    assert len(world.sent(ALICE)) == 2
    world.gre.waiting = [(call_key(ALICE, world.calls[ALICE].call_id), packet("172.16.0.1", "10.0.0.1"))]
    world.pump.gre_readable()
    assert len(world.tun.written) == 1


def test_questions_to_the_server_are_answered_and_go_no_further() -> None:
    world = World(ALICE)
    call = world.calls[ALICE]
    world.answer = packet("10.77.0.1", INSIDE[ALICE], b"answer")
    world.gre.waiting = [(call_key(ALICE, call.call_id), packet(INSIDE[ALICE], "255.255.255.255"))]
    world.pump.gre_readable()
    assert world.tun.written == []
    assert [gre[1:] for gre in world.sent(ALICE)] == [world.answer]


def test_segments_are_clamped_both_ways_and_large_packets_cut_or_answered() -> None:
    world = World(ALICE, mtu=800)
    call = world.calls[ALICE]
    syn = IP(src="10.0.0.1", dst=str(INSIDE[ALICE])) / TCP(flags="S", options=[("MSS", 1460)])
    cut = IP(src="10.0.0.1", dst=str(INSIDE[ALICE])) / UDP() / (b"x" * 1000)
    told = IP(src="10.0.0.1", dst=str(INSIDE[ALICE]), flags="DF") / UDP() / (b"x" * 1000)
    world.tun.waiting = [bytes(syn), bytes(cut), bytes(told), bytes(told)]
    world.pump.tun_readable()
    first, *parts = world.sent(ALICE)
    assert dict(IP(first[1:])[TCP].options)["MSS"] == 760
    assert len(parts) == 2
    assert call.drops == {Drop.TOO_BIG: 2}
    assert len(world.tun.written) == 1, "the sender is told once in a while, not for every packet"
    back = IP(src=str(INSIDE[ALICE]), dst="10.0.0.1") / TCP(flags="SA", options=[("MSS", 1460)])
    world.gre.waiting = [(call_key(ALICE, call.call_id), bytes(back))]
    world.pump.gre_readable()
    assert dict(IP(world.tun.written[-1])[TCP].options)["MSS"] == 760


def test_a_call_that_is_over_leaves_nothing_in_the_table() -> None:
    world = World(ALICE, BOB)
    for call in world.calls.values():
        world.table.route(call, bytes(16))
    world.table.unroute(world.calls[BOB], 16)
    assert bytes(16) not in world.table.by_address, "the last to have it was bob"
    for call in world.calls.values():
        world.table.forget(call.call_id)
        world.table.release(call.call_id)
    assert (world.table.by_address, world.table.by_key, world.table.calls) == ({}, {}, {})


def test_a_packet_read_together_with_the_last_word_of_ipcp_is_judged_by_it() -> None:
    """The call came up in the very batch that brings its first packet: which addresses it has is told first."""
    world = World(ALICE)
    call = world.calls[ALICE]
    call.sources = None

    class Fresh(FakeConnection):
        def settle(self) -> None:
            call.sources = {INSIDE[ALICE].packed}

    fresh = cast(Connection, Fresh(ALICE))
    call.connection = fresh
    key = call_key(ALICE, call.call_id)
    world.table.by_key[key] = fresh
    world.gre.waiting = [(key, packet(EVE, BOB)), (key, packet(INSIDE[ALICE], BOB))]
    world.pump.gre_readable()
    assert world.tun.written == [packet(INSIDE[ALICE], BOB)]
    assert call.drops[Drop.NOT_ALLOWED] == 1
