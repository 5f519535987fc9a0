"""How the checks read what may be at fault: a value that is absent or wrong is None here, and said elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from grepunch.config.faults import KeyPath
from grepunch.config.rules import Refused, Rule

Finding = tuple[KeyPath, str]


@dataclass(slots=True)
class Findings:
    """What the checks found: faults refuse the profile, warnings do not."""

    faults: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)


def read_value(table: Mapping[str, object], key: str, rule: Rule) -> object:
    """One value of a table, or None."""
    try:
        return rule.read(table[key])
    except (KeyError, Refused):
        return None


def read_each(
    table: Mapping[str, object], key: str, rule: Rule, path: KeyPath
) -> tuple[list[tuple[KeyPath, object]], bool]:
    """The readable elements of a list with their paths, and whether all of it was readable."""
    items = table.get(key, [])
    if not isinstance(items, list):
        return [], False
    values = []
    for index, item in enumerate(items):
        try:
            values.append(((*path, key, index), rule.read(item)))
        except Refused:
            continue
    return values, len(values) == len(items)


def table_of(data: Mapping[str, object], key: str) -> Mapping[str, object]:
    """The table under ``key``; empty where there is none."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}
