"""Which line of a TOML file a key stands on: tomllib gives the values, this the places.

A scanner and no second parser: it runs on text that tomllib has accepted, and follows no more of the grammar
(TOML 1.0.0) than is needed to tell keys from values.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

from grepunch.config.faults import KeyPath
from pptp.value import value

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")  # white space, newlines and comments
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # multi-line basic: up to two quotes may stand before the closing three
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]*")


@value
class LineMap:
    """The line, from 1, of every table, key and array element of a file."""

    lines: Mapping[KeyPath, int]
    last: int

    def line(self, path: KeyPath) -> int:
        """The line of this key; where it is absent, that of the nearest table around it, else the first."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        return 1


def scan(text: str) -> LineMap:
    """Map the keys of ``text``, which tomllib has accepted."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return LineMap(scanner.lines, scanner.text.count("\n") + 1)


class _Scanner:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[KeyPath, int] = {}
        self._at = 0
        self._counted_to = 0  # offset up to which newlines have been counted
        self._line = 1
        self._elements: dict[KeyPath, int] = {}  # array of tables -> index of its newest element

    def document(self) -> None:
        """Headers and key/value pairs, to the end."""
        table: KeyPath = ()
        while self._skip(_BLANK) < len(self.text):
            if self.text.startswith("[[", self._at):
                table = self._header(2)
            elif self.text[self._at] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> KeyPath:
        self._at += brackets
        keys = self._dotted_key()
        self._skip(_SPACE)
        self._at += brackets
        path = self._resolve((), keys[:-1])
        if brackets == 1:
            path = self._resolve(path, keys[-1:])
        else:
            array = (*path, keys[-1])
            self._record(array)
            self._elements[array] = self._elements.get(array, -1) + 1
            path = (*array, self._elements[array])
        self._record(path)
        return path

    def _resolve(self, path: KeyPath, keys: list[str]) -> KeyPath:
        """Descend by keys; through an array of tables the way leads into its newest element."""
        for key in keys:
            path = (*path, key)
            self._record(path)
            if path in self._elements:
                path = (*path, self._elements[path])
        return path

    def _pair(self, table: KeyPath) -> None:
        path = table
        for key in self._dotted_key():
            path = (*path, key)
            self._record(path)
        self._skip(_SPACE)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self.text[self._at]
        if opening in "\"'":
            self._skip(_STRING)
        elif opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip(_BLANK)
            if self.text[self._at] == "]":
                break
            element = (*path, index)
            self._record(element)
            self._value(element)
            index += 1
            self._skip(_BLANK)
            if self.text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while True:
            self._skip(_BLANK)
            if self.text[self._at] == "}":
                break
            self._pair(path)
            self._skip(_BLANK)
            if self.text[self._at] == ",":
                self._at += 1
        self._at += 1

    def _dotted_key(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            start = self._at
            if self.text[start] in "\"'":
                self._skip(_STRING)
                keys.append(str(tomllib.loads(f"key = {self.text[start : self._at]}")["key"]))
            else:
                self._skip(_BARE_KEY)
                keys.append(self.text[start : self._at])
            self._skip(_SPACE)
            if self.text[self._at] != ".":
                return keys
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self._at)
        if match is not None:
            self._at = match.end()
        return self._at

    def _record(self, path: KeyPath) -> None:
        """Note the current line for ``path``; the first place wins."""
        self._line += self.text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        self.lines.setdefault(path, self._line)
