"""One round: every contender up beside the others, every load through each of them in turn.

So the contenders meet each load within the same minutes, and what the machine does meanwhile hits them alike; idle
ones cost next to nothing (which is measured too). Runs inside a sandbox, where nothing outlives it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from grepunch.lab.namespaces import LOGS
from grepunch.lab.node import LabError
from grepunch.lab.requirements import require_tun
from tests.bench import loads, nats
from tests.bench.contender import Contender
from tests.bench.contenders import chosen
from tests.bench.figures import TCP_FIGURES
from tests.bench.own import Ours
from tests.bench.parsing import LoadFailed, search_rate
from tests.bench.wire import Site

LOADS = ("idle", "tcp", "both", "udp", "ping", "loss", "nat")
STREAMS = 4
LOSSES = {"loss_0.1": 0.001, "loss_1": 0.01}
UDP_START = 60_000.0  # packets a second, where the search begins
CORES = 2
_SETUP_TIMEOUT = 40.0
_SETTLE = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. Times in seconds; ``loads`` are words of :data:`LOADS`."""

    contenders: tuple[str, ...]
    loads: tuple[str, ...] = LOADS
    seconds: float = 4.0
    udp_seconds: float = 1.0
    idle_seconds: float = 10.0
    pings: int = 100

    @classmethod
    def of(cls, value: dict[str, Any]) -> Plan:
        """From the JSON that :func:`dataclasses.asdict` makes of it."""
        return cls(**{**value, "contenders": tuple(value["contenders"]), "loads": tuple(value["loads"])})

    def as_json(self) -> dict[str, Any]:
        """For the sandbox, and for the report."""
        return asdict(self)


@dataclass(slots=True)
class Round:
    """What one round has measured up to now, and what went wrong, by contender."""

    plan: Plan
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)

    def note(self, contender: str, **figures: float) -> None:
        """Keep figures."""
        self.measured.setdefault(contender, {}).update(figures)

    @contextmanager
    def attempt(self, contender: str, what: str) -> Iterator[None]:
        """A step whose failure costs this contender this figure, and nobody else anything."""
        try:
            yield
        except (LabError, LoadFailed, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            self.errors.setdefault(contender, {})[what] = f"{type(error).__name__}: {error}"
            say(f"  {contender}: {what} failed: {(str(error) or type(error).__name__).splitlines()[0]}")


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def measure(plan: dict[str, Any], number: int) -> dict[str, Any]:
    """A whole round; ``number`` turns the order, so that nobody is always first. The entry of the sandbox."""
    stay_on_cores()
    require_tun()
    round_ = Round(Plan.of(plan))
    contenders = chosen(round_.plan.contenders)
    turn = number % len(contenders)
    contenders = contenders[turn:] + contenders[:turn]
    sites: dict[str, Site] = {}
    try:
        for contender in contenders:
            with round_.attempt(contender.name, "setup"):
                _bring_up(round_, contender, sites)
        _run_loads(round_, sites)
    finally:
        for site in sites.values():
            site.close()
    if "nat" in round_.plan.loads:
        for contender in contenders:
            if type(contender) is Ours and contender.name in sites:
                with round_.attempt(contender.name, "nat"):
                    _through_nats(round_)
    return {"measured": round_.measured, "errors": round_.errors}


def stay_on_cores(count: int = CORES) -> None:
    """Keep this process and all it starts on the same few cores, on machines that have more."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _bring_up(round_: Round, contender: Contender, sites: dict[str, Site]) -> None:
    site = Site(contender.name, LOGS / contender.name)
    sites[contender.name] = site
    try:
        site.build()
        contender.prepare(site)
        if isinstance(contender, Ours):
            round_.note(contender.name, ready=contender.seconds_to_ready(site))
        began = time.monotonic()
        contender.start(site)
        site.await_echo(_SETUP_TIMEOUT)
        took = time.monotonic() - began
        if site.endpoints:
            round_.note(contender.name, setup=took)
        round_.note(contender.name, inner_mtu=site.link_attribute("left", "mtu"))
        say(f"  {contender.name}: up after {took:.2f} s")
    except BaseException:
        sites.pop(contender.name).close()
        raise


def _run_loads(round_: Round, sites: dict[str, Site]) -> None:
    plan = round_.plan
    if "idle" in plan.loads:
        _idle(round_, sites)

    def each(what: str, load: Callable[[Site], dict[str, float]]) -> None:
        shown = []
        for name, site in sites.items():
            with round_.attempt(name, what):
                site.check_endpoints()
                figures = load(site)
                site.check_endpoints()
                round_.note(name, **figures)
                shown.append(f"{name} {' / '.join(f'{value:.4g}' for value in figures.values())}")
        say(f"  {what}: {', '.join(shown)}")

    each("warm-up", lambda site: {"warm_up": loads.tcp(site, 1.0).mbit_s})
    if "ping" in plan.loads:
        each("ping idle", lambda site: _ping(site, plan.pings))
    if "tcp" in plan.loads:
        spent: dict[str, list[float]] = {}
        for key in TCP_FIGURES:
            each(key, lambda site, key=key: _tcp(site, key, plan.seconds, spent))  # type: ignore[misc]
        for name, (seconds, gigabytes) in spent.items():
            if sites[name].endpoints:
                round_.note(name, cpu_per_gb=seconds / gigabytes)
    if "both" in plan.loads:
        each("both ways", lambda site: _both(site, plan.seconds))
    if "udp" in plan.loads:
        each("UDP 64 B", lambda site: _udp(site, plan.udp_seconds))
    for key, fraction in LOSSES.items():
        if "loss" in plan.loads:
            each(key, lambda site, key=key, fraction=fraction: _loss(site, key, fraction, plan.seconds))  # type: ignore[misc]
    for name, site in sites.items():
        with round_.attempt(name, "at the end"):
            round_.note(name, fragments=site.fragments())
            if site.endpoints:
                round_.note(name, rss=loads.resident(site) / 1e6)


def _idle(round_: Round, sites: dict[str, Site]) -> None:
    """All at once: what nobody uses costs next to nothing, and so disturbs nobody."""
    time.sleep(_SETTLE)
    before = {name: sum(loads.cpu_seconds(site)) for name, site in sites.items()}
    time.sleep(round_.plan.idle_seconds)
    for name, site in sites.items():
        if site.endpoints:
            with round_.attempt(name, "idle"):
                spent = sum(loads.cpu_seconds(site)) - before[name]
                round_.note(name, idle_cpu=100 * spent / len(site.endpoints) / round_.plan.idle_seconds)


def _ping(site: Site, count: int) -> dict[str, float]:
    trips = loads.ping(site, count, 0.02)
    return {"ping_idle": trips.median, "ping_idle_p95": trips.p95}


def _tcp(site: Site, key: str, seconds: float, spent: dict[str, list[float]]) -> dict[str, float]:
    """One of the four TCP figures; adds processor seconds and gigabytes to ``spent``."""
    before = sum(loads.cpu_seconds(site))
    figures: dict[str, float] = {}
    match key:
        case "tcp4_fwd":
            transfer, trips = loads.tcp_with_ping(site, seconds, STREAMS)
            figures = {"ping_loaded": trips.median, "ping_loaded_p95": trips.p95}
        case "tcp4_rev":
            transfer = loads.tcp(site, seconds, streams=STREAMS, reverse=True)
        case _:
            transfer = loads.tcp(site, seconds, reverse=key.endswith("rev"))
    total = spent.setdefault(site.name, [0.0, 0.0])
    total[0] += sum(loads.cpu_seconds(site)) - before
    total[1] += transfer.octets / 1e9
    return {key: transfer.mbit_s, **figures}


def _both(site: Site, seconds: float) -> dict[str, float]:
    transfer = loads.tcp(site, seconds, both=True)
    there, back = transfer.mbit_s, transfer.back_mbit_s
    return {"both": there + back, "both_fwd": there, "both_rev": back}


def _udp(site: Site, seconds: float) -> dict[str, float]:
    rate = search_rate(lambda rate: loads.volley(site, seconds, rate), UDP_START)
    return {"udp64": rate / 1000}


def _loss(site: Site, key: str, fraction: float, seconds: float) -> dict[str, float]:
    site.set_loss(fraction)
    try:
        return {key: loads.tcp(site, seconds).mbit_s}
    finally:
        site.set_loss(0)


def _through_nats(round_: Round) -> None:
    """Ours once more, between two NATs and by a rendezvous, as its users have it, and beside it without them."""
    figures = nats.measure(round_.plan.seconds)
    round_.note("ours", **figures)
    shown = [f"{figures[f'nat_{way}']:.4g} (direct {figures[f'direct_{way}']:.4g})" for way in ("fwd", "rev")]
    say(f"  two NATs: ours {' / '.join(shown)}")
