"""Ordinary PPTP from the command line: the profiles that `serve` and `dial` amount to, checks, and refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from grepunch.cli.entry import run
from grepunch.config import Profile, SecretFile, SecretPrompt
from grepunch.config.legacy import Weakness
from grepunch.options import EndpointOptions, Role
from grepunch.ordinary.users import User, write_users
from grepunch.progress import Reporter
from grepunch.verdict import Verdict, VerdictKind
from tests.config.ordinary_profiles import CLIENT, SERVER

DIAL = ["dial", "vpn.example.org", "--user", "alice"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Profile, EndpointOptions]]:
    """What the endpoint was asked for, by a stand-in for it."""
    found: list[tuple[Profile, EndpointOptions]] = []

    async def run_profile(profile: Profile, options: EndpointOptions, reporter: Reporter) -> Verdict:
        found.append((profile, options))
        return Verdict(VerdictKind.UP)

    module = ModuleType("grepunch.running")
    module.run_profile = run_profile  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "grepunch.running", module)
    return found


def test_a_server_by_its_name_alone(asked: list[tuple[Profile, EndpointOptions]]) -> None:
    assert run([*DIAL, "--legacy", "mschapv2, mppe128", "--route", "192.168.10.0/24", "--retry", "forever"]) == 0
    ((profile, options),) = asked
    assert options.role is Role.DIAL
    assert options.retry is None
    assert profile.name == "dial-vpn.example.org"
    assert profile.server is not None
    assert (profile.server.host, profile.server.port) == ("vpn.example.org", 1723)
    assert profile.legacy.allow == (Weakness.MSCHAPV2, Weakness.MPPE128)
    assert profile.auth.user == "alice"
    assert profile.auth.password == SecretPrompt()
    assert [str(route) for route in profile.interface.routes] == ["192.168.10.0/24"]


def test_a_server_with_port_address_and_password_file(asked: list[tuple[Profile, EndpointOptions]]) -> None:
    arguments = ["dial", "203.0.113.5:1724", "--user", "bob", "--legacy", "pap,cleartext", "--password-file", "pw"]
    assert run([*arguments, "--address", "10.77.0.9/24"]) == 0
    ((profile, _),) = asked
    assert profile.server is not None
    assert profile.server.port == 1724
    assert profile.auth.password == SecretFile(Path("pw"))
    assert str(profile.interface.address) == "10.77.0.9/24"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (DIAL, 2, "--legacy mschapv2,mppe128"),
        ([*DIAL, "--legacy", ""], 3, "legacy.allow"),
        ([*DIAL, "--legacy", "mschapv2,mppe129"], 3, "legacy.allow[1]: expected"),
        ([*DIAL, "--legacy", "pap,mppe128"], 3, "pap leaves no keys"),
        ([*DIAL, "--legacy", "mschapv2,mppe128", "--peer-key", "x"], 2, "--peer-key and --identity are for peers"),
        (["dial", "vpn.example.org", "--legacy", "pap"], 2, "go with --user"),
        (["dial", "vpn.example.org:pptp", "--user", "a", "--legacy", "pap,cleartext"], 2, "no TCP port"),
        (["dial", "-x.example", "--user", "a", "--legacy", "pap,cleartext"], 2, ""),
        (["dial", "b\u00fccher", "--user", "a", "--legacy", "pap,cleartext"], 3, "server.host"),
    ],
)
def test_what_cannot_be_is_said(
    asked: list[tuple[Profile, EndpointOptions]],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    word: str,
) -> None:
    assert run(arguments) == code
    assert word in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize(
    ("role", "text", "word"), [("dial", SERVER, "there is a [listen]"), ("serve", CLIENT, "a profile with [server] is")]
)
def test_a_profile_has_its_role(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, text: str, word: str
) -> None:
    path = tmp_path / "office.toml"
    path.write_text(text)
    assert run([role, str(path), "--dry-run"]) == 3
    assert word in capsys.readouterr().err


def test_users_and_password_belong_to_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = tmp_path / "server.toml", tmp_path / "client.toml"
    server.write_text(SERVER)
    client.write_text(CLIENT)
    assert run(["profile", "check", str(server)]) == 3
    assert "server.toml:16: auth.users:" in capsys.readouterr().err
    write_users(tmp_path / "users.toml", [User.of_password("alice", "secret")])
    assert run(["profile", "check", str(server)]) == 0
    assert run(["profile", "check", str(client)]) == 3
    assert "ALICES_PASSWORD is not set" in capsys.readouterr().err
    monkeypatch.setenv("ALICES_PASSWORD", "secret")
    assert run(["profile", "check", str(client)]) == 0
    capsys.readouterr()
    assert run(["profile", "show", str(client), "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["auth"]["password"] == {"env": "ALICES_PASSWORD"}
    assert '"secret"' not in shown


def test_a_dry_run_needs_no_users_and_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "server.toml"
    path.write_text(SERVER)
    assert run(["serve", str(path), "--dry-run"]) == 0
    assert "ip address add 10.77.0.1/24 dev pptp-srv" in capsys.readouterr().out
