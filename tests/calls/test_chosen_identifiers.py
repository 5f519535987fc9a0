"""A client is told our end's IPv6 identifier, and cannot talk us into another one: it might be another client's."""

from __future__ import annotations

from pptp.ordinary import Ipv4Up, Ipv6Up
from pptp.wire.auth import PapRequest, build_pap
from pptp.wire.cp import Code, Option, parse_packet
from pptp.wire.ppp import PppFrame, Protocol
from tests.calls.call_world import CLIENT_ADDRESS, PASSWORD, serving
from tests.calls.scripted import Scripted

OURS, THEIRS, OTHERS = (Option(1, bytes(7) + bytes((last,))) for last in (1, 2, 9))


def test_a_served_client_does_not_choose_our_identifier() -> None:
    peer = Scripted(serving("pap", mppe=None, interface_identifier=OURS.value)).lcp_up()

    def boss(frame: PppFrame) -> None:
        """It agrees to everything but to what we want to be called."""
        if frame.protocol not in (Protocol.IPCP, Protocol.IPV6CP):
            return
        asked = parse_packet(frame.information)
        if asked.code == Code.CONFIGURE_REQUEST:
            if frame.protocol == Protocol.IPV6CP and asked.data != bytes((1, 10)) + OTHERS.value:
                peer.cp(frame.protocol, Code.CONFIGURE_NAK, asked.identifier, OTHERS)
            else:
                peer.cp(frame.protocol, Code.CONFIGURE_ACK, asked.identifier, data=asked.data)

    peer.ppp(Protocol.PAP, build_pap(PapRequest(1, b"alice", PASSWORD.encode())))
    peer.cp(Protocol.IPV6CP, Code.CONFIGURE_REQUEST, 1, THEIRS)
    peer.cp(Protocol.IPCP, Code.CONFIGURE_REQUEST, 1, Option(3, CLIENT_ADDRESS.packed))
    peer.exchange_until_quiet(boss)
    peer.wait(5.0)
    assert peer.of(Ipv4Up), "the link is no worse for it"
    assert {up.local for up in peer.of(Ipv6Up)} <= {OURS.value}
