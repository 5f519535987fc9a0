"""Many packets in one system call: recvmmsg and sendmmsg on the raw GRE socket, through ctypes.

Python's socket module has neither. The arrays that the kernel reads and writes are made once; afterwards a packet
costs a store or two into them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Protocol

from grepunch.io.rawgre import Destination
from grepunch.io.rawsocket import LARGEST_PACKET, LATE_NEWS, SEND_DROPS, SocketDrop, WireTap
from grepunch.ports import Form

# ours: what one wake-up takes at most, so that neither the other direction nor the timers wait long
SLOTS = 64
SLOT_SIZE = LARGEST_PACKET

# Where a frame begins in its slot, so that what is sealed begins at the same place in both forms.
FORM_START = {Form.V1: 0, Form.V0: 8}

_SOCKET_ADDRESS = struct.Struct("=H2x4s8x")  # struct sockaddr_in; a raw socket has no ports
_MOST_LANES = 4096  # ours, as for the socket's sequence counters
_MOST_ERRORS = 16  # ours: pending errors that one look takes off the socket
_RECEIVING = socket.MSG_DONTWAIT | socket.MSG_TRUNC  # the latter: tell a packet's true size


class _Iovec(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("iovec", ctypes.c_void_p),
        ("iovec_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr"""

    _anonymous_ = ("header",)
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)


def available() -> bool:
    """Whether the C library has both calls."""
    return hasattr(_libc, "sendmmsg") and hasattr(_libc, "recvmmsg")


class _Pinned:
    """A buffer that does not move, and its address."""

    def __init__(self, size: int) -> None:
        self.memory = bytearray(size)
        self._hold = (ctypes.c_char * size).from_buffer(self.memory)
        self.address = ctypes.addressof(self._hold)

    def column(self, structure: type[ctypes.Structure], name: str) -> memoryview:
        """One field of every element, in a buffer that is an array of ``structure``, as numbers to read and write."""
        field = getattr(structure, name)
        numbers = memoryview(self.memory).cast("L" if field.size == ctypes.sizeof(ctypes.c_size_t) else "I")
        return numbers[field.offset // field.size :: ctypes.sizeof(structure) // field.size]


class _Ring:
    """``SLOTS`` packets of up to ``SLOT_SIZE`` octets, and the arrays that name them to the kernel."""

    def __init__(self) -> None:
        self._packets = _Pinned(SLOTS * SLOT_SIZE)
        self._iovecs = _Pinned(SLOTS * ctypes.sizeof(_Iovec))
        self._messages = _Pinned(SLOTS * ctypes.sizeof(_Message))
        self.memory = self._packets.memory
        self.view = memoryview(self.memory)
        self.bases = self._iovecs.column(_Iovec, "base")
        self.lengths = self._iovecs.column(_Iovec, "length")
        iovecs, counts = self._messages.column(_Message, "iovec"), self._messages.column(_Message, "iovec_count")
        for slot in range(SLOTS):
            self.bases[slot] = self._packets.address + slot * SLOT_SIZE
            self.lengths[slot] = SLOT_SIZE
            iovecs[slot] = self._iovecs.address + slot * ctypes.sizeof(_Iovec)
            counts[slot] = 1


class Lane:
    """Where frames go, as the ring wants it: address, form, and the sequence numbers shared with the socket."""

    __slots__ = ("_address", "address", "destination", "form", "start", "to")

    def __init__(self, to: IPv4Address, form: Form, destination: Destination) -> None:
        self._address = _Pinned(_SOCKET_ADDRESS.size)
        _SOCKET_ADDRESS.pack_into(self._address.memory, 0, socket.AF_INET, to.packed)
        self.address = self._address.address
        self.to, self.form, self.destination = to, form, destination
        self.start = FORM_START[form]


class SendRing(_Ring):
    """Frames on their way out. For each, the loop writes the packet into the slot, from the lane's ``start`` on, and
    its length into ``lengths``; where ``lanes`` has another lane, it calls :meth:`direct`; and it raises ``count``.
    :meth:`flush` hands them all over."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._names = self._messages.column(_Message, "name")
        self.lanes: list[Lane | None] = [None] * SLOTS
        self.count = 0
        lengths = self._messages.column(_Message, "name_length")
        for slot in range(SLOTS):
            lengths[slot] = _SOCKET_ADDRESS.size
        self._sendmmsg = _libc.sendmmsg
        # made once: to make them of numbers takes, after a pause, as long as to send a packet
        self._at = [ctypes.c_void_p(self._messages.address + n * ctypes.sizeof(_Message)) for n in range(SLOTS)]
        self._counts = [ctypes.c_uint(n) for n in range(SLOTS + 1)]
        self._descriptor, self._flags = ctypes.c_int(descriptor), ctypes.c_int(socket.MSG_DONTWAIT)

    def direct(self, slot: int, lane: Lane) -> None:
        """The packet in this slot goes there."""
        self.lanes[slot] = lane
        self._names[slot] = lane.address
        self.bases[slot] = self._packets.address + slot * SLOT_SIZE + lane.start

    def flush(self, drops: Counter[SocketDrop]) -> list[int]:
        """Send what there is; the slots that were not sent, which are counted. The ring is empty afterwards."""
        first, count, again = 0, self.count, True
        self.count = 0
        refused: list[int] = []
        while first < count:
            sent = self.transmit(first, count - first)
            if sent > 0:
                first, again = first + sent, True
                continue
            if again and -sent in LATE_NEWS:  # most likely said of an earlier packet, and now it has been said
                again = False
                continue
            cause = SEND_DROPS.get(-sent, SocketDrop.NO_ROUTE if -sent in LATE_NEWS else None)
            if cause is None:
                raise OSError(-sent, os.strerror(-sent))
            # a full queue has no room for the rest either; anything else is about this one packet
            after = count if cause is SocketDrop.SEND_QUEUE_FULL else first + 1
            refused += range(first, after)
            drops[cause] += after - first
            first, again = after, True
        return refused

    def transmit(self, first: int, count: int) -> int:
        """sendmmsg of these slots: how many were sent, or the error as a negative number."""
        sent: int = self._sendmmsg(self._descriptor, self._at[first], self._counts[count], self._flags)
        return sent if sent >= 0 else -ctypes.get_errno()

    def sent_to(self, slot: int) -> tuple[Lane, memoryview]:
        """Lane and packet of a slot, as they were sent last: for captures."""
        lane = self.lanes[slot]
        if lane is None:
            raise ValueError(f"slot {slot} was never sent")
        start = slot * SLOT_SIZE + lane.start
        return lane, self.view[start : start + self.lengths[slot]]


class ReceiveRing(_Ring):
    """Packets that have come in: after :meth:`receive` packet number ``slot`` has ``sizes[slot]`` octets, more than
    ``SLOT_SIZE`` if its end is cut off."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.sizes = self._messages.column(_Message, "length")
        self.errors = False  # the network has said something: the error queue is worth a look
        self._recvmmsg = _libc.recvmmsg
        self._arguments = (
            ctypes.c_int(descriptor),
            ctypes.c_void_p(self._messages.address),
            ctypes.c_uint(SLOTS),
            ctypes.c_int(_RECEIVING),
            ctypes.c_void_p(None),
        )
        self._first = (self.view[: SLOT_SIZE + 1],)

    def receive(self) -> int:
        """Take in what has arrived: how many packets, 0 when there are none."""
        for _ in range(_MOST_ERRORS):
            count = self.collect()
            if count > 0:
                return count
            self.errors = True  # woken for nothing, or told so
            if -count not in LATE_NEWS:
                break
        if -count in LATE_NEWS or count in (0, -errno.EAGAIN, -errno.EINTR):
            return 0
        raise OSError(-count, os.strerror(-count))

    def receive_one(self) -> int:
        """The same, and of what has arrived only the first: for a single packet the quicker way."""
        try:
            self.sizes[0] = self.collect_one()
        except OSError:
            self.errors = True
            return self.receive()
        return 1

    def collect_one(self) -> int:
        """Read a packet into the first slot; its size, or one more than the slot's if its end is cut off."""
        return os.readv(self._descriptor, self._first)

    def collect(self) -> int:
        """recvmmsg: how many packets came, or the error as a negative number."""
        count: int = self._recvmmsg(*self._arguments)
        return count if count >= 0 else -ctypes.get_errno()


class RawPort(Protocol):
    """What the batches need of the raw socket (:class:`grepunch.io.rawgre.RawGre`)."""

    drops: Counter[SocketDrop]
    sent: int
    received: int
    tap: WireTap | None

    def fileno(self) -> int:
        """The descriptor."""

    def destination(self, address: IPv4Address) -> Destination:
        """The sequence numbers towards an address."""

    def address(self, packed: bytes) -> IPv4Address:
        """The address of a source, from its four octets."""


class GreBatches:
    """The raw socket in batches; its single sends go on beside, and share its counters and sequence numbers."""

    def __init__(
        self,
        raw: RawPort,
        outgoing: Callable[[int], SendRing] = SendRing,
        incoming: Callable[[int], ReceiveRing] = ReceiveRing,
    ) -> None:
        self.raw = raw
        self.outgoing = outgoing(raw.fileno())
        self.incoming = incoming(raw.fileno())
        self._lanes: dict[tuple[IPv4Address, Form], Lane] = {}

    def lane(self, place: tuple[IPv4Address, Form]) -> Lane:
        """The lane to a place. Worth keeping: to look one up costs as much as to seal a packet."""
        found = self._lanes.get(place)
        if found is None:
            if len(self._lanes) >= _MOST_LANES:
                self._lanes.clear()
            found = self._lanes[place] = Lane(*place, self.raw.destination(place[0]))
        return found

    def flush_one(self) -> bool:
        """Send the one packet that is in the ring; False, with nothing done, where that is for :meth:`flush`."""
        if self.raw.tap is not None or self.outgoing.transmit(0, 1) != 1:
            return False
        self.outgoing.count = 0
        self.raw.sent += 1
        return True

    def flush(self) -> list[int]:
        """Send what is in the ring; the slots that were not sent."""
        ring, raw = self.outgoing, self.raw
        count = ring.count
        refused = ring.flush(raw.drops)
        raw.sent += count - len(refused)
        if refused:
            self.incoming.errors = True
        if raw.tap is not None:
            for slot in range(count):
                if slot not in refused:
                    lane, packet = ring.sent_to(slot)
                    raw.tap.sent(lane.to, None, bytes(packet))
        return refused
