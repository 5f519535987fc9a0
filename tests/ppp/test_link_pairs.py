"""Two links joined by a wire that loses, duplicates and reorders, on a virtual clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from pptp.errors import Drop, Terminated, TerminationCause, UsageError
from pptp.ppp.control_protocol import NetworkDown, NetworkFinished
from pptp.ppp.ipcp import IpcpPolicy, Ipv4Up
from pptp.ppp.ipv6cp import Ipv6cpPolicy, Ipv6Up
from pptp.ppp.lcp import EchoReplied
from pptp.ppp.lcp_options import LcpPolicy
from pptp.ppp.link import Link, LinkEvent, LinkOpened, Phase
from pptp.ppp.policy import LinkConfig
from pptp.wire.ppp import Protocol, build, parse

ALICE, BOB = IPv4Address("10.66.0.1"), IPv4Address("10.66.0.2")


@dataclass
class Wire:
    """Delivers built frames between two links; every knob is a probability, ``delay`` is in seconds."""

    links: tuple[Link, Link]
    seed: int = 0
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    delay: float = 0.02
    muted: set[int] = field(default_factory=set)  # sides whose frames are lost
    now: float = 0.0
    log: tuple[list[LinkEvent], list[LinkEvent]] = field(default_factory=lambda: ([], []))
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    _queue: list[tuple[float, int, int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def flush(self) -> None:
        for side, link in enumerate(self.links):
            for frame in link.transmits():
                self._send(side, build(frame.protocol, frame.information))
            self.log[side].extend(link.events())

    def _send(self, side: int, frame: bytes) -> None:
        self.sent.append((side, frame))
        lost = self._random.random() < self.loss or side in self.muted
        copies = 0 if lost else 1 + (self._random.random() < self.duplication)
        for _ in range(copies):
            late = self._random.uniform(0, 5 * self.delay) if self._random.random() < self.reordering else 0.0
            heapq.heappush(self._queue, (self.now + self.delay + late, len(self.sent), 1 - side, frame))

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        self.flush()
        while not stop():
            deadlines = [link.deadline() for link in self.links]
            times = [deadline for deadline in deadlines if deadline is not None]
            if self._queue:
                times.append(self._queue[0][0])
            if not times or min(times) > until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            while self._queue and self._queue[0][0] <= self.now:
                _, _, side, frame = heapq.heappop(self._queue)
                read = parse(frame)
                self.links[side].receive(read.protocol, read.information, self.now)
                self.flush()
            for link in self.links:
                link.handle_timeout(self.now)
            self.flush()


def link(config: LinkConfig, seed: int) -> Link:
    return Link(config, entropy=random.Random(seed).randbytes)


def sealed_pair(seed: int = 1) -> tuple[Link, Link]:
    return (
        link(LinkConfig.sealed(local=ALICE, remote=BOB, mru=1335), 2 * seed),
        link(LinkConfig.sealed(local=BOB, remote=ALICE, mru=1335), 2 * seed + 1),
    )


def opened(wire: Wire) -> Wire:
    for each in wire.links:
        each.open(wire.now)
    wire.run(30, both_carry(wire))
    return wire


def both_carry(wire: Wire) -> Callable[[], bool]:
    return lambda: all(each.carries(Protocol.IPV4) and each.carries(Protocol.IPV6) for each in wire.links)


def test_a_sealed_pair_opens_in_three_round_trips() -> None:
    wire = opened(Wire(sealed_pair()))
    assert wire.now <= 3 * 2 * wire.delay
    for side, (own, other) in enumerate([(ALICE, BOB), (BOB, ALICE)]):
        up = [event for event in wire.log[side] if isinstance(event, Ipv4Up)]
        assert up == [Ipv4Up(Protocol.IPV4, own, other)]
        opened_event = next(event for event in wire.log[side] if isinstance(event, LinkOpened))
        assert (opened_event.remote.mru, opened_event.remote.pfc, opened_event.remote.acfc) == (1335, False, False)
        assert opened_event.local.magic_number not in (0, opened_event.remote.magic_number)
    identifiers = [event for log in wire.log for event in log if isinstance(event, Ipv6Up)]
    assert (identifiers[0].local, identifiers[0].remote) == (identifiers[1].remote, identifiers[1].local)


@pytest.mark.parametrize("seed", range(60))
def test_a_bad_wire_only_delays(seed: int) -> None:
    print(f"seed {seed}")
    pair = sealed_pair(seed)
    wire = Wire(pair, seed=seed, loss=0.2, duplication=0.2, reordering=0.3)
    for each in pair:
        each.open(random.Random(seed).uniform(0, 1))
    carry = both_carry(wire)
    wire.run(300, carry)
    assert carry()
    # And once all that is under way has arrived, it is still so.
    wire.loss = wire.duplication = wire.reordering = 0.0
    wire.run(wire.now + 60)
    assert carry()
    assert all(not isinstance(event, Terminated) for log in wire.log for event in log)
    for side, address in enumerate([ALICE, BOB]):
        assert [event.local for event in wire.log[side] if isinstance(event, Ipv4Up)][-1] == address


def test_a_lost_acknowledgement_does_not_tear_the_open_side_down() -> None:
    wire = Wire(sealed_pair())
    for each in wire.links:
        each.open(0)
    wire.run(0.01)
    wire.muted = {0}  # Alice's Ack is lost; Bob's opens her side
    wire.run(0.05)
    wire.muted = set()
    assert [each.phase for each in wire.links] == [Phase.NETWORK, Phase.ESTABLISH]
    wire.run(30)
    assert both_carry(wire)()
    assert all(sum(isinstance(event, LinkOpened) for event in log) == 1 for log in wire.log)


def test_a_peer_that_starts_anew_with_the_same_octets_is_understood_in_the_end() -> None:
    wire = opened(Wire(sealed_pair()))
    reborn = sealed_pair()[1]
    wire.links = (wire.links[0], reborn)
    reborn.open(wire.now)
    wire.run(wire.now + 40, lambda: both_carry(wire)() and reborn.phase is Phase.NETWORK)
    assert both_carry(wire)()
    assert sum(isinstance(event, LinkOpened) for event in wire.log[0]) == 2


def test_frames_of_a_peer_that_is_ahead_are_kept() -> None:
    """The last LCP Ack is overtaken by the first IPCP request: no restart timer is waited for."""
    wire = opened(Wire(sealed_pair()))
    late = link(LinkConfig.sealed(local=BOB, remote=ALICE, mru=1335), 3)
    late.open(0)
    frames = [parse(frame) for side, frame in wire.sent if side == 0]
    requests = [frame for frame in frames if frame.protocol == Protocol.IPCP]
    for _ in range(10):
        late.receive(requests[0].protocol, requests[0].information, 0)
    assert late.drops == {Drop.QUEUE_FULL: 2}
    assert late.drops_by_phase == {(Phase.ESTABLISH, Drop.QUEUE_FULL): 2}
    peer = link(LinkConfig.sealed(local=ALICE, remote=BOB, mru=1335), 2)
    again = Wire((peer, late))
    peer.open(0)
    again.run(0.15)
    assert late.carries(Protocol.IPV4)


def test_close_ends_both_sides_with_a_cause_as_the_last_event() -> None:
    wire = opened(Wire(sealed_pair()))
    alice, bob = wire.links
    alice.close(wire.now)
    assert alice.phase is Phase.TERMINATE
    wire.run(wire.now + 10)
    assert wire.log[0][-1] == Terminated(TerminationCause.LOCAL_REQUEST)
    assert isinstance(wire.log[1][-1], Terminated)
    assert wire.log[1][-1].cause is TerminationCause.PEER_REQUEST
    for log in wire.log:
        assert {event.protocol for event in log if isinstance(event, NetworkDown)} == {Protocol.IPV4, Protocol.IPV6}
    for each in (alice, bob):
        assert (each.phase, each.deadline(), each.carries(Protocol.IPV4)) == (Phase.DEAD, None, False)
        each.receive(Protocol.LCP, b"\x09\x01\x00\x08\0\0\0\0", wire.now)
        each.close(wire.now)
        each.lower_down(wire.now)
        each.handle_timeout(wire.now)
        assert (each.transmits(), each.events()) == ([], [])
        assert each.drops_by_phase[Phase.DEAD, Drop.WRONG_PHASE] == 1
        with pytest.raises(UsageError):
            each.open(wire.now)


def test_a_silent_peer_is_named_after_ten_requests() -> None:
    alone = link(LinkConfig.sealed(local=ALICE, remote=BOB, mru=1335), 1)
    alone.open(100.0)
    times = [100.0]
    requests = [alone.transmits()]
    while (deadline := alone.deadline()) is not None:
        times.append(deadline)
        alone.handle_timeout(deadline - 0.001)
        assert alone.transmits() == []
        alone.handle_timeout(deadline)
        requests.append(alone.transmits())
    assert times == [100.0 + 3.0 * step for step in range(11)]
    assert [len(frames) for frames in requests] == [1] * 10 + [0]
    assert len({bytes(frames[0].information) for frames in requests[:-1]}) == 1  # the identifier stays
    assert alone.events() == [Terminated(TerminationCause.PEER_SILENT, "no LCP packet arrived from the peer")]


def test_a_wire_that_carries_one_way_only_is_told_from_a_silent_peer() -> None:
    alice, bob = sealed_pair()
    alice.open(0)
    bob.open(0)
    for frame in bob.transmits():
        alice.receive(frame.protocol, frame.information, 0)
    while (deadline := alice.deadline()) is not None:
        alice.handle_timeout(deadline)
    end = alice.events()[-1]
    assert isinstance(end, Terminated)
    assert end.cause is TerminationCause.PEER_SILENT
    assert "may not reach it" in end.detail


def test_lost_echoes_never_end_a_sealed_link() -> None:
    config = LinkConfig.sealed(local=ALICE, remote=BOB, mru=1335, echo_interval=5.0)
    wire = opened(Wire((link(config, 1), link(LinkConfig.sealed(local=BOB, remote=ALICE, mru=1335), 2))))
    wire.run(wire.now + 6)
    assert [round(event.rtt, 6) for event in wire.log[0] if isinstance(event, EchoReplied)] == [0.04]
    wire.loss = 1.0
    wire.run(wire.now + 3600)
    assert both_carry(wire)()


def test_lost_echoes_end_an_ordinary_link_that_says_so() -> None:
    lcp = LcpPolicy(echo_interval=10.0, echo_failures=3)
    config = LinkConfig(lcp=lcp, control_protocols=(IpcpPolicy(local=ALICE), Ipv6cpPolicy()))
    wire = opened(Wire((link(config, 1), link(LinkConfig(control_protocols=config.control_protocols), 2))))
    up = wire.now
    wire.loss = 1.0
    wire.run(wire.now + 35)
    wire.links[0].heard()  # data came past the link
    wire.run(up + 69)
    assert wire.links[0].phase is Phase.NETWORK
    wire.run(wire.now + 30)
    assert wire.log[0][-1] == Terminated(TerminationCause.PEER_SILENT, "3 LCP Echo-Requests without an answer")


def test_open_again_renegotiates() -> None:
    wire = opened(Wire(sealed_pair()))
    for log in wire.log:
        log.clear()
    wire.links[0].open(wire.now)
    assert wire.links[0].phase is Phase.ESTABLISH
    wire.run(wire.now + 1)
    assert both_carry(wire)()
    for log in wire.log:
        kinds = [type(event) for event in log]
        assert kinds == [NetworkDown, NetworkDown, LinkOpened, Ipv4Up, Ipv6Up]


def test_the_lower_layer_going_down_is_the_end() -> None:
    wire = opened(Wire(sealed_pair()))
    wire.links[0].lower_down(wire.now)
    wire.flush()
    assert wire.log[0][-3:] == [
        NetworkDown(Protocol.IPV4),
        NetworkDown(Protocol.IPV6),
        Terminated(TerminationCause.LOST_CARRIER),
    ]
    assert wire.links[0].deadline() is None


def test_a_link_closed_before_it_opens_ends_at_once() -> None:
    config = LinkConfig(control_protocols=(IpcpPolicy(),), first_request_delay=0.3)
    unopened, waiting, cut = (link(config, seed) for seed in range(3))
    unopened.close(0)
    unopened.close(0)
    assert unopened.events() == [Terminated(TerminationCause.LOCAL_REQUEST)]
    waiting.open(0)
    waiting.close(0)
    assert waiting.events() == [Terminated(TerminationCause.LOCAL_REQUEST)]
    cut.open(0)
    cut.lower_down(0)
    assert cut.events() == [Terminated(TerminationCause.LOST_CARRIER)]
    for each in (unopened, waiting, cut):
        assert (each.transmits(), each.deadline(), each.phase) == ([], None, Phase.DEAD)


def test_the_first_request_waits_unless_the_peer_speaks() -> None:
    config = LinkConfig(control_protocols=(IpcpPolicy(local=ALICE), Ipv6cpPolicy()), first_request_delay=0.3)
    patient = link(config, 1)
    patient.open(0)
    assert (patient.transmits(), patient.deadline()) == ([], 0.3)
    patient.handle_timeout(0.3)
    assert [frame.protocol for frame in patient.transmits()] == [Protocol.LCP]

    wire = Wire((link(config, 1), link(LinkConfig(control_protocols=config.control_protocols), 2)))
    opened(wire)
    assert wire.now < 0.3


@pytest.mark.parametrize(
    ("theirs", "cause"),
    [
        (IpcpPolicy(local=IPv4Address("10.66.0.9"), remote=ALICE, strict=True), TerminationCause.NOT_AGREED),
        (IpcpPolicy(local=BOB, remote=IPv4Address("10.66.0.9"), strict=True), TerminationCause.NOT_AGREED),
    ],
)
def test_a_sealed_link_ends_in_exactly_its_addresses_or_not_at_all(theirs: IpcpPolicy, cause: TerminationCause) -> None:
    mine = LinkConfig.sealed(local=ALICE, remote=BOB, mru=1335)
    wire = Wire((link(mine, 1), link(LinkConfig(control_protocols=(theirs, Ipv6cpPolicy())), 2)))
    for each in wire.links:
        each.open(0)
    wire.run(60)
    ends = [log[-1] for log in wire.log]
    assert all(isinstance(end, Terminated) for end in ends)
    assert not any(isinstance(event, Ipv4Up) for log in wire.log for event in log)
    causes = {end.cause for end in ends if isinstance(end, Terminated)}
    assert cause in causes
    details = " ".join(end.detail for end in ends if isinstance(end, Terminated))
    assert "10.66.0." in details  # the offers are named


def test_ipv6_that_the_peer_does_not_speak_is_a_verdict_and_no_end() -> None:
    one = LinkConfig.sealed(local=ALICE, remote=BOB, mru=1335)
    other = LinkConfig.sealed(local=BOB, remote=ALICE, mru=1200, ipv6=False)
    wire = Wire((link(one, 1), link(other, 2)))
    for each in wire.links:
        each.open(0)
    wire.run(60)
    assert [event for event in wire.log[0] if isinstance(event, NetworkFinished)] == [
        NetworkFinished(Protocol.IPV6, Terminated(TerminationCause.REFUSED, "the peer does not speak IPV6CP"))
    ]
    assert [each.phase for each in wire.links] == [Phase.NETWORK, Phase.NETWORK]
    assert wire.links[0].carries(Protocol.IPV4)


def test_a_looped_back_line_is_recognised() -> None:
    mirror = link(LinkConfig.sealed(local=ALICE, remote=BOB, mru=1335), 1)
    mirror.open(0)
    now, events = 0.0, []
    for _ in range(100):
        frames = mirror.transmits()
        for frame in frames:
            mirror.receive(frame.protocol, frame.information, now)
        events += mirror.events()
        deadline = mirror.deadline()
        if not frames and deadline is not None:
            now = deadline
            mirror.handle_timeout(now)
    end = events[-1]
    assert isinstance(end, Terminated)
    assert end.cause is TerminationCause.NOT_AGREED
    assert "looped back" in end.detail
    assert not any(isinstance(event, LinkOpened) for event in events)


def test_interface_identifiers_that_collide_are_told_apart() -> None:
    same = Ipv6cpPolicy(interface_identifier=b"\0\0\0\0\0\0\0\x07")
    wire = Wire(
        (
            link(LinkConfig(control_protocols=(IpcpPolicy(local=ALICE), same)), 1),
            link(LinkConfig(control_protocols=(IpcpPolicy(local=BOB), same)), 2),
        )
    )
    opened(wire)
    ups = [next(event for event in log if isinstance(event, Ipv6Up)) for log in wire.log]
    assert ups[0].local != ups[1].local
    assert (ups[0].local, ups[0].remote) == (ups[1].remote, ups[1].local)


def test_a_client_takes_what_the_server_gives() -> None:
    dns = (IPv4Address("10.77.0.53"), IPv4Address("10.77.0.54"))
    server = IpcpPolicy(local=IPv4Address("10.77.0.1"), remote=IPv4Address("10.77.0.9"), strict=True, dns=dns)
    client = IpcpPolicy(ask_dns=True, ask_wins=True)
    wire = Wire((link(LinkConfig(control_protocols=(client,)), 1), link(LinkConfig(control_protocols=(server,)), 2)))
    for each in wire.links:
        each.open(0)
    wire.run(1)
    assert [event for event in wire.log[0] if isinstance(event, Ipv4Up)] == [
        Ipv4Up(Protocol.IPV4, IPv4Address("10.77.0.9"), IPv4Address("10.77.0.1"), dns, ())
    ]
