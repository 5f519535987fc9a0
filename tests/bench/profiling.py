"""Where the time of a packet goes: both endpoints of ours sampled under bulk TCP and under small UDP packets.

Times are processor time an outer packet, of one endpoint, acknowledgements of the inner TCP counted as packets too.
"""

from __future__ import annotations

import json
import linecache
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grepunch.lab.namespaces import LOGS
from grepunch.lab.node import LabError
from tests.bench import loads
from tests.bench.own import Ours, OursMppe, samples_of
from tests.bench.report import table
from tests.bench.round import stay_on_cores
from tests.bench.wire import SIDES, Site

# a second: well below what is lost at, so that batches are as small as they are in use
SMALL_PACKETS = {Ours.name: 40_000.0, OursMppe.name: 8_000.0}
TOP = 14
_WRITE_TIMEOUT = 10.0
_ROOT = str(Path(__file__).parents[2]) + os.sep


PROFILED: Mapping[str, type[Ours]] = {kind.name: kind for kind in (Ours, OursMppe)}


@dataclass(frozen=True, slots=True)
class Sampled:
    """One endpoint under one load. ``user`` and ``system`` are seconds; samples are counted by function and line."""

    load: str
    side: str
    packets: int
    user: float
    system: float
    lines: Sequence[tuple[str, int, int]]
    calls: Sequence[tuple[str, int]]

    @property
    def microseconds(self) -> float:
        """Processor time a packet."""
        return 1e6 * (self.user + self.system) / self.packets if self.packets else 0.0

    @property
    def kernel_share(self) -> float:
        """The kernel's share of that."""
        total = self.user + self.system
        return self.system / total if total else 0.0

    def functions(self) -> list[tuple[str, int]]:
        """Samples by function, in which it stood itself."""
        own: Counter[str] = Counter()
        for place, _, count in self.lines:
            own[place] += count
        return own.most_common()


def measure(seconds: int, name: str) -> list[dict[str, Any]]:
    """The samples of both endpoints of one of ours under each load. The entry of the sandbox."""
    stay_on_cores()
    site = Site("profile", LOGS / "profile")
    site.build()
    contender = PROFILED[name](sampled=True)
    contender.prepare(site)
    contender.start(site)
    site.await_echo(30.0)
    loads.tcp(site, 1.0)
    found: list[dict[str, Any]] = []
    work: Mapping[str, Callable[[], object]] = {
        "TCP, 1 stream, serve to dial": lambda: loads.tcp(site, seconds),
        "UDP, 64 B, serve to dial": lambda: loads.volley(site, seconds, SMALL_PACKETS[name]),
    }
    for label, load in work.items():
        before = site.wire_packets()
        for side in SIDES:
            site.endpoints[side].process.send_signal(signal.SIGUSR1)
        load()
        packets = site.wire_packets() - before
        for side in SIDES:
            site.endpoints[side].process.send_signal(signal.SIGUSR2)
            found.append(
                {"load": f"{name}: {label}", "side": side, "packets": packets, **_read(samples_of(site, side))}
            )
    site.close()
    return found


def _read(path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _WRITE_TIMEOUT
    while not path.exists():
        if time.monotonic() > deadline:
            raise LabError("an endpoint wrote no samples")
        time.sleep(0.01)
    value: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return value


def sampled(value: Mapping[str, Any]) -> Sampled:
    """From the JSON that crossed the sandbox' border."""
    lines = [(place, line, count) for place, line, count in value["lines"]]
    calls = [(place, count) for place, count in value["calls"]]
    return Sampled(value["load"], value["side"], value["packets"], value["user"], value["system"], lines, calls)


def short(place: str) -> str:
    """A place without what all have in common: ``grepunch/datapump.py:DataPump.tun_readable``."""
    file, _, name = place.rpartition(":")
    if file.startswith(_ROOT):
        file = file.removeprefix(_ROOT)
    elif "/" in file:
        file = "/".join(file.split("/")[-2:])
    return f"{file}:{name}"


def lines_of(one: Sampled) -> list[str]:
    """One endpoint under one load, for people."""
    total = sum(count for _, _, count in one.lines)
    head = (
        f"{one.load}; {one.side}: {one.microseconds:.2f} us a packet "
        f"({one.kernel_share:.0%} kernel, {1 - one.kernel_share:.0%} user), {one.packets} packets, {total} samples"
    )
    if not total:
        return [head, "  no samples: it was idle"]

    def cells(count: int) -> list[str]:
        return [f"{count / total:.1%}", f"{one.microseconds * count / total:.2f}"]

    rows = [["  function (what it calls in C and in the kernel included)", "share", "us"]]
    rows += [[f"  {short(place)}", *cells(count)] for place, count in one.functions()[:TOP]]
    rows += [["  line", "share", "us"]]
    for place, number, count in sorted(one.lines, key=lambda line: -line[2])[:TOP]:
        file = place.rpartition(":")[0]
        text = linecache.getline(file, number).strip()[:70]
        rows.append([f"  {short(place).rpartition(':')[0]}:{number}: {text}", *cells(count)])
    return [head, *table(rows)]
