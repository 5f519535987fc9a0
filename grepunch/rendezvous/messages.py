"""What travels between a peer and the rendezvous server: strict JSON texts, and binary blobs for the other peer.

Every text is one JSON object of at most :data:`LARGEST_TEXT` characters with a ``type`` and exactly the fields of
that type: no more, no fewer, none twice, integers and lower-case hexadecimal strings only. Either end refuses
anything else with :class:`WireError` and the connection is closed; tolerance would only hide a version mismatch,
and versions are told apart before, by the WebSocket subprotocol. ``PROTOCOL.md`` beside this file is the prose.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, StrEnum
from ipaddress import AddressValueError, IPv4Address
from typing import Any, NoReturn, TypeVar

from pptp.errors import WireCause, WireError
from pptp.value import value

# ours: the name says which protocol and which version of it, so that a mismatch shows in the HTTP handshake
SUBPROTOCOL = "grepunch-pptp.rendezvous.3"

LARGEST_TEXT = 512  # ours, because the longest message, a hello, takes about 170 characters
LARGEST_BLOB = 4096  # ours: a handshake of 1310 octets or a control message of 900, with room to grow
LARGEST_FRAME = 1600  # ours: a sealed frame with the largest inner packet there is, 1500 octets and 33 for the seal
MOST_FRAMES = 16  # ours: of one message; what a message costs on its way is shared by its frames
LARGEST_RELAY_RATE = 2**40  # octets per second: no number a program could not hold
MAILBOX_LENGTH = 16  # ours: HKDF output, 128 bits nobody can guess
SIDE_LENGTH = 16
INSTANCE_LENGTH = 16
LARGEST_HANDLE = 0xFFFF
LARGEST_INCARNATION = 2**48 - 1  # exact in any JSON reader's number
SECONDS_PER_DAY = 86_400

_BLOB_HEADER = struct.Struct("!H")  # mailbox handle
_RELAYED_HEADER = struct.Struct("!HH")  # 0, which is no handle; mailbox handle
_FRAME_LENGTH = struct.Struct("!H")
# what a WebSocket of this protocol has to carry
LARGEST_MESSAGE = max(
    _BLOB_HEADER.size + LARGEST_BLOB, _RELAYED_HEADER.size + MOST_FRAMES * (_FRAME_LENGTH.size + LARGEST_FRAME)
)


class RefusalReason(StrEnum):
    """Why the server did not let a side into a mailbox."""

    MAILBOX_FULL = "mailbox_full"  # two other sides are in it
    KEY_IN_USE_TWICE = "key_in_use_twice"  # another live connection holds the same side tag
    TOO_MANY_JOINS = "too_many_joins"  # on this connection or from this address
    SERVER_FULL = "server_full"


class CloseCode(IntEnum):
    """Why the server closed a connection (RFC 6455 section 7.4.2: 4000-4999 are for private use)."""

    MALFORMED = 4000
    RATE = 4001
    TOO_MANY_CONNECTIONS = 4002
    IDLE = 4003
    SERVER_FULL = 4004


CLOSE_SENTENCES: Mapping[CloseCode, str] = {
    CloseCode.MALFORMED: "a message it could not understand: the two programs may be of different versions",
    CloseCode.RATE: "too many messages",
    CloseCode.TOO_MANY_CONNECTIONS: "too many connections from this address",
    CloseCode.IDLE: "no mailbox was joined for a while",
    CloseCode.SERVER_FULL: "the server is full",
}


# --- from a peer to the server


@value
class Join:
    """Take a side of a mailbox; ``handle`` is what both ends call it from here on, on this connection."""

    handle: int
    mailbox: bytes
    side: bytes


@value
class Leave:
    """Give the side up."""

    handle: int


@value
class StillHere:
    """The answer to :class:`Replaced`: the side that was taken for a ghost is alive."""

    handle: int


@value
class ClockRequest:
    """Ask for the server's clock."""

    id: int


ClientMessage = Join | Leave | StillHere | ClockRequest


# --- from the server to a peer


@value
class Hello:
    """The first message. ``observed`` is the IPv4 address the connection was seen from, None where it has none.

    ``relay`` is what the server relays for each side of a mailbox, in octets per second: 0 where it does not.
    ``gre_echo``: it tells a client where its GRE comes from.
    """

    instance: bytes
    day: int
    seconds_to_next_day: int
    observed: IPv4Address | None
    relay: int = 0
    gre_echo: bool = False


@value
class ClockReply:
    """The server's monotonic clock in microseconds, meaningful within one server instance."""

    id: int
    microseconds: int


@value
class Joined:
    """The side is ours."""

    handle: int


@value
class JoinRefused:
    """The side is not ours."""

    handle: int
    reason: RefusalReason


@value
class Present:
    """The other side is in the mailbox; every (re)join of it has another ``incarnation``."""

    handle: int
    incarnation: int


@value
class Absent:
    """The other side has left the mailbox."""

    handle: int


@value
class Replaced:
    """Another connection took this side with the same tag; to be answered by :class:`StillHere`."""

    handle: int


@value
class UsedTwice:
    """Two live connections hold the same side tag: the key is in use twice."""

    handle: int


@value
class RelaySpent:
    """What the server relays for this mailbox in a day has been used up."""

    handle: int


ServerMessage = Hello | ClockReply | Joined | JoinRefused | Present | Absent | Replaced | UsedTwice | RelaySpent


# --- fields: how each is read from JSON (ValueError where it cannot be) and written to it


@value
class _Field:
    decode: Callable[[object], Any]
    encode: Callable[[Any], int | str | None]


def _integer(low: int, high: int) -> _Field:
    def decode(value: object) -> int:
        if type(value) is not int or not low <= value <= high:  # bool is an int in Python, and no integer in JSON
            raise ValueError(f"not an integer from {low} to {high}")
        return value

    return _Field(decode, int)


def _octets(length: int) -> _Field:
    pattern = re.compile(f"[0-9a-f]{{{2 * length}}}")

    def decode(value: object) -> bytes:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ValueError(f"not {2 * length} lower-case hexadecimal digits")
        return bytes.fromhex(value)

    return _Field(decode, bytes.hex)


def _decode_address(value: object) -> IPv4Address | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("not an IPv4 address")
    try:
        return IPv4Address(value)
    except AddressValueError:
        raise ValueError("not an IPv4 address") from None


def _decode_reason(value: object) -> RefusalReason:
    if not isinstance(value, str):
        raise ValueError("not a reason")
    return RefusalReason(value)


def _decode_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


_HANDLE = _integer(1, LARGEST_HANDLE)
_CLOCK_ID = _integer(0, 0xFFFFFFFF)
_ADDRESS = _Field(_decode_address, lambda value: None if value is None else str(value))

_Shape = tuple[type[Any], Mapping[str, _Field]]

_FROM_CLIENT: Mapping[str, _Shape] = {
    "join": (Join, {"handle": _HANDLE, "mailbox": _octets(MAILBOX_LENGTH), "side": _octets(SIDE_LENGTH)}),
    "leave": (Leave, {"handle": _HANDLE}),
    "still_here": (StillHere, {"handle": _HANDLE}),
    "clock": (ClockRequest, {"id": _CLOCK_ID}),
}

_FROM_SERVER: Mapping[str, _Shape] = {
    "hello": (
        Hello,
        {
            "instance": _octets(INSTANCE_LENGTH),
            "day": _integer(0, 2**31 - 1),
            "seconds_to_next_day": _integer(1, SECONDS_PER_DAY),
            "observed": _ADDRESS,
            "relay": _integer(0, LARGEST_RELAY_RATE),
            "gre_echo": _Field(_decode_flag, bool),
        },
    ),
    "clock": (ClockReply, {"id": _CLOCK_ID, "microseconds": _integer(0, 2**53 - 1)}),
    "joined": (Joined, {"handle": _HANDLE}),
    "refused": (JoinRefused, {"handle": _HANDLE, "reason": _Field(_decode_reason, str)}),
    "present": (Present, {"handle": _HANDLE, "incarnation": _integer(0, LARGEST_INCARNATION)}),
    "absent": (Absent, {"handle": _HANDLE}),
    "replaced": (Replaced, {"handle": _HANDLE}),
    "used_twice": (UsedTwice, {"handle": _HANDLE}),
    "relay_spent": (RelaySpent, {"handle": _HANDLE}),
}

_SHAPES: Mapping[type[Any], tuple[str, Mapping[str, _Field]]] = {
    kind: (name, fields) for table in (_FROM_CLIENT, _FROM_SERVER) for name, (kind, fields) in table.items()
}


# --- texts


def build_text(message: ClientMessage | ServerMessage) -> str:
    """The JSON text of a message."""
    name, fields = _SHAPES[type(message)]
    body = {key: field.encode(getattr(message, key)) for key, field in fields.items()}
    return json.dumps({"type": name, **body}, separators=(",", ":"))


def parse_client(text: str) -> ClientMessage:
    """A peer's text, as the server reads it; raises :class:`WireError`."""
    message: ClientMessage = _parse("rendezvous request", text, _FROM_CLIENT)
    return message


def parse_server(text: str) -> ServerMessage:
    """The server's text, as a peer reads it; raises :class:`WireError`."""
    message: ServerMessage = _parse("rendezvous reply", text, _FROM_SERVER)
    return message


def _parse(what: str, text: str, shapes: Mapping[str, _Shape]) -> Any:
    if len(text) > LARGEST_TEXT:
        raise WireError(what, WireCause.OVERSIZE, f"{len(text)} characters")
    try:
        body = json.loads(text, object_pairs_hook=_unique, parse_float=_refuse_number, parse_constant=_refuse_number)
    except (ValueError, RecursionError):  # the text bounds the depth, the caller's own depth is not ours to know
        raise WireError(what, WireCause.BAD_VALUE, "not a JSON object of unique keys and integers") from None
    if not isinstance(body, dict):
        raise WireError(what, WireCause.BAD_VALUE, "not a JSON object")
    name = body.pop("type", None)
    shape = shapes.get(name) if isinstance(name, str) else None
    if shape is None:
        raise WireError(what, WireCause.BAD_TYPE, f"type {name!r:.40}")
    kind, fields = shape
    if body.keys() != fields.keys():
        raise WireError(what, WireCause.BAD_VALUE, f"{name}: its fields are {', '.join(fields)}")
    values: dict[str, Any] = {}
    for key, field in fields.items():
        try:
            values[key] = field.decode(body[key])
        except ValueError as error:
            raise WireError(what, WireCause.BAD_VALUE, f"{name}.{key}: {error}") from None
    return kind(**values)


_ValueT = TypeVar("_ValueT")


def _unique(pairs: list[tuple[str, _ValueT]]) -> dict[str, _ValueT]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key twice")
    return body


def _refuse_number(number: str) -> NoReturn:
    raise ValueError(f"{number:.20} is no integer")


# --- blobs


def build_blob(handle: int, payload: bytes) -> bytes:
    """The binary message that carries ``payload`` to or from the other side of the mailbox called ``handle``."""
    return _BLOB_HEADER.pack(handle) + payload


def parse_blob(data: bytes) -> tuple[int, bytes]:
    """Handle and payload (1 to :data:`LARGEST_BLOB` octets) of a binary message; raises :class:`WireError`."""
    if len(data) <= _BLOB_HEADER.size:
        raise WireError("rendezvous blob", WireCause.TRUNCATED, f"{len(data)} octets")
    if len(data) > _BLOB_HEADER.size + LARGEST_BLOB:
        raise WireError("rendezvous blob", WireCause.OVERSIZE, f"{len(data)} octets")
    (handle,) = _BLOB_HEADER.unpack_from(data)
    if handle == 0:
        raise WireError("rendezvous blob", WireCause.BAD_VALUE, "handle 0")
    return handle, data[_BLOB_HEADER.size :]


# --- relayed frames


def build_relayed(handle: int, frames: Sequence[bytes]) -> bytes:
    """The binary message that carries sealed frames to or from the other side of the mailbox called ``handle``."""
    parts = [_RELAYED_HEADER.pack(0, handle)]
    for frame in frames:
        parts += (_FRAME_LENGTH.pack(len(frame)), frame)
    return b"".join(parts)


def is_relayed(data: bytes) -> bool:
    """Whether a binary message carries relayed frames; else it is a blob."""
    return data[:2] == b"\0\0"


def count_frames(data: bytes) -> int:
    """How many frames a relayed message of our own making carries."""
    count, at = 0, _RELAYED_HEADER.size
    while at < len(data):
        at += _FRAME_LENGTH.size + int(_FRAME_LENGTH.unpack_from(data, at)[0])
        count += 1
    return count


def parse_relayed(data: bytes) -> tuple[int, list[bytes]]:
    """Handle and 1 to :data:`MOST_FRAMES` frames, each of 1 to :data:`LARGEST_FRAME` octets, of a relayed message.

    Raises :class:`WireError`.
    """
    if len(data) <= _RELAYED_HEADER.size:
        raise WireError("relayed frames", WireCause.TRUNCATED, f"{len(data)} octets")
    zero, handle = _RELAYED_HEADER.unpack_from(data)
    if zero or not handle:
        raise WireError("relayed frames", WireCause.BAD_VALUE, f"handle {handle}")
    frames: list[bytes] = []
    at = _RELAYED_HEADER.size
    while at < len(data):
        start = at + _FRAME_LENGTH.size
        if start >= len(data):
            raise WireError("relayed frames", WireCause.TRUNCATED, f"nothing behind {at} octets")
        (length,) = _FRAME_LENGTH.unpack_from(data, at)
        at = start + length
        if not 1 <= length <= LARGEST_FRAME:
            raise WireError("relayed frames", WireCause.BAD_LENGTH, f"a frame of {length} octets")
        if at > len(data) or len(frames) == MOST_FRAMES:
            cause = WireCause.TRUNCATED if at > len(data) else WireCause.OVERSIZE
            raise WireError("relayed frames", cause, f"{len(data)} octets, {len(frames)} frames and one more")
        frames.append(data[start:at])
    return handle, frames
