"""The loads that go through a tunnel, each bounded in time: iperf3 and ping, and what the endpoints spend on them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from grepunch.lab.node import Program
from grepunch.lab.requirements import program
from tests.bench.contender import find
from tests.bench.parsing import (
    UDP_PAYLOAD,
    LoadFailed,
    RoundTrips,
    Transfer,
    Volley,
    parse_cpu_ticks,
    parse_ping,
    parse_resident,
    parse_transfer,
    parse_volley,
)
from tests.bench.wire import Site

# ours, because it is what Linux has by default, and a machine's own choice would change every figure with loss
CONGESTION_CONTROL = "cubic"
IPERF_PORT = 5201
_START_TIMEOUT = 5.0
_GRACE = 12.0  # seconds beyond a load's length for its beginning and end, on a line that loses packets
_TICKS = os.sysconf("SC_CLK_TCK")


class Iperf:
    """One iperf3 test from left to right, or against it, under way since it was made."""

    def __init__(self, site: Site, seconds: float, *arguments: str) -> None:
        iperf3 = find("iperf3") or "iperf3"
        self._seconds = seconds
        address = str(site.inner["right"])
        # -1: it ends with the test, so that no test meets the leftovers of another
        self._server = site.hosts["right"].start(
            [iperf3, "-s", "-1", "-B", address, "-p", str(IPERF_PORT), "--forceflush"], label="iperf3-server"
        )
        self._server.wait_for("listening", _START_TIMEOUT)
        command = [iperf3, "-c", address, "-p", str(IPERF_PORT), "-t", f"{seconds:.0f}", "-J"]
        self._client = site.hosts["left"].start(
            [*command, "--connect-timeout", "5000", *arguments], label="iperf3-client"
        )

    def report(self) -> str:
        """Wait for the end; the JSON report. Raises :class:`LoadFailed`."""
        try:
            self._client.wait(self._seconds + _GRACE)
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"iperf3 did not end within {self._seconds + _GRACE:.0f} s") from None
        finally:
            _end(self._client)
            _end(self._server)
        return self._client.stdout


def tcp(site: Site, seconds: float, *, streams: int = 1, reverse: bool = False, both: bool = False) -> Transfer:
    """A TCP transfer from left to right, from right to left, or in both directions at once."""
    direction = ["-R"] if reverse else ["--bidir"] if both else []
    arguments = ["-C", CONGESTION_CONTROL, "-P", str(streams), *direction]
    return parse_transfer(Iperf(site, seconds, *arguments).report())


def tcp_with_ping(site: Site, seconds: float, streams: int) -> tuple[Transfer, RoundTrips]:
    """A TCP transfer from left to right and the round trips of a ping the same way meanwhile."""
    running = Iperf(site, seconds, "-C", CONGESTION_CONTROL, "-P", str(streams))
    lead = min(1.0, seconds / 4)
    time.sleep(lead)  # the queues fill first
    interval = 0.05
    trips = ping(site, max(10, int((seconds - 2 * lead) / interval)), interval)
    return parse_transfer(running.report()), trips


def volley(site: Site, seconds: float, rate: float) -> Volley:
    """UDP packets of :data:`~.parsing.UDP_PAYLOAD` octets from left to right, ``rate`` a second."""
    bits = round(rate * UDP_PAYLOAD * 8)
    return parse_volley(Iperf(site, seconds, "-u", "-l", str(UDP_PAYLOAD), "-b", str(bits)).report())


def ping(site: Site, count: int, interval: float) -> RoundTrips:
    """Round trips of ``count`` packets from left to right."""
    command = [program("ping"), "-n", "-c", str(count), "-i", str(interval), "-W", "2", str(site.inner["right"])]
    running = site.hosts["left"].start(command, label="ping")
    try:
        running.wait(count * (interval + 0.1) + _GRACE)
    except subprocess.TimeoutExpired:
        raise LoadFailed("ping did not end") from None
    finally:
        _end(running)
    return parse_ping(running.stdout)


def cpu_seconds(site: Site) -> tuple[float, float]:
    """User and system seconds that both endpoints have spent since their start, together."""
    user = system = 0
    for endpoint in site.endpoints.values():
        ticks = parse_cpu_ticks(Path(f"/proc/{endpoint.process.pid}/stat").read_text())
        user, system = user + ticks[0], system + ticks[1]
    return user / _TICKS, system / _TICKS


def resident(site: Site) -> int:
    """Octets of memory of the larger endpoint."""
    statuses = (Path(f"/proc/{end.process.pid}/status").read_text() for end in site.endpoints.values())
    return max(parse_resident(status) for status in statuses)


def _end(running: Program) -> None:
    if running.process.poll() is None:
        running.stop()
