"""Every way in and every way out: arguments go to click, and what comes back leaves through the verdict table."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from grepunch.cli.app import PROGRAM, app
from grepunch.config.faults import ProfileInvalid
from grepunch.progress import Color, make_reporter
from grepunch.verdict import Failure, Verdict, VerdictKind

FRAMES_SHOWN = 4  # of a fault of our own


class SignalledToEnd(BaseException):
    """SIGTERM, as an exception, so that everything is put back on the way out."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _on_terminate)
    code = run(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; the exit code.

    A command returns a verdict that it has shown already, or None where it simply succeeded. What it raises is
    shown here.
    """
    try:
        result = app.main(args=list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return Verdict(VerdictKind.USAGE).exit_code
    except (click.Abort, KeyboardInterrupt):
        return _show(Verdict(VerdictKind.INTERRUPTED), arguments)
    except SignalledToEnd:
        return _show(Verdict(VerdictKind.TERMINATED), arguments)
    except Exception as error:  # the last resort: nothing leaves with a bare traceback
        return _show(verdict_of(error), arguments)
    match result:
        case Verdict():
            return result.exit_code
        case int():  # --help and --version
            return result
        case _:
            return 0


def verdict_of(error: Exception) -> Verdict:
    """The verdict that an exception amounts to."""
    match error:
        case Failure():
            return error.verdict
        case ProfileInvalid():
            return Verdict(VerdictKind.PROFILE_INVALID, str(error))
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else PROGRAM
            return Verdict(VerdictKind.USAGE, error.format_message(), f"See `{path} --help`.")
        case click.ClickException():
            return Verdict(VerdictKind.USAGE, error.format_message())
        case _:
            return Verdict(VerdictKind.INTERNAL, report_of(error))


def report_of(error: Exception) -> str:
    """What happened and where, in a few lines: the innermost calls, no values but the error's own words."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_SHOWN:]
    lines = [f"{type(error).__name__}: {error}" if str(error) else type(error).__name__]
    lines += [f"at {'/'.join(Path(f.filename).parts[-3:])}:{f.lineno} in {f.name}" for f in reversed(frames)]
    return "\n".join(lines)


def _show(verdict: Verdict, arguments: Sequence[str]) -> int:
    own = arguments[: arguments.index("--exec")] if "--exec" in arguments else arguments
    reporter = make_reporter(
        json="--json" in own, color=Color.AUTO, stdout=sys.stdout, stderr=sys.stderr, environment=os.environ
    )
    reporter.finish(verdict)
    return verdict.exit_code


def _on_terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SignalledToEnd
