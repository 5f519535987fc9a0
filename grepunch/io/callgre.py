"""The raw GRE socket of ordinary PPTP: the packets of every call of this process, each found by source and Call ID.

One socket receives for all local addresses. What is sent has to come from the very address that the client or server
knows us by, so each local address has a sending socket of its own, behind a filter that lets nothing in. Packets cross
the border to the kernel in batches where the system can, else one by one: a :class:`Sender` and :meth:`CallGre.receive`
look the same.
"""

from __future__ import annotations

import socket
import struct
from abc import ABC, abstractmethod
from collections import Counter
from ipaddress import IPv4Address

from grepunch.io.engine.batches import SLOT_SIZE, SLOTS, Lane, ReceiveRing, SendRing, available
from grepunch.io.errors import Unsupported
from grepunch.io.grefilter import ADMIT_CALLS, REJECT_ALL
from grepunch.io.rawgre import Destination
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
from grepunch.ports import Form
from pptp.mtu import IPV4_HEADER

GRE_KEY = 6  # offset of the Call ID (RFC 2637 section 4.1)
_SMALLEST_GRE = 8
_SMALLEST = IPV4_HEADER + _SMALLEST_GRE
_PLAIN_IPV4 = 0x45
# Version and header length, total length, source and destination, Call ID of GRE behind a header without options.
_START = struct.Struct("!BxH8x4s4x6x2s")

Key = bytes
Note = tuple[object, int]
"""Whose packet it was and how large its inside: given with a packet, and given back if it could not be sent."""


def call_key(source: IPv4Address, call_id: int) -> Key:
    """What :meth:`CallGre.receive` tells packets apart by: the sender's address, and the Call ID that we assigned."""
    return source.packed + call_id.to_bytes(2, "big")


class Sender(ABC):
    """Sends from one local address to one remote one."""

    @abstractmethod
    def send(self, gre: bytes) -> bool:
        """Send a packet now, behind those that wait; False when it was dropped."""

    @abstractmethod
    def queue(self, gre: bytes, note: Note) -> None:
        """Send a packet at the next :meth:`CallGre.flush` at the latest, which returns ``note`` if that was dropped."""


class _Exit(ABC):
    """The sending socket of a local address."""

    def __init__(self, raw: socket.socket, drops: Counter[SocketDrop], tap: WireTap | None) -> None:
        self.raw, self.drops, self.tap = raw, drops, tap

    @abstractmethod
    def sender(self, remote: IPv4Address) -> Sender:
        """What sends to ``remote``."""

    @abstractmethod
    def flush(self) -> list[Note]:
        """Send what waits; the notes of what was dropped since the last call."""


class CallGre:
    """Opened before the listener, closed after the last connection.

    Raises :class:`NoPrivilege` without CAP_NET_RAW and :class:`Unsupported` where the kernel has no such socket.
    """

    def __init__(self, tap: WireTap | None = None, *, batched: bool | None = None) -> None:
        """``batched``: None for what the system has."""
        self._batched = available() if batched is None else batched
        self._socket = open_raw(ADMIT_CALLS)
        self._tap = tap
        self._exits: dict[IPv4Address, _Exit] = {}
        self._ring = ReceiveRing(self._socket.fileno()) if self._batched else None
        self.drops: Counter[SocketDrop] = Counter()

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close all sockets; harmless when they are closed."""
        self._socket.close()
        for exit_ in self._exits.values():
            exit_.raw.close()
        self._exits.clear()

    def receive(self) -> list[tuple[Key, bytes | memoryview]]:
        """Key (see :func:`call_key`) and GRE packet of what has arrived, a batch at most, empty when there is nothing.

        The packets are good until the next call.
        """
        return self._receive_each() if self._ring is None else self._receive_batch(self._ring)

    def _receive_each(self) -> list[tuple[Key, bytes | memoryview]]:
        packets: list[tuple[Key, bytes | memoryview]] = []
        receive = self._socket.recv
        for _ in range(SLOTS):
            try:
                packet = receive(LARGEST_PACKET)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in LATE_NEWS:
                    raise
                continue
            found = self._take(packet)
            if found is not None:
                packets.append(found)
        return packets

    def _receive_batch(self, ring: ReceiveRing) -> list[tuple[Key, bytes | memoryview]]:
        packets: list[tuple[Key, bytes | memoryview]] = []
        memory, view, sizes, unpack_from, tap = ring.memory, ring.view, ring.sizes, _START.unpack_from, self._tap
        for slot in range(ring.receive()):
            base, size = slot * SLOT_SIZE, sizes[slot]
            first, total, source, call_id = unpack_from(memory, base)
            if first == _PLAIN_IPV4 and total == size and _SMALLEST <= size <= SLOT_SIZE and tap is None:
                packets.append((source + call_id, view[base + IPV4_HEADER : base + size]))
                continue
            found = self._take(bytes(view[base : base + min(size, SLOT_SIZE)]))
            if found is not None:
                packets.append(found)
        return packets

    def _take(self, packet: bytes) -> tuple[Key, bytes] | None:
        """A whole packet, looked at closely; None, counted, for one that is none."""
        if self._tap is not None:
            self._tap.received(packet)
        start = (packet[0] & 0x0F) * 4 if packet else 0
        if (
            start < IPV4_HEADER
            or len(packet) < start + _SMALLEST_GRE
            or int.from_bytes(packet[2:4], "big") != len(packet)  # cut off, or lying
        ):
            self.drops[SocketDrop.MALFORMED] += 1
            return None
        gre = packet[start:]
        return packet[12:16] + gre[GRE_KEY : GRE_KEY + 2], gre

    def sender(self, local: IPv4Address, remote: IPv4Address) -> Sender:
        """What sends GRE packets from ``local`` to ``remote``.

        Raises :class:`Unsupported` where this host no longer has ``local``.
        """
        exit_ = self._exits.get(local)
        if exit_ is None:
            kind = _BatchedExit if self._batched else _PlainExit
            exit_ = self._exits[local] = kind(_bound(local), self.drops, self._tap)
        return exit_.sender(remote)

    def flush(self) -> list[Note]:
        """Send what waits; the notes of what was dropped since the last call."""
        refused: list[Note] = []
        for exit_ in self._exits.values():
            refused += exit_.flush()
        return refused


class _PlainExit(_Exit):
    """One system call a packet: nothing ever waits."""

    def __init__(self, raw: socket.socket, drops: Counter[SocketDrop], tap: WireTap | None) -> None:
        super().__init__(raw, drops, tap)
        self.refused: list[Note] = []

    def sender(self, remote: IPv4Address) -> Sender:
        """What sends to ``remote``."""
        return _PlainSender(self, remote)

    def flush(self) -> list[Note]:
        """The notes of what was dropped since the last call."""
        refused, self.refused = self.refused, []
        return refused


class _PlainSender(Sender):
    def __init__(self, exit_: _PlainExit, remote: IPv4Address) -> None:
        self._exit, self._remote, self._address = exit_, remote, (str(remote), 0)

    def send(self, gre: bytes) -> bool:
        if not put(self._exit.raw, gre, self._address, None, self._exit.drops):
            return False
        if self._exit.tap is not None:
            self._exit.tap.sent(self._remote, None, gre)
        return True

    def queue(self, gre: bytes, note: Note) -> None:
        if not self.send(gre):
            self._exit.refused.append(note)


class _BatchedExit(_Exit):
    """Packets wait in a ring until it is full or flushed."""

    def __init__(self, raw: socket.socket, drops: Counter[SocketDrop], tap: WireTap | None) -> None:
        super().__init__(raw, drops, tap)
        self.ring = SendRing(raw.fileno())
        self.notes: list[Note] = []  # of what is in the ring
        self._refused: list[Note] = []

    def sender(self, remote: IPv4Address) -> Sender:
        """What sends to ``remote``."""
        return _BatchedSender(self, remote)

    def flush(self) -> list[Note]:
        """Send what waits; the notes of what was dropped since the last call."""
        if self.ring.count:
            self.empty()
        refused, self._refused = self._refused, []
        return refused

    def empty(self) -> None:
        """Send what waits."""
        ring, notes = self.ring, self.notes
        count = ring.count
        refused = ring.flush(self.drops)
        self._refused += [notes[slot] for slot in refused]
        notes.clear()
        if self.tap is not None:
            for slot in range(count):
                if slot not in refused:
                    lane, packet = ring.sent_to(slot)
                    self.tap.sent(lane.to, None, bytes(packet))


class _BatchedSender(Sender):
    def __init__(self, exit_: _BatchedExit, remote: IPv4Address) -> None:
        self._exit = exit_
        self._lane = Lane(remote, Form.V1, Destination(remote))
        self._plain = _PlainSender(_PlainExit(exit_.raw, exit_.drops, exit_.tap), remote)

    def send(self, gre: bytes) -> bool:
        if self._exit.ring.count:
            self._exit.empty()
        return self._plain.send(gre)

    def queue(self, gre: bytes, note: Note) -> None:
        exit_, size = self._exit, len(gre)
        if exit_.ring.count == SLOTS:
            exit_.empty()
        ring = exit_.ring
        slot = ring.count
        base = slot * SLOT_SIZE
        ring.memory[base : base + size] = gre
        ring.lengths[slot] = size
        if ring.lanes[slot] is not self._lane:
            ring.direct(slot, self._lane)
        ring.count = slot + 1
        exit_.notes.append(note)


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
