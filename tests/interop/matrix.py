"""`make interop`: our `serve` and `dial` against pppd, pptpd and pptp-linux in an emulated guest, as a table.

    make interop                                       every cell, in one boot of the guest
    make interop ARGS="--json FILE"                    and the rows: {"schema": 1, "rows": [...]}
    make interop ARGS="--role dial --match mppe128"    some of them

Exit code 1 when a cell failed; its logs and the capture of it are then kept. The guest is made once, from Debian
packages, in ~/.cache/grepunch-pptp/interop; nothing is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grepunch.lab import sandbox
from grepunch.lab.namespaces import LOGS
from grepunch.lab.node import Node
from grepunch.lab.requirements import LabUnavailable, program
from tests.interop.cells import Bench, Cell, Row
from tests.interop.debian import PackagesUnavailable
from tests.interop.guest import Guest
from tests.interop.image import cache_directory, provide
from tests.interop.kinds import KINDS, Kind

_PLAIN, _STATELESS, _STATEFUL = KINDS[2], KINDS[3], KINDS[4]
CELLS = (
    Cell("none", _STATELESS),
    *(Cell(role, kind) for role in ("serve", "dial") for kind in KINDS),
    *(Cell("serve", kind, disorder) for disorder in (1, 2, 3) for kind in (_PLAIN, _STATELESS)),
    Cell("dial", _STATELESS, calls=25),
    # not type 3, which loses frames itself: then the cipher may need a reset, and what is under way is lost with it
    Cell("serve", _STATEFUL, 2),
)
CELL_TIMEOUT = 240.0  # seconds, of which an idle machine needs a tenth
_COLUMNS = "{:<24} {:<6} {:<9} {:<18} {:<15} {:<10} {:>6}  {}"


def run_cells(cells: list[dict[str, Any]], cache: str, show: bool) -> list[dict[str, Any]]:
    """Inside the sandbox: boot the guest, run these cells; their rows."""
    image = provide(Path(cache))
    subprocess.run([program("ip"), "netns", "add", "ours"], check=True)
    node = Node("ours", LOGS)
    node.ip("link", "set", "dev", "lo", "up")
    rows = []
    try:
        with Guest(node, image) as guest:
            bench = Bench(guest)
            for fields in cells:
                row = bench.run(Cell(**{**fields, "kind": Kind(**fields["kind"])}))
                rows.append(row.as_json())
                if show:
                    print(line(row), flush=True)
                    if not row.ok:
                        print(row.detail, file=sys.stderr, flush=True)
    finally:
        node.stop()
    return rows


def as_fields(cell: Cell) -> dict[str, Any]:
    """A cell that survives JSON."""
    kind = {"authentication": cell.kind.authentication, "strength": cell.kind.strength, "stateful": cell.kind.stateful}
    return {"role": cell.role, "kind": kind, "disorder": cell.disorder, "calls": cell.calls}


def line(row: Row) -> str:
    """A line of the table."""
    outcome = row.result if row.ok else f"FAILED {row.result}"
    seen = "; ".join(row.seen)
    columns = (
        row.peer,
        row.our_role,
        row.authentication,
        row.encryption,
        row.test,
        outcome,
        f"{row.seconds:.0f} s",
        seen,
    )
    return _COLUMNS.format(*columns).rstrip()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make interop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--role", choices=("serve", "dial", "none"), help="only the cells in which we are this")
    parser.add_argument("--match", default="", metavar="TEXT", help="only the cells whose description has this")
    parser.add_argument("--calls", type=int, metavar="N", help="how many calls one after another; default: 25")
    parser.add_argument("--list", action="store_true", help="name the cells, run none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the matrix; the exit code."""
    options = parse(arguments)
    cells = [replace(cell, calls=options.calls) if cell.calls and options.calls else cell for cell in CELLS]
    cells = [cell for cell in cells if options.role in (None, cell.role) and options.match in str(cell)]
    if options.list:
        print("\n".join(map(str, cells)))
        return 0
    if not cells:
        print("interop: no such cell; --list names them", file=sys.stderr)
        return 2
    logs = Path(tempfile.mkdtemp(prefix="grepunch-interop-"))
    begun = time.monotonic()
    try:
        image = provide()
        print(_COLUMNS.format("peer", "we", "auth", "encryption", "test", "result", "time", "seen"), flush=True)
        rows = sandbox.run(
            "tests.interop.matrix:run_cells",
            {"cells": [as_fields(cell) for cell in cells], "cache": str(cache_directory()), "show": True},
            timeout=60 + CELL_TIMEOUT * len(cells),
            logs=logs,
        )
    except (LabUnavailable, PackagesUnavailable, sandbox.SandboxFailure, sandbox.SandboxTimeout) as error:
        print(f"interop: {error}\nlogs: {logs}", file=sys.stderr)
        return 1
    wrong = sum(not row["ok"] for row in rows)
    foreign = [package for package in image.packages if package.name in ("ppp", "pptpd", "pptp-linux")]
    names = ", ".join(f"{package.name} {package.version}" for package in foreign)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"
    print(
        f"\n{len(rows) - wrong} of {len(rows)} cells up in {time.monotonic() - begun:.0f} s; guest: {names}; {machine}"
    )
    if options.json is not None:
        packages = [package.as_json() for package in image.packages]
        value = {"schema": 1, "rows": rows, "packages": packages, "machine": machine}
        options.json.write_text(json.dumps(value, indent=1) + "\n")
    if wrong:
        print(f"logs: {logs}", file=sys.stderr)
    else:
        shutil.rmtree(logs)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
