"""One control connection of ordinary PPTP as it runs: its TCP stream, its machine, its calls' GRE, and one timer.

The serving and the dialling side are the same here; what differs is their :class:`Owner`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from grepunch.io import clock
from grepunch.io.driver import Driver
from grepunch.io.streams import Stream
from grepunch.ordinary.calls import Call, CallTable
from pptp.errors import Terminated, TerminationCause
from pptp.ordinary import (
    Admission,
    CallOver,
    CallUp,
    ControlUp,
    GreOut,
    OrdinaryConfig,
    OrdinaryConnection,
    OrdinaryEvent,
    StreamOut,
)
from pptp.wire.control import printable

# ours: what was written last is given this long to leave, then the connection is cut
LINGER = 2.0


class Owner(Protocol):
    """The server, or the dialler."""

    def admit(self, connection: Connection, call_id: int, user: str) -> Admission | Terminated:
        """A user is authenticated (serving only)."""

    def happened(self, connection: Connection, event: OrdinaryEvent) -> None:
        """An event of the machine; ``CallOver`` before the call leaves the table, ``Terminated`` last."""

    def deliver(self, call: Call, protocol: int, packet: bytes | memoryview) -> None:
        """An IP packet that waited for another one and now comes out of the call."""

    def connection_lost(self, connection: Connection) -> None:
        """Nothing more of this connection, ever."""


class Connection:
    """See the module. Made when TCP is up; a :class:`~grepunch.io.streams.StreamUser`."""

    def __init__(self, stream: Stream, config: OrdinaryConfig, table: CallTable, owner: Owner) -> None:
        self.stream = stream
        self.source = stream.ends.remote
        self.dials = config.dials
        self._table = table
        self._owner = owner
        sender = table.gre.sender(stream.ends.local, stream.ends.remote)
        self._send_gre = sender.send
        self.queue = sender.queue  # for data, until the pump flushes
        self.machine = OrdinaryConnection(
            config,
            entropy=clock.entropy,
            allocate_call_id=lambda: table.allocate(self),
            release_call_id=table.release,
            admit=None if config.dials else lambda call_id, user: owner.admit(self, call_id, user),
        )
        self._driver: Driver[StreamOut | GreOut, OrdinaryEvent] = Driver(self, send=self._send, handle=self._handle)
        self._over = False
        self.began = clock.now()
        self.had_call = False
        self.calls_in_vain = 0  # since one was authenticated
        self.identity = ""  # how the peer's program calls itself
        self.ended: Terminated | None = None

    # -- the machine, with what its timers let go ----------------------------------------------------------------

    def transmits(self) -> list[StreamOut | GreOut]:
        """What the machine wants to send."""
        return self.machine.transmits()

    def events(self) -> list[OrdinaryEvent]:
        """What has happened."""
        return self.machine.events()

    def deadline(self) -> float | None:
        """When the machine wants to be woken."""
        return self.machine.deadline()

    def handle_timeout(self, now: float) -> None:
        """Wake the machine, and hand on the packets that wait no longer for a missing one."""
        self.machine.handle_timeout(now)
        for call_id, protocol, packet in self.machine.released():
            call = self._table.calls.get(call_id)
            if call is not None:
                self._owner.deliver(call, protocol, packet)

    # -- commands ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """TCP is up: begin."""
        self._driver.stimulate(self.machine.open)

    def close(self, why: Terminated | None = None) -> None:
        """Say goodbye to everything; ``connection_lost`` follows. Harmless when it is over."""
        if not self._over and self.ended is None:
            reason = why or Terminated(TerminationCause.LOCAL_REQUEST)
            self._driver.stimulate(lambda now: self.machine.close(now, reason))

    def close_call(self, call_id: int, why: Terminated) -> None:
        """End one call. May be called from within an event or an admission of any connection."""
        if not self._over and self.ended is None:
            self._driver.stimulate(lambda now: self.machine.close_call(call_id, now, why))

    def settle(self) -> None:
        """The pump has fed the machine: let it say and send what follows."""
        if not self._over:
            self._driver.settle()

    def abort(self) -> None:
        """Cut TCP; ``connection_lost`` follows."""
        self.stream.abort()

    # -- the stream ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Control messages, or parts of them."""
        if self.ended is None:
            self._driver.stimulate(lambda now: self.machine.receive_stream(data, now))

    def stream_closed(self, why: str) -> None:
        """TCP is gone."""
        if self._over:
            return
        if self.ended is None:
            self._driver.stimulate(self.machine.stream_closed)
        self._over = True
        self._driver.close()
        self._owner.connection_lost(self)

    # -- what the machine says -----------------------------------------------------------------------------------

    def _send(self, item: StreamOut | GreOut) -> None:
        match item:
            case StreamOut(data):
                self.stream.write(data)
            case GreOut(packet):
                self._send_gre(packet)

    def _handle(self, event: OrdinaryEvent) -> None:
        match event:
            case CallUp(call_id=call_id):
                self._table.calls[call_id] = Call(self, call_id, clock.now())
                self.had_call = True
            case ControlUp(peer=peer):
                self.identity = " ".join(filter(None, map(printable, (peer.vendor_name, peer.host_name))))
            case Terminated():
                self.ended = event
        self._owner.happened(self, event)
        match event:
            case CallOver(call_id=call_id):
                self._table.forget(call_id)
            case Terminated():
                self.stream.close()
                asyncio.get_running_loop().call_later(LINGER, self.stream.abort)
