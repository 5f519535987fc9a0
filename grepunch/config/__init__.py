"""Profiles: TOML files, read once, validated as a whole, frozen.

``load`` is the way in; ``read_keys`` fetches the secrets that a profile only refers to.
"""

from grepunch.config.faults import Fault, ProfileInvalid
from grepunch.config.keys import (
    Keys,
    Secrets,
    check_keys,
    read_keys,
    read_secrets,
    secret_variables,
    users_file,
)
from grepunch.config.loading import assemble, find, known_profiles, load
from grepunch.config.profile import Identity, Interface, Peer, Profile, Punch, Rendezvous
from grepunch.config.secrets import (
    SecretCredential,
    SecretFile,
    SecretPrompt,
    SecretReference,
    SecretVariable,
)

__all__ = [
    "Fault",
    "Identity",
    "Interface",
    "Keys",
    "Peer",
    "Profile",
    "ProfileInvalid",
    "Punch",
    "Rendezvous",
    "SecretCredential",
    "SecretFile",
    "SecretPrompt",
    "SecretReference",
    "SecretVariable",
    "Secrets",
    "assemble",
    "check_keys",
    "find",
    "known_profiles",
    "load",
    "read_keys",
    "read_secrets",
    "secret_variables",
    "users_file",
]
