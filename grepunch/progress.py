"""What happens while an endpoint runs, as events, and three ways to show them.

The endpoint says everything to one :class:`Reporter`. A terminal gets one live line while it punches, a pipe one line
for each change of state, a program (``--json``) one JSON object a line. Data goes to standard output, talk to standard
error; what a peer said is escaped here and nowhere else.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface
from typing import Protocol, TextIO

from grepunch import jsonvalue
from grepunch.ports import CarrierKind, Form
from grepunch.status import Stage
from grepunch.text import duration, printable
from grepunch.verdict import SCHEMA, Verdict, VerdictKind
from pptp.value import value


class Level(StrEnum):
    """How much a notice matters."""

    INFO = "info"
    WARNING = "warning"


@value
class StateChanged:
    """An endpoint, or one peer of it, entered a stage."""

    stage: Stage
    peer: str | None = None
    detail: str = ""


@value
class FormCount:
    """Packets of one encapsulation during a punch."""

    form: Form
    sent: int
    heard: int


@value
class PunchProgress:
    """A punch under way, a few times a second. Times in seconds."""

    peer: str
    elapsed: float
    forms: tuple[FormCount, ...]
    next_step: str
    next_in: float | None = None
    own_address: IPv4Address | None = None
    peer_address: IPv4Address | None = None


@value
class PeerUp:
    """The tunnel to a peer carries packets; ``elapsed`` seconds after both were present.

    Over the relay there is neither ``path`` nor ``form``, and ``reason`` says why it is not direct.
    """

    peer: str
    path: IPv4Address | None
    form: str | None
    elapsed: float
    mtu: int
    address: IPv4Address | None = None
    own_address: IPv4Interface | IPv4Address | None = None
    rtt: float | None = None
    own_external: IPv4Address | None = None
    """Where a rendezvous saw us come from."""
    same_lan: bool = False
    """Over a network that both are connected to."""
    mirrored: bool = False
    """Through NATs that have seen a PPTP call made for it."""
    carrier: CarrierKind = CarrierKind.DIRECT
    reason: str | None = None


@value
class PathChanged:
    """A tunnel that is up takes another way: GRE to ``path`` in ``form``, or the relay, for the ``reason`` given."""

    peer: str
    carrier: CarrierKind
    path: IPv4Address | None = None
    form: str | None = None
    reason: str | None = None


@value
class PeerDown:
    """The tunnel to a peer ended: a word of :class:`pptp.errors.TerminationCause` and a sentence."""

    peer: str
    cause: str
    detail: str = ""


@value
class SessionUp:
    """A call of ordinary PPTP carries packets: with a client (``peer`` is the user), or with the server dialled.

    ``elapsed`` seconds after TCP was up; ``source`` is the other side's address outside, ``address`` inside.
    """

    peer: str
    source: IPv4Address
    address: IPv4Address
    own_address: IPv4Address
    elapsed: float
    mtu: int
    authentication: str
    encryption: str
    ipv6: bool = False
    dns: tuple[IPv4Address, ...] = ()
    """Name servers that the server dialled told us."""


@value
class SessionDown:
    """A call of ordinary PPTP ended, or did not come up (``was_up``): a word of
    :class:`pptp.errors.TerminationCause`, a sentence, and the number that a Windows client shows."""

    peer: str
    source: IPv4Address
    cause: str
    detail: str = ""
    was_up: bool = True
    windows_error: int | None = None
    duration: float | None = None
    """Seconds it was up."""


@value
class Notice:
    """Anything else worth a line."""

    text: str
    level: Level = Level.INFO
    peer: str | None = None


@value
class Planned:
    """One line of what a dry run would do."""

    text: str


Event = StateChanged | PunchProgress | PeerUp | PathChanged | PeerDown | SessionUp | SessionDown | Notice | Planned


class Reporter(Protocol):
    """Where events go."""

    def report(self, event: Event) -> None:
        """Show one event."""

    def finish(self, verdict: Verdict) -> None:
        """Show how it ended: the last call."""


class Color(StrEnum):
    """``--color``."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def make_reporter(
    *, json: bool, color: Color, stdout: TextIO, stderr: TextIO, environment: Mapping[str, str]
) -> Reporter:
    """The reporter that fits: NDJSON where asked for, else for a terminal or a pipe."""
    if json:
        return JsonReporter(stdout)
    terminal = stderr.isatty() and environment.get("TERM") != "dumb"
    paint = Paint(color is Color.ALWAYS or (color is Color.AUTO and terminal and not environment.get("NO_COLOR")))
    return LiveReporter(stdout, stderr, paint) if terminal else LineReporter(stdout, stderr, paint)


class JsonReporter:
    """One JSON object a line on standard output; the last one is the verdict."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def report(self, event: Event) -> None:
        """Show one event."""
        self._write({"schema": SCHEMA, "event": _event_name(event), **jsonvalue.record(event)})

    def finish(self, verdict: Verdict) -> None:
        """Show how it ended."""
        self._write(verdict.as_json())

    def _write(self, value: Mapping[str, object]) -> None:
        print(jsonvalue.line(value), file=self._stdout, flush=True)


class LineReporter:
    """One line for each change of state."""

    def __init__(self, stdout: TextIO, stderr: TextIO, paint: Paint) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._paint = paint

    def report(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Planned):
            print(printable(event.text), file=self._stdout, flush=True)
        elif not isinstance(event, PunchProgress):
            self._say(self._paint.event(event))

    def finish(self, verdict: Verdict) -> None:
        """Show how it ended; success that needs no word gets none."""
        if verdict.kind is VerdictKind.UP and not verdict.detail:
            return
        for number, text in enumerate(verdict.lines()):
            shown = printable(text, limit=1000)
            self._say(self._paint.verdict(verdict, shown) if number == 0 else shown)

    def _say(self, text: str) -> None:
        print(text, file=self._stderr, flush=True)


class LiveReporter:
    """The same lines on a terminal, and below them one that lives while a punch is under way."""

    def __init__(self, stdout: TextIO, stderr: TextIO, paint: Paint) -> None:
        self._stderr = stderr
        self._paint = paint
        self._lines = LineReporter(stdout, stderr, paint)
        self._live = False

    def report(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, PunchProgress):
            width = shutil.get_terminal_size().columns
            self._stderr.write("\r\x1b[K" + printable(describe_punch(event), limit=max(width - 1, 20)))
            self._stderr.flush()
            self._live = True
        else:
            self._erase()
            self._lines.report(event)

    def finish(self, verdict: Verdict) -> None:
        """Show how it ended."""
        self._erase()
        self._lines.finish(verdict)

    def _erase(self) -> None:
        if self._live:
            self._stderr.write("\r\x1b[K")
            self._live = False


@value
class Paint:
    """Colour beside words and never instead of them."""

    enabled: bool

    def event(self, event: Event) -> str:
        """The line of an event."""
        match event:
            case PeerUp() | SessionUp():
                return self._in("32", describe(event))
            case PeerDown() | SessionDown() | Notice(level=Level.WARNING):
                return self._in("33", describe(event))
            case _:
                return describe(event)

    def verdict(self, verdict: Verdict, text: str) -> str:
        """The first line of a verdict."""
        return self._in("32" if verdict.ok else "31", text)

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.enabled else text


def describe(event: Event) -> str:
    """An event in one line, harmless to print."""
    match event:
        case StateChanged(stage, peer, detail):
            text = _of(peer) + stage + (f": {detail}" if detail else "")
        case PeerUp():
            text = _describe_up(event)
        case PathChanged(peer, carrier, path, form, reason):
            text = f"{peer}: now over {_describe_way(carrier, path, form)}" + (f": {reason}" if reason else "")
        case PeerDown(peer, cause, detail):
            text = f"{peer}: down: {cause}" + (f": {detail}" if detail else "")
        case SessionUp():
            text = _describe_session(event)
        case SessionDown():
            text = _describe_end(event)
        case Notice(text, level, peer):
            text = _of(peer) + (f"warning: {text}" if level is Level.WARNING else text)
        case PunchProgress():
            text = describe_punch(event)
        case Planned(text):
            pass
    return printable(text, limit=500)


def _describe_up(up: PeerUp) -> str:
    way = _describe_way(up.carrier, up.path, up.form)
    parts = [f"{up.peer}: up after {duration(up.elapsed)}: {way}, mtu {up.mtu}"]
    if up.reason is not None:
        parts.append(up.reason)
    if up.mirrored:
        parts.append("by a mirrored PPTP handshake")
    if up.rtt is not None:
        parts.append(f"rtt {up.rtt * 1000:.1f} ms")
    if up.address is not None:
        parts.append(f"inside {up.own_address} to {up.address}" if up.own_address else f"inside {up.address}")
    return ", ".join(parts)


def _describe_session(up: SessionUp) -> str:
    encrypted = "in clear" if up.encryption == "none" else up.encryption
    return (
        f"{up.peer} at {up.source}: up after {duration(up.elapsed)}: inside {up.own_address} to {up.address}, "
        f"{up.authentication}, {encrypted}, mtu {up.mtu}"
    )


def _describe_end(down: SessionDown) -> str:
    text = f"{down.peer} at {down.source}: {'down' if down.was_up else 'did not come up'}: {down.cause}"
    text += f": {down.detail}" if down.detail else ""
    text += f", after {duration(down.duration)}" if down.duration is not None else ""
    return text + (f" (a Windows client shows error {down.windows_error})" if down.windows_error else "")


def _describe_way(carrier: CarrierKind, path: IPv4Address | None, form: str | None) -> str:
    return "the relay" if carrier is CarrierKind.RELAY else f"{path} over GRE {form}"


def describe_punch(event: PunchProgress) -> str:
    """The live line: elapsed, both external addresses, sent/heard per form, what comes next."""
    counts = "  ".join(f"{count.form} {count.sent}/{count.heard}" for count in event.forms)
    own, peer = event.own_address or "?", event.peer_address or "?"
    then = event.next_step + (f" in {duration(event.next_in)}" if event.next_in is not None else "")
    return f"{event.peer}: punching {duration(event.elapsed)}  {own} <-> {peer}  sent/heard {counts}  next: {then}"


def _of(peer: str | None) -> str:
    return f"{peer}: " if peer else ""


def _event_name(event: Event) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
