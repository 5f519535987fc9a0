"""The codec of the control stream: round trips, and a cause for every malformation."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grepunch.ports import Form, RelayPolicy
from grepunch.signalling.messages import (
    MAX_CANDIDATES,
    CallStep,
    Candidates,
    Open,
    OutgoingCall,
    Plan,
    PlanReply,
    PptpMessage,
    RelayWish,
    Report,
    ReportRow,
    SignallingMessage,
    SlotTaken,
    build,
    parse,
)
from pptp.errors import WireCause, WireError

U32 = st.integers(0, 2**32 - 1)
U16 = st.integers(0, 2**16 - 1)
ADDRESSES = st.integers(0, 2**32 - 1).map(IPv4Address)
MICROSECONDS = st.integers(0, 2**32 - 1).map(lambda us: us / 1e6)

MESSAGES = st.one_of(
    st.builds(PptpMessage, st.binary(min_size=1, max_size=220)),
    st.builds(
        Candidates,
        U32,
        MICROSECONDS,
        ADDRESSES,
        st.frozensets(st.sampled_from(Form), min_size=1),
        st.lists(st.tuples(ADDRESSES, st.integers(0, 32)), max_size=MAX_CANDIDATES).map(tuple),
    ),
    st.builds(Plan, U32, st.binary(min_size=8, max_size=8), MICROSECONDS),
    st.builds(PlanReply, U32, st.booleans()),
    st.builds(Open, U32, st.booleans()),
    st.builds(RelayWish, st.sampled_from(RelayPolicy)),
    st.builds(SlotTaken, U32),
    st.builds(OutgoingCall, U32, st.sampled_from(CallStep), U16, U16),
    st.builds(
        Report,
        U32,
        st.lists(st.builds(ReportRow, st.sampled_from(Form), U16, U16, U16, U16, *[st.booleans()] * 4), max_size=4).map(
            tuple
        ),
    ),
)

EXAMPLES: list[SignallingMessage] = [
    Candidates(7, 0.25, IPv4Address("198.51.100.2"), frozenset(Form), ((IPv4Address("192.168.1.5"), 24),)),
    Candidates(7, 0.25, IPv4Address("198.51.100.2"), frozenset(Form), (), (IPv4Address("198.51.100.3"),)),
    Plan(7, b"instance", 12.5),
    PlanReply(7, True),
    Open(7, False),
    RelayWish(RelayPolicy.AUTO),
    SlotTaken(7),
    OutgoingCall(7, CallStep.SEEN, 3, 1723),
    Report(
        7,
        (
            ReportRow(Form.V1, 8, 32, 0, 0, False, True, False, False),
            ReportRow(Form.V0, 8, 32, 1, 2, True, False, True, True),
        ),
    ),
]


@given(MESSAGES)
def test_round_trip(message: SignallingMessage) -> None:
    assert parse(build(message)) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_every_truncation_and_every_excess_is_refused_with_its_cause(message: SignallingMessage) -> None:
    data = build(message)
    for size in range(len(data)):
        with pytest.raises(WireError) as refused:
            parse(data[:size])
        assert refused.value.cause is WireCause.TRUNCATED
    with pytest.raises(WireError) as refused:
        parse(data + b"\0")
    assert refused.value.cause is WireCause.TRAILING


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"\xff", WireCause.BAD_TYPE),
        (build(PlanReply(1, True))[:-1] + b"\x02", WireCause.BAD_VALUE),
        (build(Open(1, True))[:-1] + b"\x07", WireCause.BAD_VALUE),
        (build(OutgoingCall(1, CallStep.ABLE))[:5] + b"\x04" + bytes(4), WireCause.BAD_VALUE),
        (build(EXAMPLES[0])[:-1] + b"\x21", WireCause.BAD_VALUE),  # a prefix of 33 bits
        (build(EXAMPLES[0])[:13] + b"\x00" + build(EXAMPLES[0])[14:], WireCause.BAD_VALUE),  # no form at all
        (build(EXAMPLES[0])[:13] + b"\x07" + build(EXAMPLES[0])[14:], WireCause.BAD_VALUE),  # an unknown form
        (build(EXAMPLES[0])[:14] + b"\xff\x00", WireCause.OVERSIZE),
        (build(EXAMPLES[0])[:14] + b"\x00\x04", WireCause.OVERSIZE),
    ],
)
def test_values_outside_their_domain_are_refused(data: bytes, cause: WireCause) -> None:
    with pytest.raises(WireError) as refused:
        parse(data)
    assert refused.value.cause is cause


def test_counters_saturate_instead_of_wrapping() -> None:
    row = ReportRow(Form.V1, 70000, 65536, 1, 0, False, False, False, False)
    parsed = parse(build(Report(1, (row,))))
    assert parsed == Report(1, (ReportRow(Form.V1, 65535, 65535, 1, 0, False, False, False, False),))


def test_mutations_never_escape_as_another_exception() -> None:
    rng = random.Random(20637)
    for _ in range(20_000):
        data = bytearray(build(rng.choice(EXAMPLES)))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        del data[rng.randrange(len(data) + 1) :]
        try:
            parse(bytes(data))
        except WireError:
            continue
