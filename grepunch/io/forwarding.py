"""Whether this host forwards packets between its interfaces. Read, never changed: that is its owner's to decide."""

from __future__ import annotations

from pathlib import Path

_IPV4 = Path("/proc/sys/net/ipv4/ip_forward")


def forwards_ipv4(setting: Path = _IPV4) -> bool:
    """Whether IPv4 forwarding is on; taken for granted where it cannot be read."""
    try:
        return setting.read_text().strip() != "0"
    except OSError:
        return True
