"""What travels beside the GRE packets of a probe: JSON texts on a WebSocket of its own subprotocol.

``more`` (to the server) asks for another cookie. From the server: ``cookie``, with the address and port that the client
was seen from; ``seen`` for every packet that carried the client's cookie, wherever it came from; ``call`` for a call
placed at the server's PPTP port. A text that is not exactly one of these is a :class:`WireError`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from ipaddress import AddressValueError, IPv4Address

from grepunch.nat.packets import COOKIE_SIZE
from pptp.errors import WireCause, WireError
from pptp.value import value

SUBPROTOCOL = "grepunch-pptp.probe.1"
LARGEST_TEXT = 256  # ours, because the longest takes about 150


@value
class More:
    """Another cookie, please."""


@value
class Cookie:
    """For the next minute. ``address`` and ``port`` are those the WebSocket connection came from."""

    cookie: bytes
    address: IPv4Address
    port: int


@value
class Seen:
    """A packet with the client's cookie came from ``source``; answered where that is the cookie's address."""

    test: int
    sequence: int
    source: IPv4Address
    version: int
    call_id: int
    answered: bool


@value
class CallSeen:
    """The Outgoing-Call-Request as it arrived, and the Call ID that the server gave."""

    call_id: int
    server_call_id: int


Text = More | Cookie | Seen | CallSeen
_NAMES = {"more": More, "cookie": Cookie, "seen": Seen, "call": CallSeen}
_TYPES = {kind: name for name, kind in _NAMES.items()}


def build(message: Text) -> str:
    """The JSON text."""
    body = {key: _plain(value) for key, value in asdict(message).items()}
    return json.dumps({"type": _TYPES[type(message)], **body}, separators=(",", ":"))


def parse(text: str) -> Text:
    """A text of either side; raises :class:`WireError`."""
    if len(text) > LARGEST_TEXT:
        raise WireError("probe text", WireCause.OVERSIZE, f"{len(text)} characters")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("probe text", WireCause.BAD_VALUE, "no JSON") from None
    kind = _NAMES.get(body.pop("type", "")) if isinstance(body, dict) else None
    if kind is None or body.keys() != {field.name for field in fields(kind)}:
        raise WireError("probe text", WireCause.BAD_TYPE, text[:40])
    try:
        values = {key: _read(key, value) for key, value in body.items()}
    except (ValueError, AddressValueError):
        raise WireError("probe text", WireCause.BAD_VALUE, text[:80]) from None
    message: Text = kind(**values)
    return message


def _plain(value: object) -> object:
    match value:
        case bytes():
            return value.hex()
        case IPv4Address():
            return str(value)
        case _:
            return value


def _read(key: str, value: object) -> object:
    match key:
        case "cookie" if isinstance(value, str) and len(value) == 2 * COOKIE_SIZE:
            return bytes.fromhex(value)
        case "address" | "source" if isinstance(value, str):
            return IPv4Address(value)
        case "answered" if isinstance(value, bool):
            return value
        case "test" | "sequence" | "version" | "port" | "call_id" | "server_call_id":
            if type(value) is int and 0 <= value <= 0xFFFF:
                return value
    raise ValueError(key)
