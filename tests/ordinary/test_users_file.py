"""The users file: what it holds, who may read it, and what `user` does to it."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from click.testing import CliRunner

from grepunch.cli.app import app
from grepunch.cli.entry import run
from grepunch.ordinary.users import User, UserDirectory, UsersInvalid, parse_users, read_users, write_users

PASSWORD_HASH = "8846f7eaee8fb117ad06bdd830b7586c"  # NT hash of "password", published many times over


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.toml"


def command(path: Path, *arguments: str, said: str = "") -> str:
    result = CliRunner().invoke(app, ["user", *arguments, "--users", str(path)], input=said)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_user_is_added_with_the_hash_of_the_password_alone(path: Path) -> None:
    command(path, "add", "alice", "--address", "10.77.0.9", said="password\n")
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert PASSWORD_HASH in text
    assert '"password"' not in text
    (alice,) = read_users(path).values()
    assert alice == User.of_password("alice", "password", address=IPv4Address("10.77.0.9"))
    assert "password" not in repr(alice)


def test_a_password_is_kept_only_where_it_is_asked_for_and_stays_kept(path: Path) -> None:
    command(path, "add", "bob", "--keep-password", said="pässwörd\n")
    assert read_users(path)["bob"].credential.password == "pässwörd"
    command(path, "passwd", "bob", said="other\n")
    assert read_users(path)["bob"].credential.password == "other"


def test_users_are_listed_without_anything_secret_and_removed(path: Path) -> None:
    command(path, "add", "alice", said="password\n")
    command(path, "add", "bob", "--address", "10.77.0.9", "--keep-password", said="hunter2\n")
    assert command(path, "list") == "alice\nbob\t10.77.0.9\n"
    listed = command(path, "list", "--json")
    assert json.loads(listed)["users"] == [
        {"name": "alice", "password_kept": False},
        {"name": "bob", "address": "10.77.0.9", "password_kept": True},
    ]
    assert PASSWORD_HASH not in listed
    assert "hunter2" not in listed
    command(path, "remove", "alice")
    assert list(read_users(path)) == ["bob"]


@pytest.mark.parametrize(
    ("arguments", "said", "word"),
    [
        (("add", "alice"), "x\n", "is there already"),
        (("add", ""), "x\n", "1 to 255 printable"),
        (("add", "carol"), "\n", "an empty password"),
        (("add", "carol"), "x" * 300 + "\n", "at most 256"),
        (("add", "carol", "--address", "10.77"), "x\n", "no IPv4 address"),
        (("passwd", "carol"), "x\n", "there is no user"),
        (("remove", "carol"), "", "there is no user"),
    ],
)
def test_what_cannot_be_is_said_and_changes_nothing(
    path: Path, arguments: tuple[str, ...], said: str, word: str
) -> None:
    command(path, "add", "alice", said="password\n")
    before = path.read_bytes()
    result = CliRunner().invoke(app, ["user", *arguments, "--users", str(path)], input=said)
    assert result.exit_code != 0
    assert word in result.output
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_file_that_others_can_get_at_is_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(path, "add", "alice", said="password\n")
    path.chmod(0o640)
    assert run(["user", "list", "--users", str(path)]) == 3
    assert "chmod 600" in capsys.readouterr().err
    link = path.with_name("link.toml")
    link.symlink_to(path)
    with pytest.raises(UsersInvalid, match="symbolic link"):
        read_users(link)


def test_a_credential_of_systemd_may_be_readable_by_the_group(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(path, "add", "alice", said="password\n")
    path.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent))
    assert list(read_users(path)) == ["alice"]
    path.chmod(0o444)
    with pytest.raises(UsersInvalid, match="chmod 600"):
        read_users(path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("user = 3", "expected [[user]]"),
        ("x = 1", "x: unknown"),
        ("[[user]]\n", "user[0].name: expected"),
        ('[[user]]\nname = "a"', "user[0].nt_hash: is missing"),
        ('[[user]]\nname = "a"\nnt_hash = "00"', "user[0].nt_hash: expected 32"),
        ('[[user]]\nname = "a"\nnt_hash = "31d6cfe0d16ae931b73c59d7e0c089c0"', "not those of an empty"),
        (f'[[user]]\nname = "a"\nnt_hash = "{PASSWORD_HASH}"\npassword = "x"', "is not the hash"),
        ('[[user]]\nname = "a"\nhnt_ash = "00"', "did you mean nt_hash"),
        (f'[[user]]\nname = "a"\nnt_hash = "{PASSWORD_HASH}"\naddress = "1.2"', "user[0].address"),
        (f'[[user]]\nname = "a\\u001b"\nnt_hash = "{PASSWORD_HASH}"', "user[0].name"),
        ("[[user]\n", "Expected"),
        ("a = " + "[" * 3000, "no TOML"),
    ],
)
def test_every_fault_of_the_file_is_named(text: str, fault: str) -> None:
    with pytest.raises(UsersInvalid) as raised:
        parse_users(text.encode(), Path("users.toml"))
    assert fault in str(raised.value)
    assert PASSWORD_HASH not in str(raised.value)


def test_names_and_addresses_are_there_once() -> None:
    one = f'[[user]]\nname = "{{}}"\nnt_hash = "{PASSWORD_HASH}"\naddress = "{{}}"\n'
    with pytest.raises(UsersInvalid, match="a is there twice"):
        parse_users((one.format("a", "10.0.0.1") + one.format("a", "10.0.0.2")).encode(), Path("u"))
    with pytest.raises(UsersInvalid, match=r"10.0.0.1 is a's already"):
        parse_users((one.format("a", "10.0.0.1") + one.format("b", "10.0.0.1")).encode(), Path("u"))


def test_a_running_server_sees_changes_and_keeps_its_users_through_a_broken_file(path: Path) -> None:
    write_users(path, [User.of_password("alice", "one")])
    directory = UserDirectory(path)
    assert directory.refresh() is None
    write_users(path, [User.of_password("alice", "one"), User.of_password("bob", "two", address=IPv4Address(9))])
    assert directory.refresh() is None
    assert directory.credential("bob") is not None
    assert directory.reserved() == {IPv4Address(9): "bob"}
    path.write_text("nonsense")
    os.utime(path, ns=(1, 1))
    complaint = directory.refresh()
    assert complaint is not None
    assert "stay as they were" in complaint
    assert directory.refresh() is None, "once is enough"
    assert directory.credential("alice") is not None
    assert directory.credential("nobody") is None
