"""Where an endpoint leaves what it leaves: lock and control socket while it runs, what it knows for the next run.

And the lock itself: one process per profile.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from grepunch.verdict import Failure, Verdict, VerdictKind, failure

SYSTEM_DIRECTORY = Path("/run/grepunch-pptp")
SYSTEM_STATE = Path("/var/lib/grepunch-pptp")


def directories() -> tuple[Path, ...]:
    """Where to look for running endpoints, the system's own place first."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    return (SYSTEM_DIRECTORY, Path(own) / "grepunch-pptp") if own else (SYSTEM_DIRECTORY,)


def writable_directory() -> Path:
    """The first of :func:`directories` that is ours to write in, made where it is missing.

    Raises :class:`Failure` (unsupported_host) where there is none.
    """
    for directory in directories():
        try:
            directory.mkdir(mode=0o755, exist_ok=True)
        except OSError:
            continue
        if _is_ours(directory):
            return directory
    tried = " or ".join(map(str, directories()))
    raise failure(
        VerdictKind.UNSUPPORTED_HOST,
        f"no directory for the lock and the control socket: {tried} cannot be made or is not ours alone to write in",
        "Set XDG_RUNTIME_DIR to a directory of yours, or start it by systemd with RuntimeDirectory=grepunch-pptp.",
    )


def state_directory() -> Path | None:
    """Where to keep what the next run may want to know, made where it is missing; None where there is no such place.

    systemd's own choice (StateDirectory=) where it has made one, else the system's place, else the user's.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    home = os.environ.get("HOME")
    users = os.environ.get("XDG_STATE_HOME") or (f"{home}/.local/state" if home else "")
    places = [Path(given)] if given else [SYSTEM_STATE, *([Path(users) / "grepunch-pptp"] if users else [])]
    for directory in places:
        try:
            directory.mkdir(mode=0o700, parents=directory is not SYSTEM_STATE, exist_ok=True)
            if _is_ours(directory):
                return directory
        except OSError:
            continue
    return None


def _is_ours(directory: Path) -> bool:
    """Whether it is ours alone to write in."""
    status = directory.lstat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022 and os.access(directory, os.W_OK | os.X_OK)


class ProfileLock:
    """Held for as long as an endpoint runs a profile; a second start is told the first one's process id.

    A context manager. Entering raises :class:`Failure` (already_running). The file goes away with the lock; the
    kernel drops the lock of a killed process, and its file is taken over.
    """

    def __init__(self, profile: str, directory: Path | None = None) -> None:
        self._profile = profile
        self._path = (directory or writable_directory()) / f"{profile}.lock"
        self._descriptor = -1

    def __enter__(self) -> ProfileLock:
        while self._descriptor < 0:
            self._try()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def _try(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # who can open it, if only to read, can lock it and so keep us from starting
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current(descriptor):  # its holder removed it between our opening and our locking
                os.close(descriptor)
                return
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except BlockingIOError:
            holder = os.read(descriptor, 16).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise self._held_by(holder) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.lstat())
        except FileNotFoundError:
            return False

    def _held_by(self, holder: str) -> Failure:
        pid = int(holder) if holder.isdecimal() else None
        detail = f"{self._profile} is run by process {holder}" if pid else f"{self._profile} is run by another process"
        return Failure(Verdict(VerdictKind.ALREADY_RUNNING, detail, facts={"pid": pid} if pid else {}))
