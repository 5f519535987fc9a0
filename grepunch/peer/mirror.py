"""The mirrored handshake beside a punch: for NATs that pass GRE only for a PPTP call which they have seen.

A second after the common start, where no probe has come through, or at once where that is what helped the last time,
both sides connect to each other's TCP port 1723
from their own (RFC 2637 section 3.1 has it as the server's; a helper looks no further than that), and both NATs see a
client call a server. Where a NAT draws ports at random one side's SYN can still find the other, if that one has a
public address or its port forwarded. Once both calls are established the puncher's probes pass like any others:
nothing that a stranger could put on that connection is believed, only the probes are.

A connection on which the handshake began stays open and quiet while the session lives, for the NATs forget the flow
with it; a round that needs a new one replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Address

from pptp.errors import Terminated
from pptp.machine import earliest
from pptp.mirrored import MirroredCall, MirroredCallUp
from pptp.timers import Timers
from pptp.value import value

# ours, because where probes pass at all they have by then, and a NAT that saw no call has nothing to forget
MIRROR_AFTER = 1.0
# ours, because TCP asks again after 1 s and 3 s, and a SYN that no NAT has opened the way for is not going to arrive
CONNECT_WAIT = 8.0
# ours, because a NAT that accepts strays refuses a SYN that comes before its own host's has left
REDIAL_AFTER = 0.5
# ours, because who lies about an address must not have us flood it: two connections of three SYNs at the most (see
# :mod:`grepunch.io.simultaneous`) count as so many probes of that address
DIAL_PACKETS = 6


@value
class MirrorDial:
    """Get a connection with this address, over port 1723 of both or of either, in place of any earlier one."""

    address: IPv4Address


@value
class MirrorData:
    """Send this on the connection, as a segment of its own."""

    message: bytes


@value
class MirrorKeep:
    """The connection serves its purpose: keep it, and try for no better one."""


@value
class MirrorHangUp:
    """Close the connection, or give up connecting."""


@value
class MirrorConnected:
    """A connection is there; a better one takes the place of the one before."""


@value
class MirrorReceived:
    """Octets of its stream."""

    data: bytes


@value
class MirrorClosed:
    """It is gone, or did not come to be."""


MirrorTransmit = MirrorDial | MirrorData | MirrorKeep | MirrorHangUp
MirrorNews = MirrorConnected | MirrorReceived | MirrorClosed


class _Timer(Enum):
    DIAL = "dial"
    CONNECT = "connect"


class Mirror:
    """One session's mirrored handshakes; the sealed session owns it.

    ``afford`` takes packets out of what an address may get, and says whether that was possible.
    """

    def __init__(self, afford: Callable[[IPv4Address, int, float], bool]) -> None:
        self._afford = afford
        self._address: IPv4Address | None = None
        self._until = 0.0
        self._dialled = False
        self._call: MirroredCall | None = None
        self._out: list[MirrorTransmit] = []
        self._timers: Timers[_Timer] = Timers()

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[MirrorTransmit]:
        """Drain what is to be done with the connection."""
        out, self._out = self._out, []
        return out

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self._timers.deadline(), self._call.deadline() if self._call is not None else None)

    def handle_timeout(self, now: float) -> None:
        """Act on what is due."""
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.DIAL if self._address is not None and self._afford(self._address, DIAL_PACKETS, now):
                    self._call, self._dialled = None, True
                    self._timers.arm(_Timer.CONNECT, self._until)
                    self._out.append(MirrorDial(self._address))
                case _Timer.CONNECT:
                    self.hang_up()
                case _:
                    pass
        if self._call is not None:
            self._call.handle_timeout(now)
            self._follow(self._call)

    # -- commands -------------------------------------------------------------------------------------------

    def begin(self, start: float, address: IPv4Address, *, first: bool = False) -> None:
        """A round starts at ``start``: dial ``address`` if no path is proven soon after, or ``first`` of all."""
        self._address = address
        self._until = start + MIRROR_AFTER + CONNECT_WAIT
        self._timers.arm(_Timer.DIAL, start if first else start + MIRROR_AFTER)

    def settled(self) -> None:
        """A path is proven or the round is over. What is not connected by now is not needed."""
        self._timers.stop_all()
        if self._dialled and self._call is None:
            self.hang_up()

    def hang_up(self) -> None:
        """Forget the connection; harmless without one."""
        if self._dialled:
            self._out.append(MirrorHangUp())
        self._timers.stop_all()
        self._call, self._dialled = None, False

    @property
    def up(self) -> bool:
        """Whether both NATs have seen a call."""
        return self._call is not None and self._call.up

    # -- what arrives ---------------------------------------------------------------------------------------

    def receive(self, news: MirrorNews, now: float) -> None:
        """What became of the connection that was dialled last."""
        match news:
            case MirrorConnected() if self._dialled and not self.up:
                self._timers.stop(_Timer.CONNECT)
                self._call = MirroredCall()
                self._call.open(now)
            case MirrorReceived(data=data) if self._call is not None:
                self._call.receive(data, now)
            case MirrorClosed():
                self._timers.stop(_Timer.CONNECT)
                if self._dialled and not self.up and now + REDIAL_AFTER < self._until:
                    self._timers.arm(_Timer.DIAL, now + REDIAL_AFTER)
                self._call, self._dialled = None, False
            case _:
                pass
        if self._call is not None:
            self._follow(self._call)

    def _follow(self, call: MirroredCall) -> None:
        self._out += [MirrorData(message) for message in call.transmits()]
        for event in call.events():
            match event:
                case MirroredCallUp():
                    self._out.append(MirrorKeep())
                case Terminated():
                    self.hang_up()
