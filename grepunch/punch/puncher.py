"""The puncher: one attempt to get GRE through to one peer, all addresses and forms raced.

Its owner (the dialer, one puncher per peer and attempt) hands it the targets, starts it at the common start and
tells it when the peer is open; it hears :class:`OwnSideOpen` (to be sent to the peer through the rendezvous, if
there is one), :class:`Proven` for each address and form that works both ways, and :class:`WindowEnded`. The owner
nominates one of the proven and calls :meth:`Puncher.settle` once it is in use.

States (the enum :class:`Phase`): IDLE until told to start; WAITING for the common start; LEAD, TTL-limited; FULL; and
ENDED, where it only answers, at the end of the window, or when the owner uses what was proven. Without a rendezvous the
window is followed by SPARSE, TTL-limited again, and now and then a BURST of full TTL, until stopped. An authentic probe
of the peer shows that the peer is open, and has the effect of its "open".

Where the peer's packets do not leave its own NAT any more, ours may be what occupies their place there, and would for
as long as they keep coming (:meth:`Puncher.hold`): with our own side surely open, we are SPARSE until it is heard.

What won the last time goes first: for a moment of FULL the other forms are held back, which means that their probes
stay TTL-limited. So our own NAT is open for them all the same, and a peer that goes by another order is heard, and
answered in its own form at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, StrEnum
from ipaddress import IPv4Address

from grepunch.ports import Form, GreSend, PathNews, PathNewsKind
from grepunch.punch import plan
from grepunch.punch.candidate import Candidate, CandidateKind, is_host, is_public
from grepunch.punch.ladder import Ladder, Verdict
from grepunch.punch.plan import Budget, Proven, Schedule
from grepunch.punch.probe import ATTEMPT_ID_SIZE, NO_ATTEMPT, Probe, open_probe, seal_probe
from grepunch.punch.report import PunchReport
from grepunch.punch.stream import PeerAttempts, Stream, Target
from grepunch.punch.winners import Winner, ordered
from pptp.errors import Drop, UsageError, WireCause, WireError
from pptp.timers import Timers
from pptp.value import value
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear

# ours, because a first router answers within 100 ms
ANSWER_WAIT = 0.15
# ours, because a pooling NAT has a few addresses, and each learned source is an address we answer
MAX_LEARNED_SOURCES = 4
# ours, because an answer to an older probe than these 256 proves nothing that a newer one would not
MAX_SENT_REMEMBERED = 256


class Phase(Enum):
    """Where an attempt stands."""

    IDLE = "idle"
    WAITING = "waiting"
    LEAD = "lead"
    FULL = "full"
    SPARSE = "sparse"
    BURST = "burst"
    ENDED = "ended"
    STOPPED = "stopped"


class OpenEvidence(StrEnum):
    """Why we say that our own side is open."""

    BEYOND_NAT = "beyond_nat"  # a router outside our outermost NAT let a lead packet die
    FULL_TTL = "full_ttl"  # packets of full TTL have left
    UNCONFIRMED = "unconfirmed"  # lead packets have left and no router answered


@value
class OwnSideOpen:
    """Event, once per attempt: the peer's packets should now pass our NATs; tell the peer.

    It comes with the first form that has passed: the others left with the same TTL at the same instant, and one
    that our NAT drops would never pass, so waiting for all would only cost time.
    """

    evidence: OpenEvidence
    reporter: IPv4Address | None = None


@value
class WindowEnded:
    """Event: the window is over; both stay silent for ``silent_for`` seconds (None: no need) and start again."""

    report: PunchReport
    silent_for: float | None


@value
class Holding:
    """Event: nothing of full TTL goes to the peer until one of its probes comes."""


PunchEvent = OwnSideOpen | Proven | WindowEnded | Holding


class _Timer(Enum):
    START = "start"
    LEAD = "lead"
    ANSWER = "answer"  # the wait for a Time-Exceeded is over
    FULL = "full"
    SPARSE = "sparse"
    BURST = "burst"
    WINDOW = "window"


class Puncher:
    """One attempt; see the module. ``attempt_id`` is 8 random octets, new for each attempt.

    ``outgoing_key`` and ``incoming_key`` are the probe keys of the two directions (32 octets). ``budget`` is the
    peer's and outlives the attempt. ``own_external`` is our address as the rendezvous saw it.
    """

    def __init__(
        self,
        *,
        attempt_id: bytes,
        outgoing_key: bytes,
        incoming_key: bytes,
        targets: Sequence[Candidate],
        schedule: Schedule,
        budget: Budget,
        entropy: Callable[[int], bytes],
        own_external: IPv4Address | None = None,
        forms: Sequence[Form] = (Form.V1, Form.V0),
        winner: Winner | None = None,
    ) -> None:
        """``winner`` is what worked the last time, if that is known and still among ``forms``."""
        if len(attempt_id) != ATTEMPT_ID_SIZE or attempt_id == NO_ATTEMPT:
            raise UsageError("an attempt id is 8 octets, not all zero")
        self._attempt_id = attempt_id
        self._outgoing_key = outgoing_key
        self._incoming_key = incoming_key
        self._schedule = schedule
        self._budget = budget
        self._entropy = entropy
        self._forms = ordered(forms, winner)
        self._first = winner.form if winner is not None else None
        self._call_first = winner is not None and winner.mirrored
        self._all_held_until = self._others_held_until = 0.0
        self._targets = {
            t.address: Target(t.kind, Ladder(own_external, rendezvous=schedule.rendezvous)) for t in targets
        }
        self._streams = {
            (address, form): Stream(address, form, target)
            for address, target in self._targets.items()
            for form in self._forms
        }
        self._scheduled = tuple(self._streams.values())  # without the sources learned later
        self._phase = Phase.IDLE
        self._timers: Timers[_Timer] = Timers()
        self._transmits: list[GreSend] = []
        self._events: list[PunchEvent] = []
        self._drops: Counter[Drop] = Counter()
        self._sequence = 0
        self._sent: dict[int, tuple[Stream, float]] = {}
        self._peer_attempts = PeerAttempts()
        self._lead_count = 0
        self._full_count = 0
        self._open_told = False
        self._peer_is_open = False
        self._peer_is_shut = False
        self._began: float | None = None
        self._elapsed = 0.0

    # -- the machine contract ------------------------------------------------------------------------------

    def transmits(self) -> list[GreSend]:
        """Drain the probes to send."""
        drained, self._transmits = self._transmits, []
        return drained

    def events(self) -> list[PunchEvent]:
        """Drain what happened."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return self._timers.deadline()

    def handle_timeout(self, now: float) -> None:
        """Send what is due. A late call sends one packet per stream, never the ones that were missed."""
        self._clock(now)
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.START if self._phase is Phase.WAITING:
                    self._begin(now, Phase.LEAD)
                case _Timer.LEAD if self._phase is Phase.LEAD:
                    self._lead(now)
                case _Timer.ANSWER:
                    for target in self._targets.values():
                        target.ladder.silent()
                case _Timer.FULL if self._phase in (Phase.FULL, Phase.BURST):
                    self._full(now)
                case _Timer.SPARSE if self._phase is Phase.SPARSE:
                    self._send_lead_to(self._scheduled, now)
                    self._timers.arm(_Timer.SPARSE, now + plan.SPARSE_INTERVAL)
                case _Timer.BURST if self._phase is Phase.SPARSE:
                    self._go_full(now, Phase.BURST)
                case _Timer.WINDOW:
                    self._end_window(now)
                case _:
                    pass  # armed by a phase that was left in this very call

    # -- commands ------------------------------------------------------------------------------------------

    def start(self, at: float, now: float) -> None:
        """Begin at ``at`` (the common start on our clock; ``now`` without a rendezvous)."""
        if self._phase is not Phase.IDLE:
            raise UsageError(f"start in phase {self._phase.value}")
        self._phase = Phase.WAITING
        self._timers.arm(_Timer.START, at)
        if self._peer_is_open:
            self._begin(now, Phase.FULL)
        self.handle_timeout(now)

    def peer_opened(self, now: float) -> None:
        """The peer's sealed "open" came, or one of its probes: full TTL at once, even before the common start.

        Before :meth:`start` it is remembered, and then there is nothing left to wait for.
        """
        self._clock(now)
        self._peer_is_shut = False
        match self._phase:
            case Phase.IDLE:
                self._peer_is_open = True
            case Phase.WAITING:
                self._begin(now, Phase.FULL)
            case Phase.LEAD:
                self._go_full(now, Phase.FULL)
            case Phase.SPARSE:
                self._go_full(now, Phase.FULL if self._schedule.rendezvous else Phase.BURST)
            case _:
                pass  # already at full TTL, or over

    def call_seen(self, now: float) -> None:
        """Both NATs have now seen a PPTP call: probes of full TTL go out at once, whatever they were waiting for."""
        if self._began is not None and now < self._all_held_until and self._phase in (Phase.LEAD, Phase.FULL):
            self._all_held_until = now
            self._go_full(now, Phase.FULL)
        elif self._phase is Phase.FULL:
            self._full(now)

    def outlast(self, now: float) -> None:
        """Our own NAT lets nothing out: go on for as long as the peer's packets may occupy our place in it."""
        if self._phase in (Phase.LEAD, Phase.FULL, Phase.SPARSE):
            self._timers.arm(_Timer.WINDOW, now + plan.OCCUPIED)

    def hold(self, now: float) -> None:
        """The peer's NAT lets nothing out: see the module. What it lets out after all is heard, and answered."""
        self._peer_is_shut = not any(stream.heard for stream in self._streams.values())
        if self._phase is Phase.FULL and self._peer_is_shut:
            self._go_full(now, Phase.FULL)

    def settle(self, now: float) -> None:
        """The path is in use: send nothing more of our own accord, and answer a peer that has not proven it yet."""
        proven = any(stream.proven for stream in self._streams.values())
        self.stop(now)
        if proven:
            self._phase = Phase.ENDED

    def stop(self, now: float) -> None:
        """Send and hear nothing more."""
        self._clock(now)
        self._phase = Phase.STOPPED
        self._timers.stop_all()
        self._transmits.clear()

    @property
    def phase(self) -> Phase:
        """Where the attempt stands."""
        return self._phase

    @property
    def drops(self) -> Mapping[Drop, int]:
        """Probes not taken, and replies not given, by cause."""
        return self._drops

    @property
    def report(self) -> PunchReport:
        """What was sent and heard so far."""
        return PunchReport(tuple(stream.report() for stream in self._streams.values()), self._elapsed)

    # -- what arrives --------------------------------------------------------------------------------------

    def receive_probe(self, source: IPv4Address, form: Form, body: bytes | memoryview, ttl: int, now: float) -> bool:
        """Take the body of a PROBE packet; True when it is the peer's and new. Nothing else is ever answered."""
        if self._phase in (Phase.IDLE, Phase.STOPPED):
            return False
        self._clock(now)
        try:
            probe = open_probe(self._incoming_key, body)
        except WireError as error:
            return self._drop(Drop.BAD_TAG if error.cause is WireCause.BAD_VALUE else Drop.MALFORMED)
        if not self._peer_attempts.is_new(probe, self._streams.values()):
            return self._drop(Drop.REPLAYED)
        stream = self._stream(source, form)
        if stream is None:
            return self._drop(Drop.UNPROVEN_SOURCE)
        if stream.target is not None:
            stream.target.ladder.heard_with(ttl)
        self._take(stream, probe, ttl, now)
        self.peer_opened(now)
        return True

    def receive_news(self, news: PathNews, now: float) -> None:
        """Take what ICMP said about a probe of ours. It may be forged: it moves the lead and fills the report."""
        self._clock(now)
        target = self._targets.get(news.destination)
        if target is None or self._phase in (Phase.IDLE, Phase.WAITING, Phase.STOPPED):
            return
        streams = [self._streams[news.destination, f] for f in self._forms if news.form in (f, None)]
        if news.kind is PathNewsKind.TIME_EXCEEDED:
            self._time_exceeded(target, news, streams, now)
        for stream in streams:
            stream.note(news)

    def _time_exceeded(self, target: Target, news: PathNews, streams: Sequence[Stream], now: float) -> None:
        match target.ladder.time_exceeded(news.reporter):
            case Verdict.BEYOND:
                for stream in streams:
                    stream.beyond = news.reporter
                self._tell_open(OpenEvidence.BEYOND_NAT, news.reporter)
            case Verdict.INSIDE:
                for stream in streams:
                    stream.inside = news.reporter
                if self._phase in (Phase.LEAD, Phase.SPARSE):
                    self._send_lead_to([stream for stream in self._scheduled if stream.target is target], now)
            case Verdict.NOTHING_NEW:
                pass

    def _stream(self, source: IPv4Address, form: Form) -> Stream | None:
        """The stream of this source and form; a new source is learned, if it can be the peer's at all."""
        stream = self._streams.get((source, form))
        if stream is None:
            learned = {s.address for s in self._streams.values() if s.target is None}
            room = source in learned or len(learned) < MAX_LEARNED_SOURCES
            if source in self._targets or not room or not (is_host(source) and is_public(source)):
                return None
            stream = self._streams[source, form] = Stream(source, form, None)
        return stream

    def _take(self, stream: Stream, probe: Probe, ttl: int, now: float) -> None:
        """Count an authentic probe, learn what it proves, and answer it where an answer says something new."""
        echo = probe.peer_attempt_id == self._attempt_id
        answer = stream.take(probe, ttl, echo=echo)
        if echo:
            self._prove(stream, probe.highest_heard, now)
        answer |= self._phase is Phase.ENDED and not probe.proven  # what was lost no scheduled probe says again
        if answer and probe.attempt_id == stream.peer_attempt:
            stream.answered = self._send_full(stream, now)
        elif answer:
            self._send_full(stream, now, answering=probe)

    def _prove(self, stream: Stream, highest_heard: int, now: float) -> None:
        """The peer has heard our number ``highest_heard``: this way works if that went to this address and form."""
        sent_to, sent_at = self._sent.get(highest_heard, (None, 0.0))
        if sent_to is not stream or stream.proven:
            return
        stream.proven = True
        self._budget.prove(stream.address, now)
        self._events.append(Proven(stream.address, stream.form, now - sent_at))

    def _drop(self, cause: Drop) -> bool:
        self._drops[cause] += 1
        return False

    # -- the schedule --------------------------------------------------------------------------------------

    def _begin(self, now: float, phase: Phase) -> None:
        self._began = now
        self._all_held_until = now + plan.CALL_FIRST if self._call_first else now
        self._timers.stop(_Timer.START)
        self._timers.arm(_Timer.WINDOW, now + self._schedule.window)
        no_nat = all(target.kind is CandidateKind.LAN for target in self._targets.values())
        if phase is Phase.FULL or no_nat:
            self._go_full(now, Phase.FULL)
        else:
            self._phase = Phase.LEAD
            self._lead(now)

    def _lead(self, now: float) -> None:
        if self._lead_count >= self._schedule.lead_packets:
            self._go_full(now, Phase.FULL)
            return
        self._send_lead_to(self._scheduled, now)
        self._lead_count += 1
        if self._lead_count == self._schedule.lead_packets:
            # One interval before the first full TTL, so that "open" overtakes it on its way to a late peer.
            self._tell_open(OpenEvidence.UNCONFIRMED)
        self._timers.arm(_Timer.LEAD, now + plan.LEAD_INTERVAL)

    def _go_full(self, now: float, phase: Phase) -> None:
        if self._peer_is_shut and any(target.ladder.beyond is not None for target in self._targets.values()):
            self._wait_for_peer(now)
            return
        self._phase = phase
        if phase is Phase.FULL and self._first is not None:
            self._others_held_until = max(now, self._all_held_until) + plan.FORM_FIRST
        self._full_count = 0
        for timer in (_Timer.LEAD, _Timer.ANSWER, _Timer.SPARSE, _Timer.BURST):
            self._timers.stop(timer)
        self._full(now)

    def _full(self, now: float) -> None:
        for stream in self._scheduled:
            if stream.answered:
                stream.answered = False
            elif self._held(stream, now):
                self._send_lead(stream, now)
            elif not stream.settled:
                self._send_full(stream, now)
        self._full_count += 1
        if self._full_count > 1:  # not on the strength of one packet, which may be lost before our own NAT
            self._tell_open(OpenEvidence.FULL_TTL)
        if self._phase is Phase.BURST and self._full_count >= plan.FULL_FAST_PACKETS:
            self._go_sparse(now)
        else:
            self._timers.arm(_Timer.FULL, now + plan.full_interval(self._full_count))

    def _wait_for_peer(self, now: float) -> None:
        """A router beyond our NATs has answered: TTL-limited probes keep our own side open until the peer gets out."""
        self._phase = Phase.SPARSE
        self._timers.stop_all()
        self._timers.arm(_Timer.SPARSE, now + plan.SPARSE_INTERVAL)
        self.outlast(now)
        self._events.append(Holding())

    def _held(self, stream: Stream, now: float) -> bool:
        """Whether it is for others to go first. What has been heard of is not held back."""
        limit = (
            self._all_held_until if stream.form is self._first else max(self._all_held_until, self._others_held_until)
        )
        return not stream.heard and now < limit

    def _end_window(self, now: float) -> None:
        proven = any(stream.proven for stream in self._streams.values())
        silent = self._schedule.rendezvous and not proven
        self._events.append(WindowEnded(self.report, self._schedule.silence if silent else None))
        if self._schedule.rendezvous:
            self._end()
        else:
            self._go_sparse(now)

    def _go_sparse(self, now: float) -> None:
        if any(stream.proven for stream in self._streams.values()):
            self._end()
            return
        self._phase = Phase.SPARSE
        self._timers.stop_all()
        self._timers.arm(_Timer.SPARSE, now + plan.SPARSE_INTERVAL)
        self._timers.arm(_Timer.BURST, now + self._schedule.burst_gap(self._entropy))

    def _end(self) -> None:
        self._phase = Phase.ENDED
        self._timers.stop_all()

    def _tell_open(self, evidence: OpenEvidence, reporter: IPv4Address | None = None) -> None:
        if not self._open_told:
            self._open_told = True
            self._events.append(OwnSideOpen(evidence, reporter))

    def _clock(self, now: float) -> None:
        if self._began is not None:
            self._elapsed = now - self._began

    # -- sending -------------------------------------------------------------------------------------------

    def _send_lead_to(self, streams: Sequence[Stream], now: float) -> None:
        for stream in streams:
            self._send_lead(stream, now)
        for target in self._targets.values():
            target.ladder.sent()
        self._timers.arm(_Timer.ANSWER, now + ANSWER_WAIT)

    def _send_lead(self, stream: Stream, now: float) -> None:
        """A TTL-limited probe; a LAN target has no NAT before it and gets full TTL."""
        if stream.target is None or stream.target.kind is CandidateKind.LAN:
            self._send_full(stream, now)
            return
        ttl = stream.target.ladder.ttl
        if ttl is None:
            return
        if not self._budget.spend(stream.address, now, hourly=stream.target.hourly_budget, lead=True):
            stream.withheld += 1
            self._drop(Drop.RATE_LIMITED)
            return
        stream.lead_sent += 1
        self._send(stream, stream.peer_attempt, stream.highest_heard, ttl, now)

    def _send_full(self, stream: Stream, now: float, answering: Probe | None = None) -> bool:
        """A probe of full TTL, if the budget has one; ``answering`` an attempt that is not the stream's own."""
        hourly = stream.target is None or stream.target.hourly_budget
        if not self._budget.spend(stream.address, now, hourly=hourly):
            stream.withheld += 1
            return self._drop(Drop.RATE_LIMITED)
        stream.sent += 1
        if answering is None:
            self._send(stream, stream.peer_attempt, stream.highest_heard, None, now)
        else:
            self._send(stream, answering.attempt_id, answering.sequence, None, now)
        return True

    def _send(self, stream: Stream, peer_attempt: bytes, highest_heard: int, ttl: int | None, now: float) -> None:
        self._sequence += 1
        self._sent[self._sequence] = (stream, now)
        self._sent.pop(self._sequence - MAX_SENT_REMEMBERED, None)
        probe = Probe(
            self._attempt_id,
            self._sequence,
            peer_attempt,
            highest_heard,
            stream.proven,
            stream.arrival_ttl,
            stream.heard,
        )
        body = seal_probe(self._outgoing_key, probe)
        clear = build_clear(ClearPacket(ClearKind.PROBE, body, self._sequence & 0xFF))
        self._transmits.append(GreSend(stream.address, stream.form, clear, ttl))
