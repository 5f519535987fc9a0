"""Rounds of punching with a rendezvous: both sides tell where they are, agree on a start, and punch together.

One :class:`Traversal` lives as long as a sealed session. The peer machine owns it, carries its messages in the
reliable control stream and its probes in GRE, and hears :class:`Proven` for the path to take or
:class:`RoundFailed` with both sides' counts.

A round: each side sends Candidates; with both at hand the side with the lower public key proposes a start on the
rendezvous' clock, the other accepts; each punches from then on and tells the other when its own NAT is open. Either
side may begin a round by sending Candidates with a higher round number: that is how a lost path is replaced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface
from typing import Protocol

from grepunch.ports import Form, GreSend, PathNews
from grepunch.punch.candidate import (
    MAX_LAN,
    Candidate,
    CandidateKind,
    Selection,
    own_candidates,
    select_targets,
)
from grepunch.punch.plan import NOMINATION_WAIT, Budget, Proven, Schedule, acceptable_start, nominate, propose_start
from grepunch.punch.probe import ATTEMPT_ID_SIZE
from grepunch.punch.puncher import Holding, OpenEvidence, OwnSideOpen, Puncher, WindowEnded
from grepunch.punch.report import FormSummary, PunchReport
from grepunch.punch.winners import Winner, usable
from grepunch.signalling.messages import (
    MAX_GRE_SOURCES,
    CallStep,
    Candidates,
    Open,
    OutgoingCall,
    Plan,
    PlanReply,
    Report,
    ReportRow,
    SignallingMessage,
    SlotTaken,
)
from pptp.machine import earliest
from pptp.timers import Timers
from pptp.value import value

# ours, because the peer's report usually arrives one round trip after the window's end
REPORT_WAIT = 2.0
# ours, because a refused start means that a clock was measured badly: measure and propose again
PLAN_RETRY = 1.0
# ours: in a round that was held the peer's NAT has seen nothing of ours that it would have to forget first
HELD_SILENCE = 1.0
# ours, because a peer that lost its path begins a few rounds, and each costs us milliseconds of asking the kernel
PEER_ROUNDS = 16
PEER_ROUNDS_PERIOD = 30.0

UNSEEN = IPv4Address(0)


class MeetingClock(Protocol):
    """The rendezvous' clock as this side knows it; each conversion is off by at most half of ``rtt``."""

    @property
    def instance(self) -> bytes:
        """Which run of which server this clock belongs to, 8 octets."""

    @property
    def rtt(self) -> float:
        """Best round trip to the server in seconds."""

    @property
    def external(self) -> IPv4Address | None:
        """Where the server saw us come from."""

    @property
    def gre_sources(self) -> tuple[IPv4Address, ...]:
        """Where its GRE echo saw our GRE come from, where that is another address than ``external``."""

    def server_time(self, now: float) -> float:
        """The server's clock at our ``now``."""

    def local_time(self, server_time: float) -> float:
        """Our clock at the server's ``server_time``."""


@value
class PathProven:
    """Event: take this path. ``same_lan``: it goes over a network both sides are connected to."""

    address: IPv4Address
    form: Form
    rtt: float | None
    same_lan: bool


@value
class RoundFailed:
    """Event: a window went by and nothing was proven. ``theirs`` is empty where the peer's report did not come.

    ``same_nat``: both sides share an external address and no LAN, so no punch can work. ``slot_taken``: nor can one
    where another host behind the dialler's NAT has a GRE session with the same peer, for GRE has no ports.
    ``withheld`` packets of ours were due and not sent, for the budget.
    """

    ours: tuple[FormSummary, ...]
    theirs: tuple[FormSummary, ...]
    same_nat: bool
    next_round_in: float
    withheld: int = 0
    slot_taken: bool = False


@value
class RoundStarts:
    """Event: both sides punch from ``at`` on, towards ``external``, which is where the peer's NAT would see a call.

    ``call_first``: such a call is what helped the last time. ``outgoing``: FIRST where both sides would
    begin with an outgoing call, ABLE where both can make one.
    """

    number: int
    at: float
    external: IPv4Address
    call_first: bool = False
    outgoing: CallStep | None = None


@value
class PathDoubted:
    """Event: the peer has begun a round, for the path it had is not good to it any more. ``occupied``: its own NAT lets
    nothing out, most likely for what we send into that path."""

    occupied: bool = False


TraversalEvent = PathProven | RoundFailed | RoundStarts | PathDoubted


class _Timer(Enum):
    NEXT_ROUND = "next_round"
    NOMINATE = "nominate"
    REPORT = "report"
    PLAN = "plan"


@dataclass(slots=True)
class _Round:
    """What is known in the current round."""

    number: int
    mine: Candidates
    interfaces: tuple[IPv4Interface, ...]
    theirs: Candidates | None = None
    proposed: Plan | None = None
    puncher: Puncher | None = None
    winner: Winner | None = None
    targets: tuple[Candidate, ...] = ()
    first_proof_at: float = 0.0
    proven: tuple[Proven, ...] = ()
    settled: bool = False
    ended: PunchReport | None = None
    peer_report: tuple[FormSummary, ...] | None = None
    outgoing_first: bool = False  # our wish
    peer_outgoing: CallStep | None = None
    peer_open: bool = False
    peer_shut: bool = False
    held: bool = False


class Traversal:
    """Rounds of punching within one sealed session; see the module."""

    def __init__(
        self,
        *,
        proposes: bool,
        outgoing_key: bytes,
        incoming_key: bytes,
        forms: Sequence[Form],
        window: float,
        budget: Budget,
        clock: Callable[[], MeetingClock | None],
        interfaces: Callable[[], Sequence[IPv4Interface]],
        slot_taken: Callable[[IPv4Address], bool],
        entropy: Callable[[int], bytes],
        remembered: Callable[[], Winner | None] = lambda: None,
    ) -> None:
        """``proposes``: ours is the lower public key. ``clock`` gives the clock of the rendezvous in use,
        ``slot_taken`` whether another peer of ours has the GRE session with an address, or is about to,
        ``remembered`` what worked with this peer the last time."""
        self._proposes = proposes
        self._outgoing_key = outgoing_key
        self._incoming_key = incoming_key
        self._forms = tuple(forms)
        self._window = window
        self._budget = budget
        self._clock = clock
        self._interfaces = interfaces
        self._slot_taken = slot_taken
        self._entropy = entropy
        self._remembered = remembered
        self._round: _Round | None = None
        # the external addresses from behind which packets are known to have passed all of a side's NATs
        self._left_from: IPv4Address | None = None
        self._peer_left_from: IPv4Address | None = None
        self._peer_rounds: deque[float] = deque(maxlen=PEER_ROUNDS)  # when the peer began its latest rounds
        self._messages: list[SignallingMessage] = []
        self._events: list[TraversalEvent] = []
        self._timers: Timers[_Timer] = Timers()

    # -- the machine contract --------------------------------------------------------------------------

    def transmits(self) -> list[SignallingMessage | GreSend]:
        """Drain messages for the control stream and probes for GRE."""
        out: list[SignallingMessage | GreSend] = [*self._messages]
        self._messages.clear()
        if self._round is not None and self._round.puncher is not None:
            out.extend(self._round.puncher.transmits())
        return out

    def events(self) -> list[TraversalEvent]:
        """Drain what came of it."""
        drained, self._events = self._events, []
        return drained

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        puncher = self._round.puncher if self._round is not None else None
        return earliest(self._timers.deadline(), puncher.deadline() if puncher is not None else None)

    def handle_timeout(self, now: float) -> None:
        """Act on what is due."""
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.NEXT_ROUND:
                    self.begin(now)
                case _Timer.NOMINATE:
                    self._nominate(now)
                case _Timer.REPORT:
                    self._conclude(now)
                case _Timer.PLAN:
                    self._propose(now)
        if self._round is not None and self._round.puncher is not None:
            self._round.puncher.handle_timeout(now)
            self._drain_puncher(now)

    # -- commands ----------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Begin a round: at the start of the session, and whenever the path is lost."""
        self._open_round((self._round.number if self._round is not None else 0) + 1, now)

    def stop(self, now: float) -> None:
        """The path in use is good: send and expect nothing more in this round."""
        self._timers.stop_all()
        if self._round is not None:
            self._round.settled = True
            if self._round.puncher is not None:
                self._round.puncher.settle(now)

    @property
    def punching(self) -> bool:
        """Whether a round is under way."""
        return self._round is not None and not self._round.settled

    @property
    def seen_elsewhere(self) -> bool:
        """Whether the rendezvous now sees us come from another address than this round told the peer."""
        clock = self._clock()
        external = clock.external if clock is not None else None
        return self._round is not None and external is not None and external != self._round.mine.external

    @property
    def report(self) -> PunchReport | None:
        """Counts of the current round's window."""
        puncher = self._round.puncher if self._round is not None else None
        return puncher.report if puncher is not None else None

    @property
    def peer_external(self) -> IPv4Address | None:
        """Where the rendezvous saw the peer come from, as the peer says."""
        theirs = self._round.theirs if self._round is not None else None
        return theirs.external if theirs is not None and theirs.external != UNSEEN else None

    # -- what arrives -----------------------------------------------------------------------------------

    def receive(self, message: SignallingMessage, now: float) -> None:
        """A message of the control stream. What belongs to another round than the current one is ignored."""
        current = self._round
        match message:
            case Candidates():
                self._candidates(message, now)
            case Plan() if current is not None and message.round == current.number and not self._proposes:
                self._answer_plan(message, now)
            case PlanReply() if current is not None and message.round == current.number and self._proposes:
                self._plan_answered(message, now)
            case SlotTaken() if current is not None and message.round == current.number and not current.proven:
                self._give_up(now, slot_taken=True)
            case Open() if current is not None and message.round == current.number:
                self._peer_opened(current, message.confirmed, now)
            case OutgoingCall(step=CallStep.ABLE | CallStep.FIRST) if current is not None:
                if message.round == current.number:
                    current.peer_outgoing = message.step
            case Report() if current is not None and message.round == current.number:
                current.peer_report = tuple(FormSummary(**asdict(row)) for row in message.rows)
                if current.ended is not None:
                    self._conclude(now)
            case _:
                pass

    def receive_probe(self, source: IPv4Address, form: Form, body: bytes, ttl: int, now: float) -> bool:
        """A probe from the hole; True when it is authentic and of this round."""
        if self._round is None or self._round.puncher is None:
            return False
        authentic = self._round.puncher.receive_probe(source, form, body, ttl, now)
        self._drain_puncher(now)
        return authentic

    def call_seen(self, now: float) -> None:
        """The NATs between us and the peer have seen a PPTP call."""
        if self._round is not None and self._round.puncher is not None:
            self._round.puncher.call_seen(now)

    def afford(self, address: IPv4Address, packets: int, now: float) -> bool:
        """Take so many packets out of what this address may get; False, and none, when that is too many."""
        return self._budget.spend(address, now, hourly=True, packets=packets)

    def claims(self, address: IPv4Address) -> bool:
        """Whether the current round is about to prove this address."""
        theirs = self._round.theirs if self._round is not None and not self._round.settled else None
        return theirs is not None and address in (theirs.external, *theirs.gre)

    def aims_at(self, address: IPv4Address) -> bool:
        """Whether the current round probes this address."""
        return self._round is not None and any(target.address == address for target in self._round.targets)

    def receive_news(self, news: PathNews, now: float) -> None:
        """What ICMP said about a probe."""
        if self._round is not None and self._round.puncher is not None:
            self._round.puncher.receive_news(news, now)
            self._drain_puncher(now)

    def _peer_opened(self, current: _Round, confirmed: bool, now: float) -> None:
        """The peer has led. Where routers beyond its NATs used to answer that, and now none does, it is shut in."""
        external = current.theirs.external if current.theirs is not None else UNSEEN
        if confirmed:
            self._peer_left_from = external
        current.peer_shut = not confirmed and external != UNSEEN and self._peer_left_from == external
        current.peer_open = not current.peer_shut
        if current.puncher is None:
            return
        if current.peer_shut:
            current.puncher.hold(now)
        else:
            current.puncher.peer_opened(now)
        self._drain_puncher(now)

    def _own_opened(self, current: _Round, puncher: Puncher, evidence: OpenEvidence, now: float) -> None:
        """Tell the peer that we have led, and what routers said."""
        confirmed = evidence is OpenEvidence.BEYOND_NAT
        external = current.mine.external
        if confirmed:
            self._left_from = external
        elif external != UNSEEN and self._left_from == external:
            puncher.outlast(now)
        self._messages.append(Open(current.number, confirmed))

    # -- a round ------------------------------------------------------------------------------------------

    def _open_round(self, number: int, now: float) -> None:
        self.stop(now)
        clock = self._clock()
        interfaces = tuple(self._interfaces())
        external = clock.external if clock is not None else None
        lan = [c.address for c in own_candidates(interfaces, external) if c.kind is CandidateKind.LAN][:MAX_LAN]
        mine = Candidates(
            round=number,
            rtt=clock.rtt if clock is not None else 0.0,
            external=external or UNSEEN,
            forms=frozenset(self._forms),
            local=tuple((i.ip, i.network.prefixlen) for i in interfaces if i.ip in lan),
            gre=clock.gre_sources[:MAX_GRE_SOURCES] if clock is not None else (),
        )
        remembered = usable(self._remembered(), self._forms)
        outgoing_first = remembered is not None and remembered.outgoing
        self._round = _Round(number, mine, interfaces, outgoing_first=outgoing_first)
        self._messages += [mine, OutgoingCall(number, CallStep.FIRST if outgoing_first else CallStep.ABLE)]

    def _candidates(self, theirs: Candidates, now: float) -> None:
        current = self._round
        if current is None or theirs.round > current.number:
            if not self._may_begin(theirs.round, now):
                return
            if current is not None and current.settled:
                self._events.append(PathDoubted())
            self._open_round(theirs.round, now)
            current = self._round
        if current is None or theirs.round < current.number or current.theirs is not None:
            return
        current.theirs = theirs
        selection = self._select(current.interfaces, theirs)
        if any(t.kind is not CandidateKind.LAN and self._slot_taken(t.address) for t in selection.targets):
            self._messages.append(SlotTaken(current.number))
            self._give_up(now, slot_taken=True)
        elif self._proposes:
            self._propose(now)

    def _may_begin(self, number: int, now: float) -> bool:
        """Whether the peer's round is one of not too many, and counts on from ours: nobody skips rounds."""
        times = self._peer_rounds
        often = len(times) == PEER_ROUNDS and now - times[0] < PEER_ROUNDS_PERIOD
        if often or number - (self._round.number if self._round is not None else 0) > PEER_ROUNDS:
            return False
        times.append(now)
        return True

    def _propose(self, now: float) -> None:
        current, clock = self._round, self._clock()
        if current is None or current.theirs is None or current.settled:
            return
        if clock is None:  # the rendezvous is away just now; the round waits for it
            self._timers.arm(_Timer.PLAN, now + PLAN_RETRY)
            return
        start = propose_start(clock.server_time(now), clock.rtt, current.theirs.rtt)
        current.proposed = Plan(current.number, clock.instance, start)
        self._messages.append(current.proposed)

    def _answer_plan(self, plan: Plan, now: float) -> None:
        current, clock = self._round, self._clock()
        if current is None or current.theirs is None or current.puncher is not None or current.settled:
            return
        accepted = (
            clock is not None
            and plan.server_instance == clock.instance
            and acceptable_start(plan.start, clock.server_time(now))
        )
        self._messages.append(PlanReply(current.number, accepted))
        if accepted:
            self._start(plan, now)

    def _plan_answered(self, reply: PlanReply, now: float) -> None:
        current = self._round
        if current is None or current.proposed is None or current.puncher is not None or current.settled:
            return
        if reply.accepted:
            self._start(current.proposed, now)
        else:
            self._timers.arm(_Timer.PLAN, now + PLAN_RETRY)

    def _start(self, plan: Plan, now: float) -> None:
        current, clock = self._round, self._clock()
        if current is None or current.theirs is None:
            return
        mine, theirs = current.mine, current.theirs
        selection = self._select(current.interfaces, theirs)
        current.targets = selection.targets
        forms = tuple(form for form in self._forms if form in theirs.forms)
        if not selection.targets or not forms:
            self._give_up(now, same_nat=selection.same_nat)
            return
        current.winner = usable(self._remembered(), forms)
        current.puncher = Puncher(
            attempt_id=self._entropy(ATTEMPT_ID_SIZE),
            outgoing_key=self._outgoing_key,
            incoming_key=self._incoming_key,
            targets=selection.targets,
            schedule=Schedule.with_rendezvous((mine.rtt + theirs.rtt) / 2, window=self._window),
            budget=self._budget,
            entropy=self._entropy,
            own_external=clock.external if clock is not None else None,
            forms=forms,
            winner=current.winner,
        )
        if current.peer_open:
            current.puncher.peer_opened(now)
        elif current.peer_shut:
            current.puncher.hold(now)
        # Should the rendezvous have gone since the plan was agreed on, the start is near all the same.
        start = max(clock.local_time(plan.start), now) if clock is not None else now
        if Candidate(theirs.external, CandidateKind.EXTERNAL) in selection.targets:
            call_first = current.winner is not None and current.winner.mirrored
            outgoing = current.peer_outgoing
            if outgoing is CallStep.FIRST and not current.outgoing_first:
                outgoing = CallStep.ABLE
            self._events.append(RoundStarts(current.number, start, theirs.external, call_first, outgoing))
        current.puncher.start(start, now)
        self._drain_puncher(now)

    def _select(self, interfaces: Sequence[IPv4Interface], theirs: Candidates) -> Selection:
        """Which of the peer's addresses are worth probing."""
        clock = self._clock()
        outside = [address for address in (theirs.external, *theirs.gre) if address != UNSEEN]
        peer = [Candidate(address, CandidateKind.EXTERNAL) for address in outside]
        peer += [Candidate(address, CandidateKind.LAN) for address, _ in theirs.local]
        return select_targets(interfaces, clock.external if clock is not None else None, peer)

    def _give_up(self, now: float, *, same_nat: bool = False, slot_taken: bool = False) -> None:
        """This round cannot work; the next one tries again, for things may change."""
        self.stop(now)
        silence = Schedule.with_rendezvous(0.0).silence
        self._timers.arm(_Timer.NEXT_ROUND, now + silence)
        self._events.append(RoundFailed((), (), same_nat, silence, slot_taken=slot_taken))

    def _drain_puncher(self, now: float) -> None:
        current = self._round
        if current is None or current.puncher is None:
            return
        for event in current.puncher.events():
            match event:
                case OwnSideOpen(evidence=evidence):
                    self._own_opened(current, current.puncher, evidence, now)
                case Holding():
                    current.held = True
                    self._events.append(PathDoubted(occupied=True))
                case Proven():
                    if not current.proven:
                        current.first_proof_at = now
                    current.proven = (*current.proven, event)
                    self._nominate(now)
                case WindowEnded(report=report):
                    self._window_ended(report, now)

    def _nominate(self, now: float) -> None:
        current = self._round
        if current is None or current.settled or not current.proven:
            return
        waited = now - current.first_proof_at
        best = nominate(current.proven, waited, current.winner.form if current.winner is not None else Form.V1)
        if best is None:
            self._timers.arm(_Timer.NOMINATE, current.first_proof_at + NOMINATION_WAIT + 1e-4)  # float rounding
            return
        current.settled = True
        same_lan = any(t.address == best.address and t.kind is CandidateKind.LAN for t in current.targets)
        self._events.append(PathProven(best.address, best.form, best.rtt, same_lan))

    def _window_ended(self, report: PunchReport, now: float) -> None:
        current = self._round
        if current is None or current.settled:
            return
        current.ended = report
        self._messages.append(Report(current.number, tuple(ReportRow(**asdict(s)) for s in report.summaries())))
        if current.peer_report is not None:
            self._conclude(now)
        else:
            self._timers.arm(_Timer.REPORT, now + REPORT_WAIT)

    def _conclude(self, now: float) -> None:
        current = self._round
        if current is None or current.ended is None or current.settled:
            return
        current.settled = True
        silence = HELD_SILENCE if current.held else Schedule.with_rendezvous(0.0).silence
        self._timers.stop(_Timer.REPORT)
        self._timers.arm(_Timer.NEXT_ROUND, now + silence)
        self._events.append(
            RoundFailed(current.ended.summaries(), current.peer_report or (), False, silence, current.ended.withheld)
        )
