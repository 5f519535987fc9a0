"""`make grid`: every NAT class against every other, with real processes, as a table.

    make grid                                                  with a rendezvous, both started together
    make grid ARGS="--rendezvous both --skews 0,-0.5,0.5,-5,5"
    make grid ARGS="--classes G2S,G13 --repeat 20 --json FILE"

In a pair A x B `serve` runs behind A and `dial` behind B; a positive skew is how much later `dial` starts. Exit code 1
when a cell is not what :mod:`tests.live.grid_expected` says. Of such a cell the logs and what passed between the NATs
are kept. Where a direct path must come up nothing is relayed, so that a failed punch shows; where none can, the link
must come up over the relay, and say why it stays there when a window has ended. Where a NAT restarts, the link must
carry again. Times are worth something from serial runs only, so more than one job is for correctness.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from grepunch.lab import sandbox
from grepunch.lab.node import LabError
from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from tests.live.grid_expected import (
    CLASSES,
    DEFAULT_CLASSES,
    ENOUGH_RUNS,
    P50_LIMIT,
    P99_LIMIT,
    RELAYED,
    Expectation,
    expected,
)
from tests.live.kept_logs import KeptLogs

BLOCKED_WAIT = 40.0  # seconds that a dial through a blocked NAT is given: one window
# Blocked and relayed pairs wait for a window to end; but as many as this begin at once, each with three programs.
WAITING_JOBS = min(8, 2 * (os.cpu_count() or 1))
BACK_WAIT = 60.0  # seconds that a tunnel is given after its NATs have restarted: to see how late it is
RELAYED_WINDOW = 10.0  # seconds: a mirrored handshake gives up before
RELAY_RATE = 1000.0  # Mbit/s: no quota in the way
CELL_TIMEOUT = 300.0
MAX_SKEW = 60.0  # seconds; a run has its timeout


@dataclass(frozen=True, slots=True)
class Cell:
    """One run to make. ``skew``: how many seconds after side a side b starts (negative: before)."""

    nat_a: str
    nat_b: str
    skew: float
    rendezvous: bool

    @property
    def expectation(self) -> Expectation:
        """What it must come to."""
        return expected(self.nat_a, self.nat_b, rendezvous=self.rendezvous)

    def __str__(self) -> str:
        return f"{self.nat_a}x{self.nat_b}{self.skew:+.1f}s-{'meets' if self.rendezvous else 'alone'}"


@dataclass(frozen=True, slots=True)
class Row:
    """What a run came to.

    ``seconds`` from both being present to the first sealed frame, the slower side's; ``back`` from when the NATs that
    restart have done so until pings pass both ways again.
    """

    pair: str
    nat_a: str
    nat_b: str
    skew: float
    rendezvous: bool
    result: str
    form: str
    seconds: float | None
    direction: str
    side: str
    expected: str
    expected_form: str
    limit: float
    ok: bool
    back: float | None = None
    reason: str = ""
    detail: str = ""
    logs: str = ""

    def as_json(self) -> dict[str, Any]:
        """What is absent is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None and value != ""}


# -- one run ---------------------------------------------------------------------------------------------------------


def run_cell(nat_a: str, nat_b: str, skew: float, rendezvous: bool) -> dict[str, Any]:
    """One run, inside the sandbox."""
    expectation = expected(nat_a, nat_b, rendezvous=rendezvous)
    wait = expectation.limit or BLOCKED_WAIT
    with Lab(nat_a, nat_b) as lab:
        relayed = expectation.form == RELAYED
        scenario = Scenario(
            lab,
            rendezvous=rendezvous,
            punch=f'relay = "auto"\nwindow = {RELAYED_WINDOW}' if relayed else "",
            relay=RELAY_RATE if relayed else None,
            gre_echo=True,
        )
        for interface in ("a", "b"):
            lab.wan.capture(interface)
        if rendezvous:
            scenario.start_rendezvous()
        arguments = {"a": (), "b": ("--wait", f"{wait:.0f}s")}
        for position, name in enumerate("ab" if skew >= 0 else "ba"):
            if position:
                time.sleep(abs(skew))
            scenario.start(name, *arguments[name])
        try:
            if not expectation.form:
                return blocked(scenario, wait + 20)
            up = scenario.up(wait + abs(skew) + 5)
        except LabError as error:
            return {"result": "not_up", "detail": str(error), **verdict_of(scenario)}
        if relayed:
            seen = stays_relayed(scenario, up)
        else:
            form = up[0]["form"] if up[0]["form"] == up[1]["form"] else f"{up[0]['form']}/{up[1]['form']}"
            result = "link_lost" if scenario.ping("b", 3)["lost"] else "up"
            seen = {"result": result, "form": form, "seconds": scenario.seconds_to_up(*up)}
        return restarted(scenario, seen) if expectation.back and seen["result"] == "up" else seen


def restarted(scenario: Scenario, seen: dict[str, Any]) -> dict[str, Any]:
    """A tunnel whose NATs restart under other addresses: how long until it carries again."""
    scenario.lab.restart_boxes()
    back = scenario.answers_again(BACK_WAIT)
    if back is None:
        return seen | {"result": "link_lost", "detail": "\n".join(peer.tail() for peer in scenario.peers.values())}
    return seen | {"back": back}


def stays_relayed(scenario: Scenario, up: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """A link that came up over the relay: whether it is there still when a window has ended, and why."""
    seen = {"result": "up", "form": up[1]["carrier"], "seconds": scenario.seconds_to_up(*up)}
    try:
        scenario.wait_for("b", "notice", RELAYED_WINDOW + 20, level="info")
    except LabError as error:
        return seen | {"result": "not_up", "detail": str(error)}
    status = scenario.status("b")["peers"][0]
    if scenario.ping("b", 3)["lost"]:
        return seen | {"result": "link_lost"}
    return seen | {"form": status["carrier"], "reason": status["relay_reason"]}


def blocked(scenario: Scenario, timeout: float) -> dict[str, Any]:
    """What `dial` says when it gives up, or that it does not."""
    try:
        verdict, code = scenario.verdict("b", timeout)
    except subprocess.TimeoutExpired:
        return {"result": "not_up", "detail": f"dial gave no verdict in {timeout:.0f} s\n{scenario.peers['b'].tail()}"}
    if verdict["exit_code"] != code:
        return {"result": "internal", "detail": f"exit code {code} of {verdict}"}
    return verdict_of(scenario)


def verdict_of(scenario: Scenario) -> dict[str, Any]:
    """The verdict of `dial`, if it has one."""
    for event in scenario.events("b"):
        if event["event"] == "verdict":
            facts = event.get("facts", {})
            return {
                "result": event["result"],
                "direction": facts.get("direction", ""),
                "side": facts.get("side", ""),
                "detail": event.get("detail", ""),
            }
    return {}


def judge(cell: Cell, seen: dict[str, Any], logs: str = "") -> Row:
    """A run against its expectation."""
    expectation = cell.expectation
    seconds = seen.get("seconds")
    return Row(
        pair=f"{cell.nat_a} x {cell.nat_b}",
        **asdict(cell),
        result=seen["result"],
        form=seen.get("form", ""),
        seconds=seconds,
        direction=seen.get("direction", ""),
        side=seen.get("side", ""),
        expected=expectation.result,
        expected_form=expectation.form,
        limit=expectation.limit,
        ok=(
            (seen["result"], seen.get("form", "")) == (expectation.result, expectation.form)
            and (seconds is None or seconds <= expectation.limit)
            and (not expectation.back or seen.get("back", math.inf) <= expectation.back)
            and seen.get("direction", "") == expectation.direction
            and expectation.side in ("", seen.get("side", ""))
            and (expectation.form != RELAYED or bool(seen.get("reason")))
        ),
        back=seen.get("back"),
        reason=seen.get("reason", ""),
        detail=seen.get("detail", ""),
        logs=logs,
    )


def run_and_judge(cell: Cell, logs: KeptLogs) -> Row:
    """One run in a sandbox of its own; its logs stay where it is not as expected."""
    begun = logs.begin(str(cell))
    try:
        seen = sandbox.run("tests.live.grid:run_cell", asdict(cell), timeout=CELL_TIMEOUT, logs=begun)
    except (sandbox.SandboxFailure, sandbox.SandboxTimeout) as error:
        seen = {"result": "internal", "detail": f"{type(error).__name__}: {error}"}
    row = judge(cell, seen)
    if row.ok:
        logs.drop(begun)
        return row
    return judge(cell, seen, str(logs.keep(begun)))


# -- all of them -----------------------------------------------------------------------------------------------------


def pairs(classes: Sequence[str], *, rendezvous: bool) -> Iterator[tuple[str, str]]:
    """Each unordered pair, and a pair that is blocked in both orders: its verdict names the side."""
    for nat_a, nat_b in combinations_with_replacement(classes, 2):
        yield nat_a, nat_b
        if nat_a != nat_b and not expected(nat_a, nat_b, rendezvous=rendezvous).form:
            yield nat_b, nat_a


def cells(
    classes: Sequence[str], skews: Sequence[float], rendezvous: Sequence[bool], repeat: int
) -> tuple[list[Cell], list[Cell]]:
    """The runs in order: those with a direct path, each so many times and with each skew; and the others."""
    passing, waiting = [], []
    for meets in rendezvous:
        for nat_a, nat_b in pairs(classes, rendezvous=meets):
            if expected(nat_a, nat_b, rendezvous=meets).form in ("", RELAYED):
                waiting.append(Cell(nat_a, nat_b, 0.0, meets))
                continue
            passing += [Cell(nat_a, nat_b, skew, meets) for skew in skews for _ in range(repeat)]
    return passing, waiting


def run_all(some: Sequence[Cell], jobs: int, run: Callable[[Cell], Row]) -> Iterator[Row]:
    """The rows in the order of the cells, as they come."""
    if jobs == 1:
        yield from map(run, some)
        return
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(run, some)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# -- what is said ----------------------------------------------------------------------------------------------------

_COLUMNS = "{:<12} {:<6} {:>7}  {:<24} {:<7} {:>9}  {}"


def line(row: Row) -> str:
    """A line of the table."""
    outcome = row.result if row.result == "up" else ", ".join(filter(None, (row.result, row.direction, row.side)))
    wanted = str(expected(row.nat_a, row.nat_b, rendezvous=row.rendezvous))
    return _COLUMNS.format(
        row.pair,
        "yes" if row.rendezvous else "no",
        f"{row.skew:+.1f} s",
        outcome,
        row.form,
        "" if row.seconds is None else f"{row.seconds:.3f} s",
        (wanted if row.ok else f"NOT AS EXPECTED: {wanted}")
        + ("" if row.back is None else f": back after {row.back:.1f} s")
        + (f": {row.reason}" if row.reason else ""),
    ).rstrip()


def percentile(ordered: Sequence[float], part: float) -> float:
    """By nearest rank: the smallest value that so large a part of all does not exceed."""
    return ordered[math.ceil(part * len(ordered)) - 1]


def figures(rows: Iterable[Row], rendezvous: bool) -> dict[str, Any]:
    """N, p50, p99 and the largest of the seconds of the runs that got a direct path."""
    direct = [row for row in rows if row.rendezvous is rendezvous and row.form != RELAYED]
    seconds = sorted(row.seconds for row in direct if row.seconds is not None)
    if not seconds:
        return {"n": 0}
    return {
        "n": len(seconds),
        "p50": round(statistics.median(seconds), 3),
        "p99": round(percentile(seconds, 0.99), 3),
        "max": seconds[-1],
    }


def summary(rows: Sequence[Row], jobs: int, machine: str) -> list[str]:
    """The figures of both ways of meeting, and the machine."""
    lines = []
    for meets, name in ((True, "with a rendezvous"), (False, "without a rendezvous")):
        found = figures(rows, meets)
        if found["n"]:
            how = "" if jobs == 1 else f", in {jobs} jobs at once"
            lines.append(f"{name}: N={found['n']} p50={found['p50']} s p99={found['p99']} s max={found['max']} s{how}")
    return [*lines, f"machine: {machine}"]


def machine_line(load_before: str) -> str:
    """Cores, kernel, load."""
    load = load_average()
    python = platform.python_version()
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {python}, "
        f"load {load_before} before, {load} after"
    )


def load_average() -> str:
    """Of the last minute."""
    return Path("/proc/loadavg").read_text().split()[0]


def within_targets(rows: Sequence[Row], jobs: int) -> bool:
    """Whether the times with a rendezvous are what was promised; too few, or parallel ones, say nothing."""
    found = figures(rows, rendezvous=True)
    return jobs > 1 or found["n"] < ENOUGH_RUNS or (found["p50"] < P50_LIMIT and found["p99"] < P99_LIMIT)


# -- the command -----------------------------------------------------------------------------------------------------


def at_least_one(text: str) -> int:
    """A count of runs."""
    if (count := int(text)) < 1:
        raise ValueError
    return count


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make grid", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--classes", default=",".join(DEFAULT_CLASSES), help=f"default: %(default)s; all: {','.join(CLASSES)}"
    )
    parser.add_argument("--skews", default="0", metavar="LIST", help="in seconds; default: %(default)s")
    parser.add_argument("--rendezvous", choices=("yes", "no", "both"), default="yes")
    parser.add_argument(
        "--repeat", type=at_least_one, default=1, metavar="N", help="each cell that comes up so many times"
    )
    parser.add_argument(
        "--jobs", type=at_least_one, default=1, metavar="N", help="runs at once; only serial ones give times"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    options = parser.parse_args(arguments)
    options.classes = list(CLASSES if options.classes == "all" else dict.fromkeys(options.classes.split(",")))
    unknown = [name for name in options.classes if name not in CLASSES]
    if unknown:
        parser.error(f"no expectation is written down for {', '.join(unknown)}; known: {', '.join(CLASSES)}")
    try:
        options.skews = [float(skew) for skew in options.skews.split(",")]
    except ValueError:
        options.skews = []
    if not options.skews or not all(abs(skew) <= MAX_SKEW for skew in options.skews):
        parser.error(f"--skews: expected seconds, separated by commas, none beyond {MAX_SKEW:.0f}")
    if options.json is not None:
        try:
            options.json.open("a").close()
        except OSError as error:
            parser.error(f"--json {options.json}: cannot be written: {error.strerror}")
    options.rendezvous = {"yes": [True], "no": [False], "both": [True, False]}[options.rendezvous]
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the grid; the exit code."""
    options = parse(arguments)
    passing, waiting = cells(options.classes, options.skews, options.rendezvous, options.repeat)
    before = load_average()
    rows: list[Row] = []
    print(_COLUMNS.format("serve x dial", "meet", "skew", "result", "form", "seconds", "expected"), flush=True)
    signal.signal(signal.SIGTERM, _leave)  # so that what was run until then is written, and nothing left behind
    try:
        with KeptLogs() as logs:
            for some, jobs in ((passing, options.jobs), (waiting, max(options.jobs, WAITING_JOBS))):
                for row in run_all(some, jobs, lambda cell: run_and_judge(cell, logs)):
                    rows.append(row)
                    print(line(row), flush=True)
                    if not row.ok:
                        print(f"{row.detail}\nlogs: {row.logs}", file=sys.stderr)
    finally:
        machine = machine_line(before)
        if options.json is not None:
            write_json(options.json, rows, options.jobs, machine)
    print("\n" + "\n".join(summary(rows, options.jobs, machine)))
    wrong = sum(not row.ok for row in rows)
    print(f"{len(rows) - wrong} of {len(rows)} cells as expected")
    timely = within_targets(rows, options.jobs)
    if not timely:
        print(f"the times with a rendezvous are not p50 < {P50_LIMIT} s and p99 < {P99_LIMIT} s")
    return 0 if not wrong and timely else 1


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def write_json(path: Path, rows: Sequence[Row], jobs: int, machine: str) -> None:
    """All rows as one object."""
    value = {
        "schema": 1,
        "rows": [row.as_json() for row in rows],
        "with_rendezvous": figures(rows, rendezvous=True),
        "without_rendezvous": figures(rows, rendezvous=False),
        "jobs": jobs,
        "machine": machine,
    }
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # nobody reads the table any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
