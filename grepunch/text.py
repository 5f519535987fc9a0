"""Text for people: what strangers wrote made harmless, and figures made short."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 200  # ours, because one line of a log or a terminal should stay one


def printable(text: str, limit: int = LONGEST) -> str:
    """``text`` with everything but printable characters escaped, and cut to ``limit`` characters.

    For whatever a peer, a rendezvous or a file of someone else's said: no escape sequence reaches the terminal, no
    newline forges a line of the log.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be, or None."""
    matches = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``, ``4 d 3 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def octets(count: int) -> str:
    """A number of octets in binary units: ``512 B``, ``1.5 KiB``, ``20.0 MiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
