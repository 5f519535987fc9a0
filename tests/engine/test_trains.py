"""Whatever is cut, sealed, lost, reordered and put together again: the packets are those of the plain path.

The four ways from loop to loop are judged by one list of packets, which comes from neither (see ``kernel``).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.io.engine.outbound import SHORT_TRAIN
from grepunch.ports import Form
from pptp.crypto.aead import Suite
from tests.engine import kernel
from tests.engine.kernel import ACK, CWR, ECE, FIN, PSH, RST, SYN, TCP, UDP, URG, Flow, Train
from tests.engine.loops import LOOPS, End, make_ends

WAYS = [(sender, receiver) for sender in LOOPS for receiver in LOOPS]

# hop-by-hop or destination options with padding only (RFC 8200 sections 4.3 and 4.6), before TCP or UDP
_PADDING = bytes([0, 1, 4, 0, 0, 0, 0])


def _extension(protocol: int) -> bytes:
    return bytes([protocol]) + _PADDING


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    version, protocol = draw(st.sampled_from([4, 6])), draw(st.sampled_from([TCP, UDP]))
    extended = draw(st.booleans()) and version == 6
    return Flow(
        version=version,
        protocol=protocol,
        tos=draw(st.integers(0, 255)),
        ip_options=draw(st.sampled_from([b"", b"", b"\x01\x01\x01\x00", bytes([148, 4, 0, 0])])),
        extensions=_extension(protocol) if extended else b"",
        next_header=draw(st.sampled_from([0, 60])) if extended else None,
        tcp_options=draw(st.sampled_from([b"", b"\1\1\x08\x0a" + bytes(8), b"\1\1\5\x0a" + bytes(8), bytes(40)])),
        window=draw(st.integers(0, 0xFFFF)),
        ttl=draw(st.integers(1, 254)),
        fragment=draw(st.sampled_from([0x4000, 0])),
    )  # fmt: skip


@st.composite
def trains(draw: st.DrawFn) -> Train:
    seed = draw(st.integers(0, 1 << 32))
    size = draw(st.sampled_from([1, 7, 100, 535, 1000, 1360]))
    count = draw(st.integers(0, 70))
    length = max(1, min(size * count + draw(st.integers(0, size)), 0xFFFF - 140))
    return Train(
        flow=draw(flows()),
        payload=random.Random(seed).randbytes(length),
        size=size,
        sequence=draw(st.sampled_from([0, 0xFFFFFF00, 12345])),
        flags=ACK | draw(st.sampled_from([0, PSH, FIN | PSH, CWR, ECE, CWR | ECE | PSH])),
        identification=draw(st.sampled_from([0, 0xFFF0, 77])),
    )


def unfolded(end: End, written: Sequence[bytes]) -> list[bytes]:
    """What the receiving kernel sees."""
    if end.loop == "plain":
        return list(written)
    return [packet for one in written for packet in kernel.take(one)]


def carried(sender: str, receiver: str, all_trains: Sequence[Train], order: Sequence[int] | None = None) -> list[bytes]:
    """The packets at the receiving kernel, where frame number ``order[n]`` arrives as the n-th."""
    left, right = make_ends(sender, receiver)
    left.device.waiting += (
        [packet for train in all_trains for packet in train.packets()]
        if sender == "plain"
        else [train.read() for train in all_trains]
    )
    frames = left.send()
    received = right.receive([frames[number] for number in (order if order is not None else range(len(frames)))])
    assert not left.traffic.drops
    assert not right.traffic.drops
    return unfolded(right, received)


@settings(max_examples=60, deadline=None)
@given(train=trains())
def test_a_train_comes_out_as_the_packets_of_the_plain_path(train: Train) -> None:
    for way in WAYS:
        assert carried(*way, [train]) == train.packets()


def in_sending_order(sender: str, all_trains: Sequence[Train]) -> list[Train]:
    """What is single overtakes trains of other flows, but for a short one that comes first.

    (Two flows are one here where the ports are out of sight.)
    """
    single: list[Train] = []
    waiting: list[Train] = []
    flows_waiting: set[bytes] = set()
    for number, train in enumerate(all_trains):
        at_once = number == 0 and len(train.read()) <= SHORT_TRAIN
        flow = train.packets()[0][12:24] if train.flow.version == 4 else train.packets()[0][8:44]
        if sender == "engine" and not at_once and (len(train.payload) > train.size or flow in flows_waiting):
            waiting.append(train)
            flows_waiting.add(flow)
        else:
            single.append(train)
    return single + waiting


@settings(max_examples=60, deadline=None)
@given(first=trains(), more=st.lists(trains(), max_size=2), seed=st.integers(0, 1 << 32))
def test_under_loss_reordering_and_duplication(first: Train, more: list[Train], seed: int) -> None:
    all_trains = [first, *more]
    count = sum(len(train.packets()) for train in all_trains)
    rng = random.Random(seed)
    spread = rng.choice([0, 2, 30])
    order = [number for number in range(count) for _ in range(rng.choice([0, 1, 1, 1, 1, 1, 2]))]
    order.sort(key=lambda number: number + rng.random() * spread)
    for way in WAYS:
        packets = [packet for train in in_sending_order(way[0], all_trains) for packet in train.packets()]
        expected = [packets[number] for number in dict.fromkeys(order)]  # the copy is a replay
        assert carried(*way, all_trains, order) == expected, seed


def test_one_flow_is_put_together_and_crosses_the_device_in_few_writes() -> None:
    train = Train(Flow(tcp_options=bytes(12)), bytes(64 * 1300), 1300, flags=ACK | PSH)
    left, right = make_ends("engine", "engine")
    for at in range(0, 64 * 1300, 32 * 1300):
        part = Train(train.flow, train.payload[at : at + 32 * 1300], 1300, at, ACK, at // 1300)
        left.device.waiting.append(part.read())
    written = right.receive(left.send())
    assert [len(kernel.take(one)) for one in written] == [50, 14]  # 64 would be longer than an IP packet can be


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_of_one_size_are_put_together_too(version: int) -> None:
    flow = Flow(version=version, protocol=UDP)
    left, right = make_ends("engine", "engine")
    left.device.waiting += [Train(flow, bytes([n]) * 64, 64, identification=n).read() for n in range(60)]
    assert len(right.receive(left.send())) == 1
    left.device.waiting += [Train(flow, bytes([n]) * 64, 64, identification=5).read() for n in range(60)]
    assert len(right.receive(left.send())) == (60 if version == 4 else 1)  # cut again, IPv4 would count up


def test_no_trains_of_datagrams_for_a_kernel_without() -> None:
    left, right = make_ends("engine", "engine", udp=False)
    left.device.waiting += [Train(Flow(protocol=UDP), bytes(64), 64, identification=n).read() for n in range(9)]
    assert len(right.receive(left.send())) == 9


# What differs from the packet before in one of these is of another train.
@pytest.mark.parametrize(
    "change",
    [
        {"tos": 1},
        {"tos": 3},  # congestion experienced
        {"window": 502},
        {"ttl": 63},
        {"fragment": 0},
        {"urgent": 1},
        {"tcp_options": b"\1\1\x08\x0a" + bytes(7) + b"\1"},
        {"source": bytes([10, 66, 0, 9])},
    ],
)
def test_only_what_cutting_gives_back_is_put_together(change: dict[str, object]) -> None:
    base = Flow(tcp_options=b"\1\1\x08\x0a" + bytes(8))
    other = Flow(**{"tcp_options": base.tcp_options, **change})  # type: ignore[arg-type]
    both = [
        Train(base, bytes(500), 500, 0, ACK, 0),
        Train(other, bytes(500), 500, 500, ACK, 1),
    ]
    left, right = make_ends("engine", "engine")
    left.device.waiting += [train.read() for train in both]
    written = right.receive(left.send())
    assert len(written) == 2
    assert unfolded(right, written) == [packet for train in both for packet in train.packets()]


@pytest.mark.parametrize("flags", [SYN, SYN | ACK, RST, RST | ACK, URG | ACK, 0, FIN | ACK, PSH | ACK])
def test_no_train_begins_with_what_ends_one(flags: int) -> None:
    both = [
        Train(Flow(), bytes(500), 500, 0, flags, 0),
        Train(Flow(), bytes(500), 500, 500, ACK, 1),
    ]
    left, right = make_ends("engine", "engine")
    left.device.waiting += [train.read() for train in both]
    written = right.receive(left.send())
    assert len(written) == 2
    assert unfolded(right, written) == [packet for train in both for packet in train.packets()]


@pytest.mark.parametrize(("form", "suite"), [(Form.V0, Suite.AES_256_GCM), (Form.V1, Suite.CHACHA20_POLY1305)])
def test_in_the_other_form_and_suite(form: Form, suite: Suite) -> None:
    train = Train(Flow(), bytes(range(256)) * 80, 1000)
    for sender, receiver in WAYS:
        left, right = make_ends(sender, receiver, form=form, suite=suite)
        left.device.waiting += [train.read()] if sender == "engine" else train.packets()
        assert unfolded(right, right.receive(left.send())) == train.packets()


@settings(max_examples=30, deadline=None)
@given(train=trains(), receiver=st.sampled_from(LOOPS))
def test_a_peer_that_does_not_elide_gets_whole_packets(train: Train, receiver: str) -> None:
    left, right = make_ends("engine", receiver, elides=False)
    left.device.waiting.append(train.read())
    written = right.receive(left.send())
    if receiver == "engine":
        assert all(one[:2] == b"\0\0" for one in written)  # nothing is left to the kernel, and nothing put together
    assert unfolded(right, written) == train.packets()
