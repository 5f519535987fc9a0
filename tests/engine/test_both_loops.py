"""The contract of a packet loop, which the plain one and the engine both keep."""

from __future__ import annotations

import errno
import random
import struct
from collections import Counter
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import GRE_PPTP

from grepunch.io.rawsocket import SocketDrop
from grepunch.ports import Form
from pptp.errors import Drop
from pptp.wire.sealed import FLAG_CHECKSUM_ELIDED
from tests.engine import kernel
from tests.engine.kernel import ACK, PSH, TCP, UDP, Flow, Train
from tests.engine.loops import (
    EVERYTHING,
    HERE,
    IPV4,
    IPV6,
    LCP,
    LOOPS,
    PACKET,
    THERE,
    End,
    gre_v1,
    make_ends,
    offer,
    outer,
    sealed,
    seen,
)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ends(loop: str) -> tuple[End, End]:
    return make_ends(loop, loop)


# -- out --------------------------------------------------------------------------------------------------------


def test_the_wire_and_its_numbers(ends: tuple[End, End]) -> None:
    left, right = ends
    offer(left, *[PACKET] * 3)
    first = left.send()
    offer(left, PACKET)
    packets = first + left.send()
    assert [packet[20:24] for packet in packets] == [bytes.fromhex("3001880b")] * 4
    assert [struct.unpack("!HHI", packet[24:32]) for packet in packets] == [(len(PACKET) + 33, 0, n) for n in range(4)]
    assert [int.from_bytes(packet[38:46], "big") for packet in packets] == [0, 1, 2, 3]
    assert seen(right, *packets) == [PACKET] * 4
    assert (left.traffic.tx_packets, left.traffic.tx_bytes) == (4, 4 * len(PACKET))
    assert (right.traffic.rx_packets, right.traffic.rx_bytes) == (4, 4 * len(PACKET))
    assert left.machine.largest == len(PACKET) + 65
    assert "heard" in right.machine.calls
    assert not left.traffic.touched
    assert not right.traffic.touched


def test_the_sequence_number_wraps(ends: tuple[End, End]) -> None:
    left, right = ends
    left.socket.destination(left.socket.address(THERE.packed)).sequence = 0xFFFFFFFF
    offer(left, PACKET, PACKET)
    if left.loop == "engine":
        packets = left.send()
        assert [packet[28:32].hex() for packet in packets] == ["ffffffff", "00000000"]
        assert seen(right, *packets) == [PACKET] * 2


def test_a_call_gives_all_its_packets_its_call_id_until_it_is_over(ends: tuple[End, End]) -> None:
    left, right = ends
    destination = left.socket.destination(left.socket.address(THERE.packed))
    for call_id in (0, 1723, 0):
        destination.call_id = call_id
        offer(left, *[PACKET] * 2)
        packets = left.send()
        judged = [GRE_PPTP(packet[20:]) for packet in packets]
        assert [(gre.version, gre.call_id, gre.payload_len) for gre in judged] == [(1, call_id, len(PACKET) + 33)] * 2
        assert seen(right, *packets) == [PACKET] * 2


def test_a_full_socket_drops_and_counts(ends: tuple[End, End]) -> None:
    left, _ = ends
    left.socket.failures = [0, errno.ENOBUFS] if left.loop == "engine" else [0, 1, 1]
    offer(left, *[PACKET] * 3)
    assert len(left.send()) == 1
    assert left.traffic.drops == {Drop.QUEUE_FULL: 2}
    assert (left.traffic.tx_packets, left.traffic.tx_bytes) == (1, len(PACKET))


def test_nobody_to_send_to(ends: tuple[End, End], loop: str) -> None:
    left, _ = make_ends(loop, loop, allowed=[IPv4Network("10.66.0.2/32")])
    stranger = Flow(destination=bytes([10, 99, 0, 1])).packet(b"", partial=False)
    offer(left, stranger, b"", b"\x45", b"\x70" + bytes(60), PACKET[:19])
    assert left.send() == []
    assert left.pump.drops == {Drop.NO_ROUTE: 1, Drop.MALFORMED: 4}


@pytest.mark.parametrize("lacking", ["path", "keys", "network"])
def test_a_peer_that_is_not_up(loop: str, lacking: str) -> None:
    left, _ = make_ends(loop, loop)
    match lacking:
        case "path":
            left.machine.hole = None
        case "keys":
            left.machine.sending_pair = None
        case "network":
            left.machine.networks = frozenset({IPV6})
    offer(left, PACKET)
    assert left.send() == []
    assert left.traffic.drops == {Drop.WRONG_PHASE: 1}
    assert "sent" not in left.machine.calls


def test_it_follows_a_change_of_place_and_keys(ends: tuple[End, End], loop: str) -> None:
    left, _ = ends
    offer(left, PACKET)
    left.send()
    other, _ = make_ends(loop, loop)
    left.machine.hole = (left.socket.address(IPv4Address("192.0.2.9").packed), Form.V0)
    left.machine.sending_pair = other.machine.sending_pair
    offer(left, PACKET)
    (packet,) = left.send()
    assert packet[16:20] == IPv4Address("192.0.2.9").packed
    assert packet[20:24] == bytes.fromhex("0000880b")
    assert packet[30:38] == bytes(8)  # the first frame under the new keys


# -- in ---------------------------------------------------------------------------------------------------------


def test_replayed_forged_and_foreign_frames(ends: tuple[End, End]) -> None:
    left, right = ends
    good = sealed(left, IPV4, PACKET)
    bad = bytearray(sealed(left, IPV4, PACKET))
    bad[-1] ^= 1
    foreign = bytearray(sealed(left, IPV4, PACKET))
    foreign[34:38] = bytes(4)
    assert seen(right, good, good, bytes(bad), bytes(foreign), bytes(foreign)) == [PACKET]
    assert right.machine.receiving.drops == {Drop.REPLAYED: 1, Drop.BAD_TAG: 1}
    assert right.pump.drops == {Drop.UNKNOWN_SESSION: 2}


def test_what_is_not_sealed_goes_to_the_desk(ends: tuple[End, End]) -> None:
    _, right = ends
    probe = bytes.fromhex("ff03c02100010008") + bytes(4)
    assert seen(right, outer(HERE, THERE, gre_v1(probe)), outer(HERE, THERE, b"\0\0\x88\x0b" + probe)) == []
    assert [(frame.source, frame.form, frame.ppp) for frame in right.clear] == [
        (HERE, Form.V1, probe),
        (HERE, Form.V0, probe),
    ]


def test_control_goes_to_the_machine_in_its_place(ends: tuple[End, End]) -> None:
    left, right = ends
    frames = [sealed(left, IPV4, PACKET), sealed(left, LCP, b"echo"), sealed(left, 0, b""), sealed(left, IPV4, PACKET)]
    assert seen(right, *frames) == [PACKET] * 2
    assert right.machine.opened == [(LCP, b"echo"), (0, b"")]


@pytest.mark.parametrize("good", [True, False])
def test_data_from_elsewhere_is_for_the_machine_to_judge(loop: str, good: bool) -> None:
    left, right = make_ends(loop, loop)
    right.machine.good = good
    frames = [sealed(left, IPV4, PACKET, source=IPv4Address("192.0.2.66")) for _ in range(2)]
    assert seen(right, *frames) == ([PACKET] * 2 if good else [])
    assert right.machine.opened == [(IPV4, b"")] * 2
    assert "heard" not in right.machine.calls


def test_so_is_data_under_keys_that_are_new(ends: tuple[End, End]) -> None:
    left, right = ends
    right.machine.settled = False
    assert seen(right, sealed(left, IPV4, PACKET)) == [PACKET]
    assert right.machine.opened == [(IPV4, b"")]


@pytest.mark.parametrize("elided", [False, True])
def test_a_peer_speaks_for_its_own_addresses_only(loop: str, elided: bool) -> None:
    left, right = make_ends(loop, loop, allowed=[IPv4Network("10.66.0.1/32")])
    flags = FLAG_CHECKSUM_ELIDED if elided else 0
    own, foreign = (Flow(source=bytes([10, 66, 0, n])) for n in (1, 7))
    frames = [
        sealed(left, IPV4, flow.packet(bytes(500), sequence=500 * n, identification=n, partial=elided), flags)
        for n, flow in enumerate([own, own, foreign, own, own])
    ]
    packets = seen(right, *frames)
    assert [packet[15] for packet in packets] == [1] * 4
    assert right.traffic.drops == {Drop.NOT_ALLOWED: 1}


def test_a_closed_network_takes_nothing(ends: tuple[End, End]) -> None:
    left, right = ends
    right.machine.networks = frozenset({IPV4})
    packet = Flow(version=6).packet(b"x", partial=False)
    assert seen(right, sealed(left, IPV6, packet), sealed(left, IPV6, PACKET)) == []
    assert right.traffic.drops == {Drop.WRONG_PHASE: 2}


def test_a_full_device_drops_and_counts(ends: tuple[End, End]) -> None:
    left, right = ends
    right.device.full = True
    frames = [
        sealed(left, IPV4, Flow().packet(bytes(500), sequence=500 * n, identification=n), FLAG_CHECKSUM_ELIDED)
        for n in range(3)
    ]
    assert seen(right, *frames) == []
    assert right.traffic.drops == {Drop.QUEUE_FULL: 3}
    assert right.traffic.rx_packets == 0


def test_malformed_packets_are_counted(ends: tuple[End, End]) -> None:
    left, right = ends
    good = sealed(left, IPV4, PACKET)
    cut = good[:40]
    longer = good[:24] + struct.pack("!H", len(PACKET) + 200) + good[26:]
    frames = [cut, longer, b"", b"\x45", outer(HERE, THERE, gre_v1(b"\x00\x53" + bytes(12))), bytes(4000)]
    assert seen(right, *frames) == []
    if right.loop == "engine":
        assert right.socket.drops == {SocketDrop.MALFORMED: 4, SocketDrop.TRUNCATED: 1}
    assert right.pump.drops == {Drop.MALFORMED: 1}
    assert seen(right, good) == [PACKET]


def test_a_batch_of_huge_packets_harms_nothing(ends: tuple[End, End]) -> None:
    left, right = ends
    good = sealed(left, IPV4, PACKET)
    huge = sealed(left, IPV4, bytes(4000))
    assert seen(right, *[good, *[huge] * 63] * 2, good) == [PACKET]
    assert not right.pump.drops


def test_unusual_but_good_outer_packets(ends: tuple[End, End]) -> None:
    left, right = ends
    pair = left.machine.sending_pair
    assert pair is not None
    options = outer(HERE, THERE, gre_v1(pair.seal(IPV4, PACKET)), options=b"\x94\x04\0\0")
    padded = outer(HERE, THERE, gre_v1(pair.seal(IPV4, PACKET)) + b"padding")
    plain = outer(HERE, THERE, b"\0\0\x88\x0b" + pair.seal(IPV4, PACKET))
    assert seen(right, options, padded, plain) == [PACKET] * 3


@settings(max_examples=60, deadline=None)
@given(data=st.lists(st.binary(max_size=90), max_size=5), seed=st.integers(0, 1 << 32), loop=st.sampled_from(LOOPS))
def test_noise_from_anybody_and_nonsense_from_the_peer(data: list[bytes], seed: int, loop: str) -> None:
    rng = random.Random(seed)
    left, right = make_ends(loop, loop)
    frames = []
    for noise in data:
        frames += [noise, outer(HERE, THERE, noise), outer(HERE, THERE, gre_v1(b"\0\x53" + noise))]
        frames.append(sealed(left, rng.choice([IPV4, IPV6]), noise, rng.choice([0, 1, 1, 2])))
        shaped = bytearray(Flow(version=rng.choice([4, 6]), protocol=rng.choice([TCP, UDP])).packet(noise))
        shaped[rng.randrange(len(shaped))] ^= 1 << rng.randrange(8)
        frames.append(sealed(left, rng.choice([IPV4, IPV6]), bytes(shaped), rng.choice([0, 1, 1])))
    rng.shuffle(frames)
    seen(right, *frames)
    good = sealed(left, IPV4, PACKET)
    assert seen(right, good)[-1:] == [PACKET], seed


# -- the relay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("receiver", LOOPS)
@pytest.mark.parametrize("sender", LOOPS)
def test_over_the_relay_frames_are_the_same_and_so_is_what_comes_out(sender: str, receiver: str) -> None:
    left, right = make_ends(sender, receiver)
    left.machine.relayed = True
    packets = [Flow().packet(b"x" * n, sequence=n, partial=False) for n in (1, 700, 1200)]
    offer(left, *packets)
    assert left.send() == [], "nothing goes over GRE"
    assert "sent" not in left.machine.calls
    assert left.traffic.tx_packets == len(left.frames) == 3
    written = right.receive_relayed(left.frames)
    got = written if receiver == "plain" else [packet for one in written for packet in kernel.take(one)]
    assert got == packets
    assert right.traffic.rx_packets == 3
    assert len(right.machine.relay.heard_at) == 3
    assert right.receive_relayed(left.frames) == [], "again, they are replayed"


def test_a_train_is_cut_for_the_relay_and_elided_checksums_are_made(loop: str) -> None:
    left, right = make_ends("engine", loop)
    left.machine.relayed = True
    train = Train(Flow(), b"p" * 3000, 1000)
    left.device.waiting.append(train.read())
    left.send()
    assert len(left.frames) == 3
    written = right.receive_relayed(left.frames)
    got = written if loop == "plain" else [packet for one in written for packet in kernel.take(one)]
    assert got == train.packets()


def test_the_link_moves_between_relay_and_gre_with_the_next_packet(ends: tuple[End, End]) -> None:
    left, right = ends
    for relayed in (True, False, True):
        left.machine.relayed = relayed
        offer(left, PACKET)
        packets = left.send()
        assert (len(packets), len(left.frames)) == ((0, 1) if relayed else (1, 0))
        assert len(right.receive_relayed(left.frames) if relayed else right.receive(packets)) == 1
        left.frames.clear()


def test_a_relay_that_takes_nothing_is_counted(ends: tuple[End, End]) -> None:
    left, _ = ends
    left.machine.relayed = left.relay_full = True
    offer(left, PACKET)
    left.send()
    assert left.traffic.drops == {Drop.QUEUE_FULL: 1}
    assert left.traffic.tx_packets == 0


def test_what_a_relay_may_not_bring(ends: tuple[End, End]) -> None:
    left, right = ends
    pair = left.machine.sending_pair
    assert pair is not None
    forged = bytearray(pair.seal(IPV4, PACKET))
    forged[-1] ^= 1
    foreign = bytearray(pair.seal(IPV4, PACKET))
    foreign[2:6] = bytes(4)
    assert right.receive_relayed([bytes(forged), bytes(foreign), b"", b"\0\x53", b"\xff\x03\xc0\x21"]) == []
    assert right.pump.drops[Drop.UNKNOWN_SESSION] >= 3
    assert right.machine.receiving.drops == {Drop.BAD_TAG: 1}
    right.machine.relay.takes = False
    assert right.receive_relayed([pair.seal(IPV4, PACKET)]) == []
    assert right.traffic.drops == {Drop.NOT_ALLOWED: 1}


def test_control_over_the_relay_goes_to_the_machine(ends: tuple[End, End]) -> None:
    left, right = ends
    pair = left.machine.sending_pair
    assert pair is not None
    assert right.receive_relayed([pair.seal(LCP, b"echo")]) == []
    assert right.machine.opened == [(LCP, b"echo")]
    right.machine.settled = False
    assert len(right.receive_relayed([pair.seal(IPV4, PACKET)])) == 1
    assert right.machine.opened[1:] == [(IPV4, b"")]


# -- checksums --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("receiver", LOOPS)
@pytest.mark.parametrize("sender", LOOPS)
def test_a_bad_checksum_stays_bad(sender: str, receiver: str) -> None:
    # Forwarded packets whose checksums somebody spoilt on the way: TCP's, and that of the IPv4 header.
    left, right = make_ends(sender, receiver)
    packets = []
    for number in range(6):
        packet = bytearray(Flow().packet(bytes(900), sequence=900 * number, identification=number, partial=False))
        packet[36 if number % 2 else 10] ^= 0x55
        packets.append(bytes(packet))
    offer(left, *packets)
    assert seen(right, *left.send()) == packets


@pytest.mark.parametrize("receiver", LOOPS)
def test_a_wrong_sum_of_a_lying_peer_stays_wrong(receiver: str) -> None:
    left, right = make_ends("engine", receiver)
    packets, wrong = [], []
    for number in range(4):
        packet = bytearray(Flow().packet(bytes(900), sequence=900 * number, identification=number))
        packet[36] ^= 0x55
        packets.append(sealed(left, IPV4, bytes(packet), FLAG_CHECKSUM_ELIDED))
        wrong.append(kernel.complete(bytes(packet), 20, 16))
    assert seen(right, *packets) == wrong


@pytest.mark.parametrize("receiver", LOOPS)
def test_an_elided_checksum_where_none_can_be_is_refused(receiver: str) -> None:
    left, right = make_ends("engine", receiver)
    whole = Flow(protocol=UDP).packet(bytes(64))
    fragment = bytearray(whole)
    fragment[6] = 0x20
    longer = whole + b"x"
    icmp = bytearray(whole)
    icmp[9] = 1
    extended = Flow(version=6, protocol=UDP, next_header=0, extensions=bytes([UDP, 0, 1, 4, 0, 0, 0, 0]))
    frames = [sealed(left, IPV4, bytes(p), FLAG_CHECKSUM_ELIDED) for p in (fragment, longer, icmp, whole[:27])]
    frames.append(sealed(left, IPV6, extended.packet(bytes(8)), FLAG_CHECKSUM_ELIDED))
    assert seen(right, *frames) == []
    assert right.traffic.drops == {Drop.MALFORMED: 5}


@pytest.mark.parametrize("receiver", LOOPS)
def test_fragments_and_other_protocols_pass_untouched(receiver: str) -> None:
    left, right = make_ends("engine", receiver)
    icmp = bytearray(PACKET)
    icmp[9] = 1
    fragments = [bytearray(PACKET) for _ in range(2)]
    fragments[0][6:8], fragments[1][6:8] = b"\x20\x00", b"\x00\x05"
    ipv6_fragment = Flow(version=6, next_header=44, extensions=bytes([TCP, 0, 0, 1, 0, 0, 0, 9])).packet(bytes(9))
    packets = [bytes(icmp), *map(bytes, fragments), ipv6_fragment, PACKET[:20], PACKET]
    offer(left, *packets)
    assert seen(right, *left.send()) == packets


# -- the engine alone -------------------------------------------------------------------------------------------


def test_only_what_asks_a_machine_is_settled_at_once() -> None:
    left, right = make_ends("engine", "engine")
    offer(left, PACKET)
    seen(right, *left.send())
    assert left.told == right.told == {"moved": 1}
    seen(right, sealed(left, LCP, b"echo"), sealed(left, IPV4, PACKET))
    assert right.told == {"settled": 1, "moved": 2}
    seen(right, sealed(left, IPV4, PACKET, source=IPv4Address("192.0.2.66")))
    assert right.told == {"settled": 2, "moved": 2}


def test_many_small_packets_go_in_one_call_and_leave_room_for_others() -> None:
    left, _ = make_ends("engine", "engine")
    offer(left, *[PACKET] * 100)
    left.pump.tun_readable()
    assert (left.socket.batches, len(left.device.waiting)) == ([1], 99)  # the first waits for none of the others
    left.pump.tun_readable()
    assert (left.socket.batches, len(left.device.waiting)) == ([1, 64], 35)


def test_machines_are_told_of_data_at_the_end_of_a_wake_up() -> None:
    left, right = make_ends("engine", "engine")
    offer(left, *[PACKET] * 3)
    for _ in range(2):
        left.pump.tun_readable()
    right.socket.waiting += left.socket.sent_packets
    right.pump.gre_readable()
    assert len(right.device.written) == 3
    assert (left.machine.calls, right.machine.calls) == ([], [])
    for end in (left, right):
        end.pump.settle()
        end.pump.settle()
    assert (left.machine.calls, right.machine.calls) == (["sent"], ["heard"])
    assert left.told == right.told == {"moved": 1}


def test_one_packet_that_does_not_go_does_not_hold_the_others() -> None:
    left, right = make_ends("engine", "engine")
    left.socket.failures = [0, errno.EMSGSIZE, errno.EMSGSIZE, 0, errno.ECONNREFUSED]
    offer(left, *[PACKET] * 4)
    assert len(left.send()) == 3
    assert left.socket.drops == {SocketDrop.TOO_BIG: 1}  # the refusal was news of an earlier packet
    assert left.traffic.drops == {Drop.QUEUE_FULL: 1}
    for _ in range(2):
        offer(right, PACKET)
        left.receive(right.send())
    assert left.told["news"] == 1  # what the network says of it is asked for once


def test_a_packet_larger_than_any_frame_is_dropped() -> None:
    left, _ = make_ends("engine", "engine")
    offer(left, Flow(protocol=UDP).packet(bytes(3000), partial=False))
    left.device.waiting.append(Train(Flow(), bytes(9000), 3000).read())
    assert left.send() == []
    assert left.traffic.drops == {Drop.TOO_BIG: 1, Drop.MALFORMED: 1}


def test_nonsense_from_the_device_is_dropped() -> None:
    left, _ = make_ends("engine", "engine")
    whole = Flow().packet(bytes(2000))
    for header in (
        kernel.vnet(0, 1, 40, 1000, 20, 16),  # a train whose checksum was made
        kernel.vnet(1, 4, 40, 1000, 20, 16),  # the other version
        kernel.vnet(1, 1, 40, 0, 20, 16),
        kernel.vnet(1, 1, 40, 1000, 1999, 16),
        kernel.vnet(1, 7, 40, 1000, 20, 16),
    ):
        left.device.waiting.append(header + whole)
    left.device.waiting.append(kernel.vnet(1, 0, 0, 0, 2000, 99) + Flow().packet(bytes(900)))
    assert left.send() == []
    assert left.traffic.drops == {Drop.MALFORMED: 6}


@pytest.mark.parametrize("way", ["out", "in"])
def test_a_capture_of_the_inside_sees_whole_single_packets(way: str) -> None:
    train = Train(Flow(tcp_options=bytes(12)), bytes(5000), 1000, flags=ACK | PSH)
    left, right = make_ends("engine", "engine")
    shown: list[tuple[int, bytes, bool]] = []
    end = left if way == "out" else right
    end.traffic.tap = lambda protocol, packet, outgoing: shown.append((protocol, packet, outgoing))
    left.device.waiting.append(train.read())
    assert seen(right, *left.send()) == train.packets()
    assert shown == [(IPV4, packet, way == "out") for packet in train.packets()]


class Recorder:
    """A capture of the wire."""

    def __init__(self) -> None:
        self.out: list[tuple[IPv4Address, bytes]] = []
        self.came: list[bytes] = []

    def sent(self, destination: IPv4Address, ttl: int | None, gre: bytes) -> None:
        self.out.append((destination, gre))

    def received(self, packet: bytes) -> None:
        self.came.append(packet)


def test_a_capture_of_the_wire_sees_every_packet() -> None:
    left, right = make_ends("engine", "engine")
    left.socket.tap, right.socket.tap = Recorder(), Recorder()
    left.socket.failures = [0, 0, errno.EMSGSIZE, errno.EMSGSIZE]
    left.device.waiting.append(Train(Flow(), bytes(5000), 1000).read())
    frames = left.send()
    right.receive([*frames, b"noise"])
    assert left.socket.tap.out == [(THERE, frame[20:]) for frame in frames]
    assert len(frames) == 4
    assert right.socket.tap.came == [*frames, b"noise"]


def test_counters_agree_with_the_plain_loop() -> None:
    totals = set()
    for loop in LOOPS:
        left, right = make_ends(loop, loop, allowed=EVERYTHING)
        train = Train(Flow(), bytes(5000), 999)
        left.device.waiting += [train.read()] if loop == "engine" else train.packets()
        right.receive(left.send())
        counted = Counter(left.traffic.drops) + Counter(right.traffic.drops)
        totals.add((left.traffic.tx_packets, left.traffic.tx_bytes, right.traffic.rx_packets, right.traffic.rx_bytes))
        assert not counted
    assert len(totals) == 1
