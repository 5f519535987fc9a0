"""Who floods a listening peer with handshakes, in the dialer's name, hardly delays the dialer."""

from __future__ import annotations

import random

from grepunch.ports import Form, GreFrame
from grepunch.secure.constants import COOKIE_SIZE
from grepunch.secure.derive import mac, mac1_key
from grepunch.secure.fragments import build_fragments
from grepunch.secure.handshake import MessageType
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear
from tests.sim.peer_world import Host, World

# ours: five times what a host opens without a cookie; more would only be dropped sooner
FORGED_PER_SECOND = 250
BATCH = 5
AT_ONCE = 100  # in the beginning: more than a host opens in a burst
DIALS = 100
LIMIT = 5.0  # seconds a dial may take
INITIATION_SIZE = 1355


class Flood:
    """What looks like message 1 to anyone without the private key, and first parts that no second one follows."""

    def __init__(self, victim: Host, rng: random.Random) -> None:
        key = victim.identity.public_key
        self.frames: list[list[bytes]] = []
        for number in range(12):
            header = bytes((MessageType.INITIATION, 1, 0, 0)) + rng.randbytes(4) + bytes(4)
            message = header + rng.randbytes(INITIATION_SIZE - 16 - COOKIE_SIZE - len(header))
            cookie = bytes(COOKIE_SIZE) if number % 4 else rng.randbytes(COOKIE_SIZE)
            parts = build_fragments(message + mac(mac1_key(key), message) + cookie, key)
            clear = [build_clear(ClearPacket(ClearKind.HANDSHAKE_FRAGMENT, part)) for part in parts]
            self.frames.append(clear if number % 6 else clear[:1])
        self._victim, self._rng, self.poured = victim, rng, 0

    def pour(self, world: World) -> None:
        """The next forged datagrams, in the dialer's name: from when its address is proven until keys are agreed on.

        Before, none is looked at, and afterwards there is nothing to hinder.
        """
        host, source = self._victim, world.other_host(self._victim).side.external
        if host.running and host.machine.sending_pair is not None:
            return
        if host.running and host.machine.trusts(source):
            form = self._rng.choice((Form.V1, Form.V0))
            number = BATCH if self.poured else AT_ONCE
            self.poured += number
            frames = [frame for forged in self._rng.choices(self.frames, k=number) for frame in forged]
            host.gre.arrived += [GreFrame(source, form, frame, 60) for frame in frames]
            while host.gre.arrived:
                host.pump.gre_readable()
            world.settle(host)
        world.at(world.now + (BATCH / FORGED_PER_SECOND if self.poured else 1e-3), lambda: self.pour(world))


def test_dials_succeed_during_a_flood_of_forged_handshakes() -> None:
    in_time = 0
    for seed in range(DIALS):
        world = World("G2", "G2", seed=seed, rendezvous=False, known=True, jitter=0.002)
        world.start()
        flood = Flood(world.server, random.Random(seed))
        flood.pour(world)
        world.run(world.now + LIMIT, world.both_up)
        in_time += world.both_up()
        assert flood.poured > AT_ONCE, f"the flood came too late, seed {seed}"
    print(f"{in_time} of {DIALS} dials were up within {LIMIT:.0f} s")
    assert in_time >= 0.99 * DIALS
