"""`status`: asks the running endpoints, and shows what they say."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from grepunch import jsonvalue
from grepunch.cli.common import complete_profile, emit, json_option
from grepunch.control_socket import ask, running
from grepunch.status import Stage
from grepunch.text import duration, octets, printable
from grepunch.verdict import SCHEMA, Verdict, VerdictKind, failure

if TYPE_CHECKING:
    from rich.console import Group

WATCH_INTERVAL = 1.0  # seconds
PIPE_WIDTH = 200  # columns, where nobody's terminal sets them
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

    Exits with 0 where a peer is up, else with 20.
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
    if any(peer.get("stage") == Stage.UP for answer in answers for peer in answer.get("peers", [])):
        return Verdict(VerdictKind.UP)
    return Verdict(VerdictKind.NOT_UP, "it is running, and no peer is up")


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
    from rich.table import Table
    from rich.text import Text

    parts: list[Text | Table] = []
    for answer in answers:
        parts.append(Text(_headline(answer), style="bold"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in COLUMNS:
            table.add_column(title, no_wrap=title != "LAST ERROR")
        for peer in answer.get("peers", []):
            table.add_row(*(Text(printable(cell)) for cell in _cells(peer)))
        parts.append(table)
    return Group(*parts or [Text("no endpoint is running")])


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


def _cells(peer: Answer) -> list[str]:
    rtt, loss, error = peer.get("rtt"), peer.get("loss"), peer.get("last_error")
    return [
        str(peer.get("name", "")),
        str(peer.get("stage", "")),
        duration(peer.get("since", 0.0)),
        " ".join(str(part) for part in (peer.get("path"), peer.get("form")) if part),
        str(peer.get("mtu", "")),
        "" if rtt is None else f"{rtt * 1000:.1f} ms",
        "" if loss is None else f"{loss:.1%}",
        octets(peer.get("rx_bytes", 0)),
        octets(peer.get("tx_bytes", 0)),
        str(sum(peer.get("drops", {}).values())),
        f"{error.get('stage')}: {error.get('text')} ({duration(error.get('age', 0.0))} ago)" if error else "",
    ]
