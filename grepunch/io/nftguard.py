"""The own nft table that keeps this host silent where its kernel would answer GRE with ICMP.

While our raw socket is open the kernel answers nobody; but it does before the socket opens and after it has closed,
and a loaded ``ip_gre`` module answers unknown tunnels with port-unreachable all the time. To a NAT such an answer may
end the flow that a peer is punching. So outgoing protocol- and port-unreachable that quote IP protocol 47 are dropped;
other ICMP (fragmentation needed, time exceeded) stays, because forwarded GRE of others depends on it.

One table for each profile, made and removed by one atomic batch each. Where there is no ``nft`` program, or the
kernel has no nftables, the guard is left out and says so.
"""

from __future__ import annotations

import os
import shutil
import string
import subprocess

from grepunch.io.errors import HostError, NoPrivilege, Refused, Unsupported

_TIMEOUT = 5.0  # seconds; nft takes milliseconds
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"  # where nft lives, and an ordinary user's PATH does not lead
_PLAIN = frozenset(string.ascii_letters + string.digits)

# RFC 792: ICMP header 8 octets, then the quoted IPv4 header with its protocol in octet 9
_QUOTED_PROTOCOL_BIT = (8 + 9) * 8


def table_name(profile: str) -> str:
    """The table of a profile. Other characters than letters and digits become ``_xx``, so no two profiles share one."""
    return "grepunch_" + "".join(c if c in _PLAIN else "".join(f"_{o:02x}" for o in c.encode()) for c in profile)


def rules(profile: str) -> str:
    """The batch that makes the table, in place of a leftover of a killed process."""
    table = table_name(profile)
    return (
        f"table ip {table} {{}}\n"
        f"delete table ip {table}\n"
        f"table ip {table} {{\n"
        f"  chain output {{\n"
        f"    type filter hook output priority filter; policy accept;\n"
        f"    icmp type destination-unreachable icmp code {{ 2, 3 }} @th,{_QUOTED_PROTOCOL_BIT},8 47 counter drop\n"
        f"  }}\n"
        f"}}\n"
    )


def missing() -> HostError | None:
    """Why there can be no guard on this host, as far as can be told without trying; None when there can."""
    if _program() is None:
        return Unsupported(
            "There is no `nft` program: ICMP about GRE is not held back.", "Install the package nftables."
        )
    return None


def install(profile: str) -> HostError | None:
    """Make the profile's table; None when it is there, else why the guard was left out."""
    return _run(rules(profile))


def remove(profile: str) -> bool:
    """Remove the profile's table; True when there was one. Raises :class:`HostError` when it cannot be removed."""
    table = table_name(profile)
    if _run(f"list table ip {table}\n") is not None:
        return False
    error = _run(f"delete table ip {table}\n")
    if error is not None:
        raise error
    return True


def _program() -> str | None:
    """Its absolute path: an empty or relative entry of PATH means the current directory, which may be anybody's."""
    entries = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}".split(os.pathsep)
    return shutil.which("nft", path=os.pathsep.join(entry for entry in entries if entry.startswith("/")))


def _run(batch: str) -> HostError | None:
    program = _program()
    if program is None:
        return missing()
    try:
        result = subprocess.run(
            [program, "-f", "-"], input=batch, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Refused(f"`nft` did not run: {error}.")
    if result.returncode == 0:
        return None
    said = result.stderr.strip().splitlines()
    sentence = f"`nft` refused: {said[0] if said else f'exit code {result.returncode}'}."
    if "Operation not permitted" in result.stderr:
        return NoPrivilege(sentence, "Give it CAP_NET_ADMIN.")
    return Refused(sentence)
