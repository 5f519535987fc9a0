"""The anti-replay window (RFC 6479): which counters of one key have been seen.

As in RFC 6479 the window is a ring that is never shifted: a counter owns the slot ``counter mod size``, and
moving forward only clears the slots passed over. Deviation: a slot is an octet, not a bit, because a store into
a bytearray is the cheapest write this language has; so the whole ring serves and no block of it is spare.

:meth:`ReplayWindow.test` comes before the tag is checked and changes nothing; :meth:`ReplayWindow.advance` comes
after it has verified. A forger can therefore not move the window.
"""

from __future__ import annotations

from pptp.errors import Drop, UsageError

DEFAULT_SIZE = 8192  # ours: at 200 000 packets a second it still spans 40 ms of reordering


class ReplayWindow:
    """The counters 0, 1, 2, ... of one receiving key. ``highest`` is the highest verified one, -1 before any.

    A loop may advance to ``highest + 1`` by itself: it sets ``highest``, and ``ring[highest & mask]`` to 1.
    """

    __slots__ = ("_size", "highest", "mask", "ring")

    def __init__(self, size: int = DEFAULT_SIZE) -> None:
        """``size`` is the number of counters remembered, a power of two."""
        if size < 1 or size & (size - 1):
            raise UsageError(f"replay window of {size}, not a power of two")
        self.highest = -1
        self._size = size
        self.mask = size - 1
        self.ring = bytearray(size)

    def test(self, counter: int) -> Drop | None:
        """Why a frame with this counter must be dropped, or ``None`` where its tag is worth checking."""
        behind = self.highest - counter
        if behind < 0:
            return None
        if behind >= self._size:
            return Drop.TOO_OLD
        return Drop.REPLAYED if self.ring[counter & self.mask] else None

    def advance(self, counter: int) -> None:
        """Remember a counter that passed :meth:`test` and whose frame has verified."""
        skipped = counter - self.highest - 1
        if skipped >= 0:
            if skipped:
                self._clear(self.highest + 1, min(skipped, self._size))
            self.highest = counter
        self.ring[counter & self.mask] = 1

    def _clear(self, first: int, count: int) -> None:
        """Clear the slots of ``count`` counters from ``first`` on; ``count`` is at most the size of the ring."""
        start = first & self.mask
        head = min(count, self._size - start)
        self.ring[start : start + head] = bytes(head)
        self.ring[: count - head] = bytes(count - head)
