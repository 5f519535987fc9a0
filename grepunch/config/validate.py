"""A parsed TOML file against the rules: pydantic walks the dataclasses of :mod:`grepunch.config.profile`.

Imported only when a profile is read, because pydantic takes a tenth of a second to import.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from grepunch.config.faults import KeyPath
from grepunch.config.profile import Document
from grepunch.config.rules import Refused, kind, repr_toml
from grepunch.text import nearest


@dataclass(frozen=True, slots=True)
class _Described(Document):
    """The whole file, with the strings below the keys as the schema's: reading them takes longer than all the rest."""

    __pydantic_config__: ClassVar[dict[str, object]] = {
        **Document.__pydantic_config__,
        "use_attribute_docstrings": True,
    }


@functools.cache
def _adapter() -> TypeAdapter[Document]:
    return TypeAdapter(Document)


@functools.cache
def _schema() -> dict[str, Any]:
    schema = TypeAdapter(_Described).json_schema()
    return {**schema, "description": Document.__doc__}


def validate(data: Mapping[str, object]) -> tuple[Document | None, list[tuple[KeyPath, str]]]:
    """The document, or None and what is wrong with every key that is wrong."""
    try:
        return _adapter().validate_python(data), []
    except ValidationError as invalid:
        return None, [(error["loc"], _sentence(error)) for error in invalid.errors(include_url=False)]


def json_schema() -> dict[str, object]:
    """The JSON Schema of a profile."""
    schema: dict[str, object] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_schema(),
        "title": "A grepunch-pptp profile",
    }
    return schema


def keys_of(path: KeyPath) -> list[str]:
    """The keys that the table at ``path`` knows."""
    schema = _schema()
    node = schema
    for part in path:
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
        reference = node.get("$ref") or next((n["$ref"] for n in node.get("anyOf", []) if "$ref" in n), None)
        if reference is not None:
            node = schema["$defs"][reference.rpartition("/")[2]]
    return list(node.get("properties", {}))


def _sentence(error: ErrorDetails) -> str:
    match error["type"]:
        case "value_error":
            refused = error["ctx"]["error"]
            shown = not isinstance(refused, Refused) or refused.show
            return f"{refused}, got {repr_toml(error['input'])}" if shown else str(refused)
        case "missing":
            return "is missing"
        case "unexpected_keyword_argument":
            return _unknown(error["loc"])
        case "dataclass_type":
            return f"expected a table, got {kind(error['input'])}"
        case "tuple_type":
            return f"expected a list, got {kind(error['input'])}"
        case other:
            return f"{error['msg']} ({other})"


def _unknown(path: KeyPath) -> str:
    known = keys_of(path[:-1])
    meant = nearest(str(path[-1]), known)
    return "unknown key: " + (f"did you mean {meant}?" if meant else f"known here are {', '.join(known)}")
