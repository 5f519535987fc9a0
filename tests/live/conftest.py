"""How live tests get at a lab: they run a function of their own inside a sandbox and judge what it returns.

::

    def scenario(nat: str) -> dict[str, object]:          # top level; runs in the sandbox, in another process
        with Lab(nat, "G2") as lab:
            ...
            return {"heard": heard}

    def test_something(run_in_lab: RunInLab) -> None:
        assert run_in_lab(scenario, nat="G2S")["heard"]

`make test` runs these tests several at a time, each in sandboxes of its own, where all that they share is the
processors. So wait for states, not for times, and bound every wait generously. What judges times, rates or load itself
(an outage of 2 s at most, so many packets a second, a flood) is marked ``@pytest.mark.alone`` and runs afterwards, one
test after the other: that is dear, ten minutes being the limit for everything, so be sparing with it. One or two that
fail are tried once more, alone, and the summary says so.

Environment: ``GREPUNCH_LAB_LOGS=DIRECTORY`` keeps every lab's logs and captures there, a folder per test (otherwise
they are in pytest's own temporary directory); ``GREPUNCH_PERMIT_SKIPS=no-tun,...`` names what this machine may lack. A
live test that lacks anything else fails.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from grepunch.lab import sandbox
from grepunch.lab.requirements import LabUnavailable
from tests.live.live_support import RunInLab, Unavailable

_TIMEOUT = 100.0  # seconds, below the one in pyproject.toml and far above what any takes on a machine at leisure


@pytest.fixture
def unavailable() -> Unavailable:
    """What to do when this machine cannot run a live test: fail loudly, unless that very lack is permitted."""

    def give_up(error: LabUnavailable) -> NoReturn:
        permitted = os.environ.get("GREPUNCH_PERMIT_SKIPS", "").replace(",", " ").split()
        if error.missing in permitted:
            pytest.skip(f"{error.missing}: {error}")
        pytest.fail(
            f"{error.missing}: {error} (GREPUNCH_PERMIT_SKIPS={error.missing} would permit a skip)", pytrace=False
        )

    return give_up


@pytest.fixture
def lab_logs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The directory that keeps this test's logs and captures; a sandbox sees it as ``/run/lab``."""
    kept = os.environ.get("GREPUNCH_LAB_LOGS")
    name = re.sub(r"[^\w.+-]+", "-", request.node.name).strip("-")
    logs = Path(kept) / name if kept else tmp_path / "lab"
    logs.mkdir(parents=True, exist_ok=True)
    return logs


@pytest.fixture
def run_in_lab(lab_logs: Path, unavailable: Unavailable) -> RunInLab:
    """Run a function in a sandbox; its result. See this module's text."""

    def run(entry: Callable[..., object] | str, /, *, timeout: float = _TIMEOUT, **arguments: object) -> Any:
        name = entry if isinstance(entry, str) else sandbox.entry_point(entry)
        try:
            return sandbox.run(name, arguments, timeout=timeout, logs=lab_logs)
        except LabUnavailable as error:
            unavailable(error)
        except (sandbox.SandboxFailure, sandbox.SandboxTimeout) as error:
            error.add_note(f"logs and captures: {lab_logs}")
            raise

    return run


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a live test."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("live")
