"""NATs that pass GRE only for a PPTP call they have seen: two endpoints come up through them, and stay up.

The TCP between the two is a toy: it is there a moment after both have dialled, keeps the order, and ends for both. A
NAT knows of the call when its host does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import Enum

import pytest

from grepunch.peer import (
    MirrorClosed,
    MirrorConnected,
    MirrorData,
    MirrorDial,
    MirrorHangUp,
    MirrorKeep,
    MirrorReceived,
    PathUp,
)
from grepunch.peer.mirror import CONNECT_WAIT, JUDGE_AFTER, MIRROR_AFTER, MirrorNews, MirrorTransmit
from grepunch.ports import Form, GreSend
from grepunch.punch.winners import Winner
from tests.punch import simnat
from tests.sim.peer_world import Host, World

CONNECTING = 0.1


class Demand(Enum):
    """What a NAT wants to see before it passes GRE."""

    NOTHING = "Call ID 0 passes of its own accord, and no other"  # G2
    CALL = "any call"  # G5
    OUTGOING_CALL = "an outgoing call"  # G5K


class CallWorld(World):
    """``delay``: seconds more each way, for TCP and GRE alike. ``connecting``: from both dials to the connection."""

    def __init__(self, a: Demand, b: Demand, *, delay: float = 0.0, connecting: float = CONNECTING) -> None:
        super().__init__("G2", "G2", seed=5)
        self.demands = {"a": a, "b": b}
        self.delay, self.connecting = delay, connecting
        self.dials = {"a": 0, "b": 0}  # the number of the latest, 0 where there is none
        self.calls: dict[str, int | None] = {"a": None, "b": None}  # the Call IDs of calls that are up
        self.connected: tuple[int, int] | None = None  # of which dials
        self.dialled = 0

    # -- GRE ------------------------------------------------------------------------------------------------

    def send_gre(self, host: Host, send: GreSend) -> None:
        if self._passes(host.name, send.form, self.calls[host.name] or 0):
            super().send_gre(host, send)
        else:
            host.sent.append((self.now, send))

    def _deliver(self, receiver: simnat.Side, packet: simnat.Packet) -> None:
        sender = self.calls[self.other(receiver).name] or 0
        if self._passes(receiver.name, packet.form, sender):
            self.at(self.now + self.delay, lambda: super(CallWorld, self)._deliver(receiver, packet))

    def _passes(self, name: str, form: Form, call_id: int) -> bool:
        carried = call_id if form is Form.V1 else 0
        match self.demands[name]:
            case Demand.NOTHING:
                return carried == 0
            case Demand.CALL:
                return carried == self.calls[name]
            case Demand.OUTGOING_CALL:
                return carried != 0 and carried == self.calls[name]

    # -- TCP ------------------------------------------------------------------------------------------------

    def settle(self, host: Host) -> None:
        transmits = host.machine.transmits()
        for item in transmits:
            if isinstance(item, MirrorTransmit):
                self._mirror(host, item)
            else:
                host.machine._out = [item]
                super().settle(host)
        super().settle(host)

    def _mirror(self, host: Host, item: MirrorTransmit) -> None:
        match item:
            case MirrorDial():
                self._hang_up(host)
                self.dialled += 1
                self.dials[host.name] = self.dialled
                dials = self.dials["a"], self.dials["b"]
                if all(dials):
                    self.at(self.now + self.connecting + self.delay, lambda: self._connect(dials))
            case MirrorData(message=message):
                self._tell(self.other_host(host), MirrorReceived(message))
            case MirrorKeep(call_id=call_id):
                self.calls[host.name] = call_id
            case MirrorHangUp():
                self._hang_up(host)

    def _connect(self, dials: tuple[int, int]) -> None:
        if dials == (self.dials["a"], self.dials["b"]):
            self.connected = dials
            for host in self.hosts.values():
                host.machine.receive_mirror(MirrorConnected(), host.now)
                self.settle(host)

    def _tell(self, host: Host, news: MirrorNews) -> None:
        """To the other end of this connection, if it is there by then."""
        connected = self.connected

        def arrive() -> None:
            if self.connected == connected:
                host.machine.receive_mirror(news, host.now)
                self.settle(host)

        if connected is not None:
            self.at(self.now + simnat.SIGNALLING_DELAY + self.delay, arrive)

    def _hang_up(self, host: Host) -> None:
        """The host is done with its connection; the other end hears of it."""
        self.dials[host.name], self.calls[host.name] = 0, None
        if self.connected is not None:
            self.connected = None
            other = self.other_host(host)
            dial = self.dials[other.name]
            self.at(self.now + simnat.SIGNALLING_DELAY + self.delay, lambda: self._break(other, dial))

    def _break(self, host: Host, dial: int) -> None:
        if self.dials[host.name] == dial:
            self.dials[host.name], self.calls[host.name] = 0, None
            host.machine.receive_mirror(MirrorClosed(), host.now)
            self.settle(host)

    def reset(self) -> None:
        """Somebody on the way ends the connection, for both."""
        self.connected = None
        for host in self.hosts.values():
            self._break(host, self.dials[host.name])

    def seconds_until(self, done: Callable[[], bool], limit: float) -> float:
        began = self.now
        self.run(began + limit, done)
        assert done(), self.story()
        return self.now - began


PAIRS = [
    (Demand.CALL, Demand.CALL, False),
    (Demand.CALL, Demand.NOTHING, False),
    (Demand.OUTGOING_CALL, Demand.OUTGOING_CALL, True),
    (Demand.CALL, Demand.OUTGOING_CALL, True),
]


@pytest.mark.parametrize(("connecting", "delay"), [(0.1, 0.0), (2.2, 0.0), (0.1, 0.3), (2.2, 0.3), (3.5, 0.15)])
@pytest.mark.parametrize(("a", "b", "outgoing"), PAIRS)
def test_the_call_that_helps_is_recognised_however_late_it_comes_and_however_far_the_peer_is(
    a: Demand, b: Demand, outgoing: bool, connecting: float, delay: float
) -> None:
    world = CallWorld(a, b, delay=delay, connecting=connecting)
    world.start()
    call = connecting + 8 * (simnat.SIGNALLING_DELAY + delay)  # six messages one after the other at the most
    forms = 2 if outgoing else 1
    assert world.come_up() < 1.0 + MIRROR_AFTER + forms * call + (forms - 1) * JUDGE_AFTER + 10 * delay, world.story()
    assert {host.path_ups()[0].mirrored for host in world.hosts.values()} == {True}, world.story()
    assert set(world.calls.values()) == {1723 if outgoing else 0}, world.story()


@pytest.mark.parametrize(("a", "b"), [(a, b) for a, b, _ in PAIRS])
def test_whatever_each_remembers_of_calls_they_meet(a: Demand, b: Demand) -> None:
    winners = (None, Winner(Form.V1, mirrored=True), Winner(Form.V1, mirrored=True, outgoing=True))
    for ours, theirs in itertools.product(winners, winners):
        world = CallWorld(a, b)
        world.dialer.winner, world.server.winner = ours, theirs
        world.start()
        assert world.come_up() < 6.0, world.story()


@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.15, 0.3, 1.0])
@pytest.mark.parametrize(("a", "b", "outgoing"), PAIRS)
def test_a_connection_that_is_reset_at_any_time_costs_seconds(
    a: Demand, b: Demand, outgoing: bool, after: float
) -> None:
    """Before a probe has passed, while the path is proven, while PPP comes up, and later."""
    world = CallWorld(a, b)
    world.start()
    world.seconds_until(lambda: set(world.calls.values()) == {1723 if outgoing else 0}, CONNECT_WAIT)
    world.run_for(after)
    world.reset()
    at = world.now

    def back() -> bool:
        hosts = world.hosts.values()
        ups = [up for host in hosts for up in host.of(PathUp, since=at)]
        return world.both_up() and len(ups) >= 2 and all(host.machine.path.received_at > at for host in hosts)

    assert world.seconds_until(back, 60.0) < CONNECT_WAIT, world.story()
