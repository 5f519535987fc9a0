"""The key pairs of one peer, by what they may do: a bookkeeper without timers of its own and without opinions.

* *live*: in use both ways, because a frame of the peer has verified under it;
* *confirming*: we initiated it and send under it, but have not heard the peer under it yet;
* *pending*: we answered for it and receive under it; the peer's first frame makes it live;
* *previous*: replaced; receives what was still under way until its time is up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from grepunch.secure.constants import KEY_LIFETIME, MAX_PENDING, MAX_PREVIOUS, MAX_SPENT, PENDING_LIFETIME
from pptp.datapath import SealedPair
from pptp.machine import earliest


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """What one handshake yielded. ``session`` is (our session id, the peer's); ``born`` starts the 180 seconds."""

    pair: SealedPair
    initiator: bool
    session: tuple[bytes, bytes]
    capabilities: int
    probe_secret: bytes = field(repr=False)
    born: float

    @property
    def dies(self) -> float:
        """When these keys must be gone."""
        return self.born + KEY_LIFETIME


@dataclass(slots=True)
class _Answer:
    """Message 2 for repetitions of one message 1; ``keys`` until they are live or too old.

    ``dies`` is when the keys do: no repetition keeps the answer longer.
    """

    message: bytes
    keys: Keys | None
    dies: float
    expires: float


class Keyring:
    """Created with the key exchange of a peer; ``dropped`` is told of every pair that will never be used again."""

    def __init__(self, dropped: Callable[[Keys], None]) -> None:
        self.live: Keys | None = None
        self.confirming: Keys | None = None
        self.reverted = False  # the confirming keys went unheard for too long: they only receive now
        self._previous: list[Keys] = []
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._spent: OrderedDict[bytes, None] = OrderedDict()
        self._pairs: dict[int, SealedPair] = {}
        self._dropped = dropped

    @property
    def sending(self) -> Keys | None:
        """The keys to send under."""
        return self.confirming if self.unheard else self.live

    @property
    def unheard(self) -> bool:
        """Whether we send under keys that the peer has not been heard under."""
        return self.confirming is not None and not self.reverted

    @property
    def pairs(self) -> Mapping[int, SealedPair]:
        """Every pair that receives, by its local index."""
        return MappingProxyType(self._pairs)

    @property
    def pending(self) -> bool:
        """Whether the peer is about to use keys that we answered for."""
        return any(answer.keys is not None for answer in self._answers.values())

    def deadline(self) -> float | None:
        """When the next key or answer is too old."""
        return earliest(
            *(keys.dies for keys in (self.live, self.confirming, *self._previous) if keys is not None),
            *(answer.expires for answer in self._answers.values()),
        )

    def answer_to(self, digest: bytes, now: float) -> bytes | None:
        """Message 2 for a message 1 that was answered already; being asked again, it stays a while longer."""
        answer = self._answers.get(digest)
        if answer is None:
            return None
        answer.expires = min(now + PENDING_LIFETIME, answer.dies)
        self._answers.move_to_end(digest)
        return answer.message

    def is_spent(self, digest: bytes) -> bool:
        """Whether a message 1 was answered and is over: who sends it now has recorded it."""
        return digest in self._spent

    def add_pending(self, digest: bytes, message: bytes, keys: Keys, now: float) -> None:
        """Keys of a message 1 that ``message`` answers. One too many pushes out the one asked for least recently."""
        if len(self._answers) == MAX_PENDING:
            self._spend_answer(next(iter(self._answers)))
        self._answers[digest] = _Answer(message, keys, keys.dies, now + PENDING_LIFETIME)
        self._pairs[keys.pair.local_index] = keys.pair

    def add_confirming(self, keys: Keys) -> None:
        """Keys that we initiated: from now on we send under them. Earlier ones that went unheard still receive."""
        if self.confirming is not None:
            self._retire(self.confirming)
        self.confirming, self.reverted = keys, False
        self._pairs[keys.pair.local_index] = keys.pair

    def drop_confirming(self) -> None:
        """Give them up."""
        if self.confirming is not None:
            self._drop(self.confirming)
        self.confirming = None

    def find_unconfirmed(self, local_index: int) -> Keys | None:
        """The confirming or pending keys of this index."""
        waiting = (self.confirming, *(answer.keys for answer in self._answers.values()))
        return next((keys for keys in waiting if keys is not None and keys.pair.local_index == local_index), None)

    def make_live(self, keys: Keys) -> None:
        """A frame has verified under these unconfirmed keys.

        What is of the same session goes on receiving; everything of another dies, and so do handshakes that are
        older than this one: the peer has left them behind.
        """
        if self.confirming is not None and self.confirming is not keys:
            self._drop(self.confirming)
        self.confirming = None
        for digest, answer in list(self._answers.items()):
            if answer.keys is keys:
                answer.keys = None
            elif answer.keys is not None and answer.keys.born <= keys.born:
                self._spend_answer(digest)
        if self.live is not None:
            self._retire(self.live)
        self.live = keys
        self._drop_previous(lambda previous: previous.session != keys.session)

    def expire(self, now: float) -> None:
        """Let go of what is too old at ``now``."""
        for digest in [digest for digest, answer in self._answers.items() if answer.expires <= now]:
            self._spend_answer(digest)
        self._drop_previous(lambda previous: previous.dies <= now)
        if self.confirming is not None and self.confirming.dies <= now:
            self.drop_confirming()
        if self.live is not None and self.live.dies <= now:
            self._drop(self.live)
            self.live = None

    def drop_pending(self) -> None:
        """Forget every handshake that was answered."""
        for digest in list(self._answers):
            self._forget_answer(digest)

    def clear(self) -> None:
        """Forget everything."""
        self.drop_pending()
        self.drop_confirming()
        self._drop_previous(lambda previous: True)
        if self.live is not None:
            self._drop(self.live)
        self.live = None

    def _retire(self, keys: Keys) -> None:
        """From now on these only receive."""
        self._previous.append(keys)
        if len(self._previous) > MAX_PREVIOUS:
            self._drop(self._previous.pop(0))

    def _drop_previous(self, unwanted: Callable[[Keys], bool]) -> None:
        dropped = [keys for keys in self._previous if unwanted(keys)]
        self._previous = [keys for keys in self._previous if keys not in dropped]
        for keys in dropped:
            self._drop(keys)

    def _spend_answer(self, digest: bytes) -> None:
        self._spent[digest] = None
        if len(self._spent) > MAX_SPENT:
            self._spent.popitem(last=False)
        self._forget_answer(digest)

    def _forget_answer(self, digest: bytes) -> None:
        keys = self._answers.pop(digest).keys
        if keys is not None:
            self._drop(keys)

    def _drop(self, keys: Keys) -> None:
        del self._pairs[keys.pair.local_index]
        self._dropped(keys)
