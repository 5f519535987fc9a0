"""Any of the fifteen messages, in any state, any order, twice and mutilated, with an owner who acts at random.

Invariants: nothing is raised; nothing is said that RFC 2637 does not have as an answer to what was heard; malformed
octets are not answered; every call that came to be ends exactly once; after ``Terminated`` there is silence.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from pptp.control import (
    CallEnded,
    CallEstablished,
    CallHandle,
    CallRequested,
    CallState,
    CloseTransport,
    ControlConfig,
    ControlConnection,
    ControlEstablished,
    LinkInfoReceived,
    WanErrorsReceived,
)
from pptp.errors import Terminated, WireError
from pptp.wire.control import (
    CallClearRequest,
    CallDisconnectNotify,
    ControlMessage,
    EchoReply,
    EchoRequest,
    IncomingCallConnected,
    IncomingCallReply,
    IncomingCallRequest,
    MessageSplitter,
    OutgoingCallReply,
    OutgoingCallRequest,
    SetLinkInfo,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    StopControlConnectionReply,
    StopControlConnectionRequest,
    WanErrorNotify,
    build_message,
    parse_message,
)

SEQUENCES = 5000
STEPS = 16
MAX_CALLS = 3
SEED = 20637

# RFC 2637 sections 2 and 3: the only thing that may be said because of this message, if anything is said.
ANSWERS: dict[type, type | None] = {
    StartControlConnectionRequest: StartControlConnectionReply,
    StartControlConnectionReply: StopControlConnectionRequest,  # a version we do not speak
    StopControlConnectionRequest: StopControlConnectionReply,
    StopControlConnectionReply: None,
    EchoRequest: EchoReply,
    EchoReply: None,
    OutgoingCallRequest: OutgoingCallReply,
    OutgoingCallReply: None,
    IncomingCallRequest: IncomingCallReply,
    IncomingCallReply: IncomingCallConnected,
    IncomingCallConnected: None,
    CallClearRequest: CallDisconnectNotify,
    CallDisconnectNotify: None,
    WanErrorNotify: None,
    SetLinkInfo: None,
}


def some_id(rng: random.Random) -> int:
    return rng.randrange(3)


def some_result(rng: random.Random) -> int:
    return rng.choice((0, 1, 1, 1, 1, 2, 3, 4, 7, 255))


def some_version(rng: random.Random) -> int:
    return rng.choice((0x0100, 0x0100, 0x0100, 0x0100, 0x0200))


# Each message and how often it is said; what leads on is said more often, so that deep states are visited too.
MESSAGES: list[tuple[int, Callable[[random.Random], ControlMessage]]] = [
    (2, lambda rng: StartControlConnectionRequest(some_version(rng))),
    (2, lambda rng: StartControlConnectionReply(some_version(rng), some_result(rng))),
    (1, lambda rng: StopControlConnectionRequest(some_result(rng))),
    (1, lambda rng: StopControlConnectionReply(some_result(rng))),
    (2, lambda rng: EchoRequest(rng.randrange(3))),
    (1, lambda rng: EchoReply(rng.randrange(3), some_result(rng))),
    (10, lambda rng: OutgoingCallRequest(some_id(rng), rng.randrange(2), receive_window=rng.choice((0, 1, 65535)))),
    (16, lambda rng: OutgoingCallReply(some_id(rng), some_id(rng), some_result(rng))),
    (8, lambda rng: IncomingCallRequest(some_id(rng), rng.randrange(2))),
    (16, lambda rng: IncomingCallReply(some_id(rng), some_id(rng), some_result(rng))),
    (12, lambda rng: IncomingCallConnected(some_id(rng))),
    (4, lambda rng: CallClearRequest(some_id(rng))),
    (4, lambda rng: CallDisconnectNotify(some_id(rng), some_result(rng))),
    (12, lambda rng: WanErrorNotify(some_id(rng))),
    (12, lambda rng: SetLinkInfo(some_id(rng), 0, 0xFFFFFFFF)),
]
WEIGHTS = [weight for weight, _ in MESSAGES]


def any_message(rng: random.Random) -> ControlMessage:
    _, make = rng.choices(MESSAGES, WEIGHTS)[0]
    return make(rng)


def mutilated(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        return data + rng.randbytes(rng.randrange(1, 300))
    changed = bytearray(data)
    if kind == 2:
        changed[0:2] = rng.choice((0, 1, 11, 12, len(data) - 1, len(data) + 1, 65535)).to_bytes(2, "big")
    else:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


class Owner:
    """Drives one machine at random and checks every invariant after each stimulus."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        config = ControlConfig(max_calls=MAX_CALLS)
        self.initiator = rng.random() < 0.5
        self.machine = ControlConnection(
            config, initiator=self.initiator, local_address=rng.randrange(3), remote_address=rng.randrange(3)
        )
        self.now = 0.0
        self.over = False
        self.begun: set[CallHandle] = set()
        self.established: set[CallHandle] = set()
        self.ended: set[CallHandle] = set()
        self.visited: Counter[str] = Counter()
        self.machine.open(self.now)
        self.check(self.machine.transmits())

    def step(self) -> None:
        self.now += self.rng.random()
        choice = self.rng.random()
        if choice < 0.65:
            self.hear(build_message(any_message(self.rng)))
        elif choice < 0.66:
            self.hear(mutilated(self.rng, build_message(any_message(self.rng))))
        elif choice < 0.67:
            self.machine.transport_closed(self.now)
        elif choice < 0.70:
            self.now = max(self.now, self.machine.deadline() or self.now)
            self.machine.handle_timeout(self.now)
        elif choice < 0.71:
            self.machine.stop(self.now)
        else:
            self.act()
        self.check(self.machine.transmits())

    def hear(self, data: bytes) -> None:
        for _ in range(self.rng.choice((1, 1, 1, 2))):
            was_over = self.over
            self.machine.receive_message(data, self.now)
            said = [parse_message(answer) for answer in self.machine.transmits()]
            try:
                message = parse_message(data)
            except WireError:
                assert said == []
                assert self.machine.calls == ()
                return
            allowed = ANSWERS[type(message)]
            assert [type(answer) for answer in said] in ([], [allowed])
            if isinstance(message, EchoRequest) and not was_over:
                assert said == [EchoReply(message.identifier)]
            self.check([])

    def act(self) -> None:
        free = [n for n in range(4) if all(call.call_id != n for call in self.machine.calls)]
        if self.machine.established and free and len(self.begun) < 6 and self.rng.random() < 0.5:
            place = self.rng.choice((self.machine.place_outgoing_call, self.machine.place_incoming_call))
            self.begun.add(place(self.rng.choice(free), self.now))
        elif self.machine.calls:
            call = self.rng.choice(self.machine.calls)
            if call.state is CallState.DECIDING and free and self.rng.random() < 0.7:
                self.machine.accept_call(call.handle, self.rng.choice(free), self.now)
            elif call.state is CallState.DECIDING:
                self.machine.refuse_call(call.handle, self.now)
            elif self.rng.random() < 0.3:
                self.machine.clear_call(call.handle, self.now)

    def check(self, said: list[bytes]) -> None:
        events = self.machine.events()
        for data in said:
            parse_message(data)
        if self.over:
            assert not said
            assert not events
        for event in events:
            self.visited[type(event).__name__] += 1
            match event:
                case CallRequested(call):
                    assert call.handle not in self.begun
                    self.begun.add(call.handle)
                case CallEstablished(call):
                    assert call.handle in self.begun - self.ended - self.established
                    self.established.add(call.handle)
                case CallEnded(call):
                    assert call.handle in self.begun - self.ended
                    self.ended.add(call.handle)
                case Terminated():
                    assert event is events[-1]
                    assert isinstance(events[-2], CloseTransport)
                    self.over = True
        assert {call.handle for call in self.machine.calls} == self.begun - self.ended
        asked = [call for call in self.machine.calls if call.incoming is (call.role.value == "PNS")]
        assert len(asked) <= MAX_CALLS
        if self.over:
            assert self.machine.calls == ()
            assert self.machine.deadline() is None


def test_any_messages_in_any_order() -> None:
    visited: Counter[str] = Counter()
    for number in range(SEQUENCES):
        seed = f"{SEED}/{number}"
        owner = Owner(random.Random(seed))
        try:
            if number % 5:  # most sequences begin where it gets interesting
                start = StartControlConnectionReply() if owner.initiator else StartControlConnectionRequest()
                owner.hear(build_message(start))
            for _ in range(STEPS):
                owner.step()
            owner.machine.transport_closed(owner.now)
            owner.check(owner.machine.transmits())
            assert owner.over
            assert owner.begun == owner.ended
        except Exception as error:
            error.add_note(f"seed {seed!r}")
            raise
        visited += owner.visited
    for event in (ControlEstablished, CallRequested, CallEstablished, CallEnded, LinkInfoReceived, WanErrorsReceived):
        assert visited[event.__name__] > 20, visited
    assert visited["Terminated"] == SEQUENCES


@pytest.mark.parametrize("initiator", [True, False])
def test_the_transport_is_cut_after_every_octet_of_a_session(initiator: bool) -> None:
    """A whole session as octets, its transport lost after each of them: nothing is left over."""
    theirs: list[ControlMessage] = [
        StartControlConnectionReply() if initiator else StartControlConnectionRequest(),
        IncomingCallRequest(5),
        OutgoingCallRequest(6),
        EchoRequest(1),
        CallClearRequest(6),
        IncomingCallConnected(7),
        CallDisconnectNotify(5),
        StopControlConnectionRequest(),
    ]
    stream = b"".join(build_message(message) for message in theirs)
    for cut in range(len(stream) + 1):
        machine = ControlConnection(ControlConfig(), initiator=initiator)
        machine.open(0.0)
        splitter = MessageSplitter()
        splitter.feed(stream[:cut])
        begun = ended = 0
        for message in iter(splitter.next_message, None):
            machine.receive_message(message, 0.0)
            for event in machine.events():
                begun += isinstance(event, CallRequested)
                ended += isinstance(event, CallEnded)
                if isinstance(event, CallRequested):
                    machine.accept_call(event.call.handle, 7, 0.0)
        machine.transport_closed(0.0)
        events = machine.events()
        ended += sum(isinstance(event, CallEnded) for event in events)
        assert begun == ended
        assert (machine.calls, machine.deadline()) == ((), None)
