"""What several commands share: kinds of argument, options, and standard output."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from grepunch.options import Capture
from grepunch.progress import Color, Reporter, make_reporter

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|min|h|)")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def to_duration(value: str | float) -> float:
    """Seconds of ``90s``, ``2m``, ``500ms`` or ``1h``; a bare number is seconds."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    seconds = float(match["number"]) * _UNITS[match["unit"]] if match else math.inf
    if not math.isfinite(seconds):
        raise click.BadParameter(f"{value!r} is no duration, such as 90s, 2m or 500ms.")
    return seconds


def to_retries(value: str | int) -> int:
    """``forever`` (-1 here: None would mean to click that the option was not given) or how often."""
    if value == "forever":
        return -1
    if not str(value).isdecimal():
        raise click.BadParameter(f"{value!r} is neither 'forever' nor a number.")
    return int(value)


def to_capture(value: str) -> Capture:
    """Where to write what, of ``FILE`` or ``FILE:plain``."""
    path = value.removesuffix(":plain")
    if not path:
        raise click.BadParameter("a file is needed, as in --pcap tunnel.pcap or --pcap tunnel.pcap:plain.")
    return Capture(Path(path), plain=path != value)


def complete_profile(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The profiles there are, by name, and files."""
    from grepunch.config.loading import known_profiles

    names = [CompletionItem(name) for name in known_profiles() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def json_option(command: CommandT) -> CommandT:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(command)


def color_option(command: CommandT) -> CommandT:
    """``--color``."""
    return click.option(
        "--color",
        type=click.Choice([str(color) for color in Color]),
        default=str(Color.AUTO),
        show_default=True,
        help="Colours on standard error.",
    )(command)


def set_option(command: CommandT) -> CommandT:
    """``--set``, repeatable."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key of the profile, such as punch.keepalive=2 or peer[0].address=10.66.0.9.",
    )(command)


def reporter_for(*, as_json: bool, color: str) -> Reporter:
    """The reporter of this process's standard streams."""
    return make_reporter(json=as_json, color=Color(color), stdout=sys.stdout, stderr=sys.stderr, environment=os.environ)


def emit(text: str) -> None:
    """Data to standard output; a reader that has seen enough ends the command without a fuss."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        nobody_reads()


def nobody_reads() -> NoReturn:
    """End, since standard output is a pipe that was closed: so that nothing complains of it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise click.exceptions.Exit(0) from None
