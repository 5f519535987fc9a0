"""Packets that come one by one: the engine's short way, which has to end where the long one does."""

from __future__ import annotations

import errno
from ipaddress import IPv4Network

import pytest

from grepunch.ports import Form
from pptp.errors import Drop
from pptp.wire.sealed import FLAG_CHECKSUM_ELIDED
from tests.engine.kernel import Flow
from tests.engine.loops import IPV4, IPV6, LCP, LOOPS, PACKET, make_ends, offer, sealed, seen


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("form", list(Form))
def test_packets_one_by_one_leave_as_they_do_in_a_batch(loop: str, form: Form) -> None:
    left, right = make_ends(loop, loop, form=form)
    together, _ = make_ends(loop, loop, form=form)
    packets = [
        PACKET,
        Flow().packet(b"y" * 300),
        Flow().packet(b"z" * 7, sequence=300),
        PACKET[:6] + b"\x20\x07" + PACKET[8:],  # a fragment
        Flow(version=6).packet(b"six"),
        PACKET,
    ]
    offer(together, *packets)
    sizes = [len(packet) for packet in together.send()]
    alone: list[bytes] = []
    for packet in packets:
        offer(left, packet)
        alone += left.send()
    assert [len(packet) for packet in alone] == sizes
    if form is Form.V1:
        assert [int.from_bytes(packet[28:32], "big") for packet in alone] == list(range(len(sizes)))
        assert [int.from_bytes(packet[38:46], "big") for packet in alone] == list(range(len(sizes)))
    assert (left.traffic.tx_packets, left.traffic.tx_bytes) == (together.traffic.tx_packets, together.traffic.tx_bytes)
    assert left.machine.largest == together.machine.largest
    for packet in alone:
        assert len(right.receive([packet])) == 1
    assert right.traffic.rx_packets == len(sizes)
    assert right.machine.calls.count("heard") == len(sizes)


def test_a_single_packet_that_the_socket_refuses_is_counted_once() -> None:
    left, _ = make_ends("engine", "engine")
    for failures in ([], [errno.EAGAIN, errno.EAGAIN], [errno.EHOSTUNREACH], []):
        left.socket.failures += failures
        offer(left, PACKET)
        left.send()
        left.socket.failures.clear()
    assert left.traffic.drops == {Drop.QUEUE_FULL: 1}
    assert (left.traffic.tx_packets, left.traffic.tx_bytes) == (3, 3 * len(PACKET))


def test_more_and_more_packets_without_a_pause_go_in_batches() -> None:
    left, _ = make_ends("engine", "engine")
    offer(left, PACKET)
    left.send()
    left.socket.batches.clear()
    offer(left, *[PACKET] * 20)
    while left.device.waiting:
        left.pump.tun_readable()
    assert left.socket.batches == [1, 1, 1, 17]


def test_a_packet_alone_is_judged_as_one_of_many() -> None:
    """The engine knows the last packet, and makes short work of the next if that is like it."""
    left, right = make_ends("engine", "engine", allowed=[IPv4Network("10.66.0.0/30")])
    allowed, foreign = (Flow(source=bytes([10, 66, 0, n])) for n in (1, 7))
    good = [allowed.packet(b"x" * 60, sequence=60 * n, identification=n, partial=n % 2 == 1) for n in range(6)]
    for number, packet in enumerate(good[:4]):
        frame = sealed(left, IPV4, packet, FLAG_CHECKSUM_ELIDED if number % 2 else 0)
        assert len(seen(right, frame)) == 1
    assert seen(right, frame) == []
    assert right.machine.receiving.drops == {Drop.REPLAYED: 1}
    forged = bytearray(sealed(left, IPV4, good[0]))
    forged[-1] ^= 1
    assert seen(right, bytes(forged)) == []
    assert right.machine.receiving.drops == {Drop.REPLAYED: 1, Drop.BAD_TAG: 1}
    assert seen(right, sealed(left, IPV4, foreign.packet(b"x" * 60, partial=False))) == []
    assert right.traffic.drops == {Drop.NOT_ALLOWED: 1}
    assert seen(right, sealed(left, IPV4, good[4]), sealed(left, IPV4, good[4], 0x40)) == [good[4]]  # an unknown flag
    assert seen(right, sealed(left, IPV4, good[4], 0x40)) == []
    assert right.machine.receiving.drops[Drop.MALFORMED] == 2
    cut_short = good[4][:2] + b"\xff\xff" + good[4][4:]
    assert seen(right, sealed(left, IPV4, cut_short, FLAG_CHECKSUM_ELIDED)) == []
    assert right.traffic.drops == {Drop.NOT_ALLOWED: 1, Drop.MALFORMED: 1}
    assert seen(right, sealed(left, LCP, b"echo request that is as long as a packet")) == []
    assert len(right.machine.opened) == 1
    right.machine.networks = frozenset({IPV6})
    assert seen(right, sealed(left, IPV4, good[4])) == []
    assert right.traffic.drops[Drop.WRONG_PHASE] == 1
    right.machine.networks = frozenset({IPV4})
    assert len(seen(right, sealed(left, IPV4, good[4]))) == 1
    right.machine.settled = False
    assert len(seen(right, sealed(left, IPV4, good[4]))) == 1
    assert len(right.machine.opened) == 2  # the machine has been asked


@pytest.mark.parametrize("loop", LOOPS)
def test_a_packet_shorter_than_its_header_is_not_made_whole_with_the_one_before(loop: str) -> None:
    """Whoever may write to the interface with a packet socket can make such ones."""
    left, _ = make_ends(loop, loop)
    offer(left, PACKET)
    assert len(left.send()) == 1
    for size in range(1, 20):
        offer(left, PACKET[:size])
        assert left.send() == []
    assert left.pump.drops == {Drop.MALFORMED: 19}


def test_a_packet_without_elision_is_not_taken_for_one_with_it() -> None:
    left, right = make_ends("engine", "engine", elides=False)
    packet = Flow().packet(b"x" * 60, partial=False)
    for _ in range(2):
        assert seen(right, sealed(left, IPV4, packet)) == [packet]
        assert seen(right, sealed(left, IPV4, packet, FLAG_CHECKSUM_ELIDED)) == []
    assert right.machine.receiving.drops == {Drop.MALFORMED: 2}


def test_a_single_packet_waits_for_nothing() -> None:
    left, _ = make_ends("engine", "engine")
    offer(left, PACKET)
    left.pump.tun_readable()
    assert (len(left.socket.sent_packets), left.socket.batches) == (1, [1])
