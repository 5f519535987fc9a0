"""Profiles for the tests: a whole one, and the means to change it."""

from __future__ import annotations

import base64
from pathlib import Path

from grepunch.config import Profile, ProfileInvalid
from grepunch.config.loading import parse

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 6)]

WHOLE = f"""\
version = 1
[interface]
name = "gp-office"
address = "10.66.0.1/24"
routes = ["192.168.50.0/24", "192.168.51.0/24"]
mtu = 1300
[identity]
private_key = {{ file = "me.key" }}
[rendezvous]
urls = ["wss://meet.example.org", "ws://127.0.0.1:8787"]
ca_file = "ca.pem"
[[peer]]
name = "laptop"
public_key = "{KEYS[0]}"
preshared_key = {{ credential = "laptop.psk" }}
address = "10.66.0.2"
last_known_address = "203.0.113.9"
[[peer]]
name = "branch"
public_key = "{KEYS[1]}"
address = "10.66.0.3"
allowed = [
  "192.168.50.0/24",
  "192.168.51.0/24",
]
[punch]
forms = ["v0"]
keepalive = 2.5
window = 20
"""


def read(text: str | bytes, *overrides: str) -> Profile:
    """The profile of this text, as if it stood in office.toml."""
    return parse(text.encode() if isinstance(text, str) else text, Path("office.toml"), overrides)


def faults(text: str | bytes, *overrides: str) -> list[str]:
    """What is wrong with this text, as it is printed."""
    try:
        read(text, *overrides)
    except ProfileInvalid as invalid:
        return [str(fault) for fault in invalid.faults]
    return []


def changed(old: str, new: str) -> str:
    """The whole profile with one passage replaced."""
    assert WHOLE.count(old) == 1, old
    return WHOLE.replace(old, new)
