"""`genkey`, `pubkey` and `profile`: what they print and what they refuse."""

from __future__ import annotations

import base64
import io
import json
import stat
from pathlib import Path

import pytest

from grepunch.cli.entry import run
from grepunch.secure.identity import public_key
from tests.config.profiles import KEYS, WHOLE

PRIVATE = bytes(range(32))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "me.key"
    path.touch(0o600)
    path.write_text(base64.b64encode(PRIVATE).decode())
    return path


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_genkey_writes_a_file_for_its_owner_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.key"
    assert run(["genkey", str(path)]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    printed = base64.b64decode(capsys.readouterr().out)
    assert printed == public_key(base64.b64decode(path.read_text()))
    before = path.read_text()
    assert run(["genkey", str(path)]) == 2
    assert "a key is not overwritten" in capsys.readouterr().err
    assert path.read_text() == before
    assert run(["genkey", str(tmp_path / "absent" / "x.key")]) == 2


def test_genkey_prints_and_warns_of_an_open_file(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["genkey"]) == 0
    first = capfd.readouterr().out
    assert run(["genkey"]) == 0
    assert len(base64.b64decode(first)) == 32
    assert capfd.readouterr().out != first


def test_pubkey_of_a_file_and_of_standard_input(
    key: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["pubkey", str(key)]) == 0
    feed(monkeypatch, base64.b64encode(PRIVATE) + b"\n")
    assert run(["pubkey"]) == 0
    assert capsys.readouterr().out.split() == [base64.b64encode(public_key(PRIVATE)).decode()] * 2


def test_pubkey_refuses(key: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    key.chmod(0o644)
    assert run(["pubkey", str(key)]) == 3
    assert "mode 0644" in capsys.readouterr().err
    feed(monkeypatch, b"c2VjcmV0IGJ1dCBzaG9ydA==\n")
    assert run(["pubkey"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "c2Vj" not in err


def test_profile_new_needs_only_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "new", "office", "--role", "dial"]) == 0
    path = tmp_path / "office.toml"
    path.write_text(capsys.readouterr().out)
    assert run(["profile", "show", str(path)]) == 3
    err = capsys.readouterr().err
    assert err.count("office.toml:") == 1
    assert "peer[0].public_key: expected a public key" in err


def test_profile_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "office.toml"
    path.write_text(WHOLE)
    assert run(["profile", "show", str(path), "--json", "--set", "punch.window=7"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == 1
    assert shown["punch"] == {"forms": ["v0"], "keepalive": 2.5, "window": 7.0, "relay": "ask"}
    assert run(["profile", "show", str(path)]) == 0
    assert f'public_key = "{KEYS[0]}"' in capsys.readouterr().out


def test_profile_check(tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "office.toml"
    text = WHOLE.replace('preshared_key = { credential = "laptop.psk" }\n', "")
    path.write_text(text.replace("10.66.0.3", "10.99.0.3"))
    assert run(["profile", "check", str(path)]) == 0
    warning, order = capsys.readouterr().out.splitlines()
    assert warning.startswith("warning: office.toml:20: peer[1].address: ")
    assert order == "office: in order"
    key.chmod(0o604)
    assert run(["profile", "check", str(path), "--json"]) == 3
    assert "has mode 0604" in json.loads(capsys.readouterr().out)["detail"]


def test_profile_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "A grepunch-pptp profile"
