"""The command line: arguments in, a verdict's exit code out."""

from grepunch.cli.entry import main

__all__ = ["main"]
