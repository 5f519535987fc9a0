"""`genkey` and `pubkey`."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import click

from grepunch.cli.common import emit
from grepunch.config.secrets import SecretFile, SecretUnavailable, read_secret
from grepunch.text import printable
from grepunch.verdict import VerdictKind, failure

GENKEY_EXAMPLES = """\b
Examples:
  grepunch-pptp genkey /etc/grepunch-pptp/me.key
  (umask 077; grepunch-pptp genkey > me.key)
"""

PUBKEY_EXAMPLES = """\b
Examples:
  grepunch-pptp pubkey /etc/grepunch-pptp/me.key
  grepunch-pptp pubkey < me.key
"""


@click.command(epilog=GENKEY_EXAMPLES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
def genkey(file: Path | None) -> None:
    """Make a private key.

    With FILE it is written there, readable by you alone, and the public key is
    printed. Without, the private key itself is printed.
    """
    from grepunch.secure.identity import encode_key, generate_private_key, public_key

    private = generate_private_key(os.urandom)
    if file is None:
        status = os.fstat(sys.stdout.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            click.echo("warning: others can read the file this goes to: chmod 600 it", err=True)
        emit(encode_key(private))
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{file} exists already, and a key is not overwritten.") from None
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror}.") from None
    with os.fdopen(descriptor, "w") as stream:
        stream.write(encode_key(private) + "\n")
    emit(encode_key(public_key(private)))


@click.command(epilog=PUBKEY_EXAMPLES)
@click.argument("file", required=False, type=click.Path(path_type=Path))
def pubkey(file: Path | None) -> None:
    """Print the public key of the private key in FILE, or on standard input.

    The public key is what the other side's profile names.
    """
    from grepunch.config.rules import read_key
    from grepunch.secure.identity import encode_key, public_key

    try:
        text = read_secret(SecretFile(file), base=Path(), label="") if file else sys.stdin.buffer.readline(4096).strip()
    except SecretUnavailable as error:
        raise failure(
            VerdictKind.PROFILE_INVALID, printable(str(error)), "Name a file of yours with mode 0600."
        ) from None
    private = read_key(text.decode("utf-8", "replace"))
    if private is None:
        raise failure(
            VerdictKind.PROFILE_INVALID,
            "that is no key (32 octets in base64, on one line)",
            "Make one with `grepunch-pptp genkey`.",
        )
    emit(encode_key(public_key(private)))
