"""`make grid`: every NAT class against every other, with real processes, as a table.

    make grid                                       the whole grid with a rendezvous, start skews 0 and ±0.5 s
    make grid ARGS="--skews 0,-0.5,0.5,-5,5 --rendezvous both"
    make grid ARGS="--classes G2S,G13 --repeat 20 --json FILE"

Exit code 1 when a cell is not what :mod:`tests.live.grid_expected` says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from grepunch.lab import sandbox
from grepunch.lab.node import LabError
from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from tests.live import grid_expected as expected

BLOCKED_WAIT = 40.0  # seconds that a dial through a blocked NAT is given: one window


@dataclass(frozen=True, slots=True)
class Cell:
    """One run to make. ``skew``: how many seconds after side a side b starts (negative: before)."""

    nat_a: str
    nat_b: str
    skew: float
    rendezvous: bool


@dataclass(frozen=True, slots=True)
class Row:
    """What a run came to. ``seconds`` from both being present to the first sealed frame, the slower side's."""

    nat_a: str
    nat_b: str
    skew: float
    rendezvous: bool
    result: str
    form: str | None
    seconds: float | None
    direction: str | None
    expected: str
    ok: bool
    detail: str = ""


def run_cell(nat_a: str, nat_b: str, skew: float, rendezvous: bool) -> dict[str, Any]:
    """One run, inside the sandbox."""
    with Lab(nat_a, nat_b) as lab:
        scenario = Scenario(lab, rendezvous=rendezvous)
        if rendezvous:
            scenario.start_rendezvous()
        limit = expected.limit(nat_a, nat_b, rendezvous=rendezvous)
        blocked = expected.expected_result(nat_a, nat_b) != "up"
        wait = BLOCKED_WAIT if blocked else limit
        arguments = {"a": (), "b": ("--wait", f"{wait:.0f}s")}
        for position, name in enumerate("ab" if skew >= 0 else "ba"):
            if position:
                time.sleep(abs(skew))
            scenario.start(name, *arguments[name])
        if blocked:
            verdict, code = scenario.verdict("b", wait + 20)
            facts = verdict.get("facts", {})
            return {
                "result": verdict["result"],
                "direction": facts.get("direction"),
                "detail": f"exit {code}: {verdict.get('detail', '')}",
            }
        try:
            up = scenario.up(limit + abs(skew) + 5)
        except LabError as error:
            return {"result": "not_up", "detail": str(error)[-2000:]}
        ping = scenario.ping("b", 3)
        return {
            "result": "up" if not ping["lost"] else "ping_lost",
            "form": up[0]["form"],
            "seconds": round(max(event["elapsed"] for event in up), 3),
        }


def judge(cell: Cell, seen: dict[str, Any]) -> Row:
    """A run against its expectation."""
    result = expected.expected_result(cell.nat_a, cell.nat_b)
    ok = seen["result"] == result
    if result == "up":
        limit = expected.limit(cell.nat_a, cell.nat_b, rendezvous=cell.rendezvous)
        ok = ok and seen["form"] == expected.expected_form(cell.nat_a, cell.nat_b) and seen["seconds"] <= limit
    else:
        ok = ok and bool(seen.get("direction"))
    return Row(
        **asdict(cell),
        result=seen["result"],
        form=seen.get("form"),
        seconds=seen.get("seconds"),
        direction=seen.get("direction"),
        expected=result,
        ok=ok,
        detail=seen.get("detail", ""),
    )


def cells(classes: Sequence[str], skews: Sequence[float], rendezvous: Sequence[bool], repeat: int) -> Iterator[Cell]:
    """The runs in order: each unordered pair of classes, each way of meeting, each skew, so many times."""
    for nat_a, nat_b in combinations_with_replacement(classes, 2):
        for meets in rendezvous:
            blocked = expected.expected_result(nat_a, nat_b) != "up"
            for skew in skews[:1] if blocked else skews:
                for _ in range(1 if blocked else repeat):
                    yield Cell(nat_a, nat_b, skew, meets)


def summary(rows: Sequence[Row]) -> list[str]:
    """N, p50 and p99 of the cells with a rendezvous, the worst without, and the machine."""
    lines = []
    for meets, name in ((True, "with a rendezvous"), (False, "without a rendezvous")):
        seconds = sorted(r.seconds for r in rows if r.rendezvous is meets and r.seconds is not None)
        if seconds:
            p99 = seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
            p50 = statistics.median(seconds)
            lines.append(f"{name}: N={len(seconds)} p50={p50:.3f} s p99={p99:.3f} s max={seconds[-1]:.3f} s")
    load = Path("/proc/loadavg").read_text().split()[0]
    lines.append(f"machine: {os.cpu_count()} cores, {platform.system()} {platform.release()}, load {load}")
    return lines


def within_targets(rows: Sequence[Row]) -> bool:
    """Whether the times with a rendezvous are what was promised; too few of them say nothing."""
    seconds = sorted(r.seconds for r in rows if r.rendezvous and r.seconds is not None)
    if len(seconds) < 100:
        return True
    return statistics.median(seconds) < expected.P50_LIMIT and seconds[int(len(seconds) * 0.99)] < expected.P99_LIMIT


def print_row(row: Row) -> None:
    """One line of the table."""
    outcome = row.result if row.result == "up" else f"{row.result} ({row.direction or '?'})"
    seconds = "" if row.seconds is None else f"{row.seconds:8.3f}"
    print(
        f"{row.nat_a:>4} x {row.nat_b:<4} {'meets' if row.rendezvous else 'alone'} {row.skew:+5.1f} s  "
        f"{outcome:<22} {row.form or '':<7} {seconds:>8}  {'ok' if row.ok else 'NOT AS EXPECTED: ' + row.expected}",
        flush=True,
    )
    if not row.ok and row.detail:
        print(row.detail, file=sys.stderr)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make grid", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--classes", default=",".join(expected.CLASSES), help="such as G2S,G13")
    parser.add_argument("--skews", default="0,-0.5,0.5", help="start skews in seconds, separated by commas")
    parser.add_argument("--rendezvous", choices=("yes", "no", "both"), default="yes")
    parser.add_argument("--repeat", type=int, default=1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the grid; the exit code."""
    options = parse(arguments)
    classes = options.classes.split(",")
    unknown = [name for name in classes if name not in expected.CLASSES]
    if unknown:
        print(f"no expectation is written down for {', '.join(unknown)}", file=sys.stderr)
        return 2
    rendezvous = {"yes": [True], "no": [False], "both": [True, False]}[options.rendezvous]
    skews = [float(skew) for skew in options.skews.split(",")]
    rows: list[Row] = []
    for cell in cells(classes, skews, rendezvous, options.repeat):
        rows.append(judge(cell, sandbox.run("tests.live.grid:run_cell", asdict(cell), timeout=300)))
        print_row(rows[-1])
    for line in summary(rows):
        print(line)
    if options.json is not None:
        options.json.write_text(json.dumps({"schema": 1, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    wrong = sum(not row.ok for row in rows)
    print(f"{len(rows) - wrong} of {len(rows)} cells as expected")
    return 0 if not wrong and within_targets(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
