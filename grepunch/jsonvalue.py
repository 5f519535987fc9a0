"""Frozen dataclasses as JSON objects: names as in the code, seconds, integers of octets, absent instead of null."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DECIMALS = 6  # of a float of seconds: microseconds


def plain(value: object) -> object:
    """``value`` of dataclasses, containers, addresses and scalars as what :mod:`json` takes.

    Octets raise TypeError: what is not text has no business in a status or an event, keys least of all.
    """
    match value:
        case Enum():
            return str(value.value)
        case float():
            return round(value, DECIMALS)
        case None | bool() | int() | str():
            return value
        case IPv4Address() | IPv4Network() | IPv4Interface() | Path():
            return str(value)
        case tuple() | list():
            return [plain(item) for item in value]
        case Mapping():
            return {str(plain(key)): plain(item) for key, item in value.items() if item is not None}
        case _ if is_dataclass(value) and not isinstance(value, type):
            return record(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def record(value: DataclassInstance, leave_out: Collection[str] = ()) -> dict[str, object]:
    """The fields of a dataclass that are present, as a JSON object."""
    names = [field.name for field in fields(value) if field.name not in leave_out]
    return {name: plain(item) for name in names if (item := getattr(value, name)) is not None}


def line(value: Mapping[str, object]) -> str:
    """One JSON object on one line; ASCII only, so that no terminal and no log can be upset by it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)
