"""The file of what worked last time: small, its owner's, whole at any time, and never in the way."""

from __future__ import annotations

import os
import stat
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from grepunch import runtime
from grepunch.ports import Form
from grepunch.punch.winners import MAX_OCTETS, Winner
from grepunch.remembered import Remembered, network_id
from grepunch.runtime import state_directory

BOB, CAROL = b"b" * 32, b"c" * 32  # what we share with each
GATEWAY, EXTERNAL = IPv4Address("192.168.1.1"), IPv4Address("198.51.100.7")
HOME = network_id(GATEWAY, EXTERNAL)
CAFE = network_id(GATEWAY, IPv4Address("203.0.113.80"))  # the same kind of router, another way out
PLAIN, CALLED = Winner(Form.V0), Winner(Form.V1, mirrored=True)


class Host:
    """One that has a state directory, moves between networks and starts anew."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.network = HOME
        self.notices: list[str] = []

    @property
    def file(self) -> Path:
        return self.directory / "office.paths"

    def start(self) -> Remembered:
        return Remembered("office", lambda: self.network, self.notices.append, self.directory)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_won_is_known_after_a_restart_for_that_network_and_that_peer_only(host: Host) -> None:
    host.start().won(BOB, PLAIN)
    again = host.start()
    assert again.best(BOB) == PLAIN
    assert again.best(CAROL) is None
    host.network = CAFE
    assert again.best(BOB) is None
    again.won(BOB, CALLED)
    host.network = HOME
    assert host.start().best(BOB) == PLAIN
    assert host.notices == []


def test_the_file_is_its_owner_s_small_and_tells_neither_networks_nor_peers(host: Host) -> None:
    remembered = host.start()
    for number in range(1000):
        host.network = network_id(GATEWAY, EXTERNAL + number)
        remembered.won(BOB, CALLED)
    assert stat.S_IMODE(host.file.stat().st_mode) == 0o600
    content = host.file.read_bytes()
    assert len(content) <= MAX_OCTETS
    for octets in (BOB, GATEWAY.packed, EXTERNAL.packed):
        assert octets not in content
        assert octets.hex().encode() not in content
    assert str(EXTERNAL).encode() not in content
    assert [path.name for path in host.directory.iterdir()] == ["office.paths"]


def test_it_is_written_only_where_something_else_has_won(host: Host) -> None:
    remembered = host.start()
    remembered.won(BOB, PLAIN)
    host.file.unlink()
    remembered.won(BOB, PLAIN)
    assert not host.file.exists()
    remembered.won(BOB, CALLED)
    assert host.start().best(BOB) == CALLED


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"version":2,"winners":[]}', b"x" * 100_000])
def test_a_file_that_is_damaged_or_another_version_s_is_ignored_with_a_word_and_then_replaced(
    host: Host, content: bytes
) -> None:
    host.file.write_bytes(content)
    remembered = host.start()
    assert remembered.best(BOB) is None
    (notice,) = host.notices
    assert str(host.file) in notice
    remembered.won(BOB, PLAIN)
    assert host.start().best(BOB) == PLAIN
    assert len(host.notices) == 1


def test_a_link_a_device_or_what_others_can_write_is_not_read(host: Host, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    host.start().won(BOB, PLAIN)
    host.file.rename(elsewhere)
    host.file.symlink_to(elsewhere)
    assert host.start().best(BOB) is None
    host.file.unlink()
    os.mkfifo(host.file, 0o600)
    assert host.start().best(BOB) is None
    host.file.unlink()
    elsewhere.rename(host.file)
    host.file.chmod(0o666)
    assert host.start().best(BOB) is None
    assert len(host.notices) == 3
    host.file.chmod(0o600)
    assert host.start().best(BOB) == PLAIN


def test_clocks_and_times_of_files_do_not_matter(host: Host) -> None:
    host.start().won(BOB, PLAIN)
    for when in (0, 4_102_444_800):  # 1970 and 2100
        os.utime(host.file, (when, when))
        assert host.start().best(BOB) == PLAIN
    assert host.notices == []


def test_a_leftover_of_a_write_that_was_cut_short_is_no_obstacle(host: Host) -> None:
    (host.directory / "office.paths.new").write_bytes(b"half a fi")
    host.start().won(BOB, PLAIN)
    assert host.start().best(BOB) == PLAIN


def test_where_it_cannot_be_written_that_is_said_once_and_this_run_still_knows(host: Host) -> None:
    remembered = host.start()
    (host.directory / "office.paths.new").mkdir()
    for winner in (PLAIN, CALLED, PLAIN):
        remembered.won(BOB, winner)
        assert remembered.best(BOB) == winner
    assert len(host.notices) == 1


def test_the_state_directory_is_systemd_s_choice_or_the_system_s_or_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "SYSTEM_STATE", tmp_path / "lib" / "grepunch-pptp")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/given:{tmp_path}/other")
    assert state_directory() == tmp_path / "given"
    monkeypatch.delenv("STATE_DIRECTORY")
    users = state_directory()  # nobody makes a /var/lib
    assert users == tmp_path / "home" / ".local" / "state" / "grepunch-pptp"
    assert stat.S_IMODE(users.stat().st_mode) == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "mine"))
    assert state_directory() == tmp_path / "mine" / "grepunch-pptp"
    (tmp_path / "lib").mkdir()
    assert state_directory() == tmp_path / "lib" / "grepunch-pptp"
    (tmp_path / "lib" / "grepunch-pptp").chmod(0o777)  # anybody could put a file there
    assert state_directory() == tmp_path / "mine" / "grepunch-pptp"


def test_without_any_place_this_run_still_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "file" / "below"))
    (tmp_path / "file").touch()
    assert state_directory() is None
    remembered = Remembered("office", lambda: HOME, pytest.fail)
    remembered.won(BOB, PLAIN)
    assert remembered.best(BOB) == PLAIN
