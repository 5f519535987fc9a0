"""Any of the fifteen messages to a whole connection: in any state and order, twice, and with every wrong length.

Sequence number ``n`` of 50 000 is the same in every run: an opening that leads into one of the states, some messages
drawn at random, each now and then twice, a GRE packet or the passing of time between them, then message type
``n mod 15`` with the next wrong length, then one more. What is held, after every one of them:

* nothing is raised;
* what is said is what RFC 2637 has as an answer to what was heard, from the role that we have: a PAC never speaks as a
  PNS and the other way round, and the Call IDs in it are those of the right side (section 3's table);
* octets that are no message are not answered, and end the connection as a protocol error;
* each call that came up is over exactly once, each Call ID that was given out comes back exactly once, and both before
  ``Terminated``, after which there is silence.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from pptp.errors import Terminated, TerminationCause, WireError
from pptp.ordinary import CallOver, CallUp, GreOut, OrdinaryConnection
from pptp.wire.control import (
    CallClearRequest,
    CallDisconnectNotify,
    ControlMessage,
    EchoReply,
    EchoRequest,
    IncomingCallConnected,
    IncomingCallReply,
    IncomingCallRequest,
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
from tests.calls.call_world import CallIds, admit_one, dialling, serving

SEQUENCES = 50_000
SHARDS = 5
SEED = 20637
SERVING, DIALLING = serving("pap", mppe=None), dialling("pap", mppe=None)

# What may be said because of a message, by our role; "starts" and "ends" are what a PNS of one call does of itself.
PAC_ANSWERS: dict[type, tuple[type, ...]] = {
    StartControlConnectionRequest: (StartControlConnectionReply,),
    StopControlConnectionRequest: (StopControlConnectionReply,),
    EchoRequest: (EchoReply,),
    OutgoingCallRequest: (OutgoingCallReply,),
    IncomingCallRequest: (IncomingCallReply,),
    CallClearRequest: (CallDisconnectNotify,),
}
PNS_ANSWERS: dict[type, tuple[type, ...]] = {
    StartControlConnectionRequest: (StartControlConnectionReply, OutgoingCallRequest),
    StartControlConnectionReply: (OutgoingCallRequest, StopControlConnectionRequest),
    StopControlConnectionRequest: (StopControlConnectionReply,),
    EchoRequest: (EchoReply,),
    OutgoingCallRequest: (OutgoingCallReply,),
    OutgoingCallReply: (StopControlConnectionRequest,),
    IncomingCallRequest: (IncomingCallReply,),
    CallClearRequest: (CallDisconnectNotify,),
    CallDisconnectNotify: (StopControlConnectionRequest,),
}


def result(rng: random.Random) -> int:
    return rng.choice((0, 1, 1, 1, 2, 4, 7, 255))


def version(rng: random.Random) -> int:
    return rng.choice((0x0100, 0x0100, 0x0100, 0x0200))


def own_id(rng: random.Random) -> int:
    """One of ours, as often as not."""
    return rng.choice((100, 5000, 5000, 0, 7, 65535))


MAKERS: list[Callable[[random.Random], ControlMessage]] = [
    lambda rng: StartControlConnectionRequest(version(rng)),
    lambda rng: StartControlConnectionReply(version(rng), result(rng)),
    lambda rng: StopControlConnectionRequest(result(rng)),
    lambda rng: StopControlConnectionReply(result(rng)),
    lambda rng: EchoRequest(rng.randrange(3)),
    lambda rng: EchoReply(rng.randrange(3), result(rng)),
    lambda rng: OutgoingCallRequest(rng.randrange(9), rng.randrange(2), receive_window=rng.choice((0, 1, 65535))),
    lambda rng: OutgoingCallReply(rng.randrange(9), own_id(rng), result(rng)),
    lambda rng: IncomingCallRequest(rng.randrange(9), rng.randrange(2)),
    lambda rng: IncomingCallReply(rng.randrange(9), own_id(rng), result(rng)),
    lambda rng: IncomingCallConnected(own_id(rng)),
    lambda rng: CallClearRequest(rng.randrange(9)),
    lambda rng: CallDisconnectNotify(own_id(rng), result(rng)),
    lambda rng: WanErrorNotify(own_id(rng)),
    lambda rng: SetLinkInfo(own_id(rng), 0, 0xFFFFFFFF),
]
OPENINGS: dict[bool, list[list[ControlMessage]]] = {
    False: [
        [],
        [StartControlConnectionRequest()],
        [StartControlConnectionRequest(), OutgoingCallRequest(7)],
        [StartControlConnectionRequest(), OutgoingCallRequest(7), CallClearRequest(7)],
        [StartControlConnectionRequest(), OutgoingCallRequest(7), OutgoingCallRequest(8)],
    ],
    True: [
        [],
        [StartControlConnectionReply()],
        [StartControlConnectionReply(), OutgoingCallReply(7, 100)],
        [StartControlConnectionReply(), OutgoingCallReply(7, 100), CallDisconnectNotify(7)],
        [StartControlConnectionReply(), OutgoingCallReply(7, 100)],
    ],
}
OCTETS = {
    dials: [[(message, build_message(message)) for message in opening] for opening in openings]
    for dials, openings in OPENINGS.items()
}


def wrong_lengths(size: int) -> list[int]:
    """Every length from 0 to a few beyond the largest message, but the right one; and the extremes."""
    return [length for length in (*range(230), 255, 256, 0x7FFF, 0x8000, 0xFFFF) if length != size]


class Owner:
    """One connection, its owner, and what must hold."""

    def __init__(self, rng: random.Random, dials: bool) -> None:
        self.rng = rng
        self.dials = dials
        self.now = 0.0
        self.call_ids = CallIds(100 if dials else 5000, most=2)
        self.machine = OrdinaryConnection(
            DIALLING if dials else SERVING,
            entropy=rng.randbytes,
            allocate_call_id=self.call_ids.allocate,
            release_call_id=self.call_ids.release,
            admit=None if dials else admit_one,
        )
        self.answers = PNS_ANSWERS if dials else PAC_ANSWERS
        self.up: set[int] = set()
        self.over = False
        self.visited: Counter[type] = Counter()
        self.machine.open(self.now)
        self.heard()

    def heard(self) -> list[ControlMessage]:
        """Take what the connection says; check its events."""
        said: list[ControlMessage] = []
        for out in self.machine.transmits():
            assert not self.over
            if not isinstance(out, GreOut):
                said.append(parse_message(out.data))
        for event in self.machine.events():
            assert not self.over
            self.visited[type(event)] += 1
            match event:
                case CallUp(call_id):
                    assert call_id not in self.up
                    self.up.add(call_id)
                case CallOver(call_id):
                    self.up.remove(call_id)
                case Terminated():
                    assert not self.up
                    assert not self.call_ids.out
                    self.over = True
        return said

    def say(self, message: ControlMessage, octets: bytes) -> None:
        """A message, and what may follow from it."""
        was_over = self.over
        self.machine.receive_stream(octets, self.now)
        said = self.heard()
        allowed = self.answers.get(type(message), ())
        for answer in said:
            assert type(answer) in allowed, (message, said)
            self.check_ids(message, answer)
        if isinstance(message, EchoRequest) and not was_over:
            assert said == [EchoReply(message.identifier)]

    def check_ids(self, heard: ControlMessage, answer: ControlMessage) -> None:
        """Whose Call ID stands where."""
        match heard, answer:
            case OutgoingCallRequest(call_id), OutgoingCallReply(own, peers, outcome):
                assert peers == call_id
                assert (own in self.up) is (outcome == 1)
                assert not (self.dials and outcome == 1)
            case IncomingCallRequest(call_id), IncomingCallReply(_, peers, outcome):
                assert peers == call_id
                assert outcome != 1
            case _, OutgoingCallRequest(own):
                assert own in self.call_ids.out
            case CallClearRequest(call_id), CallDisconnectNotify(own, outcome, error):
                assert (outcome, error) in ((4, 0), (2, 5))
                assert own == call_id if outcome == 2 else own not in self.up

    def mutilate(self, message: ControlMessage, length: int) -> None:
        """A message that says it is of another length, with that many octets or with its own."""
        octets = build_message(message)
        octets = length.to_bytes(2, "big") + octets[2:]
        if self.rng.random() < 0.5:
            octets = octets[:length].ljust(min(length, 400), b"\0")
        was_over = self.over
        self.machine.receive_stream(octets, self.now)
        assert self.heard() == []
        if len(octets) >= 12 and not was_over:
            assert self.over

    def other(self) -> None:
        """Something else than a message."""
        choice = self.rng.random()
        if choice < 0.5:
            packet = b"\x30\x01\x88\x0b\0\x04" + self.rng.choice((100, 5000, 1)).to_bytes(2, "big")
            packet += self.rng.randbytes(self.rng.randrange(12))
            assert self.machine.receive_gre(packet, self.now) == []
        elif choice < 0.9:
            self.now += self.rng.random() * 10
            self.machine.handle_timeout(self.now)
        else:
            self.machine.close(self.now)
        self.heard()


def run_sequence(number: int) -> Counter[type]:
    """One of them."""
    rng = random.Random(f"{SEED}/{number}")
    dials = rng.random() < 0.5
    owner = Owner(rng, dials)
    for message, octets in rng.choice(OCTETS[dials]):
        owner.say(message, octets)
    for _ in range(rng.randrange(4)):
        message = rng.choice(MAKERS)(rng)
        octets = build_message(message)
        owner.say(message, octets)
        if rng.random() < 0.25:
            owner.say(message, octets)
        if rng.random() < 0.2:
            owner.other()
    bad = MAKERS[number % len(MAKERS)](rng)
    lengths = wrong_lengths(len(build_message(bad)))
    owner.mutilate(bad, lengths[number // len(MAKERS) % len(lengths)])
    last = rng.choice(MAKERS)(rng)
    if owner.over:
        owner.say(last, build_message(last))
    owner.machine.stream_closed(owner.now)
    assert owner.heard() == []
    assert owner.over
    assert owner.machine.deadline() is None
    return owner.visited


@pytest.mark.parametrize("shard", range(SHARDS))
def test_messages_in_any_order_twice_and_of_every_wrong_length(shard: int) -> None:
    visited: Counter[type] = Counter()
    for number in range(shard, SEQUENCES, SHARDS):
        try:
            visited += run_sequence(number)
        except Exception as error:
            error.add_note(f"sequence {number}")
            raise
    assert visited[Terminated] == SEQUENCES // SHARDS
    assert visited[CallUp] == visited[CallOver] > SEQUENCES // SHARDS // 4


def test_every_wrong_length_of_every_message_is_said_at_least_once() -> None:
    rounds = SEQUENCES // len(MAKERS)
    assert all(rounds >= 10 * len(wrong_lengths(size)) for size in (16, 220))


@pytest.mark.parametrize("dials", [True, False])
def test_a_stream_cut_after_every_octet_of_a_session_leaves_nothing(dials: bool) -> None:
    opening = b"".join(octets for _, octets in OCTETS[dials][2]) + build_message(EchoRequest(1))
    opening += build_message(CallDisconnectNotify(7) if dials else CallClearRequest(7))
    opening += build_message(StopControlConnectionRequest())
    for cut in range(len(opening) + 1):
        owner = Owner(random.Random(cut), dials)
        owner.machine.receive_stream(opening[:cut], 0.0)
        owner.heard()
        owner.machine.stream_closed(0.1)
        owner.heard()
        assert owner.over
        assert not owner.call_ids.out
        assert owner.machine.deadline() is None


def test_octets_that_are_no_message_end_it_as_a_protocol_error() -> None:
    for octets in (b"GET / HTTP/1.1\r\n\r\n", bytes(200), b"\x16\x03\x01" + bytes(200)):
        owner = Owner(random.Random(1), False)
        with pytest.raises(WireError):
            parse_message(octets)
        owner.machine.receive_stream(octets, 0.0)
        assert owner.machine.transmits() == []
        (end,) = owner.machine.events()
        assert isinstance(end, Terminated)
        assert end.cause is TerminationCause.PROTOCOL_ERROR
