"""Medians, same-round ratios, spreads and verdicts, and the tables made of them."""

from __future__ import annotations

import json

import pytest

from tests.bench.figures import (
    FIGURES,
    TARGETS,
    TCP_FIGURES,
    Target,
    original_share,
    ratios,
    share_of_direct,
    summary,
    values_of,
)
from tests.bench.report import Entry, Report, figures_table, original_line, ours_against, ratios_table, table

TCP = dict.fromkeys(TCP_FIGURES, 1000.0)
ROUNDS = [
    {
        "ours": {"tcp1_fwd": 2000.0, "udp64": 90.0, "nat_fwd": 1800.0, "direct_fwd": 2250.0},
        "openvpn": {"tcp1_fwd": 1000.0, "udp64": 100.0},
    },
    {"ours": {"tcp1_fwd": 1500.0, "udp64": 90.0}, "openvpn": {"tcp1_fwd": 500.0}},
    {"ours": {"tcp1_fwd": 3000.0}, "openvpn": {}},
]
MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "cores_present": 8,
    "kernel": "6.18",
    "python": "3.11",
    "cryptography": "50",
    "load_before": "0.10",
    "load_after": "1.90",
}
PLAN = {"congestion_control": "cubic", "seconds": 4.0, "outer_mtu": 1500}


def test_a_summary_has_median_and_spread() -> None:
    found = summary([10.0, 30.0, 20.0])
    assert found is not None
    assert (found.median, found.low, found.high, found.count) == (20.0, 10.0, 30.0, 3)
    assert found.spread == 0.5
    assert summary([]) is None


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios(ROUNDS, "ours", "openvpn", ["tcp1_fwd"]) == [2.0, 3.0]
    assert ratios(ROUNDS, "ours", "openvpn", ["tcp1_fwd", "udp64"]) == [2.0, 0.9, 3.0]
    assert ratios(ROUNDS, "ours", "nebula", ["tcp1_fwd"]) == []


def test_nothing_is_divided_by_zero() -> None:
    assert ratios([{"ours": {"udp64": 5.0}, "openvpn": {"udp64": 0.0}}], "ours", "openvpn", ["udp64"]) == []


def test_a_share_of_direct_needs_both() -> None:
    assert share_of_direct(ROUNDS, "ours", "nat_fwd", "direct_fwd") == [0.8]


def test_values_skip_rounds_without_them() -> None:
    assert values_of(ROUNDS, "openvpn", "tcp1_fwd") == [1000.0, 500.0]


@pytest.mark.parametrize(
    ("value", "at_most", "verdict"),
    [(2.5, False, "aim"), (1.7, False, "must"), (1.4, False, "missed")],
)
def test_a_target_is_judged(value: float, at_most: bool, verdict: str) -> None:
    assert Target("x", lambda rounds: [], 1.5, 2.0, at_most).verdict(value) == verdict


def test_a_target_from_above_is_judged_the_other_way() -> None:
    target = Target("ping", lambda rounds: [], 2.0, 0.7, at_most=True)
    assert [target.verdict(value) for value in (0.7, 1.0, 2.1)] == ["aim", "must", "missed"]


def test_every_target_is_measured_by_a_round_that_has_everything() -> None:
    everything = {figure.key: 1.0 for figure in FIGURES}
    names = ("ours", "ours-chacha", "ours-mppe", "openvpn", "wireguard-go", "nebula", "easytier", "original")
    for target in TARGETS:
        values = target.measure([dict.fromkeys(names, everything)])
        assert values, target.label
        assert set(values) == {1.0}, target.label


def test_the_measure_itself_is_judged() -> None:
    share = original_share([{"original": {**TCP, "tcp1_fwd": 700.0}, "openvpn": TCP}])
    assert share is not None
    assert "NOT" in original_line(share)
    share = original_share([{"original": dict.fromkeys(TCP_FIGURES, 680.0), "openvpn": TCP}])
    assert share is not None
    assert "as it should" in original_line(share)
    assert "NOT" not in original_line(share)


def test_a_table_has_straight_columns() -> None:
    assert table([["", "wide"], ["name", "1"]]) == ["      wide", "name     1"]


def test_figures_that_nobody_has_are_no_columns() -> None:
    lines = figures_table(ROUNDS, ["ours", "openvpn"])
    assert "TCP 1 fwd" in lines[0]
    assert "ping" not in lines[0]
    assert lines[2].split() == ["ours", "~2000", "90.0", "1800", "2250"]
    assert lines[3].split() == ["openvpn", "~750", "100.0", "-", "-"]


def test_ratios_show_their_spread() -> None:
    compared = ours_against(ROUNDS, ["ours", "openvpn"])
    assert [(heading, name) for heading, name, _ in compared] == [
        ("TCP (4 figures)", "openvpn"),
        ("UDP 64 B", "openvpn"),
    ]
    assert "2.50 [2.00 to 3.00]" in ratios_table(compared)[1]


def report() -> Report:
    """One that has everything a report may have."""
    entries = [
        Entry("ours", "grepunch-pptp", "1.0", "AES"),
        Entry("original", "the original's way", "3.11", "none"),
        Entry("openvpn", "OpenVPN", "2.6", "AES"),
    ]
    rounds = [{"ours": {**TCP, "fragments": 3.0}, "openvpn": TCP, "original": TCP}]
    errors = [{"openvpn": {"udp64": "LoadFailed: iperf3: no\nand more"}}]
    return Report(entries, MACHINE, PLAN, [*rounds], [*errors], {"tinc": "tincd not installed"})


def test_a_report_tells_machine_faults_and_few_rounds() -> None:
    text = "\n".join(report().lines())
    assert "machine: a processor, 2 of 8 cores, Linux 6.18" in text
    assert "1 round (fewer than the 5" in text
    assert "missing: tinc: tincd not installed" in text
    assert "round 1: openvpn: udp64: LoadFailed: iperf3: no" in text
    assert "and more" not in text
    assert "ours: 3 outer packets were fragmented" in text
    assert "missed" in text
    assert "NOT as it should" in text
    assert report().failed


def test_the_first_round_may_fail_as_a_whole() -> None:
    failed = Report(
        [Entry("ours", "grepunch-pptp", "1.0", "AES")], MACHINE, PLAN, [], [{"round": {"sandbox": "SandboxTimeout: x"}}]
    )
    assert "round 1: round: sandbox: SandboxTimeout: x" in failed.lines()
    assert failed.failed


def test_a_report_of_nothing_is_no_fault() -> None:
    empty = Report([Entry("ours", "grepunch-pptp", "1.0", "AES")], MACHINE, PLAN)
    assert "ours: grepunch-pptp" in "\n".join(empty.lines())
    assert not empty.failed


def test_the_json_is_one_object_with_a_schema() -> None:
    value = json.loads(json.dumps(report().as_json()))
    assert value["schema"] == 1
    ours = value["contenders"][0]
    assert ours["figures"]["tcp1_fwd"] == {
        "median": 1000.0,
        "low": 1000.0,
        "high": 1000.0,
        "spread": 0.0,
        "n": 1,
        "rounds": [1000.0],
    }
    assert {"against": "openvpn", "figure": "TCP (4 figures)"}.items() <= value["ratios"][0].items() or any(
        {"against": "openvpn", "figure": "TCP (4 figures)"}.items() <= row.items() for row in value["ratios"]
    )
    assert value["targets"][0]["verdict"] == "missed"
    assert value["missing"] == {"tinc": "tincd not installed"}
