"""What this host's network stack is set to. Read, never changed: that is its owner's to decide."""

from __future__ import annotations

from pathlib import Path

_SETTINGS = Path("/proc/sys/net")


def forwards_ipv4(settings: Path = _SETTINGS) -> bool:
    """Whether IPv4 forwarding is on; taken for granted where it cannot be read."""
    return _read(settings / "ipv4/ip_forward") != "0"


def has_ipv6(settings: Path = _SETTINGS) -> bool:
    """Whether a new interface will have IPv6: the kernel may lack it, or an administrator may have switched it off."""
    return _read(settings / "ipv6/conf/default/disable_ipv6") == "0"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
