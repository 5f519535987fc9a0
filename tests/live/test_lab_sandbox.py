"""A sandbox leaves nothing behind, however it ends, and says in plain words why it cannot begin."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import grepunch
import pptp
from grepunch.lab import sandbox
from grepunch.lab.requirements import LabUnavailable, Missing, program
from grepunch.lab.topology import Lab
from tests.live.live_support import RunInLab, Unavailable

MARK = "GREPUNCH_TEST_MARK"  # every process of a sandbox inherits it, so that none can hide
NOBODY = 65534
DEATH = 5.0  # seconds within which a killed sandbox must be gone


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    return value


def marked(mark: str) -> list[str]:
    """The command lines of the processes that inherited the mark, this one apart."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended, or is somebody else's and so not ours
    return found


class Machine:
    """What a lab could leave behind outside of itself."""

    def __init__(self, temporary: Path) -> None:
        ip = program("ip")
        commands = (["netns"], ["-brief", "link"], ["route", "show", "table", "all"], ["rule"])
        self.state = {
            "network": [subprocess.run([ip, *command], capture_output=True, check=True).stdout for command in commands],
            "run": sorted(path.name for path in Path("/run").iterdir()),
            "mounts": Path("/proc/self/mounts").read_text(),
            "temporary": sorted(str(path) for path in temporary.rglob("*")),
        }


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> Iterator[None]:
    """Compares the machine before and after the test, and waits for every marked process to go."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = Machine(temporary).state
    yield
    deadline = time.monotonic() + DEATH
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
    assert Machine(temporary).state == before


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(300)
"""


def full_lab(end: str) -> dict[str, Any]:
    """A lab with programs in it, one of them deaf to SIGTERM, which then ends as it is told."""
    with Lab("G15", "G2") as lab:
        lab.wan.capture("a")
        lab.a.host.start(["sleep", "300"])
        if end != "exception":  # where the lab would wait for it
            lab.b.host.start([sys.executable, "-c", STUBBORN], label="deaf").wait_for("deaf", 10.0)
        (lab.directory / "extra").write_text("x")
        processes = sum(1 for path in Path("/proc").iterdir() if path.name.isdigit())
        print("the lab is up", flush=True)
        match end:
            case "exception":
                raise KeyError("deliberate")
            case "exit":
                os._exit(7)
            case "wait":
                time.sleep(300)
        lab.b.host.programs[-1].process.kill()
        return {
            "processes": processes,
            "first": os.getpid(),
            "namespaces": sorted(path.name for path in Path("/run/netns").iterdir()),
        }


FULL_LAB = sandbox.entry_point(full_lab)


@pytest.mark.usefixtures("machine")
def test_nothing_is_left_after_an_ordinary_end(run_in_lab: RunInLab, mark: str) -> None:
    seen = run_in_lab(full_lab, end="return")
    assert seen["first"] == 1  # a process namespace of its own, and nobody else's processes in its /proc:
    assert seen["processes"] == 4
    assert seen["namespaces"] == ["a", "a.nat1", "a.nat2", "b", "b.nat1", "meet", "wan"]
    assert marked(mark) == []  # already when run() returns


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("end", "kind", "words"), [("exception", "KeyError", "deliberate"), ("exit", "Died", "7")])
def test_nothing_is_left_after_a_failure_which_is_told(mark: str, end: str, kind: str, words: str) -> None:
    with pytest.raises(sandbox.SandboxFailure, match=words) as caught:
        sandbox.run(FULL_LAB, {"end": end})
    assert caught.value.kind == kind
    assert marked(mark) == []


@pytest.mark.usefixtures("machine")
def test_nothing_is_left_after_a_timeout(mark: str) -> None:
    with pytest.raises(sandbox.SandboxTimeout):
        sandbox.run(FULL_LAB, {"end": "wait"}, timeout=1.5)
    assert marked(mark) == []


CALLER = """
import signal, sys
from grepunch.lab import sandbox
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
sandbox.run(sys.argv[1], {"end": "wait"})
"""


@pytest.fixture
def caller(machine: None) -> Iterator[subprocess.Popen[str]]:
    """A process that has a full lab up, and is killed at the end if the test has not done it."""
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, FULL_LAB],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "the lab is up\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_caller_is_killed(
    caller: subprocess.Popen[str], mark: str, end: signal.Signals
) -> None:
    assert len(marked(mark)) >= 5
    caller.send_signal(end)
    assert caller.wait(DEATH) != 0


def test_nothing_is_left_when_the_first_stage_is_killed(caller: subprocess.Popen[str]) -> None:
    unshare = int(Path(f"/proc/{caller.pid}/task/{caller.pid}/children").read_text().split()[0])
    os.kill(unshare, signal.SIGKILL)
    _, stderr = caller.communicate(timeout=DEATH)
    assert "SandboxFailure" in stderr


def lack_something() -> None:
    raise LabUnavailable(Missing.NETFILTER, "no rules here: sudo modprobe them")


def test_a_lack_found_inside_is_told_outside() -> None:
    with pytest.raises(LabUnavailable, match="sudo modprobe them") as caught:
        sandbox.run(sandbox.entry_point(lack_something))
    assert caught.value.missing is Missing.NETFILTER


def test_a_lack_fails_a_live_test_unless_that_very_lack_is_permitted(
    run_in_lab: RunInLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for permitted in ("", "no-tun"):
        monkeypatch.setenv("GREPUNCH_PERMIT_SKIPS", permitted)
        with pytest.raises(pytest.fail.Exception, match="no-netfilter: no rules here"):
            run_in_lab(lack_something)
    monkeypatch.setenv("GREPUNCH_PERMIT_SKIPS", "no-tun,no-netfilter")
    with pytest.raises(pytest.skip.Exception, match="no-netfilter: no rules here"):
        run_in_lab(lack_something)


def nested(forbidden: str) -> dict[str, str]:
    """Forbid namespaces as a system does, then try to make a sandbox as root."""
    Path("/proc/sys", *forbidden.split(".")).write_text("0")
    try:
        return {"result": str(sandbox.run("os:getpid"))}
    except LabUnavailable as error:
        return {"missing": error.missing, "sentence": str(error)}


def test_root_does_without_a_user_namespace_where_there_is_none(run_in_lab: RunInLab) -> None:
    assert run_in_lab(nested, forbidden="user.max_user_namespaces") == {"result": "1"}


def test_a_refusal_of_the_kernel_is_explained(run_in_lab: RunInLab) -> None:
    refused = run_in_lab(nested, forbidden="user.max_net_namespaces")
    assert refused["missing"] == Missing.NAMESPACES
    assert "sudo sysctl -w user.max_net_namespaces=10000" in refused["sentence"]


def leave_a_file() -> None:
    Path("/run/lab/kept").write_text("x")


def test_logs_are_kept_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("GREPUNCH_LAB_LOGS", str(tmp_path / "kept"))
    request.getfixturevalue("run_in_lab")(leave_a_file)
    assert (tmp_path / "kept" / request.node.name / "kept").read_text() == "x"


CHECK = """
import json
from grepunch.lab import sandbox
from grepunch.lab.topology import MEET_ADDRESSES, Lab

def pings():
    with Lab("G5+G2S", "G1L") as lab:
        return [side.host.ping(MEET_ADDRESSES[0]) for side in (lab.a, lab.b)]

if __name__ == "__main__":
    print(json.dumps(sandbox.run(sandbox.entry_point(pings))))
"""


@pytest.fixture
def readable_copy() -> Iterator[Path]:
    """The packages where any user may read them, whatever the folder they were checked out into allows."""
    folder = Path(tempfile.mkdtemp(prefix="grepunch-test-"))
    folder.chmod(0o755)
    for package in (grepunch, pptp):
        source = Path(next(iter(package.__path__)))
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "check.py").write_text(CHECK)
    yield folder
    shutil.rmtree(folder)


def ordinary_python(prefix: list[str]) -> str:
    """A Python that any user may execute. Raises :class:`LabUnavailable` where there is none."""
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        # by way of a shell, because setpriv itself still has root's capabilities when it looks a program up
        command = [*prefix, "sh", "-c", 'exec "$0" -c "$1"', candidate, check]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return candidate
    raise LabUnavailable(Missing.ORDINARY_USER, "there is no Python 3.11 that an ordinary user may execute")


def test_an_ordinary_user_gets_the_same_lab(readable_copy: Path, unavailable: Unavailable, mark: str) -> None:
    user = [program("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--"]
    prefix = user if os.geteuid() == 0 else []
    try:
        python = ordinary_python(prefix)
    except LabUnavailable as error:
        unavailable(error)
    done = subprocess.run(
        [*prefix, python, "check.py"],
        cwd=readable_copy,
        env={"PATH": "/usr/bin:/bin", MARK: mark, "PYTHONDONTWRITEBYTECODE": "1"},  # as Debian has it: no sbin
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[true, true]\n", "")
    assert marked(mark) == []
