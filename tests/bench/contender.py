"""What every contender has in common: what it needs, how it is prepared and started on the two hosts of a site."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from grepunch.lab.requirements import SYSTEM_PATH
from tests.bench.wire import Site

INNER_NETWORK = "10.99.0.0/24"  # the left host has its first address, the right host the next


class Contender(ABC):
    """One way to connect the two hosts. ``name`` is its word in JSON and on the command line.

    ``setting`` is what was chosen for it, in the words of its own configuration. ``inner_mtu`` is the largest inner
    packet that its packets carry within an outer MTU of 1500, by its own sum; 0 where it finds that itself.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    setting: ClassVar[str]
    inner_mtu: ClassVar[int]

    @abstractmethod
    def missing(self) -> str:
        """What this machine lacks for it and how to get it; empty where nothing."""

    @abstractmethod
    def version(self) -> str:
        """The version at hand."""

    @abstractmethod
    def prepare(self, site: Site) -> None:
        """Make keys and configuration: what a user does once, and nobody times."""

    @abstractmethod
    def start(self, site: Site) -> None:
        """Start both endpoints and return as soon as they may carry packets, or before."""


def find(name: str) -> str | None:
    """The path of a program; an ordinary user's PATH on Debian has no sbin."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def write_secret(path: Path, content: str | bytes) -> Path:
    """Write a file that only its owner may read."""
    data = content.encode() if isinstance(content, str) else content
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    return path
