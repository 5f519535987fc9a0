"""A TCP stream cut into control messages, however the segments fall, and the end when it falls out of step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pptp.errors import WireCause, WireError
from pptp.wire.control import (
    CallClearRequest,
    EchoRequest,
    IncomingCallRequest,
    MessageSplitter,
    StartControlConnectionRequest,
    StopControlConnectionRequest,
    build_message,
)

MESSAGES = [
    build_message(message)
    for message in (
        StartControlConnectionRequest(host_name=b"h"),
        EchoRequest(1),
        IncomingCallRequest(5),
        CallClearRequest(5),
        StopControlConnectionRequest(),
    )
]


def drain(splitter: MessageSplitter) -> list[bytes]:
    return list(iter(splitter.next_message, None))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.lists(st.integers(0, 60), max_size=40))
def test_messages_come_out_whole_however_the_segments_fall(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(messages)
    splitter = MessageSplitter()
    out: list[bytes] = []
    for cut in [*cuts, len(stream)]:
        splitter.feed(stream[:cut])
        stream = stream[cut:]
        out += drain(splitter)
    assert out == messages


def test_one_octet_at_a_time() -> None:
    splitter = MessageSplitter()
    out: list[bytes] = []
    for octet in b"".join(MESSAGES):
        splitter.feed(bytes([octet]))
        out += drain(splitter)
    assert out == MESSAGES


@pytest.mark.parametrize(
    ("octets", "cause"),
    [
        ("001000011a2b3c4e00050000", WireCause.BAD_MAGIC),
        ("001000021a2b3c4d00050000", WireCause.BAD_TYPE),
        ("001000011a2b3c4d00100000", WireCause.BAD_TYPE),
        ("000000011a2b3c4d00050000", WireCause.BAD_LENGTH),
        ("000100011a2b3c4d00050000", WireCause.BAD_LENGTH),
        ("000b00011a2b3c4d00050000", WireCause.BAD_LENGTH),
        ("ffff00011a2b3c4d00050000", WireCause.BAD_LENGTH),
        ("474554202f20485454502f31", WireCause.BAD_MAGIC),
    ],
)
def test_out_of_step_is_final_after_the_good_messages_are_out(octets: str, cause: WireCause) -> None:
    splitter = MessageSplitter()
    splitter.feed(MESSAGES[1] + bytes.fromhex(octets))
    assert splitter.next_message() == MESSAGES[1]
    for _ in range(2):
        with pytest.raises(WireError) as caught:
            splitter.next_message()
        assert caught.value.cause is cause
        splitter.feed(MESSAGES[1])  # section 1.4: no search for the next cookie
