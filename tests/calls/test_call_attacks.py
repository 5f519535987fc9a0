"""Sessions cut anywhere, and hostile octets in GRE: nothing is raised, nothing is left, nothing grows."""

from __future__ import annotations

import random

import pytest

from pptp.errors import Terminated, TerminationCause
from pptp.ordinary import Admission, CallOver, CallUp, GreOut, OrdinaryConnection, PeerIdentified, StreamOut
from pptp.wire.gre import build_v1, parse
from tests.calls.call_world import CLIENT, SERVER, World, admit_one, dialling, end, ip_packet, serving, stateful
from tests.calls.scripted import Scripted
from tests.calls.windows import Windows

MUTATIONS = 20_000
LISTENERS = 10
SEED = 1723


@pytest.mark.parametrize("shard", range(4))
def test_a_session_cut_at_any_moment_gives_back_what_it_had(shard: int) -> None:
    """Addresses as an owner counts them: taken at admission, free again with ``CallOver``."""
    for number in range(shard, 120, 4):
        rng = random.Random(f"{SEED}/{number}")
        admitted: list[int] = []

        def admit(call_id: int, user: str, admitted: list[int] = admitted) -> Admission | Terminated:
            admitted.append(call_id)
            return admit_one(call_id, user)

        world = World(serving(), dialling(), seed=number, loss=0.1, admit=admit)
        world.run(rng.uniform(0.0, 1.5))
        cut = rng.choice(((SERVER,), (CLIENT,), (SERVER, CLIENT)))
        for side in cut:
            world.ends[side].connection.stream_closed(world.now)
        world.run(world.now + 60.0)
        for each in world.ends:
            assert each.over, f"number {number}"
            assert not each.call_ids.out
            assert len(each.of(CallOver)) == len(each.of(CallUp))
            assert each.connection.deadline() is None
        assert {event.call_id for event in world.ends[SERVER].of(CallOver)} >= set(admitted)


def recorded() -> list[tuple[int, StreamOut | GreOut]]:
    """What the two ends of a good session say, by sender."""
    world = World(serving(), dialling(), seed=4)
    world.run(2.0)
    for number in range(5):
        for side in (SERVER, CLIENT):
            world.send_data(side, number)
    world.run(3.0)
    return [(side, out) for _, side, out in world.wire]


def mutated(rng: random.Random, packet: bytes) -> bytes:
    """The same with bits flipped, cut, or grown; or noise under the same header."""
    changed = bytearray(packet)
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 1:
            del changed[rng.randrange(len(changed)) :]
        case 2:
            changed += rng.randbytes(rng.randrange(1, 40))
        case 3:
            changed[min(16, len(changed)) // 2 :] = rng.randbytes(rng.randrange(60))
        case _:
            at = rng.randrange(8, len(changed)) if len(changed) > 8 else 0
            changed[at : at + 2] = rng.choice((b"\0\0", b"\xff\xff", b"\x01\x00", b"\0\x04"))
    return bytes(changed)


class Listener:
    """An end that hears what was recorded up to some moment, and then hostile frames at the numbers that follow."""

    def __init__(self, receiver: int) -> None:
        self.end = end(serving() if receiver == SERVER else dialling(), 2 * 4 + receiver)
        self.machine: OrdinaryConnection = self.end.connection
        self.now = 0.0
        self.sequence = 0
        self.call_id = 5000 if receiver == SERVER else 100
        self.machine.open(self.now)

    def hear(self, out: StreamOut | GreOut) -> None:
        self.now += 0.01
        if isinstance(out, StreamOut):
            self.machine.receive_stream(out.data, self.now)
        elif payload := parse(out.packet).payload:
            self.frame(bytes(payload))
        self.machine.handle_timeout(self.now)

    def frame(self, frame: bytes) -> None:
        packet = build_v1(self.call_id, frame, self.sequence)
        self.sequence += 1
        for protocol, _ in self.machine.receive_gre(packet, self.now):
            assert protocol in (0x21, 0x57)

    def finish(self) -> bool:
        """End it; whether the link had lived up to there."""
        self.end.events += self.machine.events()
        lived = not self.end.of(CallOver)
        self.machine.transmits()
        self.machine.stream_closed(self.now)
        self.end.events += self.machine.events()
        assert isinstance(self.end.events[-1], Terminated)
        assert not self.end.call_ids.out
        return lived


@pytest.mark.parametrize("receiver", [SERVER, CLIENT])
def test_mutated_frames_in_every_phase_raise_nothing(receiver: int) -> None:
    """The session up to each of its frames, then that frame mutated, in order and under the right Call ID."""
    heard = [out for side, out in recorded() if side != receiver]
    turns = [at for at, out in enumerate(heard) if isinstance(out, GreOut) and parse(out.packet).payload]
    rng = random.Random(SEED)
    lived = 0
    for turn in turns:
        last = heard[turn]
        assert isinstance(last, GreOut)
        frame = bytes(parse(last.packet).payload)
        for _ in range(LISTENERS):
            listener = Listener(receiver)
            for out in heard[:turn]:
                listener.hear(out)
            for _ in range(MUTATIONS // 2 // LISTENERS // len(turns) + 1):
                listener.frame(mutated(rng, frame))
            lived += listener.finish()
    assert lived > len(turns) * LISTENERS // 2


def test_mutated_packets_raise_nothing() -> None:
    """Headers as well as frames."""
    rng = random.Random(SEED)
    packets = [out.packet for side, out in recorded() if side == CLIENT and isinstance(out, GreOut)]
    listener = Listener(SERVER)
    for side, out in recorded():
        if side == CLIENT:
            listener.hear(out)
    for number in range(MUTATIONS):
        listener.machine.receive_gre(mutated(rng, packets[number % len(packets)]), listener.now)
        listener.machine.transmits()
    listener.finish()


def test_forged_packets_under_a_wrong_call_id_and_then_the_right_one_leave_a_stateful_session_alive() -> None:
    """Encrypted frames of noise at the very next numbers: the one thing that no check before the cipher can tell."""
    world = World(serving(mppe=stateful()), dialling(mppe=stateful()))
    world.run(2.0)
    server = world.ends[SERVER]
    rng = random.Random(SEED)
    for call_id in (server.call_id + 1, server.call_id):
        for number in range(3000):
            header = b"\x30\x01\x88\x0b\x00\x30" + call_id.to_bytes(2, "big") + rng.randbytes(4)
            server.connection.receive_gre(header + b"\xff\x03\x00\xfd" + rng.randbytes(44), world.now)
            if number % 300 == 0:
                world.send_data(CLIENT, number)
                world.run(world.now + 0.1)
    world.run(world.now + 2.0)
    assert world.numbers(SERVER)[-10:] == list(range(0, 3000, 300))
    status = server.connection.status()
    assert sum(status.drops.values()) == 3000
    assert sum(status.calls[0].drops.values()) >= 2990


def test_a_flood_of_requests_to_negotiate_is_answered_and_nothing_of_it_kept() -> None:
    script = Scripted(serving()).lcp_up()
    script.take_packets()
    for number in range(5000):
        script.ppp(0x8021, b"\x01" + bytes((number & 0xFF,)) + b"\x00\x0a\x03\x06" + bytes(4))
        script.ppp(0x21, ip_packet(number))
        script.ppp(0x4001, bytes(20))
        if len(script.packets) > 100:
            script.take_packets()
    assert not script.of(CallOver)
    script.wait(60.0)
    assert script.of(CallOver)


def test_a_peer_does_not_fill_our_log_with_what_it_says_of_itself() -> None:
    script = Scripted(serving()).lcp_up()
    for number in range(500):
        script.cp(0xC021, 12, number & 0xFF, data=bytes(4) + b"me, number %d" % number)
    assert len(script.of(PeerIdentified)) == 4


def test_a_wrong_password_explains_no_end_of_our_own() -> None:
    for own, expected in ((True, TerminationCause.LOCAL_REQUEST), (False, TerminationCause.AUTHENTICATION)):
        client = Windows(serving(), password="guess", swaps=False)
        client.dial()
        client.begin()
        client.script.wait(0.4)
        client.settle()
        assert client.verdicts
        if own:
            client.script.connection.close(client.script.now)
            client.script.wait(5.0)
        else:
            client.script.connection.stream_closed(client.script.now)
            client.script.collect()
        assert client.script.one(CallOver).cause.cause is expected
