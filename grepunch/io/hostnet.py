"""What this host's network stack is set to. Read, never changed: that is its owner's to decide."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

_SETTINGS = Path("/proc/sys/net")
# resolv.conf(5), and where systemd-resolved says whom it asks itself
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def forwards_ipv4(settings: Path = _SETTINGS) -> bool:
    """Whether IPv4 forwarding is on; taken for granted where it cannot be read."""
    return _read(settings / "ipv4/ip_forward") != "0"


def has_ipv6(settings: Path = _SETTINGS) -> bool:
    """Whether a new interface will have IPv6: the kernel may lack it, or an administrator may have switched it off."""
    return _read(settings / "ipv6/conf/default/disable_ipv6") == "0"


def resolvers(files: tuple[Path, ...] = _RESOLVERS) -> frozenset[IPv4Address]:
    """The name servers that this host asks, as far as its files tell."""
    found = set()
    for line in "\n".join(map(_read, files)).splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                with suppress(ValueError):
                    found.add(IPv4Address(address))
    return frozenset(found)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
