"""The first process of a sandbox: prepares the namespaces, calls one function, reports what it returned.

Started by :func:`grepunch.lab.sandbox.run` only, with three descriptors: where the request is read, where the report
is written, and the caller's standard error.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from grepunch.lab.namespaces import LOGS, NAMED_NAMESPACES, mount_bind, mount_tmpfs
from grepunch.lab.requirements import LabUnavailable

RUN = Path("/run")
STATE = RUN / "state"
_ABANDONED = 75  # exit code when the caller has gone: EX_TEMPFAIL of sysexits.h


def _leave_with_the_caller(request: int) -> None:
    """Block until the caller closes its end of the pipe, by whatever way, then end all processes of the sandbox."""
    while os.read(request, 1):
        pass
    os._exit(_ABANDONED)


def _read_request(request: int) -> Mapping[str, Any]:
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(request, 65536)
        if not part:
            os._exit(_ABANDONED)
        line += part
    message: Mapping[str, Any] = json.loads(line)
    return message


def _prepare(logs: Path | None) -> None:
    """Give the sandbox a /run of its own, where named namespaces, locks, sockets and logs are nobody else's."""
    # Opened first: the directory may itself be under /run, and a descriptor of the caller's could not be bound here.
    kept = None if logs is None else os.open(logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mount_tmpfs(RUN)
    NAMED_NAMESPACES.mkdir()
    LOGS.mkdir()
    STATE.mkdir(mode=0o700)
    os.environ["STATE_DIRECTORY"] = str(STATE)  # what endpoints in here remember is not the machine's
    if kept is not None:
        mount_bind(kept, LOGS)
        os.close(kept)


def _load(entry: str) -> Callable[..., object]:
    where, _, name = entry.rpartition(":")
    if not where.endswith(".py"):
        function: Callable[..., object] = getattr(importlib.import_module(where), name)
        return function
    path = Path(where)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    function = getattr(module, name)
    return function  # noqa: RET504  # typed by the annotation above


def _call(message: Mapping[str, Any]) -> Mapping[str, object]:
    try:
        _prepare(None if message["logs"] is None else Path(message["logs"]))
        sys.path[:] = message["path"]
        result = _load(message["entry"])(**message["arguments"])
        json.dumps(result)
    except LabUnavailable as error:
        return {"missing": error.missing, "sentence": str(error)}
    except BaseException as error:  # whatever it is, it belongs to the caller
        return {"kind": type(error).__name__, "text": traceback.format_exc()}
    return {"result": result}


def main() -> NoReturn:
    """Serve one request and leave, taking every other process of the sandbox along."""
    request, report, stderr = (int(argument) for argument in sys.argv[1:])
    for descriptor in (request, report):
        os.set_inheritable(descriptor, False)
    os.dup2(stderr, 2)
    os.close(stderr)
    with os.fdopen(report, "wb") as reports:
        reports.write(b"{}\n")
        reports.flush()
        message = _read_request(request)
        threading.Thread(target=_leave_with_the_caller, args=(request,), daemon=True).start()
        outcome = _call(message)
        sys.stdout.flush()
        sys.stderr.flush()
        reports.write(json.dumps(outcome).encode() + b"\n")
        reports.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
