"""What is told of ordinary PPTP's connections and calls: as events while it happens, as status when asked.

Strangers can make a server say things as often as they please, so what they cause is told a few times a minute and
counted otherwise.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

from grepunch.ordinary.calls import Call
from grepunch.progress import Event, Level, Notice, Reporter, SessionDown, StateChanged
from grepunch.status import SessionStatus, Stage
from grepunch.text import printable
from pptp.errors import Terminated, TerminationCause

# ours
MOST_NOTICES = 20  # that strangers cause, within the period
MOST_CALLS = 60  # beginnings and ends of calls that nobody has authenticated yet, within the period
NOTICE_PERIOD = 60.0  # seconds

_QUIET = (TerminationCause.LOCAL_REQUEST, TerminationCause.PEER_REQUEST, TerminationCause.LOST_CARRIER)


class _Allowance:
    """So many events within a period; the others are counted."""

    def __init__(self, reporter: Reporter, most: int) -> None:
        self._reporter = reporter
        self._most = most
        self._told = 0
        self._untold = 0
        self._since = 0.0

    def report(self, event: Event, now: float) -> None:
        """Tell it, or count it."""
        if now - self._since >= NOTICE_PERIOD:
            if self._untold:
                self._reporter.report(Notice(f"{self._untold} more of the kind were not told", Level.WARNING))
            self._since, self._told, self._untold = now, 0, 0
        if self._told < self._most:
            self._told += 1
            self._reporter.report(event)
        else:
            self._untold += 1


class CallStories:
    """The server's, or the dialler's, voice. See the module."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._notices = _Allowance(reporter, MOST_NOTICES)
        self._calls = _Allowance(reporter, MOST_CALLS)

    def began(self, call: Call, now: float) -> None:
        """A call has been established; PPP begins."""
        detail = f"call {call.call_id} is established; PPP begins"
        self._calls.report(StateChanged(Stage.LINK, str(call.connection.source), detail), now)

    def ended(self, event: SessionDown, now: float, *, stranger: bool) -> None:
        """A call is over; a ``stranger`` never authenticated."""
        if stranger:
            self._calls.report(event, now)
        else:
            self._reporter.report(event)

    def refused(self, source: IPv4Address, why: str, now: float) -> None:
        """A connection was not taken."""
        self._notices.report(Notice(f"{source} was turned away: {why} (a Windows client shows error 800)"), now)

    def noted(self, source: IPv4Address, sentence: str, now: float) -> None:
        """Something odd that a peer did."""
        self._notices.report(Notice(f"{source}: {printable(sentence)}"), now)


def connection_error(end: Terminated) -> str | None:
    """What is worth a line about a connection that ended without a call; None for an ordinary goodbye."""
    if end.cause in _QUIET:
        return None
    return f"{end.cause}: {end.detail}" if end.detail else str(end.cause)


def session_status(call: Call, now: float) -> SessionStatus:
    """A call as `status` shows it."""
    connection = call.connection
    drops: Counter[str] = Counter({str(cause): count for cause, count in call.drops.items()})
    for inside in connection.machine.status().calls:
        if inside.call_id == call.call_id:
            drops.update({str(cause): count for cause, count in inside.drops.items()})
    up = call.up_since is not None
    return SessionStatus(
        name=call.user or str(connection.source),
        stage=Stage.UP if up else Stage.LINK,
        since=now - (call.up_since if call.up_since is not None else call.since),
        source=connection.source,
        address=call.remote,
        call_id=call.call_id,
        authentication=call.method or None,
        encryption=call.encryption if up else None,
        mtu=call.mtu or None,
        client=connection.identity or None,
        idle=now - call.heard if call.heard else None,
        rx_bytes=call.rx_bytes,
        tx_bytes=call.tx_bytes,
        rx_packets=call.rx_packets,
        tx_packets=call.tx_packets,
        drops=dict(drops),
    )
