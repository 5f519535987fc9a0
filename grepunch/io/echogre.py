"""The raw GRE socket of a probe and of the echo server: any GRE packet, with Don't Fragment, from a chosen address."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address

from grepunch.io.grefilter import RETURN, Instruction
from grepunch.io.rawsocket import IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, LARGEST_PACKET, LATE_NEWS, open_raw

_EVERYTHING = (Instruction(RETURN, 0, 0, 0xFFFF),)
_PKTINFO = struct.Struct("=i4s4s")  # linux/in.h, struct in_pktinfo: interface, local address, destination
_IP_PKTINFO = 8
_IPV4_HEADER = 20
_NOT_SENT = {errno.EAGAIN, errno.ENOBUFS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENETUNREACH, errno.ENETDOWN}


class EchoGre:
    """Opens at once; raises :class:`~grepunch.io.errors.NoPrivilege` without CAP_NET_RAW."""

    def __init__(self) -> None:
        self._socket = open_raw(_EVERYTHING)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """No more packets."""
        self._socket.close()

    def send(self, destination: IPv4Address, packet: bytes, source: IPv4Address | None = None) -> bool:
        """Send a GRE packet, from ``source`` where that matters; False where this host did not take it."""
        ancillary = []
        if source is not None:
            ancillary = [(socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(0, source.packed, bytes(4)))]
        for _ in range(2):  # the first may be told what became of an earlier packet
            try:
                self._socket.sendmsg([packet], ancillary, 0, (str(destination), 0))
            except OSError as error:
                if error.errno not in LATE_NEWS and error.errno not in _NOT_SENT:
                    raise
            else:
                return True
        return False

    def receive(self, limit: int = 64) -> list[tuple[IPv4Address, IPv4Address, bytes]]:
        """Source, destination and GRE packet of what has arrived, at most ``limit``."""
        found: list[tuple[IPv4Address, IPv4Address, bytes]] = []
        for _ in range(limit):
            try:
                packet = self._socket.recv(LARGEST_PACKET)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in LATE_NEWS:
                    raise
                continue
            start = (packet[0] & 0x0F) * 4 if packet else 0
            if _IPV4_HEADER <= start < len(packet):
                found.append((IPv4Address(packet[12:16]), IPv4Address(packet[16:20]), packet[start:]))
        return found
