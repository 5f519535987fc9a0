"""`probe`: what the NATs of this network do with GRE."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grepunch import jsonvalue
from grepunch.cli.common import emit, json_option
from grepunch.verdict import SCHEMA, Verdict, VerdictKind, failure

if TYPE_CHECKING:
    from grepunch.nat.report import ProbeReport

EXAMPLES = """\b
Examples:
  grepunch-pptp probe wss://meet.example.org
  grepunch-pptp probe wss://meet.example.org --json
  grepunch-pptp probe wss://meet.example.org --timers
"""


@click.command(epilog=EXAMPLES)
@click.argument("url")
@click.option("--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="Certificates (PEM) to trust.")
@click.option("--timers", is_flag=True, help="Also how long silence is survived; takes many minutes.")
@json_option
def probe(url: str, ca_file: Path | None, timers: bool, as_json: bool) -> Verdict:
    """What the NATs on the way to a server do with GRE.

    URL is a rendezvous that runs with --gre-echo. The answers are yes, no or not
    tested; they decide nothing: peers try every form all the same. Needs CAP_NET_RAW.
    """
    from grepunch.interface import host_verdicts
    from grepunch.io.echo_client import NoEchoServer
    from grepunch.io.meeting import MeetingConfigError
    from grepunch.probing import probe as run

    def told(text: str) -> None:
        if not as_json:
            print(f"testing: {text} ...", file=sys.stderr, flush=True)

    try:
        with host_verdicts():
            report = asyncio.run(run(url, ca_file=ca_file, timers=timers, told=told))
    except MeetingConfigError as error:
        raise failure(VerdictKind.USAGE, str(error)) from None
    except NoEchoServer as error:
        raise failure(VerdictKind.RENDEZVOUS_UNREACHABLE, str(error), error.advice) from None
    if as_json:
        emit(jsonvalue.line(as_object(report)))
    else:
        _print(report)
    return Verdict(VerdictKind.UP)


def as_object(report: ProbeReport) -> dict[str, object]:
    """The report as one JSON object; what was not tested is left out."""
    words = {"alg": report.alg, "call_ids": report.call_ids, "pooled": report.pooled, "forms": report.forms}
    known = {key: jsonvalue.plain(value) for key, value in words.items() if value is not None}
    return {
        "schema": SCHEMA,
        "result": str(VerdictKind.UP),
        **jsonvalue.record(report),
        **known,
        "line": report.line(),
        "sentences": report.sentences(),
        "advice": report.advice(),
    }


def _print(report: ProbeReport) -> None:
    rows = report.rows()
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = [f"{what:<{widths[0]}}  {answer:<{widths[1]}}  {how}" for what, answer, how in rows]
    emit("\n".join([*table, "", report.line(), "", *report.sentences(), f"try: {report.advice()}"]))
