"""The JSON Schema of a profile, for editors: the shapes of its keys, with the strings below them as descriptions."""

from __future__ import annotations

import ast
import inspect
from dataclasses import MISSING, Field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from grepunch.config import profile
from grepunch.config.profile import Document
from grepunch.config.rules import Rule
from grepunch.config.validate import ListOf, Shape, is_required, shape_of

Schema = dict[str, object]


def json_schema() -> Schema:
    """The JSON Schema of a profile."""
    described = _descriptions()
    tables: dict[str, Schema] = {}
    document = _table(Document, described, tables)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A grepunch-pptp profile",
        **document,
        "$defs": tables,
    }


def _table(shape: type, described: dict[tuple[str, str], str], tables: dict[str, Schema]) -> Schema:
    """The schema of a table; those of the tables in it go into ``tables``, by name."""
    properties: dict[str, Schema] = {}
    for key in fields(shape):
        schema = _value(shape_of(key.type), described, tables) | _default(key)
        if (text := described.get((shape.__name__, key.name))) is not None:
            schema["description"] = text
        properties[key.name] = schema
    return {
        "type": "object",
        "description": inspect.getdoc(shape),
        "properties": properties,
        "required": [key.name for key in fields(shape) if is_required(key)],
        "additionalProperties": False,
    }


def _value(shape: Shape, described: dict[tuple[str, str], str], tables: dict[str, Schema]) -> Schema:
    match shape:
        case Rule(schema=schema):
            return dict(schema)
        case ListOf(item):
            return {"type": "array", "items": _value(item, described, tables)}
        case _:
            tables[shape.__name__] = _table(shape, described, tables)
            return {"$ref": f"#/$defs/{shape.__name__}"}


def _default(key: Field[Any]) -> Schema:
    """What holds where the key is left out, as the file would say it; nothing where no value says that."""
    match key.default:
        case default if default is MISSING or default is None:
            return {}
        case tuple() as items:
            return {"default": [str(item) for item in items]}
        case Path() | Enum() as word:
            return {"default": str(word)}
        case value:
            return {"default": value}


def _descriptions() -> dict[tuple[str, str], str]:
    """The string below each field, by class and field: Python itself keeps only those below a class."""
    found = {}
    for node in ast.parse(inspect.getsource(profile)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, below in zip(node.body, node.body[1:], strict=False):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[node.name, name] = inspect.cleandoc(text)
    return found
