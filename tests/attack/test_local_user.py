"""Another user of the same host: cannot hold the lock, put a program in our way, or find secrets in a core dump."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from grepunch.io import nftguard
from grepunch.runtime import ProfileLock


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_nobody_else_can_open_the_lock_and_so_hold_it(directory: Path, umask: int) -> None:
    # flock(2) asks for no more than an open file: a readable one can be locked by whoever reads it.
    before = os.umask(umask)
    try:
        with ProfileLock("office", directory):
            assert stat.S_IMODE((directory / "office.lock").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_lock_that_an_older_run_left_open_to_all_is_closed(directory: Path) -> None:
    leftover = directory / "office.lock"
    leftover.touch()
    leftover.chmod(0o666)
    with ProfileLock("office", directory):
        assert stat.S_IMODE(leftover.stat().st_mode) == 0o600


@pytest.mark.parametrize("path", [None, "", ":", "::/nowhere", ".", "bin:/nowhere"])
def test_no_program_of_the_current_directory_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    for trap in (tmp_path / "nft", tmp_path / "bin" / "nft"):
        trap.parent.mkdir(exist_ok=True)
        trap.write_text("#!/bin/sh\ntouch sprung\n")
        trap.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    if path is None:
        monkeypatch.delenv("PATH", raising=False)
    else:
        monkeypatch.setenv("PATH", path)
    program = nftguard._program()
    assert program is None or Path(program).is_absolute()


def test_a_process_with_keys_leaves_no_core_and_is_not_to_be_traced() -> None:
    code = (
        "import resource; from grepunch.io.hardening import keep_memory_private; keep_memory_private();"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0], open('/proc/self/status').read().count('State:'));"
        "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert shown == ["0", "1", "0"]
