"""What is wrong with a profile, and where."""

from __future__ import annotations

from dataclasses import dataclass

KeyPath = tuple[str | int, ...]  # ("peer", 1, "mtu") is peer[1].mtu


def dotted(path: KeyPath) -> str:
    """A key path as faults show it and as ``--set`` takes it: ``peer[1].mtu``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault: the file and line (0: the place is not a line of a file), the key, and the sentence."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ProfileInvalid(Exception):
    """A profile that cannot be used; carries every fault that was found, in the order of the file."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
