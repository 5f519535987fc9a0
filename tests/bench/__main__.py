"""`make bench`: how fast it is, beside what else there is, on this machine.

    make bench                                            every contender, every load, 5 rounds: well over half an hour
    make bench ARGS="--quick"                             one round with short loads: a look, not a figure to quote
    make bench ARGS="--only ours,openvpn --loads tcp,udp"
    make bench ARGS="--json FILE --allow-missing"
    make bench ARGS="--profile"                           where the time of a packet goes (--profile ours-mppe: of MPPE)
    make bench ARGS="--sessions 1,10,100"                 one busy session beside so many idle ones
    make bench ARGS="--queue"                             throughput against latency, by length of the tunnel's queue

Every contender has two hosts of its own (network namespaces) joined by a veth pair with an MTU of 1500; its inner MTU
is the largest that fits. Everything runs on the same two cores. Needs no root where the system allows unprivileged user
namespaces. Exit code 1 when a contender is missing (unless --allow-missing) or a step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from grepunch.lab import sandbox
from grepunch.lab.requirements import LabUnavailable
from tests.bench import modes
from tests.bench.contender import Contender
from tests.bench.contenders import NAMES, chosen
from tests.bench.loads import CONGESTION_CONTROL
from tests.bench.own import Ours
from tests.bench.profiling import PROFILED
from tests.bench.report import Entry, Report
from tests.bench.round import CORES, LOADS, Plan, say
from tests.bench.wire import OUTER_MTU

ROUNDS = 5
_SETUP_ALLOWANCE = 60.0  # seconds per contender and round for set-up, at the worst
_SEARCH_PROBES = 30  # at the worst


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round, short loads")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}, or 1 with --quick")
    parser.add_argument("--seconds", type=int, metavar="N", help="length of each TCP transfer; default: 4, quick: 2")
    parser.add_argument("--only", default=",".join(NAMES), metavar="LIST", help="contenders; default: %(default)s")
    parser.add_argument("--loads", default=",".join(LOADS), metavar="LIST", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--allow-missing", action="store_true", help="go on without contenders that are not installed")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--profile",
        nargs="?",
        const=Ours.name,
        choices=tuple(PROFILED),
        help="where the time of a packet of ours goes; default: %(const)s",
    )
    mode.add_argument("--sessions", metavar="LIST", help="counts of idle sessions beside a busy one of ours")
    mode.add_argument("--queue", action="store_true", help="ours with several lengths of its queue")
    options = parser.parse_args(arguments)
    try:
        options.contenders = chosen(options.only.split(","))
        options.sessions = [int(count) for count in options.sessions.split(",")] if options.sessions else None
    except ValueError as error:
        parser.error(str(error))
    options.loads = options.loads.split(",")
    unknown = [word for word in options.loads if word not in LOADS]
    if unknown:
        parser.error(f"no load is called {', '.join(unknown)}; there are {', '.join(LOADS)}")
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    options.seconds = options.seconds or (2 if options.quick else 4)
    return options


def machine() -> dict[str, Any]:
    """What the figures depend on, without the load."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    present = len(os.sched_getaffinity(0))
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "cores": min(CORES, present),
        "cores_present": present,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cryptography": version("cryptography"),
    }


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; the exit code."""
    options = parse(arguments)
    about = {**machine(), "load_before": modes.load_average()}
    try:
        if options.profile or options.queue or options.sessions:
            return modes.run(options, about)
        return compare(options, about)
    except LabUnavailable as unavailable:
        print(f"{unavailable.missing}: {unavailable}", file=sys.stderr)
        return 1


def compare(options: argparse.Namespace, about: dict[str, Any]) -> int:
    """The comparison of all contenders; the exit code."""
    missing = {contender.name: why for contender in options.contenders if (why := contender.missing())}
    if missing and not options.allow_missing:
        for name, why in missing.items():
            print(f"missing: {name}: {why}", file=sys.stderr)
        print(".ci/setup bench installs them; --allow-missing goes on without them", file=sys.stderr)
        return 1
    contenders: list[Contender] = [contender for contender in options.contenders if contender.name not in missing]
    plan = Plan(
        tuple(contender.name for contender in contenders),
        tuple(options.loads),
        options.seconds,
        idle_seconds=3.0 if options.quick else 10.0,
        pings=50 if options.quick else 100,
    )
    report = Report(
        [Entry(each.name, each.title, each.version(), each.setting) for each in contenders],
        about,
        {**plan.as_json(), "congestion_control": CONGESTION_CONTROL, "outer_mtu": OUTER_MTU},
        missing=missing,
    )
    say(f"{options.rounds} rounds of about {usual(plan) / 60:.0f} minutes each, {len(contenders)} contenders")
    try:
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            measured = sandbox.run(
                "tests.bench.round:measure", {"plan": plan.as_json(), "number": number}, timeout=longest(plan)
            )
            report.rounds.append(measured["measured"])
            report.errors.append(measured["errors"])
    except (sandbox.SandboxFailure, sandbox.SandboxTimeout, KeyboardInterrupt) as error:
        report.errors.append({"round": {"sandbox": f"{type(error).__name__}: {error}"}})
    about["load_after"] = modes.load_average()
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    print("\n".join(report.lines()))
    return 1 if report.failed else 0


def usual(plan: Plan) -> float:
    """Seconds that a round takes when all is well."""
    transfers = {"tcp": 4, "both": 1, "loss": 2}
    each = 3 + sum(count * (plan.seconds + 0.5) for load, count in transfers.items() if load in plan.loads)
    each += 12 * (plan.udp_seconds + 0.3) * ("udp" in plan.loads) + plan.pings * 0.02 * ("ping" in plan.loads)
    nats = (4 * plan.seconds + 9) * ("nat" in plan.loads)
    return len(plan.contenders) * each + nats + plan.idle_seconds * ("idle" in plan.loads)


def longest(plan: Plan) -> float:
    """Seconds after which a round cannot be well any more."""
    load = plan.seconds + 15
    each = _SETUP_ALLOWANCE + 9 * load + _SEARCH_PROBES * (plan.udp_seconds + 2) + plan.pings * 0.1
    return plan.idle_seconds + len(plan.contenders) * each + 120


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
