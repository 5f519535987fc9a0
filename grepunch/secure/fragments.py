"""Handshake datagrams in parts, so that they pass a path of 1000 octets before anything is known about it.

    id 8 | number of this part 1 | parts in all 1 | MAC 16 | data

The id is the head of the datagram's hash. A repeated datagram has therefore the same id, and a part lost of the
first sending is made good by the second; and whoever assembles can check the whole. The MAC keeps whoever does
not know the receiver's public key from taking up memory. A datagram that fits travels as part 0 of 1.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from grepunch.secure.constants import (
    FRAGMENT_DATA,
    FRAGMENT_ID_SIZE,
    MAC_SIZE,
    MAX_MESSAGE,
    REASSEMBLY_SLOTS,
    REASSEMBLY_SOURCES,
    REASSEMBLY_TIME,
)
from grepunch.secure.derive import fragment_key, mac
from pptp.errors import Drop, DropError, UsageError, WireCause, WireError

_HEAD = struct.Struct(f"!{FRAGMENT_ID_SIZE}sBB")
_OVERHEAD = _HEAD.size + MAC_SIZE
_MAX_PARTS = MAX_MESSAGE // FRAGMENT_DATA


def build_fragments(datagram: bytes, receiver_public_key: bytes) -> list[bytes]:
    """The parts of a handshake datagram, of about equal size; each goes into a Vendor-Specific packet of its own."""
    if not datagram or len(datagram) > MAX_MESSAGE:
        raise UsageError(f"a handshake datagram of {len(datagram)} octets")
    count = -(-len(datagram) // FRAGMENT_DATA)
    size = -(-len(datagram) // count)
    key = fragment_key(receiver_public_key)
    parts = []
    for number in range(count):
        head = _HEAD.pack(_identifier(datagram), number, count)
        data = datagram[number * size : (number + 1) * size]
        parts.append(head + mac(key, head, data) + data)
    return parts


@dataclass(slots=True)
class _Slot:
    expires: float
    parts: list[bytes | None] = field(default_factory=list)


class Reassembler:
    """Puts parts together again: one per host, ``source`` being whatever tells where a part came from.

    Memory is bounded: 4 slots per source and 256 sources, the oldest of each making room; below 1 MB in all.
    """

    def __init__(self, own_public_key: bytes) -> None:
        self._key = fragment_key(own_public_key)
        self._sources: OrderedDict[Hashable, OrderedDict[bytes, _Slot]] = OrderedDict()

    @property
    def held(self) -> int:
        """How many octets of unfinished datagrams are held."""
        return sum(
            len(part or b"") for slots in self._sources.values() for slot in slots.values() for part in slot.parts
        )

    def receive(self, source: Hashable, fragment: bytes, now: float) -> bytes | None:
        """The whole datagram once its last part is here, else ``None``.

        Raises :class:`WireError` on bad form, :class:`DropError` on a bad MAC or parts that do not fit together.
        """
        identifier, number, count, data = self._open(fragment)
        if count == 1:
            return _checked(identifier, data)
        slots = self._slots_of(source, now)
        slot = slots.get(identifier)
        if slot is None:
            if len(slots) == REASSEMBLY_SLOTS:
                slots.popitem(last=False)
            slot = slots[identifier] = _Slot(now + REASSEMBLY_TIME, [None] * count)
        if len(slot.parts) != count:
            raise WireError("fragment", WireCause.BAD_VALUE, "number of parts changed")
        slot.parts[number] = data
        if any(part is None for part in slot.parts):
            return None
        del slots[identifier]
        if not slots:
            del self._sources[source]
        return _checked(identifier, b"".join(part for part in slot.parts if part is not None))

    def _open(self, fragment: bytes) -> tuple[bytes, int, int, bytes]:
        if len(fragment) <= _OVERHEAD:
            raise WireError("fragment", WireCause.TRUNCATED, f"{len(fragment)} octets")
        if len(fragment) > _OVERHEAD + FRAGMENT_DATA:
            raise WireError("fragment", WireCause.OVERSIZE, f"{len(fragment)} octets")
        head, tag, data = fragment[: _HEAD.size], fragment[_HEAD.size : _OVERHEAD], fragment[_OVERHEAD:]
        identifier, number, count = _HEAD.unpack(head)
        if not 1 <= count <= _MAX_PARTS or number >= count:
            raise WireError("fragment", WireCause.BAD_VALUE, f"part {number} of {count}")
        if not hmac.compare_digest(tag, mac(self._key, head, data)):
            raise DropError(Drop.BAD_TAG, "fragment")
        return identifier, number, count, data

    def _slots_of(self, source: Hashable, now: float) -> OrderedDict[bytes, _Slot]:
        """The live slots of ``source``, which becomes the source heard last."""
        slots = self._sources.pop(source, OrderedDict())
        for identifier in [identifier for identifier, slot in slots.items() if slot.expires <= now]:
            del slots[identifier]
        if len(self._sources) == REASSEMBLY_SOURCES:
            self._sources.popitem(last=False)
        self._sources[source] = slots
        return slots


def _identifier(datagram: bytes) -> bytes:
    return hashlib.sha256(datagram).digest()[:FRAGMENT_ID_SIZE]


def _checked(identifier: bytes, datagram: bytes) -> bytes:
    if _identifier(datagram) != identifier:
        raise DropError(Drop.MALFORMED, "parts of different datagrams")
    return datagram
