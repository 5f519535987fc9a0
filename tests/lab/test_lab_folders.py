"""Each lab has a folder of its own for its files, also where several sandboxes keep theirs at the same place."""

from __future__ import annotations

from pathlib import Path

from grepunch.lab.topology import Lab


def test_labs_that_are_planned_before_any_is_built_do_not_share_a_folder(tmp_path: Path) -> None:
    labs = [Lab("G2", logs=tmp_path) for _ in range(3)]
    assert [lab.directory for lab in labs] == [tmp_path / number for number in "123"]
    assert all(lab.directory.is_dir() for lab in labs)


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "a.out").write_text("kept")
    assert [Lab("G2", logs=tmp_path).directory.name for _ in range(2)] == ["1", "3"]
    assert (tmp_path / "2" / "a.out").read_text() == "kept"
