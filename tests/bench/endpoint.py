"""The product's endpoint, for measuring: with one cipher suite, or with its time sampled.

    python -m tests.bench.endpoint --suite CHACHA20_POLY1305 serve PROFILE --json
    python -m tests.bench.endpoint --sample FILE serve PROFILE --json

Peers agree on a suite in the handshake, and neither profile nor command line chooses one; so both ends are told here
what to offer.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grepunch import cli
from grepunch.cli.common import reporter_for
from grepunch.cli.endpoint import run_signalled
from grepunch.config import load
from grepunch.options import EndpointOptions, Role
from pptp.crypto.aead import Suite
from tests.bench.sampling import Sampler


def run_with(suite: Suite, role: Role, profile: str) -> int:
    """Be an endpoint that offers and takes one suite, and prints JSON; the exit code."""
    reporter = reporter_for(as_json=True, color="never")
    verdict = run_signalled(load(profile), EndpointOptions(role, suites=(suite,)), reporter)
    reporter.finish(verdict)
    return verdict.exit_code


def main(arguments: list[str]) -> None:
    """See the module."""
    match arguments:
        case ["--suite", name, role, profile, "--json"]:
            sys.exit(run_with(Suite[name], Role(role), profile))
        case ["--sample", path, *rest]:
            with Sampler(Path(path)):
                cli.main(rest)
        case _:
            raise SystemExit("usage: --suite NAME ROLE PROFILE --json | --sample FILE COMMAND...")


if __name__ == "__main__":
    main(sys.argv[1:])
