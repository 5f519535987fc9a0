"""The rendezvous codec: what is built can be read back, and nothing else can be read."""

from __future__ import annotations

import json
import random
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.rendezvous.messages import (
    LARGEST_BLOB,
    LARGEST_MESSAGE,
    LARGEST_TEXT,
    Absent,
    ClientMessage,
    ClockReply,
    ClockRequest,
    Hello,
    Join,
    Joined,
    JoinRefused,
    Leave,
    Present,
    RefusalReason,
    Replaced,
    ServerMessage,
    StillHere,
    UsedTwice,
    build_blob,
    build_text,
    parse_blob,
    parse_client,
    parse_server,
)
from pptp.errors import WireCause, WireError

handles = st.integers(1, 65535)
identifiers = st.binary(min_size=16, max_size=16)

client_messages = st.one_of(
    st.builds(Join, handles, identifiers, identifiers),
    st.builds(Leave, handles),
    st.builds(StillHere, handles),
    st.builds(ClockRequest, st.integers(0, 2**32 - 1)),
)
server_messages = st.one_of(
    st.builds(
        Hello,
        identifiers,
        st.integers(0, 2**31 - 1),
        st.integers(1, 86400),
        st.none() | st.ip_addresses(v=4),
        st.integers(0, 2**40),
    ),
    st.builds(ClockReply, st.integers(0, 2**32 - 1), st.integers(0, 2**53 - 1)),
    st.builds(Joined, handles),
    st.builds(JoinRefused, handles, st.sampled_from(RefusalReason)),
    st.builds(Present, handles, st.integers(0, 2**48 - 1)),
    st.builds(Absent, handles),
    st.builds(Replaced, handles),
    st.builds(UsedTwice, handles),
)

JOIN = {"type": "join", "handle": 7, "mailbox": "0a" * 16, "side": "f0" * 16}


@given(client_messages)
@settings(max_examples=100)
def test_what_a_peer_builds_the_server_reads(message: ClientMessage) -> None:
    text = build_text(message)
    assert len(text) <= LARGEST_TEXT
    assert parse_client(text) == message


@given(server_messages)
@settings(max_examples=100)
def test_what_the_server_builds_a_peer_reads(message: ServerMessage) -> None:
    text = build_text(message)
    assert len(text) <= LARGEST_TEXT
    assert parse_server(text) == message


def test_the_texts_are_the_documented_ones() -> None:
    assert json.loads(build_text(Join(7, b"\x0a" * 16, b"\xf0" * 16))) == JOIN
    assert json.loads(build_text(Hello(b"\x01" * 16, 20000, 3600, IPv4Address("192.0.2.9")))) == {
        "type": "hello",
        "instance": "01" * 16,
        "day": 20000,
        "seconds_to_next_day": 3600,
        "observed": "192.0.2.9",
        "relay": 0,
        "gre_echo": False,
    }
    assert build_text(JoinRefused(1, RefusalReason.MAILBOX_FULL)) == (
        '{"type":"refused","handle":1,"reason":"mailbox_full"}'
    )


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", WireCause.BAD_VALUE),
        ("[]", WireCause.BAD_VALUE),
        ("7", WireCause.BAD_VALUE),
        ("{", WireCause.BAD_VALUE),
        ("{}", WireCause.BAD_TYPE),
        ('{"type":7}', WireCause.BAD_TYPE),
        ('{"type":["join"]}', WireCause.BAD_TYPE),
        ('{"type":"hello"}', WireCause.BAD_TYPE),  # the server's, not a peer's
        ('{"type":"leave"}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":1,"more":1}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":1,"handle":1}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":0}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":65536}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":-1}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":true}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":1.0}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":1e2}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":NaN}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":Infinity}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":"1"}', WireCause.BAD_VALUE),
        ('{"type":"leave","handle":null}', WireCause.BAD_VALUE),
        (json.dumps(JOIN | {"mailbox": "0A" * 16}), WireCause.BAD_VALUE),
        (json.dumps(JOIN | {"mailbox": "0a" * 15}), WireCause.BAD_VALUE),
        (json.dumps(JOIN | {"mailbox": "0a" * 17}), WireCause.BAD_VALUE),
        (json.dumps(JOIN | {"mailbox": "0a " * 10 + "0a"}), WireCause.BAD_VALUE),
        (json.dumps(JOIN | {"side": "٠١" * 16}), WireCause.BAD_VALUE),  # digits of another script
        (json.dumps(JOIN | {"side": 16 * "f0" + "\n"}), WireCause.BAD_VALUE),
        ("[" * LARGEST_TEXT, WireCause.BAD_VALUE),
        ("1" * LARGEST_TEXT, WireCause.BAD_VALUE),
        (json.dumps(JOIN) + " " * LARGEST_TEXT, WireCause.OVERSIZE),
    ],
)
def test_a_peers_text_that_is_not_exactly_right_is_refused(text: str, cause: WireCause) -> None:
    with pytest.raises(WireError) as caught:
        parse_client(text)
    assert caught.value.cause is cause


@pytest.mark.parametrize(
    "change",
    [
        {"observed": "192.0.2.256"},
        {"observed": "192.0.2.09"},
        {"observed": "2001:db8::1"},
        {"observed": 3221225993},
        {"seconds_to_next_day": 0},
        {"seconds_to_next_day": 86401},
        {"day": -1},
        {"gre_echo": 1},
        {"instance": ""},
    ],
)
def test_a_hello_out_of_its_domain_is_refused(change: dict[str, object]) -> None:
    hello = json.loads(build_text(Hello(b"\x01" * 16, 20000, 3600, None)))
    with pytest.raises(WireError):
        parse_server(json.dumps(hello | change))


@given(handles, st.binary(min_size=1, max_size=64))
def test_a_blob_comes_back_as_it_was(handle: int, payload: bytes) -> None:
    assert parse_blob(build_blob(handle, payload)) == (handle, payload)


@pytest.mark.parametrize(
    ("blob", "cause"),
    [
        (b"", WireCause.TRUNCATED),
        (b"\x00", WireCause.TRUNCATED),
        (b"\x00\x01", WireCause.TRUNCATED),
        (b"\x00\x00x", WireCause.BAD_VALUE),
        (bytes(LARGEST_MESSAGE + 1), WireCause.OVERSIZE),
    ],
)
def test_a_blob_out_of_its_bounds_is_refused(blob: bytes, cause: WireCause) -> None:
    with pytest.raises(WireError) as caught:
        parse_blob(blob)
    assert caught.value.cause is cause
    assert parse_blob(build_blob(1, bytes(LARGEST_BLOB)))[0] == 1


def mutated(rng: random.Random, text: str) -> str:
    """``text`` with one to four characters changed, inserted, removed or doubled."""
    characters = list(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(characters) + 1)
        match rng.randrange(4):
            case 0:
                characters[at : at + 1] = [rng.choice('{}[]",:0123456789eE-+.abcfntru\\ué\ud800\x00 ')]
            case 1:
                characters[at:at] = [chr(rng.randrange(0x20, 0x7F))]
            case 2:
                del characters[at : at + rng.randint(1, 8)]
            case _:
                characters[at:at] = characters[at : at + rng.randint(1, 24)]
    return "".join(characters)


def test_mutated_texts_are_read_or_refused_and_nothing_else() -> None:
    seed = 0x6D656574
    print(f"seed {seed:#x}")
    rng = random.Random(seed)
    good: list[ClientMessage | ServerMessage] = [
        Join(7, bytes(16), bytes(range(16))),
        Leave(1),
        StillHere(65535),
        ClockRequest(5),
        Hello(bytes(16), 20000, 1, IPv4Address("192.0.2.1")),
        ClockReply(5, 10**12),
        JoinRefused(1, RefusalReason.KEY_IN_USE_TWICE),
        Present(2, 2**47),
    ]
    texts = [build_text(message) for message in good]
    refused = 0
    for _ in range(20_000):
        text = mutated(rng, rng.choice(texts))
        for parse in (parse_client, parse_server):
            try:
                again = build_text(parse(text))
            except WireError:
                refused += 1
            else:
                assert json.loads(again) == json.loads(text)
    assert 20_000 < refused < 40_000
