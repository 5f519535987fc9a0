"""A parsed TOML file against the rules: the dataclasses of :mod:`grepunch.config.profile`, walked by their annotations.

What stands in an annotation is the shape of a key: a rule for one value, a tuple for a list, a dataclass for a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

from grepunch.config.faults import KeyPath
from grepunch.config.profile import Document
from grepunch.config.rules import Refused, Rule, kind, repr_toml
from grepunch.text import nearest
from pptp.value import value


@value
class ListOf:
    """The shape of a list."""

    item: Shape


Shape = Rule | ListOf | type  # a type is a dataclass: the shape of a table


def shape_of(annotation: object) -> Shape:
    """The shape that an annotation of a field stands for."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next(rule for rule in arguments if isinstance(rule, Rule))
    if origin is tuple:
        return ListOf(shape_of(arguments[0]))
    if origin is UnionType:  # a table or None: it may be left out
        return shape_of(arguments[0])
    assert isinstance(annotation, type)  # noqa: S101  else the field has no rule
    return annotation


def is_required(key: Field[Any]) -> bool:
    """Whether a key has to be there."""
    return key.default is MISSING and key.default_factory is MISSING


def validate(data: Mapping[str, object]) -> tuple[Document | None, list[tuple[KeyPath, str]]]:
    """The document, or None and what is wrong with every key that is wrong."""
    walk = _Walk()
    document = walk.table(Document, data, ())
    assert document is None or isinstance(document, Document)  # noqa: S101  what the shape says
    return document, walk.faults


class _Walk:
    """One pass over one file. What is at fault reads as None, and is not looked at again."""

    def __init__(self) -> None:
        self.faults: list[tuple[KeyPath, str]] = []

    def value(self, shape: Shape, value: object, path: KeyPath) -> object:
        match shape:
            case Rule():
                return self._single(shape, value, path)
            case ListOf(item):
                return self._list(item, value, path)
            case _:
                return self.table(shape, value, path)

    def _single(self, rule: Rule, value: object, path: KeyPath) -> object:
        try:
            return rule.read(value)
        except Refused as refused:
            self._fault(path, f"{refused}, got {repr_toml(value)}" if refused.show else str(refused))
            return None

    def _list(self, item: Shape, value: object, path: KeyPath) -> tuple[object, ...]:
        if not isinstance(value, list):
            self._fault(path, f"expected a list, got {kind(value)}")
            return ()
        return tuple(self.value(item, element, (*path, index)) for index, element in enumerate(value))

    def table(self, shape: type, value: object, path: KeyPath) -> object | None:
        if not isinstance(value, Mapping):
            self._fault(path, f"expected a table, got {kind(value)}")
            return None
        before = len(self.faults)
        known = {key.name: key for key in fields(shape)}
        for name in value:
            if name not in known:
                self._fault((*path, name), _unknown(name, list(known)))
        read: dict[str, object] = {}
        for name, key in known.items():
            if name in value:
                read[name] = self.value(shape_of(key.type), value[name], (*path, name))
            elif is_required(key):
                self._fault((*path, name), "is missing")
        return shape(**read) if len(self.faults) == before else None

    def _fault(self, path: KeyPath, message: str) -> None:
        self.faults.append((path, message))


def _unknown(key: str, known: list[str]) -> str:
    meant = nearest(key, known)
    return "unknown key: " + (f"did you mean {meant}?" if meant else f"known here are {', '.join(known)}")
