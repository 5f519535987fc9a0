"""What worked last time: for each network of ours and each peer the path that won, so that it is tried first.

It orders and never gates: everything else is tried as well, a moment later, and two sides that remember differently
meet all the same, because every form is opened at once and a probe that is heard is answered in its own. So nothing
here has to be right, and nothing needs a clock: entries are kept in the order in which they were won, and the oldest
goes first.

A place is 16 octets that stand for a network and a peer. They are derived under the secret of the two static keys (see
:func:`grepunch.secure.derive.place_id`), so that whoever reads the file learns neither where its owner has been nor
whom he talks to: there are too few IPv4 addresses for a plain hash to hide them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from grepunch.ports import Form
from pptp.value import value

PLACE_SIZE = 16

# ours: of a file that another version has written nothing is known
VERSION = 1
# ours: more places than a traveller comes back to, and little enough to be read in a millisecond
MAX_WINNERS = 128
MAX_OCTETS = 16384


class Unreadable(ValueError):
    """These octets hold no winners of this version; the text says why."""


@value
class Winner:
    """The path that won: in which form, and whether the NATs on it had been shown a PPTP call (mirrored), an outgoing
    one."""

    form: Form
    mirrored: bool = False
    outgoing: bool = False

    def __str__(self) -> str:
        return f"{self.form}{', mirrored' if self.mirrored else ''}{', outgoing call' if self.outgoing else ''}"


@value
class Winners:
    """Places and what won there, the latest last; at most ``MAX_WINNERS``."""

    entries: tuple[tuple[bytes, Winner], ...] = ()

    def at(self, place: bytes) -> Winner | None:
        """What won there the last time."""
        return next((winner for known, winner in reversed(self.entries) if known == place), None)

    def with_winner(self, place: bytes, winner: Winner) -> Winners:
        """The same with one more, which takes the place of an earlier one and, where there are too many, of the
        oldest."""
        others = tuple(entry for entry in self.entries if entry[0] != place)
        return Winners((*others, (place, winner))[-MAX_WINNERS:])


def usable(winner: Winner | None, forms: Sequence[Form]) -> Winner | None:
    """The winner, if it can win again: its form is among those that are tried."""
    return winner if winner is not None and winner.form in forms else None


def ordered(forms: Sequence[Form], winner: Winner | None) -> tuple[Form, ...]:
    """The same forms, the winner's first."""
    return tuple(sorted(forms, key=lambda form: winner is None or form is not winner.form))


def encode(winners: Winners) -> bytes:
    """The octets of a file."""
    rows = [_row(place, winner) for place, winner in winners.entries]
    return json.dumps({"version": VERSION, "winners": rows}, separators=(",", ":")).encode() + b"\n"


def decode(content: bytes) -> Winners:
    """The winners in a file, all or none; raises :class:`Unreadable`."""
    if len(content) > MAX_OCTETS:
        raise Unreadable(f"longer than {MAX_OCTETS} octets")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise Unreadable("no JSON") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise Unreadable(f"not of version {VERSION}")
    rows = document.get("winners")
    if not isinstance(rows, list) or len(rows) > MAX_WINNERS:
        raise Unreadable(f"no list of at most {MAX_WINNERS} winners")
    winners = Winners()
    for row in rows:
        winners = winners.with_winner(*_entry(row))
    return winners


def _row(place: bytes, winner: Winner) -> dict[str, object]:
    row: dict[str, object] = {"place": place.hex(), "form": str(winner.form), "mirrored": winner.mirrored}
    return row | {"outgoing": True} if winner.outgoing else row


def _entry(row: object) -> tuple[bytes, Winner]:
    match row:
        case {"place": str(place), "form": str(form), "mirrored": bool(mirrored), **more}:
            outgoing = more.get("outgoing") is True
        case _:
            raise Unreadable("an entry without place, form and mirrored")
    try:
        octets, known = bytes.fromhex(place), Form(form)
    except ValueError:
        raise Unreadable("an entry with an unknown form, or a place that is no hexadecimal number") from None
    if len(octets) != PLACE_SIZE:
        raise Unreadable(f"a place is {PLACE_SIZE} octets")
    return octets, Winner(known, mirrored, mirrored and outgoing)
