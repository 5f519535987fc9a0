"""rtnetlink: what this kernel says of itself, and answers that no kernel can be made to give."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface

import pytest

from grepunch.io.rtnetlink import Link, LinkAddress, Rtnetlink

NOBODY = 0x7FFFFFFE  # no interface has this index
NEWLINK, NEWADDR, ERROR, DONE = 16, 20, 2, 3  # linux/rtnetlink.h, linux/netlink.h
DUMP_INTR = 0x10


class Kernel:
    """A socket whose other end says what it is told to, each time one datagram."""

    def __init__(self, *datagrams: bytes) -> None:
        self.asked = 0
        self._datagrams = list(datagrams)

    def send(self, message: bytes) -> None:
        self.asked += 1

    def recv(self, size: int) -> bytes:
        return self._datagrams.pop(0)


def message(kind: int, body: bytes, sequence: int = 1, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link(index: int, name: str) -> bytes:
    return struct.pack("=BxHiII", 0, 1, index, 0, 0) + attribute(3, name.encode() + b"\0")


def asking(*datagrams: bytes) -> tuple[Rtnetlink, Kernel]:
    netlink, kernel = Rtnetlink(), Kernel(*datagrams)
    netlink._socket.close()
    netlink._socket = kernel  # type: ignore[assignment]
    return netlink, kernel


def test_this_host_as_anyone_may_see_it() -> None:
    with Rtnetlink() as netlink:
        links = {link.name: link.index for link in netlink.links()}
        known = set(links.values())
        assert all(address.link in known for address in netlink.addresses())
    assert links == {name: index for index, name in socket.if_nameindex()}


def test_a_refusal_has_the_kernels_number() -> None:
    with Rtnetlink() as netlink, pytest.raises(OSError, match=r"No such device|Operation not permitted") as refused:
        netlink.set_mtu(NOBODY, 1400)
    assert refused.value.errno in (errno.ENODEV, errno.EPERM)  # as root, as anyone else


def test_a_list_may_come_in_many_datagrams() -> None:
    netlink, _ = asking(
        message(NEWLINK, link(1, "lo")) + message(NEWLINK, link(2, "eth0") + attribute(20, b"alias\0")),
        message(NEWLINK, link(7, "gp")),
        message(DONE, struct.pack("=i", 0)),
    )
    assert netlink.links() == [Link(1, "lo"), Link(2, "eth0", "alias"), Link(7, "gp")]


def test_a_list_that_changed_meanwhile_is_asked_for_again() -> None:
    netlink, kernel = asking(
        message(NEWLINK, link(1, "old")) + message(DONE, struct.pack("=i", 0), flags=DUMP_INTR),
        message(NEWLINK, link(1, "new"), sequence=2) + message(DONE, struct.pack("=i", 0), sequence=2),
    )
    assert netlink.links() == [Link(1, "new")]
    assert kernel.asked == 2


def test_the_rest_of_an_earlier_answer_is_passed_over() -> None:
    netlink, _ = asking(
        message(NEWLINK, link(9, "stale"), sequence=0) + message(NEWLINK, link(1, "lo")),
        message(DONE, struct.pack("=i", 0)),
    )
    assert netlink.links() == [Link(1, "lo")]


def test_the_own_address_of_a_point_to_point_link_and_no_other_family() -> None:
    ours, theirs = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
    ppp = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 5) + attribute(1, theirs.packed) + attribute(2, ours.packed)
    decnet = struct.pack("=BBBBI", 12, 16, 0, 0, 5) + attribute(1, b"\1\2")
    netlink, _ = asking(message(NEWADDR, ppp) + message(NEWADDR, decnet) + message(DONE, struct.pack("=i", 0)))
    assert netlink.addresses() == [LinkAddress(5, IPv4Interface("10.0.0.1/32"))]


def test_an_attribute_of_no_length_does_not_hold_the_reader() -> None:
    netlink, _ = asking(message(NEWLINK, link(1, "lo") + bytes(8)) + message(DONE, struct.pack("=i", 0)))
    assert netlink.links() == [Link(1, "lo")]


def test_a_failed_list_is_no_empty_list() -> None:
    netlink, _ = asking(message(DONE, struct.pack("=i", -errno.ENOBUFS)))
    with pytest.raises(OSError, match="No buffer space"):
        netlink.links()
