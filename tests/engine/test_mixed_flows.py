"""Several flows at once, with everything that ends a train, damaged packets and a bad line between: both loops give
the receiving kernel the same packets, in the same order, and count the same drops."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from grepunch.ports import Form
from tests.engine import kernel
from tests.engine.kernel import ACK, CHECKSUM_AT, CWR, ECE, FIN, NEEDS_CSUM, PSH, RST, SYN, TCP, UDP, URG, Flow, Train
from tests.engine.loops import make_ends

CASES = 40
_PADDING = bytes([0, 1, 4, 0, 0, 0, 0])  # of an extension header (RFC 8200 section 4.3)
_TIMES = b"\1\1\x08\x0a"


def draw_flow(rng: random.Random) -> Flow:
    version, protocol = rng.choice([4, 4, 6]), rng.choice([TCP, TCP, TCP, UDP])
    extended = version == 6 and rng.random() < 0.2
    return Flow(
        version=version,
        protocol=protocol,
        tos=rng.choice([0, 0, 2, 3, 255]),
        ip_options=rng.choice([b"", b"", b"", b"\1\1\1\0", bytes([148, 4, 0, 0])]),
        extensions=bytes([protocol]) + _PADDING if extended else b"",
        next_header=rng.choice([0, 60]) if extended else None,
        tcp_options=rng.choice([b"", _TIMES + rng.randbytes(8), b"\1\1\5\x0a" + bytes(8), bytes(40)]),
        window=rng.randrange(0x10000),
        ttl=rng.choice([1, 64, 254]),
        fragment=rng.choice([0x4000, 0x4000, 0, 0x2000, 0x2005]) if version == 4 else 0,
        source=bytes([10, 66, 0, rng.choice([1, 9])]),
        urgent=rng.choice([0, 0, 0, 5]),
    )


class Stream:
    """One flow on its way, packet after packet or in trains."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self._rng, self._size = rng, size
        self.flow = draw_flow(rng)
        self._sequence = rng.choice([0, 0xFFFFF000, 77])
        self._identification = rng.choice([0, 0xFFF0, 5])
        self._fragment = self.flow.version == 4 and self.flow.fragment & 0x3FFF != 0

    def train(self) -> bytes:
        """What a kernel that offloads hands over in one piece."""
        if self._fragment:
            return self.packet()
        rng, size = self._rng, self._size
        length = min(rng.randrange(1, size * rng.randrange(2, 40) + 1), 60_000)
        flags = ACK | rng.choice([0, PSH, CWR, ECE, FIN])
        train = Train(self.flow, rng.randbytes(length), size, self._sequence, flags, self._identification)
        self._sequence += length
        self._identification += -(-length // size)
        return train.read()

    def packet(self) -> bytes:
        """A single packet, its checksum made or not; now and then damaged in its headers, too long or cut off."""
        rng, flow = self._rng, self.flow
        length = self._size if rng.random() < 0.85 else rng.randrange(1301)
        flags = ACK | rng.choice([*[0] * 12, PSH, FIN, CWR, ECE, CWR | ECE, URG, SYN, RST])
        partial = rng.random() < 0.8 and not self._fragment and not flow.extensions
        packet = bytearray(
            flow.packet(
                rng.randbytes(length) if rng.random() < 0.8 else bytes(length),
                sequence=self._sequence,
                flags=flags,
                identification=self._identification,
                partial=partial,
                acknowledgement=77 if rng.random() < 0.95 else 78,
            )
        )
        self._sequence += length
        self._identification += 1
        if rng.random() < 0.05:
            packet[rng.randrange(flow.header)] ^= 1 << rng.randrange(8)
        if rng.random() < 0.02:
            packet += bytes(rng.randrange(1, 4))
        if rng.random() < 0.02:
            del packet[rng.randrange(1, len(packet)) :]
        if not partial:
            return kernel.vnet(0, 0, 0, 0, 0, 0) + packet
        return kernel.vnet(NEEDS_CSUM, 0, 0, 0, flow.transport, CHECKSUM_AT[flow.protocol]) + packet


def received(receiver: str, seed: int) -> tuple[list[bytes], Counter[str], tuple[int, int]]:
    """What the receiving kernel sees of the case, what was dropped at either end, and what was counted."""
    rng = random.Random(seed)
    size = rng.choice([1, 2, 7, 100, 999, 1000, 1300])
    streams = [Stream(rng, size) for _ in range(rng.choice([1, 1, 2, 3]))]
    options = {"elides": rng.random() < 0.8, "udp": rng.random() < 0.8, "form": rng.choice(list(Form))}
    left, right = make_ends("engine", receiver, **options)  # type: ignore[arg-type]
    for _ in range(rng.randrange(1, 90)):
        stream = rng.choice(streams) if rng.random() < 0.3 else streams[0]
        left.device.waiting.append(stream.train() if rng.random() < 0.1 else stream.packet())
    frames = left.send()
    spread = rng.choice([0, 0, 3, 30])
    order = [number for number in range(len(frames)) for _ in range(rng.choice([0, 1, 1, 1, 1, 2]) if spread else 1)]
    order.sort(key=lambda number: number + rng.random() * spread)
    written = right.receive([frames[number] for number in order])
    packets = written if receiver == "plain" else [packet for one in written for packet in kernel.take(one)]
    drops = Counter({str(cause): count for end in (left, right) for cause, count in end.traffic.drops.items()})
    return packets, drops, (right.traffic.rx_packets, right.traffic.rx_bytes)


@pytest.mark.parametrize("part", range(4))
def test_both_loops_hand_over_the_same(part: int) -> None:
    for seed in range(part * CASES, (part + 1) * CASES):
        assert received("engine", seed) == received("plain", seed), seed
