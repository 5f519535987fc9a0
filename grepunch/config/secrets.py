"""Secrets by reference: a profile says where a secret is, never what it is.

``{ file = "…" }``, ``{ credential = "…" }`` (systemd's, in $CREDENTIALS_DIRECTORY), ``{ env = "…" }`` or
``{ prompt = true }``.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from pptp.value import value

LARGEST_SECRET = 4096  # octets; a key is 44, a passphrase some dozens


class SecretUnavailable(Exception):
    """A secret that cannot or must not be read; the sentence says why, and nothing of the secret."""


@value
class SecretFile:
    """``{ file = "…" }``: ours alone to read; a relative path starts at the profile's directory."""

    path: Path


@value
class SecretCredential:
    """``{ credential = "…" }``: a name in $CREDENTIALS_DIRECTORY."""

    name: str


@value
class SecretVariable:
    """``{ env = "…" }``: an environment variable."""

    name: str


@value
class SecretPrompt:
    """``{ prompt = true }``: asked for on the terminal, without echo."""


SecretReference = SecretFile | SecretCredential | SecretVariable | SecretPrompt


def describe(reference: SecretReference) -> dict[str, object]:
    """The reference as the profile writes it."""
    match reference:
        case SecretFile(path):
            return {"file": str(path)}
        case SecretCredential(name):
            return {"credential": name}
        case SecretVariable(name):
            return {"env": name}
        case SecretPrompt():
            return {"prompt": True}


def read_secret(
    reference: SecretReference, *, base: Path, label: str, ask: Callable[[str], str] = getpass.getpass
) -> bytes:
    """Read the secret; ``base`` is the directory of the profile, ``label`` names it in a prompt.

    Raises :class:`SecretUnavailable`.
    """
    match reference:
        case SecretFile(path):
            return _read_file(base / path, credential=False)
        case SecretCredential(name):
            directory = os.environ.get("CREDENTIALS_DIRECTORY")
            if not directory:
                raise SecretUnavailable(
                    f"credential {name}: $CREDENTIALS_DIRECTORY is not set (systemd sets it where the unit says "
                    f"LoadCredential={name}:…)"
                )
            return _read_file(Path(directory) / name, credential=True)
        case SecretVariable(name):
            value = os.environ.get(name)
            if not value:
                raise SecretUnavailable(f"the environment variable {name} is not set, or empty")
            return value.strip().encode()
        case SecretPrompt():
            if not sys.stdin.isatty():
                raise SecretUnavailable("prompt = true needs a terminal, and standard input is none")
            return ask(f"{label}: ").strip().encode()


def _read_file(path: Path, *, credential: bool) -> bytes:
    """The content without surrounding white space, after the checks on what was opened and not on what was named.

    A credential was put there by systemd, whose access lists show up as group permissions: only the world is refused.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        hint = ", or a symbolic link, which is not followed" if path.is_symlink() else ""
        raise SecretUnavailable(f"cannot open {path}: {error.strerror}{hint}") from None
    except ValueError:
        raise SecretUnavailable("the path holds a NUL character") from None
    try:
        _refuse_unsafe(path, os.fstat(descriptor), credential=credential)
        content = os.read(descriptor, LARGEST_SECRET + 1)
    except OSError as error:
        raise SecretUnavailable(f"cannot read {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(content) > LARGEST_SECRET:
        raise SecretUnavailable(f"{path} is longer than {LARGEST_SECRET} octets")
    if not (content := content.strip()):
        raise SecretUnavailable(f"{path} is empty")
    return content


def _refuse_unsafe(path: Path, status: os.stat_result, *, credential: bool) -> None:
    """Only a regular file of ours that nobody else can get at will do."""
    if not stat.S_ISREG(status.st_mode):
        raise SecretUnavailable(f"{path} is not a regular file")
    if not credential and status.st_uid != os.geteuid():
        raise SecretUnavailable(f"{path} belongs to user {status.st_uid}, and this program runs as user {os.geteuid()}")
    if status.st_mode & (stat.S_IRWXO if credential else stat.S_IRWXG | stat.S_IRWXO):
        raise SecretUnavailable(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so others can get at it: chmod 600 {path}"
        )
