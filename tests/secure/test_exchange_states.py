"""The table of states in PROTOCOL.md, cell by cell: state x {message 1, message 2, frame, timer}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import grepunch.secure
from grepunch.secure.constants import PENDING_LIFETIME, REKEY_INITIATOR
from grepunch.secure.events import ConfirmWanted, ExchangeEvent, ExchangeState, KeysDropped, KeysLive, KeysReady
from grepunch.secure.handshake import MessageType
from pptp.errors import Drop
from pptp.wire.sealed import is_sealed
from tests.secure.exchange_world import Host, World

PROTOCOL = Path(grepunch.secure.__file__).with_name("PROTOCOL.md").read_text()


@dataclass(frozen=True)
class Cell:
    """What must come of a stimulus: the next state, the handshake message sent, the events, the drop counted."""

    state: str
    sends: int | None = None
    events: tuple[type[ExchangeEvent], ...] = ()
    drop: Drop | None = None


ANSWERED = (KeysReady,)
ASKED = (KeysReady, ConfirmWanted)
CONFIRMED = (KeysLive, ConfirmWanted)

# "sent" and "rekeying" against message 1 depend on whose key is lower: "prevails" or "yields".
TABLE: dict[tuple[str, str], Cell] = {
    ("idle", "message 1"): Cell("pending", 2, ANSWERED),
    ("idle", "message 2"): Cell("idle", drop=Drop.UNKNOWN_SESSION),
    ("idle", "frame"): Cell("idle"),
    ("idle", "timer"): Cell("idle"),
    ("sent", "message 1 prevails"): Cell("sent", drop=Drop.WRONG_PHASE),
    ("sent", "message 1 yields"): Cell("pending", 2, ANSWERED),
    ("sent", "message 2"): Cell("pending", None, ASKED),
    ("sent", "frame"): Cell("sent"),
    ("sent", "timer"): Cell("sent", 1),
    ("pending", "message 1"): Cell("pending", 2, ANSWERED),
    ("pending", "message 2"): Cell("pending", drop=Drop.UNKNOWN_SESSION),
    ("pending", "frame"): Cell("live", None, CONFIRMED),
    ("pending", "timer"): Cell("idle", None, (KeysDropped,)),
    ("live", "message 1"): Cell("rekeying", 2, ANSWERED),
    ("live", "message 2"): Cell("live", drop=Drop.UNKNOWN_SESSION),
    ("live", "frame"): Cell("live"),
    ("live", "timer"): Cell("rekeying", 1),
    ("rekeying", "message 1 prevails"): Cell("rekeying", drop=Drop.WRONG_PHASE),
    ("rekeying", "message 1 yields"): Cell("rekeying", 2, ANSWERED),
    ("rekeying", "message 2"): Cell("rekeying", None, ASKED),
    ("rekeying", "frame"): Cell("rekeying"),
    ("rekeying", "timer"): Cell("rekeying", 1),
    ("dead", "message 1"): Cell("dead", drop=Drop.WRONG_PHASE),
    ("dead", "message 2"): Cell("dead", drop=Drop.UNKNOWN_SESSION),
    ("dead", "frame"): Cell("dead"),
    ("dead", "timer"): Cell("dead"),
}


def enter(world: World, host: Host, state: str) -> None:
    """Bring ``host`` into ``state`` with nothing under way on the wire."""
    if state in ("live", "rekeying", "dead"):
        world.initiate(host)
        world.run_for(2)
    if state in ("sent", "rekeying"):
        world.initiate(host)
    if state == "pending":
        world.initiate(world.other(host))
        world.deliver(host, world.recorded[-1][1])
    if state == "dead":
        host.exchange.close(world.now)
    world.flush(host)
    world.wire.clear()
    host.log.clear()


def peer_initiation(world: World, host: Host) -> bytes:
    """A message 1 of the peer that ``host`` has not seen."""
    peer = world.other(host)
    peer.exchange.forget(world.now)
    peer.exchange.initiate(world.now)
    return next(datagram for datagram in peer.exchange.transmits() if datagram[0] == MessageType.INITIATION)


def answer_of_peer(world: World, host: Host) -> bytes:
    """Message 2 to the attempt of ``host`` that is under way, or one that nobody waits for."""
    asked = [
        datagram for sender, datagram in world.recorded if sender is host and datagram[0] == MessageType.INITIATION
    ]
    if not asked:
        elsewhere = World(99)
        elsewhere.initiate(elsewhere.a)
        elsewhere.run_for(0.05)
        return next(datagram for _, datagram in elsewhere.recorded if datagram[0] == MessageType.RESPONSE)
    world.deliver(world.other(host), asked[-1])
    return [datagram for _, datagram in world.recorded if datagram[0] == MessageType.RESPONSE][-1]


def frame_of_peer(world: World, host: Host) -> bytes:
    """A sealed frame of the peer under the newest keys it may send under."""
    peer = world.other(host)
    if host.exchange.state is ExchangeState.PENDING:
        answers = [datagram for sender, datagram in world.recorded if sender is host and not is_sealed(datagram)]
        peer.exchange.receive(answers[-1], world.now)
    pair = peer.exchange.current
    return pair.seal(0x21, b"data") if pair is not None else b"\0\x53" + world.rng.randbytes(40)


def apply(world: World, host: Host, stimulus: str) -> None:
    match stimulus.split()[:2]:
        case ["message", "1"]:
            datagram = peer_initiation(world, host)
        case ["message", "2"]:
            datagram = answer_of_peer(world, host)
        case ["frame"]:
            datagram = frame_of_peer(world, host)
        case _:
            if host.exchange.state is ExchangeState.LIVE:
                world.now += REKEY_INITIATOR
            else:
                world.now = host.exchange.deadline() or world.now + PENDING_LIFETIME
            world.recorded.clear()
            host.exchange.handle_timeout(world.now)
            world.flush(host)
            return
    world.recorded.clear()
    world.deliver(host, datagram)


def host_of(world: World, stimulus: str) -> Host:
    return world.b if stimulus.endswith("yields") else world.a


@pytest.mark.parametrize(("state", "stimulus"), TABLE, ids=lambda part: part.replace(" ", "_"))
def test_cell(state: str, stimulus: str) -> None:
    cell = TABLE[state, stimulus]
    world = World(1)
    host = host_of(world, stimulus)
    enter(world, host, state)
    assert host.exchange.state == state
    before = dict(host.exchange.drops)
    live = host.exchange.live
    apply(world, host, stimulus)
    assert host.exchange.state == cell.state
    sent = [datagram[0] for sender, datagram in world.recorded if sender is host and not is_sealed(datagram)]
    assert sent == ([] if cell.sends is None else [cell.sends])
    assert tuple(type(event) for event in host.log) == cell.events
    after = dict(host.exchange.drops)
    assert after == (before if cell.drop is None else {**before, cell.drop: before.get(cell.drop, 0) + 1})
    if cell.state != "live" or state == "live":
        assert host.exchange.live is live  # nothing but a verified frame changes live keys


def test_the_table_is_whole() -> None:
    columns: dict[str, Callable[[str], bool]] = {
        name: lambda stimulus, name=name: stimulus.startswith(name)  # type: ignore[misc]
        for name in ("message 1", "message 2", "frame", "timer")
    }
    for state in ExchangeState:
        for name, matches in columns.items():
            assert any(row == state and matches(stimulus) for row, stimulus in TABLE), (state, name)


def test_the_document_has_a_row_for_every_state() -> None:
    for state in ExchangeState:
        assert f"\n| **{state}** |" in PROTOCOL
