"""The probe: 44 octets that say "I am your peer, this is my attempt, and this I have heard of yours".

    attempt id 8 | sequence 4 | peer's attempt id 8 | highest sequence heard 4 | hint 4 | MAC 16

The hint is flags 1 (bit 0: the sender has proven this address and form), the TTL with which your highest probe
arrived 1 (0: not known) and how many of yours were heard 2 (saturating). A probe travels as the body of an LCP
Vendor-Specific packet; with it and GRE version 1 it makes an IPv4 packet of 92 octets. The MAC is HMAC-SHA-256
(RFC 2104) cut to 16 octets under a key of one direction, so that a reflected probe is a forged one.

What a probe echoes belongs to the address and form it travels in: an echo says that *this* way works.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from pptp.errors import WireCause, WireError
from pptp.value import value

_FIELDS = struct.Struct("!8sI8sIBBH")
MAC_SIZE = 16
PROBE_SIZE = _FIELDS.size + MAC_SIZE  # 44
ATTEMPT_ID_SIZE = 8
NO_ATTEMPT = bytes(ATTEMPT_ID_SIZE)  # in the peer's place: nothing heard yet
KEY_SIZE = 32

_FLAG_PROVEN = 0x01
_COUNT_LIMIT = 0xFFFF


@value
class Probe:
    """One probe without its MAC. ``sequence`` rises by one per probe of an attempt, over all addresses and forms."""

    attempt_id: bytes
    sequence: int
    peer_attempt_id: bytes = NO_ATTEMPT
    highest_heard: int = 0
    proven: bool = False
    arrival_ttl: int = 0
    heard_count: int = 0


def seal_probe(key: bytes, probe: Probe) -> bytes:
    """The 44 octets of ``probe`` under the sender's 32-octet key."""
    fields = _FIELDS.pack(
        probe.attempt_id,
        probe.sequence,
        probe.peer_attempt_id,
        probe.highest_heard,
        _FLAG_PROVEN if probe.proven else 0,
        probe.arrival_ttl,
        min(probe.heard_count, _COUNT_LIMIT),
    )
    return fields + _mac(key, fields)


def open_probe(key: bytes, body: bytes | memoryview) -> Probe:
    """The authentic probe in ``body``; raises :class:`WireError` (BAD_VALUE: the MAC is another)."""
    if len(body) != PROBE_SIZE:
        cause = WireCause.TRUNCATED if len(body) < PROBE_SIZE else WireCause.TRAILING
        raise WireError("probe", cause, f"{len(body)} octets")
    fields = bytes(body[: _FIELDS.size])
    if not hmac.compare_digest(_mac(key, fields), bytes(body[_FIELDS.size :])):
        raise WireError("probe", WireCause.BAD_VALUE, "MAC")
    attempt_id, sequence, peer_attempt_id, highest_heard, flags, arrival_ttl, heard = _FIELDS.unpack(fields)
    return Probe(attempt_id, sequence, peer_attempt_id, highest_heard, bool(flags & _FLAG_PROVEN), arrival_ttl, heard)


def _mac(key: bytes, fields: bytes) -> bytes:
    return hmac.digest(key, fields, hashlib.sha256)[:MAC_SIZE]


class SequenceWindow:
    """Which sequence numbers of one attempt of the peer were heard: each is taken once.

    Probes of several forms overtake each other, so a number below the highest is good while it is new.
    """

    __slots__ = ("_bits", "_highest")

    SIZE = 128  # ours, because it spans 3 s of the fastest schedule with four targets in two forms

    def __init__(self) -> None:
        self._highest = -1
        self._bits = 0

    def take(self, sequence: int) -> bool:
        """True the first time for each number that is not too old."""
        ahead = sequence - self._highest
        if ahead > 0:
            self._bits = ((self._bits << ahead) | 1) & ((1 << self.SIZE) - 1) if ahead < self.SIZE else 1
            self._highest = sequence
            return True
        if -ahead >= self.SIZE or self._bits & (1 << -ahead):
            return False
        self._bits |= 1 << -ahead
        return True
