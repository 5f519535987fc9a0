"""What worked last time, kept on disk: one small file for each profile, written when something else has won.

It only ever orders what is tried, so nothing that can happen to the file is a fault: what cannot be read is begun anew
and said once, what cannot be written is forgotten at the end and said once. It may be deleted at any time. It holds no
secret (see :mod:`grepunch.punch.winners`), and is its owner's alone to read all the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from grepunch.punch.winners import MAX_OCTETS, Unreadable, Winner, Winners, decode, encode
from grepunch.runtime import state_directory
from grepunch.secure.derive import place_id

SUFFIX = ".paths"
_NOWHERE = IPv4Address(0)


def network_id(gateway: IPv4Address | None, external: IPv4Address | None) -> bytes:
    """What tells this host's networks apart: the next hop, and where the rendezvous sees us come from."""
    return (gateway or _NOWHERE).packed + (external or _NOWHERE).packed


class Remembered:
    """The winners of one profile. ``network`` says what network this host is in, as :func:`network_id` does;
    ``on_notice`` hears a sentence where the file is of no use."""

    def __init__(
        self,
        profile: str,
        network: Callable[[], bytes],
        on_notice: Callable[[str], None],
        directory: Path | None = None,
    ) -> None:
        self._network = network
        self._on_notice = on_notice
        directory = directory or state_directory()
        self._path = directory / f"{profile}{SUFFIX}" if directory is not None else None
        self._winners = Winners()
        if self._path is not None:
            self._load(self._path)

    def best(self, shared: bytes) -> Winner | None:
        """What worked the last time from this network with the peer that has ``shared`` (static-static) with us."""
        return self._winners.at(place_id(shared, self._network()))

    def won(self, shared: bytes, winner: Winner) -> None:
        """A path is up. Written down where that is news."""
        place = place_id(shared, self._network())
        if self._winners.at(place) == winner:
            return
        self._winners = self._winners.with_winner(place, winner)
        if self._path is not None:
            self._save(self._path)

    def _load(self, path: Path) -> None:
        try:
            self._winners = decode(_read(path))
        except FileNotFoundError:
            pass
        except (OSError, Unreadable) as error:
            why = error.strerror if isinstance(error, OSError) else error
            self._on_notice(f"what worked last time is not known: {path} is ignored ({why})")

    def _save(self, path: Path) -> None:
        """Whole or not at all. Without fsync, which may take longer than data can wait: at worst a crash of the whole
        machine leaves a file that is ignored."""
        new = path.with_name(f"{path.name}.new")
        try:
            with suppress(FileNotFoundError):
                new.unlink()
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(encode(self._winners))
            new.rename(path)
        except OSError as error:
            self._path = None  # once is enough
            self._on_notice(f"what works now will not be known the next time: cannot write {path}: {error.strerror}")


def _read(path: Path) -> bytes:
    """The content, after the checks on what was opened and not on what was named."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("no regular file")
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise Unreadable("others can write it")
        return os.read(descriptor, MAX_OCTETS + 1)
    finally:
        os.close(descriptor)
