"""MPPE: the data path of an ordinary PPTP link (RFC 3078). Confidential against nobody who tries.

Made by CCP when it opens, one object for each direction; what it negotiated is in :class:`MppeMode`. A packet is the
information field of a PPP frame of protocol 0x00FD:

    flags A B C D 4 bits | coherency count 12 bits | RC4( PPP protocol 2 | data )

*Stateless*, each packet has its own key. *Stateful*, the key stream runs on over the packets, and the key changes
with each packet whose count ends in FF, the flag packet. Behind a few lost packets the place in the stream is looked
for; behind more, or a lost flag packet, it has to be mended through CCP. Where so many are lost without state that the
count is ambiguous, the place is looked for as well: nothing else would ever mend that.

Nothing authenticates a packet, but what it decrypts to must be IPv4 or IPv6, version and length included, which one in
two million random packets is. A packet that is not changes nothing here, whatever its count: so a forger does not
derail the stream, and a packet under keys of an earlier negotiation does not either.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Mapping
from operator import xor

from pptp.crypto.legacy import Rc4, Rc4Keys
from pptp.crypto.mppe_keys import KeyChange, Strength, initial_session_key
from pptp.errors import Drop, DropError, UsageError
from pptp.serial import difference
from pptp.value import value

# RFC 3078 section 3
_HEADER = struct.Struct("!H")
_FLUSHED = 0x8000  # bit A
_ENCRYPTED = 0x1000  # bit D; B and C mean nothing to MPPE
_COUNT_BITS = 12
_COUNT_MASK = 0x0FFF
_FLAG = 0xFF  # section 7: the low octet of a count at which a stateful key changes

# RFC 3078 section 3, and what of it this project ever negotiates
MPPE_PROTOCOL = 0x00FD
_IPV4 = 0x0021
_IPV6 = 0x0057
_INNER_PROTOCOL = struct.Struct("!H")

# RFC 791 section 3.1, RFC 8200 section 3
_IPV4_HEADER = struct.Struct("!BxH16x")  # version and header length, total length
_IPV6_HEADER = struct.Struct("!BxxxH34x")  # version and more, payload length
_IPV4_WORDS = struct.Struct("!10H")  # one's complement, they add up to FFFF
# ours, because RFC 1661 section 2 lets a frame be padded
_PADDING = 63

OVERHEAD = _HEADER.size + _INNER_PROTOCOL.size

# ours, because a peer that changes the key at every reset may have done so in packets that were lost
_UNSEEN_CHANGES = 8


# ours: how many packets may be lost for the place behind them to be looked for, and what any of them measures
_LOST_AT_MOST = 8
_SMALLEST_BODY = 21  # an IPv4 header behind its protocol, of one octet from some peers
_LARGEST_BODY = 1502
# ours: every so-maniest packet in a row of no sense may be one after which the count has gone round, so often at most
_SENSELESS = 8
_MOST_ROUNDS = 4
# ours: the octets that begin nearly every packet, behind its protocol: IPv4 without options, IPv6
_BEGINNINGS = (b"\x00\x21\x45", b"\x00\x57\x60")


def is_encrypted_by_mppe(protocol: int) -> bool:
    """Whether frames of a PPP protocol are MPPE's to encrypt (RFC 3078 section 3): never those of control protocols."""
    return 0x0021 <= protocol <= 0x00FA


@value
class MppeMode:
    """What CCP agreed for one direction."""

    strength: Strength
    stateless: bool

    def __str__(self) -> str:
        return f"{self.strength}-bit {'stateless' if self.stateless else 'stateful'}"


class MppeEncryptor:
    """The sending direction. ``start_key`` is what the authentication left, 16 octets."""

    __slots__ = ("_change", "_count", "_flush", "_key", "_stateless", "_streams", "_update", "mode")

    def __init__(self, start_key: bytes, mode: MppeMode) -> None:
        self.mode = mode
        self._stateless = mode.stateless
        self._change = KeyChange(start_key, mode.strength).next
        self._streams = Rc4Keys(mode.strength.key_size)
        self._key = initial_session_key(start_key, mode.strength)
        self._update = self._streams.stream(self._key)
        self._count = 0
        self._flush = False

    def flush(self) -> None:
        """The peer asks for a reset: let it find its place with the next packet.

        Deviation: RFC 3078 section 3.1 has the next packet carry bit A and start the key stream of the present key
        anew. So read it FreeBSD and npppd; Linux and lwIP also change the key whenever they see the bit. All agree on
        a flag packet, so the count goes on to the next one, as if those between had been lost. For the same reason
        the very first packet carries no bit A, as with all of them.
        """
        self._flush = not self.mode.stateless

    def encrypt(self, protocol: int, data: bytes | memoryview) -> bytes:
        """The MPPE packet that carries ``data``; :class:`UsageError` for a protocol outside 0x0021 to 0x00FA."""
        if not is_encrypted_by_mppe(protocol):
            raise UsageError(f"MPPE does not encrypt frames of protocol {protocol:04x}")
        count = self._count
        if self._flush:
            count |= _FLAG
            self._flush = False
        header = _ENCRYPTED | count
        if self._stateless or count & _FLAG == _FLAG:
            header |= _FLUSHED
            self._key = key = self._change(self._key)
            self._update = self._streams.stream(key)
        self._count = count + 1 & _COUNT_MASK
        return _HEADER.pack(header) + self._update(_INNER_PROTOCOL.pack(protocol) + data)


class MppeDecryptor:
    """The receiving direction. ``start_key`` is what the authentication left, 16 octets.

    Its packets are to come in order, as far as the data channel can see to that: a late one is dropped. Where
    ``reset_wanted`` is true, packets have been dropped that only a CCP Reset-Request can help; whoever sends it
    sets it to false.
    """

    __slots__ = ("_ahead", "_change", "_count", "_drops", "_key", "_senseless", "_stateless", "_stream", "_streams",
                 "mode", "reset_wanted")  # fmt: skip

    def __init__(self, start_key: bytes, mode: MppeMode) -> None:
        self.mode = mode
        self.reset_wanted = False
        self._stateless = mode.stateless
        self._change = KeyChange(start_key, mode.strength).next
        self._streams = Rc4Keys(mode.strength.key_size)
        self._key = initial_session_key(start_key, mode.strength)
        self._count = 0  # of the next packet
        self._ahead: deque[bytes] = deque()  # the keys that follow _key, as far as they are known
        self._stream = _KeyStream(self._key)
        self._senseless = 0  # packets in a row that were late, or of no sense
        self._drops: Counter[Drop] = Counter()

    @property
    def drops(self) -> Mapping[Drop, int]:
        """How many packets were dropped, by cause."""
        return self._drops

    def decrypt(self, packet: bytes | memoryview) -> tuple[int, bytes]:
        """PPP protocol and data of an MPPE packet; raises :class:`DropError`, having counted the cause.

        ``CLEARTEXT``: not encrypted. ``TOO_OLD``: late, or a duplicate. ``SEQUENCE_JUMP``: packets of a stateful
        stream are missing before it. ``MALFORMED``: too short, without the bit A it must have, or of no sense under
        its key.
        """
        try:
            return self._decrypt(packet)
        except DropError as error:
            self._drops[error.cause] += 1
            raise

    def _decrypt(self, packet: bytes | memoryview) -> tuple[int, bytes]:
        if len(packet) <= OVERHEAD - 1:  # the protocol may have one octet, but then data follows
            raise DropError(Drop.MALFORMED, f"MPPE packet of {len(packet)} octets")
        (header,) = _HEADER.unpack_from(packet)
        if not header & _ENCRYPTED:
            raise DropError(Drop.CLEARTEXT, "MPPE packet that is not encrypted")
        count = header & _COUNT_MASK
        ahead = difference(count, self._count, _COUNT_BITS) if count != self._count else 0
        flushed = bool(header & _FLUSHED)
        if not flushed and (self._stateless or count & _FLAG == _FLAG):
            raise DropError(Drop.MALFORMED, f"MPPE count {count:03x} without bit A")
        body = packet[_HEADER.size :]
        inner = None
        if ahead < 0:
            pass  # late, unless it is rounds ahead
        elif self._stateless:
            inner = self._open_anew(body, ahead + 1, ahead + 1)
        elif flushed:
            changes = (self._count + ahead + 1 >> 8) - (self._count >> 8)
            inner = self._open_anew(body, changes, changes + _UNSEEN_CHANGES)
        elif ahead:
            inner = self._open_after_loss(body, ahead)
            if inner is None:
                self.reset_wanted = True
                raise DropError(Drop.SEQUENCE_JUMP, f"{ahead} MPPE packets are missing")
        else:
            inner = self._open_next(body)
        if inner is None and self._senseless % _SENSELESS == _SENSELESS - 1:
            inner = self._open_rounds_ahead(body, ahead)
        if inner is None:
            self._senseless += self._stateless
            if ahead < 0:
                raise DropError(Drop.TOO_OLD, f"MPPE count {count:03x}, expected {self._count:03x}")
            raise DropError(Drop.MALFORMED, "MPPE packet that decrypts to no IP packet")
        self._senseless = 0
        self._count = count + 1 & _COUNT_MASK
        self.reset_wanted = False
        return inner

    def _open_rounds_ahead(self, body: bytes | memoryview, ahead: int) -> tuple[int, bytes] | None:
        """Without state, under the key of a packet with the same count so many rounds of the count later.

        Deviation: RFC 3078 section 8.1 knows no way back when as many packets are lost as the count can tell apart. All
        that would come later is lost then, on a link that looks sound. What is found is taken if it is right to the
        last bit that can be checked.
        """
        for rounds in range(1, _MOST_ROUNDS + 1):
            changes = ahead + 1 + (rounds << _COUNT_BITS)
            inner = self._open_anew(body, changes, changes, certain=True)
            if inner is not None:
                return inner
        return None

    def _open_next(self, body: bytes | memoryview) -> tuple[int, bytes] | None:
        """Under the stream as it goes on; it only does so if what comes out makes sense."""
        inner = _read(self._stream.xor(body))
        if inner is not None:
            self._stream.advance(len(body))
        return inner

    def _open_after_loss(self, body: bytes | memoryview, lost: int) -> tuple[int, bytes] | None:
        """Under the stream as it goes on behind packets that never came.

        Deviation: RFC 3078 section 8.2 has all packets dropped until a reset, which takes a round trip. The stream has
        run on over what is lost, though, by so many octets as that had: and since a packet begins with what is known,
        the octets of the stream that make it so are found in it. What they open is taken if it is right to the last
        bit that can be checked. Not where the key has changed in between.
        """
        if lost > _LOST_AT_MOST or self._count + lost >> 8 != self._count >> 8:
            return None
        farthest = lost * _LARGEST_BODY
        stream = self._stream.peek(farthest + len(body))
        for beginning in _BEGINNINGS:
            wanted = bytes(map(xor, body, beginning))
            at = stream.find(wanted, lost * _SMALLEST_BODY, farthest + len(wanted))
            while at >= 0:
                inner = _read(_xor(body, stream[at : at + len(body)]))
                if inner is not None and _is_certain(*inner):
                    self._stream.advance(at + len(body))
                    return inner
                at = stream.find(wanted, at + 1, farthest + len(wanted))
        return None

    def _open_anew(
        self, body: bytes | memoryview, first: int, last: int, *, certain: bool = False
    ) -> tuple[int, bytes] | None:
        """Under the beginning of the stream of the key that lies ``first`` changes ahead, or one up to ``last``.

        ``certain``: only if it is right to the last bit that can be checked. The keys on the way are kept: a flood of
        packets with far counts costs each key change once.
        """
        for changes in range(first, last + 1):
            while len(self._ahead) < changes:
                latest = self._ahead[-1] if self._ahead else self._key
                self._ahead.append(self._change(latest))
            key = self._ahead[changes - 1] if changes else self._key
            if self._stateless:
                inner = _read(self._streams.stream(key)(body))
            else:
                stream = _KeyStream(key)
                inner = _read(stream.xor(body))
            if inner is None or (certain and not _is_certain(*inner)):
                continue
            for _ in range(changes):
                self._key = self._ahead.popleft()
            if not self._stateless:
                stream.advance(len(body))
                self._stream = stream
            return inner
        return None


class _KeyStream:
    """An RC4 key stream that only moves when it is told to."""

    __slots__ = ("_rc4", "_unused")

    def __init__(self, key: bytes) -> None:
        self._rc4 = Rc4(key)
        self._unused = b""

    def xor(self, data: bytes | memoryview) -> bytes:
        """``data`` under the octets that come next."""
        return _xor(data, self.peek(len(data)))

    def peek(self, size: int) -> bytes:
        """The octets that come next."""
        missing = size - len(self._unused)
        if missing > 0:
            self._unused += self._rc4.update(bytes(missing))
        return self._unused[:size]

    def advance(self, size: int) -> None:
        """The next ``size`` octets have been used."""
        self._unused = self._unused[size:]


class MppePath:
    """Where the frames of a link pass on their way out and in. Created with the link, by whoever carries its data.

    It is keyed when CCP comes up and unkeyed when CCP goes down. With ``required`` nothing that MPPE should encrypt
    passes in clear, at any time; without, only a direction that CCP agreed to encrypt is closed to it.
    """

    __slots__ = ("_drops", "decryptor", "encryptor", "required")

    def __init__(self, *, required: bool) -> None:
        self.required = required
        self.encryptor: MppeEncryptor | None = None
        self.decryptor: MppeDecryptor | None = None
        self._drops: Counter[Drop] = Counter()

    @property
    def drops(self) -> Mapping[Drop, int]:
        """How many frames were dropped, by cause, over all keys."""
        return self._drops

    def rekey(self, encryptor: MppeEncryptor | None, decryptor: MppeDecryptor | None) -> None:
        """CCP came up with these, or went down (twice ``None``)."""
        self.encryptor = encryptor
        self.decryptor = decryptor

    def seal(self, protocol: int, data: bytes | memoryview) -> tuple[int, bytes | memoryview]:
        """Protocol and information field to send; raises :class:`DropError` ``CLEARTEXT`` where there is no key yet."""
        if not is_encrypted_by_mppe(protocol):
            return protocol, data
        if self.encryptor is not None:
            return MPPE_PROTOCOL, self.encryptor.encrypt(protocol, data)
        if self.required:
            raise self._dropped(DropError(Drop.CLEARTEXT, "encryption is required, and not up"))
        return protocol, data

    def open(self, protocol: int, information: bytes | memoryview) -> tuple[int, bytes | memoryview]:
        """Protocol and data of a received frame; raises :class:`DropError`.

        ``CLEARTEXT``: a frame that should have been encrypted. ``WRONG_PHASE``: an MPPE packet without a key for it.
        Otherwise as :meth:`MppeDecryptor.decrypt`.
        """
        if protocol == MPPE_PROTOCOL:
            if self.decryptor is None:
                raise self._dropped(DropError(Drop.WRONG_PHASE, "MPPE packet before MPPE is up"))
            try:
                return self.decryptor.decrypt(information)
            except DropError as error:
                raise self._dropped(error) from None
        if is_encrypted_by_mppe(protocol) and (self.required or self.decryptor is not None):
            raise self._dropped(DropError(Drop.CLEARTEXT, f"protocol {protocol:04x} in clear"))
        return protocol, information

    def _dropped(self, error: DropError) -> DropError:
        self._drops[error.cause] += 1
        return error


def _xor(data: bytes | memoryview, stream: bytes) -> bytes:
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(stream), "big")


def _is_certain(protocol: int, packet: bytes) -> bool:
    """Whether it is this very packet, and not octets that happen to look like one: no padding, and the sum is right."""
    if protocol == _IPV6:
        return len(packet) == _IPV6_HEADER.size + int.from_bytes(packet[4:6], "big")
    total = sum(_IPV4_WORDS.unpack_from(packet))
    return len(packet) == int.from_bytes(packet[2:4], "big") and (total & 0xFFFF) + (total >> 16) == 0xFFFF


def _read(plaintext: bytes) -> tuple[int, bytes] | None:
    """Inner protocol, written with one octet or two, and packet; ``None`` for what is no IP packet."""
    octets = 1 if plaintext[0] & 1 else 2
    protocol = int.from_bytes(plaintext[:octets], "big")
    size = len(plaintext) - octets
    if protocol == _IPV4 and size >= _IPV4_HEADER.size:
        first, length = _IPV4_HEADER.unpack_from(plaintext, octets)
        sensible = first >> 4 == 4 and length >= _IPV4_HEADER.size
    elif protocol == _IPV6 and size >= _IPV6_HEADER.size:
        first, payload = _IPV6_HEADER.unpack_from(plaintext, octets)
        sensible, length = first >> 4 == 6, _IPV6_HEADER.size + payload
    else:
        return None
    return (protocol, plaintext[octets:]) if sensible and 0 <= size - length <= _PADDING else None
