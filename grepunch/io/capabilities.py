"""What this process needs of the host, tried rather than guessed, in sentences for the user.

Nothing is changed: a socket and a device node are opened and closed again. (A container may show a capability that
its seccomp filter makes useless, which is why the capability sets are only read where nothing can be tried.)
"""

from __future__ import annotations

import os
from pathlib import Path

from grepunch.io import nftguard
from grepunch.io.errors import HostError, NoPrivilege
from grepunch.io.rawgre import RawGre
from grepunch.io.tun import open_device
from pptp.value import value

# linux/capability.h
_CAP_NET_ADMIN = 12

_STATUS = Path("/proc/self/status")


@value
class Capability:
    """One need of the endpoint: whether it is met, and where not, why and what to run.

    ``error`` is the typed refusal (``None`` when met); what is not ``required`` merely leaves a feature out.
    """

    name: str
    error: HostError | None = None
    required: bool = True


def check(status: Path = _STATUS) -> list[Capability]:
    """All needs in the order in which an endpoint meets them; ``status`` is the process's own in /proc."""
    return [
        Capability("raw GRE socket", _raw_socket()),
        Capability("TUN device", _tun()),
        Capability("network administration", _net_admin(status)),
        Capability("nft", nftguard.missing(), required=False),
    ]


def _raw_socket() -> HostError | None:
    try:
        RawGre().close()
    except HostError as error:
        return error
    return None


def _tun() -> HostError | None:
    try:
        os.close(open_device())
    except HostError as error:
        return error
    return None


def _net_admin(status: Path) -> HostError | None:
    effective = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("CapEff:")), "0")
    if int(effective, 16) >> _CAP_NET_ADMIN & 1:
        return None
    return NoPrivilege(
        "Addresses and routes may not be set: CAP_NET_ADMIN is missing.",
        "Run it as root, or give it the capability: systemd's AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN.",
    )
