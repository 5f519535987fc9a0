"""The device of ordinary PPTP: the kernel segments and makes checksums for its peers, and takes their segments joined.

A peer of ordinary PPTP has made its checksums itself, and only who has checked one may vouch for it. So a segment goes
on a train after its checksum was found right, as a network card does it that puts segments together; one whose
checksum is wrong goes to the kernel as it came, for the kernel to drop. Nothing is checked of a segment that no other
one follows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from socket import IPPROTO_TCP

from grepunch.io.engine.batches import SLOT_SIZE, SLOTS
from grepunch.io.engine.checksum import TCP_CHECKSUM, ChecksumPlace, find, ones_sum
from grepunch.io.engine.coalescing import HEADROOM, Train, begin
from grepunch.io.engine.segmenting import PREFIX
from grepunch.io.engine.virtio import GSO_NONE, HEADER

_WHOLE = HEADER.pack(0, GSO_NONE, 0, 0, 0, 0)
_NO_PREFIX = bytes(PREFIX)
_FIELD = struct.Struct("!H")
_LARGEST = SLOT_SIZE - HEADROOM - PREFIX
_PLAIN_IPV4 = 0x45
# RFC 791 section 3.1, RFC 8200 section 3: what is summed up with a segment begins with the addresses
_ADDRESSES = {4: slice(12, 20), 6: slice(8, 40)}
# ... and, in headers without options, what tells a flow from others ends with the ports
_FLOW_IPV4, _FLOW_IPV6 = slice(12, 24), slice(8, 44)


class Joiner:
    """Writes IP packets to a device in their order, and segments of one flow that follow one another in one piece."""

    def __init__(self, write: Callable[[Sequence[memoryview]], bool]) -> None:
        """``write`` hands the kernel a header of virtio with its packet or train; False when that was not taken."""
        self._write = write
        self._buffer = bytearray(SLOTS * SLOT_SIZE)
        self._view = memoryview(self._buffer)
        self._slot = 0  # the next free one
        self._held: bytes | None = None  # a segment that the next one may follow
        self._flow = b""  # whose it is
        self._train: Train | None = None  # which has begun with it
        self._place = ChecksumPlace(0, TCP_CHECKSUM)  # in the segment that was laid last
        self._ends = 0  # what its addresses, protocol and size add to its sum

    def write(self, packet: bytes) -> bool:
        """Write a packet now, or hold it until the next :meth:`flush` at the latest; False when it was not taken."""
        flow = flow_of(packet)
        if self._held is not None:
            if flow == self._flow and flow and self._join(self._held, packet):
                return True
            self.flush()
        if not flow:
            return self._write((memoryview(_WHOLE + packet),))
        self._held, self._flow = packet, flow
        return True

    def flush(self) -> None:
        """Write what is held."""
        held, train = self._held, self._train
        self._held = self._train = None
        self._slot = 0
        if train is not None:
            self._write(train.finish())
        elif held is not None:
            self._write((memoryview(_WHOLE + held),))

    def _join(self, held: bytes, packet: bytes) -> bool:
        """Put ``packet`` behind what is held; False, with nothing changed for either, where it does not belong."""
        train = self._train
        if train is None:
            at = self._lay(held)
            if at is None:
                return False
            place = self._place
            train = self._train = begin(self._buffer, self._view, at, at + PREFIX + len(held), place, udp=False)
            if train is None:
                return False
        size = len(packet)
        if size + PREFIX != train.size:
            at = self._lay(packet)
            return at is not None and train.take(at, at + PREFIX + size)
        # nearly all there are: what the first one's fields say of size and checksum holds for this one
        if self._slot == SLOTS or (self._ends + ones_sum(memoryview(packet)[self._place.start :])) % 0xFFFF:
            return False
        at = self._copy(packet)
        if train.closed or len(train.parts) >= train.most:
            return False
        if int.from_bytes(self._view[at : at + train.head], "big") != train.expected:
            return train.take(at, at + PREFIX + size)
        train.expected += train.step
        train.parts.append(self._view[at + train.head : at + PREFIX + size])
        return True

    def _lay(self, packet: bytes) -> int | None:
        """Copy a segment into the buffer, its checksum found right and as if it were still to be made."""
        size, place = len(packet), find(packet)
        if place is None or self._slot == SLOTS or size > _LARGEST:
            return None
        ends = ones_sum(packet[_ADDRESSES[packet[0] >> 4]]) + IPPROTO_TCP + size - place.start
        if (ends + ones_sum(memoryview(packet)[place.start :])) % 0xFFFF:
            return None
        self._place, self._ends = place, ends
        return self._copy(packet)

    def _copy(self, packet: bytes) -> int:
        at = self._slot * SLOT_SIZE + HEADROOM
        start = at + PREFIX
        self._slot += 1
        self._buffer[at : start + len(packet)] = _NO_PREFIX + packet  # finishing a train writes before its first one
        _FIELD.pack_into(self._buffer, start + self._place.start + self._place.offset, self._ends % 0xFFFF)
        return at


def flow_of(packet: bytes) -> bytes:
    """What tells the flow of a TCP segment with a payload from others; empty for every other packet, and for headers
    with options or extensions, which are few."""
    if len(packet) < 60:
        return b""
    if packet[0] == _PLAIN_IPV4:
        return packet[_FLOW_IPV4] if packet[9] == IPPROTO_TCP and len(packet) > 20 + (packet[32] >> 4) * 4 else b""
    if packet[0] >> 4 == 6 and packet[6] == IPPROTO_TCP:
        return packet[_FLOW_IPV6] if len(packet) > 40 + (packet[52] >> 4) * 4 else b""
    return b""
