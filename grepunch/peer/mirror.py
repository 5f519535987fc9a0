"""The mirrored handshake beside a punch: for NATs that pass GRE only for a PPTP call which they have seen.

A second after the common start, where no probe has come through, or at once where that is what helped the last time,
both sides connect to each other's TCP port 1723
from their own (RFC 2637 section 3.1 has it as the server's; a helper looks no further than that), and both NATs see a
client call a server. Where a NAT draws ports at random one side's SYN can still find the other, if that one has a
public address or its port forwarded. Once both calls are established the puncher's probes pass like any others:
nothing that a stranger could put on that connection is believed, only the probes are.

The call has two forms (see :mod:`pptp.mirrored`). The incoming one passes more NATs and goes first, unless the other is
what helped both sides the last time. Where it has been up for a while and no probe came through, or was refused, and
the peer can do it, the other form gets its turn, once in a round: on a new connection, because a helper takes the first
call of a connection for the only one. Either side says so in the control stream, and both do it.

A connection on which the handshake began stays open and quiet while the session lives, for the NATs forget the flow
with it; a round that needs a new one replaces it.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Address

from grepunch.ports import CallIds
from grepunch.signalling.messages import CallStep, OutgoingCall
from pptp.errors import Terminated
from pptp.machine import earliest
from pptp.mirrored import MirroredCall, MirroredCallUp, PeerCallSeen
from pptp.timers import Timers
from pptp.value import value

# ours, because where probes pass at all they have by then, and a NAT that saw no call has nothing to forget
MIRROR_AFTER = 1.0
# ours, because TCP asks again after 1 s and 3 s, and a SYN that no NAT has opened the way for is not going to arrive
CONNECT_WAIT = 8.0
# ours: probes leave when the call comes up and the first that is answered brings up the path; longer than a round trip
JUDGE_AFTER = 2.2
# ours, because a NAT that accepts strays refuses a SYN that comes before its own host's has left; doubled each time,
# for what is refused once the peer has begun, too, will be refused again
REDIAL_AFTER = 0.5
# ours, because who lies about an address must not have us flood it: two connections of three SYNs at the most (see
# :mod:`grepunch.io.simultaneous`) count as so many probes of that address. One of each may leave before TCP repeats
# any, which it does after a second: more are not taken from the probes for what is refused by then.
DIAL_PACKETS = 6
FIRST_PACKETS = 2
REPEAT_AFTER = 0.9


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
    """The connection serves its purpose: keep it, and try for no better one.

    As long as it is there, enhanced GRE to its address carries ``call_id``.
    """

    call_id: int = 0


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
    REPEAT = "repeat"  # TCP is about to send its SYNs again
    CONNECT = "connect"
    JUDGE = "judge"


class Mirror:
    """One session's mirrored handshakes; the sealed session owns it.

    ``afford`` takes packets out of what an address may get, and says whether that was possible.
    """

    def __init__(self, afford: Callable[[IPv4Address, int, float], bool]) -> None:
        self._afford = afford
        self._address: IPv4Address | None = None
        self._until = 0.0
        self._redial_after = REDIAL_AFTER
        self._round = 0
        self._dialled = False
        self._searching = False  # in a round that has proven no path yet
        self._outgoing = False  # the form of the call
        self._other_form = False  # may still be tried in this round
        self._serial_number = 0
        self._call: MirroredCall | None = None
        self._call_ids: CallIds | None = None
        self._out: list[MirrorTransmit] = []
        self._messages: list[OutgoingCall] = []
        self._timers: Timers[_Timer] = Timers()

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[MirrorTransmit]:
        """Drain what is to be done with the connection."""
        out, self._out = self._out, []
        return out

    def messages(self) -> list[OutgoingCall]:
        """Drain what is to be said in the control stream."""
        messages, self._messages = self._messages, []
        return messages

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self._timers.deadline(), self._call.deadline() if self._call is not None else None)

    def handle_timeout(self, now: float) -> None:
        """Act on what is due."""
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.DIAL if self._address is not None:
                    self._dial(self._address, now)
                case _Timer.REPEAT if self._address is not None:
                    if not self._afford(self._address, DIAL_PACKETS - FIRST_PACKETS, now):
                        self.hang_up()
                case _Timer.CONNECT:
                    self.hang_up()
                case _Timer.JUDGE:
                    self._try_other_form(now)
                case _:
                    pass
        if self._call is not None:
            self._call.handle_timeout(now)
            self._follow(self._call, now)

    # -- commands -------------------------------------------------------------------------------------------

    def begin(
        self,
        number: int,
        start: float,
        address: IPv4Address,
        *,
        first: bool = False,
        outgoing: CallStep | None = None,
    ) -> None:
        """Round ``number`` starts at ``start``: dial ``address`` if no path is proven soon after, or ``first`` of all.

        ``outgoing``: both sides can make an outgoing call (ABLE), or even begin with it (FIRST).
        """
        self._timers.stop_all()
        self._round, self._address, self._searching = number, address, True
        self._outgoing = outgoing is CallStep.FIRST
        self._other_form = outgoing is not None
        self._until, self._redial_after = start + MIRROR_AFTER + CONNECT_WAIT, REDIAL_AFTER
        self._timers.arm(_Timer.DIAL, start if first else start + MIRROR_AFTER)

    def settled(self) -> None:
        """A path is proven or the round is over. What is not connected by now is not needed."""
        self._timers.stop_all()
        self._searching = False
        if self._dialled and self._call is None:
            self.hang_up()

    def hang_up(self) -> None:
        """Forget the connection; harmless without one."""
        if self._dialled:
            self._out.append(MirrorHangUp())
        self._timers.stop_all()
        self._forget()

    def told(self, message: OutgoingCall, now: float) -> None:
        """What the peer says of the call in the control stream."""
        if message.round != self._round:
            return
        match message.step:
            case CallStep.NEXT if self._other_form and self._searching:
                self._switch(now)
            case CallStep.SEEN if self._call is not None:
                self._call.seen_as(message.serial_number, message.call_id, now)
                self._follow(self._call, now)
            case _:
                pass

    @property
    def call_ids(self) -> CallIds | None:
        """What GRE carries within the call, once both NATs have seen it: ours, and the peer's."""
        return self._call_ids if self.up else None

    @property
    def up(self) -> bool:
        """Whether both NATs have seen a call."""
        return self._call is not None and self._call.up

    @property
    def called(self) -> bool:
        """Whether a call is up, or so far that it is being made: the peer's NAT may have seen enough before ours."""
        return self._call is not None

    # -- what arrives ---------------------------------------------------------------------------------------

    def receive(self, news: MirrorNews, now: float) -> bool:
        """What became of the connection that was dialled last; True when a call is lost with it that was up."""
        was_up = self.up
        match news:
            case MirrorConnected() if self._dialled and not self.up:
                self._stop(_Timer.CONNECT, _Timer.REPEAT)
                self._serial_number = self._serial_number + 1 & 0xFFFF
                self._call = MirroredCall(outgoing=self._outgoing, serial_number=self._serial_number)
                self._call.open(now)
            case MirrorReceived(data=data) if self._call is not None:
                self._call.receive(data, now)
            case MirrorClosed() if self._dialled:
                self._stop(_Timer.CONNECT, _Timer.REPEAT, _Timer.JUDGE)
                self._forget()
                if self._searching and not self._dial_later(now) and was_up:
                    self._try_other_form(now)
            case _:
                pass
        if self._call is not None:
            self._follow(self._call, now)
        return was_up and not self.up

    # -- what follows ---------------------------------------------------------------------------------------

    def _dial(self, address: IPv4Address, now: float) -> None:
        if not self._afford(address, FIRST_PACKETS, now):
            self._dial_later(now)
            return
        self._forget()
        self._dialled = True
        self._timers.arm(_Timer.REPEAT, now + REPEAT_AFTER)
        self._timers.arm(_Timer.CONNECT, self._until)
        self._out.append(MirrorDial(address))

    def _dial_later(self, now: float) -> bool:
        """Once more, later each time; False where the attempt will be over by then."""
        if self._timers.at(_Timer.DIAL) is not None:  # a new round's, which is about to begin
            return True
        at, self._redial_after = now + self._redial_after, 2 * self._redial_after
        if at < self._until:
            self._timers.arm(_Timer.DIAL, at)
        return at < self._until

    def _stop(self, *timers: _Timer) -> None:
        for timer in timers:
            self._timers.stop(timer)

    def _forget(self) -> None:
        self._call, self._call_ids, self._dialled = None, None, False

    def _try_other_form(self, now: float) -> None:
        """This form does not help; the peer has to hear of it, or it would go on with this one."""
        if self._other_form and self._searching:
            self._messages.append(OutgoingCall(self._round, CallStep.NEXT))
            self._switch(now)

    def _switch(self, now: float) -> None:
        """The other form's turn, on a new connection."""
        self.hang_up()
        self._outgoing, self._other_form = not self._outgoing, False
        self._until, self._redial_after = now + CONNECT_WAIT, REDIAL_AFTER
        self._timers.arm(_Timer.DIAL, now)

    def _follow(self, call: MirroredCall, now: float) -> None:
        self._out += [MirrorData(message) for message in call.transmits()]
        for event in call.events():
            match event:
                case MirroredCallUp(call_ids=call_ids):
                    self._call_ids = call_ids
                    self._out.append(MirrorKeep(call_ids[0]))
                    if self._other_form and self._searching:
                        self._timers.arm(_Timer.JUDGE, now + JUDGE_AFTER)
                case PeerCallSeen(serial_number=serial_number, call_id=call_id):
                    self._messages.append(OutgoingCall(self._round, CallStep.SEEN, serial_number, call_id))
                case Terminated():
                    self.hang_up()
                    self._try_other_form(now)
