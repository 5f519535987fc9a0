"""Whoever forges packets costs a bounded amount of work, however many peers there are."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

from grepunch.admission import PROBES_PER_SECOND, HandshakeDesk
from grepunch.datapump import PeerTraffic
from grepunch.destinations import REMEMBERED, Destinations
from grepunch.peer import PeerConfig, PeerMachine
from grepunch.ports import Form, GreFrame, GreSend
from grepunch.secure.identity import Identity, public_key
from grepunch.signalling.messages import Candidates, PlanReply
from pptp.errors import Drop
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear
from tests.attack.hostile import PLACE, SEED, THERE, Siege, make_context, make_exchange

PEERS = 32
STRANGER = IPv4Address("192.0.2.200")


class CountingMachine(PeerMachine):
    """Counts how often it was asked about a probe, and takes none."""

    asked = 0

    def receive_probe(self, frame: GreFrame, body: bytes, now: float) -> bool:
        self.asked += 1
        return super().receive_probe(frame, body, now)


class Desk:
    """The product's desk for peers that each punch towards an address of their own, and a clock."""

    def __init__(self, peers: int) -> None:
        self.rng = rng = random.Random(SEED)
        self.now = 0.0
        self.addresses = [IPv4Address(int(IPv4Address("198.51.100.1")) + number) for number in range(peers)]
        identity = Identity.from_private_key(rng.randbytes(32))
        self.machines: list[CountingMachine] = []
        self.destinations = Destinations()
        traffics = {}
        for address in self.addresses:
            key = public_key(rng.randbytes(32))
            config = PeerConfig(str(address), key, dialing=False, uses_rendezvous=False, last_known_address=address)
            machine = CountingMachine(make_context(identity, config, rng), make_exchange(identity, key, rng))
            machine.start(self.now)
            self.machines.append(machine)
            traffic = traffics[key] = PeerTraffic(str(address), machine)
            machine.handle_timeout(self.now)
            for item in machine.transmits():
                assert isinstance(item, GreSend)
                self.destinations.sent(item.destination, traffic)
        self.desk = HandshakeDesk(
            identity,
            traffics,
            by_index=lambda index: None,
            peers_at=self.destinations.peers_at,
            settled=lambda traffic: None,
            answer=lambda frame, ppp: None,
            entropy=rng.randbytes,
            now=lambda: self.now,
        )

    def forge(self, source: IPv4Address) -> int:
        """A probe of nobody's; how many machines had to look at it."""
        before = self.asked
        probe = build_clear(ClearPacket(ClearKind.PROBE, self.rng.randbytes(44)))
        self.desk.receive(GreFrame(source, Form.V1, probe))
        return self.asked - before

    @property
    def asked(self) -> int:
        return sum(machine.asked for machine in self.machines)


def test_a_probe_from_where_a_peer_is_expected_is_looked_at_for_that_peer_alone() -> None:
    desk = Desk(PEERS)
    assert all(desk.forge(address) == 1 for address in desk.addresses)
    assert desk.machines[0].asked == 1


def test_probes_from_anywhere_are_looked_at_as_far_as_there_is_time() -> None:
    desk = Desk(PEERS)
    looked_at = 0
    for _ in range(1500):
        desk.now += 1e-3
        looked_at += desk.forge(STRANGER)
    assert looked_at <= PROBES_PER_SECOND * (desk.now + 1) + PEERS
    assert desk.desk.drops[Drop.RATE_LIMITED] > 0
    desk.now += 1.0
    assert desk.forge(STRANGER) == PEERS  # a pool may give a peer another address, so strangers are not shut out


def test_a_single_peer_is_never_short_of_looks() -> None:
    desk = Desk(1)
    for _ in range(2000):
        desk.now += 1e-3
        assert desk.forge(STRANGER) == 1


def test_what_is_remembered_of_destinations_is_bounded_and_the_latest_stay() -> None:
    desk = Desk(1)
    (traffic,) = desk.destinations.peers_at(desk.addresses[0])
    for number in range(REMEMBERED):
        desk.destinations.sent(IPv4Address(number), traffic)
        desk.destinations.sent(desk.addresses[0], traffic)
    assert desk.destinations.peers_at(desk.addresses[0]) == [traffic]
    desk.destinations.sent(STRANGER, traffic)
    for number in range(REMEMBERED):
        desk.destinations.sent(IPv4Address(number), traffic)
    assert desk.destinations.peers_at(desk.addresses[0]) == []


def test_news_and_probes_concern_those_that_send_there() -> None:
    siege = Siege(lower=False)
    siege.handshake()
    machine = siege.machine
    assert not machine.sends_to(THERE)
    siege.tell(Candidates(1, 0.02, THERE, frozenset(Form), ()))
    siege.tell(PlanReply(1, True))
    assert machine.sends_to(THERE), f"a round aims there, seed {SEED}"
    siege.enter_hole()
    session = siege.machine._session
    assert session is not None
    session.traversal.stop(siege.now)
    assert machine.sends_to(PLACE[0])
    assert not machine.sends_to(STRANGER)
