"""What an endpoint imports before it is ready: the parts that its profile asks for and no others."""

from __future__ import annotations

import subprocess
import sys

import pytest

SLOW = {"pyroute2", "rich", "scapy", "websockets"}
PEERS = {"grepunch.endpoint", "grepunch.peer", "grepunch.punch", "grepunch.signalling"}
ORDINARY = {"grepunch.ordinary", "pptp.ordinary", "pptp.ppp.chap", "pptp.ppp.ccp"}
MEETING = {"grepunch.meetings", "grepunch.rendezvous"}
LABORATORY = {"grepunch.lab", "grepunch.demo"}


@pytest.mark.parametrize(
    ("part", "unwanted"),
    [
        ("grepunch.endpoint", SLOW | ORDINARY | MEETING | LABORATORY),
        ("grepunch.ordinary.server", SLOW | PEERS | MEETING | LABORATORY),
        ("grepunch.ordinary.dialer", SLOW | PEERS | MEETING | LABORATORY),
    ],
    ids=["peers", "ordinary server", "ordinary client"],
)
def test_a_part_imports_what_it_needs(part: str, unwanted: set[str]) -> None:
    script = (
        f"import sys, grepunch.cli.endpoint, grepunch.running, {part}; print(*sorted({unwanted} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
