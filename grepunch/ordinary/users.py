"""The users file: who may dial in. A TOML file of its own, mode 0600, read as a whole and written as a whole.

::

    [[user]]
    name = "alice"
    nt_hash = "8846f7eaee8fb117ad06bdd830b7586c"
    address = "10.77.0.9"      # hers alone; without it, one of the pool
    password = "..."           # in clear, kept only where CHAP with MD5 needs it

An NT hash is as good as the password for PPTP (it is not salted, and MS-CHAPv2 proves the hash), so whoever can read
the file can log in: a file that others can get at is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType

from grepunch.config.ordinary_rules import LONGEST_USER, is_user_name
from grepunch.config.rules import ADDRESS, Refused, repr_toml
from grepunch.text import nearest, printable
from pptp.crypto.legacy import nt_password_hash
from pptp.errors import UsageError
from pptp.ppp.credentials import Credential
from pptp.value import value

# ours
LARGEST_FILE = 4 << 20  # octets; some ten thousand users
_HEADER = (
    "# The users of ordinary PPTP, kept by `grepunch-pptp user`. As good as their passwords: mode 0600, no copies.\n"
)
_KEYS = ("name", "nt_hash", "password", "address")
_EXPOSED = stat.S_IRWXG | stat.S_IRWXO


class UsersInvalid(Exception):
    """A users file that cannot be used; one sentence a line, without anything secret."""


@value
class User:
    """One user. ``address`` is reserved for this user."""

    name: str
    credential: Credential = field(repr=False)
    address: IPv4Address | None = None

    @classmethod
    def of_password(
        cls, name: str, password: str, *, keep_password: bool = False, address: IPv4Address | None = None
    ) -> User:
        """From a password, of which the hash stays, and the text where ``keep_password``.

        Raises :class:`UsersInvalid` for a name or password that cannot be.
        """
        if not is_user_name(name):
            raise UsersInvalid(f"a user name has 1 to {LONGEST_USER} printable characters: {printable(repr(name))}")
        try:
            hashed = nt_password_hash(password)
            return cls(name, Credential(hashed, password if keep_password else None), address)
        except (UsageError, UnicodeError):
            raise UsersInvalid("an empty password is no password, and it has to be Unicode text") from None


Users = Mapping[str, User]


def read_users(path: Path) -> Users:
    """The users by name; raises :class:`UsersInvalid` with everything that is wrong."""
    return parse_users(_read(path), path)


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        hint = ", or a symbolic link, which is not followed" if path.is_symlink() else ""
        raise UsersInvalid(f"{path}: cannot be opened: {error.strerror}{hint}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsersInvalid(f"{path}: is not a regular file")
        # systemd hands a credential to a user that does not own it, by an access list that shows up as group permission
        credential = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/nowhere")
        if not credential and status.st_uid != os.geteuid():
            raise UsersInvalid(f"{path}: belongs to user {status.st_uid}, and this program runs as user {os.geteuid()}")
        if status.st_mode & (stat.S_IRWXO if credential else _EXPOSED):
            mode = stat.S_IMODE(status.st_mode)
            raise UsersInvalid(f"{path}: has mode {mode:04o}, so others can get at it: chmod 600 {path}")
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise UsersInvalid(f"{path}: is longer than {LARGEST_FILE} octets")
    return content


def parse_users(content: bytes, path: Path) -> Users:
    """The users of a file's octets; ``path`` names it in what is wrong."""
    try:
        document = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        where = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8, or no TOML"
        raise UsersInvalid(f"{path}: {printable(where)}") from None
    users: dict[str, User] = {}
    faults = [f"{printable(key)}: unknown: users stand in [[user]]" for key in document if key != "user"]
    tables = document.get("user", [])
    if not isinstance(tables, list):
        faults.append("user: expected [[user]] tables")
        tables = []
    addresses: dict[IPv4Address, str] = {}
    for index, table in enumerate(tables):
        try:
            user = _user(table)
            if user.name in users:
                raise UsersInvalid(f"name: {printable(user.name)} is there twice")
            if user.address is not None:
                other = addresses.setdefault(user.address, user.name)
                if other != user.name:
                    raise UsersInvalid(f"address: {user.address} is {printable(other)}'s already")
        except UsersInvalid as fault:
            faults.append(f"user[{index}].{fault}")
        else:
            users[user.name] = user
    if faults:
        raise UsersInvalid("\n".join(f"{path}: {fault}" for fault in faults))
    return MappingProxyType(users)


def _user(table: object) -> User:
    if not isinstance(table, dict):
        raise UsersInvalid("expected a table")
    for key in table:
        if key not in _KEYS:
            meant = nearest(key, _KEYS)
            raise UsersInvalid(f"{printable(key)}: unknown key" + (f": did you mean {meant}?" if meant else ""))
    name, hashed, password = table.get("name"), table.get("nt_hash"), table.get("password")
    if not isinstance(name, str) or not is_user_name(name):
        raise UsersInvalid(f"name: expected 1 to {LONGEST_USER} printable characters")
    if hashed is None and password is None:
        raise UsersInvalid("nt_hash: is missing")
    if password is not None and not isinstance(password, str):
        raise UsersInvalid("password: expected text")
    try:
        octets = nt_password_hash(password) if password is not None else bytes.fromhex(str(hashed))
        if hashed is not None and bytes.fromhex(str(hashed)) != octets:
            raise UsersInvalid("nt_hash: is not the hash of the password beside it")
        credential = Credential(octets, password)
    except (ValueError, UsageError):
        raise UsersInvalid("nt_hash: expected 32 hexadecimal digits, and not those of an empty password") from None
    try:
        address = ADDRESS.read(table["address"]) if "address" in table else None
    except Refused as refused:
        raise UsersInvalid(f"address: {refused}, got {repr_toml(table['address'])}") from None
    return User(name, credential, address if isinstance(address, IPv4Address) else None)


def render_users(users: Iterable[User]) -> str:
    """The file that holds these users."""
    return _HEADER + "".join(_render(user) for user in users)


def _render(user: User) -> str:
    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    lines = ["", "[[user]]", f"name = {text(user.name)}", f'nt_hash = "{user.credential.nt_hash.hex()}"']
    if user.credential.password is not None:
        lines.append(f"password = {text(user.credential.password)}")
    if user.address is not None:
        lines.append(f'address = "{user.address}"')
    return "\n".join(lines) + "\n"


def write_users(path: Path, users: Iterable[User]) -> None:
    """Replace the file in one step, readable by its owner alone; raises :class:`UsersInvalid`."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(render_users(users))
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise UsersInvalid(f"{path}: cannot be written: {error.strerror}") from None


class UserDirectory:
    """The users of a running server: read again when the file has changed, kept when the new one is at fault."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`UsersInvalid`."""
        self._path = path
        self._seen = self._mark()
        self.users = read_users(path)

    def refresh(self) -> str | None:
        """Read the file again if it is another one now; a sentence where it cannot be used. For every new client."""
        mark = self._mark()
        if mark == self._seen:
            return None
        self._seen = mark
        try:
            self.users = read_users(self._path)
        except UsersInvalid as invalid:
            return f"the users stay as they were: {invalid}"
        return None

    def credential(self, name: str) -> Credential | None:
        """What proves the user of this name (a ``Lookup`` of :mod:`pptp.ppp.credentials`)."""
        user = self.users.get(name)
        return user.credential if user is not None else None

    def reserved(self) -> dict[IPv4Address, str]:
        """The addresses that belong to one user each."""
        return {user.address: user.name for user in self.users.values() if user.address is not None}

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size
