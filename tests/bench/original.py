"""The original's way, as a measure: GRE version 0 between two addresses, in plain Python, with no encryption.

One packet per wake-up and direction, a copy of each, no batching and no offload: what a first version of such a tool
does. Standing alone on purpose, so that nothing the product learns changes the measure.

    python original.py INTERFACE OWN_ADDRESS PEER_ADDRESS
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import sys

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000

_GRE = 47
_HEADERS = {4: struct.pack("!HH", 0, 0x0800), 6: struct.pack("!HH", 0, 0x86DD)}  # RFC 2784 section 2: flags, protocol
_GRE_HEADER = 4
_LARGEST = 65535


def open_tun(name: str) -> int:
    """A TUN device without packet information."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def forward(tun: int, wire: socket.socket, peer: str) -> None:
    """Move packets until the process is ended."""
    incoming = wire.fileno()
    while True:
        readable, _, _ = select.select([tun, incoming], [], [])
        if tun in readable:
            packet = os.read(tun, _LARGEST)
            header = _HEADERS.get(packet[0] >> 4)
            if header is not None:
                wire.sendto(header + packet, (peer, 0))
        if incoming in readable:
            received, (source, _) = wire.recvfrom(_LARGEST)
            if source != peer:
                continue
            start = (received[0] & 0x0F) * 4
            flags, protocol = struct.unpack_from("!HH", received, start)
            if flags == 0 and protocol in (0x0800, 0x86DD):
                deliver(tun, received[start + _GRE_HEADER :])


def deliver(tun: int, packet: bytes) -> None:
    """Hand the kernel a packet; while the interface is down, nobody gets it."""
    try:
        os.write(tun, packet)
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def main(arguments: list[str]) -> None:
    """See the module."""
    name, own, peer = arguments
    wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, _GRE)
    wire.bind((own, 0))
    forward(open_tun(name), wire, peer)


if __name__ == "__main__":
    main(sys.argv[1:])
