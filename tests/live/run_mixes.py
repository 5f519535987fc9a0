"""`make mixes`: a probe against many mixes of NAT rules, a line for each; exit code 1 where a report is wrong."""

from __future__ import annotations

import argparse

from grepunch.lab import sandbox
from tests.live.test_probe import probe_mix

TIMEOUT = 90.0  # seconds of one mix


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="make mixes", description=__doc__)
    parser.add_argument("first", type=int, nargs="?", default=1, help="the seed to begin with")
    parser.add_argument("count", type=int, nargs="?", default=50, help="how many seeds")
    arguments = parser.parse_args()
    first, count, wrong = arguments.first, arguments.count, 0
    for seed in range(first, first + count):
        seen = sandbox.run(sandbox.entry_point(probe_mix), {"seed": seed}, timeout=TIMEOUT)
        wrong += bool(seen["wrong"])
        verdict = f"WRONG {seen['wrong']}" if seen["wrong"] else "right"
        left = f", not tested: {', '.join(seen['untested'])}" if seen["untested"] else ""
        print(f"{seed:4} {verdict}{left}  {seen['took']:.1f} s  {seen['report']['line']}  {seen['mix']}", flush=True)
    print(f"{count} mixes, {wrong} reports wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
