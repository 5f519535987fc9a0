"""`status`: asks the running endpoints, and shows what they say."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from grepunch import jsonvalue
from grepunch.cli.common import complete_profile, emit, json_option
from grepunch.control_socket import ask, running
from grepunch.ports import CarrierKind
from grepunch.status import Stage
from grepunch.text import duration, octets, printable
from grepunch.verdict import SCHEMA, Verdict, VerdictKind, failure

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

WATCH_INTERVAL = 1.0  # seconds
PIPE_WIDTH = 200  # columns, where nobody's terminal sets them
SESSION_COLUMNS = (
    *("SESSION", "STATE", "SINCE", "FROM", "INSIDE", "SECURITY", "MTU"),
    *("IDLE", "RECEIVED", "SENT", "DROPPED", "LAST ERROR"),
)
COLUMNS = ("PEER", "STATE", "SINCE", "PATH", "MTU", "RTT", "LOSS", "RECEIVED", "SENT", "DROPPED", "LAST ERROR")

EXAMPLES = """\b
Examples:
  grepunch-pptp status
  grepunch-pptp status office --watch
  grepunch-pptp status office --json | jq .endpoints[0].peers
"""

Answer = Mapping[str, Any]  # of another process: checked where it is used


@click.command(epilog=EXAMPLES)
@click.argument("profile", required=False, shell_complete=complete_profile)
@click.option("--watch", is_flag=True, help="Again every second, until interrupted.")
@json_option
def status(profile: str | None, watch: bool, as_json: bool) -> Verdict:
    """What is running, and how it is.

    Exits with 0 where a peer or session is up, else with 20.
    """
    if watch and not as_json and sys.stdout.isatty():
        return _watch_live(profile)
    while True:
        answers = _answers(profile)
        verdict = _verdict(answers, profile)
        if as_json:
            emit(jsonvalue.line({"schema": SCHEMA, "result": str(verdict.kind), "endpoints": answers}))
        elif answers:
            _print(answers)
        elif not watch:
            raise failure(VerdictKind.NOT_UP, verdict.detail)
        if not watch:
            return verdict
        time.sleep(WATCH_INTERVAL)


def _answers(profile: str | None) -> list[Answer]:
    answers = (ask(path) for _, path in sorted(running(profile).items()))
    return [answer for answer in answers if answer is not None]


def _verdict(answers: Iterable[Answer], profile: str | None) -> Verdict:
    answers = list(answers)
    if not answers:
        return Verdict(VerdictKind.NOT_UP, f"{profile} is not running" if profile else "no endpoint is running")
    rows = [row for answer in answers for row in (*answer.get("peers", []), *_sessions(answer))]
    if any(row.get("stage") == Stage.UP for row in rows):
        return Verdict(VerdictKind.UP)
    return Verdict(VerdictKind.NOT_UP, "it is running, and nobody is up")


def _sessions(answer: Answer) -> list[Answer]:
    """The sessions of ordinary PPTP."""
    return list(answer.get("ordinary", {}).get("sessions", []))


def _watch_live(profile: str | None) -> Verdict:
    from rich.live import Live

    with Live(auto_refresh=False, screen=True) as live:
        while True:
            live.update(_render(_answers(profile)), refresh=True)
            time.sleep(WATCH_INTERVAL)


def _print(answers: Iterable[Answer]) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    with console.capture() as capture:
        console.print(_render(answers))
    emit("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))


def _render(answers: Iterable[Answer]) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[Text | Table] = []
    for answer in answers:
        parts.append(Text(_headline(answer), style="bold"))
        peers = [_cells(peer) for peer in answer.get("peers", [])]
        if peers or "ordinary" not in answer:
            parts.append(_table(COLUMNS, peers))
        parts += [Text(_routes_line(peer)) for peer in answer.get("peers", []) if peer.get("routes")]
        if "ordinary" in answer:
            parts.append(Text(_ordinary_line(answer["ordinary"])))
            parts.append(_table(SESSION_COLUMNS, [_session_cells(session) for session in _sessions(answer)]))
    return Group(*parts or [Text("no endpoint is running")])


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, no_wrap=title != "LAST ERROR")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _routes_line(peer: Answer) -> str:
    return printable(f"to {', '.join(peer['routes'])} through {peer.get('name')}", limit=400)


def _ordinary_line(ordinary: Answer) -> str:
    """What an endpoint's ordinary PPTP is, in one line; that it is breakable first of all."""
    parts = [f"ordinary PPTP, breakable: {', '.join(ordinary.get('allowed', []))}; mppe {ordinary.get('mppe')}"]
    parts.append(" ".join(filter(None, (ordinary.get("interface"), ordinary.get("address")))))
    if ordinary.get("listening"):
        parts.append(f"TCP {' '.join(ordinary['listening'])}")
    if "pool_size" in ordinary:
        parts.append(f"{ordinary.get('pool_leased')} of {ordinary['pool_size']} addresses taken")
    return printable(", ".join(parts), limit=400)


def _session_cells(session: Answer) -> list[str]:
    idle, error = session.get("idle"), session.get("last_error")
    security = " ".join(filter(None, (session.get("authentication"), session.get("encryption"))))
    return [
        str(session.get("name", "")),
        str(session.get("stage", "")),
        duration(session.get("since", 0.0)),
        str(session.get("source", "")),
        str(session.get("address", "")),
        security,
        str(session.get("mtu", "")),
        "" if idle is None else duration(idle),
        octets(session.get("rx_bytes", 0)),
        octets(session.get("tx_bytes", 0)),
        str(sum(session.get("drops", {}).values())),
        f"{error.get('stage')}: {error.get('text')} ({duration(error.get('age', 0.0))} ago)" if error else "",
    ]


def _headline(answer: Answer) -> str:
    parts = [f"{answer.get('profile')} ({answer.get('role')}, process {answer.get('pid')})"]
    parts.append(f"running for {duration(answer.get('uptime', 0.0))}")
    parts.append(" ".join(filter(None, (answer.get("interface"), answer.get("address")))))
    for rendezvous in answer.get("rendezvous", []):
        seen = rendezvous.get("external_address")
        reached = f"sees us at {seen}" if seen else "reached"
        if not rendezvous.get("connected"):
            reached = f"not reached: {rendezvous.get('error', 'no answer yet')}"
        parts.append(f"{rendezvous.get('url')} {reached}")
    dropped = sum(answer.get("drops", {}).values())
    if dropped:
        parts.append(f"{dropped} packets of nobody dropped")
    return printable(", ".join(parts), limit=400)


def _path(peer: Answer) -> str:
    if peer.get("carrier") == CarrierKind.RELAY:
        return f"relay ({peer.get('relay_reason', 'no direct path')})"
    if "path" not in peer and "remembered" in peer:
        return f"(last time {peer['remembered']})"
    return " ".join(str(part) for part in (peer.get("path"), peer.get("form")) if part)


def _cells(peer: Answer) -> list[str]:
    rtt, loss, error = peer.get("rtt"), peer.get("loss"), peer.get("last_error")
    return [
        str(peer.get("name", "")),
        str(peer.get("stage", "")),
        duration(peer.get("since", 0.0)),
        _path(peer),
        str(peer.get("mtu", "")),
        "" if rtt is None else f"{rtt * 1000:.1f} ms",
        "" if loss is None else f"{loss:.1%}",
        octets(peer.get("rx_bytes", 0)),
        octets(peer.get("tx_bytes", 0)),
        str(sum(peer.get("drops", {}).values())),
        f"{error.get('stage')}: {error.get('text')} ({duration(error.get('age', 0.0))} ago)" if error else "",
    ]
