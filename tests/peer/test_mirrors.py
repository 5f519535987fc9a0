"""What becomes of the TCP connections of mirrored handshakes, on an event loop whose time the tests keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import cast

import pytest

from grepunch import mirrors
from grepunch.entrance import Entrance
from grepunch.io.errors import Refused
from grepunch.io.simultaneous import Connection
from grepunch.mirrors import NEXT_WAY_AFTER, Mirrors
from grepunch.peer import (
    MirrorClosed,
    MirrorConnected,
    MirrorDial,
    MirrorHangUp,
    MirrorKeep,
    MirrorReceived,
    PeerMachine,
)
from grepunch.peer.mirror import MirrorNews

PEER = IPv4Address("203.0.113.9")
NAME = "bob"
TAKEN = "TCP port 1723 cannot be used: Address already in use"


@dataclass
class Handle:
    due: float
    act: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Loop:
    """As much of an event loop as connections need."""

    now: float = 0.0
    handles: list[Handle] = field(default_factory=list)
    readers: dict[int, Callable[[], None]] = field(default_factory=dict)
    writers: dict[int, Callable[[], None]] = field(default_factory=dict)

    def call_later(self, delay: float, act: Callable[..., None], *arguments: object) -> Handle:
        handle = Handle(self.now + delay, lambda: act(*arguments))
        self.handles.append(handle)
        return handle

    def add_reader(self, descriptor: int, act: Callable[..., None], *arguments: object) -> None:
        self.readers[descriptor] = lambda: act(*arguments)

    def add_writer(self, descriptor: int, act: Callable[..., None], *arguments: object) -> None:
        self.writers[descriptor] = lambda: act(*arguments)

    def remove_reader(self, descriptor: int) -> None:
        del self.readers[descriptor]

    def remove_writer(self, descriptor: int) -> None:
        del self.writers[descriptor]

    def run_until(self, end: float) -> None:
        while due := [one for one in self.handles if one.due <= end and not one.cancelled]:
            first = min(due, key=lambda one: one.due)
            self.handles.remove(first)
            self.now = first.due
            first.act()
        self.now = end

    @property
    def idle(self) -> bool:
        return not (self.readers or self.writers or any(not one.cancelled for one in self.handles))


@dataclass
class Wire:
    """One connection. ``inbox`` is what is to be read: octets, or nothing for its end."""

    number: int
    from_same: bool
    succeeds: bool = True
    closed: bool = False
    inbox: list[bytes] = field(default_factory=list)

    def fileno(self) -> int:
        return self.number

    def finish(self) -> bool:
        return self.succeeds

    def send(self, message: bytes) -> bool:
        return not self.closed

    def receive(self) -> bytes | None:
        return self.inbox.pop(0) if self.inbox else None

    def close(self) -> None:
        self.closed = True


@dataclass
class Machine:
    """A peer machine that only listens."""

    config: SimpleNamespace
    news: list[MirrorNews] = field(default_factory=list)

    def receive_mirror(self, news: MirrorNews, now: float) -> None:
        self.news.append(news)


class Door:
    """An entrance through which the peer comes when a test lets it."""

    def __init__(self) -> None:
        self.shut = False
        self.awaited: dict[str, Callable[[Connection], None]] = {}

    def expect(self, name: str, address: IPv4Address, taker: Callable[[Connection], None]) -> None:
        if self.shut:
            raise Refused(TAKEN)
        self.awaited[name] = taker

    def forget(self, name: str) -> None:
        self.awaited.pop(name, None)


class Place:
    """One host's connections to one peer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, dialing: bool = True) -> None:
        self.loop, self.door = Loop(), Door()
        self.wires: list[Wire] = []
        self.port_taken = False
        self.notices: list[str] = []
        self.call_ids: list[int] = []
        self.machine = Machine(SimpleNamespace(dialing=dialing))
        monkeypatch.setattr(mirrors, "asyncio", SimpleNamespace(get_running_loop=lambda: self.loop))
        monkeypatch.setattr("grepunch.io.simultaneous.connect", self._connect)
        self.mirrors = Mirrors(
            cast(Entrance, self.door),
            now=lambda: self.loop.now,
            settled=lambda name: None,
            on_notice=lambda text, name: self.notices.append(text),
            set_call_id=lambda address, call_id: self.call_ids.append(call_id),
        )

    def _connect(self, address: IPv4Address, port: int, *, from_same: bool) -> Wire:
        if from_same and self.port_taken:
            raise Refused(TAKEN)
        self.wires.append(Wire(len(self.wires) + 10, from_same))
        return self.wires[-1]

    def act(self, item: MirrorDial | MirrorKeep | MirrorHangUp) -> None:
        self.mirrors.act(NAME, cast(PeerMachine, self.machine), item)

    def dial(self) -> None:
        self.machine.news.clear()
        self.act(MirrorDial(PEER))

    def finish(self, wire: Wire, *, succeeds: bool = True) -> None:
        """Connecting has come to its end."""
        wire.succeeds = succeeds
        self.loop.writers[wire.number]()

    def called(self) -> Wire:
        """The peer has called."""
        wire = Wire(len(self.wires) + 10, from_same=False)
        self.wires.append(wire)
        self.door.awaited[NAME](cast(Connection, wire))
        return wire

    def reads(self, wire: Wire, data: bytes) -> None:
        wire.inbox.append(data)
        self.loop.readers[wire.number]()

    def nothing_is_left(self) -> bool:
        return self.loop.idle and not self.door.awaited and all(wire.closed for wire in self.wires)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def test_one_way_after_the_other_is_tried_and_the_end_of_the_last_is_told(place: Place) -> None:
    place.dial()
    assert [wire.from_same for wire in place.wires] == [True]
    place.loop.run_until(NEXT_WAY_AFTER)
    assert [wire.from_same for wire in place.wires] == [True, False]
    place.finish(place.wires[0], succeeds=False)
    assert place.machine.news == []
    place.finish(place.wires[1], succeeds=False)
    assert place.machine.news == [MirrorClosed()]
    assert place.nothing_is_left()


def test_a_refused_way_makes_room_for_the_next_at_once(place: Place) -> None:
    place.dial()
    place.finish(place.wires[0], succeeds=False)
    assert [wire.from_same for wire in place.wires] == [True, False]
    place.loop.run_until(10 * NEXT_WAY_AFTER)
    assert len(place.wires) == 2


def test_what_worked_is_the_first_the_next_time(place: Place) -> None:
    place.dial()
    place.loop.run_until(NEXT_WAY_AFTER)
    place.finish(place.wires[1])
    place.act(MirrorKeep())
    assert place.wires[0].closed
    place.dial()
    assert [wire.from_same for wire in place.wires[2:]] == [False]
    place.called()
    place.act(MirrorKeep())
    place.dial()
    assert place.door.awaited, "it was the peer who called"
    assert len(place.wires) == 4
    place.loop.run_until(place.loop.now + NEXT_WAY_AFTER)
    assert [wire.from_same for wire in place.wires[4:]] == [True]


def test_whatever_state_a_hang_up_finds_nothing_is_left(place: Place) -> None:
    def wait() -> None:
        place.loop.run_until(place.loop.now + NEXT_WAY_AFTER)

    def connect() -> None:
        place.finish(place.wires[-1])

    def keep() -> None:
        connect()
        place.act(MirrorKeep(1723))

    for steps in ((), (wait,), (wait, wait), (connect,), (keep,), (wait, connect), (wait, keep)):
        place.dial()
        for step in steps:
            step()
        place.act(MirrorHangUp())
        assert place.nothing_is_left()
    assert place.call_ids == [1723, 0] * 2


def test_a_port_that_another_program_has_leaves_the_way_from_any_other(place: Place) -> None:
    """And the peer machine's other business with it: what is raised here would stop its timers."""
    place.door.shut = place.port_taken = True
    place.dial()
    assert [wire.from_same for wire in place.wires] == [False]
    assert len(place.notices) == 1, "once is enough"
    assert TAKEN in place.notices[0]
    place.finish(place.wires[0])
    place.reads(place.wires[0], b"hello")
    assert place.machine.news == [MirrorConnected(), MirrorReceived(b"hello")]


def test_nothing_else_is_begun_while_a_connection_is_in_use_however_long_its_handshake_takes(place: Place) -> None:
    """A helper keeps what it saw of a connection that did not come to be, and ends the call for it later."""
    place.dial()
    place.finish(place.wires[0])
    place.loop.run_until(5 * NEXT_WAY_AFTER)
    assert len(place.wires) == 1
    place.dial()
    place.called()
    place.loop.run_until(place.loop.now + 5 * NEXT_WAY_AFTER)
    assert [wire.from_same for wire in place.wires[1:]] == [True, False], "one that was begun, and the peer's"


def test_a_connection_that_ends_makes_room_for_the_next_way(place: Place) -> None:
    place.dial()
    place.finish(place.wires[0])
    place.reads(place.wires[0], b"")
    assert place.wires[0].closed
    assert [wire.from_same for wire in place.wires] == [True, False]
    place.finish(place.wires[1])
    place.reads(place.wires[1], b"")
    assert place.machine.news == [MirrorConnected(), MirrorConnected(), MirrorClosed()]
    assert place.nothing_is_left()


def test_the_peers_worse_connection_that_ends_leaves_time_for_the_better_one_under_way(place: Place) -> None:
    place.dial()
    theirs = place.called()
    place.reads(theirs, b"")
    assert len(place.wires) == 2
    place.finish(place.wires[0])
    place.loop.run_until(5 * NEXT_WAY_AFTER)
    assert place.machine.news == [MirrorConnected(), MirrorConnected()]
    assert len(place.wires) == 2


def test_the_peers_connection_that_ends_does_not_hold_up_the_next_way_where_the_better_one_hangs(place: Place) -> None:
    place.dial()
    place.reads(place.called(), b"")
    place.loop.run_until(NEXT_WAY_AFTER)
    assert [wire.from_same for wire in place.wires] == [True, False, False]
