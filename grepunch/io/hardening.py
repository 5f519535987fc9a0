"""What keeps the memory of a process that holds keys to itself."""

from __future__ import annotations

import ctypes
import resource

# linux/prctl.h
_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """No core dump of this process, and nobody of the same user reads its memory by ptrace(2) or /proc.

    The limit alone does not stop a kernel that pipes cores into a program, the flag alone not one that is told to
    dump all the same (core(5)); what a child process does is its own affair, execve(2) sets the flag again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
