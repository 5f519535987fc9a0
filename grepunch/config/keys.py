"""The keys a profile refers to, fetched and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from grepunch.config.faults import Fault, KeyPath, ProfileInvalid, dotted
from grepunch.config.profile import Profile
from grepunch.config.rules import read_key
from grepunch.config.secrets import SecretPrompt, SecretReference, SecretUnavailable, SecretVariable, read_secret
from pptp.value import value


@value
class Keys:
    """What a profile's references led to; printing it shows the public key alone."""

    private_key: bytes = field(repr=False)
    public_key: bytes
    preshared_keys: Mapping[str, bytes] = field(repr=False)
    """By peer name; a peer without one is absent."""


@value
class Secrets:
    """All that a profile's references lead to: the keys where it has peers, the password where it has a server."""

    keys: Keys | None
    password: str = field(default="", repr=False)


def read_secrets(profile: Profile) -> Secrets:
    """Fetch everything that running the profile needs; raises :class:`ProfileInvalid` with all that is wrong."""
    faults: list[Fault] = []
    keys = None
    if profile.peers:
        try:
            keys = read_keys(profile)
        except ProfileInvalid as invalid:
            faults += invalid.faults
    password = _password(profile, faults, prompts=True) if profile.server is not None else ""
    if faults:
        raise ProfileInvalid(tuple(sorted(faults)))
    return Secrets(keys, password)


def read_keys(profile: Profile) -> Keys:
    """Fetch the private key and every pre-shared key; raises :class:`ProfileInvalid` with all that is wrong."""
    collected = _collect(profile, prompts=True)
    if collected.faults or collected.private_key is None or collected.public_key is None:
        raise ProfileInvalid(tuple(sorted(collected.faults)))
    return Keys(collected.private_key, collected.public_key, collected.preshared_keys)


def check_keys(profile: Profile) -> tuple[Fault, ...]:
    """What is wrong with the keys, password and users a profile refers to, as far as it can be told without asking."""
    faults = _collect(profile, prompts=False).faults
    if profile.server is not None:
        _password(profile, faults, prompts=False)
    if profile.listen is not None:
        faults += _users(profile)
    return tuple(sorted(faults))


def users_file(profile: Profile) -> Path:
    """Where the users are: a relative path starts at the profile's directory."""
    return (profile.source.path.parent if profile.source.path else Path()) / profile.auth.users


def _users(profile: Profile) -> list[Fault]:
    from grepunch.ordinary.users import UsersInvalid, read_users

    try:
        read_users(users_file(profile))
    except UsersInvalid as invalid:
        return [profile.source.fault(("auth", "users"), line) for line in str(invalid).splitlines()]
    return []


def _password(profile: Profile, faults: list[Fault], *, prompts: bool) -> str:
    """The password of a client; empty with a fault noted, or where it would have to be asked for."""
    where: KeyPath = ("auth", "password")
    reference = profile.auth.password
    if reference is None or (isinstance(reference, SecretPrompt) and not prompts):
        return ""
    base = profile.source.path.parent if profile.source.path else Path()
    try:
        secret = read_secret(reference, base=base, label=f"Password of {profile.auth.user}")
        password = secret.decode("utf-8")
        if not password:
            raise SecretUnavailable("an empty password is no password")
    except SecretUnavailable as error:
        faults.append(profile.source.fault(where, str(error)))
        return ""
    except UnicodeDecodeError:
        faults.append(profile.source.fault(where, "what it leads to is not UTF-8"))
        return ""
    return password


def secret_variables(profile: Profile) -> frozenset[str]:
    """The environment variables that the profile takes secrets from: no child process is to inherit them."""
    references = [profile.auth.password, *(peer.preshared_key for peer in profile.peers)]
    if profile.identity is not None:
        references.append(profile.identity.private_key)
    return frozenset(reference.name for reference in references if isinstance(reference, SecretVariable))


@dataclass(slots=True)
class _Collected:
    """What could be fetched, and what is wrong with the rest."""

    private_key: bytes | None = field(default=None, repr=False)
    public_key: bytes | None = None
    preshared_keys: dict[str, bytes] = field(default_factory=dict, repr=False)
    faults: list[Fault] = field(default_factory=list)


def _collect(profile: Profile, *, prompts: bool) -> _Collected:
    """Fetch every key; references that would ask for one are left out unless ``prompts``."""
    # Delayed, because importing a cipher library is a good part of the start-up and only this needs it.
    from grepunch.secure.identity import public_key

    got = _Collected()
    where: KeyPath = ("identity", "private_key")
    if profile.identity is not None:
        got.private_key = _fetch(profile, profile.identity.private_key, where, got.faults, prompts=prompts)
    got.public_key = public_key(got.private_key) if got.private_key is not None else None
    for index, peer in enumerate(profile.peers):
        if peer.public_key == got.public_key:
            fault = "our own key: here stands the public key of the peer"
            got.faults.append(profile.source.fault(("peer", index, "public_key"), fault))
        if peer.preshared_key is not None:
            where = ("peer", index, "preshared_key")
            key = _fetch(profile, peer.preshared_key, where, got.faults, prompts=prompts)
            if key is not None:
                got.preshared_keys[peer.name] = key
    return got


def _fetch(
    profile: Profile, reference: SecretReference, where: KeyPath, faults: list[Fault], *, prompts: bool
) -> bytes | None:
    """The 32 octets of one key; None with a fault noted, or where it would have to be asked for."""
    if isinstance(reference, SecretPrompt) and not prompts:
        return None
    base = profile.source.path.parent if profile.source.path else Path()
    try:
        secret = read_secret(reference, base=base, label=f"{profile.name}: {dotted(where)}")
    except SecretUnavailable as error:
        faults.append(profile.source.fault(where, str(error)))
        return None
    key = read_key(secret.decode("utf-8", "replace"))
    if key is None:
        faults.append(profile.source.fault(where, "what it leads to is no key (32 octets in base64, on one line)"))
    return key
