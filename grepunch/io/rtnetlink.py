"""rtnetlink (RFC 3549, rtnetlink(7)) spoken directly: links, addresses and routes, as far as a tunnel needs them.

The kernel has answered by the time that sending the question returns: a call takes microseconds, and may be made on the
event loop. Whatever the kernel refuses is an ``OSError`` with its number.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from pptp.value import value

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

# linux/netlink.h
NETLINK_ROUTE = 0
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_DUMP_INTR = 0x10
_NLM_F_REPLACE, _NLM_F_EXCL, _NLM_F_CREATE = 0x100, 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLA_F_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ERROR = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")  # length, type; the value is padded to four octets
_ATTRIBUTE_TYPE = 0x3FFF

# linux/rtnetlink.h
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, mask of the flags that are meant
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, lengths of both prefixes, TOS, table, protocol, scope, type, flags
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_METRICS = 1, 4, 5, 7, 8
_RTAX_MTU = 2
_RT_TABLE_MAIN = 254
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RTN_UNICAST = 1

# linux/if_link.h, linux/if_addr.h, linux/if.h
_IFLA_IFNAME, _IFLA_MTU, _IFLA_TXQLEN, _IFLA_IFALIAS, _IFLA_AF_SPEC = 3, 4, 13, 20, 26
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP = 1

_BUFFER = 1 << 16  # netlink(7): the kernel fills no more than 32 KB of it
_PATIENCE = 5.0  # seconds: it answers at once, but for others who hold its tables locked
_LOOKS = 5  # ours: at a list that changes all the time; the last look has to do then


@value
class Link:
    """A network interface of this host."""

    index: int
    name: str
    alias: str = ""


@value
class LinkAddress:
    """An address of this host, and the index of the interface that has it."""

    link: int
    interface: Interface


@value
class WayOut:
    """How this host would send to a destination: from which address, through which interface and next hop."""

    source: IPv4Address
    interface: int
    gateway: IPv4Address | None


class Rtnetlink:
    """A socket of its own; a context manager. Asking needs no privilege, changing anything CAP_NET_ADMIN."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.settimeout(_PATIENCE)
        self._sequence = 0

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    # -- links ------------------------------------------------------------------------------------------------

    def links(self) -> list[Link]:
        """All interfaces of this host."""
        found = []
        for message in self._list(_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            _, _, index, _, _ = _LINK.unpack_from(message)
            said = _attributes(message, _LINK.size)
            found.append(Link(index, _text(said.get(_IFLA_IFNAME, b"")), _text(said.get(_IFLA_IFALIAS, b""))))
        return found

    def tag_link(self, index: int, alias: str, queue: int) -> None:
        """Give an interface an alias and a transmit queue of so many packets, and no IPv6 address by itself."""
        ipv6 = _nested(socket.AF_INET6, _attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE])))
        self._set_link(
            index,
            _attribute(_IFLA_IFALIAS, alias.encode())
            + _attribute(_IFLA_TXQLEN, _number(queue))
            + _nested(_IFLA_AF_SPEC, ipv6),
        )

    def set_mtu(self, index: int, mtu: int) -> None:
        """Set the MTU of an interface."""
        self._set_link(index, _attribute(_IFLA_MTU, _number(mtu)))

    def set_up(self, index: int, *, up: bool) -> None:
        """Bring an interface up or down."""
        self._change(_RTM_NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, _IFF_UP))

    def remove_link(self, index: int) -> None:
        """Remove an interface, with its addresses and routes."""
        self._change(_RTM_DELLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))

    def _set_link(self, index: int, attributes: bytes) -> None:
        self._change(_RTM_NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes)

    # -- addresses --------------------------------------------------------------------------------------------

    def addresses(self) -> list[LinkAddress]:
        """All IPv4 and IPv6 addresses of this host."""
        found = []
        for message in self._list(_RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
            family, prefix, _, _, index = _ADDRESS.unpack_from(message)
            said = _attributes(message, _ADDRESS.size)
            # On a point-to-point link IFA_ADDRESS is the other end's and IFA_LOCAL is ours; IPv6 knows only the former.
            packed = said.get(_IFA_LOCAL, said.get(_IFA_ADDRESS))
            if packed is not None and family in (socket.AF_INET, socket.AF_INET6):
                make = IPv4Interface if family == socket.AF_INET else IPv6Interface
                found.append(LinkAddress(index, make((packed, prefix))))
        return found

    def add_address(self, index: int, address: Interface) -> None:
        """Give an interface an address; the kernel adds the route to its network."""
        self._change(_RTM_NEWADDR, _address(index, address), _NLM_F_CREATE | _NLM_F_EXCL)

    def remove_address(self, index: int, address: Interface) -> None:
        """Take an address from an interface."""
        self._change(_RTM_DELADDR, _address(index, address))

    # -- routes -----------------------------------------------------------------------------------------------

    def add_route(
        self, index: int, network: Network, protocol: int, *, mtu: int | None = None, replace: bool = False
    ) -> None:
        """Route a network into an interface, by the main table. ``protocol`` says who made the route; ``replace``:
        one to the same network is there, and gives way without a gap."""
        metrics = _nested(_RTA_METRICS, _attribute(_RTAX_MTU, _number(mtu))) if mtu is not None else b""
        how = _NLM_F_REPLACE if replace else _NLM_F_EXCL
        self._change(_RTM_NEWROUTE, _route(index, network, protocol) + metrics, _NLM_F_CREATE | how)

    def remove_route(self, index: int, network: Network, protocol: int) -> None:
        """Remove the route that :meth:`add_route` made."""
        self._change(_RTM_DELROUTE, _route(index, network, protocol))

    def way_to(self, destination: IPv4Address) -> WayOut | None:
        """The way packets to ``destination`` take now; None where the kernel does not say all of it."""
        question = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + _attribute(_RTA_DST, destination.packed)
        (answer,), _ = self._ask(_RTM_GETROUTE, _NLM_F_ACK, question)
        said = _attributes(answer, _ROUTE.size)
        if _RTA_PREFSRC not in said or _RTA_OIF not in said:
            return None
        gateway = IPv4Address(said[_RTA_GATEWAY]) if _RTA_GATEWAY in said else None
        interface = int.from_bytes(said[_RTA_OIF], sys.byteorder)
        return WayOut(IPv4Address(said[_RTA_PREFSRC]), interface, gateway)

    # -- messages ---------------------------------------------------------------------------------------------

    def _change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Ask for a change and hear that it was made."""
        self._ask(kind, _NLM_F_ACK | flags, body)

    def _list(self, kind: int, body: bytes) -> list[bytes]:
        """All there is of a kind; asked for again where it changed while the kernel was telling it."""
        for _ in range(_LOOKS):
            told, whole = self._ask(kind, _NLM_F_DUMP, body)
            if whole:
                break
        return told

    def _ask(self, kind: int, flags: int, body: bytes) -> tuple[list[bytes], bool]:
        """The bodies of an answer's messages, to its end: an acknowledgement, or that of a list. And whether all of
        it was true at one time."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        told: list[bytes] = []
        whole = True
        while True:
            datagram, offset = self._socket.recv(_BUFFER), 0
            while offset + _HEADER.size <= len(datagram):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
                body = datagram[offset + _HEADER.size : offset + length]
                offset += _padded(length)
                if sequence != self._sequence:
                    continue  # the rest of an answer that was not waited for
                whole = whole and not flags & _NLM_F_DUMP_INTR
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    (error,) = _ERROR.unpack_from(body)
                    if error:
                        raise OSError(-error, os.strerror(-error))
                    return told, whole
                told.append(body)


def _address(index: int, address: Interface) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    ours, prefix = address.ip.packed, address.network.prefixlen
    head = _ADDRESS.pack(family, prefix, 0, _RT_SCOPE_UNIVERSE, index)
    return head + _attribute(_IFA_LOCAL, ours) + _attribute(_IFA_ADDRESS, ours)


def _route(index: int, network: Network, protocol: int) -> bytes:
    family, scope = (socket.AF_INET, _RT_SCOPE_LINK) if network.version == 4 else (socket.AF_INET6, _RT_SCOPE_UNIVERSE)
    head = _ROUTE.pack(family, network.prefixlen, 0, 0, _RT_TABLE_MAIN, protocol, scope, _RTN_UNICAST, 0)
    return head + _attribute(_RTA_DST, network.network_address.packed) + _attribute(_RTA_OIF, _number(index))


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value.ljust(_padded(len(value)), b"\0")


def _nested(kind: int, attributes: bytes) -> bytes:
    return _attribute(kind | _NLA_F_NESTED, attributes)


def _number(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _attributes(message: bytes, offset: int) -> dict[int, bytes]:
    """The attributes behind the fixed part of a message, by type."""
    found = {}
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        found[kind & _ATTRIBUTE_TYPE] = message[offset + _ATTRIBUTE.size : offset + length]
        offset += max(_padded(length), _ATTRIBUTE.size)
    return found


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _padded(length: int) -> int:
    return (length + 3) & ~3
