"""What the length of the tunnel's queue is worth: throughput against the round trip that waits behind it.

The kernel holds so many packets for the tunnel's reader, each of up to ``gso_max_size`` octets where the tunnel takes
whole super-packets. Both are set on both hosts, and put back.
"""

from __future__ import annotations

from typing import Any

from grepunch.lab.namespaces import LOGS
from tests.bench import loads
from tests.bench.figures import summary
from tests.bench.own import Ours
from tests.bench.report import table
from tests.bench.round import STREAMS, say, stay_on_cores
from tests.bench.wire import SIDES, Site

# (txqueuelen, gso_max_size); None: as the product has it
POINTS: tuple[tuple[int | None, int | None], ...] = (
    (None, None),
    *((length, None) for length in (8, 16, 32, 50, 100, 250, 500, 1000)),
    *((None, size) for size in (4096, 16384, 32768)),
)


def measure(seconds: int, rounds: int) -> list[dict[str, Any]]:
    """Throughput and round trips at each point, the rounds interleaved. The entry of the sandbox."""
    stay_on_cores()
    site = Site("queue", LOGS / "queue")
    site.build()
    contender = Ours()
    contender.prepare(site)
    contender.start(site)
    site.await_echo(30.0)
    loads.tcp(site, 1.0)
    own = {name: site.link_attribute("left", name) for name in ("txqlen", "gso_max_size")}
    rows = []
    for number in range(rounds):
        for length, size in POINTS:
            _set(site, length or own["txqlen"], size or own["gso_max_size"])
            transfer, trips = loads.tcp_with_ping(site, seconds, STREAMS)
            rows.append(
                {
                    "round": number,
                    "txqueuelen": length or own["txqlen"],
                    "gso_max_size": size or own["gso_max_size"],
                    "as_shipped": length is None and size is None,
                    "mbit_s": transfer.mbit_s,
                    "ping_ms": trips.median,
                    "ping_p95_ms": trips.p95,
                }
            )
            say(f"  round {number + 1}: {line(rows[-1])}")
    site.close()
    return rows


def _set(site: Site, length: int, size: int) -> None:
    for side in SIDES:
        arguments = ["txqueuelen", str(length), "gso_max_size", str(size)]
        site.hosts[side].ip("link", "set", "dev", site.interfaces[side], *arguments)


def line(row: dict[str, Any]) -> str:
    """A point in a line."""
    return (
        f"txqueuelen {row['txqueuelen']}, gso_max_size {row['gso_max_size']}: "
        f"{row['mbit_s']:.0f} Mbit/s, ping {row['ping_ms']:.2f} ms"
    )


def lines_of(rows: list[dict[str, Any]]) -> list[str]:
    """The curve as a table, medians of the rounds."""
    points: dict[tuple[int, int, bool], list[dict[str, Any]]] = {}
    for row in rows:
        points.setdefault((row["txqueuelen"], row["gso_max_size"], row["as_shipped"]), []).append(row)
    cells = [["txqueuelen", "gso_max_size", "TCP 4 streams Mbit/s", "ping ms", "95 % within ms", ""]]
    for (length, size, shipped), same in points.items():
        medians = [summary(row[key] for row in same) for key in ("mbit_s", "ping_ms", "ping_p95_ms")]
        speed, ping, p95 = (found.median if found else 0.0 for found in medians)
        cells.append(
            [str(length), str(size), f"{speed:.0f}", f"{ping:.2f}", f"{p95:.2f}", "shipped" if shipped else ""]
        )
    return table(cells)
