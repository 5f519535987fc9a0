"""A sound profile: every value where it belongs, found by name or path, and shown as it was read."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from grepunch.config import ProfileInvalid, SecretCredential, SecretFile, load
from grepunch.config.schema import json_schema
from grepunch.config.show import as_document, as_toml
from grepunch.config.template import PEER_KEY, profile_template
from grepunch.options import Role
from grepunch.ports import Form
from tests.config.profiles import KEYS, WHOLE, changed, read


def test_every_value_arrives() -> None:
    profile = read(WHOLE)
    assert profile.name == "office"
    assert profile.interface.name == "gp-office"
    assert profile.interface.address == IPv4Interface("10.66.0.1/24")
    assert profile.interface.routes == (IPv4Network("192.168.50.0/24"), IPv4Network("192.168.51.0/24"))
    assert profile.interface.mtu == 1300
    assert profile.identity is not None
    assert profile.identity.private_key == SecretFile(Path("me.key"))
    assert profile.rendezvous is not None
    assert profile.rendezvous.urls == ("wss://meet.example.org", "ws://127.0.0.1:8787")
    assert profile.rendezvous.ca_file == Path("ca.pem")
    laptop, branch = profile.peers
    assert laptop.public_key == bytes([1]) * 32
    assert laptop.preshared_key == SecretCredential("laptop.psk")
    assert laptop.last_known_address == IPv4Address("203.0.113.9")
    assert branch.allowed == (IPv4Network("192.168.50.0/24"), IPv4Network("192.168.51.0/24"))
    assert (profile.punch.forms, profile.punch.keepalive, profile.punch.window) == ((Form.V0,), 2.5, 20.0)
    assert profile.warnings == ()


def test_defaults_are_filled_in() -> None:
    short = f"""
version = 1
interface.name = "gp"
identity.private_key.file = "k"
[[peer]]
name = "other"
public_key = "{KEYS[0]}"
last_known_address = "203.0.113.9"
"""
    profile = read(short)
    assert profile.interface.address is None
    assert profile.interface.mtu is None
    assert profile.rendezvous is None
    assert profile.punch.forms == (Form.V1, Form.V0)
    assert profile.punch.keepalive == 4.0
    assert profile.punch.window == 30.0


def test_a_profile_is_frozen() -> None:
    profile = read(WHOLE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.interface.name = "other"  # type: ignore[misc]


def test_a_peer_outside_the_prefix_is_a_warning() -> None:
    profile = read(changed('address = "10.66.0.3"', 'address = "10.99.0.3"'))
    assert [str(warning) for warning in profile.warnings] == [
        "office.toml:21: peer[1].address: 10.99.0.3 lies outside 10.66.0.0/24, the prefix of interface.address"
    ]


def test_what_is_shown_loads_to_an_equal_profile() -> None:
    profile = read(WHOLE)
    document = as_document(profile)
    assert read(as_toml(document)) == profile
    assert tomllib.loads(as_toml(document)) == document
    assert document["identity"] == {"private_key": {"file": "me.key"}}


@pytest.mark.parametrize("role", list(Role))
def test_the_template_is_a_profile_once_the_key_is_in(role: Role) -> None:
    text = profile_template("a-rather-long-name", role)
    profile = read(text.replace(PEER_KEY, KEYS[0]))
    assert profile.interface.name == "gp-a-rather-lon"
    assert len(profile.peers) == 1


def test_the_templates_of_both_sides_mirror_each_other() -> None:
    serve, dial = (read(profile_template("office", role).replace(PEER_KEY, KEYS[0])) for role in Role)
    assert serve.interface.address is not None
    assert dial.interface.address is not None
    assert serve.interface.address.ip == dial.peers[0].address
    assert dial.interface.address.ip == serve.peers[0].address


def test_names_are_looked_up_in_the_system_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, own = tmp_path / "etc", tmp_path / "home" / "grepunch-pptp"
    system.mkdir()
    own.mkdir(parents=True)
    monkeypatch.setattr("grepunch.config.loading.SYSTEM_DIRECTORY", system)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (own / "office.toml").write_text(WHOLE)
    (own / "other.toml").write_text(WHOLE)
    assert load("office").source.path == own / "office.toml"
    (system / "office.toml").write_text(WHOLE)
    assert load("office").source.path == system / "office.toml"
    assert load(str(own / "other.toml")).name == "other"
    with pytest.raises(ProfileInvalid, match=r"ofice: no such profile: looked for .* and .*; did you mean office\?"):
        load("ofice")
    with pytest.raises(ProfileInvalid, match="not the name of a profile"):
        load("..")


def test_overrides_replace_and_add() -> None:
    profile = read(WHOLE, "punch.window=10", 'peer[1].address="10.66.0.9"', "interface.name=gp-x", "interface.mtu=auto")
    assert profile.punch.window == 10.0
    assert profile.peers[1].address == IPv4Address("10.66.0.9")
    assert profile.interface.name == "gp-x"
    assert profile.interface.mtu is None


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["required"] == ["version", "interface"]
    assert schema["additionalProperties"] is False
    tables = schema["$defs"]
    assert isinstance(tables, dict)
    assert set(tables) == {
        *("Interface", "Identity", "Rendezvous", "Peer", "Punch"),
        *("Listen", "Server", "Auth", "Legacy"),
    }
    for table in tables.values():
        assert table["additionalProperties"] is False
        assert all("description" in key for key in table["properties"].values())
