"""The rule of every key: how its TOML value is read, and what was expected where it cannot be.

A rule stands in the annotation of its field (:mod:`grepunch.config.profile`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from grepunch.config.secrets import (
    SecretCredential,
    SecretFile,
    SecretPrompt,
    SecretReference,
    SecretVariable,
)
from grepunch.ports import Form, RelayPolicy
from grepunch.text import nearest, printable
from pptp.errors import WireError
from pptp.value import value

LARGEST_INTERFACE_NAME = 15  # linux/if.h: IFNAMSIZ - 1
SMALLEST_MTU = 576  # RFC 791 section 3.1: what every host takes
LARGEST_MTU = 1500
KEEPALIVE_RANGE = (0.6, 60.0)  # seconds; a third of 2 s, the shortest timer worth serving
WINDOW_RANGE = (5.0, 30.0)  # seconds; beyond 30 s the budget of packets towards an unproven address is spent
LONGEST_SHOWN = 40  # characters of a value that a fault repeats

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_INTERFACE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# RFC 6890 section 2.2.2: this network, loopback, link-local, multicast and reserved
_NEVER_ROUTED = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))


class Refused(ValueError):
    """A value that a rule does not take. ``show`` is false where the value may be a secret and is not repeated."""

    def __init__(self, expected: str, *, show: bool = True) -> None:
        super().__init__(expected)
        self.show = show


@value
class Rule:
    """``read`` turns a TOML value into ours or raises :class:`Refused`; ``schema`` says the same as JSON Schema."""

    read: Callable[[object], object]
    schema: Mapping[str, object]


def read_key(text: str) -> bytes | None:
    """The 32 octets of a key in base64, or None where ``text`` is not exactly that."""
    # Delayed, because importing a cipher library is a good part of the start-up.
    from grepunch.secure.identity import decode_key

    try:
        return decode_key(text)
    except WireError:
        return None


def _version(value: object) -> int:
    if value != 1 or isinstance(value, bool) or not isinstance(value, int):
        raise Refused("expected 1, the only version there is")
    return value


def _interface_name(value: object) -> str:
    if (
        not isinstance(value, str)
        or len(value) > LARGEST_INTERFACE_NAME
        or not _INTERFACE_NAME.fullmatch(value)
        or value == "all"
        or value == "default"
    ):
        raise Refused(
            f"expected a name of at most {LARGEST_INTERFACE_NAME} letters, digits, dots, dashes and underscores"
        )
    return value


def _peer_name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Refused("expected a name of at most 63 letters, digits, dots, dashes and underscores")
    return value


def _address(value: object) -> IPv4Address:
    try:
        address = IPv4Address(value) if isinstance(value, str) else None
    except ValueError:
        address = None
    if address is None or not _usable(address):
        raise Refused('expected the IPv4 address of a host, such as "10.66.0.2"')
    return address


def _usable(address: IPv4Address) -> bool:
    return not (address.is_multicast or address.is_unspecified or address.is_reserved or address.is_loopback)


def _external_address(value: object) -> IPv4Address:
    try:
        return _address(value)
    except Refused:
        raise Refused('expected the IPv4 address the peer is seen from, such as "203.0.113.9"') from None


def _interface_address(value: object) -> IPv4Interface:
    try:
        address = IPv4Interface(value) if isinstance(value, str) and "/" in value else None
    except ValueError:
        address = None
    if address is None or not _usable(address.ip) or not _is_host(address):
        raise Refused('expected the IPv4 address of a host with its prefix length, such as "10.66.0.1/24"')
    return address


def _is_host(address: IPv4Interface) -> bool:
    """Neither the network's own address nor its broadcast address (RFC 3021: a /31 has neither)."""
    network = address.network
    return network.prefixlen >= 31 or address.ip not in (network.network_address, network.broadcast_address)


def _prefix(value: object) -> IPv4Network:
    try:
        if isinstance(value, str):
            return IPv4Network(value)
    except ValueError as error:
        if "host bits" in str(error):
            _refuse_host_bits(str(value))
    raise Refused('expected an IPv4 prefix such as "192.168.50.0/24"')


def _refuse_host_bits(value: str) -> NoReturn:
    raise Refused(f'expected an IPv4 prefix: did you mean "{IPv4Network(value, strict=False)}"?') from None


def _route(value: object) -> IPv4Network:
    prefix = _prefix(value)
    if prefix.prefixlen <= 1:
        raise Refused("expected a prefix longer than /1: routing everything into the tunnel is not supported")
    if any(prefix.overlaps(network) for network in _NEVER_ROUTED):
        raise Refused("expected a network of hosts: neither loopback, link-local, multicast nor reserved addresses")
    return prefix


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mtu(value: object) -> int | None:
    if value == "auto":
        return None
    number = _integer(value)
    if number is None or not SMALLEST_MTU <= number <= LARGEST_MTU:
        raise Refused(f'expected "auto" or an integer from {SMALLEST_MTU} to {LARGEST_MTU}')
    return number


def _seconds(low: float, high: float) -> Rule:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise Refused(f"expected seconds from {low:g} to {high:g}")
        return float(value)

    return Rule(read, {"type": "number", "minimum": low, "maximum": high})


def _public_key(value: object) -> bytes:
    key = read_key(value) if isinstance(value, str) else None
    if key is None:
        # a private key may stand here by mistake, so the value is not repeated
        seen = f"{len(value)} characters that are not" if isinstance(value, str) else f"{kind(value)}, not"
        raise Refused(
            f"expected a public key, 32 octets in base64 as `grepunch-pptp pubkey` prints it; got {seen}", show=False
        )
    if not any(key):
        raise Refused("expected a public key, and this one is all zeros", show=False)
    return key


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise Refused("expected the path of a file")
    return Path(value)


def _url(value: object) -> str:
    sentence = 'expected a URL such as "wss://meet.example.org"'
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        raise Refused(sentence)
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Refused(sentence) from None
    if parts.scheme not in ("wss", "ws") or not host or parts.fragment or parts.query:
        raise Refused(sentence)
    if parts.username is not None or parts.password is not None:
        raise Refused("expected a URL without user and password", show=False)
    if parts.scheme == "ws" and host not in _LOOPBACK:
        raise Refused("expected wss://: without TLS only a rendezvous on this host (ws://127.0.0.1:…) is taken")
    return value


def _forms(value: object) -> tuple[Form, ...]:
    if value == "auto":
        return tuple(Form)
    known = [str(form) for form in Form]
    if not isinstance(value, list) or not value or any(item not in known for item in value):
        raise Refused(f'expected "auto" or a list of {" and ".join(map(repr_toml, known))}')
    if len(set(value)) != len(value):
        raise Refused("expected each form at most once")
    return tuple(Form(item) for item in value)


def _relay(value: object) -> RelayPolicy:
    try:
        return RelayPolicy(str(value))
    except ValueError:
        raise Refused(f"expected {', '.join(map(repr_toml, map(str, RelayPolicy)))}") from None


_REFERENCES: Mapping[str, Callable[[str], SecretReference]] = {
    "file": lambda text: SecretFile(Path(text)),
    "credential": SecretCredential,
    "env": SecretVariable,
}


def _secret(value: object) -> SecretReference:
    sentence = 'expected a reference: { file = "…" }, { credential = "…" }, { env = "…" } or { prompt = true }'
    if isinstance(value, str):
        raise Refused(f"{sentence}; a secret itself never stands in a profile", show=False)
    if not isinstance(value, dict) or len(value) != 1:
        raise Refused(sentence, show=False)
    ((key, where),) = value.items()
    if key == "prompt":
        if where is not True:
            raise Refused("expected { prompt = true }", show=False)
        return SecretPrompt()
    if key not in _REFERENCES:
        meant = nearest(str(key), (*_REFERENCES, "prompt"))
        raise Refused(sentence + (f": did you mean {meant}?" if meant else ""), show=False)
    if not isinstance(where, str) or not where or "\0" in where:
        raise Refused(f"expected text behind {key} =", show=False)
    if key == "credential" and not _NAME.fullmatch(where):
        raise Refused("expected the name of a credential, which is no path")
    if key == "env" and not _VARIABLE.fullmatch(where):
        raise Refused("expected the name of an environment variable", show=False)
    return _REFERENCES[key](where)


def kind(value: object) -> str:
    """What sort of TOML value this is, in words."""
    match value:
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a float"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def repr_toml(value: object) -> str:
    """A value as a fault repeats it: scalars as TOML writes them, shortened; what has parts by its kind."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            shortened = value if len(value) <= LONGEST_SHOWN else value[: LONGEST_SHOWN - 1] + "…"
            return printable(json.dumps(shortened, ensure_ascii=False))
        case int():
            return str(value) if abs(value) < 10**20 else "a huge integer"
        case float():
            return f"{value:g}"
        case _:
            return kind(value)


_TEXT = {"type": "string"}
_KEY = {"type": "string", "minLength": 44, "maxLength": 44, "pattern": "^[A-Za-z0-9+/]{43}=$"}
_PREFIX_SCHEMA = {"type": "string", "format": "ipv4network"}

VERSION = Rule(_version, {"const": 1, "description": "Of this format: 1."})
INTERFACE_NAME = Rule(
    _interface_name, {"type": "string", "maxLength": LARGEST_INTERFACE_NAME, "pattern": f"^{_INTERFACE_NAME.pattern}$"}
)
INTERFACE_ADDRESS = Rule(_interface_address, {"type": "string", "format": "ipv4interface"})
ADDRESS = Rule(_address, {"type": "string", "format": "ipv4"})
EXTERNAL_ADDRESS = Rule(_external_address, {"type": "string", "format": "ipv4"})
PREFIX = Rule(_prefix, _PREFIX_SCHEMA)
ROUTE = Rule(_route, _PREFIX_SCHEMA)
MTU = Rule(_mtu, {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": SMALLEST_MTU, "maximum": LARGEST_MTU}]})
PEER_NAME = Rule(_peer_name, {"type": "string", "pattern": f"^{_NAME.pattern}$"})
PUBLIC_KEY = Rule(_public_key, _KEY)
PATH = Rule(_path, _TEXT)
RENDEZVOUS_URL = Rule(_url, {"type": "string", "format": "uri", "pattern": "^wss?://"})
FORMS = Rule(
    _forms,
    {
        "anyOf": [
            {"const": "auto"},
            {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"enum": [str(form) for form in Form]}},
        ]
    },
)
RELAY = Rule(_relay, {"enum": [str(policy) for policy in RelayPolicy]})
KEEPALIVE = _seconds(*KEEPALIVE_RANGE)
WINDOW = _seconds(*WINDOW_RANGE)
SECRET = Rule(
    _secret,
    {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {"file": _TEXT, "credential": _TEXT, "env": _TEXT, "prompt": {"const": True}},
    },
)
