"""Wait until the interfaces of a node carry packets.

The kernel opens the queue of an interface a while after both its ends are up, in a task of its own that waits for every
namespace that is being made or removed on the whole machine. Until then what is sent there is dropped, in silence.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from collections.abc import Iterable

from grepunch.lab.node import LabError, Node

# linux/sockios.h, linux/if.h
_SIOCGIFFLAGS = 0x8913
_UP, _RUNNING = 0x1, 0x40

_LONGEST = 10.0  # ours: seconds; it takes milliseconds, and a second or two beside others
_POLL = 0.002


def wait_for_carrier(nodes: Iterable[Node]) -> None:
    """Return once every interface that is up is also running. Raises :class:`LabError` naming those that are not."""
    deadline = time.monotonic() + _LONGEST
    for node in nodes:
        while silent := _silent(node):
            if time.monotonic() > deadline:
                raise LabError(f"{node.name}: no carrier on {', '.join(silent)}")
            time.sleep(_POLL)


def _silent(node: Node) -> list[str]:
    with node.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        return [name for _, name in socket.if_nameindex() if _flags(control, name) & (_UP | _RUNNING) == _UP]


def _flags(control: socket.socket, interface: str) -> int:
    (flags,) = struct.unpack_from(
        "=H", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("@16s24x", interface.encode())), 16
    )
    return int(flags)
