"""The TCP connections of mirrored handshakes: at most one for each peer, moved by the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grepunch.io.errors import HostError
from grepunch.io.simultaneous import SimultaneousOpen
from grepunch.peer import (
    MirrorClosed,
    MirrorConnected,
    MirrorData,
    MirrorDial,
    MirrorHangUp,
    MirrorReceived,
    MirrorTransmit,
    PeerMachine,
)
from pptp.mirrored import CONTROL_PORT


class Mirrors:
    """Does what peer machines want done with their connections, and tells them what comes of it.

    ``now`` is the endpoint's clock, ``settled`` its one exit for a peer by name, ``on_notice`` hears why a
    connection could not even be tried.
    """

    def __init__(
        self, now: Callable[[], float], settled: Callable[[str], None], on_notice: Callable[[str, str], None]
    ) -> None:
        self._now = now
        self._settled = settled
        self._on_notice = on_notice
        self._connections: dict[str, SimultaneousOpen] = {}

    def act(self, name: str, machine: PeerMachine, item: MirrorTransmit) -> None:
        """One thing that the machine of peer ``name`` wants done."""
        match item:
            case MirrorDial(address=address):
                self._drop(name)
                try:
                    connection = SimultaneousOpen(address, CONTROL_PORT)
                except HostError as error:
                    self._on_notice(f"NATs that want to see a PPTP call first cannot be passed: {error}", name)
                    machine.receive_mirror(MirrorClosed(), self._now())
                    return
                self._connections[name] = connection
                asyncio.get_running_loop().add_writer(connection.fileno(), self._finished, name, machine)
            case MirrorData(message=message):
                connected = self._connections.get(name)
                if connected is not None and not connected.send(message):
                    self._lost(name, machine)
            case MirrorHangUp():
                self._drop(name)

    def close(self) -> None:
        """Drop every connection."""
        for name in list(self._connections):
            self._drop(name)

    def _drop(self, name: str) -> None:
        connection = self._connections.pop(name, None)
        if connection is not None:
            loop = asyncio.get_running_loop()
            loop.remove_writer(connection.fileno())
            loop.remove_reader(connection.fileno())
            connection.close()

    def _lost(self, name: str, machine: PeerMachine) -> None:
        self._drop(name)
        machine.receive_mirror(MirrorClosed(), self._now())

    def _finished(self, name: str, machine: PeerMachine) -> None:
        connection = self._connections[name]
        loop = asyncio.get_running_loop()
        loop.remove_writer(connection.fileno())
        if connection.finish():
            loop.add_reader(connection.fileno(), self._readable, name, machine)
            machine.receive_mirror(MirrorConnected(), self._now())
        else:
            self._lost(name, machine)
        self._settled(name)

    def _readable(self, name: str, machine: PeerMachine) -> None:
        data = self._connections[name].receive()
        if data:
            machine.receive_mirror(MirrorReceived(data), self._now())
        elif data is not None:
            self._lost(name, machine)
        else:
            return
        self._settled(name)
