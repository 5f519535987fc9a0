"""DHCPINFORM as Windows sends it over PPP, and the answer as scapy reads it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP

from grepunch.ordinary.dhcpinform import Answers, build_answer, encode_routes, looks_like_dhcp, parse_inform

CLIENT, SERVER = IPv4Address("10.77.0.2"), IPv4Address("10.77.0.1")
ANSWERS = Answers(
    SERVER,
    dns=(SERVER, IPv4Address("9.9.9.9")),
    wins=(IPv4Address("10.77.0.3"),),
    domain="example.org",
    routes=(IPv4Network("192.168.10.0/24"), IPv4Network("172.16.0.0/12"), IPv4Network("198.51.100.7/32")),
)


def inform(source: str = str(CLIENT), asked: str = str(CLIENT), kind: str = "inform", **fields: object) -> bytes:
    """As Windows asks: broadcast, hardware type 8 of PPP, a list of wanted options."""
    bootp = BOOTP(op=1, htype=8, hlen=6, ciaddr=asked, chaddr=b"\x52\x41\x53", xid=0x12345678, **fields)
    options = [("message-type", kind), ("param_req_list", [6, 44, 43, 249, 15, 121]), "end"]
    return bytes(IP(src=source, dst="255.255.255.255") / UDP(sport=68, dport=67) / bootp / DHCP(options=options))


def test_the_answer_tells_everything_and_grants_nothing() -> None:
    question = inform()
    assert looks_like_dhcp(question)
    asked = parse_inform(question, CLIENT)
    assert asked is not None
    packet = IP(build_answer(asked, ANSWERS))
    assert (packet.src, packet.dst) == (str(SERVER), str(CLIENT))
    assert (packet[UDP].sport, packet[UDP].dport) == (67, 68)
    bootp = packet[BOOTP]
    assert (bootp.op, bootp.xid, bootp.ciaddr, bootp.yiaddr) == (2, 0x12345678, str(CLIENT), str(IPv4Address(0)))
    assert bootp.chaddr.startswith(b"\x52\x41\x53")
    options = {option[0]: option[1:] for option in packet[DHCP].options if isinstance(option, tuple)}
    assert options["message-type"] == (5,)
    assert options["server_id"] == (str(SERVER),)
    assert options["name_server"] == (str(SERVER), "9.9.9.9")
    assert options["NetBIOS_server"] == ("10.77.0.3",)
    assert options["domain"] == (b"example.org",)
    assert "lease_time" not in options
    wanted = bytes.fromhex("18c0a80a 0a4d0001 0cac10 0a4d0001 20c6336407 0a4d0001")
    raw = bytes(packet[DHCP])
    assert bytes((121, len(wanted))) + wanted in raw
    assert bytes((249, len(wanted))) + wanted in raw


def test_the_checksums_are_right() -> None:
    asked = parse_inform(inform(), CLIENT)
    assert asked is not None
    packet = IP(build_answer(asked, ANSWERS))
    stated = packet.chksum, packet[UDP].chksum
    del packet.chksum, packet[UDP].chksum
    again = IP(bytes(packet))
    assert (again.chksum, again[UDP].chksum) == stated


def test_routes_are_written_as_rfc_3442_says() -> None:
    """The examples of RFC 3442: 10/8 is 8.10, 10.17.0.0/16 is 16.10.17, 10.229.0.128/25 is 25.10.229.0.128."""
    router = IPv4Address("10.0.0.1")
    written = {"0.0.0.0/0": "00", "10.0.0.0/8": "080a", "10.17.0.0/16": "100a11", "10.229.0.128/25": "190ae50080"}
    for network, octets in written.items():
        assert encode_routes([IPv4Network(network)], router) == bytes.fromhex(octets) + router.packed


def test_many_routes_are_told_in_parts() -> None:
    asked = parse_inform(inform(), CLIENT)
    assert asked is not None
    routes = tuple(IPv4Network(f"192.168.{n}.0/24") for n in range(50))
    answer = build_answer(asked, Answers(SERVER, routes=routes))
    assert len(answer) <= 1400
    options = answer[28 + 240 :]
    joined, at = {121: b"", 249: b""}, 0
    while options[at] != 255:
        code, size = options[at], options[at + 1]
        if code in joined:
            joined[code] += options[at + 2 : at + 2 + size]
        at += 2 + size
    assert joined[121] == joined[249] == encode_routes(routes, SERVER)


@pytest.mark.parametrize(
    "packet",
    [
        inform(source="10.77.0.9"),
        inform(asked="10.77.0.9"),
        inform(kind="discover"),
        inform(kind="request"),
        inform()[:200],
        inform()[:-30],
        bytes(IP(src=str(CLIENT)) / UDP(sport=68, dport=67) / b"short"),
    ],
    ids=["source", "address", "discover", "request", "cut", "options cut", "short"],
)
def test_nothing_else_is_answered(packet: bytes) -> None:
    assert parse_inform(packet, CLIENT) is None


@given(st.binary(max_size=400))
def test_any_octets_are_survived(octets: bytes) -> None:
    whole = inform()
    for packet in (octets, whole[:28] + octets, whole[:268] + octets):
        if len(packet) >= 20:
            parse_inform(packet, CLIENT)
