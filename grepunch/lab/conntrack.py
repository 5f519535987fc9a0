"""A namespace's connection tracking table, over netlink: read it, empty it.

Spoken directly (``linux/netfilter/nfnetlink_conntrack.h``) because the ``conntrack`` program is seldom installed and
not every kernel has ``/proc/net/nf_conntrack``. The caller is in the namespace meant
(:func:`grepunch.lab.namespaces.entered`) and root in it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

from pptp.value import value

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_conntrack.h
_NETLINK_NETFILTER = 12
_NLM_F_REQUEST = 0x01
_NLM_F_ACK = 0x04
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_SUBSYSTEM_CTNETLINK = 1 << 8
_CT_GET = _SUBSYSTEM_CTNETLINK | 1
_CT_DELETE = _SUBSYSTEM_CTNETLINK | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_HELP, _CTA_TIMEOUT = 1, 2, 3, 5, 7
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V4_DST = 1, 2
_CTA_HELP_NAME = 1
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_NLA_TYPE_MASK = 0x3FFF
# linux/netfilter/nf_conntrack_common.h
_IPS_EXPECTED, _IPS_SEEN_REPLY, _IPS_ASSURED = 1, 2, 4
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_FAMILY = struct.pack("=BBH", socket.AF_INET, 0, 0)  # nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")


@value
class Direction:
    """One direction of a flow as its packets look. For GRE the ports are the keys (0, or a Call ID)."""

    source: IPv4Address
    destination: IPv4Address
    source_port: int
    destination_port: int


@value
class Flow:
    """One entry of the table. ``timeout`` is the number of seconds it still has to live without traffic.

    ``helper`` names what reads along (empty: nothing); ``expected``: a helper of another flow had announced this one.
    """

    protocol: int
    original: Direction
    reply: Direction
    replied: bool
    timeout: int
    helper: str
    expected: bool
    assured: bool


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        found[kind & _NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _messages(kind: int, flags: int) -> Iterator[bytes]:
    """Ask the kernel, yield the payload of every message of its answer. Raises ``OSError`` as the kernel says."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        length = _HEADER.size + len(_FAMILY)
        netlink.send(_HEADER.pack(length, kind, _NLM_F_REQUEST | flags, 1, 0) + _FAMILY)
        while True:
            data = netlink.recv(1 << 20)
            while data:
                length, answer, *_ = _HEADER.unpack_from(data)
                payload, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", payload)
                    if number == 0:
                        return
                    raise OSError(-number, os.strerror(-number), "conntrack")
                yield payload


def _direction(data: bytes) -> tuple[int, Direction]:
    parts = _attributes(data)
    address = _attributes(parts[_CTA_TUPLE_IP])
    protocol = _attributes(parts[_CTA_TUPLE_PROTO])
    ports = (int.from_bytes(protocol.get(kind, b""), "big") for kind in (_CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT))
    direction = Direction(IPv4Address(address[_CTA_IP_V4_SRC]), IPv4Address(address[_CTA_IP_V4_DST]), *ports)
    return protocol[_CTA_PROTO_NUM][0], direction


def flows() -> list[Flow]:
    """The IPv4 flows of the calling thread's network namespace."""
    found = []
    for payload in _messages(_CT_GET, _NLM_F_DUMP):
        fields = _attributes(payload[len(_FAMILY) :])
        protocol, original = _direction(fields[_CTA_TUPLE_ORIG])
        _, reply = _direction(fields[_CTA_TUPLE_REPLY])
        status = int.from_bytes(fields.get(_CTA_STATUS, b""), "big")
        timeout = int.from_bytes(fields.get(_CTA_TIMEOUT, b""), "big")
        helper = _attributes(fields.get(_CTA_HELP, b"")).get(_CTA_HELP_NAME, b"").rstrip(b"\0").decode("ascii")
        found.append(
            Flow(
                protocol,
                original,
                reply,
                replied=bool(status & _IPS_SEEN_REPLY),
                timeout=timeout,
                helper=helper,
                expected=bool(status & _IPS_EXPECTED),
                assured=bool(status & _IPS_ASSURED),
            )
        )
    return found


def flush() -> None:
    """Forget every flow of the calling thread's network namespace."""
    for _ in _messages(_CT_DELETE, _NLM_F_ACK):
        pass
