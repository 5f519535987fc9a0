"""The data path of a sealed link: one key each way, compiled from a finished handshake.

Nothing is left to decide here: the handshake chose suite, keys and indices and says which key sends. This is the
code that runs for every packet, so state sits in slots, headers are precompiled, and there is one AEAD call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from pptp.crypto.aead import NONCE_SIZE, AeadKey, InvalidTag, Suite
from pptp.crypto.replay import ReplayWindow
from pptp.errors import Drop, DropError
from pptp.wire.sealed import (
    EMPTY_PROTOCOL,
    ENCRYPTED_PROTOCOL,
    FLAG_CHECKSUM_ELIDED,
    INNER_HEADER,
    MAY_ELIDE,
    SEALED_HEADER,
    SMALLEST_FRAME,
)

_OUTER_SIZE = SEALED_HEADER.size
_INNER_SIZE = INNER_HEADER.size
_pack_outer = SEALED_HEADER.pack
_unpack_outer = SEALED_HEADER.unpack_from
_pack_inner = INNER_HEADER.pack
_unpack_inner = INNER_HEADER.unpack_from


class SealedPair:
    """The two traffic keys of one handshake. Created by the key exchange, which also says when it dies.

    ``local_index`` is what the peer puts into frames for us, ``remote_index`` what we put into frames for it.
    ``elides``: both sides take frames whose inner checksum is elided.

    :meth:`seal` and :meth:`open` are the whole of it. A loop that keeps its buffers seals with ``seal_into`` (see
    :class:`AeadKey`), packing the header with ``remote_index`` and ``sent_frames`` itself and counting the latter up,
    and opens with :meth:`open_into`: no object of a frame's size is made.
    """

    __slots__ = ("_drops", "_open_into", "_receive_key", "_send_key", "_unknown_flags", "_window", "elides",
                 "local_index", "opened_frames", "remote_index", "seal_into", "sent_frames", "suite")  # fmt: skip

    def __init__(
        self,
        local_index: int,
        remote_index: int,
        suite: Suite,
        send_key: bytes,
        receive_key: bytes,
        *,
        elides: bool = False,
    ) -> None:
        self.local_index = local_index
        self.remote_index = remote_index
        self.suite = suite
        self.elides = elides
        self.sent_frames = 0  # also the next counter
        self.opened_frames = 0
        self._unknown_flags = ~(FLAG_CHECKSUM_ELIDED if elides else 0)
        self._send_key = AeadKey(suite, send_key)
        self._receive_key = AeadKey(suite, receive_key)
        self._open_into = self._receive_key.open_into
        self.seal_into = self._send_key.seal_into
        self._window = ReplayWindow()
        self._drops: Counter[Drop] = Counter()

    @property
    def highest_received(self) -> int:
        """The highest counter verified so far, -1 before any."""
        return self._window.highest

    @property
    def loss(self) -> float:
        """The share of the peer's frames under these keys that have not arrived, from 0 to 1."""
        due = self._window.highest + 1
        return max(0.0, 1 - self.opened_frames / due) if due else 0.0

    @property
    def drops(self) -> Mapping[Drop, int]:
        """How many frames were dropped, by cause."""
        return self._drops

    def seal(self, protocol: int, data: bytes, flags: int = 0) -> bytes:
        """The PPP frame ``00 53 ...`` that carries ``data`` of a PPP protocol."""
        counter = self.sent_frames
        self.sent_frames = counter + 1
        header = _pack_outer(ENCRYPTED_PROTOCOL, self.remote_index, counter)
        return header + self._send_key.seal(counter, header, _pack_inner(flags, protocol) + data)

    def seal_empty(self) -> bytes:
        """An empty sealed frame: a keepalive, or the confirmation of new keys."""
        return self.seal(EMPTY_PROTOCOL, b"")

    def open(self, frame: bytes | memoryview) -> tuple[int, bytes, int]:
        """PPP protocol, data and flags of a sealed frame; raises :class:`DropError`, having counted the cause.

        The caller found this pair by the frame's receiver index. Protocol 0 without data is an empty frame.
        """
        if len(frame) < SMALLEST_FRAME:
            raise self._dropped(Drop.MALFORMED)
        protocol, index, counter = _unpack_outer(frame)
        if protocol != ENCRYPTED_PROTOCOL:
            raise self._dropped(Drop.MALFORMED)
        if index != self.local_index:
            raise self._dropped(Drop.UNKNOWN_SESSION)
        window = self._window
        if counter <= window.highest:
            cause = window.test(counter)
            if cause is not None:
                raise self._dropped(cause)
        try:
            plaintext = self._receive_key.open(counter, frame[:_OUTER_SIZE], frame[_OUTER_SIZE:])
        except DropError:
            self._drops[Drop.BAD_TAG] += 1
            raise
        window.advance(counter)
        self.opened_frames += 1
        flags, protocol = _unpack_inner(plaintext)
        if flags and self.refuses(flags, protocol):
            raise DropError(Drop.MALFORMED)
        return protocol, plaintext[_INNER_SIZE:], flags

    def open_into(self, counter: int, header: memoryview, ciphertext: memoryview, plaintext: memoryview) -> Drop | None:
        """Open a frame of this pair's index into ``plaintext``, as long as ``ciphertext`` without its tag.

        ``header`` is the frame's first 14 octets, which ``counter`` is from. Returns why the frame is to be dropped,
        counted, or None. Where there are flags inside, ask :meth:`refuses`.
        """
        window = self._window
        highest = window.highest
        if counter <= highest:
            cause = window.test(counter)
            if cause is not None:
                self._drops[cause] += 1
                return cause
        try:
            self._open_into(counter.to_bytes(NONCE_SIZE, "big"), ciphertext, header, plaintext)
        except InvalidTag:
            self._drops[Drop.BAD_TAG] += 1
            return Drop.BAD_TAG
        if counter == highest + 1:  # what nearly every frame is, without a call
            window.highest = counter
            window.ring[counter & window.mask] = 1
        else:
            window.advance(counter)
        self.opened_frames += 1
        return None

    def refuses(self, flags: int, protocol: int) -> bool:
        """Whether an authentic frame with these flags is to be dropped, counted."""
        if not flags & self._unknown_flags and protocol in MAY_ELIDE:
            return False
        self._drops[Drop.MALFORMED] += 1
        return True

    def _dropped(self, cause: Drop) -> DropError:
        self._drops[cause] += 1
        return DropError(cause)
