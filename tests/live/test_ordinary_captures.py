"""What `--pcap` records of ordinary PPTP, and what passes on the wire, as tshark sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grepunch.lab.topology import Lab
from tests.live.live_support import RunInLab
from tests.live.ordinary_support import CELLS, INNER, Ordinary, ping
from tests.live.test_capture_looks_like_pptp import complaints, tshark


def record() -> dict[str, str]:
    """A session in clear, recorded by both ends and on the way."""
    with Lab("G2") as lab:
        taken = lab.meet.capture("eth0")
        world = Ordinary(lab, CELLS["mschapv2"])
        wire, plain = lab.directory / "wire.pcap", lab.directory / "plain.pcap"
        server = world.serve("--pcap", str(wire))
        client = world.dial(lab.wan, "--pcap", f"{plain}:plain")
        client.wait("session_up")
        assert ping(lab.wan, str(INNER))
        client.running.stop()
        server.wait("session_down")
        server.running.stop()
        taken.stop()
        return {name: path.name for name, path in {"wire": wire, "plain": plain}.items()}


def test_captures_are_whole_and_hold_a_pptp_session(run_in_lab: RunInLab, lab_logs: Path) -> None:
    seen: dict[str, Any] = run_in_lab(record)
    (passed,) = lab_logs.rglob("meet-eth0.pcap")
    wire, plain = (next(lab_logs.rglob(seen[name])) for name in ("wire", "plain"))
    for path in (passed, wire, plain):
        assert complaints(path) == []
    messages = tshark(passed, "-Y", "pptp", "-T", "fields", "-e", "pptp.control_message_type")
    assert messages[:4] == ["1", "2", "7", "8"]
    assert {"12", "13", "3", "4"} & set(messages[4:]), "a goodbye"
    for path in (passed, wire):
        order = ":".join(tshark(path, "-Y", "gre", "-T", "fields", "-e", "frame.protocols"))
        assert order.index("lcp") < order.index("chap") < order.index("ipcp") < order.index("icmp")
    assert len(tshark(plain, "-Y", "icmp")) == 6
