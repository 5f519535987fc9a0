"""Make an interface send only what a real wire could carry: whole checksums, and packets no larger than the MTU.

Virtual interfaces hand each other packets of up to 64 KiB whose checksum nobody has computed yet, which a program that
carries packets from one interface to the other would spoil.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

from grepunch.lab.node import Node

# linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL = 0x8946
_SET_TX_CHECKSUMS, _SET_TCP_SEGMENTATION, _SET_GENERIC_SEGMENTATION = 0x17, 0x1F, 0x24


def turn_off_offloads(node: Node, interface: str) -> None:
    """Leave checksums and segmentation of what ``interface`` sends to the kernel. Raises ``OSError``."""
    with node.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in (_SET_TCP_SEGMENTATION, _SET_GENERIC_SEGMENTATION, _SET_TX_CHECKSUMS):
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
            fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("@16sP", interface.encode(), ctypes.addressof(value)))
