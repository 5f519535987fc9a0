"""The raw GRE socket of ordinary PPTP: the packets of every call of this process, each found by source and Call ID.

One socket receives for all local addresses. What is sent has to come from the very address that the client or server
knows us by, so each local address has a sending socket of its own, behind a filter that lets nothing in.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address

from grepunch.io.errors import Unsupported
from grepunch.io.grefilter import ADMIT_CALLS, REJECT_ALL
from grepunch.io.rawsocket import (
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DONT,
    LARGEST_PACKET,
    LATE_NEWS,
    SocketDrop,
    WireTap,
    open_raw,
    put,
)
from pptp.mtu import IPV4_HEADER

GRE_KEY = 6  # offset of the Call ID (RFC 2637 section 4.1)
_SMALLEST_GRE = 8

Send = Callable[[bytes], bool]


def call_key(source: IPv4Address, call_id: int) -> bytes:
    """What :meth:`CallGre.receive` tells packets apart by: the sender's address, and the Call ID that we assigned."""
    return source.packed + call_id.to_bytes(2, "big")


class CallGre:
    """Opened before the listener, closed after the last connection.

    Raises :class:`NoPrivilege` without CAP_NET_RAW and :class:`Unsupported` where the kernel has no such socket.
    """

    def __init__(self, tap: WireTap | None = None) -> None:
        self._socket = open_raw(ADMIT_CALLS)
        self._tap = tap
        self._senders: dict[IPv4Address, socket.socket] = {}
        self.drops: Counter[SocketDrop] = Counter()

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close all sockets; harmless when they are closed."""
        self._socket.close()
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()

    def receive(self, limit: int) -> list[tuple[bytes, bytes]]:
        """Key (see :func:`call_key`) and GRE packet of what has arrived, at most ``limit``; fewer mean that the
        socket is empty."""
        packets: list[tuple[bytes, bytes]] = []
        receive = self._socket.recv
        for _ in range(limit):
            try:
                packet = receive(LARGEST_PACKET)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in LATE_NEWS:
                    raise
                continue
            if self._tap is not None:
                self._tap.received(packet)
            start = (packet[0] & 0x0F) * 4 if packet else 0
            if (
                start < IPV4_HEADER
                or len(packet) < start + _SMALLEST_GRE
                or int.from_bytes(packet[2:4], "big") != len(packet)  # cut off, or lying
            ):
                self.drops[SocketDrop.MALFORMED] += 1
                continue
            gre = packet[start:]
            packets.append((packet[12:16] + gre[GRE_KEY : GRE_KEY + 2], gre))
        return packets

    def sender(self, local: IPv4Address, remote: IPv4Address) -> Send:
        """What sends GRE packets from ``local`` to ``remote``; it returns False for a packet that was dropped.

        Raises :class:`Unsupported` where this host no longer has ``local``.
        """
        raw = self._senders.get(local)
        if raw is None:
            raw = self._senders[local] = _bound(local)
        address, drops, tap = (str(remote), 0), self.drops, self._tap

        def send(gre: bytes) -> bool:
            if not put(raw, gre, address, None, drops):
                return False
            if tap is not None:
                tap.sent(remote, None, gre)
            return True

        return send


def _bound(local: IPv4Address) -> socket.socket:
    raw = open_raw(REJECT_ALL)
    try:
        # the client has to get our packets whatever the path: what is too large for it may be fragmented
        raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        raw.bind((str(local), 0))
    except OSError as error:
        raw.close()
        raise Unsupported(f"No GRE packet can be sent from {local}: {error.strerror}.") from error
    return raw
