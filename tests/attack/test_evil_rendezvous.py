"""Two whole endpoints at a rendezvous that swaps addresses, replays, mixes mailboxes and points them at a third host.

It gets no key and pairs nobody wrongly; what it can do is keep two peers apart, and have a stranger sent so many small
packets as nobody would notice.
"""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from grepunch.peer import MailboxSend, PeerState
from grepunch.peer.mirror import DIAL_PACKETS, MirrorDial
from grepunch.punch.plan import BUDGET_HOURLY_PACKETS, BUDGET_PACKETS, BUDGET_PERIOD
from grepunch.secure.handshake import MessageType
from pptp.mtu import GRE_V1_HEADER, IPV4_HEADER
from tests.sim.peer_world import Host, World

THIRD = IPv4Address("192.0.2.99")  # nothing of it is ours
LARGEST_PROBE = 100  # octets on the wire
HOUR = 3600.0


class EvilWorld(World):
    """A world whose rendezvous tells hosts where they were seen as ``claims`` says, and counts calls (TCP)."""

    def __init__(self, class_a: str = "G2", class_b: str = "G2", *, seed: int = 1, **claims: IPv4Address) -> None:
        super().__init__(class_a, class_b, seed=seed)
        self.claims = claims
        self.calls: list[tuple[float, Host, IPv4Address]] = []

    def join(self, host: Host) -> None:
        super().join(host)
        host.seen_external = self.claims.get(host.name, host.seen_external)

    def settle(self, host: Host) -> None:
        transmits = host.machine.transmits()
        self.calls += [(self.now, host, item.address) for item in transmits if isinstance(item, MirrorDial)]
        host.machine._out = transmits
        super().settle(host)

    def to_third(self, host: Host) -> list[float]:
        """When packets left that reach a third host; a call is as many as its SYNs can be."""
        probes = [at for at, send in host.sent if send.destination == THIRD and send.ttl is None]
        calls = [at for at, who, to in self.calls if who is host and to == THIRD for _ in range(DIAL_PACKETS)]
        return sorted(probes + calls)


def keys(world: World) -> int:
    """How many key pairs are live on both hosts together."""
    return sum(len(host.exchange.pairs) for host in world.hosts.values())


# -- points probes at a third host ------------------------------------------------------------------------------


def test_a_third_host_gets_at_most_64_packets_of_100_octets_in_a_window() -> None:
    world = EvilWorld(a=THIRD)
    world.start()
    world.run_for(BUDGET_PERIOD + 5)
    sent = world.to_third(world.server)
    assert 0 < len(sent) <= BUDGET_PACKETS, world.story()
    sizes = [len(send.ppp) for _, send in world.server.sent if send.destination == THIRD]
    assert max(sizes) + IPV4_HEADER + GRE_V1_HEADER <= LARGEST_PROBE
    assert world.to_third(world.dialer) == []


def test_a_third_host_gets_no_more_for_waiting() -> None:
    world = EvilWorld(a=THIRD)
    world.start()
    world.run_for(1000.0)
    sent = world.to_third(world.server)
    assert len(sent) <= BUDGET_HOURLY_PACKETS, world.story()
    late = zip(sent, sent[BUDGET_PACKETS:], strict=False)
    assert all(later - earlier >= BUDGET_PERIOD for earlier, later in late)


def test_a_third_host_gets_no_more_when_the_rendezvous_makes_peers_begin_again_and_again() -> None:
    world = EvilWorld(a=THIRD)
    world.start()

    def restart() -> None:
        world.stop_meeting()
        world.restart_meeting()

    for number in range(1, 25):
        world.at(number * 4.0, restart)
    world.run_for(110.0)
    for host in world.hosts.values():
        sent = world.to_third(host)
        assert len(sent) <= BUDGET_HOURLY_PACKETS, world.story()
        late = zip(sent, sent[BUDGET_PACKETS:], strict=False)
        assert all(later - earlier >= BUDGET_PERIOD for earlier, later in late), world.story()


@pytest.mark.parametrize("claim", ["127.0.0.1", "224.0.0.1", "255.255.255.255", "10.9.9.9", "100.64.7.7", "0.1.2.3"])
def test_nobody_inside_a_network_is_a_third_host(claim: str) -> None:
    world = EvilWorld(a=IPv4Address(claim))
    world.start()
    world.run_for(5.0)
    assert not [send for _, send in world.server.sent if send.destination == IPv4Address(claim)], world.story()


# -- swaps addresses --------------------------------------------------------------------------------------------


def test_swapped_addresses_pair_nobody_wrongly() -> None:
    honest = World(seed=1)
    world = EvilWorld(a=honest.b.external, b=honest.a.external)
    world.start()
    world.run_for(40.0)
    for host in world.hosts.values():
        assert host.machine.state is not PeerState.UP, world.story()
        assert not host.path_ups(), world.story()
        assert all(send.destination == host.side.external for _, send in host.sent), world.story()


def test_an_address_that_is_the_peer_s_own_is_met_with_silence_and_the_truth_brings_them_up() -> None:
    world = EvilWorld(a=THIRD)
    world.start()
    world.run_for(10.0)
    assert not world.both_up()
    world.claims = {}
    world.stop_meeting()
    world.restart_meeting()
    world.come_up(80.0)
    assert world.dialer.path_ups()[0].address == world.server.side.external, world.story()


# -- replays ------------------------------------------------------------------------------------------------------


class Replaying(World):
    """Every blob comes again, to both sides, three times."""

    def _send_blob(self, host: Host, blob: bytes) -> None:
        super()._send_blob(host, blob)
        for number in range(3):
            for receiver in self.hosts.values():
                again = lambda receiver=receiver: self._deliver_blob(receiver, blob)  # noqa: E731
                self.at(self.now + 0.05 + number * 0.7, again)


def test_replays_make_no_keys_and_end_no_session() -> None:
    world = Replaying(seed=3)
    world.start()
    world.come_up()
    world.run_for(3.0)
    ups = [host.exchange.live for host in world.hosts.values()]
    everything = [blob for host in world.hosts.values() for _, blob in host.blobs]
    for blob in everything:
        for host in world.hosts.values():
            world._deliver_blob(host, blob)
    world.run_for(5.0)
    assert world.both_up(), world.story()
    assert [host.exchange.live for host in world.hosts.values()] == ups, "no replay has made other keys"
    assert all(len(host.path_ups()) == 1 for host in world.hosts.values()), world.story()


def test_a_recorded_meeting_replayed_to_a_peer_that_started_anew_gives_no_keys() -> None:
    world = World(seed=4)
    world.start()
    world.come_up()
    recorded = [blob for _, blob in world.dialer.blobs]
    assert any(blob[:1] == bytes([MessageType.INITIATION]) for blob in recorded)
    world.kill(world.dialer)
    world.kill(world.server)
    world.run_for(1.0)
    world.start_host(world.server)
    before = len(world.server.sent)
    for _ in range(3):
        for blob in recorded:
            world._deliver_blob(world.server, blob)
        world.run_for(2.0)
    assert world.server.exchange.live is None, world.story()
    assert world.server.machine.state is not PeerState.UP
    assert len(world.server.sent) == before, "nor does a packet leave because of one"


# -- mixes mailboxes ----------------------------------------------------------------------------------------------


def test_blobs_of_another_mailbox_make_no_keys_and_no_pairs() -> None:
    """Two pairs that never have met: whatever one says is given to the other, from the first message on."""
    pairs = [World(seed=11), World(seed=12)]
    for world in pairs:
        world.blob_lost = lambda host, blob: True  # what is for the peer goes to strangers instead
        world.start()
    for _ in range(40):
        for world in pairs:
            world.run_for(0.5)
        for one, other in (pairs, reversed(pairs)):
            said = [blob for host in one.hosts.values() for _, blob in host.blobs]
            for host in other.hosts.values():
                for blob in said[-20:]:
                    other._deliver_blob(host, blob)
    for world in pairs:
        assert keys(world) == 0, world.story()
        assert not any(host.sent for host in world.hosts.values()), "no packet left for anybody"
        assert all(not host.path_ups() for host in world.hosts.values())


def test_strangers_blobs_among_the_true_ones_change_nothing() -> None:
    stranger = World(seed=21)
    stranger.start()
    stranger.come_up()
    foreign = [blob for host in stranger.hosts.values() for _, blob in host.blobs]
    world = World(seed=22)
    world.start()
    for number, blob in enumerate(foreign):
        for host in world.hosts.values():
            world.at(0.02 + 0.01 * number, lambda host=host, blob=blob: world._deliver_blob(host, blob))  # type: ignore[misc]
    world.come_up()
    for host in world.hosts.values():
        assert host.path_ups()[0].address == world.other_host(host).side.external, world.story()


# -- speaks for the peer ------------------------------------------------------------------------------------------


def test_whoever_answers_in_the_peer_s_place_without_its_key_gets_none() -> None:
    """The rendezvous joins in as a second B with an identity of its own: A talks to no other key than the pinned."""
    impostor = World(seed=31)
    world = World(seed=32)
    world.blob_lost = lambda host, blob: True
    world.start()
    impostor.start()
    impostor.server.peer_identity = world.dialer.identity  # it knows whom it wants to fool
    impostor.server.start_process()
    for _ in range(20):
        world.run_for(0.5)
        for _, blob in world.dialer.blobs[-3:]:
            impostor.server.machine.receive_blob(blob, impostor.server.now)
        for item in impostor.server.machine.transmits():
            if isinstance(item, MailboxSend):
                world._deliver_blob(world.dialer, item.blob)
    assert world.dialer.exchange.live is None, world.story()
    assert not world.dialer.sent, world.story()
