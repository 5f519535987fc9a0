"""Fragments, sealed frames, probes and derived names of the product against the transcription of PROTOCOL.md."""

from __future__ import annotations

import random

import pytest

from grepunch.punch.probe import Probe, open_probe, seal_probe
from grepunch.secure import derive
from grepunch.secure.events import KeysLive
from grepunch.secure.fragments import Reassembler, build_fragments
from grepunch.secure.identity import shared_secret
from pptp.datapath import SealedPair
from pptp.errors import DropError, WireError
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear, parse_clear
from tests.secure import independent
from tests.secure import independent_frames as beside
from tests.secure.independent_table import (
    PSK,
    SEED,
    every_offer,
    lay,
    meet,
    mirrored,
    product_initiates_or_not,
    with_and_without_psk,
)

# Fragments


@pytest.mark.parametrize("size", [1, 44, 900, 901, 1194, 1354, 1355, 1799, 1800])
def test_fragments_of_either_make_the_whole_of_the_other(size: int) -> None:
    rng = random.Random(size)
    datagram, public = rng.randbytes(size), rng.randbytes(32)
    parts = beside.fragment(datagram, public)
    assert build_fragments(datagram, public) == parts
    assert len(parts) == 1 + (size > 900)
    for order in (parts, parts[::-1]):
        assembler = Reassembler(public)
        assert [assembler.receive("source", part, 0.0) for part in order] == [None] * (len(parts) - 1) + [datagram]
        assert beside.assemble(order, public) == datagram


def test_uneven_fragments_make_a_whole_too() -> None:
    """Where the sender cuts is its own affair."""
    rng = random.Random(SEED)
    datagram, public = rng.randbytes(1355), rng.randbytes(32)
    identifier = beside.fragment(datagram, public)[0][:8]
    heads = [identifier + b"\x00\x02", identifier + b"\x01\x02"]
    parts = [
        head + independent.labelled_mac(b"fragment", public, head + data) + data
        for head, data in zip(heads, (datagram[:900], datagram[900:]), strict=True)
    ]
    assembler = Reassembler(public)
    assert assembler.receive("source", parts[1], 0.0) is None
    assert assembler.receive("source", parts[0], 1.0) == datagram == beside.assemble(parts, public)


def test_both_refuse_spoilt_fragments() -> None:
    rng = random.Random(SEED)
    datagram, public = rng.randbytes(1000), rng.randbytes(32)
    for part in beside.fragment(datagram, public):
        for position in (0, 7, 8, 9, 10, 25, 26, len(part) - 1):
            spoilt = part[:position] + bytes([part[position] ^ 1]) + part[position + 1 :]
            with pytest.raises((DropError, WireError)):
                Reassembler(public).receive("source", spoilt, 0.0)
            with pytest.raises(independent.Refused):
                beside.assemble([spoilt], public)


def test_a_whole_handshake_in_fragments() -> None:
    table = lay(PSK)
    parts = build_fragments(table.product_asks(), table.side_public)
    message_2, agreement = table.answer(beside.assemble(reversed(parts), table.side_public))
    assembler = Reassembler(table.product_public)
    first, whole = (assembler.receive("source", part, 0.0) for part in beside.fragment(message_2, table.product_public))
    assert first is None
    assert whole is not None
    table.product.receive(whole, 0.0)
    assert table.ready().probe_secret == agreement.probe_secret


# Frames


@product_initiates_or_not
@with_and_without_psk
@every_offer
def test_sealed_frames_in_both_directions(product_initiates: bool, psk: bytes | None, offer: str) -> None:
    table, ready, agreement = meet(product_initiates, psk, offer)
    products = mirrored(agreement)
    for counter, (protocol, data, flags) in enumerate([(0xC021, b"lcp", 0), (0x21, bytes(1400), 1), (0x57, b"", 0)]):
        assert ready.pair.seal(protocol, data, flags) == (
            frame := beside.seal(products, counter, protocol, data, flags)
        )
        assert beside.unseal(agreement, frame) == (counter, flags, protocol, data)
        assert ready.pair.open(beside.seal(agreement, counter, protocol, data, flags)) == (
            protocol,
            data,
            flags,
        )
    assert ready.pair.seal_empty() == beside.seal(products, 3, 0, b"")
    assert table.product.frame_verified(ready.pair.local_index, 0.0)
    assert any(isinstance(event, KeysLive) for event in table.product.events())


def pairs() -> tuple[SealedPair, independent.Agreement]:
    _, ready, agreement = meet(True, None, "aes first")
    return ready.pair, agreement


@pytest.mark.parametrize("highest", [8191, 2**26, 2**32 + 5, 2**64 - 1])
def test_the_window_is_8192_counters_wide(highest: int) -> None:
    pair, agreement = pairs()
    frame = {age: beside.seal(agreement, highest - age, 0x21, b"data") for age in (0, 1, 8191)}
    assert pair.open(frame[0]) == (0x21, b"data", 0)
    assert pair.open(frame[8191]) == (0x21, b"data", 0)
    assert pair.open(frame[1]) == (0x21, b"data", 0)
    for age in frame:
        with pytest.raises(DropError):
            pair.open(frame[age])
    if highest > 8191:
        with pytest.raises(DropError):
            pair.open(beside.seal(agreement, highest - 8192, 0x21, b"data"))


@pytest.mark.parametrize("flags", [2, 3, 0x80, 0xFF])
def test_both_drop_flags_that_mean_nothing(flags: int) -> None:
    pair, agreement = pairs()
    with pytest.raises(DropError):
        pair.open(beside.seal(agreement, 0, 0x21, b"data", flags))
    with pytest.raises(independent.Refused, match="flags"):
        beside.unseal(agreement, pair.seal(0x21, b"data", flags))


def test_a_frame_is_bound_to_its_first_14_octets() -> None:
    pair, agreement = pairs()
    frame = beside.seal(agreement, 0, 0x21, b"data")
    ours = pair.seal(0x21, b"data")
    for position in range(len(frame)):
        with pytest.raises(DropError):
            pair.open(frame[:position] + bytes([frame[position] ^ 1]) + frame[position + 1 :])
        with pytest.raises(independent.Refused):
            beside.unseal(agreement, ours[:position] + bytes([ours[position] ^ 1]) + ours[position + 1 :])
    assert pair.open(frame) == (0x21, b"data", 0)


# What is derived beside the handshake


@pytest.mark.parametrize("day", [0, 19_000, 2**31 - 1, 2**32 - 1])
def test_mailbox_and_side_tags(day: int) -> None:
    table = lay()
    shared = shared_secret(table.product_key, table.side_public)
    own, theirs = table.side.private, table.product_public
    assert derive.mailbox_id(shared, day) == beside.mailbox(own, theirs, day)
    assert derive.side_tag(shared, table.side_public, day) == beside.side_tag(own, theirs, day)
    mirrored_tag = beside.side_tag(table.product_key, table.side_public, day)
    assert derive.side_tag(shared, table.product_public, day) == mirrored_tag != beside.side_tag(own, theirs, day)


def test_probes_under_the_handshakes_keys_and_the_static_ones() -> None:
    table, ready, agreement = meet(True, PSK, "chacha")
    static = independent.x25519(table.side.private, table.product_public)
    for products, ours in ((ready.probe_secret, agreement.probe_secret), (static, static)):
        there = derive.probe_key(products, table.product_public, table.side_public)
        back = derive.probe_key(products, table.side_public, table.product_public)
        assert there == beside.probe_key(ours, table.product_public, table.side_public)
        assert back == beside.probe_key(ours, table.side_public, table.product_public)
        probe = Probe(b"attempt1", 7, b"attempt2", 5, proven=True, arrival_ttl=57, heard_count=3)
        body = beside.probe(back, (b"attempt1", b"attempt2"), 7, 5, 0x01390003)
        assert seal_probe(back, probe) == body
        assert open_probe(back, body) == probe
        with pytest.raises(WireError):
            open_probe(there, body)


@pytest.mark.parametrize("kind", [beside.PROBE, beside.FRAGMENT])
def test_the_envelope_in_the_hole(kind: int) -> None:
    frame = beside.vendor_specific(kind, b"a probe or a fragment")
    packet = ClearPacket(ClearKind(kind), b"a probe or a fragment")
    assert build_clear(packet) == frame
    assert parse_clear(frame) == packet
