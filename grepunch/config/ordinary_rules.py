"""The rules of the keys of ordinary PPTP: [listen], [server], [auth], [legacy] and their part of [interface]."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

from grepunch.config.legacy import AuthMethod, Listener, MppeModes, MppePolicy, SessionPolicy, Weakness
from grepunch.config.rules import ADDRESS, PREFIX, Refused, Rule, repr_toml

MOST_SESSIONS = 4096  # ours: a process of this kind serves hundreds
SESSION_RANGE = (1, MOST_SESSIONS)
LONGEST_LIMIT = 31 * 86400.0  # seconds
POOL_PREFIXES = range(12, 31)
MOST_SERVERS = 2  # RFC 1877 has a primary and a secondary one
LONGEST_USER = 255  # characters; RFC 1334 section 2.2.1 has one octet for the length

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
LONGEST_HOST_NAME = 253  # RFC 1035 section 2.3.4


def _listener(value: object) -> Listener:
    sentence = 'expected an IPv4 address and a port, such as "0.0.0.0:1723"'
    address, separator, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        listener = Listener(IPv4Address(address), int(port)) if separator and port.isdecimal() else None
    except ValueError:
        listener = None
    if listener is None or not 1 <= listener.port <= 65535 or listener.address.is_multicast:
        raise Refused(sentence)
    return listener


def _count(low: int, high: int) -> Rule:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Refused(f"expected an integer from {low} to {high}")
        return value

    return Rule(read, {"type": "integer", "minimum": low, "maximum": high})


def _limit(value: object) -> float | None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not (value == 0 or 1 <= value <= LONGEST_LIMIT)
    ):
        raise Refused(f"expected seconds from 1 to {LONGEST_LIMIT:.0f}, or 0 for no limit")
    return float(value) or None


def is_host_name(text: str) -> bool:
    """Whether ``text`` can be the name of a host."""
    return len(text) <= LONGEST_HOST_NAME and _HOST_NAME.fullmatch(text) is not None


def _host(value: object) -> str:
    sentence = 'expected the name or IPv4 address of a server, such as "vpn.example.org"'
    if not isinstance(value, str) or not is_host_name(value):
        raise Refused(sentence)
    if re.fullmatch(r"[\d.]+", value):
        try:
            ADDRESS.read(value)
        except Refused:
            raise Refused(sentence) from None
    return value


def _domain(value: object) -> str:
    if not isinstance(value, str) or not is_host_name(value):
        raise Refused('expected a domain such as "example.org"')
    return value


def is_user_name(text: str) -> bool:
    """Whether a user can be called so."""
    return 0 < len(text) <= LONGEST_USER and text.isprintable() and text == text.strip()


def _user(value: object) -> str:
    if not isinstance(value, str) or not is_user_name(value):
        raise Refused(f"expected a user name of at most {LONGEST_USER} printable characters")
    return value


def _pool(value: object) -> IPv4Network:
    pool = PREFIX.read(value)
    assert isinstance(pool, IPv4Network)  # noqa: S101  what the rule reads
    if pool.prefixlen not in POOL_PREFIXES or pool.is_multicast or pool.is_loopback:
        raise Refused(f"expected a prefix from /{POOL_PREFIXES[0]} to /{POOL_PREFIXES[-1]} of host addresses")
    return pool


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Refused("expected true or false")
    return value


def _one_of(words: type[StrEnum]) -> Rule:
    known = [str(word) for word in words]

    def read(value: object) -> StrEnum:
        if not isinstance(value, str) or value not in known:
            raise Refused(f"expected {', '.join(map(repr_toml, known[:-1]))} or {repr_toml(known[-1])}")
        return words(value)

    return Rule(read, {"enum": known})


LISTENER = Rule(_listener, {"type": "string", "pattern": r"^[0-9.]+:[0-9]+$"})
SESSIONS = _count(*SESSION_RANGE)
PORT = _count(1, 65535)
LIMIT = Rule(_limit, {"type": "number", "minimum": 0, "maximum": LONGEST_LIMIT})
HOST = Rule(_host, {"type": "string", "maxLength": LONGEST_HOST_NAME})
DOMAIN = Rule(_domain, {"type": "string", "maxLength": LONGEST_HOST_NAME})
USER = Rule(_user, {"type": "string", "minLength": 1, "maxLength": LONGEST_USER})
POOL = Rule(_pool, {"type": "string", "format": "ipv4network"})
FLAG = Rule(_flag, {"type": "boolean"})
METHOD = _one_of(AuthMethod)
WEAKNESS = _one_of(Weakness)
MPPE = _one_of(MppePolicy)
MPPE_MODES = _one_of(MppeModes)
SESSION_POLICY = _one_of(SessionPolicy)
