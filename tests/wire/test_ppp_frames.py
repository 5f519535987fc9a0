"""The PPP frame codec: four forms in, two switches out, every malformation with its own cause."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.ppp import PPP

from pptp.errors import UsageError, WireCause, WireError
from pptp.wire.ppp import PppFrame, Protocol, build, parse

PROTOCOLS = st.integers(0, 0x7F).flatmap(lambda high: st.integers(0, 0x7F).map(lambda low: high << 9 | low << 1 | 1))


@pytest.mark.parametrize(
    ("frame", "protocol"),
    [
        (b"\xff\x03\x00\x21data", Protocol.IPV4),
        (b"\xff\x03\x21data", Protocol.IPV4),
        (b"\x00\x21data", Protocol.IPV4),
        (b"\x21data", Protocol.IPV4),
        (b"\xff\x03\xc0\x21data", Protocol.LCP),
        (b"\xc0\x21data", Protocol.LCP),
    ],
)
def test_reads_every_form_without_agreement(frame: bytes, protocol: Protocol) -> None:
    assert parse(frame) == PppFrame(protocol, b"data")
    assert parse(memoryview(frame)) == PppFrame(protocol, memoryview(b"data"))


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (b"", WireCause.TRUNCATED),
        (b"\xff", WireCause.TRUNCATED),
        (b"\xff\x03", WireCause.TRUNCATED),
        (b"\xff\x03\xc0", WireCause.TRUNCATED),
        (b"\x00", WireCause.TRUNCATED),
        (b"\xff\x02\xc0\x21", WireCause.BAD_VALUE),
        (b"\xff\x03\xff\x03", WireCause.BAD_TYPE),
        (b"\xff\x03\xc0\x20", WireCause.BAD_TYPE),
        (b"\x00\x00", WireCause.BAD_TYPE),
    ],
)
def test_refuses_each_malformation_with_its_cause(frame: bytes, cause: WireCause) -> None:
    with pytest.raises(WireError) as refusal:
        parse(frame)
    assert refusal.value.cause is cause


def test_lcp_is_never_compressed() -> None:
    assert build(Protocol.LCP, b"x", acfc=True, pfc=True) == b"\xff\x03\xc0\x21x"


def test_compression_touches_only_what_it_may() -> None:
    assert build(Protocol.IPV4, b"x", pfc=True) == b"\xff\x03\x21x"
    assert build(Protocol.IPV4, b"x", acfc=True) == b"\x00\x21x"
    assert build(Protocol.IPCP, b"x", acfc=True, pfc=True) == b"\x80\x21x"
    assert build(0x00FF, b"x", acfc=True, pfc=True) == b"\x00\xffx"


@pytest.mark.parametrize("protocol", [0, 0x20, 0x0121, 0x1C021, -1])
def test_refuses_to_build_a_number_that_is_no_protocol(protocol: int) -> None:
    with pytest.raises(UsageError):
        build(protocol, b"")


@settings(max_examples=200, deadline=None)
@given(PROTOCOLS, st.binary(max_size=64), st.booleans(), st.booleans())
def test_what_is_built_is_read_back(protocol: int, information: bytes, acfc: bool, pfc: bool) -> None:
    assert parse(build(protocol, information, acfc=acfc, pfc=pfc)) == PppFrame(protocol, information)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_is_total(frame: bytes) -> None:
    try:
        read = parse(frame)
    except WireError:
        return
    assert parse(build(read.protocol, read.information)) == read


@settings(max_examples=50, deadline=None)
@given(PROTOCOLS, st.binary(min_size=4, max_size=32))
def test_scapy_reads_the_same_protocol(protocol: int, information: bytes) -> None:
    assert PPP(build(protocol, information)).proto == protocol
