"""`demo`: two peers behind two NATs on this one machine, as the program's users would run them.

First it is shown that UDP hole punching fails on this very pair (or that it would have done); then the rendezvous,
``serve`` and ``dial`` are started, each on its own host, and the tunnel is pinged and measured. What went between the
NATs meanwhile is read from a capture. At the end the endpoints are ended as a user would end them, and what they
leave behind is looked for.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from socket import IPPROTO_GRE
from typing import Any, Self, TextIO

from grepunch.lab import capture as pcap
from grepunch.lab import sandbox, udp_punch
from grepunch.lab.namespaces import LOGS
from grepunch.lab.nat import chain
from grepunch.lab.node import LabError
from grepunch.lab.requirements import LabUnavailable, Missing
from grepunch.lab.topology import MEET_ADDRESSES, Lab
from grepunch.options import Capture, DemoOptions
from grepunch.ports import CarrierKind, RelayPolicy
from grepunch.progress import Level, Paint
from grepunch.scenario import Scenario
from grepunch.text import duration
from grepunch.verdict import SCHEMA, Verdict, VerdictKind
from pptp.errors import WireError
from pptp.value import value
from pptp.wire import gre, ppp

PINGS = 20
# ours, because with a rendezvous a second is usual, and what one window of 30 s does not bring the next will not here
UP_TIMEOUT = 40.0
# ours, because nothing brings two peers together that know only addresses: NATs that take strays need their timers
UP_TIMEOUT_ALONE = 200.0
RELAYED_WINDOW = 10.0  # ours: seconds; a mirrored handshake gives up before, and what has failed by then would later
DIRECT_POLL = 0.01  # ours
DIRECT_WAIT = 30.0  # ours: a tunnel that has begun on the relay gets so long to move to GRE, or to say why it does not
BACK_TIMEOUT = 30.0  # ours: how long a tunnel may be away when its NATs have restarted
RELAY_RATE = 1000.0  # Mbit/s; the demo measures the relay, not a quota
UP_GRACE = 10.0  # seconds for the verdict itself, and for programs to start on a busy machine
TRANSFER_TIMEOUT = 300.0
LIVE_INTERVAL = 0.25  # seconds between two states of the live line of a terminal
LINE_INTERVAL = 10.0  # seconds between two lines of progress where there is none
OTHER_PAIR = "Choose other classes with --nat-a and --nat-b; G2S on both sides is what many carriers have."


@value
class DemoResult:
    """What the demo saw; its fields are those of the JSON object. Times in seconds.

    ``call_id`` is the one in the sealed packets between the NATs; there is none in GRE version 0. ``carrier`` is what
    the tunnel was tried on, ``relay_reason`` why not on GRE. ``direction`` is that in which GRE died, ``logs`` where
    the logs of a demo that failed are. ``mirrored``: it took a mirrored PPTP handshake; ``conntrack`` then is what the
    NATs' tables hold of it, a row for each flow. ``seconds_back`` from when NATs restarted until the tunnel carried
    again.
    """

    schema: int
    result: str
    nat_a: str
    nat_b: str
    external_a: str
    external_b: str
    udp_punch: str
    carrier: str = ""
    relay_reason: str = ""
    form: str = ""
    call_id: int | None = None
    mirrored: bool | None = None
    conntrack: tuple[Mapping[str, Any], ...] = ()
    seconds_to_up: float | None = None
    ping: Mapping[str, Any] | None = None
    transfer: Mapping[str, Any] | None = None
    seconds_back: float | None = None
    left_behind: tuple[str, ...] = ()
    direction: str = ""
    detail: str = ""
    logs: str = ""

    def as_json(self) -> dict[str, Any]:
        """One object; what is absent is left out."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "", ())}


def run_demo(options: DemoOptions) -> Verdict:
    """Run the demo in a sandbox and return the verdict.

    Prints the story as it happens, and with ``options.json`` the result; the verdict on a demo that failed is left
    for the caller to show, unless that result holds it. Raises ``BrokenPipeError`` once nobody reads the story.
    """
    arguments: dict[str, Any] = asdict(options)
    capture = options.capture
    arguments["capture"] = None if capture is None else [str(capture.path.absolute()), capture.plain]
    try:
        outcome = sandbox.run("grepunch.demo:show", arguments)
    except LabUnavailable as unavailable:
        kind = VerdictKind.UNSUPPORTED_HOST
        if unavailable.missing in (Missing.NAMESPACES, Missing.TUN):
            kind = VerdictKind.NO_PRIVILEGE
        outcome = {"schema": SCHEMA, "result": str(kind), "detail": str(unavailable)}
    except sandbox.SandboxFailure as failed:
        if failed.kind == BrokenPipeError.__name__:
            raise BrokenPipeError from None
        raise
    verdict = _verdict(outcome)
    if options.json:
        if not verdict.ok:
            print("\n".join(verdict.lines()), file=sys.stderr)
        print(json.dumps(outcome))
    return verdict


def _verdict(outcome: Mapping[str, Any]) -> Verdict:
    kind = VerdictKind(outcome["result"])
    logs = outcome.get("logs")
    detail = outcome.get("detail", "") + (f"\nthe programs' logs are in {logs}" if logs else "")
    return Verdict(kind, detail, OTHER_PAIR if kind is VerdictKind.NAT_BLOCKED else "")


def show(
    *,
    nat_a: str,
    nat_b: str,
    rendezvous: bool,
    transfer_bytes: int,
    skew: float,
    capture: list[Any] | None,
    json: bool,
    relay: str,
) -> dict[str, Any]:
    """The demo itself, inside the sandbox; returns the result as JSON. The arguments are those of the options."""
    taken = None if capture is None else Capture(Path(capture[0]), capture[1])
    options = DemoOptions(nat_a, nat_b, rendezvous, transfer_bytes, skew, taken, json, RelayPolicy(relay))
    try:
        with Lab(nat_a, nat_b) as lab:
            return _Demo(lab, options, _Talk(sys.stderr if json else sys.stdout)).run()
    except BrokenPipeError:  # nobody reads the story any more
        raise
    except Exception as error:
        error.add_note(f"the programs' logs are in {keep_logs()}")
        raise


def keep_logs() -> Path:
    """Copy the lab's logs to where they outlive the sandbox, without the keys; the directory."""
    kept = Path(tempfile.mkdtemp(prefix="grepunch-demo-"))
    shutil.copytree(LOGS, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.key", "*.psk", "run-*"))
    return kept


@dataclass(slots=True)
class Sighting:
    """What a router between the NATs saw of a tunnel: sealed packets, and the Call IDs in them (empty in version 0)."""

    packets: int = 0
    versions: set[int] = field(default_factory=set)
    call_ids: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, path: Path, one: IPv4Address, other: IPv4Address) -> Self:
        """From a capture, the sealed packets between two addresses."""
        sighting = cls()
        for _, packet in pcap.read(path):
            ends = {IPv4Address(packet[12:16]), IPv4Address(packet[16:20])}  # RFC 791 section 3.1
            if packet[9] == 47 and ends == {one, other}:
                sighting._take(packet[(packet[0] & 0x0F) * 4 :])
        return sighting

    def _take(self, packet: bytes) -> None:
        try:
            seen = gre.parse(packet)
            if ppp.parse(seen.payload).protocol != ppp.Protocol.ENCRYPTED:
                return
        except WireError:
            return
        self.packets += 1
        self.versions.add(seen.version)
        if seen.version == 1:
            self.call_ids.add(seen.call_id)

    @property
    def call_id(self) -> int | None:
        """The Call ID of all packets; None in version 0. Raises :class:`LabError` where they differ."""
        if len(self.versions) != 1 or len(self.call_ids) > 1:
            raise LabError(f"between the NATs: GRE versions {self.versions or 'none'}, Call IDs {self.call_ids}")
        return next(iter(self.call_ids), None)

    def __str__(self) -> str:
        call_id = self.call_id
        shape = "plain GRE (0x880B)" if call_id is None else f"enhanced GRE (0x880B), Call ID {call_id} both ways"
        return f"{self.packets} sealed packets of {shape}"


class _Demo:
    """One demo in its lab, a step a method; ``facts`` become the fields of :class:`DemoResult`."""

    def __init__(self, lab: Lab, options: DemoOptions, talk: _Talk) -> None:
        self._lab = lab
        self._options = options
        self._talk = talk
        self._facts: dict[str, Any] = {"schema": SCHEMA, "nat_a": options.nat_a, "nat_b": options.nat_b}

    def run(self) -> dict[str, Any]:
        """All steps; the result as JSON."""
        self._introduce()
        self._punch_udp()
        scenario = Scenario(
            self._lab,
            rendezvous=self._options.rendezvous,
            punch=f'relay = "{self._options.relay}"' + (f"\nwindow = {RELAYED_WINDOW}" if self._may_relay else ""),
            relay=RELAY_RATE if self._options.relay is not RelayPolicy.NEVER else None,
            gre_echo=True,
        )
        try:
            self._bring_up(scenario)
            self._ping(scenario)
            if self._options.transfer_bytes:
                self._transfer(scenario)
            if self._options.rendezvous:  # nobody else could tell the other peer the new address
                self._restart(scenario)
            self._end(scenario)
        except LabError as error:
            self._facts |= _failure(scenario, error)
        result = DemoResult(**self._facts)
        self._talk("")
        if result.result != VerdictKind.UP:
            return {**result.as_json(), "logs": str(keep_logs())}
        relayed = result.carrier == CarrierKind.RELAY
        by = f"UDP hole punching{' and GRE' if relayed else ''} failed" if result.udp_punch == "failed" else ""
        self._talk.good(
            f"It worked: a tunnel over {'the relay' if relayed else 'GRE'}, up in {result.seconds_to_up:.2f} s"
            + (f", where {by}." if by else ".")
        )
        return result.as_json()

    @property
    def _may_relay(self) -> bool:
        return self._options.rendezvous and self._options.relay is RelayPolicy.AUTO

    def _introduce(self) -> None:
        lab, say = self._lab, self._talk
        self._facts |= {"external_a": str(lab.a.external), "external_b": str(lab.b.external)}
        say("Two hosts, each behind a NAT, and a public host, as namespaces of this machine:")
        for side, nat in ((lab.a, self._options.nat_a), (lab.b, self._options.nat_b)):
            say(f"  host {side.name}  {side.address!s:<14} behind {nat:<4}  seen from outside as {side.external}")
        boxes = chain(self._options.nat_a) + chain(self._options.nat_b)
        for name, summary in {box.name: box.summary for box in boxes}.items():
            say(f"  {name}: {summary}")

    def _punch_udp(self) -> None:
        lab = self._lab
        self._talk("UDP hole punching, for comparison ...")
        udp = udp_punch.attempt(lab.meet, MEET_ADDRESSES, lab.a.host, lab.b.host)
        self._facts["udp_punch"] = udp.result
        moving = [name for name, report in (("a", udp.a), ("b", udp.b)) if report.symmetric]
        who = "both NATs show" if len(moving) == 2 else f"NAT {''.join(moving)} shows"
        why = f": {who} every destination another port" if moving and udp.result == "failed" else ""
        self._talk(f"  {udp.result}{why}")

    def _bring_up(self, scenario: Scenario) -> None:
        """Start both endpoints and wait for the tunnel; see in a capture what they send."""
        options, lab, say = self._options, self._lab, self._talk
        how = "each knowing only the other's address"
        if scenario.rendezvous:
            scenario.start_rendezvous()
            how = f"meeting at wss://{MEET_ADDRESSES[0]}"
        wire = lab.wan.capture("b")
        say(f"GRE hole punching, {how} ...")
        say("  host a: grepunch-pptp serve, host b: grepunch-pptp dial")
        scenario.start("a")
        if options.skew:
            say(f"  host b starts {duration(options.skew)} later")
            time.sleep(options.skew)
        timeout = UP_TIMEOUT if scenario.rendezvous else UP_TIMEOUT_ALONE
        capture = options.capture
        extra = () if capture is None else ("--pcap", f"{capture.path}{':plain' if capture.plain else ''}")
        scenario.start("b", "--wait", f"{timeout:.0f}s", *extra)
        up_a, up_b = scenario.up(timeout + UP_GRACE, say.waiting(scenario))
        seconds = scenario.seconds_to_up(up_a, up_b)
        self._facts |= {"carrier": up_b["carrier"], "seconds_to_up": seconds}
        if CarrierKind.RELAY in (up_a["carrier"], up_b["carrier"]):
            say(f"  up after {seconds} s over the relay; waiting for a direct path ...")
            began = time.monotonic()
            moved = _wait_for_direct(scenario)
            if moved is None:
                reason = self._facts["relay_reason"] = scenario.status("b")["peers"][0]["relay_reason"]
                say(f"  no direct path, so the relay stays: {reason}")
                return
            up_a, up_b = moved
            seconds = round(seconds + time.monotonic() - began, 3)
            self._facts |= {"carrier": str(CarrierKind.DIRECT), "seconds_to_up": seconds}
        say(f"  up after {seconds} s: GRE {up_b['form']} between {up_b['path']} and {up_a['path']}")
        self._facts |= {
            "form": up_b["form"],
            "external_a": up_b["path"],
            "external_b": up_a["path"],
        }
        if up_b.get("mirrored", True):  # of a link that has moved from the relay only the NATs can tell
            self._show_call()
        scenario.ping("b", 3)
        wire.stop()
        path = lab.directory / "wan-b.pcap"
        sighting = Sighting.of(path, IPv4Address(up_a["path"]), IPv4Address(up_b["path"]))
        self._facts["call_id"] = sighting.call_id
        say(f"  between the NATs: {sighting}")

    def _show_call(self) -> None:
        """What the NATs made of the mirrored handshake: the call they read along with, the GRE they let in for it."""
        rows: list[dict[str, Any]] = []
        for side in (self._lab.a, self._lab.b):
            for box in side.boxes:
                for flow in box.node.flows():
                    if flow.replied and (flow.helper or flow.expected):
                        protocol = "gre" if flow.protocol == IPPROTO_GRE else "tcp"
                        ends = {"source": str(flow.original.source), "destination": str(flow.original.destination)}
                        status = {"helper": flow.helper, "expected": flow.expected, "assured": flow.assured}
                        rows.append({"nat": f"{side.name}: {box.nat.name}", "protocol": protocol, **ends, **status})
        if not rows:
            return
        self._facts |= {"mirrored": True, "conntrack": tuple(rows)}
        self._talk("  by a mirrored PPTP handshake; the NATs' connection tracking has of it:")
        for row in rows:
            notes = [f"helper={row['helper']}"] if row["helper"] else []
            notes += ["EXPECTED"] if row["expected"] else []
            notes += ["ASSURED"] if row["assured"] else []
            where = f"{row['source']} -> {row['destination']}"
            self._talk(f"    {row['nat']}  {row['protocol']} {where}  {' '.join(notes)}")

    def _ping(self, scenario: Scenario) -> None:
        self._talk(f"{PINGS} pings through the tunnel ...")
        ping = self._facts["ping"] = scenario.ping("b", PINGS)
        self._talk(f"  {ping['lost']} lost, median {ping.get('rtt_seconds_median', 0) * 1000:.2f} ms")
        if ping["lost"]:
            raise LabError(f"{ping['lost']} of {PINGS} pings were lost")

    def _transfer(self, scenario: Scenario) -> None:
        megabytes = self._options.transfer_bytes / 1e6
        self._talk(f"{megabytes:.1f} MB each way over TCP through the tunnel ...")
        transfer = self._facts["transfer"] = scenario.transfer(self._options.transfer_bytes, TRANSFER_TIMEOUT)
        same = "equal SHA-256" if transfer["sha256_match"] else "DIFFERENT SHA-256"
        self._talk(f"  {transfer['mbit_s_up']} Mbit/s up, {transfer['mbit_s_down']} Mbit/s down, {same}")
        if not transfer["sha256_match"]:
            raise LabError("the transfer was corrupted")

    def _restart(self, scenario: Scenario) -> None:
        """Restart the NATs of a class that does, and wait until the tunnel carries again."""
        restarted = self._lab.restart_boxes()
        if not restarted:
            return
        self._talk(f"{' and '.join(restarted)}: restarted, under another external address ...")
        back = scenario.answers_again(BACK_TIMEOUT)
        if back is None:
            raise LabError(f"the tunnel was not back {BACK_TIMEOUT:.0f} s after its NATs had restarted")
        self._facts["seconds_back"] = back
        self._talk(f"  the tunnel carries again after {back:.1f} s")

    def _end(self, scenario: Scenario) -> None:
        """End both as a service manager would."""
        self._talk("Ending both ...")
        left = scenario.end()
        self._facts |= {"left_behind": tuple(left), "result": str(VerdictKind.UP)}
        self._talk(f"  left behind on their hosts: {', '.join(left) or 'nothing'}")
        if left:
            raise LabError(f"left behind: {', '.join(left)}")


def _wait_for_direct(scenario: Scenario) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Both peers' latest word when both have left the relay for GRE; None once a window has ended without one."""
    deadline = time.monotonic() + DIRECT_WAIT
    while time.monotonic() < deadline:
        at_a, at_b = (
            [e for e in scenario.events(name) if e["event"] in ("peer_up", "path_changed")][-1] for name in "ab"
        )
        if at_a["carrier"] == at_b["carrier"] == CarrierKind.DIRECT:
            return at_a, at_b
        if any(e["event"] == "notice" and e["level"] == Level.INFO for e in scenario.events("b")):
            return None
        time.sleep(DIRECT_POLL)
    return None


def _failure(scenario: Scenario, error: LabError) -> dict[str, Any]:
    """The verdict of the peer that gave up, else the lab's own words."""
    for name in ("b", "a"):
        for event in scenario.events(name):
            if event["event"] == "verdict" and event["result"] != VerdictKind.TERMINATED:
                detail = event.get("detail", event["sentence"])
                return {
                    "result": event["result"],
                    "direction": event.get("facts", {}).get("direction", ""),
                    "detail": f"`grepunch-pptp {scenario.peers[name].role}` on host {name}: {detail}",
                }
    return {"result": str(VerdictKind.INTERNAL), "detail": str(error).splitlines()[0]}


class _Talk:
    """The story for people, a line at a time; on a terminal with a live line while the punch is under way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._paint = Paint(self._live and not os.environ.get("NO_COLOR"))
        self._told_at = 0.0

    def __call__(self, line: str) -> None:
        """One line."""
        print(("\r\x1b[K" if self._live else "") + line, file=self._stream, flush=True)

    def good(self, sentence: str) -> None:
        """The last line of a demo that worked."""
        self(self._paint.verdict(Verdict(VerdictKind.UP), sentence))

    def waiting(self, scenario: Scenario) -> Callable[[], None]:
        """To be called while the punch is under way: says how it stands, as often as people want to know."""
        began = self._told_at = time.monotonic()

        def tell() -> None:
            now = time.monotonic()
            if now - self._told_at < (LIVE_INTERVAL if self._live else LINE_INTERVAL):
                return
            self._told_at = now
            line = f"  {duration(now - began)}: {describe_wait(list(scenario.events('b')))}"
            if self._live:
                width = shutil.get_terminal_size().columns - 1
                print(f"\r\x1b[K{line[:width]}", end="", file=self._stream, flush=True)
            else:
                self(line)

        return tell


def describe_wait(events: Sequence[Mapping[str, Any]]) -> str:
    """How an endpoint that is not up yet stands, by what it last said."""
    for event in reversed(events):
        if event["event"] == "punch_progress":
            counts = ", ".join(f"{form['form']} {form['sent']}/{form['heard']}" for form in event["forms"])
            step = event["next_step"] + (f" in {duration(event['next_in'])}" if "next_in" in event else "")
            return f"punching, packets sent/heard: {counts}; {step}"
        if event["event"] == "state_changed":
            return str(event["stage"])
    return "starting"
