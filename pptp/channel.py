"""The data channel of one call: PPP frames in and out of GRE (RFC 2637 section 4).

Made when a call is established, dies with it. Going out, a frame gets the next sequence number and carries an
acknowledgement that is owed; coming in, frames are put in order or dropped, and acknowledged. Nothing is ever sent
twice: an acknowledgement only measures.

Two kinds of numbers are kept honest:

* **Order.** Section 4.3 has late packets discarded or reordered before PPP sees them. The first sequence number may
  be any (0 and 1 are both in the field). A gap of up to ``JUMP_LIMIT`` is waited for in a small buffer, or skipped at
  once where there is none. How long depends on what waiting was good for: each time nothing comes it is halved, and
  it is twice what a late packet took at least; so on a line that loses packets one loss does not hold up all the
  others for long, and on one that delays some none is lost. A number further away starts a *branch*: it is dropped as
  long as the stream itself is alive, carries frames once that has been silent for ``BRANCH_SILENCE``, or after
  ``BRANCH_RUN`` numbers in a row at most ``FLOOD_LIMIT`` ahead, gives way at the first frame of the stream, and
  replaces it after as long a life, at most ``BRANCH_TRUST``. So a forged number costs a live stream nothing, and a
  peer that really jumped, or a flood that overran our buffer, loses a moment.
* **Window.** Deviation: sections 4.2 and 4.2.4 would hold frames back when the peer does not acknowledge. Some
  peers never send an acknowledgement of their own (the Linux kernel), and what is tunnelled has its own congestion
  control; so window and adaptive time-out are computed as the RFC says, for status, and nothing waits for them.

A sealed channel (:meth:`ChannelConfig.sealed`) trusts no sequence number: every frame goes up as it comes, because
the replay window behind the seal judges, and nothing is acknowledged.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pptp.errors import Drop, UsageError, WireError
from pptp.serial import difference, increment
from pptp.timers import Timers
from pptp.value import value
from pptp.wire.gre import build_v0, build_v1, locate

Frame = bytes | memoryview

# RFC 2637 section 4.1: what precedes the first number, "set to zero at session startup"
_BEFORE_FIRST = 0xFFFFFFFF
_NUMBERS = 0xFFFFFFFF
# RFC 2637 section 4.4.1
_ALPHA = 0.125  # share of a sample in the round trip
_BETA = 0.25  # share of a sample in its deviation
_CHI = 4  # deviations that make a time-out
_DELTA = 2  # factor of the round trip after a time-out

# ours, because peers buffer as long (pptpd, pptp-linux)
REORDER_TIMEOUT = 0.3
# ours, because what overtakes within a network does so by less, and TCP inside takes it for a queue
SHORTEST_WAIT = 0.01
# ours, because one late packet among eight lost ones is still worth waiting for
_LATENESS_KEPT = 7 / 8
# ours: gaps given up that a late packet is looked for in
_REMEMBERED_GAPS = 16
# ours, because 800 packets a second that are up to 0.3 s late must lose none, and no jump reaches as far
REORDER_LIMIT = 256
# ours, because pptpd accepts as large a gap, and a forger has to hit 600 of 2**32 numbers
JUMP_LIMIT = 300
# ours, because a stream that carries anything has something to say within a second
BRANCH_SILENCE = 1.0
# ours, because a flood that overruns our buffer brings more in a row, of which a second's would be thousands
BRANCH_RUN = 32
# ours, because no buffer is overrun by more at once, and a forger has to hit one of 130,000 such places
FLOOD_LIMIT = 32768
# ours, because no peer that is still there keeps silent so long: its own keepalives are more frequent
BRANCH_TRUST = 120.0
# ours, because adaptive time-outs in the field are 0.1 s at least, and one packet for many is enough
ACKNOWLEDGE_DELAY = 0.1
# ours, because pptp-linux acknowledges after 0.5 s, and because mpd5 ends there too
MINIMUM_TIME_OUT = 1.0
MAXIMUM_TIME_OUT = 10.0
# ours, because a peer that never acknowledges must not make us remember every packet
_TIMED_PACKETS = 256


@value
class ChannelConfig:
    """What was agreed about a call. Windows count packets, times are seconds.

    ``call_id`` is ours, what the peer's packets carry; ``also_accepted`` are others they may carry behind a NAT that
    rewrites them. ``peer_call_id`` is what our packets carry. ``reorder_limit`` 0 waits for nothing,
    ``reorder_timeout`` is the longest that a missing packet is waited for.
    ``receive_window`` is what we told the peer, ``send_window`` and ``peer_processing_delay`` what it told us; a
    ``send_window`` of 0 is no flow control.
    """

    call_id: int
    peer_call_id: int
    version: int = 1
    also_accepted: frozenset[int] = frozenset()
    acknowledge: bool = True
    sequenced: bool = True
    reorder_limit: int = REORDER_LIMIT
    reorder_timeout: float = REORDER_TIMEOUT
    receive_window: int = 64
    send_window: int = 0
    peer_processing_delay: float = 0.0

    @classmethod
    def sealed(cls, call_id: int = 0, peer_call_id: int = 0, *, version: int = 1) -> ChannelConfig:
        """For a link whose frames are sealed: no acknowledgement, no order."""
        return cls(call_id, peer_call_id, version, acknowledge=False, sequenced=False, reorder_limit=0)


@value
class WindowStatus:
    """What sections 4.2 to 4.4 make of the peer's acknowledgements. Times in seconds, the rest in packets."""

    window: int
    maximum: int
    in_flight: int
    round_trip: float
    deviation: float
    time_out: float
    overflows: int  # packets sent although the window was full
    time_outs: int


class SendWindow:
    """The sliding window and adaptive time-out of sections 4.2 to 4.4, as a measurement. Owned by a channel."""

    def __init__(self, maximum: int, processing_delay: float) -> None:
        self._maximum = maximum
        self._window = max(1, maximum // 2)  # section 4.2.1
        self._round_trip = processing_delay  # section 4.4: the estimate before the first sample
        self._deviation = 0.0
        self._sent = _BEFORE_FIRST
        self._acknowledged = _BEFORE_FIRST
        self._since_growth = 0
        self._times: deque[tuple[int, float]] = deque(maxlen=_TIMED_PACKETS)
        self._overflows = 0
        self._time_outs = 0

    @property
    def in_flight(self) -> int:
        """Packets sent and neither acknowledged nor given up."""
        return self._sent - self._acknowledged & _NUMBERS

    @property
    def time_out(self) -> float:
        """Seconds after which a missing acknowledgement counts as a loss (section 4.4.1)."""
        return min(max(self._round_trip + _CHI * self._deviation, MINIMUM_TIME_OUT), MAXIMUM_TIME_OUT)

    @property
    def status(self) -> WindowStatus:
        """Everything at once."""
        return WindowStatus(
            self._window,
            self._maximum,
            self.in_flight,
            self._round_trip,
            self._deviation,
            self.time_out,
            self._overflows,
            self._time_outs,
        )

    def sent(self, sequence: int, now: float) -> None:
        """A packet with the next sequence number went out."""
        self._overflows += (self._sent - self._acknowledged & _NUMBERS) >= self._window
        self._sent = sequence
        self._times.append((sequence, now))

    def acknowledged(self, sequence: int, now: float) -> bool:
        """Take an acknowledgement; False when it says nothing new or names what was never sent."""
        news = difference(sequence, self._acknowledged)
        if news <= 0 or difference(sequence, self._sent) > 0:
            return False
        self._acknowledged = sequence
        while self._times and difference(self._times[0][0], sequence) <= 0:
            timed, at = self._times.popleft()
            if timed == sequence:  # section 4.2.5: only the highest acknowledged packet is timed
                self._sample(now - at)
        self._since_growth += news
        if self._since_growth >= self._window:  # section 4.2.3
            self._since_growth = 0
            self._window = min(self._window + 1, max(1, self._maximum))
        return True

    def timed_out(self) -> None:
        """No acknowledgement in time (section 4.2.2): half the window, and what is out counts as lost."""
        self._time_outs += 1
        self._window = max(1, (self._window + 1) // 2)
        self._since_growth = 0
        self._round_trip = min(max(self._round_trip, MINIMUM_TIME_OUT / _DELTA) * _DELTA, MAXIMUM_TIME_OUT)
        self._acknowledged = self._sent
        self._times.clear()

    def _sample(self, sample: float) -> None:
        difference_to_estimate = sample - self._round_trip
        self._deviation += _BETA * (abs(difference_to_estimate) - self._deviation)
        self._round_trip += _ALPHA * difference_to_estimate


@dataclass(slots=True)
class _Branch:
    """Numbers far from the stream's: a peer that jumped, or a forger."""

    expected: int
    run: int = 1  # numbers in a row
    carried_since: float | None = None


class _Order:
    """Puts received frames in order. Made with the first sequence number; owned by a channel.

    ``wait`` is how long, in seconds, a missing packet is waited for at present.
    """

    def __init__(self, first: int, limit: int, timeout: float, now: float) -> None:
        self.highest = increment(first, -1)
        self._expected = first
        self._limit = limit
        self.wait = self._longest_wait = timeout
        self._lateness = 0.0  # about the most that a packet came later than one after it
        self._gaps: deque[tuple[int, int, float]] = deque(maxlen=_REMEMBERED_GAPS)  # given up: first, number, since
        self._begun_at = now
        self._heard_at = now
        self._branch: _Branch | None = None
        self._buffer: dict[int, tuple[bytes, float]] = {}  # early frames and when each came

    def deadline(self) -> float | None:
        """When the frame that has waited longest is let go, ``None`` where none waits."""
        since = self._missing_since()
        return None if since is None else since + self.wait

    def _missing_since(self) -> float | None:
        for _, came in self._buffer.values():  # in the order in which they came
            return came
        return None

    def is_next(self, sequence: int, now: float) -> bool:
        """Take a frame that is in order and has none waiting behind it; else False, and :meth:`place` is for it."""
        if sequence != self._expected or self._buffer:
            return False
        self._expected = sequence + 1 & _NUMBERS
        self.highest = sequence
        self._heard_at = now
        self._branch = None
        return True

    def place(self, sequence: int, frame: Frame, now: float) -> list[Frame] | Drop:
        """The frames that are in order now, or why this one is dropped."""
        ahead = difference(sequence, self._expected)
        if abs(ahead) > JUMP_LIMIT:
            return self._far(sequence, frame, now)
        self._heard_at = now
        self._branch = None
        if ahead < 0:
            self._came_too_late(sequence, now)
            return Drop.TOO_OLD
        if sequence in self._buffer:
            return Drop.REPLAYED
        if difference(sequence, self.highest) > 0:
            self.highest = sequence
        if ahead and self._limit:
            self._buffer[sequence] = (bytes(frame), now)
            return self._skip() if len(self._buffer) > self._limit else []
        since = self._missing_since()
        if since is not None:
            self._was_late(now - since)
        self._expected = increment(sequence)
        return [frame, *self._following()]

    def _came_too_late(self, sequence: int, now: float) -> None:
        """A packet that is behind: learn from it if it was given up, and not only sent twice."""
        for gap in self._gaps:
            first, count, since = gap
            before = difference(sequence, first)
            if 0 <= before < count:
                self._was_late(now - since)
                self._gaps.remove(gap)  # a copy that comes later still teaches nothing; the rest of the gap does
                rest = (first, before, since), (increment(sequence), count - before - 1, since)
                self._gaps.extend(part for part in rest if part[1])
                return

    def _was_late(self, lateness: float) -> None:
        if self._lateness < lateness <= self._longest_wait:
            self._lateness = lateness
            self.wait = min(self._longest_wait, max(self.wait, 2 * lateness))

    def give_up(self, now: float) -> list[Frame]:
        """The frames that have waited long enough, with those between and after them, missing ones left out."""
        frames: list[Frame] = []
        while (since := self._missing_since()) is not None and since + self.wait <= now:
            frames += self._skip()
            self._lateness *= _LATENESS_KEPT
            self.wait = min(self._longest_wait, max(self.wait / 2, 2 * self._lateness, SHORTEST_WAIT))
        return frames

    def _skip(self) -> list[Frame]:
        """Go on with the first frame of the buffer, without what is missing before it."""
        missing, since = self._expected, self._missing_since()
        self._expected = min(self._buffer, key=lambda sequence: difference(sequence, missing))
        if since is not None:
            self._gaps.append((missing, difference(self._expected, missing), since))
        return self._following()

    def _following(self) -> list[Frame]:
        frames: list[Frame] = []
        while (entry := self._buffer.pop(self._expected, None)) is not None:
            frames.append(entry[0])
            self._expected = increment(self._expected)
        return frames

    def _far(self, sequence: int, frame: Frame, now: float) -> list[Frame] | Drop:
        branch = self._branch
        ahead = difference(sequence, branch.expected) if branch is not None else 0
        if branch is None or abs(ahead) > JUMP_LIMIT:
            self._branch = _Branch(increment(sequence))
            return Drop.SEQUENCE_JUMP
        if ahead < 0:
            return Drop.TOO_OLD
        branch.expected = increment(sequence)
        branch.run = 1 if ahead else branch.run + 1
        if branch.carried_since is None:
            flood = branch.run >= BRANCH_RUN and 0 < difference(sequence, self._expected) <= FLOOD_LIMIT
            if not flood and now - self._heard_at < BRANCH_SILENCE:
                return Drop.SEQUENCE_JUMP
            branch.carried_since = now
        if now - branch.carried_since >= min(BRANCH_TRUST, self._heard_at - self._begun_at):
            self._expected, self.highest = branch.expected, sequence
            self._begun_at, self._heard_at, self._branch = branch.carried_since, now, None
            self._buffer.clear()
        return [frame]


class _Timer(Enum):
    ACKNOWLEDGE = "acknowledge"
    REORDER = "reorder"
    WINDOW = "window"


class Channel:
    """See the module. The owner sends what ``encapsulate`` and ``transmits`` give and takes frames to PPP."""

    def __init__(self, config: ChannelConfig) -> None:
        if config.version not in (0, 1):
            raise UsageError(f"PPP does not travel in GRE version {config.version}")
        self._config = config
        self._call_ids = config.also_accepted | {config.call_id if config.version else 0}
        self._next_sequence = 0
        self._order: _Order | None = None  # None before the first packet of the peer
        self._owed = 0  # data packets received and not yet acknowledged
        self._owed_at_most = max(1, config.receive_window // 2)
        self._window = SendWindow(config.send_window, config.peer_processing_delay)
        self._released: list[Frame] = []
        self._out: list[bytes] = []
        self._drops: Counter[Drop] = Counter()
        self._timers: Timers[_Timer] = Timers()
        self.received_packets = 0  # GRE packets of this call, whatever they carried

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[bytes]:
        """Drain GRE packets that carry nothing but an acknowledgement."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[Frame]:
        """Drain frames that a time-out let go, in order."""
        released, self._released = self._released, []
        return released

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return self._timers.deadline()

    def handle_timeout(self, now: float) -> None:
        """Acknowledge what is owed, give up on a missing packet, let the send window adapt."""
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.ACKNOWLEDGE:
                    self._acknowledge_alone()
                case _Timer.REORDER:
                    if self._order is not None:
                        self._released += [frame for frame in self._order.give_up(now) if frame]
                        self._watch_order(self._order)
                case _Timer.WINDOW:
                    self._window.timed_out()

    # -- for status -----------------------------------------------------------------------------------------

    @property
    def drops(self) -> Mapping[Drop, int]:
        """How many packets were dropped, by cause."""
        return self._drops

    @property
    def window(self) -> WindowStatus:
        """What the peer's acknowledgements tell."""
        return self._window.status

    # -- out ------------------------------------------------------------------------------------------------

    def encapsulate(self, frame: Frame, now: float) -> bytes:
        """The GRE packet for a PPP frame; never refused for want of window.

        Raises :class:`UsageError` for a frame of more than 65535 octets.
        """
        config, sequence = self._config, self._next_sequence
        if config.version == 0:
            return build_v0(frame)
        acknowledgement = None
        if self._owed:
            acknowledgement = self._order.highest if self._order is not None else None
        packet = build_v1(config.peer_call_id, frame, sequence, acknowledgement)
        if self._owed:
            self._owed = 0
            self._timers.stop(_Timer.ACKNOWLEDGE)
        if config.send_window:
            if not self._window.in_flight:
                self._timers.arm(_Timer.WINDOW, now + self._window.time_out)
            self._window.sent(sequence, now)
        self._next_sequence = sequence + 1 & _NUMBERS
        return packet

    # -- in -------------------------------------------------------------------------------------------------

    def receive(self, packet: bytes | memoryview, now: float) -> list[Frame]:
        """The PPP frames a GRE packet completes, in order: often one, none when it is dropped or early.

        A frame may be a slice of ``packet``: take it before the buffer is used again.
        """
        frames = self.events() if self._released else []
        try:
            version, call_id, sequence, acknowledgement, start, end = locate(packet)
        except WireError:
            self._drops[Drop.MALFORMED] += 1
            return frames
        config = self._config
        if version != config.version or call_id not in self._call_ids:
            self._drops[Drop.UNKNOWN_SESSION] += 1
            return frames
        self.received_packets += 1
        payload = packet[start:end]
        if version == 0 or not config.sequenced:
            return [*frames, payload] if payload else frames
        if acknowledgement is not None and config.send_window:
            self._take_acknowledgement(acknowledgement, now)
        if sequence is not None:
            if self._order is not None and self._order.is_next(sequence, now):
                self._owe(now)
                if payload:
                    frames.append(payload)
            else:
                frames += self._in_order(sequence, payload, now)
        return frames

    def _in_order(self, sequence: int, payload: Frame, now: float) -> list[Frame]:
        if self._order is None:
            self._order = _Order(sequence, self._config.reorder_limit, self._config.reorder_timeout, now)
        placed = self._order.place(sequence, payload, now)
        if isinstance(placed, Drop):
            self._drops[placed] += 1
            return []
        self._watch_order(self._order)
        self._owe(now)
        return [frame for frame in placed if frame]

    def _watch_order(self, order: _Order) -> None:
        due = order.deadline()
        if due is None:
            self._timers.stop(_Timer.REORDER)
        else:
            self._timers.arm(_Timer.REORDER, due)

    def _owe(self, now: float) -> None:
        """One more data packet to acknowledge: with the next of ours, soon, or at once where half a window waits."""
        if not self._config.acknowledge:
            return
        self._owed += 1
        if self._owed >= self._owed_at_most:
            self._acknowledge_alone()
        elif self._owed == 1:
            self._timers.arm(_Timer.ACKNOWLEDGE, now + ACKNOWLEDGE_DELAY)

    def _acknowledge_alone(self) -> None:
        if self._order is not None:
            self._out.append(build_v1(self._config.peer_call_id, acknowledgement=self._order.highest))
        self._owed = 0
        self._timers.stop(_Timer.ACKNOWLEDGE)

    def _take_acknowledgement(self, acknowledgement: int, now: float) -> None:
        if not self._window.acknowledged(acknowledgement, now):
            return
        if self._window.in_flight:
            self._timers.arm(_Timer.WINDOW, now + self._window.time_out)
        else:
            self._timers.stop(_Timer.WINDOW)
