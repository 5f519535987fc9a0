"""Whoever guesses passwords gets a few guesses for each call, however he has LCP begin again between them."""

from __future__ import annotations

from pptp.errors import TerminationCause
from pptp.ordinary import CallOver
from pptp.ppp.mschapv2 import ATTEMPTS
from pptp.wire.auth import (
    ChapChallenge,
    ChapResponse,
    ChapResult,
    MsResponse,
    build_chap,
    build_ms_response,
    parse_chap,
)
from pptp.wire.cp import Code, Option, parse_packet
from pptp.wire.ppp import Protocol
from tests.calls.call_world import serving
from tests.calls.scripted import MAGIC, Scripted

ROUNDS = 50


def guess_once(peer: Scripted, number: int) -> int:
    """Answer every challenge with a guess and bring LCP up; how many guesses were judged."""
    judged = 0
    for frame in peer.take_frames():
        if frame.protocol == Protocol.LCP:
            packet = parse_packet(frame.information)
            if packet.code == Code.CONFIGURE_REQUEST:
                peer.cp(Protocol.LCP, Code.CONFIGURE_ACK, packet.identifier, data=packet.data)
        elif frame.protocol == Protocol.CHAP:
            match parse_chap(frame.information):
                case ChapChallenge(identifier):
                    value = build_ms_response(MsResponse(bytes(16), bytes([number]) * 24))
                    peer.ppp(Protocol.CHAP, build_chap(ChapResponse(identifier, value, b"alice")))
                case ChapResult():
                    judged += 1
    return judged


def test_a_new_lcp_gives_no_new_guesses() -> None:
    peer = Scripted(serving()).lcp_up()
    judged = 0
    for number in range(ROUNDS):
        for _ in range(4):
            judged += guess_once(peer, number)
        peer.cp(Protocol.LCP, Code.CONFIGURE_REQUEST, number + 2, Option(MAGIC.type, number.to_bytes(4, "big")))
    assert judged == ATTEMPTS
    peer.wait(5.0)
    assert peer.one(CallOver).cause.cause is TerminationCause.AUTHENTICATION
