"""Entries of the error queue, as the kernel lays them out (linux/errqueue.h), parsed to path news."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.io.icmpnews import parse_error
from grepunch.ports import Form, PathNews, PathNewsKind

PEER = ("192.0.2.1", 0)
ROUTER = IPv4Address("198.51.100.1")
V1 = bytes.fromhex("3001880b00210000")
V0 = bytes.fromhex("0000880b00530000")


def entry(
    icmp_type: int, code: int, *, origin: int = 2, info: int = 0, family: int = 2
) -> list[tuple[int, int, bytes]]:
    error = struct.pack("=IBBBxII", 113, origin, icmp_type, code, info, 0)
    offender = struct.pack("=H2x4s8x", family, ROUTER.packed)
    return [(socket.IPPROTO_IP, 11, error + offender)]


@pytest.mark.parametrize(
    ("icmp_type", "code", "kind"),
    [
        (11, 0, PathNewsKind.TIME_EXCEEDED),
        (3, 0, PathNewsKind.UNREACHABLE),
        (3, 1, PathNewsKind.UNREACHABLE),
        (3, 2, PathNewsKind.PROTOCOL_UNREACHABLE),
        (3, 3, PathNewsKind.UNREACHABLE),
        (3, 4, PathNewsKind.TOO_BIG),
        (3, 13, PathNewsKind.UNREACHABLE),
    ],
)
@pytest.mark.parametrize(("quoted", "form"), [(V1, Form.V1), (V0, Form.V0)])
def test_each_message_has_its_kind(icmp_type: int, code: int, kind: PathNewsKind, quoted: bytes, form: Form) -> None:
    mtu = 1280 if kind is PathNewsKind.TOO_BIG else 0
    expected = PathNews(kind, ROUTER, IPv4Address(PEER[0]), form, mtu)
    assert parse_error(quoted, entry(icmp_type, code, info=1280), PEER) == expected


def test_an_interface_that_is_too_small_is_reported_by_nobody() -> None:
    news = parse_error(b"", entry(0, 0, origin=1, info=1400, family=0), PEER)
    assert news == PathNews(PathNewsKind.TOO_BIG, None, IPv4Address(PEER[0]), None, 1400)


def test_an_unknown_reporter_is_none() -> None:
    news = parse_error(V1, entry(11, 0, family=0), PEER)
    assert news is not None
    assert news.reporter is None


@pytest.mark.parametrize(
    ("quoted", "ancillary"),
    [
        (bytes.fromhex("0000655800000000"), entry(3, 2)),  # another tunnel of this host
        (bytes.fromhex("2001880b00000000"), entry(3, 2)),  # enhanced GRE that is not ours
        (b"\x30\x01", entry(3, 2)),
        (V1, entry(12, 0)),  # parameter problem
        (V1, entry(11, 1)),  # reassembly: of a packet that was never a fragment
        (V1, entry(3, 2, origin=3)),  # ICMPv6
        (V1, []),
        (V1, [(socket.IPPROTO_IP, 11, b"short")]),
    ],
)
def test_what_is_no_news_of_ours(quoted: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
    assert parse_error(quoted, ancillary, PEER) is None


@given(st.binary(max_size=64), st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_anything_is_news_or_none(quoted: bytes, error: bytes) -> None:
    news = parse_error(quoted, [(socket.IPPROTO_IP, 11, error)], PEER)
    assert news is None or news.destination == IPv4Address(PEER[0])
