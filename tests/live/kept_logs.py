"""Where runs of the grid leave their logs: only those of runs that went wrong, whatever became of the grid itself.

A run writes into a hidden directory, which is renamed when the logs are to be kept and removed otherwise. The grid
holds a lock while it lives; a directory that nobody holds is that of a grid that was killed, and the next one takes
away what it had not finished.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX = "grepunch-grid-"
_UNFINISHED = "."  # how the name of a run's directory begins while it is under way


class KeptLogs:
    """The directory of one grid, from the ``with`` statement's start to its end; an empty one does not outlive that."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        for left in parent.glob(f"{PREFIX}*"):
            _clear(left)
        self.directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = _locked(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
        _clear(self.directory)

    def begin(self, name: str) -> Path:
        """A directory for the logs of a run; several may have the same name."""
        return Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{name}-", dir=self.directory))

    def keep(self, begun: Path) -> Path:
        """Keep the logs of a run that has ended; where they are now."""
        return begun.rename(begun.with_name(begun.name.removeprefix(_UNFINISHED)))

    def drop(self, begun: Path) -> None:
        """Remove the logs of a run that has ended."""
        shutil.rmtree(begun)


def _locked(directory: Path) -> int | None:
    """A descriptor that holds the lock on a directory; None where another process holds it, or it is not ours."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass  # held: its grid lives
    os.close(descriptor)
    return None


def _clear(directory: Path) -> None:
    """Remove what runs did not finish in a directory that no grid holds, and the directory where nothing else is in."""
    lock = _locked(directory)
    if lock is None:
        return
    try:
        for run in directory.iterdir():
            if run.name.startswith(_UNFINISHED):
                shutil.rmtree(run, ignore_errors=True)
        if not any(directory.iterdir()):
            directory.rmdir()
    finally:
        os.close(lock)
