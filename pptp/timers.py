"""Timers as an enum and a table: a machine's timers are data, so that none can be armed twice or forgotten."""

from __future__ import annotations

from enum import Enum
from typing import Generic, TypeVar

KindT = TypeVar("KindT", bound=Enum)


class Timers(Generic[KindT]):
    """The armed timers of one machine: at most one deadline for each kind."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at: dict[KindT, float] = {}

    def arm(self, kind: KindT, at: float) -> None:
        """Set ``kind`` to fire at ``at``, replacing an earlier setting."""
        self._at[kind] = at

    def stop(self, kind: KindT) -> None:
        """Disarm ``kind``; harmless when it is not armed."""
        self._at.pop(kind, None)

    def stop_all(self) -> None:
        """Disarm every timer."""
        self._at.clear()

    def at(self, kind: KindT) -> float | None:
        """When ``kind`` fires, or ``None``."""
        return self._at.get(kind)

    def deadline(self) -> float | None:
        """The earliest armed deadline, or ``None``."""
        return min(self._at.values(), default=None)

    def pop_expired(self, now: float) -> list[KindT]:
        """Disarm and return the kinds that are due, the earliest first."""
        due = sorted((at, index) for index, at in enumerate(self._at.values()) if at <= now)
        kinds = list(self._at)
        expired = [kinds[index] for _, index in due]
        for kind in expired:
            del self._at[kind]
        return expired
