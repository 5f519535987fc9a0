"""The grid's own arithmetic: its table of outcomes, its judgement and its figures; nothing runs here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grepunch.ports import Form
from tests.live import grid
from tests.live.grid_expected import CLASSES, CLOSED, DEFAULT_CLASSES, POISONABLE, RELAYED, Way, expected
from tests.live.kept_logs import KeptLogs

UP = {"result": "up", "form": "v1-0/0", "seconds": 0.4}
RELAY = {"result": "up", "form": RELAYED, "seconds": 0.3, "reason": "GRE is dropped on this side"}
BLOCKED = {"result": "nat_blocked", "direction": "both", "side": "here"}


def test_every_pair_has_an_outcome_and_it_does_not_depend_on_who_dials() -> None:
    for nat_a in CLASSES:
        for nat_b in CLASSES:
            one, other = (expected(*pair, rendezvous=True) for pair in ((nat_a, nat_b), (nat_b, nat_a)))
            assert (one.result, one.form) == (other.result, other.form)
            assert (one.result == "up") is bool(one.form)
            assert (one.result == "up") or one.direction == "both"
            unaided = expected(nat_a, nat_b, rendezvous=True, able=())
            assert not ({nat_a, nat_b} & set(CLOSED)) or unaided.result == "nat_blocked"
            relayed = expected(nat_a, nat_b, rendezvous=True, able={Way.RELAY})
            assert relayed.form == (unaided.form or RELAYED)
            assert expected(nat_a, nat_b, rendezvous=True, able=set(Way)).result == "up"
    assert set(POISONABLE) | set(CLOSED) | set(DEFAULT_CLASSES) <= set(CLASSES)


@pytest.mark.parametrize(
    ("nats", "able", "form"),
    [
        ("G9 G2", {Way.ECHO}, Form.V1),
        ("G9 G7V1", {Way.ECHO}, Form.V0),
        ("G9 G2", {Way.MIRRORED}, ""),
        ("G5 G5", {Way.MIRRORED}, Form.V1),
        ("G5 G2", {Way.MIRRORED, Way.RELAY}, Form.V1),
        ("G5 G7V1", {Way.MIRRORED}, Form.V0),
        ("G5 G2S", {Way.MIRRORED}, ""),
        ("G5 G2S", {Way.MIRRORED, Way.RELAY}, RELAYED),
        ("G5K G5K", {Way.MIRRORED}, "v1-1723/1723"),
        ("G5 G5K", {Way.MIRRORED}, "v1-1723/1723"),
        ("G5K G2", {Way.MIRRORED}, ""),
        ("G4 G2", set(Way), RELAYED),
    ],
)
def test_a_cell_passes_directly_where_there_is_the_way_it_needs(nats: str, able: set[Way], form: str) -> None:
    assert expected(*nats.split(), rendezvous=True, able=able).form == form
    assert expected(*nats.split(), rendezvous=False, able=able).form == ""


@pytest.mark.parametrize(
    ("nats", "seen", "ok"),
    [
        ("G2 G2", UP, True),
        ("G2 G2", UP | {"form": "v0"}, False),
        ("G2 G7V1", UP | {"form": "v0"}, True),
        ("G2 G2", UP | {"seconds": 10.1}, False),
        ("G2 G2", UP | {"result": "link_lost"}, False),
        ("G2 G2", {"result": "not_up"}, False),
        ("G2 G4", RELAY, True),
        ("G4 G2", RELAY | {"reason": ""}, False),
        ("G4 G2", RELAY | {"result": "link_lost"}, False),
        ("G2 G4", UP, False),
        ("G2 G2", RELAY, False),
        ("G2 G4", BLOCKED, False),
    ],
)
def test_a_run_is_judged_by_all_that_is_expected_of_it(nats: str, seen: dict[str, object], ok: bool) -> None:
    nat_a, nat_b = nats.split()
    row = grid.judge(grid.Cell(nat_a, nat_b, 0.0, rendezvous=True), seen)
    assert row.ok is ok
    assert ("NOT AS EXPECTED" in grid.line(row)) is not ok


@pytest.mark.parametrize(
    ("nats", "seen", "ok"),
    [
        ("G2 G4R", BLOCKED, True),
        ("G4R G2", BLOCKED, False),
        ("G2 G4R", BLOCKED | {"direction": "outward"}, False),
        ("G2 G4R", BLOCKED | {"result": "peer_absent"}, False),
        ("G2 G4", BLOCKED | {"result": "peer_absent"}, True),
        ("G2 G4R", UP, False),
    ],
)
def test_a_blocked_run_is_judged_by_where_it_says_gre_dies(nats: str, seen: dict[str, object], ok: bool) -> None:
    nat_a, nat_b = nats.split()
    assert grid.judge(grid.Cell(nat_a, nat_b, 0.0, rendezvous=False), seen).ok is ok


@pytest.mark.parametrize(
    ("nats", "seen", "ok"),
    [
        ("G2 G19", UP | {"back": 1.5}, True),
        ("G19 G2", UP | {"back": 10.5}, False),
        ("G19 G2", UP, False),
        ("G19 G4", RELAY | {"back": 4.0}, True),
        ("G19 G4", RELAY, False),
        ("G2 G2", UP | {"back": 20.0}, True),
    ],
)
def test_a_tunnel_whose_nat_restarts_has_to_come_back(nats: str, seen: dict[str, object], ok: bool) -> None:
    nat_a, nat_b = nats.split()
    row = grid.judge(grid.Cell(nat_a, nat_b, 0.0, rendezvous=True), seen)
    assert row.ok is ok
    assert ("back after" in grid.line(row)) is ("back" in seen)
    assert row.as_json().get("back") == seen.get("back")


def test_a_nat_restarts_only_where_the_other_peer_can_learn_of_it_in_time() -> None:
    for name in CLASSES:
        assert (expected(name, "G19", rendezvous=True).back > 0) == (name not in POISONABLE)
        assert expected(name, "G19", rendezvous=False).back == 0
        with_g2, with_g19 = (expected(name, other, rendezvous=True) for other in ("G2", "G19"))
        if name != "G19":
            assert (with_g2.result, with_g2.form) == (with_g19.result, with_g19.form)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(number) for number in range(1, 201)]
    assert [grid.percentile(values, part) for part in (0.5, 0.99, 1.0)] == [100.0, 198.0, 200.0]
    assert grid.percentile([3.0], 0.99) == 3.0


def test_slow_runs_miss_the_target_and_parallel_or_few_ones_do_not_count(tmp_path: Path) -> None:
    cell = grid.Cell("G2", "G2", 0.0, rendezvous=True)
    slow = [grid.judge(cell, UP | {"seconds": 1.2}) for _ in range(100)]
    assert not grid.within_targets(slow, jobs=1)
    assert grid.within_targets(slow, jobs=2)
    assert grid.within_targets(slow[:99], jobs=1)
    late = [grid.judge(cell, UP) for _ in range(98)] + [grid.judge(cell, UP | {"seconds": 3.5}) for _ in range(2)]
    assert grid.figures(late, rendezvous=True) == {"n": 100, "p50": 0.4, "p99": 3.5, "max": 3.5}
    assert not grid.within_targets(late, jobs=1)
    grid.write_json(tmp_path / "rows.json", late, 1, "a machine")
    value = json.loads((tmp_path / "rows.json").read_text())
    assert value["schema"] == 1
    assert len(value["rows"]) == 100
    assert value["rows"][0]["result"] == "up"
    assert None not in value["rows"][0].values()


def test_blocked_pairs_are_run_in_both_orders_and_once_and_relayed_ones_once() -> None:
    passing, waiting = grid.cells(["G2", "G13", "G4"], [0.0, 0.5], [True, False], repeat=3)
    assert len(passing) == 3 * 2 * 2 * 3
    assert len({str(cell) for cell in passing}) == 12
    pairs = {(cell.nat_a, cell.nat_b) for cell in waiting if not cell.rendezvous}
    assert pairs == {("G2", "G4"), ("G4", "G2"), ("G13", "G4"), ("G4", "G13"), ("G4", "G4")}
    relayed = {(cell.nat_a, cell.nat_b) for cell in waiting if cell.rendezvous}
    assert relayed == {("G2", "G4"), ("G13", "G4"), ("G4", "G4")}
    assert len(waiting) == 8


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--classes", value) for value in ("G99", "", "G2,")),
        *(("--skews", value) for value in ("soon", "nan", "inf", "", "0,100000")),
        *((option, value) for option in ("--jobs", "--repeat") for value in ("0", "-1", "x")),
        ("--rendezvous", "perhaps"),
        ("--json", "/proc/no/such/rows.json"),
    ],
)
def test_a_wrong_option_is_named_before_anything_runs(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        grid.parse([f"{option}={value}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert option in said or "no expectation" in said


def test_a_class_named_twice_is_run_once() -> None:
    assert grid.parse(["--classes", "G2,G0,G2"]).classes == ["G2", "G0"]


def test_only_the_logs_of_what_went_wrong_are_kept(tmp_path: Path) -> None:
    with KeptLogs(tmp_path) as logs:
        right, wrong, killed = (logs.begin("G2xG2") for _ in range(3))
        logs.drop(right)
        kept = logs.keep(wrong)
        assert kept.name.startswith("G2xG2")
        assert killed.is_dir()
    assert list(logs.directory.iterdir()) == [kept]
    with KeptLogs(tmp_path) as logs:
        logs.drop(logs.begin("G0xG0"))
    assert list(tmp_path.iterdir()) == [kept.parent]


def test_a_grid_takes_away_what_a_killed_one_left_and_nothing_else(tmp_path: Path) -> None:
    living = KeptLogs(tmp_path)
    under_way = living.begin("G2xG2")
    dead = tmp_path / "grepunch-grid-dead"
    failed, unfinished = dead / "G1xG1-x", dead / ".G0xG0-x"
    for directory in (failed, unfinished, tmp_path / "grepunch-grid-empty", tmp_path / "another"):
        directory.mkdir(parents=True)
    (unfinished / "log").write_text("cut off")
    (tmp_path / "grepunch-grid-link").symlink_to(tmp_path / "another")
    (tmp_path / "grepunch-grid-file").write_text("somebody's")
    with KeptLogs(tmp_path):
        assert under_way.is_dir()
        assert list(dead.iterdir()) == [failed]
        left = {path.name for path in tmp_path.iterdir()} - {living.directory.name}
        assert len(left & {"another", "grepunch-grid-link", "grepunch-grid-file", "grepunch-grid-dead"}) == 4
        assert "grepunch-grid-empty" not in left
    living.drop(under_way)
