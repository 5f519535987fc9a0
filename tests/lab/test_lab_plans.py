"""What a lab is planned from: NAT classes, chains of them, sides, entry points, guesses and captures."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from grepunch.lab import capture, nat, sandbox
from grepunch.lab.impairment import Impairment
from grepunch.lab.topology import SidePlan
from grepunch.lab.udp_punch import guess_ports


def test_a_chain_reads_from_the_host_outwards() -> None:
    assert [box.name for box in nat.chain("G2")] == ["G2"]
    assert [box.name for box in nat.chain("G15")] == ["G2S", "G2"]
    assert [box.name for box in nat.chain("G5+G1L")] == ["G5", "G1L"]


@pytest.mark.parametrize("text", ["", "G99", "g2", "G2+", "G2 G2"])
def test_an_unknown_class_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match=r"known: G0, G1, G1L, G2, .*G15"):
        nat.chain(text)


@pytest.mark.parametrize("name", nat.names())
def test_every_class_renders_rules_that_replace_themselves(name: str) -> None:
    for box in nat.chain(name):
        rules = box.ruleset(IPv4Address("198.51.100.10"))
        assert rules.startswith("define EXTERNAL = 198.51.100.10\n")
        assert rules.index("delete table ip nat_box") < rules.index("chain")
        assert rules.count("{") == rules.count("}")
        assert ("masquerade" in rules) == box.translates
        assert box.summary


@pytest.mark.parametrize(("boxes", "hosts"), [("G2+G2+G2", 1), ("G2", 0), ("G2", 21)])
def test_a_side_beyond_what_the_addresses_allow_is_refused(boxes: str, hosts: int) -> None:
    with pytest.raises(ValueError, match="a side has"):
        SidePlan.of(boxes, hosts=hosts)


def test_a_line_and_timers_of_a_side_come_before_those_of_its_classes() -> None:
    bad = SidePlan.of("G18").line
    assert bad is not None
    assert bad.loss == 0.05
    assert SidePlan.of("G2+G18").line == bad
    assert SidePlan.of("G18", line=Impairment(delay=0.1)).line == Impairment(delay=0.1)
    assert SidePlan.of("G2").line is None


def test_the_likeliest_ports_are_guessed_first() -> None:
    preserved = guess_ports([5000, 5000])
    assert preserved[0] == 5000
    assert sorted(preserved) == list(range(4996, 5005))
    steady = guess_ports([5000, 5002])
    assert steady[:3] == [5002, 5004, 5000]
    assert guess_ports([65535, 65535])[0] == 65535
    assert all(0 < port < 65536 for port in guess_ports([1, 65535]))


SCRIPT = """
from grepunch.lab import sandbox
def scenario(): pass
print(sandbox.entry_point(scenario))
"""


def test_entry_points_name_modules_of_packages_and_files_of_scripts(tmp_path: Path) -> None:
    assert sandbox.entry_point(nat.chain) == "grepunch.lab.nat:chain"
    script = tmp_path / "some.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{script.resolve()}:scenario\n"
    with pytest.raises(ValueError, match="not a top-level function"):
        sandbox.entry_point(lambda: None)


def test_arguments_that_json_cannot_carry_never_start_a_sandbox() -> None:
    with pytest.raises(TypeError):
        sandbox.run("json:dumps", {"obj": object()})


def test_a_capture_reads_back_and_a_cut_off_file_keeps_what_is_whole(tmp_path: Path) -> None:
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)  # draft-ietf-opsawg-pcap, LINKTYPE_RAW
    packets = [(1.5, b"E" * 20), (2.25, b"E" * 40)]
    data = header
    for when, packet in packets:
        data += struct.pack("<IIII", int(when), int(when % 1 * 1e6), len(packet), len(packet)) + packet
    path = tmp_path / "some.pcap"
    path.write_bytes(data)
    assert list(capture.read(path)) == packets
    path.write_bytes(data[:-1])
    assert list(capture.read(path)) == packets[:1]
