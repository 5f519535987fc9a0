"""A Windows 10 client against our server. The client is rebuilt from descriptions, not from the real thing."""

from __future__ import annotations

import pytest

from pptp.crypto.mppe_keys import Strength
from pptp.errors import Drop, Terminated, TerminationCause
from pptp.ordinary import Authenticated, CallOver, EncryptionUp, Ipv4Up, Ipv6Up, PeerIdentified
from pptp.ppp.ccp import CcpPolicy
from pptp.wire.control import CallDisconnectNotify
from pptp.wire.cp import Code, Option, parse_options
from pptp.wire.gre import parse
from pptp.wire.ppp import Protocol
from tests.calls.call_world import CLIENT_ADDRESS, DNS, ip_packet, serving, stateless
from tests.calls.windows import CALLBACK, MULTILINK, Windows


def connected(client: Windows) -> Windows:
    """Dialled, negotiated, and up."""
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    assert client.script.of(Ipv4Up), client.script.events
    return client


@pytest.mark.parametrize("swaps", [True, False])
def test_interop_24_to_50_a_windows_10_client_comes_up(swaps: bool) -> None:
    client = connected(Windows(serving(), swaps=swaps))
    script = client.script
    assert client.opened == {Protocol.LCP, Protocol.CCP, Protocol.IPCP, Protocol.IPV6CP}
    assert script.one(Authenticated).user == "alice"
    assert str(script.one(EncryptionUp).send) == str(script.one(EncryptionUp).receive) == "128-bit stateless"
    assert client.address == script.one(Ipv4Up).remote == CLIENT_ADDRESS
    assert script.of(Ipv6Up)
    assert client.rejected_protocols == []
    client.received.clear()
    for number in range(20):
        client.send_ip(ip_packet(number))
    client.settle()
    assert client.received == [ip_packet(number) for number in range(20)]
    for number in range(20):
        packet = script.connection.send_network(script.ours, Protocol.IPV4, ip_packet(number), script.now)
        assert packet is not None
        assert packet[6:8] == b"\x1c\x2b"
        client.received.clear()
        script.packets.append(parse(packet))
        client.settle()
        assert client.received == [ip_packet(number)]
    said = client.hang_up()
    assert said[0] == CallDisconnectNotify(script.ours, 4)
    assert script.one(CallOver).cause.cause is TerminationCause.PEER_REQUEST
    assert isinstance(script.events[-1], Terminated)


def test_interop_24_only_callback_is_rejected_and_identifier_0_is_fine() -> None:
    client = Windows(serving(), swaps=False)
    client.dial()
    answer = client.script.ask(Protocol.LCP, 0, *client.lcp)
    assert (answer.code, parse_options(answer.data)) == (Code.CONFIGURE_REJECT, (CALLBACK,))
    assert client.script.ask(Protocol.LCP, 1, *client.lcp[:-1]).code == Code.CONFIGURE_ACK


def test_interop_24_multilink_is_rejected_with_everything_else_at_once() -> None:
    client = Windows(serving(), swaps=False, multilink=True)
    client.dial()
    answer = client.script.ask(Protocol.LCP, 0, *client.lcp)
    assert (answer.code, parse_options(answer.data)) == (Code.CONFIGURE_REJECT, (CALLBACK, *MULTILINK))
    connected(Windows(serving(), multilink=True))


def test_interop_25_ms_chapv2_is_asked_for_first_and_a_nak_to_it_followed() -> None:
    client = connected(Windows(serving("pap", "mschapv2")))
    assert client.script.one(Authenticated).method == "mschapv2"


def test_interop_27_three_identifications_are_told_escaped() -> None:
    client = connected(Windows(serving()))
    texts = [event.text for event in client.script.of(PeerIdentified)]
    assert texts[:2] == ["MSRASV5.20", "MSRAS-0-DESKTOP-7QK2"]
    assert texts[2].isprintable()
    assert "\\x" in texts[2]


def test_interop_31_a_domain_is_not_in_the_hash() -> None:
    client = connected(Windows(serving(), name=b"WORKGROUP\\alice"))
    assert client.script.one(Authenticated).user == "alice"


def test_interop_33_a_wrong_password_gets_other_tries_and_then_the_end() -> None:
    client = Windows(serving(), password="guess")
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    (first,) = client.verdicts
    assert first.message.startswith(b"E=691 R=1 C=")
    assert b" V=3 M=" in first.message
    client.hang_up()
    cause = client.script.one(CallOver).cause
    assert cause == Terminated(TerminationCause.AUTHENTICATION, "MS-CHAPv2: alice: wrong password")


def test_interop_33_who_does_not_try_again_is_given_up_after_a_minute() -> None:
    client = Windows(serving(), password="guess", swaps=False)
    client.dial()
    client.begin()
    client.script.wait(64.0)
    assert client.script.one(CallOver).cause.cause is TerminationCause.AUTHENTICATION


def test_interop_36_an_offer_without_a_strength_is_countered_and_not_rejected() -> None:
    client = connected(Windows(serving()))
    assert client.ccp == Option(18, b"\x01\0\0\x40")


def test_interop_37_a_nak_to_one_strength_is_followed() -> None:
    """We offer two strengths; Windows answers with the stronger alone."""
    client = Windows(serving(mppe=CcpPolicy(strengths=frozenset({Strength.BITS_128, Strength.BITS_40}))), swaps=False)
    client.dial()
    client.holds_ccp = True
    client.begin()
    client.script.wait(0.4)
    client.settle()
    script = client.script
    script.wait(3.0)
    (request, *_) = script.take_cp(Protocol.CCP)
    assert parse_options(request.data) == (Option(18, b"\x01\0\0\x60"),)
    script.cp(Protocol.CCP, Code.CONFIGURE_NAK, request.identifier, Option(18, b"\x01\0\0\x40"))
    (request,) = script.take_cp(Protocol.CCP)
    assert parse_options(request.data) == (Option(18, b"\x01\0\0\x40"),)


def test_interop_38_ccp_may_be_asked_for_again_when_it_is_open() -> None:
    """Keys begin anew from the start keys; nothing else is disturbed."""
    client = connected(Windows(serving(), swaps=False))
    for number in range(5):
        client.send_ip(ip_packet(number))
    client.script.wait(20.0)
    client.request(Protocol.CCP)
    client.settle()
    assert len(client.script.of(EncryptionUp)) == 2
    assert len(client.script.of(Ipv4Up)) == 1
    client.received.clear()
    client.send_ip(ip_packet(6))
    assert client.received == [ip_packet(6)]


def test_interop_39_a_client_that_does_not_encrypt_is_refused_or_let_in_by_policy() -> None:
    connected(Windows(serving(mppe=stateless(required=False)), encrypts=False, swaps=False))
    client = Windows(serving(), encrypts=False, swaps=False)
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    client.script.wait(4.0)
    assert client.script.of(Ipv4Up) == []
    cause = client.script.one(CallOver).cause
    assert cause.cause is TerminationCause.ENCRYPTION
    assert "128-bit stateless" in cause.detail


def test_interop_47_one_reject_of_what_is_not_there_then_one_nak() -> None:
    client = connected(Windows(serving(), swaps=False))
    assert client.ipcp_answers == [Code.CONFIGURE_REJECT, Code.CONFIGURE_NAK]
    assert client.rejected_of_ipcp == [130, 132]
    assert client.ipcp == {3: CLIENT_ADDRESS.packed, 129: DNS[0].packed, 131: DNS[1].packed}


def test_interop_48_ipv6cp_may_be_rejected_and_vj_compression_is() -> None:
    client = connected(Windows(serving(ipv6=False), swaps=False))
    assert client.rejected_protocols == [Protocol.IPV6CP]
    answer = client.script.ask(Protocol.IPCP, 77, Option(2, b"\0\x2d\x0f\x01"), Option(3, CLIENT_ADDRESS.packed))
    assert (answer.code, parse_options(answer.data)) == (Code.CONFIGURE_REJECT, (Option(2, b"\0\x2d\x0f\x01"),))


def test_interop_49_ip_waits_for_encryption_where_ipcp_is_open_before_it() -> None:
    client = Windows(serving(), swaps=False)
    client.holds_ccp = True
    client.dial()
    client.begin()
    client.script.wait(0.4)
    client.settle()
    script = client.script
    assert {Protocol.IPCP, Protocol.IPV6CP} <= client.opened
    assert script.of(Ipv4Up) == []
    assert script.connection.send_network(script.ours, Protocol.IPV4, ip_packet(1), script.now) is None
    assert script.connection.status().calls[0].drops[Drop.CLEARTEXT] == 1
    client.send_ip(ip_packet(2))
    assert script.connection.status().calls[0].drops[Drop.CLEARTEXT] == 2
    client.holds_ccp = False
    client.request(Protocol.CCP)
    script.wait(3.0)
    client.settle()
    assert script.of(Ipv4Up)
    assert client.received == []
    client.send_ip(ip_packet(3))
    assert client.received == [ip_packet(3)]


def test_interop_50_a_dhcpinform_reaches_the_owner() -> None:
    """It comes from the tunnel address, in UDP to port 67; who answers it is the owner."""
    client = connected(Windows(serving()))
    inform = b"\x45\0\0\x24\0\x01\0\0\x80\x11\0\0" + client.address.packed + b"\xff\xff\xff\xff"
    inform += b"\0\x44\0\x43\0\x10\0\0" + bytes(8)
    client.received.clear()
    client.send_ip(inform)
    client.settle()
    assert client.received == [inform]
