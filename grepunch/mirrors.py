"""The TCP connections of mirrored handshakes: at most one in use for each peer, moved by the event loop.

One way of connecting is tried after the other. What a NAT with a PPTP helper keeps of a connection that did not come
to be, it forgets after two minutes, and takes the GRE flow of a call with Call ID 0 for that connection's: the tunnel
would fall silent. So nothing else is begun where the first way succeeds, and what succeeded is the first the next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address

from grepunch.entrance import Entrance
from grepunch.io import simultaneous
from grepunch.io.errors import HostError
from grepunch.io.simultaneous import Connection
from grepunch.peer import (
    MirrorClosed,
    MirrorConnected,
    MirrorData,
    MirrorDial,
    MirrorHangUp,
    MirrorKeep,
    MirrorReceived,
    MirrorTransmit,
    PeerMachine,
)
from pptp.wire.control import TCP_PORT

# ours: both SYNs of a simultaneous open have met by then, if their NATs let them
NEXT_WAY_AFTER = 2.0


class _Rank(IntEnum):
    """Of several connections that come to be, both sides take the one of the highest rank."""

    SERVER_CALLS = 0
    DIALLER_CALLS = 1
    SIMULTANEOUS = 2


@dataclass(slots=True)
class _Attempt:
    """What there is for one peer: the connection in use, those that may still come to be, and ways not yet tried."""

    machine: PeerMachine
    address: IPv4Address
    ways: list[_Rank]
    numbered: bool = False  # its GRE carries a Call ID
    used: tuple[_Rank, Connection] | None = None
    pending: dict[_Rank, Connection] = field(default_factory=dict)
    later: asyncio.TimerHandle | None = None


class Mirrors:
    """Does what peer machines want done with their connections, and tells them what comes of it.

    Peers that call come in by ``entrance``. ``now`` is the endpoint's clock, ``settled`` its one exit for a peer by
    name, ``on_notice`` hears why a connection could not even be tried. ``set_call_id`` gives enhanced GRE to an address
    a Call ID.
    """

    def __init__(
        self,
        entrance: Entrance,
        now: Callable[[], float],
        settled: Callable[[str], None],
        on_notice: Callable[[str, str], None],
        set_call_id: Callable[[IPv4Address, int], None],
    ) -> None:
        self._entrance = entrance
        self._now = now
        self._settled = settled
        self._on_notice = on_notice
        self._set_call_id = set_call_id
        self._attempts: dict[str, _Attempt] = {}
        self._worked: dict[str, _Rank] = {}  # how the last connection of a peer came to be
        self._complaints: dict[str, str] = {}  # the last one about each peer

    def act(self, name: str, machine: PeerMachine, item: MirrorTransmit) -> None:
        """One thing that the machine of peer ``name`` wants done."""
        attempt = self._attempts.get(name)
        match item:
            case MirrorDial(address=address):
                self._drop(name)
                self._dial(name, machine, address)
            case MirrorData(message=message) if attempt is not None and attempt.used is not None:
                if not attempt.used[1].send(message):
                    self._lost(name, machine)
            case MirrorKeep(call_id=call_id) if attempt is not None and attempt.used is not None:
                self._worked[name] = attempt.used[0]
                self._stop_trying(name, attempt)
                if call_id:
                    attempt.numbered = True
                    self._set_call_id(attempt.address, call_id)
            case MirrorHangUp():
                self._drop(name)

    def close(self) -> None:
        """Drop every connection."""
        for name in list(self._attempts):
            self._drop(name)

    def _dial(self, name: str, machine: PeerMachine, address: IPv4Address) -> None:
        own_call = _Rank.DIALLER_CALLS if machine.config.dialing else _Rank.SERVER_CALLS
        worked = self._worked.get(name, _Rank.SIMULTANEOUS)
        ways = [own_call, _Rank.SIMULTANEOUS] if worked is own_call else [_Rank.SIMULTANEOUS, own_call]
        attempt = self._attempts[name] = _Attempt(machine, address, ways)
        try:
            self._entrance.expect(name, address, lambda connection: self._called(name, connection))
        except HostError as error:  # the peer cannot call us, but we may call it
            self._complain(name, error)
        if worked in ways:
            self._try_next_way(name)
        else:  # it was the peer who called
            self._wait(name, attempt)

    def _wait(self, name: str, attempt: _Attempt) -> None:
        """Give what is under way its time before the next way."""
        attempt.later = asyncio.get_running_loop().call_later(NEXT_WAY_AFTER, self._waited, name)

    def _waited(self, name: str) -> None:
        self._try_next_way(name)
        self._settled(name)

    def _try_next_way(self, name: str) -> None:
        attempt = self._attempts[name]
        _stop_waiting(attempt)
        while attempt.ways:
            rank = attempt.ways.pop(0)
            try:
                connection = simultaneous.connect(attempt.address, TCP_PORT, from_same=rank is _Rank.SIMULTANEOUS)
            except HostError as error:
                self._complain(name, error)
                continue
            attempt.pending[rank] = connection
            asyncio.get_running_loop().add_writer(connection.fileno(), self._finished, name, rank)
            if attempt.ways:
                self._wait(name, attempt)
            return
        if not attempt.pending and attempt.used is None:
            self._lost(name, attempt.machine)

    def _complain(self, name: str, error: HostError) -> None:
        """Say what the host refuses: once, and not with every attempt."""
        sentence = f"NATs that want to see a PPTP call first may not be passed: {error}"
        if self._complaints.get(name) != sentence:
            self._complaints[name] = sentence
            self._on_notice(sentence, name)

    def _drop(self, name: str) -> None:
        attempt = self._attempts.pop(name, None)
        if attempt is not None:
            self._stop_trying(name, attempt)
            _stop_using(attempt)
            if attempt.numbered:
                self._set_call_id(attempt.address, 0)

    def _stop_trying(self, name: str, attempt: _Attempt) -> None:
        self._entrance.forget(name)
        attempt.ways.clear()
        _stop_waiting(attempt)
        for connection in attempt.pending.values():
            asyncio.get_running_loop().remove_writer(connection.fileno())
            connection.close()
        attempt.pending.clear()

    def _lost(self, name: str, machine: PeerMachine) -> None:
        self._drop(name)
        machine.receive_mirror(MirrorClosed(), self._now())

    def _finished(self, name: str, rank: _Rank) -> None:
        attempt = self._attempts[name]
        connection = attempt.pending.pop(rank)
        asyncio.get_running_loop().remove_writer(connection.fileno())
        if connection.finish():
            self._use(name, attempt, rank, connection)
            return
        connection.close()
        if attempt.pending or attempt.used is not None:
            return
        self._try_next_way(name)  # after the last one the peer may call for as long as we try again
        self._settled(name)

    def _called(self, name: str, connection: Connection) -> None:
        attempt = self._attempts[name]
        rank = _Rank.SERVER_CALLS if attempt.machine.config.dialing else _Rank.DIALLER_CALLS
        self._use(name, attempt, rank, connection)

    def _use(self, name: str, attempt: _Attempt, rank: _Rank, connection: Connection) -> None:
        if attempt.used is not None and attempt.used[0] >= rank:
            connection.close()
            return
        _stop_using(attempt)
        _stop_waiting(attempt)
        attempt.used = (rank, connection)
        asyncio.get_running_loop().add_reader(connection.fileno(), self._readable, name, connection)
        attempt.machine.receive_mirror(MirrorConnected(), self._now())
        self._settled(name)

    def _readable(self, name: str, connection: Connection) -> None:
        attempt = self._attempts[name]
        data = connection.receive()
        if data:
            attempt.machine.receive_mirror(MirrorReceived(data), self._now())
            self._settled(name)
        elif data is not None:
            self._ended(name, attempt)
            self._settled(name)

    def _ended(self, name: str, attempt: _Attempt) -> None:
        """The connection in use is gone: perhaps because the peer has a better one, which may be under way here too."""
        _stop_using(attempt)
        if not attempt.pending:
            self._try_next_way(name)
        elif attempt.ways:
            self._wait(name, attempt)


def _stop_waiting(attempt: _Attempt) -> None:
    if attempt.later is not None:
        attempt.later.cancel()
        attempt.later = None


def _stop_using(attempt: _Attempt) -> None:
    if attempt.used is not None:
        asyncio.get_running_loop().remove_reader(attempt.used[1].fileno())
        attempt.used[1].close()
        attempt.used = None
