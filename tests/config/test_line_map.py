"""The line map finds the keys that tomllib finds, and the right lines."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator

from grepunch.config.faults import KeyPath
from grepunch.config.linemap import scan

EVERYTHING = '''\
# comment = 1
plain = 1
"quoted key" = "a # no comment"
dotted.key.path = true
'literal' = 'C:\\path'
text = """
not = "a key"
[nor.a.table] \\""" still text """"
after = 1979-05-27T07:32:00Z
list = [ # comment ]
  1, [2,
  3], # ] more
  { x = 1, y.z = [4] },
  """
]"""
]
inline = { a = { b = "}" }, "c d" = [ ']' ] }

[table."with dot.".inner] # comment
key = 1
[[array]]
a = 1
[[array]]
a = 2
[array.sub]
b = 3
[[array.nested]]
c = 4
[[array.nested]]
c = 5
[ spaced . out ]
k = \'\'\'
x\'\'\'\'\'
last = inf
'''


def flatten(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The path of everything in a parsed document."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flatten(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from flatten(item, (*path, index))


def test_every_key_has_its_line() -> None:
    lines = scan(EVERYTHING).lines
    assert set(lines) == set(flatten(tomllib.loads(EVERYTHING)))
    number = {text: place for place, text in enumerate(EVERYTHING.split("\n"), 1)}
    assert lines[("quoted key",)] == 3
    assert lines[("dotted", "key")] == lines[("dotted", "key", "path")] == 4
    assert lines[("text",)] == number['text = """']
    assert lines[("after",)] == number["after = 1979-05-27T07:32:00Z"]
    assert lines[("list", 1, 1)] == number["  3], # ] more"]
    assert lines[("list", 2, "y", "z", 0)] == number["  { x = 1, y.z = [4] },"]
    assert lines[("list", 3)] == number['  """']
    assert lines[("inline", "c d", 0)] == number['inline = { a = { b = "}" }, "c d" = [ \']\' ] }']
    assert lines[("table", "with dot.", "inner", "key")] == number["key = 1"]
    assert lines[("array", 0, "a")] == number["a = 1"]
    assert lines[("array", 1)] == number["a = 2"] - 1
    assert lines[("array", 1, "sub", "b")] == number["b = 3"]
    assert lines[("array", 1, "nested", 1, "c")] == number["c = 5"]
    assert lines[("spaced", "out", "k")] == number["k = '''"]
    assert lines[("spaced", "out", "last")] == number["last = inf"]


def test_windows_line_ends() -> None:
    assert scan('a = 1\r\nb = """\r\nx"""\r\nc = 1\r\n').lines == {("a",): 1, ("b",): 2, ("c",): 4}


def test_an_absent_key_is_found_at_the_table_around_it() -> None:
    lines = scan("x = 1\n\n[[peer]]\nname = 1\n")
    assert lines.line(("peer", 0, "public_key")) == 3
    assert lines.line(("interface", "name")) == 1


KEY_FORMS = ["a", "b-1", '"q k"', "'l'", "a.b", ' x . "y.z" ', "0"]
VALUES = ["1", '"s#"', "'''\n\n'''", '"""a\\\n  b"""', "[1,\n 2]", "[]", "{}", "{ p = 1, q.r = [{}] }", "1e3", "true"]
TRIVIA = ["", " # c [x]\n", "\n", "\t"]


def test_random_documents_agree_with_tomllib() -> None:
    """Documents put together at random: whichever tomllib takes, the scanner maps completely."""
    seed = 20260601
    rng = random.Random(seed)
    taken = 0
    for _ in range(3000):
        lines = []
        for _ in range(rng.randrange(1, 8)):
            key = rng.choice(KEY_FORMS)
            forms = [f"{key} = {rng.choice(VALUES)}", f"[{key}]", f"[[{key}]]"]
            lines.append(rng.choice(TRIVIA) + rng.choice(forms) + rng.choice(["", " # end"]))
        text = "\n".join(lines)
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        taken += 1
        assert set(scan(text).lines) == set(flatten(data)), f"seed {seed}: {text!r}"
    assert taken > 300
