"""The modes that look at ours alone: profile, sessions, queue. Each prints a table and may write its rows as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grepunch.lab import sandbox
from tests.bench import profiling, queue_curve, sessions
from tests.bench.report import SCHEMA, machine_line

_ALLOWANCE = 120.0  # seconds for everything but the loads


def load_average() -> str:
    """The machine's load over the last minute."""
    return Path("/proc/loadavg").read_text().split()[0]


def run(options: argparse.Namespace, about: Mapping[str, Any]) -> int:
    """Run the mode that was asked for; the exit code."""
    if options.profile:
        what, rows, lines = _profile(options)
    elif options.queue:
        what, rows, lines = _queue(options)
    else:
        what, rows, lines = _sessions(options)
    machine = {**about, "load_after": load_average()}
    if options.json is not None:
        value = {"schema": SCHEMA, "mode": what, "machine": machine, "rows": rows}
        options.json.write_text(json.dumps(value, indent=1) + "\n")
    print("\n".join([machine_line(machine), "", *lines]))
    return 0


def _profile(options: argparse.Namespace) -> tuple[str, list[dict[str, Any]], list[str]]:
    rows = sandbox.run(
        "tests.bench.profiling:measure",
        {"seconds": options.seconds, "name": options.profile},
        timeout=2 * options.seconds + _ALLOWANCE,
    )
    lines = [line for row in rows for line in (*profiling.lines_of(profiling.sampled(row)), "")]
    return "profile", rows, lines


def _queue(options: argparse.Namespace) -> tuple[str, list[dict[str, Any]], list[str]]:
    loads = len(queue_curve.POINTS) * options.rounds
    rows = sandbox.run(
        "tests.bench.queue_curve:measure",
        {"seconds": options.seconds, "rounds": options.rounds},
        timeout=loads * (options.seconds + 15) + _ALLOWANCE,
    )
    return "queue", rows, queue_curve.lines_of(rows)


def _sessions(options: argparse.Namespace) -> tuple[str, list[dict[str, Any]], list[str]]:
    rows = []
    for _ in range(options.rounds):
        for idle in dict.fromkeys((0, *options.sessions)):
            row = sandbox.run(
                "tests.bench.sessions:measure",
                {"idle": idle, "seconds": options.seconds},
                timeout=2 * (options.seconds + 15) + 2 * _ALLOWANCE + 2 * sessions.UP_EACH * idle,
            )
            rows.append(row)
            sessions.announce(row)
    return "sessions", rows, sessions.lines_of(rows)
