"""What this host refused, as errors that carry a sentence for the user and what to do about it.

Raised by the modules of ``grepunch.io`` in place of a bare ``OSError``; the command line turns each kind into its
verdict. None of them is ever caused by a peer.
"""

from __future__ import annotations


class HostError(Exception):
    """Something this host did not do. ``sentence`` says what, ``advice`` what to try (empty: nothing to suggest)."""

    def __init__(self, sentence: str, advice: str = "") -> None:
        super().__init__(f"{sentence} {advice}".rstrip())
        self.sentence = sentence
        self.advice = advice


class NoPrivilege(HostError):
    """The process may not do this: a capability or a file permission is missing."""


class Unsupported(HostError):
    """The host has no such thing: a device node, a kernel feature, a program."""


class NameTaken(HostError):
    """An interface of that name exists already."""


class BadName(HostError):
    """No interface can have that name."""


class AddressClash(HostError):
    """An address, network or route that another interface of this host already has."""


class DeviceGone(HostError):
    """The interface was removed while it was in use."""


class Refused(HostError):
    """The kernel or a program said no for another reason, which the sentence quotes."""
