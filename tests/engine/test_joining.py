"""Segments of ordinary PPTP put together for the kernel: what it sees is what came, bad checksums included."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from grepunch.io.engine.batches import SLOTS
from grepunch.io.engine.joining import Joiner
from tests.engine import kernel
from tests.engine.kernel import ACK, CWR, ECE, FIN, PSH, RST, SYN, UDP, URG, Flow, Train
from tests.engine.test_mixed_flows import draw_flow

CASES = 60


class Device:
    """What was written, and whether it is taken."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.full = False
        self.joiner = Joiner(self.write)

    def write(self, parts: Sequence[memoryview]) -> bool:
        if not self.full:
            self.written.append(b"".join(parts))
        return not self.full

    def take(self, packets: Sequence[bytes]) -> list[bytes]:
        """What the kernel sees of a batch."""
        for packet in packets:
            assert self.joiner.write(packet)
        self.joiner.flush()
        return [packet for one in self.written for packet in kernel.take(one)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("options", [b"", b"\1\1\x08\x0a" + bytes(8)])
def test_a_train_is_written_in_one_piece(version: int, options: bytes) -> None:
    train = Train(Flow(version=version, tcp_options=options), random.Random(1).randbytes(40_000), 1340, flags=ACK | PSH)
    device = Device()
    assert device.take(train.packets()) == train.packets()
    assert len(device.written) == 1


def test_a_batch_without_end_is_written_in_pieces_that_fit() -> None:
    train = Train(Flow(), bytes(3 * SLOTS * 100), 100)
    device = Device()
    assert device.take(train.packets()) == train.packets()
    assert len(device.written) <= 4


def test_nothing_is_held_beyond_the_batch_and_a_single_packet_is_left_as_it_is() -> None:
    packet = Flow().packet(bytes(500), partial=False)
    device = Device()
    assert device.take([packet]) == [packet]
    assert device.written == [bytes(10) + packet]  # its checksum was nobody's business
    device.joiner.flush()
    assert len(device.written) == 1


@pytest.mark.parametrize("bad", [0, 1, 5, 9])
@pytest.mark.parametrize("at", [16, 40])
def test_a_bad_checksum_stays_bad_and_costs_no_other(bad: int, at: int) -> None:
    """Whether it is the sum or the data that is wrong."""
    packets = Train(Flow(), random.Random(2).randbytes(5000), 500).packets()
    damaged = bytearray(packets[bad])
    damaged[20 + at] ^= 0x40
    packets[bad] = bytes(damaged)
    device = Device()
    assert device.take(packets) == packets
    assert len(device.written) <= 4


def test_datagrams_and_everything_else_keep_their_place() -> None:
    segments = Train(Flow(), bytes(2000), 500).packets()
    datagram = Flow(protocol=UDP).packet(bytes(100), partial=False)
    packets = [segments[0], datagram, segments[1], b"\x45", b"", segments[2], segments[3], b"\x60" + bytes(70)]
    device = Device()
    assert device.take(packets) == packets


def test_a_device_that_takes_nothing_is_no_fault() -> None:
    device = Device()
    device.full = True
    assert device.joiner.write(Flow().packet(bytes(500), partial=False))
    assert not device.joiner.write(b"\x45" + bytes(30))
    device.joiner.flush()
    assert device.written == []


def mixed(rng: random.Random) -> list[bytes]:
    """Segments of a few flows, most of them in order, with all that ends a train, and damage."""
    size = rng.choice([40, 100, 999, 1300])
    flows = [draw_flow(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    sequences, identifications = [rng.choice([0, 0xFFFFF000]) for _ in flows], [rng.choice([0, 0xFFF0]) for _ in flows]
    packets = []
    for _ in range(rng.randrange(1, 90)):
        which = rng.randrange(len(flows)) if rng.random() < 0.2 else 0
        length = size if rng.random() < 0.85 else rng.randrange(1301)
        packet = bytearray(
            flows[which].packet(
                rng.randbytes(length) if rng.random() < 0.8 else bytes(length),
                sequence=sequences[which],
                flags=ACK | rng.choice([*[0] * 12, PSH, FIN, CWR, ECE, CWR | ECE, URG, SYN, RST]),
                identification=identifications[which],
                partial=False,
            )
        )
        sequences[which] += length
        identifications[which] += 1
        if rng.random() < 0.05:
            packet[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.02:
            packet += bytes(rng.randrange(1, 4))  # padding
        if rng.random() < 0.02:
            del packet[rng.randrange(1, len(packet)) :]
        if rng.random() < 0.95:
            packets.append(bytes(packet))
    if rng.random() < 0.3:
        rng.shuffle(packets)
    return packets


@pytest.mark.parametrize("part", range(3))
def test_whatever_comes_the_kernel_sees_the_same(part: int) -> None:
    for seed in range(part * CASES, (part + 1) * CASES):
        packets = mixed(random.Random(seed))
        assert Device().take(packets) == packets, seed
