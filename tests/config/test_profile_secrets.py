"""Secrets are read from where the profile points, and refused where others could have read or changed them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grepunch.config import ProfileInvalid, check_keys, load, read_keys
from grepunch.config.secrets import (
    SecretCredential,
    SecretFile,
    SecretPrompt,
    SecretUnavailable,
    SecretVariable,
    read_secret,
)
from grepunch.secure.identity import encode_key, public_key
from tests.config.profiles import WHOLE

PRIVATE = bytes(range(32))
PRESHARED = bytes(range(100, 132))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "me.key"
    path.write_text(encode_key(PRIVATE) + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def profile(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """office.toml with its keys: the private one beside it, the pre-shared one as a credential."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "laptop.psk").write_text(encode_key(PRESHARED))
    (credentials / "laptop.psk").chmod(0o640)  # as access lists show up
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    path = tmp_path / "office.toml"
    path.write_text(WHOLE)
    return path


def why_not(reference: SecretFile | SecretCredential | SecretVariable | SecretPrompt) -> str:
    with pytest.raises(SecretUnavailable) as caught:
        read_secret(reference, base=Path(), label="x")
    return str(caught.value)


def test_the_keys_of_a_profile(profile: Path) -> None:
    keys = read_keys(load(str(profile)))
    assert keys.private_key == PRIVATE
    assert keys.public_key == public_key(PRIVATE)
    assert keys.preshared_keys == {"laptop": PRESHARED}


def test_keys_do_not_print(profile: Path) -> None:
    loaded = load(str(profile))
    shown = repr(read_keys(loaded)) + repr(loaded)
    for secret in (PRIVATE, PRESHARED):
        assert repr(secret) not in shown
        assert encode_key(secret) not in shown
        assert secret.hex() not in shown


def test_everything_wrong_with_the_keys_is_said_at_once(profile: Path, key: Path) -> None:
    key.chmod(0o640)
    (profile.parent / "credentials" / "laptop.psk").write_text("not a key")
    loaded = load(str(profile))
    with pytest.raises(ProfileInvalid) as caught:
        read_keys(loaded)
    assert caught.value.faults == check_keys(loaded)
    first, second = map(str, caught.value.faults)
    assert first == (
        f"office.toml:8: identity.private_key: {key} has mode 0640, so others can get at it: chmod 600 {key}"
    )
    assert second == (
        "office.toml:15: peer[0].preshared_key: what it leads to is no key (32 octets in base64, on one line)"
    )


def test_our_own_key_is_no_peers_key(profile: Path) -> None:
    text = profile.read_text().replace(encode_key(bytes([2]) * 32), encode_key(public_key(PRIVATE)))
    profile.write_text(text)
    (fault,) = check_keys(load(str(profile)))
    assert str(fault).startswith("office.toml:20: peer[1].public_key: our own key")


def test_a_check_asks_nothing(profile: Path) -> None:
    profile.write_text(profile.read_text().replace('{ file = "me.key" }', "{ prompt = true }"))
    assert check_keys(load(str(profile))) == ()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o601, 0o666])
def test_a_file_that_others_can_touch_is_refused(key: Path, mode: int) -> None:
    key.chmod(mode)
    assert f"has mode {mode:04o}" in why_not(SecretFile(key))


def test_what_is_no_file_of_ours_is_refused(key: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.key"
    link.symlink_to(key)
    assert "symbolic link" in why_not(SecretFile(link))
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "not a regular file" in why_not(SecretFile(tmp_path / "fifo"))
    assert "not a regular file" in why_not(SecretFile(tmp_path))
    assert "No such file" in why_not(SecretFile(tmp_path / "absent"))
    (tmp_path / "empty").touch(0o600)
    assert "is empty" in why_not(SecretFile(tmp_path / "empty"))
    key.write_bytes(b"A" * 5000)
    assert "longer than 4096" in why_not(SecretFile(key))


def test_someone_elses_file_is_refused(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = key.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert f"belongs to user {owner}" in why_not(SecretFile(key))


def test_credentials_variables_and_prompts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "CREDENTIALS_DIRECTORY is not set" in why_not(SecretCredential("x"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "x").write_text("value")
    (tmp_path / "x").chmod(0o444)
    assert "has mode 0444" in why_not(SecretCredential("x"))
    monkeypatch.delenv("GP_SECRET", raising=False)
    assert "GP_SECRET is not set" in why_not(SecretVariable("GP_SECRET"))
    monkeypatch.setenv("GP_SECRET", " value\n")
    assert read_secret(SecretVariable("GP_SECRET"), base=Path(), label="") == b"value"
    assert "needs a terminal" in why_not(SecretPrompt())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert read_secret(SecretPrompt(), base=Path(), label="key", ask=lambda text: f"{text}value") == b"key: value"
