"""The product's own command, for measuring: with one cipher suite, or with its time sampled.

    python -m tests.bench.endpoint --suite CHACHA20_POLY1305 serve PROFILE --json
    python -m tests.bench.endpoint --sample FILE serve PROFILE --json

Peers agree on a suite in the handshake, and no profile chooses one; so the offer is narrowed here, on both sides.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grepunch import cli, endpoint
from pptp.crypto.aead import Suite
from tests.bench.sampling import Sampler

_OFFER = "_SUITES"


def offer_only(suite: Suite) -> None:
    """Let this process' endpoint offer and take one suite. Raises ``AttributeError`` where it has another name."""
    if getattr(endpoint, _OFFER)[0] not in Suite:
        raise AttributeError(f"{endpoint.__name__}.{_OFFER} is no list of suites")
    setattr(endpoint, _OFFER, (suite,))


def main(arguments: list[str]) -> None:
    """See the module."""
    match arguments:
        case ["--suite", name, *rest]:
            offer_only(Suite[name])
            cli.main(rest)
        case ["--sample", path, *rest]:
            with Sampler(Path(path)):
                cli.main(rest)
        case _:
            raise SystemExit("usage: --suite NAME COMMAND... | --sample FILE COMMAND...")


if __name__ == "__main__":
    main(sys.argv[1:])
