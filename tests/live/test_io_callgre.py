"""The raw GRE socket of ordinary PPTP, in batches and one by one: the same packets, the same drops."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from grepunch.io.callgre import CallGre, call_key
from grepunch.io.rawsocket import SocketDrop
from tests.io.routed import A, B, build, eventually
from tests.live.live_support import RunInLab

MANY = 150  # more than two rings


def gre(number: int, size: int) -> bytes:
    return struct.pack("!HHHHI", 0x3001, 0x880B, size, 7, number) + bytes([number & 0xFF]) * size


class Tap:
    """Counts what it is shown."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.into: list[bytes] = []

    def sent(self, destination: IPv4Address, ttl: int | None, packet: bytes) -> None:
        self.out.append(packet)

    def received(self, packet: bytes) -> None:
        self.into.append(packet[20:])


def scenario_both_ways(batched: bool, tapped: bool) -> dict[str, object]:
    a, _, b = build()
    near_tap, far_tap = (Tap(), Tap()) if tapped else (None, None)
    with a.entered():
        near = CallGre(near_tap, batched=batched)
        sender = near.sender(A, B)
    with b.entered():
        far = CallGre(far_tap, batched=not batched)
    packets = [gre(number, 2 + number * 9) for number in range(MANY)]
    for number, packet in enumerate(packets[:-1]):
        sender.queue(packet, (number, len(packet)))
    sent = sender.send(packets[-1])  # overtakes nothing that waits
    refused = near.flush()
    heard: list[tuple[bytes, bytes]] = []

    def hear() -> list[tuple[bytes, bytes]]:
        found = [(bytes(key), bytes(packet)) for key, packet in far.receive()]
        heard.extend(found)
        return found

    eventually(hear, MANY, 5.0)
    taps = [] if near_tap is None or far_tap is None else [near_tap.out == packets, far_tap.into[:MANY] == packets]
    result: dict[str, object] = {
        "sent": sent,
        "refused": refused,
        "heard": [packet for _, packet in heard] == packets,
        "keys": {key.hex() for key, _ in heard} == {call_key(A, 7).hex()},
        "drops": [dict(near.drops), dict(far.drops)],
        "taps": taps,
    }
    near.close()
    far.close()
    return result


def test_every_packet_arrives_in_order_with_its_key(run_in_lab: RunInLab) -> None:
    for batched in (True, False):
        result = run_in_lab(scenario_both_ways, batched=batched, tapped=False)
        assert result == {"sent": True, "refused": [], "heard": True, "keys": True, "drops": [{}, {}], "taps": []}


def test_a_tap_sees_every_packet_both_ways(run_in_lab: RunInLab) -> None:
    for batched in (True, False):
        result = run_in_lab(scenario_both_ways, batched=batched, tapped=True)
        assert result["taps"] == [True, True]
        assert result["heard"]


def scenario_refused(batched: bool) -> dict[str, object]:
    a, _, _ = build()
    with a.entered():
        near = CallGre(batched=batched)
        sender = near.sender(A, IPv4Address("203.0.113.200"))
        a.ip("route", "add", "blackhole", "203.0.113.200/32")
        for number in range(3):
            sender.queue(gre(number, 100), (number, 100))
        refused = near.flush()
    result: dict[str, object] = {
        "refused": refused,
        "again": near.flush(),
        "drops": {str(cause): n for cause, n in near.drops.items()},
    }
    near.close()
    return result


def test_what_the_kernel_refuses_is_told_once_and_counted(run_in_lab: RunInLab) -> None:
    for batched in (True, False):
        result = run_in_lab(scenario_refused, batched=batched)
        assert [list(note) for note in result["refused"]] == [[0, 100], [1, 100], [2, 100]]
        assert (result["again"], result["drops"]) == ([], {str(SocketDrop.NO_ROUTE): 3})
