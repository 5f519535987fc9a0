"""Run a Python function inside fresh user, network, mount and process namespaces, with nothing left behind.

:func:`run` starts the function in another process, the first one of a process namespace of its own (see
:mod:`grepunch.lab.inside`), and hands back what it returned. Network namespaces, interfaces, firewall rules, files
under ``/run`` and every process started in there are gone when :func:`run` returns, and equally when the calling
process is killed: the kernel ends a process namespace with its first process, and that process ends

* when the pipe that the caller holds is closed (an orderly end, an exception, Ctrl-C), and
* by the parent-death signals set on ``unshare`` and on itself, whatever became of the caller.

No privileges are needed where the system lets ordinary users make user namespaces.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from grepunch.lab.requirements import LabUnavailable, Missing, explain_refusal, program, read_namespace_settings

_PROJECT = Path(__file__).resolve().parents[2]
_WITHOUT_USER = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_WITH_USER = ("--user", "--map-root-user", *_WITHOUT_USER)
_ORDERLY_END = 5.0  # ours: seconds for the kernel to take down a full lab, before the first process is killed


class SandboxFailure(RuntimeError):
    """The function raised, or its process died. ``kind`` is the exception's class name, the text its traceback."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class SandboxTimeout(TimeoutError):
    """The function did not return in the time it was given; everything it had started has been ended."""


def entry_point(function: Callable[..., object]) -> str:
    """The name under which :func:`run` finds a module's top-level function again, in another process."""
    if "." in function.__qualname__:
        raise ValueError(f"{function.__qualname__} is not a top-level function")
    source = inspect.getsourcefile(function)
    module = function.__module__
    if source is None or (module != "__main__" and "." in module and importlib.util.find_spec(module) is not None):
        return f"{module}:{function.__qualname__}"
    return f"{Path(source).resolve()}:{function.__qualname__}"


def run(
    entry: str,
    arguments: Mapping[str, object] | None = None,
    *,
    timeout: float | None = None,
    logs: Path | None = None,
) -> Any:
    """Call ``entry`` (``"package.module:function"`` or ``"/path/file.py:function"``) in a sandbox.

    ``arguments`` are its keyword arguments and must survive JSON, as must what it returns. ``logs`` is a directory
    that the sandbox sees as ``/run/lab`` and that outlives it. Standard input, output and error are the caller's.
    Blocks; the calling thread must live as long (its death ends the sandbox).

    Raises :class:`LabUnavailable`, :class:`SandboxFailure`, :class:`SandboxTimeout`.
    """
    message = {
        "entry": entry,
        "arguments": dict(arguments or {}),
        "path": sys.path,
        "logs": None if logs is None else str(logs.resolve()),
    }
    request = json.dumps(message).encode() + b"\n"
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        return _attempt(_WITH_USER, request, deadline)
    except LabUnavailable as refused:
        # A machine may deny user namespaces and still let root have the others.
        if refused.missing is not Missing.NAMESPACES or os.geteuid() != 0:
            raise
    return _attempt(_WITHOUT_USER, request, deadline)


def _attempt(flags: tuple[str, ...], request: bytes, deadline: float | None) -> Any:
    request_end, request_pipe = os.pipe()
    report_pipe, report_end = os.pipe()
    stderr = os.dup(2)
    handed = (request_end, report_end, stderr)
    with tempfile.TemporaryFile() as complaints, os.fdopen(report_pipe, "rb", buffering=0) as report:
        try:
            process = subprocess.Popen(
                [
                    program("setpriv"), "--pdeathsig", "KILL", "--",
                    program("unshare"), *flags, "--",
                    sys.executable, "-m", "grepunch.lab.inside",
                    *map(str, handed),
                ],
                pass_fds=handed,
                stderr=complaints,
                env=_environment(),
            )  # fmt: skip
        except BaseException:
            os.close(request_pipe)
            raise
        finally:
            for descriptor in handed:
                os.close(descriptor)
        try:
            if not _read_line(report, deadline):
                process.wait()
                raise _refusal(complaints)
            try:
                os.write(request_pipe, request)
            except BrokenPipeError:
                pass  # it has died since: the missing report says so below
            return _outcome(_read_line(report, deadline), process)
        finally:
            os.close(request_pipe)  # the first process sees it and leaves; nothing survives it
            _end(process)


def _environment() -> dict[str, str]:
    """The caller's environment, with this project importable and the system's programs to be found."""
    path = os.pathsep.join(filter(None, (str(_PROJECT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _read_line(report: IO[bytes], deadline: float | None) -> bytes:
    """A whole line from the sandbox, or nothing when it has ended. Raises :class:`SandboxTimeout`."""
    line = bytearray()
    while not line.endswith(b"\n"):
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([report], [], [], left)[0]:
            raise SandboxTimeout("the function in the sandbox did not return in time")
        part = report.read(65536)
        if not part:
            return b""
        line += part
    return bytes(line)


def _outcome(line: bytes, process: subprocess.Popen[bytes]) -> Any:
    if not line:
        raise SandboxFailure("Died", f"the sandbox's first process died (unshare's exit code {process.wait()})")
    match json.loads(line):
        case {"result": result}:
            return result
        case {"missing": missing, "sentence": sentence}:
            raise LabUnavailable(Missing(missing), sentence)
        case {"kind": kind, "text": text}:
            raise SandboxFailure(kind, text)
    raise SandboxFailure("Unreadable", line.decode(errors="replace"))


def _refusal(complaints: IO[bytes]) -> LabUnavailable | SandboxFailure:
    complaints.seek(0)
    said = complaints.read().decode(errors="replace")
    if "Traceback" in said or "failed to execute" in said:  # there are namespaces, and Python did not start in them
        return SandboxFailure("NotStarted", said)
    return explain_refusal(said, read_namespace_settings(), root=os.geteuid() == 0)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until ``unshare`` has reaped the first process, that is until every process in there is gone."""
    try:
        process.wait(_ORDERLY_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
