"""A session that pppd had with pppd, played again: what our two ends say is what was recorded, octet for octet."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import IPv6

from pptp.crypto.mppe import MppeEncryptor, MppeMode, MppePath
from pptp.crypto.mppe_keys import Strength
from pptp.ppp.auth import AuthSucceeded
from pptp.ppp.ccp import CcpPolicy, EncryptionUp
from pptp.ppp.control_protocol import LinkContext
from pptp.ppp.credentials import Credential, Users
from pptp.ppp.lcp_options import LcpOptions
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.ppp.negotiation import Retransmission
from pptp.wire.ppp import PppFrame, Protocol, parse

RECORDED = Path(__file__).parent / "data" / "pppd_mppe128_frames.txt"
USER, PASSWORD = "vpnuser", "s3cretPW"
PING_TIMES = 4


def frames() -> Iterator[tuple[str, PppFrame]]:
    """Sender and frame, in the order in which they were seen."""
    for line in RECORDED.read_text().splitlines():
        if not line.startswith("#"):
            sender, octets = line.split()
            yield sender, parse(bytes.fromhex(octets))


def said(sender: str, protocol: int) -> list[bytes]:
    """The information fields of one sender's frames of a protocol."""
    return [bytes(frame.information) for who, frame in frames() if (who, frame.protocol) == (sender, protocol)]


class Replayed:
    """Entropy that was drawn elsewhere, long ago."""

    def __init__(self, *drawn: bytes) -> None:
        self.drawn = list(drawn)

    def __call__(self, size: int) -> bytes:
        drawn = self.drawn.pop(0)
        assert len(drawn) == size
        return drawn


CHALLENGE, SUCCESS = said("server", Protocol.CHAP)
(RESPONSE,) = said("client", Protocol.CHAP)


def server_side() -> AuthSucceeded:
    """Our authenticator, asking what pptpd's asked."""
    users = Users({USER: Credential.of_password(PASSWORD)}.get)
    exchange = MsChapV2Authenticator(users, name="pptpd").authenticate_peer(Replayed(CHALLENGE[1:2], CHALLENGE[5:21]))
    exchange.start(0)
    assert exchange.transmits() == [CHALLENGE]
    exchange.receive(RESPONSE, 0)
    assert exchange.transmits() == [SUCCESS]
    (event,) = exchange.events()
    assert isinstance(event, AuthSucceeded)
    return event


def client_side() -> AuthSucceeded:
    """Our authenticatee, answering as pppd did."""
    method = MsChapV2Authenticatee(USER, Credential.of_password(PASSWORD))
    exchange = method.answer_peer(Replayed(RESPONSE[5:21]))
    exchange.start(0)
    exchange.receive(CHALLENGE, 0)
    assert exchange.transmits() == [RESPONSE]
    exchange.receive(SUCCESS, 0)
    (event,) = exchange.events()
    assert isinstance(event, AuthSucceeded)
    return event


def encryption(left: AuthSucceeded, peer: str) -> EncryptionUp:
    """Our CCP, against the recorded packets of ``peer``."""
    context = LinkContext(Replayed(), Retransmission(), LcpOptions(), LcpOptions(), (left,))
    ccp = CcpPolicy().begin(context, 0)
    ours = ccp.transmits()
    for packet in said(peer, Protocol.CCP):
        ccp.receive(packet, 0)
        ours += ccp.transmits()
    assert sorted(ours) == sorted(said("client" if peer == "server" else "server", Protocol.CCP))
    (up,) = ccp.events()
    assert isinstance(up, EncryptionUp)
    return up


@pytest.mark.parametrize("we", ["server", "client"])
def test_a_recorded_session_decrypts_from_either_end(we: str) -> None:
    peer = "client" if we == "server" else "server"
    up = encryption(server_side() if we == "server" else client_side(), peer)
    assert up.encryptor is not None
    assert up.decryptor is not None
    path = MppePath(required=True)
    path.rekey(up.encryptor, up.decryptor)
    heard = []
    for packet in said(peer, Protocol.MPPE):
        heard.append(path.open(Protocol.MPPE, packet))
    assert path.drops == {}
    assert [protocol for protocol, _ in heard] == [Protocol.IPV6] + [Protocol.IPV4] * PING_TIMES
    assert IPv6(bytes(heard[0][1])).payload.name == "ICMPv6 Neighbor Discovery - Router Solicitation"
    pings = [IP(bytes(data)) for _, data in heard[1:]]
    addresses = {"client": "10.99.0.10", "server": "10.99.0.1"}
    for number, ping in enumerate(pings, 1):
        assert (ping.src, ping.dst) == (addresses[peer], addresses[we])
        assert (ping[ICMP].type, ping[ICMP].seq) == (8 if peer == "client" else 0, number)
        assert ping.len == len(ping) == 128
        checksum = ping.chksum
        del ping.chksum
        assert IP(bytes(ping)).chksum == checksum


@pytest.mark.parametrize("sender", ["server", "client"])
def test_encrypted_again_the_packets_are_the_recorded_ones(sender: str) -> None:
    ours = server_side() if sender == "server" else client_side()
    theirs = client_side() if sender == "server" else server_side()
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    encryptor = MppeEncryptor(ours.send_key, MppeMode(Strength.BITS_128, stateless=True))
    decryptor = encryption(theirs, sender).decryptor
    assert decryptor is not None
    for packet in said(sender, Protocol.MPPE):
        assert encryptor.encrypt(*decryptor.decrypt(packet)) == packet


def test_the_recording_says_what_its_addresses_are() -> None:
    (ack,) = [packet for packet in said("server", Protocol.IPCP) if packet[0] == 2]
    assert IPv4Address(ack[-4:]) == IPv4Address("10.99.0.10")
