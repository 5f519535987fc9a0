"""Mutated profiles: each is taken or refused with a file and a line, and never ends in a traceback."""

from __future__ import annotations

import random
import re

from grepunch.config import ProfileInvalid
from tests.config.ordinary_profiles import BOTH, CLIENT, SERVER
from tests.config.profiles import WHOLE, read

MUTATIONS = 10_000
SEED = 1661
PLACED = re.compile(r"office\.toml:\d+: \S")

ATOMS = [
    "[", "]", "[[", "]]", "{", "}", "=", ".", ",", '"', "'", '"""', "'''", "\\", "#", "\n", "\r\n", "\0", "\x1b[2J",
    "0", "-1", "1e999", "nan", "inf", "0x7fffffffffffffffffffffff", "1979-05-27", "07:32:00", "true", "[]", "{}",
    '""', '"0.0.0.0/0"', '"255.255.255.255"', '"::1"', '"wss://["', '"wss://h:99999"', '"\\ud800"', '"\\uFFFF"',
    "é", "\ufeff", "[listen]", "[server]", "[legacy]", "pool",
    "version", "peer", "[[peer]]", "[peer]", "[interface]", "name", "\n[[peer.x]]\n", "{ file = 1 }",
    '{ prompt = true }', '{ env = "" }', '{ file = "\\u0000" }', "9" * 4000, "[" * 1200, "a." * 500,
]  # fmt: skip


def mutate(rng: random.Random) -> bytes:
    """One to four changes to a whole profile: by octets, by tokens, by lines."""
    content = rng.choice((WHOLE, WHOLE, SERVER, CLIENT, BOTH)).encode()
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(content) + 1)
        lines = content.split(b"\n")
        match rng.randrange(7):
            case 0:
                content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
            case 1:
                content = content[:at] + content[at + rng.randrange(1, 20) :]
            case 2:
                content = content[:at] + rng.choice(ATOMS).encode("utf-8") + content[at:]
            case 3:
                line = rng.randrange(len(lines))
                key, equals, _ = lines[line].partition(b"=")
                lines[line] = key + equals + rng.choice(ATOMS).encode("utf-8")
                content = b"\n".join(lines)
            case 4:
                content = b"\n".join([*lines, rng.choice(lines)])
            case 5:
                del lines[rng.randrange(len(lines))]
                content = b"\n".join(lines)
            case 6:
                rng.shuffle(lines)
                content = b"\n".join(lines)
        if not content:
            break
    return content


def test_mutated_profiles_are_taken_or_refused_with_a_place() -> None:
    rng = random.Random(SEED)
    taken = refused = 0
    for number in range(MUTATIONS):
        content = mutate(rng)
        try:
            read(content)
        except ProfileInvalid as invalid:
            refused += 1
            faults = [str(fault) for fault in invalid.faults]
        except Exception as error:
            raise AssertionError(f"seed {SEED}, mutation {number}: {error!r}: {content!r}") from error
        else:
            taken += 1
            continue
        assert faults, f"seed {SEED}, mutation {number}: {content!r}"
        for fault in faults:
            assert PLACED.match(fault), f"seed {SEED}, mutation {number}: {fault}: {content!r}"
            assert fault.isprintable(), f"seed {SEED}, mutation {number}: {fault!r}"
    assert taken > MUTATIONS // 100
    assert refused > MUTATIONS // 2
