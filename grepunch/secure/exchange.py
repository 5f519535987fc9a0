"""Key agreement with one peer: who asks, who answers, which keys are in use, when they change and die.

One :class:`KeyExchange` belongs to one peer (an identity, not an address) for as long as the peer is configured.
The owner feeds it handshake datagrams, tells it when a sealed frame verified under keys that are not yet live,
and sends what it transmits on whatever carrier there is. PROTOCOL.md has the table of states and the reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from grepunch.secure.attempt import Attempt, CookieShelf
from grepunch.secure.constants import (
    CONFIRM_ANSWERS,
    CONFIRM_INTERVAL,
    CONFIRM_TIMEOUT,
    FRAME_CHECK_INTERVAL,
    REKEY_FRAMES,
    REKEY_INITIATOR,
    REKEY_RESPONDER,
    REKEY_RETRY,
    SESSION_ID_SIZE,
    YIELD_TIME,
)
from grepunch.secure.events import (
    ConfirmWanted,
    ExchangeEvent,
    ExchangeFailed,
    ExchangeState,
    FailureReason,
    KeysDropped,
    KeysLive,
    KeysReady,
)
from grepunch.secure.handshake import (
    MessageType,
    OpenedInitiation,
    Payload,
    build_response,
    derive_secrets,
    open_initiation,
    parse_header,
)
from grepunch.secure.identity import Identity
from grepunch.secure.keyring import Keyring, Keys
from grepunch.secure.noise import Encapsulate, HandshakeState, encapsulate
from pptp.crypto.aead import Suite
from pptp.datapath import SealedPair
from pptp.errors import Drop, DropError, UsageError, WireError
from pptp.machine import earliest
from pptp.timers import Timers
from pptp.wire.sealed import CAPABILITY_CHECKSUM_ELISION


class _Timer(Enum):
    RETRANSMIT = "retransmit"
    RESUME = "resume"
    CONFIRM = "confirm"
    CONFIRM_END = "confirm_end"
    REKEY = "rekey"
    FRAME_CHECK = "frame_check"


class KeyExchange:
    """See the module. ``session_id`` is 8 random octets, new at each start of this side.

    ``suites`` are what we offer and take, in order of preference. ``allocate_index`` gives a random non-zero
    32-bit number unique on this host, which ``release_index`` gives back. ``encapsulate`` is for test vectors.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        peer_public_key: bytes,
        preshared_key: bytes | None,
        session_id: bytes,
        capabilities: int,
        suites: Sequence[Suite],
        entropy: Callable[[int], bytes],
        allocate_index: Callable[[], int],
        release_index: Callable[[int], None],
        encapsulate: Encapsulate = encapsulate,
    ) -> None:
        if peer_public_key == identity.public_key:
            raise UsageError("the peer has our own key")
        if not suites or len(session_id) != SESSION_ID_SIZE:
            raise UsageError("no suite, or a session id of the wrong size")
        self.session_id = session_id
        self._identity = identity
        self._peer_public_key = peer_public_key
        self._preshared_key = preshared_key
        self._capabilities = capabilities
        self._suites = tuple(suites)
        self._entropy = entropy
        self._allocate_index = allocate_index
        self._release_index = release_index
        self._encapsulate = encapsulate
        # Who stays initiator where both ask; every direction and role in use comes from the handshake itself.
        self._prevails = identity.public_key < peer_public_key
        self._attempt: Attempt | None = None
        self._cookies = CookieShelf()
        self._confirmations = 0  # empty frames still to be asked for
        self._keyring = Keyring(self._keys_dropped)
        self._timers: Timers[_Timer] = Timers()
        self._drops: Counter[Drop] = Counter()
        self._out: list[bytes] = []
        self._events: list[ExchangeEvent] = []
        self._session: tuple[bytes, bytes] | None = None  # of the live keys, and a moment longer
        self._dead = False

    # -- the machine contract ---------------------------------------------------------------------------------

    def transmits(self) -> list[bytes]:
        """Drain the handshake datagrams to send."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[ExchangeEvent]:
        """Drain what happened."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        return earliest(self._timers.deadline(), self._keyring.deadline())

    def handle_timeout(self, now: float) -> None:
        """Repeat, confirm, renew and forget, as far as due."""
        self._expire(now)
        for timer in self._timers.pop_expired(now):
            match timer:
                case _Timer.RETRANSMIT | _Timer.RESUME if self._attempt is not None:
                    self._attempt.suspended = False
                    self._retransmit(self._attempt, now)
                case _Timer.CONFIRM if self.current is not None:
                    self._confirm(now)
                case _Timer.CONFIRM_END if self._keyring.unheard:
                    self._give_up_confirming(now)
                case _Timer.REKEY:
                    self.initiate(now)
                case _Timer.FRAME_CHECK:
                    self._check_frames(now)

    # -- what the owner asks ----------------------------------------------------------------------------------

    @property
    def state(self) -> ExchangeState:
        """Where the exchange is."""
        attempt, keyring = self._attempt, self._keyring
        agreed = keyring.pending or keyring.unheard
        if self._dead:
            return ExchangeState.DEAD
        if keyring.live is not None:
            return ExchangeState.REKEYING if agreed or attempt is not None else ExchangeState.LIVE
        if attempt is not None and not attempt.suspended:
            return ExchangeState.SENT
        return ExchangeState.PENDING if agreed or attempt is not None else ExchangeState.IDLE

    @property
    def current(self) -> SealedPair | None:
        """The pair to send under."""
        keys = self._keyring.sending
        return keys.pair if keys is not None else None

    @property
    def live(self) -> SealedPair | None:
        """The pair in use both ways. Frames under any other are worth a call of :meth:`frame_verified`."""
        keys = self._keyring.live
        return keys.pair if keys is not None else None

    @property
    def pairs(self) -> Mapping[int, SealedPair]:
        """Every pair to receive under, by local index."""
        return self._keyring.pairs

    @property
    def drops(self) -> Mapping[Drop, int]:
        """How many handshake datagrams were dropped, and frames under any pair there ever was, by cause."""
        total = Counter(self._drops)
        for pair in self._keyring.pairs.values():
            total.update(pair.drops)
        return total

    # -- commands ---------------------------------------------------------------------------------------------

    def initiate(self, now: float) -> None:
        """Agree on keys, be it the first or new ones. Harmless while that is under way."""
        if self._dead:
            raise UsageError("the key exchange is closed")
        if self._attempt is not None or self._keyring.unheard:
            return
        self._timers.stop(_Timer.REKEY)
        self._attempt = Attempt(
            self._identity,
            self._peer_public_key,
            self._preshared_key,
            self._allocate_index(),
            Payload(self.session_id, self._capabilities, self._suites),
            self._entropy,
        )
        if self._keyring.pending:
            self._yield(self._attempt, now)
        else:
            self._send_initiation(self._attempt, now)

    def forget(self, now: float) -> None:
        """The session is over: drop every key and take a new session id, so that nobody takes the next for this one."""
        self._stop_attempt()
        self._timers.stop_all()
        self._keyring.clear()
        self._session = None
        self.session_id = self._entropy(SESSION_ID_SIZE)

    def close(self, now: float) -> None:
        """Forget everything for good."""
        self.forget(now)
        self._preshared_key = None
        self._dead = True

    # -- what arrives -----------------------------------------------------------------------------------------

    def open_initiation(self, datagram: bytes) -> OpenedInitiation | None:
        """Open a message 1 that can only be this peer's (from its mailbox); ``None``, counted, where it is not."""
        try:
            opened = open_initiation(self._identity, datagram)
        except (WireError, DropError) as error:
            self._count(error)
            return None
        if opened.peer_public_key != self._peer_public_key:
            self._drops[Drop.NOT_ALLOWED] += 1
            return None
        return opened

    def receive_initiation(self, opened: OpenedInitiation, now: float) -> None:
        """Answer a message 1 of this peer, unless our own attempt prevails."""
        if opened.peer_public_key != self._peer_public_key:
            raise UsageError("message 1 of another peer")
        try:
            if self._dead:
                raise DropError(Drop.WRONG_PHASE)
            repeated = self._keyring.answer_to(opened.digest, now)
            if repeated is not None:
                self._out.append(repeated)
                return
            if self._keyring.is_spent(opened.digest):
                raise DropError(Drop.REPLAYED)
            attempt = self._attempt
            asking = attempt is not None and not attempt.suspended
            if self._prevails and (asking or self._keyring.unheard):
                raise DropError(Drop.WRONG_PHASE, "our own attempt prevails")
            self._answer(opened, now)
            if attempt is not None and asking:
                self._yield(attempt, now)
        except DropError as error:
            self._count(error)

    def receive(self, datagram: bytes, now: float) -> None:
        """Message 2 or a cookie reply: of all handshake datagrams, those that name a receiver index of ours."""
        try:
            header = parse_header(datagram)
            attempt = self._attempt
            if attempt is None or header.receiver_index != attempt.local_index:
                raise DropError(Drop.UNKNOWN_SESSION)
            if header.type is MessageType.COOKIE:
                self._take_cookie(attempt, datagram, now)
            else:
                self._take_response(attempt, header.sender_index, datagram, now)
        except (WireError, DropError) as error:
            self._count(error)

    def frame_verified(self, local_index: int, now: float) -> bool:
        """A sealed frame has verified under the pair of this index; harmless where that is nothing new.

        False: drop it, its keys will not be used. That is so when both sides asked, both answered, and ours prevail.
        """
        keys = self._keyring.find_unconfirmed(local_index)
        if keys is None:
            return True
        if self._keyring.unheard and self._prevails and not keys.initiator:
            return False
        self._go_live(keys, now)
        return True

    # -- our attempt ------------------------------------------------------------------------------------------

    def _send_initiation(self, attempt: Attempt, now: float) -> None:
        message, delay = attempt.take_message(self._cookies, now)
        self._out.append(message)
        self._timers.arm(_Timer.RETRANSMIT, now + delay)

    def _retransmit(self, attempt: Attempt, now: float) -> None:
        if attempt.exhausted:
            self._stop_attempt()
            self._fail(attempt.failure, now)
        else:
            self._send_initiation(attempt, now)

    def _yield(self, attempt: Attempt, now: float) -> None:
        if attempt.suspend():
            self._timers.stop(_Timer.RETRANSMIT)
            self._timers.arm(_Timer.RESUME, now + YIELD_TIME)

    def _stop_attempt(self) -> None:
        if self._attempt is not None:
            self._release_index(self._attempt.local_index)
        self._end_attempt()

    def _end_attempt(self) -> None:
        """Its index lives on in the keys."""
        self._attempt = None
        self._timers.stop(_Timer.RETRANSMIT)
        self._timers.stop(_Timer.RESUME)

    def _take_cookie(self, attempt: Attempt, datagram: bytes, now: float) -> None:
        fresh = self._cookies.put(attempt.open_cookie(datagram), now)
        if fresh and not attempt.suspended and not attempt.exhausted:
            self._send_initiation(attempt, now)

    def _take_response(self, attempt: Attempt, remote_index: int, datagram: bytes, now: float) -> None:
        state, payload = attempt.open_response(datagram)
        suite = next((suite for suite in self._suites if payload.suites == (suite,)), None)
        if suite is None:
            raise DropError(Drop.NOT_ALLOWED, "a suite that was not offered")
        keys = self._make_keys(state, (attempt.local_index, remote_index), payload, suite, now, initiator=True)
        self._end_attempt()
        self._keyring.add_confirming(keys)
        self._events.append(KeysReady.about(keys, self._is_new(keys)))
        self._timers.arm(_Timer.CONFIRM_END, now + CONFIRM_TIMEOUT)
        self._confirmations = int(CONFIRM_TIMEOUT / CONFIRM_INTERVAL)
        self._confirm(now)

    def _confirm(self, now: float) -> None:
        self._events.append(ConfirmWanted())
        self._confirmations -= 1
        if self._confirmations > 0:
            self._timers.arm(_Timer.CONFIRM, now + CONFIRM_INTERVAL)

    def _give_up_confirming(self, now: float) -> None:
        """Nothing was heard under the keys we initiated.

        A renewal goes back to sending under the live keys, but still receives under the new: the peer may be using
        them. The keys of a new session go, and its id with them, or one side would take the next for this one.
        """
        keyring = self._keyring
        keyring.reverted = True
        if keyring.live is None or (keyring.confirming is not None and self._is_new(keyring.confirming)):
            self._renew_session(now)
        self._fail(FailureReason.NOT_CONFIRMED, now)

    def _fail(self, reason: FailureReason, now: float) -> None:
        self._events.append(ExchangeFailed(reason))
        if self._keyring.live is not None:
            self._timers.arm(_Timer.REKEY, now + REKEY_RETRY)

    # -- the peer's attempt -----------------------------------------------------------------------------------

    def _answer(self, opened: OpenedInitiation, now: float) -> None:
        # The initiator's order of preference decides.
        suite = next((suite for suite in opened.payload.suites if suite in self._suites), None)
        if suite is None:
            raise DropError(Drop.NOT_ALLOWED, "no suite in common")
        state = opened.state.copy()
        if self._preshared_key is not None:
            state.preshared_key = self._preshared_key
        local_index, remote_index = self._allocate_index(), opened.sender_index
        payload = Payload(self.session_id, self._capabilities, (suite,))
        try:
            message = build_response(state, local_index, remote_index, payload, self._entropy, self._encapsulate)
        except DropError:
            self._release_index(local_index)
            raise
        keys = self._make_keys(state, (local_index, remote_index), opened.payload, Suite(suite), now, initiator=False)
        self._keyring.add_pending(opened.digest, message, keys, now)
        self._out.append(message)
        self._events.append(KeysReady.about(keys, self._is_new(keys)))

    # -- keys -------------------------------------------------------------------------------------------------

    def _make_keys(
        self,
        state: HandshakeState,
        indices: tuple[int, int],
        theirs: Payload,
        suite: Suite,
        now: float,
        *,
        initiator: bool,
    ) -> Keys:
        secrets = derive_secrets(state, suite)
        send, receive = secrets.initiator_key, secrets.responder_key
        if not initiator:
            send, receive = receive, send
        capabilities = self._capabilities & theirs.capabilities
        elides = bool(capabilities & CAPABILITY_CHECKSUM_ELISION)
        return Keys(
            pair=SealedPair(*indices, suite, send, receive, elides=elides),
            initiator=initiator,
            session=(self.session_id, theirs.session_id),
            capabilities=capabilities,
            probe_secret=secrets.probe_secret,
            born=now,
        )

    def _is_new(self, keys: Keys) -> bool:
        return keys.session != self._session

    def _go_live(self, keys: Keys, now: float) -> None:
        new_session = self._is_new(keys)
        self._stop_attempt()
        self._timers.stop_all()
        self._keyring.make_live(keys)
        self._session = keys.session
        self._timers.arm(_Timer.REKEY, keys.born + (REKEY_INITIATOR if keys.initiator else REKEY_RESPONDER))
        self._timers.arm(_Timer.FRAME_CHECK, now + FRAME_CHECK_INTERVAL)
        self._events.append(KeysLive.about(keys, new_session))
        if not keys.initiator:
            self._confirmations = CONFIRM_ANSWERS  # so that the initiator need not wait for data of ours
            self._confirm(now)

    def _check_frames(self, now: float) -> None:
        live = self._keyring.live
        self._timers.arm(_Timer.FRAME_CHECK, now + FRAME_CHECK_INTERVAL)
        if (
            live is not None
            and live.initiator
            and max(live.pair.sent_frames, live.pair.highest_received) >= REKEY_FRAMES
        ):
            self.initiate(now)

    def _expire(self, now: float) -> None:
        had_live = self._keyring.live is not None
        self._keyring.expire(now)
        if had_live and self._keyring.live is None:
            self._timers.stop(_Timer.FRAME_CHECK)
            self._timers.stop(_Timer.REKEY)
            if self.current is None:
                self._renew_session(now)

    def _renew_session(self, now: float) -> None:
        """The session is lost on this side. Whatever still carries its id starts again under another."""
        asking = self._attempt is not None
        self._stop_attempt()
        self._keyring.drop_pending()
        self._keyring.drop_confirming()
        self._session = None
        self.session_id = self._entropy(SESSION_ID_SIZE)
        if asking:
            self.initiate(now)

    def _keys_dropped(self, keys: Keys) -> None:
        self._drops.update(keys.pair.drops)
        self._release_index(keys.pair.local_index)
        self._events.append(KeysDropped(keys.pair.local_index))

    def _count(self, error: WireError | DropError) -> None:
        self._drops[error.cause if isinstance(error, DropError) else Drop.MALFORMED] += 1
