"""NATs that pass GRE only for a PPTP call they have seen: the real programs come up through them."""

from __future__ import annotations

import socket
from dataclasses import asdict
from typing import Any

import pytest

from grepunch.io.simultaneous import Listener
from grepunch.lab.nat import TABLE
from grepunch.lab.topology import MEET_ADDRESSES, Lab
from grepunch.ports import Form, form_name
from grepunch.scenario import Scenario
from pptp.wire.control import TCP_PORT
from tests.live.live_support import RunInLab

OUTGOING = form_name(Form.V1, (TCP_PORT, TCP_PORT))


def come_up(nat_a: str, nat_b: str) -> dict[str, Any]:
    with Lab(nat_a, nat_b) as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        scenario.up(30)
        (up,) = [event for event in scenario.events("b") if event["event"] == "peer_up"]
        ping, transfer = scenario.ping("b", 5), scenario.transfer(1_000_000)
        flows = [asdict(flow) for side in (lab.a, lab.b) for flow in side.boxes[-1].node.flows()]
        return {
            "up": up,
            "ping": ping,
            "transfer": transfer,
            "flows": [{k: flow[k] for k in ("protocol", "helper", "expected", "assured", "replied")} for flow in flows],
            "end": scenario.end(),
        }


@pytest.mark.parametrize(
    ("nat_a", "nat_b", "form"),
    [
        ("G5", "G5", Form.V1),
        ("G5", "G2", Form.V1),
        ("G3", "G5", Form.V1),
        ("G5K", "G5K", OUTGOING),
        ("G5", "G5K", OUTGOING),
    ],
)
def test_a_mirrored_handshake_passes_nats_that_want_to_see_a_call(
    run_in_lab: RunInLab, nat_a: str, nat_b: str, form: str
) -> None:
    seen = run_in_lab(come_up, nat_a=nat_a, nat_b=nat_b, timeout=60)
    print(seen)
    assert seen["up"]["mirrored"]
    assert seen["up"]["form"] == form
    assert seen["ping"]["lost"] == 0
    assert seen["transfer"]["sha256_match"]
    assert seen["end"] == []
    helped = [flow for flow in seen["flows"] if flow["helper"] == "pptp" and flow["replied"]]
    admitted = [flow for flow in seen["flows"] if flow["protocol"] == 47 and flow["expected"]]
    assert len(helped) == sum(nat in ("G3", "G5", "G5K") for nat in (nat_a, nat_b))
    # G3 passes probes of its own accord, and what it knows already it need not expect
    assert len(admitted) == sum(nat.startswith("G5") for nat in (nat_a, nat_b))
    assert all(flow["assured"] for flow in helped + admitted)


def reach_a_forwarded_port() -> dict[str, Any]:
    """``a`` is behind a NAT that draws ports at random, but has TCP 1723 forwarded."""
    with Lab("G2S", "G5") as lab:
        lab.a.boxes[-1].node.nft(
            "table ip forwarded {\nchain to_the_host {\ntype nat hook prerouting priority dstnat;\n"
            f'iifname "wan" tcp dport {TCP_PORT} dnat to {lab.a.address}\n}}\n}}\n'
            f'insert rule ip {TABLE} forward iifname "wan" ct status dnat accept\n'
        )
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        scenario.up(30)
        (up,) = [event for event in scenario.events("b") if event["event"] == "peer_up"]
        return {"up": up, "ping": scenario.ping("b", 5), "end": scenario.end()}


def test_a_side_whose_port_is_forwarded_is_called(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(reach_a_forwarded_port, timeout=60)
    assert seen["up"]["mirrored"]
    assert seen["ping"]["lost"] == 0
    assert seen["end"] == []


def call_a_listener(expected: str) -> dict[str, str]:
    """The public host listens for one of two hosts; what each of them makes of calling it."""
    with Lab("G2", "G2") as lab:
        with lab.meet.entered():
            listener = Listener([{"a": lab.a, "b": lab.b}[expected].external], TCP_PORT)
        seen = {}
        for side in (lab.a, lab.b):
            with side.host.entered():
                caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            with caller:
                caller.settimeout(1.5)  # time for a second SYN
                try:
                    caller.connect((str(MEET_ADDRESSES[0]), TCP_PORT))
                    seen[side.name] = "connected"
                except OSError as error:
                    seen[side.name] = type(error).__name__
        listener.close()
        return seen


def test_nobody_but_the_peer_learns_that_somebody_listens(run_in_lab: RunInLab) -> None:
    assert run_in_lab(call_a_listener, expected="a") == {"a": "connected", "b": "TimeoutError"}
    assert run_in_lab(call_a_listener, expected="b") == {"a": "TimeoutError", "b": "connected"}
