"""Client machines and one broker on a virtual clock: who meets whom, who is told what, and in which order."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from grepunch.rendezvous.broker import Broker, Tally
from grepunch.rendezvous.client import RendezvousClient
from grepunch.rendezvous.events import (
    BlobReceived,
    ClockSynced,
    DaysChanged,
    Disconnected,
    KeyInUseTwice,
    MailboxJoined,
    PeerAbsent,
    PeerPresent,
    Refused,
    ReplacedHere,
    ServerFault,
    Welcomed,
)
from grepunch.rendezvous.limits import BrokerLimits
from grepunch.rendezvous.messages import RefusalReason
from pptp.errors import UsageError
from tests.rendezvous.rendezvous_world import ALICE, BOB, MAILBOX, NOON, World, entropy_from, pair


def test_two_peers_meet_and_exchange_blobs_in_order() -> None:
    world = World()
    alice, bob = pair(world)
    assert len(alice.take(PeerPresent)) == len(bob.take(PeerPresent)) == 1
    blobs = [bytes([n]) * (n + 1) for n in range(20)]
    assert all(alice.machine.send(MAILBOX, blob, world.now) for blob in blobs)
    bob.machine.send(MAILBOX, b"back", world.now)
    world.run(1.0)
    assert [event.payload for event in bob.take(BlobReceived)] == blobs
    assert alice.take(BlobReceived) == [BlobReceived(MAILBOX, b"back")]


def test_the_welcome_tells_address_day_and_instance() -> None:
    world = World()
    alice, bob = pair(world)
    (welcome,) = alice.take(Welcomed)
    assert (welcome.day, welcome.seconds_to_next_day) == (20_000, 43_200)
    assert welcome.observed == IPv4Address("198.51.100.1")
    assert welcome.server_instance == bob.take(Welcomed)[0].server_instance
    assert alice.take(DaysChanged) == [DaysChanged((20_000,))]


def test_nothing_comes_before_the_welcome_and_joined_comes_before_present() -> None:
    world = World()
    _, bob = pair(world)
    kinds = [type(event) for event in bob.seen]
    assert kinds[:2] == [Welcomed, DaysChanged]
    assert kinds.index(MailboxJoined) < kinds.index(PeerPresent)


def test_an_ipv6_peer_has_no_observed_address_and_a_mapped_one_has() -> None:
    broker = Broker(entropy=entropy_from(1), unix_time=lambda: NOON)
    broker.connect(1, IPv6Address("2001:db8::1"), 0.0)
    broker.connect(2, IPv6Address("::ffff:192.0.2.7"), 0.0)
    texts = [text for _, text in broker.transmits()]
    assert '"observed":null' in str(texts[0])
    assert '"observed":"192.0.2.7"' in str(texts[1])


def test_the_clock_takes_five_round_trips_back_to_back_and_is_known_within_half_the_best() -> None:
    world = World()
    alice = world.peer(delay=0.25)
    alice.connect()
    world.run(0.25 + 5 * 0.5 - 0.01)
    assert not alice.machine.synchronised
    world.run(0.02)
    (synced,) = alice.take(ClockSynced)
    assert synced.rtt == pytest.approx(0.5)
    assert abs(alice.machine.server_time(world.now) - world.now) <= synced.error + 1e-6
    assert alice.machine.local_time(alice.machine.server_time(5.0)) == pytest.approx(5.0)


def test_the_shortest_round_trip_wins_on_an_uneven_line() -> None:
    world = World()
    alice = world.peer(delay=0.4)
    alice.connect()
    world.run(2.3)
    alice.delay = 0.02
    world.run(2.0)
    (synced,) = alice.take(ClockSynced)
    assert synced.rtt <= 0.42 + 1e-9
    assert abs(alice.machine.server_time(world.now) - world.now) <= synced.error + 1e-6


def test_the_clock_is_asked_again_before_it_drifts_and_forgotten_with_another_server_instance() -> None:
    world = World()
    alice = world.peer()
    alice.connect()
    world.run(1.0)
    alice.machine.join(MAILBOX, ALICE, world.now)
    world.run(1300.0)
    assert len(alice.take(ClockSynced)) == 3
    alice.close()
    assert alice.machine.synchronised
    alice.connect()
    world.run(0.015)
    assert alice.machine.synchronised
    world.restart()
    alice.connect()
    world.run(0.015)
    assert not alice.machine.synchronised
    with pytest.raises(UsageError):
        alice.machine.server_time(world.now)


def test_leaving_and_losing_the_connection_are_told_to_the_other() -> None:
    world = World()
    alice, bob = pair(world)
    alice.machine.leave(MAILBOX, world.now)
    world.run(1.0)
    assert bob.take(PeerAbsent) == [PeerAbsent(MAILBOX)]
    alice.machine.join(MAILBOX, ALICE, world.now)
    world.run(1.0)
    alice.close()
    world.run(1.0)
    assert len(bob.take(PeerAbsent)) == 2
    assert len({event.incarnation for event in bob.take(PeerPresent)}) == 2
    assert alice.machine.events() == [Disconnected()]


def test_a_peer_that_returns_before_its_ghost_is_buried_replaces_it() -> None:
    world = World()
    alice, bob = pair(world)
    ghost = alice.connection
    alice.vanish()
    alice.connect()
    world.run(1.0)
    assert ghost is not None
    assert not bob.take(PeerAbsent)
    assert len({event.incarnation for event in bob.take(PeerPresent)}) == 2
    bob.machine.send(MAILBOX, b"for the living", world.now)
    world.run(40.0)
    assert alice.take(BlobReceived) == [BlobReceived(MAILBOX, b"for the living")]
    assert not alice.take(KeyInUseTwice)
    world.broker.disconnect(ghost, world.now)  # found dead at last: that is no news to anybody
    world.run(1.0)
    assert not bob.take(PeerAbsent)
    assert world.broker.joins == 2


def test_two_live_holders_of_a_key_are_both_told_and_the_newer_one_stays() -> None:
    world = World()
    alice, bob = pair(world)
    twin = world.peer("192.0.2.77")
    twin.machine.join(MAILBOX, ALICE, world.now)
    twin.connect()
    world.run(600.0)
    assert alice.take(ReplacedHere) == [ReplacedHere(MAILBOX)]
    assert alice.take(KeyInUseTwice) == [KeyInUseTwice(MAILBOX, holding=False)]
    assert twin.take(KeyInUseTwice) == [KeyInUseTwice(MAILBOX, holding=True)]
    assert len({event.incarnation for event in bob.take(PeerPresent)}) == 2  # once each: they do not take turns
    assert world.broker.tallies[Tally.REFUSED] > 10  # the older one goes on asking


def test_the_older_holder_returns_when_the_newer_one_has_gone() -> None:
    world = World()
    alice, bob = pair(world)
    twin = world.peer("192.0.2.77")
    twin.machine.join(MAILBOX, ALICE, world.now)
    twin.connect()
    world.run(100.0)
    twin.close()
    world.run(40.0)
    assert len(alice.take(MailboxJoined)) == 2
    assert len({event.incarnation for event in bob.take(PeerPresent)}) == 3
    bob.machine.send(MAILBOX, b"hello again", world.now)
    world.run(1.0)
    assert alice.take(BlobReceived) == [BlobReceived(MAILBOX, b"hello again")]


def test_a_holder_whose_twin_has_given_up_gets_back_in_after_its_own_outage() -> None:
    world = World()
    alice, _ = pair(world)
    twin = world.peer("192.0.2.77")
    twin.machine.join(MAILBOX, ALICE, world.now)
    twin.connect()
    world.run(1.0)
    alice.close()  # for good
    ghost = twin.connection
    twin.vanish()  # the NAT reboots
    twin.connect()
    world.run(19.0)
    assert ghost is not None
    world.broker.disconnect(ghost, world.now)
    world.run(30.0)
    assert len(twin.take(MailboxJoined)) == 2


def test_a_third_tag_is_refused_and_the_pair_is_not_disturbed() -> None:
    world = World()
    alice, bob = pair(world)
    stranger = world.peer("192.0.2.66")
    stranger.machine.join(MAILBOX, b"c" * 16, world.now)
    stranger.connect()
    world.run(10.0)
    assert stranger.take(Refused) == [Refused(MAILBOX, RefusalReason.MAILBOX_FULL)]
    stranger.machine.send(MAILBOX, b"psst", world.now)
    bob.close()
    world.run(40.0)
    assert len(stranger.take(MailboxJoined)) == 1
    assert len(alice.take(PeerPresent)) == 2
    assert not alice.take(BlobReceived)


def test_blobs_wait_for_an_absent_peer_in_order_and_within_bounds() -> None:
    world = World()
    alice, bob = world.peer("198.51.100.1"), world.peer("203.0.113.2")
    alice.machine.join(MAILBOX, ALICE, world.now)
    alice.connect()
    world.run(1.0)
    for n in range(40):
        alice.machine.send(MAILBOX, bytes([n]), world.now)
    world.run(1.0)
    assert world.broker.queued_octets == 16
    bob.machine.join(MAILBOX, BOB, world.now)
    bob.connect()
    world.run(1.0)
    assert [event.payload for event in bob.take(BlobReceived)] == [bytes([n]) for n in range(16)]
    kinds = [type(event) for event in bob.seen]
    assert kinds.index(PeerPresent) < kinds.index(BlobReceived)
    assert world.broker.queued_octets == 0


def test_waiting_blobs_expire_and_leave_with_their_sender() -> None:
    world = World()
    alice, bob = world.peer("198.51.100.1"), world.peer("203.0.113.2")
    alice.machine.join(MAILBOX, ALICE, world.now)
    alice.connect()
    world.run(1.0)
    alice.machine.send(MAILBOX, b"old", world.now)
    world.run(119.0)
    assert world.broker.queued_octets == 3
    world.run(6.1)
    assert world.broker.queued_octets == 0
    alice.machine.send(MAILBOX, b"gone with me", world.now)
    world.run(1.0)
    alice.close()
    assert world.broker.queued_octets == 0
    bob.machine.join(MAILBOX, BOB, world.now)
    bob.connect()
    world.run(1.0)
    assert not bob.take(BlobReceived)


def test_the_queue_of_all_mailboxes_together_is_capped() -> None:
    world = World(limits=BrokerLimits(queued_octets=10_000))
    alice = world.peer()
    alice.connect()
    for n in range(8):
        alice.machine.join(bytes([n]) * 16, ALICE, world.now)
    world.run(1.0)
    for n in range(8):
        assert alice.machine.send(bytes([n]) * 16, bytes(4096), world.now)
    world.run(1.0)
    assert world.broker.queued_octets == 8192
    assert world.broker.tallies[Tally.BLOBS_DROPPED_QUEUE_FULL] == 6


def test_blobs_over_the_rate_are_dropped_and_the_connection_stays() -> None:
    world = World()
    alice, bob = pair(world)
    for _ in range(100):
        alice.machine.send(MAILBOX, b"x", world.now)
    world.run(0.5)
    assert len(bob.take(BlobReceived)) == 64
    world.run(0.5)
    assert alice.machine.send(MAILBOX, b"later", world.now)
    world.run(1.0)
    assert bob.take(BlobReceived)[-1].payload == b"later"
    assert not world.closed


def test_a_peer_joins_everything_anew_after_a_server_restart() -> None:
    world = World()
    alice, bob = pair(world)
    world.restart()
    alice.connect()
    bob.connect()
    world.run(1.0)
    assert len(alice.take(MailboxJoined)) == len(bob.take(MailboxJoined)) == 2
    assert len(alice.take(PeerPresent)) >= 2
    assert alice.take(Welcomed)[0].server_instance != alice.take(Welcomed)[1].server_instance


def test_a_new_day_is_announced_an_hour_before_and_the_old_one_dismissed_an_hour_after() -> None:
    world = World(wall=20_000 * 86_400 + 80_000.0)
    alice = world.peer()
    alice.machine.join(MAILBOX, ALICE, world.now)
    alice.connect()
    world.run(3 * 3600.0)
    assert alice.take(DaysChanged) == [DaysChanged(days) for days in [(20_000,), (20_000, 20_001), (20_001,)]]
    assert alice.machine.days(world.now) == (20_001,)


def test_a_wall_clock_that_jumps_changes_nothing_for_those_who_are_connected() -> None:
    world = World()
    alice, bob = pair(world)
    for jump in (86_400.0, -86_400.0, 3.2e8, -9e9):
        world.wall_offset += jump
        seen = len(alice.seen), len(bob.seen)
        world.run(10.0)
        assert (len(alice.seen), len(bob.seen)) == seen
        world.peer("192.0.2.200").connect()
    assert not world.closed


def test_news_that_crosses_a_leave_is_ignored() -> None:
    world = World()
    alice, bob = pair(world)
    bob.machine.send(MAILBOX, b"too late", world.now)
    world.run(0.035)
    alice.machine.leave(MAILBOX, world.now)
    alice.machine.join(MAILBOX, ALICE, world.now)
    world.run(1.0)
    assert not alice.take(BlobReceived)
    assert len(alice.take(MailboxJoined)) == 2
    assert not alice.take(ServerFault)


def test_the_machine_refuses_what_its_owner_should_not_ask() -> None:
    machine = RendezvousClient(entropy=entropy_from(1))
    machine.join(MAILBOX, ALICE, 0.0)
    machine.join(MAILBOX, ALICE, 0.0)
    with pytest.raises(UsageError):
        machine.join(MAILBOX, BOB, 0.0)
    with pytest.raises(UsageError):
        machine.join(b"short", ALICE, 0.0)
    with pytest.raises(UsageError):
        machine.send(MAILBOX, b"", 0.0)
    with pytest.raises(UsageError):
        machine.send(MAILBOX, bytes(4097), 0.0)
    assert machine.send(MAILBOX, b"not connected", 0.0) is False
    machine.leave(BOB, 0.0)
    machine.connected(0.0)
    with pytest.raises(UsageError):
        machine.connected(0.0)
    assert machine.transmits() == []


@pytest.mark.parametrize(
    "message",
    ['{"type":"joined","handle":1}', "not json", b"", b"\x00\x00", '{"type":"clock","id":1,"microseconds":1}'],
)
def test_a_server_that_breaks_the_protocol_is_a_fault_once(message: str | bytes) -> None:
    machine = RendezvousClient(entropy=entropy_from(1))
    machine.connected(0.0)
    machine.receive(message, 0.1)
    machine.receive(message, 0.2)
    machine.handle_timeout(60.0)
    (fault,) = machine.events()
    assert isinstance(fault, ServerFault)
    machine.disconnected(61.0)
    machine.disconnected(62.0)
    assert machine.events() == [Disconnected()]


def test_a_server_that_does_not_greet_is_a_fault() -> None:
    machine = RendezvousClient(entropy=entropy_from(1))
    machine.connected(0.0)
    assert machine.deadline() == 10.0
    machine.handle_timeout(9.9)
    assert machine.events() == []
    machine.handle_timeout(10.0)
    assert [type(event) for event in machine.events()] == [ServerFault]
