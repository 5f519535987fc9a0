"""`user`: who may dial in by ordinary PPTP."""

from __future__ import annotations

import getpass
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grepunch import jsonvalue
from grepunch.cli.common import CommandT, emit, json_option
from grepunch.text import printable
from grepunch.verdict import SCHEMA, Verdict, VerdictKind, failure

if TYPE_CHECKING:
    from grepunch.ordinary.users import User

LONGEST_PASSWORD = 256  # characters; RFC 2759 section 8.1

EXAMPLES = """\b
Examples:
  grepunch-pptp user add alice
  grepunch-pptp user add bob --address 10.77.0.9
  grepunch-pptp user passwd alice < secret.txt
  grepunch-pptp user list
"""


def _users_option(command: CommandT) -> CommandT:
    from grepunch.config.profile import DEFAULT_USERS

    return click.option(
        "--users",
        "path",
        type=click.Path(path_type=Path),
        default=DEFAULT_USERS,
        show_default=True,
        metavar="FILE",
        help="The users file, auth.users of the server's profile.",
    )(command)


@click.group(epilog=EXAMPLES)
def user() -> None:
    """Who may dial in by ordinary PPTP.

    A password is asked for on the terminal, or is the first line of standard
    input. The file keeps its NT hash, which is as good as the password.
    """


@user.command(epilog="\b\nExample:\n  grepunch-pptp user add alice --address 10.77.0.9\n")
@click.argument("name")
@click.option("--address", metavar="IP", help="An address of her own, inside or outside the pool.")
@click.option("--keep-password", is_flag=True, help="Keep the password itself: CHAP with MD5 needs it.")
@_users_option
def add(name: str, address: str | None, keep_password: bool, path: Path) -> None:
    """Add the user NAME; the file is made where there is none."""
    users = _read(path, missing_is_empty=True)
    if name in users:
        raise click.UsageError(f"{printable(name)} is there already; `user passwd` sets another password.")
    users[name] = _make(name, keep_password, _address(address))
    _write(path, users)


@user.command(epilog="\b\nExample:\n  grepunch-pptp user passwd alice\n")
@click.argument("name")
@click.option("--keep-password", is_flag=True, help="Keep the password itself: CHAP with MD5 needs it.")
@_users_option
def passwd(name: str, keep_password: bool, path: Path) -> None:
    """Give the user NAME another password. Sessions that are up stay up."""
    users = _read(path)
    known = _known(users, name)
    users[name] = _make(name, keep_password or known.credential.password is not None, known.address)
    _write(path, users)


@user.command(epilog="\b\nExample:\n  grepunch-pptp user remove alice\n")
@click.argument("name")
@_users_option
def remove(name: str, path: Path) -> None:
    """Remove the user NAME. Sessions that are up stay up."""
    users = _read(path)
    del users[_known(users, name).name]
    _write(path, users)


@user.command(name="list", epilog="\b\nExample:\n  grepunch-pptp user list --json\n")
@_users_option
@json_option
def list_users(path: Path, as_json: bool) -> Verdict:
    """Who there is, and with which address."""
    users = _read(path)
    if as_json:
        rows = [
            jsonvalue.record(one, leave_out=("credential",)) | {"password_kept": one.credential.password is not None}
            for one in users.values()
        ]
        emit(jsonvalue.line({"schema": SCHEMA, "users": rows}))
    else:
        for one in users.values():
            emit("\t".join(filter(None, (printable(one.name), str(one.address or "")))))
    return Verdict(VerdictKind.UP)


def _read(path: Path, *, missing_is_empty: bool = False) -> dict[str, User]:
    from grepunch.ordinary.users import UsersInvalid, read_users

    if missing_is_empty and not path.exists():
        return {}
    try:
        return dict(read_users(path))
    except UsersInvalid as invalid:
        raise failure(VerdictKind.PROFILE_INVALID, str(invalid), "Correct or remove the file.") from None


def _write(path: Path, users: dict[str, User]) -> None:
    from grepunch.ordinary.users import UsersInvalid, write_users

    try:
        write_users(path, users.values())
    except UsersInvalid as invalid:
        raise click.UsageError(str(invalid)) from None


def _known(users: dict[str, User], name: str) -> User:
    if name not in users:
        raise click.UsageError(f"there is no user {printable(name)}; see `user list`.")
    return users[name]


def _make(name: str, keep_password: bool, address: IPv4Address | None) -> User:
    from grepunch.ordinary.users import User, UsersInvalid

    try:
        return User.of_password(name, _password(name), keep_password=keep_password, address=address)
    except UsersInvalid as invalid:
        raise click.UsageError(f"{invalid}.") from None


def _password(name: str) -> str:
    if sys.stdin.isatty():
        first = getpass.getpass(f"Password of {printable(name)}: ")
        if getpass.getpass("Again: ") != first:
            raise click.UsageError("the two are not the same.")
        password = first
    else:
        password = sys.stdin.readline(LONGEST_PASSWORD * 4).rstrip("\r\n")
    if len(password) > LONGEST_PASSWORD:
        raise click.UsageError(f"a password has at most {LONGEST_PASSWORD} characters.")
    return password


def _address(text: str | None) -> IPv4Address | None:
    try:
        return IPv4Address(text) if text is not None else None
    except ValueError:
        raise click.UsageError(f"{text!r} is no IPv4 address.") from None
