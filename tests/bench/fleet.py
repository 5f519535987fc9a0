"""Many dialling endpoints from one process that has loaded the program once: each is a fork in its own namespace.

    python -m tests.bench.fleet FILE

``FILE`` is a JSON list of objects with ``namespace``, ``profile``, ``runtime`` (a directory) and ``log``. They come up
a few at a time: how a server bears a crowd that comes at once is another question than what it costs to have one. Ends
with SIGTERM, taking all of them along.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from grepunch import cli
from grepunch.config import load
from grepunch.lab.namespaces import entered

AT_ONCE = 6  # dialling at a time
_PATIENCE = 60.0  # seconds until one that does not come up is waited for no longer
_POLL = 0.02


def dial(namespace: str, profile: str, runtime: str, log: str) -> None:
    """Be one of them: never returns."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["XDG_RUNTIME_DIR"] = runtime
    with entered(namespace):
        cli.main(["dial", profile, "--json"])


def load_everything(profile: str) -> None:
    """Do once what every endpoint does first, and takes most of a second for: all share it then, memory too."""
    importlib.import_module("grepunch.endpoint")
    load(profile)


class Queue:
    """Those that have been started and are not up yet."""

    def __init__(self) -> None:
        self._waiting: dict[Path, float] = {}

    def add(self, log: str) -> None:
        """One more; returns when there is room for the next."""
        self._waiting[Path(log)] = time.monotonic() + _PATIENCE
        while len(self._waiting) >= AT_ONCE:
            time.sleep(_POLL)
            now = time.monotonic()
            self._waiting = {log: end for log, end in self._waiting.items() if now < end and not is_up(log)}


def is_up(log: Path) -> bool:
    """Whether the endpoint that writes there has its peer."""
    return log.exists() and '"event":"peer_up"' in log.read_text()


def main(arguments: list[str]) -> None:
    """See the module."""
    fleet = json.loads(Path(arguments[0]).read_text())
    load_everything(fleet[0]["profile"])
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    children = []
    queue = Queue()
    for one in fleet:
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            dial(**one)
        children.append(child)
        queue.add(one["log"])
        if signal.SIGTERM in signal.sigpending():
            break
    signal.sigwait({signal.SIGTERM})
    for child in children:
        os.kill(child, signal.SIGTERM)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
