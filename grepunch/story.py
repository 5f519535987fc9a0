"""What has happened with one peer, in order: told to the reporter as it happens, and summed up when asked.

The endpoint feeds it the peer machine's events; status takes a :class:`PeerStatus` out of it, the dialer an
:class:`Attempt` to explain.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from grepunch.datapump import PeerTraffic
from grepunch.outcome import ASK_FOR_RELAY, Attempt, why_failed
from grepunch.peer import (
    CarrierChanged,
    HandshakeFailed,
    InnerMtu,
    PathUp,
    PeerEvent,
    PeerState,
    PunchFailed,
    SessionEnded,
    StateChanged,
)
from grepunch.ports import RELAY, CarrierKind, RelayPolicy, form_name
from grepunch.progress import Event, FormCount, Level, Notice, PathChanged, PeerDown, PeerUp, PunchProgress
from grepunch.progress import StateChanged as StageChanged
from grepunch.punch.report import FormSummary
from grepunch.status import LastError, PeerStatus, Stage
from pptp.errors import TerminationCause
from pptp.ppp.ipcp import Ipv4Up

_STAGES = {
    PeerState.WAITING: Stage.WAITING,
    PeerState.HANDSHAKE: Stage.HANDSHAKE,
    PeerState.PUNCHING: Stage.PUNCHING,
    PeerState.NEGOTIATING: Stage.LINK,
    PeerState.UP: Stage.UP,
    PeerState.REPAIRING: Stage.LOST,
    PeerState.CLOSED: Stage.STOPPING,
}

# how a session ends that no configuration is to blame for
_QUIET_ENDS = (TerminationCause.REPLACED, TerminationCause.LOCAL_REQUEST, TerminationCause.PEER_REQUEST)


@dataclass(slots=True)
class _Failure:
    stage: Stage
    text: str
    at: float


class Story:
    """One peer's story; see the module."""

    def __init__(self, traffic: PeerTraffic, now: float) -> None:
        self._traffic = traffic
        self.name = traffic.name
        self.stage = Stage.WAITING
        self.since = now
        self._path: PathUp | None = None
        self._relayed_since: float | None = None
        self._why_relayed = ""
        self._advised = False
        self._mtu: int | None = None
        self._address: Ipv4Up | None = None
        self._met = self._keys = self._heard = False
        self._met_at: float | None = None
        self._punching_since: float | None = None
        self._next_round_at: float | None = None
        self._punch: PunchFailed | None = None
        self._authentication_failed = ""
        self._link_error = ""
        self._last_error: _Failure | None = None
        self._up_told = False

    @property
    def up(self) -> bool:
        """Whether the tunnel carries packets now."""
        return self.stage is Stage.UP

    def take(self, event: PeerEvent, now: float, own_external: IPv4Address | None) -> list[Event]:
        """One event of the peer machine; what to report of it."""
        match event:
            case StateChanged(state=state, detail=detail):
                return self._stage_changed(state, detail, now)
            case PathUp():
                self._path, self._heard = event, True
                return self._maybe_up(now, own_external)
            case CarrierChanged():
                return self._carrier_changed(event, now, own_external)
            case Ipv4Up():
                self._address = event
                return self._maybe_up(now, own_external)
            case InnerMtu(octets=octets):
                self._mtu = octets
            case PunchFailed():
                return self._punch_failed(event, now)
            case HandshakeFailed(reason=reason, authentication=authentication):
                self._failed(reason, now)
                # while there are keys a renewal failed, and anybody on the path can see to that: nothing ends for it
                if authentication and self._traffic.machine.sending_pair is None:
                    self._authentication_failed = reason
                    return [Notice(reason, Level.WARNING, self.name)]
            case SessionEnded(cause=cause):
                was_up, self._up_told = self._up_told, False
                refused = cause.cause is TerminationCause.PEER_REQUEST and not was_up and self._path is not None
                self._path = self._address = self._relayed_since = None
                if cause.cause not in _QUIET_ENDS or refused:
                    self._failed(cause.detail or str(cause.cause), now)
                if cause.cause is TerminationCause.NOT_AGREED or refused:
                    self._link_error = cause.detail or "the link was not agreed on"
                if was_up:
                    return [PeerDown(self.name, str(cause.cause), cause.detail)]
            case _:
                pass
        return []

    def forgive(self) -> None:
        """What has failed is tried again: nobody is to be told of it twice."""
        self._authentication_failed = ""

    def progress(
        self, counts: tuple[FormSummary, ...], peer: IPv4Address | None, own: IPv4Address | None, now: float
    ) -> PunchProgress | None:
        """The state of a punch under way; None while there is none."""
        if self.stage is not Stage.PUNCHING or self._punching_since is None:
            return None
        resting = self._resting(now)
        return PunchProgress(
            peer=self.name,
            elapsed=now - self._punching_since,
            forms=tuple(FormCount(c.form, c.lead_sent + c.sent, c.heard) for c in counts),
            next_step="a new start together" if resting is not None else "waiting for the peer's probes",
            next_in=resting,
            own_address=own,
            peer_address=peer,
        )

    def attempt(self, waited: float, now: float, *, uses_rendezvous: bool, meeting_error: str) -> Attempt:
        """What is known after ``waited`` seconds, for a verdict."""
        punch = self._punch
        counts = punch.ours if punch is not None else self._traffic.machine.punch_counts
        relay = self._traffic.machine.relay
        return Attempt(
            waited=waited,
            peer=self.name,
            uses_rendezvous=uses_rendezvous,
            meeting_error=meeting_error,
            met=self._met,
            keys=self._keys,
            heard=self._heard or any(c.heard for c in counts),
            authentication_failed=self._authentication_failed,
            same_nat=punch is not None and punch.same_nat,
            slot_taken=punch is not None and punch.slot_taken,
            path=self._path is not None or self._relayed_since is not None,
            ours=counts,
            theirs=punch.theirs if punch is not None else (),
            withheld=punch.withheld if punch is not None else 0,
            link_error=self._link_error,
            next_round_in=self._resting(now),
            relay=relay.obstacle if relay.takes or self._wants_asking else "",
            relay_wants_asking=self._wants_asking,
        )

    def status(self, now: float) -> PeerStatus:
        """The peer as `status` shows it."""
        traffic, machine = self._traffic, self._traffic.machine
        drops: dict[str, int] = {}
        for counter in (traffic.drops, machine.drops, machine.pair_drops):
            for cause, count in counter.items():
                drops[str(cause)] = drops.get(str(cause), 0) + count
        hole, error, pair, carrier = machine.hole, self._last_error, machine.sending_pair, machine.carrier
        relayed = carrier is RELAY
        return PeerStatus(
            name=self.name,
            stage=Stage.SILENT if self.stage is Stage.PUNCHING and self._resting(now) else self.stage,
            since=now - self.since,
            address=self._address.remote if self._address is not None else None,
            path=hole[0] if hole is not None else None,
            form=form_name(hole[1], machine.call_ids) if hole is not None else None,
            carrier=None if carrier is None else CarrierKind.RELAY if relayed else CarrierKind.DIRECT,
            relay_reason=self._why_relayed if relayed else None,
            mtu=self._mtu if carrier is not None else None,
            rtt=machine.relay.rtt if relayed else machine.path.rtt,
            loss=pair.loss if pair is not None and carrier is not None else None,
            rx_bytes=traffic.rx_bytes,
            tx_bytes=traffic.tx_bytes,
            rx_packets=traffic.rx_packets,
            tx_packets=traffic.tx_packets,
            drops=drops,
            last_error=LastError(error.stage, error.text, now - error.at) if error is not None else None,
        )

    def _resting(self, now: float) -> float | None:
        """Seconds until the next window begins, where two windows have a silence between them just now."""
        due = self._next_round_at
        return due - now if due is not None and due > now else None

    # -- what events mean -------------------------------------------------------------------------------------

    def _stage_changed(self, state: PeerState, detail: str, now: float) -> list[Event]:
        stage = _STAGES[state]
        if state is PeerState.HANDSHAKE:
            self._met, self._met_at = True, now
        if state in (PeerState.PUNCHING, PeerState.NEGOTIATING):
            self._met = True
            if self._traffic.machine.sending_pair is not None:
                self._keys, self._authentication_failed = True, ""
        if state is PeerState.PUNCHING:
            self._punching_since, self._next_round_at = now, None
        if state is PeerState.REPAIRING:
            self._failed(detail, now)
        if state is PeerState.UP:
            self._link_error = ""
        self.stage, self.since = stage, now
        return [StageChanged(stage, self.name, detail)]

    def _carrier_changed(self, event: CarrierChanged, now: float, own_external: IPv4Address | None) -> list[Event]:
        """Data takes another way; worth telling where the tunnel is up."""
        direct = event.address is not None
        if direct:
            self._relayed_since = None
        elif self._relayed_since is None:
            self._relayed_since = now
            lost = self._last_error.text if self._path is not None and self._last_error is not None else ""
            self._why_relayed = lost or "no direct path yet"
        if not self._up_told:
            return self._maybe_up(now, own_external)
        if direct:
            form = event.form and form_name(event.form, self._traffic.machine.call_ids)
            return [PathChanged(self.name, CarrierKind.DIRECT, event.address, form)]
        return [PathChanged(self.name, CarrierKind.RELAY, reason=self._why_relayed)]

    def _maybe_up(self, now: float, own_external: IPv4Address | None) -> list[Event]:
        path, address = self._path, self._address
        relayed = self._traffic.machine.carrier is RELAY
        if (path is None and not relayed) or address is None or self._up_told:
            return []
        self._up_told = True
        if path is None or relayed:
            return [
                PeerUp(
                    peer=self.name,
                    path=None,
                    form=None,
                    elapsed=now - (self._met_at if self._met_at is not None else now),
                    mtu=self._mtu or 0,
                    address=address.remote,
                    own_address=address.local,
                    rtt=self._traffic.machine.relay.rtt,
                    own_external=own_external,
                    carrier=CarrierKind.RELAY,
                    reason=self._why_relayed,
                )
            ]
        return [
            PeerUp(
                peer=self.name,
                path=path.address,
                form=form_name(path.form, self._traffic.machine.call_ids),
                elapsed=path.seconds,
                mtu=self._mtu or 0,
                address=address.remote,
                own_address=address.local,
                rtt=self._traffic.machine.path.rtt,
                own_external=own_external,
                same_lan=path.same_lan,
                mirrored=path.mirrored,
            )
        ]

    def _punch_failed(self, event: PunchFailed, now: float) -> list[Event]:
        self._punch = event
        self._next_round_at = now + event.next_in if event.next_in is not None else None
        text = why_failed(event)
        self._failed(text, now)
        if self._relayed_since is not None:
            told, self._why_relayed = self._why_relayed == text, text
            return [] if told else [Notice(f"no direct path, so the relay stays: {text}", Level.INFO, self.name)]
        told_now: list[Event] = [Notice(f"no path in this window: {text}", Level.WARNING, self.name)]
        if self._wants_asking and not self._advised:
            self._advised = True
            told_now.append(Notice(ASK_FOR_RELAY, Level.WARNING, self.name))
        return told_now

    @property
    def _wants_asking(self) -> bool:
        """Whether the relay would help, and this profile wants its user to be asked."""
        relay = self._traffic.machine.relay
        return relay.policy is RelayPolicy.ASK and relay.offered

    def _failed(self, text: str, now: float) -> None:
        self._last_error = _Failure(self.stage, text, now)
