"""The original's way, as a measure: GRE version 0 between two addresses, in plain Python, with no encryption.

It works as the first tool of this kind does: one packet a wake-up, from a side chosen at random where both are ready;
what arrives is copied, gets the two tunnel addresses written into it and is taken as a sign of life; what leaves is
checked for its destination. No batching, no offload, an inner MTU of 1400. Written anew, and standing alone on
purpose, so that nothing the product learns changes the measure.

    python original.py INTERFACE OWN_ADDRESS PEER_ADDRESS OWN_INNER_ADDRESS PEER_INNER_ADDRESS
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import select
import socket
import struct
import sys
import time

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000

_GRE = 47
_GRE_HEADER = struct.pack("!HH", 0, 0x0800)  # RFC 2784 section 2: no flags, version 0; an IPv4 packet follows
_OUTER_HEADERS = 20 + len(_GRE_HEADER)
_PROTOCOL, _SOURCE, _DESTINATION = 9, slice(12, 16), slice(16, 20)  # in an IPv4 header (RFC 791 section 3.1)
_LARGEST = 65535
# the interface is down, the peer is not there yet, a packet was too big or the queue full
_PASSING = (errno.EIO, errno.ENOPROTOOPT, errno.ECONNREFUSED, errno.EMSGSIZE, errno.ENOBUFS)
_SILENCE = 5.0  # seconds until a silent tunnel is looked after


class TunDevice:
    """A TUN device as an object, as a library gives one."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self._descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))

    def fileno(self) -> int:
        """For select."""
        return self._descriptor

    def read(self, size: int) -> bytes:
        """One packet from the kernel."""
        return os.read(self._descriptor, size)

    def write(self, packet: bytes | bytearray) -> None:
        """One packet to the kernel."""
        os.write(self._descriptor, packet)


class Forwarder:
    """The two sides of one end of the tunnel, and the addresses of both ends as they stand in packets."""

    def __init__(self, name: str, outer: tuple[str, str], inner: tuple[str, str]) -> None:
        self._tun = TunDevice(name)
        self._wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, _GRE)
        self._wire.bind((outer[0], 0))
        self._wire.connect((outer[1], 0))
        self._own, self._peer = (socket.inet_aton(address) for address in inner)
        self._heard_at = 0.0
        self._heard_what = ""

    def run(self) -> None:
        """Move packets until the process is ended."""
        sides: list[TunDevice | socket.socket] = [self._tun, self._wire]
        while True:
            ready, _, _ = select.select(sides, [], [], _SILENCE)
            if not ready:
                continue
            try:
                if random.choice(ready) is self._tun:
                    self.to_wire()
                else:
                    self.to_tun()
            except OSError as error:
                if error.errno not in _PASSING:
                    raise

    def to_wire(self) -> None:
        """One packet out."""
        packet = self._tun.read(_LARGEST)
        if packet[_DESTINATION] == self._peer:
            self._wire.send(_GRE_HEADER + packet)

    def to_tun(self) -> None:
        """One packet in."""
        packet = bytearray(self._wire.recv(_LARGEST)[_OUTER_HEADERS:])
        self.heard("ping" if packet[_PROTOCOL] == socket.IPPROTO_ICMP else "traffic")
        packet[_SOURCE] = self._peer
        packet[_DESTINATION] = self._own
        self._tun.write(packet)

    def heard(self, what: str) -> None:
        """The other end lives."""
        self._heard_at = time.monotonic()
        self._heard_what = what


def main(arguments: list[str]) -> None:
    """See the module."""
    name, own, peer, own_inner, peer_inner = arguments
    Forwarder(name, (own, peer), (own_inner, peer_inner)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
