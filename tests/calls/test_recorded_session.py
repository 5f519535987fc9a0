"""The session that pppd had with pppd, with our connection in the place of either.

What is drawn at random is drawn as it was recorded, so that the recorded Response, Success and encrypted packets are
good for us too. LCP and the addresses are said anew, because ours asks for other options than pppd did.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP

from pptp.errors import Terminated
from pptp.ordinary import Admission, Authenticated, CallTerms, EncryptionUp, Ipv4Up, Ipv6Up, OrdinaryConfig
from pptp.ppp.ccp import CcpPolicy
from pptp.ppp.credentials import Credential, Users
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.wire.cp import Code, Option
from pptp.wire.ppp import PppFrame, Protocol, parse
from tests.calls.scripted import MAGIC, Scripted

RECORDED = Path(__file__).parents[1] / "ppp" / "data" / "pppd_mppe128_frames.txt"
USER, PASSWORD = "vpnuser", "s3cretPW"
ADDRESSES = {"client": IPv4Address("10.99.0.10"), "server": IPv4Address("10.99.0.1")}
IDENTIFIER = Option(1, bytes.fromhex("3808088b0ea5c57f"))
PINGS = 4


def frames(sender: str) -> list[PppFrame]:
    """What one end sent, in order."""
    lines = [line.split() for line in RECORDED.read_text().splitlines() if not line.startswith("#")]
    return [parse(bytes.fromhex(octets)) for who, octets in lines if who == sender]


def said(sender: str, protocol: int) -> list[bytes]:
    """The information fields of one sender's frames of a protocol."""
    return [bytes(frame.information) for frame in frames(sender) if frame.protocol == protocol]


CHALLENGE, SUCCESS = said("server", Protocol.CHAP)
(RESPONSE,) = said("client", Protocol.CHAP)


def in_the_place_of(we: str) -> Scripted:
    """Our connection, with the entropy that the recorded end drew."""
    other = random.Random(7).randbytes
    drawn = {1: CHALLENGE[1:2], 16: CHALLENGE[5:21] if we == "server" else RESPONSE[5:21]}
    terms = CallTerms(mppe=CcpPolicy())
    if we == "server":
        users = Users({USER: Credential.of_password(PASSWORD)}.get)
        terms = replace(terms, authenticators=(MsChapV2Authenticator(users, name="pptpd"),))
    else:
        terms = replace(terms, authenticatees=(MsChapV2Authenticatee(USER, Credential.of_password(PASSWORD)),))

    def admit(call_id: int, user: str) -> Admission | Terminated:
        return Admission(ADDRESSES["server"], ADDRESSES["client"])

    config = OrdinaryConfig(dials=we == "client", terms=terms)
    return Scripted(config, admit=admit, entropy=lambda size: drawn.get(size) or other(size))


def authenticate(script: Scripted, we: str) -> None:
    """LCP anew, then the recorded exchange."""
    if we == "server":
        script.lcp_up(MAGIC)
        script.wait(3.1)  # the Challenge again: the first was among what brought LCP up
        assert CHALLENGE in [bytes(frame.information) for frame in script.take_frames()]
        script.ppp(Protocol.CHAP, RESPONSE)
    else:
        script.lcp_up(MAGIC, Option(3, b"\xc2\x23\x81"))
        script.ppp(Protocol.CHAP, CHALLENGE)
        assert RESPONSE in [bytes(frame.information) for frame in script.take_frames()]
        script.ppp(Protocol.CHAP, SUCCESS)
    assert script.one(Authenticated).user == USER


def negotiate(script: Scripted, we: str, peer: str) -> None:
    """The recorded CCP, octet for octet; addresses and identifiers anew."""
    heard = script.take_frames()
    if we == "server":
        assert SUCCESS in [bytes(frame.information) for frame in heard]
    ours = {frame.protocol: bytes(frame.information) for frame in heard if frame.information[0] == 1}
    assert ours[Protocol.CCP] == said(we, Protocol.CCP)[0]
    for packet in said(peer, Protocol.CCP):
        script.ppp(Protocol.CCP, packet)
    assert said(we, Protocol.CCP)[-1] in [bytes(frame.information) for frame in script.take_frames()]
    answer = script.ask(Protocol.IPCP, 1, Option(3, ADDRESSES[peer].packed))
    assert answer.code == Code.CONFIGURE_ACK
    script.ask(Protocol.IPV6CP, 1, IDENTIFIER)
    if we == "client":
        ipcp = ours[Protocol.IPCP]
        nak = Option(3, ADDRESSES[we].packed)
        script.cp(Protocol.IPCP, Code.CONFIGURE_REJECT, ipcp[1], Option(129, bytes(4)), Option(131, bytes(4)))
        script.cp(Protocol.IPCP, Code.CONFIGURE_NAK, script.take_cp(Protocol.IPCP)[-1].identifier, nak)
        script.acknowledge(Protocol.IPCP)
    else:
        script.ppp(Protocol.IPCP, b"\x02" + ours[Protocol.IPCP][1:])
    script.ppp(Protocol.IPV6CP, b"\x02" + ours[Protocol.IPV6CP][1:])


@pytest.mark.parametrize("we", ["server", "client"])
def test_the_recorded_session_passes_our_connection_and_the_pings_come_out(we: str) -> None:
    peer = "client" if we == "server" else "server"
    script = in_the_place_of(we)
    authenticate(script, we)
    negotiate(script, we, peer)
    assert str(script.one(EncryptionUp).receive) == "128-bit stateless"
    up = script.one(Ipv4Up)
    assert (up.local, up.remote) == (ADDRESSES[we], ADDRESSES[peer])
    assert script.of(Ipv6Up)
    received: list[bytes] = []
    for packet in said(peer, Protocol.MPPE):
        received += script.ppp(Protocol.MPPE, packet, acfc=True, pfc=True)
    (call,) = script.connection.status().calls
    assert call.drops == {}
    assert call.received_packets == len(received) == 1 + PINGS
    assert received[0][0] >> 4 == 6
    for number, packet in enumerate(received[1:], 1):
        ping = IP(packet)
        assert (ping.src, ping.dst) == (str(ADDRESSES[peer]), str(ADDRESSES[we]))
        assert (ping[ICMP].type, ping[ICMP].seq) == (8 if peer == "client" else 0, number)
        checksum = ping[ICMP].chksum
        del ping[ICMP].chksum
        assert IP(bytes(ping))[ICMP].chksum == checksum


@pytest.mark.parametrize("we", ["server", "client"])
def test_what_the_recorded_end_sent_is_what_ours_sends(we: str) -> None:
    """The packets that our own side had decrypted at the other end, sent by us: the same octets on the wire."""
    peer = "client" if we == "server" else "server"
    ours, theirs = in_the_place_of(we), in_the_place_of(peer)
    for script, role, other in ((ours, we, peer), (theirs, peer, we)):
        authenticate(script, role)
        negotiate(script, role, other)
    for packet in said(we, Protocol.MPPE):
        (data,) = theirs.ppp(Protocol.MPPE, packet)
        protocol = Protocol.IPV6 if data[0] >> 4 == 6 else Protocol.IPV4
        sent = ours.connection.send_network(ours.ours, protocol, data, ours.now)
        assert sent is not None
        assert sent.endswith(b"\xff\x03\x00\xfd" + packet)
