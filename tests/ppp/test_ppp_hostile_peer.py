"""Whatever a peer sends: no call raises, nothing grows, every drop is counted, and the answers stay in bounds."""

from __future__ import annotations

import random
import tracemalloc
from ipaddress import IPv4Address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pptp.errors import Drop, Terminated
from pptp.ppp.control_protocol import NetworkDown, NetworkUp
from pptp.ppp.link import EARLY_FRAMES, Link, LinkEvent, Phase
from pptp.ppp.policy import LinkConfig
from pptp.wire.cp import Code, CpPacket, Option, build_options, build_packet, parse_packet
from pptp.wire.ppp import Protocol

OURS, THEIRS = IPv4Address("10.66.0.1"), IPv4Address("10.66.0.2")
CONTROL = (Protocol.LCP, Protocol.IPCP, Protocol.IPV6CP)
EVERYTHING = (*CONTROL, Protocol.CCP, Protocol.ECP, Protocol.PAP, Protocol.CHAP, Protocol.IPV4, Protocol.IPV6)


def fresh(seed: int = 1) -> Link:
    link = Link(LinkConfig.sealed(local=OURS, remote=THEIRS, mru=1335), entropy=random.Random(seed).randbytes)
    link.open(0)
    return link


def helpful(link: Link, now: float) -> None:
    """Bring ``link`` as far up as a well-behaved peer would."""
    for _ in range(20):
        frames = link.transmits()
        for frame in frames:
            packet = parse_packet(frame.information)
            if packet.code != Code.CONFIGURE_REQUEST:
                continue
            link.receive(frame.protocol, build_packet(CpPacket(2, packet.identifier, packet.data)), now)
            wanted = {
                Protocol.LCP: Option(5, b"\x77\x77\x77\x77"),
                Protocol.IPCP: Option(3, THEIRS.packed),
                Protocol.IPV6CP: Option(1, b"\0\0\0\0\0\0\0\x09"),
            }[Protocol(frame.protocol)]
            link.receive(frame.protocol, build_packet(CpPacket(1, 1, build_options([wanted]))), now)
        if not frames:
            return


CORPUS = {
    "option length 0": b"\x05\x00\x01\x02\x03\x04",
    "option length 1": b"\x05\x01\x01\x02\x03\x04",
    "option one octet too long": b"\x05\x07\x01\x02\x03\x04",
    "option of 255 in nothing": b"\x05\xff",
    "half an option header": b"\x05",
    "list filling the MRU with empty options": bytes((200, 2)) * 748,
    "list filling the MRU with one option repeated": b"\x01\x04\x05\xdc" * 374,
    "list filling the MRU with short known options": b"".join(bytes((kind, 2)) for kind in range(256)) * 2,
    "list filling the MRU with long options": (b"\x63\xfd" + bytes(251)) * 5,
    "every option type once": b"".join(bytes((kind, 6, 0, 0, 0, 0)) for kind in range(249)),
    "contradicting repeats": build_options([Option(3, THEIRS.packed), Option(3, OURS.packed)]),
    "MRU 0 and magic 0": build_options([Option(1, b"\0\0"), Option(5, bytes(4))]),
    "zeros": bytes(1496),
    "ones": b"\xff" * 1496,
}


@pytest.mark.parametrize("data", CORPUS.values(), ids=CORPUS.keys())
@pytest.mark.parametrize("up", [False, True], ids=["establishing", "open"])
def test_corpus(data: bytes, up: bool) -> None:
    for protocol in EVERYTHING:
        link = fresh()
        if up:
            helpful(link, 0.0)
            assert link.phase is Phase.NETWORK
        for code in range(17):
            for identifier in (0, 1, 2, 255):
                link.receive(protocol, build_packet(CpPacket(code, identifier, data)), 1.0)
                answers = link.transmits()
                assert len(answers) <= 6
                assert all(len(frame.information) <= 1500 for frame in answers)
        link.receive(protocol, data, 1.0)
        link.receive(protocol, memoryview(data), 1.0)


@pytest.mark.parametrize("length", range(8))
def test_every_length_field_around_its_limit(length: int) -> None:
    link = fresh()
    helpful(link, 0.0)
    for code in range(17):
        for claimed in (0, 1, 3, 4, 5, length, length + 4, length + 5, 1500, 65535):
            information = bytes((code, 1)) + claimed.to_bytes(2, "big") + bytes(length)
            for protocol in CONTROL:
                for cut in range(5):
                    link.receive(protocol, information[: len(information) - cut], 1.0)
    link.transmits()
    link.events()
    assert link.drops[Drop.MALFORMED] > 0


@pytest.mark.parametrize("seed", range(8))
def test_mutations_of_good_frames_never_raise(seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    link, now = fresh(seed), 0.0
    good: list[tuple[int, bytes]] = [
        (protocol, build_packet(CpPacket(code, 1, body)))
        for protocol in CONTROL
        for code in range(16)
        for body in (b"", b"\x05\x06\x01\x02\x03\x04", b"\x03\x06\x0a\x42\x00\x02", bytes(8))
    ]
    for _ in range(1500):
        now += dice.choice((0.0, 0.1, 3.0))
        protocol, octets = dice.choice(good)
        mutated = bytearray(octets)
        for _ in range(dice.randrange(4)):
            mutated[dice.randrange(len(mutated))] = dice.choice((0, 1, 2, 255, dice.randrange(256)))
        link.receive(protocol, bytes(mutated[: dice.randrange(len(mutated) + 1)]), now)
        link.handle_timeout(now)
        if dice.random() < 0.3:
            helpful(link, now)
        link.transmits()
        if link.phase is Phase.DEAD:
            assert isinstance(link.events()[-1], Terminated)
            link = fresh(dice.randrange(10**6))
            link.open(now)
        link.events()


@pytest.mark.parametrize("up", [False, True], ids=["establishing", "open"])
def test_memory_stays_where_it_is(up: bool) -> None:
    link = fresh()
    if up:
        helpful(link, 0.0)
    body = build_options([Option(200, bytes(248))])
    flood = [(protocol, build_packet(CpPacket(Code.CONFIGURE_ACK, 77, body))) for protocol in EVERYTHING]
    flood += [(Protocol.LCP, build_packet(CpPacket(code, 5, body))) for code in (9, 10, 11, 12, 13, 99)]

    def rounds(count: int) -> None:
        for step in range(count):
            for protocol, information in flood:
                link.receive(protocol, information, step * 1e-6)
            link.transmits()
            link.events()

    rounds(50)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    rounds(500)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 16_384
    assert link.phase is (Phase.NETWORK if up else Phase.ESTABLISH)
    assert up or link.drops[Drop.QUEUE_FULL] > 500


class Chaos(RuleBasedStateMachine):
    """Any order of frames, commands and timeouts keeps the promises that an owner relies on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.log: list[LinkEvent] = []

    @initialize(seed=st.integers(0, 2**16), up=st.booleans())
    def begin(self, seed: int, up: bool) -> None:
        self.link = fresh(seed)
        self.requests: list[tuple[int, CpPacket]] = []
        if up:
            helpful(self.link, 0.0)

    @rule(
        protocol=st.sampled_from(EVERYTHING),
        code=st.integers(0, 16),
        identifier=st.integers(0, 4),
        data=st.binary(max_size=24),
    )
    def frame(self, protocol: int, code: int, identifier: int, data: bytes) -> None:
        self.link.receive(protocol, build_packet(CpPacket(code, identifier, data)), self.now)

    @rule(code=st.sampled_from((2, 3, 4)), option=st.sampled_from((b"", b"\x03\x06\x0a\x42\x00\x07", b"\x05\x06abcd")))
    def answer(self, code: int, option: bytes) -> None:
        if self.requests:
            protocol, request = self.requests[-1]
            data = request.data if code != 3 else option
            self.link.receive(protocol, build_packet(CpPacket(code, request.identifier, data)), self.now)

    @rule(
        value=st.sampled_from((b"\x05\x06abcd", b"\x03\x06\x0a\x42\x00\x02", b"\x01\x0aabcdefgh")),
        protocol=st.sampled_from(CONTROL),
    )
    def good_request(self, value: bytes, protocol: int) -> None:
        self.link.receive(protocol, build_packet(CpPacket(1, 3, value)), self.now)

    @rule(seconds=st.sampled_from((0.0, 0.5, 3.0, 11.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.link.handle_timeout(self.now)

    @rule()
    def close(self) -> None:
        self.link.close(self.now)

    @rule()
    def lower_down(self) -> None:
        self.link.lower_down(self.now)

    @invariant()
    def drained_and_consistent(self) -> None:
        if not hasattr(self, "link"):
            return
        for frame in self.link.transmits():
            packet = parse_packet(frame.information)
            if packet.code == Code.CONFIGURE_REQUEST:
                self.requests.append((frame.protocol, packet))
        self.log += self.link.events()
        ends = [index for index, event in enumerate(self.log) if isinstance(event, Terminated)]
        assert ends in ([], [len(self.log) - 1])
        assert bool(ends) == (self.link.phase is Phase.DEAD)
        up: set[int] = set()
        for event in self.log:
            if isinstance(event, NetworkUp):
                assert event.protocol not in up
                up.add(event.protocol)
            elif isinstance(event, NetworkDown):
                up.remove(event.protocol)
        assert up == {protocol for protocol in (Protocol.IPV4, Protocol.IPV6) if self.link.carries(protocol)}
        if self.link.phase in (Phase.ESTABLISH, Phase.TERMINATE):
            assert self.link.deadline() is not None  # it goes on by itself
        if ends:
            assert self.link.deadline() is None


TestChaos = Chaos.TestCase
TestChaos.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_early_buffer_is_small() -> None:
    assert EARLY_FRAMES * 1500 <= 16_384
