"""Nobody reads the wall clock but for three who tell it to people, to a calendar or to a certificate."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.source_tree import PACKAGES, module_name, python_files

# Names of the standard library that tell the time of day, whatever module they are called on.
WALL_CLOCK = {
    "CLOCK_REALTIME", "CLOCK_TAI", "asctime", "ctime", "fromtimestamp", "gmtime", "localtime", "strftime", "time_ns",
    "today", "utcfromtimestamp", "utcnow",
}  # fmt: skip
# Those that are harmless on most things and tell it on these.
ON_MODULE = {("time", "time"), ("datetime", "now"), ("date", "today")}

READERS = {
    "grepunch.io.meeting_server": "the rendezvous tells everybody the day, from which mailboxes have their names",
    "grepunch.scenario": "the certificate of a laboratory's rendezvous is valid from today",
}
TAKES_STAMPS = {"grepunch.io.capture", "grepunch.lab.capture"}  # packets in a capture carry the time of day


def readings(source: str) -> set[str]:
    """What of the wall clock a module names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in WALL_CLOCK or (of, node.attr) in ON_MODULE:
                found.add(f"{of}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            found |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if alias.name in WALL_CLOCK or (node.module, alias.name) in ON_MODULE
            }
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\ntime.time()", {"time.time"}),
        ("from time import time_ns", {"time.time_ns"}),
        ("import datetime\ndatetime.datetime.now()", {"datetime.now"}),
        ("import time\ntime.clock_gettime(time.CLOCK_REALTIME)", {"time.CLOCK_REALTIME"}),
        ("import time\ntime.monotonic()\nself.time", set()),
    ],
)
def test_a_look_at_the_wall_clock_is_found(source: str, found: set[str]) -> None:
    assert readings(source) == found


def test_no_decision_hangs_on_the_wall_clock() -> None:
    seen = {module_name(path): readings(Path(path).read_text()) for path in python_files(*PACKAGES)}
    readers = {module for module, names in seen.items() if names} - TAKES_STAMPS
    assert readers == set(READERS)
