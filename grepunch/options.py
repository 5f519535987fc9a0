"""What one invocation asks for beside its profile: the values the command line hands to the endpoint and the demo."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from grepunch.ports import RelayPolicy
from pptp.value import value

if TYPE_CHECKING:  # what begins with options need not load a cipher
    from pptp.crypto.aead import Suite

DEFAULT_WAIT = 90.0  # seconds; two windows of 30 s and the 35 s of silence between them
DEFAULT_TRANSFER = 50_000_000  # bytes each way; a second or two at the speed of a tunnel in user space


class Role(StrEnum):
    """Who begins: `dial` is the Noise initiator and PNS, `serve` waits for it."""

    SERVE = "serve"
    DIAL = "dial"


class Action(StrEnum):
    """What to do with the profile."""

    RUN = "run"
    DRY_RUN = "dry_run"  # print every address, route and rule it would make; touch nothing
    CLEANUP = "cleanup"  # remove what an earlier run that was killed left behind, then end


@value
class Capture:
    """Where to write a capture; ``plain`` holds what is inside the seal, else what is on the wire."""

    path: Path
    plain: bool = False


@value
class EndpointOptions:
    """How to run an endpoint. Times in seconds.

    ``wait`` bounds how long `dial` tries before its verdict; ``retry`` is how often it begins anew after a verdict
    that can pass (None: for ever, and then after a failed authentication too); ``command`` runs once the tunnel is
    up, which ends with it; ``suites`` are offered to peers and taken from them, the first one sooner (None: all).
    """

    role: Role
    action: Action = Action.RUN
    wait: float = DEFAULT_WAIT
    retry: int | None = 0
    command: tuple[str, ...] = ()
    capture: Capture | None = None
    suites: tuple[Suite, ...] | None = None


@value
class DemoOptions:
    """What the demo shows: two NAT classes by id, with or without a rendezvous, and how it prints.

    ``skew`` is how many seconds later than the first peer the second one starts. ``relay`` stands in both profiles;
    the rendezvous relays unless it is ``never``.
    """

    nat_a: str = "G2S"
    nat_b: str = "G2S"
    rendezvous: bool = True
    transfer_bytes: int = DEFAULT_TRANSFER
    skew: float = 0.0
    capture: Capture | None = None
    json: bool = False
    relay: RelayPolicy = RelayPolicy.AUTO
