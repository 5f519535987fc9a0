"""Debian packages in a cache: found in apt's signed indices, verified against them, unpacked, never installed.

Names come from apt's own lists, so a machine gets what its release has today; :class:`Package` says which version and
which SHA-256 that was.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURE = "amd64"
_DOWNLOAD_TIMEOUT = 600.0  # ours: seconds for a hundred megabytes over a slow line
# 'address' file-name size SHA256:digest, as `apt-get --print-uris` writes a line
_URI_LINE = re.compile(
    r"^'(?P<address>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$", re.MULTILINE
)
_DEPENDS = re.compile(r"^ {2}(?:Pre)?Depends: (?P<name>[^<\s]\S*)$", re.MULTILINE)


class PackagesUnavailable(RuntimeError):
    """apt does not know a package, or could not fetch it; the text has its words and what to try."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package as the signed index has it: name, version, size in octets, SHA-256 in hexadecimal digits."""

    name: str
    version: str
    file: str
    size: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """For the manifest and the matrix."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


def libraries(names: Iterable[str]) -> list[str]:
    """``names`` and every library package that they need, and these need, in the order in which they were met.

    What is no library (debconf, procps, …) is for an installed system, and left out.
    """
    found = list(dict.fromkeys(names))
    asked = 0
    while asked < len(found):
        batch, asked = found[asked:], len(found)
        for name in depended_on(_apt("apt-cache", "depends", "--important", *batch)):
            if name.startswith("lib") and "pam-" not in name and name not in found:
                found.append(name)
    return found


def depended_on(text: str) -> list[str]:
    """The packages that the output of ``apt-cache depends`` names, the first one of alternatives."""
    lines = text.splitlines()
    # "|" marks an alternative of which another follows: the last one of the group has no mark
    kept = [line.replace("|", " ", 1) for n, line in enumerate(lines) if n == 0 or not lines[n - 1].startswith(" |")]
    return list(dict.fromkeys(match["name"] for match in _DEPENDS.finditer("\n".join(kept))))


def kernel() -> str:
    """The package of the release's own kernel, through the one that always depends on it."""
    for name in depended_on(_apt("apt-cache", "depends", "--important", f"linux-image-{ARCHITECTURE}")):
        if name.startswith("linux-image-"):
            return name
    raise PackagesUnavailable(f"linux-image-{ARCHITECTURE} depends on no kernel")


def look_up(names: Iterable[str]) -> list[Package]:
    """What the signed indices say of these packages."""
    text = _apt("apt-get", "download", "--print-uris", *(f"{name}:{ARCHITECTURE}" for name in names))
    return parse_uris(text)


def parse_uris(text: str) -> list[Package]:
    """The packages of ``apt-get download --print-uris``."""
    packages = []
    for match in _URI_LINE.finditer(text):
        name, version, _ = match["file"].split("_")
        version = version.replace("%3a", ":")
        packages.append(Package(name, version, match["file"], int(match["size"]), match["sha256"]))
    return packages


def fetch(packages: Iterable[Package], directory: Path) -> None:
    """Download what ``directory`` lacks and check all of it. Raises :class:`PackagesUnavailable`."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = list(packages)
    missing = [package for package in wanted if digest(directory / package.file) != package.sha256]
    if missing:
        # apt's own unprivileged user cannot write here
        options = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()
        _apt(
            "apt-get",
            "download",
            "-q",
            *options,
            *(f"{p.name}:{ARCHITECTURE}={p.version}" for p in missing),
            at=directory,
        )
    for package in missing:
        if digest(directory / package.file) != package.sha256:
            raise PackagesUnavailable(f"{package.file}: not the file that the signed index describes; try again")


def digest(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits; nothing where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, directory: Path) -> None:
    """A package's files below ``directory``."""
    subprocess.run(["dpkg", "-x", str(archive), str(directory)], check=True)


def _apt(command: str, *arguments: str, at: Path | None = None) -> str:
    """Run apt; where root's lists are missing or old, once more after an update."""
    if shutil.which(command) is None:
        raise PackagesUnavailable(f"there is no {command} on this machine: the guest is made from Debian's packages")
    update = ["apt-get", "update", "-q"]
    for attempt in range(2):
        done = subprocess.run(
            [command, *arguments], cwd=at, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT, check=False
        )
        if done.returncode == 0:
            return done.stdout
        if attempt == 0 and os.geteuid() == 0:
            subprocess.run(update, capture_output=True, timeout=_DOWNLOAD_TIMEOUT, check=False)
        else:
            break
    hint = "" if os.geteuid() == 0 else "; try: sudo apt-get update"
    raise PackagesUnavailable(f"{command} {' '.join(arguments)}: {done.stderr.strip()}{hint}")
