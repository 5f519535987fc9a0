"""The few system calls on namespaces and mounts that Python 3.11's standard library lacks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/sched.h, linux/mount.h
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000

NAMED_NAMESPACES = Path("/run/netns")  # where ip-netns(8) keeps them
LOGS = Path("/run/lab")  # what the programs of a lab print, and its captures
_OWN_NAMESPACE = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount_tmpfs(target: Path) -> None:
    """Mount an empty file system of its own on ``target``. Raises ``OSError``."""
    _check(_libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", 0, b"mode=0755"), f"tmpfs on {target}")


def mount_bind(source: int, target: Path) -> None:
    """Make the directory open as descriptor ``source`` appear at ``target`` too. Raises ``OSError``."""
    path = os.fsencode(f"/proc/self/fd/{source}")
    _check(_libc.mount(path, os.fsencode(target), None, _MS_BIND | _MS_REC, None), f"bind on {target}")


def _enter(descriptor: int) -> None:
    _check(_libc.setns(descriptor, _CLONE_NEWNET), "setns")


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Run the body of the ``with`` in the named network namespace.

    Only the calling thread moves. Sockets opened and processes started in the body belong to that namespace for
    good; ``/proc/sys/net`` and ``/proc/net`` show it while the body runs. Do not await inside.
    """
    home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NAMED_NAMESPACES / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)
