"""What NATs and tools see: enhanced GRE outside, an ordinary PPTP session inside."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from grepunch.lab import capture, sandbox
from grepunch.lab.topology import Lab
from grepunch.scenario import TRANSFER_PORT, Scenario

ENHANCED_GRE = 0x3001  # K and S set, A not, version 1


def record() -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        taken = [lab.wan.capture(interface) for interface in ("a", "b")]
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        scenario.start("a")
        plain = scenario.directory / "plain.pcap"
        scenario.start("b", "--pcap", f"{plain}:plain")
        scenario.up(20)
        ping = scenario.ping("b", 20)
        transfer = scenario.transfer(1_000_000)
        end = scenario.end()
        for program in taken:
            program.stop()
        return {
            "ping": ping,
            "transfer": transfer,
            "end": end,
            "external": {"a": str(lab.a.external), "b": str(lab.b.external)},
            "wan": {side: str(lab.directory / f"wan-{side}.pcap").removeprefix("/run/lab/") for side in "ab"},
            "plain": str(plain).removeprefix("/run/lab/"),
        }


def tshark(path: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def complaints(path: Path) -> list[str]:
    """What tshark finds malformed, or worth a warning or an error.

    Not about the user's own TCP, which may lose, and not that a kernel on a busy machine has sent TCP data twice.
    """
    doubtful = "_ws.expert.severity >= warning && !tcp.analysis.flags && !tcp.options.sack.dsack"
    return tshark(path, "-Y", f"(_ws.malformed || ({doubtful})) && !(tcp.port == {TRANSFER_PORT})")


def gre_from(packets: Iterable[tuple[float, bytes]], source: str) -> list[bytes]:
    """GRE packets of one source address, as they passed, from the GRE header on."""
    wanted = bytes(int(octet) for octet in source.split("."))
    return [packet[20:] for _, packet in packets if packet[9] == 47 and packet[12:16] == wanted]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    logs = tmp_path_factory.mktemp("lab")
    return {**sandbox.run(sandbox.entry_point(record), timeout=60, logs=logs), "logs": logs}


def test_every_packet_of_the_form_that_won_is_enhanced_gre_with_call_id_zero(recorded: dict[str, Any]) -> None:
    for side in "ab":
        packets = list(capture.read(recorded["logs"] / recorded["wan"][side]))
        for source in recorded["external"].values():
            v1 = [gre for gre in gre_from(packets, source) if gre[1] & 7 == 1]
            assert len(v1) > 100
            headers = [struct.unpack_from("!HHHHI", gre) for gre in v1]
            assert {header[:2] for header in headers} == {(ENHANCED_GRE, 0x880B)}
            assert {header[3] for header in headers} == {0}
            numbers = [header[4] for header in headers]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert all(len(gre) == 12 + header[2] for gre, header in zip(v1, headers, strict=True))


def test_once_a_path_is_nominated_every_packet_is_sealed_and_of_that_form(recorded: dict[str, Any]) -> None:
    packets = list(capture.read(recorded["logs"] / recorded["wan"]["a"]))
    for source in recorded["external"].values():
        sent = gre_from(packets, source)
        first_sealed = next(n for n, gre in enumerate(sent) if gre[1] & 7 == 1 and gre[12:14] == b"\x00\x53")
        assert first_sealed < 20
        # probes go on until the peer's first sealed frame is in, which a busy machine may take its time for
        settled = sent[first_sealed + 40 :]
        assert len(settled) > 100
        assert all(gre[1] & 7 == 1 and gre[12:14] == b"\x00\x53" for gre in settled)


def test_nothing_on_the_wire_is_malformed_or_fragmented(recorded: dict[str, Any]) -> None:
    for side in "ab":
        path = recorded["logs"] / recorded["wan"][side]
        assert tshark(path, "-Y", "_ws.malformed || (gre && _ws.expert.severity == error)") == []
        assert tshark(path, "-Y", "gre && (ip.flags.mf == 1 || ip.frag_offset > 0 || ip.len > 1500)") == []


def test_the_inside_is_a_pptp_session_in_the_order_of_the_rfc(recorded: dict[str, Any]) -> None:
    path = recorded["logs"] / recorded["plain"]
    assert complaints(path) == []
    types = tshark(path, "-Y", "pptp", "-T", "fields", "-e", "pptp.control_message_type")
    assert types[:4] == ["1", "2", "7", "8"]
    order = tshark(path, "-T", "fields", "-e", "frame.protocols")
    first = {
        name: next(n for n, line in enumerate(order) if name in line.split(":"))
        for name in ("pptp", "lcp", "ipcp", "ipv6cp", "icmp")
    }
    assert first["pptp"] < first["lcp"] < min(first["ipcp"], first["ipv6cp"]) < first["icmp"]
    replies = [n for n, line in enumerate(order) if "pptp" in line.split(":")][:4]
    assert replies[3] < first["icmp"]


def test_scapy_takes_every_control_message_for_pptp(recorded: dict[str, Any]) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.pptp import PPTP
    from scapy.packet import Raw
    from scapy.utils import rdpcap

    segments = [p for p in rdpcap(str(recorded["logs"] / recorded["plain"])) if p[IP].proto == socket.IPPROTO_TCP]
    packets = [p for p in segments if len(p[TCP].payload)]
    assert len(packets) >= 4
    for packet in packets:
        message = bytes(packet[TCP].payload)
        parsed = PPTP(message)
        assert parsed.magic_cookie == 0x1A2B3C4D
        assert bytes(parsed) == message
        assert Raw not in parsed


def test_the_load_went_through_while_it_was_recorded(recorded: dict[str, Any]) -> None:
    assert recorded["ping"]["lost"] == 0
    assert recorded["transfer"]["sha256_match"]
    assert recorded["end"] == []
