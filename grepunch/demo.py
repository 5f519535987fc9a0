"""`demo`: two peers behind two NATs on this one machine, as the program's users would run them.

First it is shown that UDP hole punching fails on this very pair (or that it would have done); then the rendezvous,
``serve`` and ``dial`` are started, each on its own host, and the tunnel is pinged and measured. At the end the
endpoints are ended as a user would end them, and what they leave behind is looked for.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grepunch.lab import sandbox, udp_punch
from grepunch.lab.node import LabError
from grepunch.lab.requirements import LabUnavailable, Missing
from grepunch.lab.topology import MEET_ADDRESSES, Lab
from grepunch.options import Capture, DemoOptions
from grepunch.scenario import Scenario
from grepunch.verdict import SCHEMA, Verdict, VerdictKind

PINGS = 20
UP_TIMEOUT = 100.0  # seconds; with a rendezvous a second is usual, without one NATs that accept strays need more
UP_TIMEOUT_ALONE = 200.0
TRANSFER_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo saw; its fields are those of the JSON object."""

    schema: int
    result: str
    nat_a: str
    nat_b: str
    external_a: str
    external_b: str
    udp_punch: str
    form: str = ""
    call_id: int | None = None
    seconds_to_up: float | None = None
    ping: Mapping[str, Any] | None = None
    transfer: Mapping[str, Any] | None = None
    left_behind: tuple[str, ...] = ()
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """One object; what is absent is left out."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "", ())}


def run_demo(options: DemoOptions) -> Verdict:
    """Run the demo in a sandbox, print what it shows, and return the verdict."""
    arguments: dict[str, Any] = asdict(options)
    capture = options.capture
    arguments["capture"] = None if capture is None else [str(capture.path.absolute()), capture.plain]
    try:
        outcome = sandbox.run("grepunch.demo:show", arguments)
    except LabUnavailable as unavailable:
        kind = VerdictKind.UNSUPPORTED_HOST
        if unavailable.missing in (Missing.NAMESPACES, Missing.TUN):
            kind = VerdictKind.NO_PRIVILEGE
        verdict = Verdict(kind, str(unavailable), " ")
        if options.json:
            print(json.dumps({"schema": SCHEMA, "result": str(kind), "detail": str(unavailable)}))
        return verdict
    result = VerdictKind(outcome["result"])
    if options.json:
        print(json.dumps(outcome))
    return Verdict(result, outcome.get("detail", ""))


def show(
    *,
    nat_a: str,
    nat_b: str,
    rendezvous: bool,
    transfer_bytes: int,
    skew: float,
    capture: list[Any] | None,
    json: bool,
) -> dict[str, Any]:
    """The demo itself, inside the sandbox; returns the result as JSON."""
    talk = _Talk(sys.stderr if json else sys.stdout)
    taken = None if capture is None else Capture(Path(capture[0]), capture[1])
    with Lab(nat_a, nat_b) as lab:
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "nat_a": nat_a,
            "nat_b": nat_b,
            "external_a": str(lab.a.external),
            "external_b": str(lab.b.external),
        }
        talk(f"Host a {lab.a.address} behind NAT {nat_a}, seen from outside as {lab.a.external}")
        talk(f"Host b {lab.b.address} behind NAT {nat_b}, seen from outside as {lab.b.external}")
        talk("UDP hole punching between them, for comparison ...")
        udp = udp_punch.attempt(lab.meet, MEET_ADDRESSES, lab.a.host, lab.b.host)
        facts["udp_punch"] = udp.result
        talk(f"  UDP hole punching {udp.result}")
        scenario = Scenario(lab, rendezvous=rendezvous)
        try:
            facts |= _tunnel(scenario, talk, transfer_bytes, skew, taken)
            facts["result"] = str(VerdictKind.UP)
        except LabError as error:
            facts |= _failure(scenario, error)
        if facts["result"] == VerdictKind.UP:
            left = scenario.end()
            facts["left_behind"] = tuple(left)
            if left:
                facts |= {"result": str(VerdictKind.INTERNAL), "detail": f"left behind: {', '.join(left)}"}
            talk(f"Ended both; left behind on their hosts: {', '.join(left) or 'nothing'}")
        return DemoResult(**facts).as_json()


def _tunnel(
    scenario: Scenario, talk: _Talk, transfer_bytes: int, skew: float, capture: Capture | None
) -> dict[str, Any]:
    """Bring the tunnel up, ping, measure."""
    if scenario.rendezvous:
        scenario.start_rendezvous()
        talk(f"Rendezvous at wss://{MEET_ADDRESSES[0]}, with TLS")
    extra = () if capture is None else ("--pcap", f"{capture.path}{':plain' if capture.plain else ''}")
    talk("Starting `grepunch-pptp serve` on host a and `grepunch-pptp dial` on host b ...")
    scenario.start("a")
    time.sleep(max(0.0, skew))
    timeout = UP_TIMEOUT if scenario.rendezvous else UP_TIMEOUT_ALONE
    scenario.start("b", "--wait", f"{timeout:.0f}s", *extra)
    up_a, up_b = scenario.up(timeout + 10)
    talk(f"  up: GRE {up_b['form']} between {up_b.get('own_external', '?')} and {up_b['path']}")
    seconds = round(max(up_a["elapsed"], up_b["elapsed"]), 3)
    talk(f"  {seconds} s from both being present to the first sealed frame")
    ping = scenario.ping("b", PINGS)
    talk(f"  {PINGS} pings: {ping['lost']} lost, median {ping.get('rtt_seconds_median', 0) * 1000:.2f} ms")
    if ping["lost"]:
        raise LabError(f"{ping['lost']} of {PINGS} pings were lost")
    facts: dict[str, Any] = {
        "form": up_b["form"],
        "call_id": 0,
        "external_a": up_b["path"],
        "external_b": up_a["path"],
        "seconds_to_up": seconds,
        "ping": ping,
    }
    if transfer_bytes:
        transfer = scenario.transfer(transfer_bytes, TRANSFER_TIMEOUT)
        facts["transfer"] = transfer
        same = "equal SHA-256" if transfer["sha256_match"] else "DIFFERENT SHA-256"
        rates = f"{transfer['mbit_s_up']} Mbit/s up, {transfer['mbit_s_down']} Mbit/s down"
        talk(f"  {transfer_bytes} octets each way over TCP, {same}: {rates}")
        if not transfer["sha256_match"]:
            raise LabError("the transfer was corrupted")
    return facts


def _failure(scenario: Scenario, error: LabError) -> dict[str, Any]:
    """The verdict of the peer that gave up, else the lab's own words."""
    for name in ("b", "a"):
        for event in scenario.events(name):
            if event.get("event") == "verdict":
                return {"result": event["result"], "detail": event.get("detail", event["sentence"])}
    return {"result": str(VerdictKind.INTERNAL), "detail": str(error)}


class _Talk:
    """The story for people, a line at a time."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __call__(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
