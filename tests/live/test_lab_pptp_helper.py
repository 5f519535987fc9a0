"""NATs with a PPTP helper: what a control connection that they saw makes them pass, and what nothing else does."""

from __future__ import annotations

import socket
import struct
import time
from ipaddress import IPv4Address
from typing import Any

import pytest

from grepunch.lab.node import Node
from grepunch.lab.topology import MEET_ADDRESSES, Lab
from tests.live.live_support import SETTLE, Gre, RunInLab, gre_v1

# RFC 2637 section 2: header (length, message type, magic cookie, control type, reserved), then the fields
PORT = 1723
MAGIC = 0x1A2B3C4D
SCCRQ, SCCRP, OCRQ, OCRP = 1, 2, 7, 8
SIZES = {SCCRQ: 156, SCCRP: 156, OCRQ: 168, OCRP: 32}
PNS_CALL_ID, PAC_CALL_ID = 4321, 8765


def message(kind: int, fields: bytes) -> bytes:
    header = struct.pack("!HHIHH", SIZES[kind], 1, MAGIC, kind, 0)
    return (header + fields).ljust(SIZES[kind], b"\0")


def start_request() -> bytes:
    return message(SCCRQ, struct.pack("!H", 0x100))


def start_reply() -> bytes:
    return message(SCCRP, struct.pack("!HBB", 0x100, 1, 0))


def call_request(call_id: int) -> bytes:
    return message(OCRQ, struct.pack("!HHIIIIHH", call_id, 1, 300, 10**8, 3, 3, 64, 0))


def call_reply(call_id: int, peer_call_id: int) -> bytes:
    return message(OCRP, struct.pack("!HHBBHIHH", call_id, peer_call_id, 1, 0, 0, 10**8, 64, 0))


def read(connection: socket.socket, kind: int) -> bytes:
    data = connection.recv(SIZES[kind], socket.MSG_WAITALL)
    assert struct.unpack_from("!H", data, 8) == (kind,), data
    return data


def call_ids(data: bytes) -> tuple[int, int]:
    call_id, peer_call_id = struct.unpack_from("!HH", data, 12)
    return call_id, peer_call_id


def tcp(node: Node, port: int = 0) -> socket.socket:
    with node.entered():
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.bind(("", port))
    connection.settimeout(5.0)
    return connection


def call_as_client(nat: str, negotiate: bool) -> dict[str, Any]:
    """A host behind ``nat`` calls the public host as PPTP clients do; then both send GRE with these Call IDs."""
    with Lab(nat) as lab:
        listener, client = tcp(lab.meet, PORT), tcp(lab.a.host)
        a, meet = Gre(lab.a.host), Gre(lab.meet)
        seen_call_id = PNS_CALL_ID
        if negotiate:
            listener.listen()
            client.connect((str(MEET_ADDRESSES[0]), PORT))
            server, _ = listener.accept()
            client.send(start_request())
            read(server, SCCRQ)
            server.send(start_reply())
            read(client, SCCRP)
            client.send(call_request(PNS_CALL_ID))
            seen_call_id, _ = call_ids(read(server, OCRQ))
            server.send(call_reply(PAC_CALL_ID, seen_call_id))
            assert call_ids(read(client, OCRP)) == (PAC_CALL_ID, PNS_CALL_ID)
        for _ in range(2):
            a.send(MEET_ADDRESSES[0], gre_v1(PAC_CALL_ID, b"up"))
            meet.send(lab.a.external, gre_v1(seen_call_id, b"down"))
            time.sleep(SETTLE)
        arrived = [struct.unpack_from("!H", payload, 6)[0] for _, payload in a.heard()]
        return {"up": len(meet.heard()), "down": arrived, "rewritten": seen_call_id != PNS_CALL_ID}


@pytest.mark.parametrize(
    ("nat", "negotiate", "up", "down"),
    [
        ("G3", True, 2, [PNS_CALL_ID] * 2),
        ("G5", True, 2, [PNS_CALL_ID] * 2),
        ("G2", True, 2, []),  # nobody watched the call: the answers' Call ID belongs to no flow
        ("G3", False, 2, []),
        ("G5", False, 0, []),  # and here not even our own packets leave without one
    ],
)
def test_a_helper_admits_the_call_it_has_seen(
    run_in_lab: RunInLab, nat: str, negotiate: bool, up: int, down: list[int]
) -> None:
    seen = run_in_lab(call_as_client, nat=nat, negotiate=negotiate)
    assert (seen["up"], seen["down"]) == (up, down)
    assert seen["rewritten"] == (negotiate and nat != "G2")  # the helper puts the NATed TCP port in its place


def simultaneous_open(one: socket.socket, to_one: IPv4Address, other: socket.socket, to_other: IPv4Address) -> None:
    """Connect two bound sockets to each other; each SYN opens its own NAT for the other's."""
    for connection, destination in ((one, to_one), (other, to_other)):
        connection.setblocking(False)
        connection.connect_ex((str(destination), PORT))
    for connection in (one, other):
        connection.settimeout(2.5)  # two retransmissions of a SYN
        connection.send(start_request())  # blocks until connected


def mirrored(nat: str) -> dict[str, Any]:
    """Both peers are PNS and PAC at once on one TCP connection; every Call ID is the port that both NATs preserve."""
    with Lab(nat, nat) as lab:
        ends = (tcp(lab.a.host, PORT), tcp(lab.b.host, PORT))
        simultaneous_open(ends[0], lab.b.external, ends[1], lab.a.external)
        for end in ends:
            read(end, SCCRQ)
            end.send(start_reply())
        for end in ends:
            read(end, SCCRP)
            end.send(call_request(PORT))
        seen = []
        for end in ends:
            call_id, _ = call_ids(read(end, OCRQ))
            seen.append(call_id)
            end.send(call_reply(PORT, call_id))
        for end in ends:
            read(end, OCRP)
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        for _ in range(3):
            a.send(lab.b.external, gre_v1(PORT, b"a"))
            b.send(lab.a.external, gre_v1(PORT, b"b"))
            time.sleep(SETTLE)
        return {"call_ids": seen, "a": len(a.heard()), "b": len(b.heard())}


def test_the_mirrored_handshake_opens_nats_that_admit_nothing_else(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(mirrored, nat="G5")
    assert seen["call_ids"] == [PORT, PORT]
    assert min(seen["a"], seen["b"]) >= 2


def simultaneous_tcp(nat: str) -> str:
    with Lab(nat, nat) as lab:
        ends = (tcp(lab.a.host, PORT), tcp(lab.b.host, PORT))
        try:
            simultaneous_open(ends[0], lab.b.external, ends[1], lab.a.external)
        except OSError as error:
            return type(error).__name__
        return "connected"


def test_ports_are_preserved_by_g2_and_not_by_g2s(run_in_lab: RunInLab) -> None:
    assert run_in_lab(simultaneous_tcp, nat="G2") == "connected"
    assert run_in_lab(simultaneous_tcp, nat="G2S") != "connected"
