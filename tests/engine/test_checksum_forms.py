"""The two forms of nothing in one's complement: which of them TCP and UDP put into their checksum field."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from socket import IPPROTO_TCP, IPPROTO_UDP

import pytest

from grepunch.io.engine import checksum

ENDS = IPv4Address("10.66.0.1").packed + IPv4Address("10.66.0.2").packed


@pytest.mark.parametrize(("protocol", "size", "field"), [(IPPROTO_TCP, 20, 0), (IPPROTO_UDP, 8, 0xFFFF)])
def test_a_sum_of_all_ones_is_0_to_tcp_and_all_ones_to_udp(protocol: int, size: int, field: int) -> None:
    """RFC 768 sends 0xFFFF where 0 comes out, because 0 stands for none there; RFC 9293 knows no such exception."""
    start = struct.pack("!BxHxxxxBBxx", 0x45, 20 + size, 64, protocol) + ENDS
    header = bytearray(size)
    if protocol == IPPROTO_UDP:
        struct.pack_into("!H", header, 4, size)
    pseudo = checksum.ones_sum(ENDS + struct.pack("!HH", protocol, size))
    place = checksum.ChecksumPlace(20, checksum.TCP_CHECKSUM if protocol == IPPROTO_TCP else checksum.UDP_CHECKSUM)
    struct.pack_into("!H", header, place.offset, pseudo)
    struct.pack_into("!H", header, 0, 0xFFFF - checksum.ones_sum(header))  # a source port that makes it so
    made = checksum.completed(start + bytes(header), place)
    assert checksum.find(made) == place
    assert struct.unpack_from("!H", made, 20 + place.offset) == (field,)
