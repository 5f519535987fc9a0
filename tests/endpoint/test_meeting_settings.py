"""What can be told of a rendezvous' settings before anybody is met."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grepunch.config import load
from grepunch.meetings import ca_file_of, check_settings
from tests.rendezvous.meeting_support import issue_authority

PROFILE = """\
version = 1
[interface]
name = "gp-office"
[identity]
private_key = {{ file = "me.key" }}
[rendezvous]
urls = ["wss://meet.example.org"]
ca_file = "{ca_file}"
[[peer]]
name = "bob"
public_key = "{key}"
"""
KEY = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="


def faults(directory: Path, ca_file: str) -> list[str]:
    path = directory / "office.toml"
    path.write_text(PROFILE.format(ca_file=ca_file, key=KEY))
    return [str(fault) for fault in check_settings(load(str(path)))]


def test_certificates_that_cannot_be_used_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    (missing,) = faults(tmp_path, "none.pem")
    assert missing.startswith("office.toml:8: rendezvous.ca_file: ")
    assert "No such file" in missing
    (empty,) = faults(tmp_path, "empty.pem")
    assert "holds no certificate" in empty


def test_a_relative_path_starts_at_the_profiles_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = issue_authority(tmp_path)
    monkeypatch.chdir(os.sep)
    assert faults(tmp_path, authority.ca_file.name) == []
    assert ca_file_of(load(str(tmp_path / "office.toml"))) == authority.ca_file
    assert faults(tmp_path, str(authority.ca_file)) == []
