"""The GRE echo server: answers who holds a cookie where it was handed to, never more than it got, and nobody else."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.nat import messages, packets
from grepunch.nat.echo import (
    MOST_DELAYED,
    MOST_PER_SOURCE,
    MOST_TEXTS,
    PACKETS_BURST,
    Answer,
    Dismissed,
    EchoDesk,
    EchoTally,
    Told,
)
from grepunch.nat.messages import CallSeen, Cookie, More, Seen
from grepunch.nat.packets import EchoPacket
from pptp.errors import WireError

SERVER, CLIENT, ELSEWHERE = (IPv4Address(text) for text in ("192.0.2.10", "198.51.100.7", "198.51.100.8"))
SEED = 5


class Desk:
    """A desk with one client that has its cookie."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.desk = EchoDesk(entropy=random.Random(SEED).randbytes, now=self.now)
        self.desk.connect(1, CLIENT, 40000, self.now)
        (told,) = self.desk.transmits()
        assert isinstance(told, Told)
        cookie = messages.parse(told.text)
        assert isinstance(cookie, Cookie)
        assert (cookie.address, cookie.port) == (CLIENT, 40000)
        self.cookie = cookie.cookie

    def packet(self, **changes: object) -> EchoPacket:
        base = EchoPacket(1, 7, self.cookie, test=3, sequence=2, answer_call_id=9, padding=20)
        return replace(base, **changes)  # type: ignore[arg-type]

    def arrives(self, packet: EchoPacket, source: IPv4Address = CLIENT) -> list[object]:
        self.desk.receive_gre(source, SERVER, packets.build(packet), self.now)
        return list(self.desk.transmits())


@given(
    st.builds(
        EchoPacket,
        st.just(1),
        st.integers(0, 0xFFFF),
        st.binary(min_size=24, max_size=24),
        st.integers(0, 255),
        st.integers(0, 255),
        st.booleans(),
        st.integers(0, 255),
        st.integers(0, 0xFFFF),
        st.integers(0, 1400),
    )
)
@settings(max_examples=60)
def test_packets_are_read_as_they_were_built(packet: EchoPacket) -> None:
    assert packets.parse(packets.build(packet)) == packet
    plain = replace(packet, version=0, call_id=0)
    assert packets.parse(packets.build(plain)) == plain
    for version in (0, 1):
        size = 20 + len(packets.build(replace(packet, version=version, call_id=0, padding=0)))
        assert size == packets.OVERHEAD[version]


@given(st.binary(max_size=120))
@settings(max_examples=100)
def test_nonsense_raises_nothing_but_a_wire_error(data: bytes) -> None:
    for parse in (packets.parse, lambda text: messages.parse(text.decode("latin-1"))):
        try:
            parse(data)
        except WireError:
            pass


@pytest.mark.parametrize(
    "message",
    [More(), Cookie(bytes(24), CLIENT, 5), Seen(1, 2, CLIENT, 1, 7, True), CallSeen(7, 8)],
)
def test_texts_are_read_as_they_were_built(message: messages.Text) -> None:
    assert messages.parse(messages.build(message)) == message
    with pytest.raises(WireError):
        messages.parse(messages.build(message).replace("{", '{"more":1,'))


def test_an_answer_is_as_long_as_the_packet_and_goes_where_it_came_from() -> None:
    desk = Desk()
    packet = desk.packet()
    told, answer = desk.arrives(packet)
    assert isinstance(told, Told)
    assert messages.parse(told.text) == Seen(3, 2, CLIENT, 1, 7, True)
    assert isinstance(answer, Answer)
    assert (answer.source, answer.destination) == (SERVER, CLIENT)
    assert len(answer.packet) == len(packets.build(packet))
    assert packets.parse(answer.packet) == replace(packet, answer=True, call_id=9)


def test_from_another_address_it_is_reported_and_not_answered() -> None:
    desk = Desk()
    (told,) = desk.arrives(desk.packet(), ELSEWHERE)
    assert isinstance(told, Told)
    assert messages.parse(told.text) == Seen(3, 2, ELSEWHERE, 1, 7, False)


def test_nobody_else_gets_anything() -> None:
    desk = Desk()
    forged = bytearray(desk.cookie)
    forged[-1] ^= 1
    for cookie in (bytes(24), bytes(forged), desk.cookie[:4] + bytes(20)):
        for source in (CLIENT, ELSEWHERE):
            assert desk.arrives(desk.packet(cookie=cookie), source) == []
    assert desk.arrives(desk.packet(answer=True)) == [], "an answer is never answered"
    desk.desk.receive_gre(CLIENT, SERVER, b"\x30\x01\x88\x0b", desk.now)
    desk.desk.disconnect(1)
    assert desk.arrives(desk.packet()) == [], "the client has gone"
    assert desk.desk.tallies[EchoTally.ANSWERED] == 0


def test_a_cookie_ends() -> None:
    desk = Desk()
    desk.now += packets.COOKIE_LIFE + 2
    told = desk.arrives(desk.packet())
    assert not any(isinstance(item, Answer) for item in told)
    desk.desk.receive(1, messages.build(More()), desk.now)
    (fresh,) = desk.desk.transmits()
    assert isinstance(fresh, Told)
    cookie = messages.parse(fresh.text)
    assert isinstance(cookie, Cookie)
    assert any(isinstance(item, Answer) for item in desk.arrives(desk.packet(cookie=cookie.cookie)))


def test_packets_beyond_the_rate_get_nothing() -> None:
    desk = Desk()
    answered = sum(any(isinstance(i, Answer) for i in desk.arrives(desk.packet())) for _ in range(500))
    assert answered == PACKETS_BURST
    assert desk.desk.tallies[EchoTally.DROPPED_RATE] == 500 - PACKETS_BURST


def test_answers_that_wait_are_few_and_go_with_their_client() -> None:
    desk = Desk()
    for _ in range(MOST_DELAYED + 3):
        assert all(isinstance(item, Told) for item in desk.arrives(desk.packet(delay=5)))
    desk.desk.handle_timeout(desk.now + 4.9)
    assert desk.desk.transmits() == []
    assert desk.desk.deadline() == desk.now + 5
    desk.desk.handle_timeout(desk.now + 5)
    assert len(desk.desk.transmits()) == MOST_DELAYED
    desk.arrives(desk.packet(delay=5))
    desk.desk.disconnect(1)
    desk.desk.handle_timeout(desk.now + 60)
    assert desk.desk.transmits() == []


def test_clients_have_their_limits() -> None:
    desk = Desk()
    for number in range(2, MOST_PER_SOURCE + 2):
        desk.desk.connect(number, CLIENT, 1, desk.now)
    assert isinstance(desk.desk.transmits()[-1], Dismissed)
    for _ in range(MOST_TEXTS + 1):
        desk.desk.receive(1, messages.build(More()), desk.now)
    assert desk.desk.transmits()[-1] == Dismissed(1)
    desk.desk.receive(2, "nonsense", desk.now)
    assert desk.desk.transmits() == [Dismissed(2)]
    deadline = desk.desk.deadline()
    assert deadline is not None
    desk.desk.handle_timeout(deadline)
    assert {type(item) for item in desk.desk.transmits()} == {Dismissed}


def test_a_call_is_told_to_the_client_that_placed_it_from_its_own_address() -> None:
    desk = Desk()
    identifier = packets.cookie_identifier(desk.cookie)
    assert desk.desk.call_placed(identifier, CLIENT, 77, 5)
    (told,) = desk.desk.transmits()
    assert isinstance(told, Told)
    assert messages.parse(told.text) == CallSeen(77, 5)
    assert not desk.desk.call_placed(identifier, ELSEWHERE, 77, 5)
    assert not desk.desk.call_placed(identifier ^ 1, CLIENT, 77, 5)
    assert desk.desk.transmits() == []
