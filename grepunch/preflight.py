"""What this host must have before an endpoint can run: told without touching anything."""

from __future__ import annotations

import os
from pathlib import Path

from grepunch.verdict import Verdict, VerdictKind

# linux/capability.h
CAPABILITIES = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW"}
TUN_DEVICE = Path("/dev/net/tun")


def missing_capabilities(status: str) -> list[str]:
    """The capabilities that are not effective, by a process's /proc/…/status."""
    effective = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0)
    return [name for bit, name in CAPABILITIES.items() if not effective >> bit & 1]


def examine(status: Path = Path("/proc/self/status"), tun: Path = TUN_DEVICE) -> Verdict | None:
    """The first thing that stands in the way of an endpoint here, or None."""
    missing = missing_capabilities(status.read_text())
    if missing:
        return Verdict(VerdictKind.NO_PRIVILEGE, f"missing: {' and '.join(missing)}")
    if not tun.exists():
        advice = "Load it with `modprobe tun`; in a container hand it in with `--device /dev/net/tun`."
        return Verdict(VerdictKind.UNSUPPORTED_HOST, f"there is no {tun}", advice)
    if not os.access(tun, os.R_OK | os.W_OK):
        return Verdict(
            VerdictKind.NO_PRIVILEGE, f"{tun} may not be opened", f"Allow it, as udev does: chmod 0666 {tun}"
        )
    return None
