"""Who may come in: what the authenticators of PAP and CHAP know of their users, and how a peer's name finds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from pptp.crypto.legacy import NT_HASH_SIZE, nt_password_hash
from pptp.errors import UsageError
from pptp.value import value

_HASH_OF_NOTHING = nt_password_hash("")


@value
class Credential:
    """What proves a user: always the NT hash, and the password itself where it is known.

    PAP and MS-CHAPv2 get on with the hash, CHAP with MD5 does not. Made when users are read, not when one comes, so
    that no more work is done for one user than for another. Never printed.
    """

    nt_hash: bytes = field(repr=False)
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what would let anyone in."""
        if len(self.nt_hash) != NT_HASH_SIZE:
            raise UsageError(f"an NT hash has {NT_HASH_SIZE} octets, not {len(self.nt_hash)}")
        if self.nt_hash == _HASH_OF_NOTHING or self.password == "":
            raise UsageError("an empty password is no password")

    @classmethod
    def of_password(cls, password: str) -> Credential:
        """From the password; raises :class:`UsageError` for an empty one."""
        return cls(nt_password_hash(password), password)

    @classmethod
    def of_nt_hash(cls, nt_hash: bytes) -> Credential:
        """From 16 octets that someone else computed; raises :class:`UsageError` for the hash of nothing."""
        return cls(nt_hash)


# ours: stands in for a user there is not, so that refusing one takes the same work
_NOBODY = Credential(bytes(NT_HASH_SIZE))

Lookup = Callable[[str], Credential | None]
"""The credential of a user by name; ``None`` for a user there is not, never an exception."""


@value
class Claim:
    """A peer's name and what is known of it. ``credential`` is there for unknown users too, and proves nobody."""

    name: str
    known: bool
    credential: Credential


@value
class Users:
    """The users of one authenticator.

    With ``strip_domain`` a user of a Windows domain, ``DOMAIN\\user``, is looked up as ``user``.
    """

    lookup: Lookup
    strip_domain: bool = True

    def find(self, name: bytes) -> Claim | None:
        """Who claims to come; ``None`` for a name that is empty, or empty behind its domain."""
        wanted = without_domain(name) if self.strip_domain else name
        if not without_domain(name):
            return None
        text = wanted.decode("utf-8", "backslashreplace")
        credential = self.lookup(text)
        return Claim(text, credential is not None, credential or _NOBODY)


def without_domain(name: bytes) -> bytes:
    """The user in ``DOMAIN\\user`` (RFC 2759 section 4)."""
    return name.rpartition(b"\\")[2]
