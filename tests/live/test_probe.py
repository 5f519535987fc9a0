"""`probe` against mixes of NAT rules that nobody chose: every field right, or "not tested"."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from grepunch.lab.topology import MEET_ADDRESSES, Lab, SidePlan
from grepunch.secure.certificate import laboratory_certificate
from tests.live.live_support import RunInLab
from tests.live.nat_mixes import Mix, untested, wrong


def start_server(lab: Lab, *options: str) -> str:
    """The rendezvous with its GRE echo; its URL."""
    certificate, key = laboratory_certificate(MEET_ADDRESSES[0], datetime.now(UTC))
    for name, content in (("meet.crt", certificate), ("meet.key", key)):
        path = lab.directory / name
        path.touch(0o600)
        path.write_bytes(content)
    server = lab.meet.start(
        [
            *(sys.executable, "-m", "grepunch", "rendezvous", "--listen", f"{MEET_ADDRESSES[0]}:443", *options),
            *("--cert", str(lab.directory / "meet.crt"), "--key", str(lab.directory / "meet.key")),
        ],
        label="rendezvous",
    )
    server.wait_for("listening", 15)
    return f"wss://{MEET_ADDRESSES[0]}"


def ask(lab: Lab, url: str, *options: str, timeout: float = 50.0) -> str:
    """What `probe` prints on the first host."""
    authority = ("--ca-file", str(lab.directory / "meet.crt"))
    return lab.a.host.run(sys.executable, "-m", "grepunch", "probe", url, *authority, *options, timeout=timeout)


def probe_mix(seed: int) -> dict[str, Any]:
    mix = Mix.draw(seed)
    with Lab(SidePlan((mix.box,))) as lab:
        lab.set_link_mtu(lab.a.boxes[0].node, "wan", mix.mtu)
        url = start_server(lab, "--gre-echo")
        began = time.monotonic()
        report = json.loads(ask(lab, url, "--json"))
        took = time.monotonic() - began
    return {
        "mix": str(mix),
        "report": report,
        "wrong": wrong(report, mix),
        "untested": untested(report, mix),
        "took": took,
    }


@pytest.mark.parametrize("seed", [6, 26, 29])
def test_a_report_on_a_mix_of_rules_is_right(run_in_lab: RunInLab, seed: int) -> None:
    seen = run_in_lab(probe_mix, seed=seed)
    assert seen["wrong"] == {}, seen


def for_people() -> dict[str, Any]:
    with Lab(SidePlan.of("G5")) as lab:
        url = start_server(lab, "--gre-echo")
        return {"text": ask(lab, url)}


def test_people_get_a_table_a_line_words_and_a_way_forward(run_in_lab: RunInLab) -> None:
    text = run_in_lab(for_people)["text"]
    assert "GRE: v0=no v1-0/0=no v1-id=no alg=mandatory" in text
    assert "GRE passes only as part of a PPTP call that the NAT has seen." in text
    assert "try: A mirrored PPTP handshake" in text
