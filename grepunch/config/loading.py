"""From a name or path to a :class:`Profile`: find the file, parse, override, validate, check."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from grepunch.config.check import check
from grepunch.config.faults import Fault, KeyPath, ProfileInvalid, dotted
from grepunch.config.linemap import LineMap, scan
from grepunch.config.profile import Profile, Source
from grepunch.config.validate import validate
from grepunch.text import nearest, printable

SYSTEM_DIRECTORY = Path("/etc/grepunch-pptp")
LARGEST_PROFILE = 256 * 1024  # octets; a thousand peers
LONGEST_LINE = 4096  # characters

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_SYNTAX = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)", re.DOTALL)
_OVERRIDE_PART = re.compile(r"(?P<key>[A-Za-z0-9_-]+)(?P<indices>(?:\[\d{1,4}\])*)")


def directories() -> tuple[Path, ...]:
    """Where profiles are looked up by name, in this order."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    own = Path(configured) if configured else Path(os.environ.get("HOME", "/")) / ".config"
    return SYSTEM_DIRECTORY, own / "grepunch-pptp"


def known_profiles() -> list[str]:
    """The names of all profiles that can be looked up."""
    names: set[str] = set()
    for directory in directories():
        try:
            names.update(path.stem for path in directory.glob("*.toml"))
        except OSError:
            continue
    return sorted(names)


def is_path(reference: str) -> bool:
    """Whether a profile is referred to by path; anything else is a name."""
    return "/" in reference or reference.endswith(".toml")


def find(reference: str) -> Path:
    """The file of a profile given by name or path; raises :class:`ProfileInvalid` where there is none."""
    if is_path(reference):
        return Path(reference)
    if not _NAME.fullmatch(reference):
        raise _nowhere(printable(reference), "not the name of a profile (letters, digits, dots, dashes, underscores)")
    candidates = [directory / f"{reference}.toml" for directory in directories()]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    meant = nearest(reference, known_profiles())
    places = " and ".join(map(str, candidates))
    raise _nowhere(reference, f"no such profile: looked for {places}" + (f"; did you mean {meant}?" if meant else ""))


def load(reference: str | Path, overrides: Sequence[str] = ()) -> Profile:
    """Load a profile by name (looked up) or path, with ``--set`` overrides such as ``punch.keepalive=2``.

    Raises :class:`ProfileInvalid` with every fault there is.
    """
    path = reference if isinstance(reference, Path) else find(reference)
    return parse(_read(path), path, overrides)


def parse(content: bytes, path: Path, overrides: Sequence[str] = ()) -> Profile:
    """A profile from the octets of its file; ``path`` names it in faults and gives it its name."""
    text = _decode(content, path)
    data = _parse_toml(text, path)
    source = Source(path, scan(text), frozenset(_override(data, overrides)))
    return _build(data, _UNSAFE.sub("-", path.stem), source)


def assemble(name: str, data: dict[str, object], overrides: Sequence[str] = ()) -> Profile:
    """A profile from values that stand in no file, shaped as tomllib would give them."""
    overridden = _override(data, overrides)
    return _build(data, name, Source(None, LineMap({}, 0), frozenset(overridden)))


def _build(data: dict[str, object], name: str, source: Source) -> Profile:
    document, findings = validate(data)
    checked = check(data)
    faults = {source.fault(where, message) for where, message in (*findings, *checked.faults)}
    if document is None or faults:
        raise ProfileInvalid(tuple(sorted(faults)))
    return Profile(
        name=name,
        interface=document.interface,
        identity=document.identity,
        peers=document.peer,
        rendezvous=document.rendezvous,
        punch=document.punch,
        listen=document.listen,
        server=document.server,
        auth=document.auth,
        legacy=document.legacy,
        source=source,
        warnings=tuple(source.fault(where, message) for where, message in checked.warnings),
    )


def _nowhere(reference: str, message: str) -> ProfileInvalid:
    return ProfileInvalid((Fault(reference, 0, "", message),))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_PROFILE + 1)
    except OSError as error:
        raise _nowhere(printable(str(path)), f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _nowhere(printable(str(path)), "no path: it holds a NUL character") from None
    return content


def _decode(content: bytes, path: Path) -> str:
    if len(content) > LARGEST_PROFILE:
        raise _at(path, 1, f"longer than {LARGEST_PROFILE} octets")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _at(path, content.count(b"\n", 0, error.start) + 1, "not UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LONGEST_LINE:
            raise _at(path, number, f"a line of more than {LONGEST_LINE} characters")
    return text


def _at(path: Path, line: int, message: str) -> ProfileInvalid:
    return ProfileInvalid((Fault(path.name, line, "", message),))


def _parse_toml(text: str, path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _at(path, _line_with_most(text, "[{"), "nested too deeply") from None
    except ValueError as error:
        match = _SYNTAX.fullmatch(str(error))
        if match is None:  # a number that Python refuses to convert
            raise _at(path, _line_with_most(text, "0123456789"), "a number with too many digits") from None
        line = int(match["line"]) if match["line"] else text.count("\n") + (not text.endswith("\n"))
        what = match["what"][:1].lower() + match["what"][1:]
        raise _at(path, max(line, 1), printable(what)) from None


def _line_with_most(text: str, characters: str) -> int:
    """The line most likely meant where a parser names none."""
    counts = [sum(map(line.count, characters)) for line in text.split("\n")]
    return counts.index(max(counts)) + 1


def _override(data: dict[str, object], overrides: Iterable[str]) -> list[KeyPath]:
    """Apply ``a.b[0].c=value``; a value that is no TOML is text. All that cannot be applied is said at once."""
    paths: list[KeyPath] = []
    faults: list[Fault] = []
    for override in overrides:
        key, separator, raw = override.partition("=")
        path = _override_path(key.strip())
        if not separator or path is None:
            # the part behind "=" is not repeated: it may hold what should not be shown
            faults.append(Fault("--set", 0, printable(key), "expected key=value, such as punch.keepalive=2"))
        elif (problem := _assign(data, path, _override_value(raw.strip()))) is not None:
            faults.append(Fault("--set", 0, dotted(path), problem))
        else:
            paths.append(path)
    if faults:
        raise ProfileInvalid(tuple(faults))
    return paths


def _override_path(key: str) -> KeyPath | None:
    path: list[str | int] = []
    for part in key.split("."):
        match = _OVERRIDE_PART.fullmatch(part)
        if match is None:
            return None
        path.append(match["key"])
        path.extend(int(index) for index in re.findall(r"\d+", match["indices"]))
    return tuple(path)


def _override_value(raw: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return raw
    return parsed["value"] if len(parsed) == 1 else raw


def _assign(data: dict[str, object], path: KeyPath, value: object) -> str | None:
    """Set one value in place; a sentence where the way there does not exist."""
    node: object = data
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        match node, part:
            case dict(), str():
                if last:
                    node[part] = value
                else:
                    node = node.setdefault(part, {})
            case list(), int() if part < len(node):
                if last:
                    node[part] = value
                else:
                    node = node[part]
            case list(), int():
                return f"there is no {dotted(path[: depth + 1])}: the profile has {len(node)}"
            case _:
                return f"{dotted(path[:depth])} is no {'list' if isinstance(part, int) else 'table'}"
    return None
