"""What the network says about our packets: entries of a socket's error queue as :class:`PathNews`.

The kernel has matched the packet that an ICMP error quotes against our socket by protocol alone, and nothing
authenticates ICMP: news are hints.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from grepunch.io.grefilter import GRE_PROTOCOL_PPP, GRE_V0_FLAGS, GRE_V1_FLAGS
from grepunch.ports import Form, PathNews, PathNewsKind

# linux/errqueue.h
_IP_RECVERR = 11
_ORIGIN_LOCAL = 1
_ORIGIN_ICMP = 2
_EXTENDED_ERROR = struct.Struct("=IBBBxII")  # errno, origin, type, code, info, data
_OFFENDER = struct.Struct("=H2x4s8x")  # struct sockaddr_in: family, port, address

# RFC 792: type and code
_TIME_EXCEEDED_IN_TRANSIT = (11, 0)
_PROTOCOL_UNREACHABLE = (3, 2)
_FRAGMENTATION_NEEDED = (3, 4)
_DESTINATION_UNREACHABLE = 3

_KINDS = {
    _TIME_EXCEEDED_IN_TRANSIT: PathNewsKind.TIME_EXCEEDED,
    _PROTOCOL_UNREACHABLE: PathNewsKind.PROTOCOL_UNREACHABLE,
    _FRAGMENTATION_NEEDED: PathNewsKind.TOO_BIG,
}

_QUOTED_GRE = struct.Struct("!HH")
_FORMS = {GRE_V1_FLAGS: Form.V1, GRE_V0_FLAGS: Form.V0}

ERROR_QUEUE_SPACE = socket.CMSG_SPACE(_EXTENDED_ERROR.size + _OFFENDER.size)


def parse_error(
    quoted: bytes, ancillary: list[tuple[int, int, bytes]], destination: tuple[str, int]
) -> PathNews | None:
    """One entry of the error queue as ``recvmsg`` gave it; None when it is no news about a packet of ours.

    ``quoted`` is what the ICMP message quotes from the GRE header on (nothing where this host itself refused).
    """
    error = next((data for level, kind, data in ancillary if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR)), b"")
    if len(error) < _EXTENDED_ERROR.size:
        return None
    _, origin, icmp_type, code, info, _ = _EXTENDED_ERROR.unpack_from(error)
    if origin == _ORIGIN_LOCAL:  # only ever EMSGSIZE: larger than the interface's MTU, which info holds
        return PathNews(PathNewsKind.TOO_BIG, None, IPv4Address(destination[0]), None, info)
    kind = _kind(icmp_type, code)
    if origin != _ORIGIN_ICMP or kind is None or len(quoted) < _QUOTED_GRE.size:
        return None
    flags, protocol = _QUOTED_GRE.unpack_from(quoted)
    form = _FORMS.get(flags)
    if protocol != GRE_PROTOCOL_PPP or form is None:
        return None  # about another GRE tunnel of this host
    mtu = info if kind is PathNewsKind.TOO_BIG else 0
    return PathNews(kind, _offender(error), IPv4Address(destination[0]), form, mtu)


def _kind(icmp_type: int, code: int) -> PathNewsKind | None:
    if (icmp_type, code) in _KINDS:
        return _KINDS[icmp_type, code]
    return PathNewsKind.UNREACHABLE if icmp_type == _DESTINATION_UNREACHABLE else None


def _offender(error: bytes) -> IPv4Address | None:
    if len(error) < _EXTENDED_ERROR.size + _OFFENDER.size:
        return None
    family, address = _OFFENDER.unpack_from(error, _EXTENDED_ERROR.size)
    return IPv4Address(address) if family == socket.AF_INET else None
