"""DHCPINFORM over PPP: Windows asks once its link is up, and takes its routes from the answer (RFC 2131 section 4.3.5).

IPCP tells an address and name servers; routes, without which a client sends everything or only one class of network
into the tunnel, are told by option 121 (RFC 3442), to older Windows by 249, which has the same content.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from pptp.value import value

# RFC 791, RFC 768, RFC 951, RFC 2131
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_BOOTP = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_MAGIC = b"\x63\x82\x53\x63"
_PROTOCOL_UDP = 17
_FRAGMENTED = 0x3FFF  # more fragments, or an offset
_REQUEST, _REPLY = 1, 2
SERVER_PORT, CLIENT_PORT = 67, 68
_INFORM, _ACK = 8, 5
_SMALLEST_BOOTP = 300  # RFC 1542 section 2.1: some clients drop what is shorter
_OURS_TTL = 64

# RFC 2132, RFC 3442; 249 is Microsoft's
OPTION_PAD, OPTION_END = 0, 255
OPTION_DNS, OPTION_DOMAIN, OPTION_WINS = 6, 15, 44
OPTION_MESSAGE_TYPE, OPTION_SERVER = 53, 54
OPTION_ROUTES, OPTION_ROUTES_MICROSOFT = 121, 249
_LONGEST_OPTION = 255


@value
class Inform:
    """What one client asks."""

    client: IPv4Address
    client_port: int
    transaction: bytes
    hardware: bytes  # type, length, hops as they came, and the 16 octets of the address
    flags: int


@value
class Answers:
    """What this server tells. ``server`` is its address inside the tunnel, and the router of the routes."""

    server: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    wins: tuple[IPv4Address, ...] = ()
    domain: str | None = None
    routes: tuple[IPv4Network, ...] = ()


def looks_like_dhcp(packet: bytes) -> bool:
    """Whether an IPv4 packet goes to a DHCP server: the quick question asked of every packet."""
    return packet[9] == _PROTOCOL_UDP and packet[0] == 0x45 and packet[22:24] == b"\x00\x43"


def parse_inform(packet: bytes, client: IPv4Address) -> Inform | None:
    """The DHCPINFORM in a whole IPv4 packet; None for anything else. ``client`` is the address the sender was given,
    the only one it may ask for."""
    size = len(packet)
    if size < 20 + _UDP.size + _BOOTP.size + len(_MAGIC) or not looks_like_dhcp(packet):
        return None
    _, _, total, _, fragment, _, _, _, source, _ = _IP.unpack_from(packet)
    from_port, _, udp_size, _ = _UDP.unpack_from(packet, 20)
    if total > size or fragment & _FRAGMENTED or 20 + udp_size > total or source != client.packed:
        return None
    op, kind, length, hops, transaction, _, flags, asked, _, _, _, hardware, _, _ = _BOOTP.unpack_from(packet, 28)
    at = 28 + _BOOTP.size
    if op != _REQUEST or packet[at : at + 4] != _MAGIC or asked not in (client.packed, bytes(4)):
        return None
    if _message_type(packet[at + 4 : 20 + udp_size]) != _INFORM:
        return None
    return Inform(
        client,
        from_port or CLIENT_PORT,
        transaction.to_bytes(4, "big"),
        bytes((kind, length, hops)) + hardware,
        flags,
    )


def _message_type(options: bytes) -> int | None:
    at = 0
    while at < len(options) and options[at] != OPTION_END:
        if options[at] == OPTION_PAD:
            at += 1
            continue
        if at + 1 >= len(options) or at + 2 + options[at + 1] > len(options):
            return None
        if options[at] == OPTION_MESSAGE_TYPE:
            return options[at + 2] if options[at + 1] == 1 else None
        at += 2 + options[at + 1]
    return None


def build_answer(inform: Inform, answers: Answers) -> bytes:
    """The whole IPv4 packet with the DHCPACK. It gives no address and no lease (RFC 2131 section 4.3.5)."""
    options = [(OPTION_MESSAGE_TYPE, bytes((_ACK,))), (OPTION_SERVER, answers.server.packed)]
    if answers.dns:
        options.append((OPTION_DNS, b"".join(server.packed for server in answers.dns)))
    if answers.domain:
        options.append((OPTION_DOMAIN, answers.domain.encode("ascii")))
    if answers.wins:
        options.append((OPTION_WINS, b"".join(server.packed for server in answers.wins)))
    if answers.routes:
        routes = encode_routes(answers.routes, answers.server)
        options += [(OPTION_ROUTES, routes), (OPTION_ROUTES_MICROSOFT, routes)]
    kind, length, hops = inform.hardware[:3]
    bootp = _BOOTP.pack(
        _REPLY, kind, length, hops, int.from_bytes(inform.transaction, "big"), 0, inform.flags,
        inform.client.packed, bytes(4), bytes(4), bytes(4), inform.hardware[3:], b"", b"",
    )  # fmt: skip
    message = bootp + _MAGIC + b"".join(_option(code, value) for code, value in options) + bytes((OPTION_END,))
    return _datagram(answers.server, inform.client, inform.client_port, message.ljust(_SMALLEST_BOOTP, b"\0"))


def _option(code: int, value: bytes) -> bytes:
    """An option; a long one in parts, which the receiver joins (RFC 3396 section 5)."""
    parts = [value[at : at + _LONGEST_OPTION] for at in range(0, len(value), _LONGEST_OPTION)]
    return b"".join(bytes((code, len(part))) + part for part in parts)


def encode_routes(routes: Sequence[IPv4Network], router: IPv4Address) -> bytes:
    """RFC 3442: of each network the length of its prefix, the octets that matter, and the router."""
    return b"".join(
        bytes((route.prefixlen,)) + route.network_address.packed[: (route.prefixlen + 7) // 8] + router.packed
        for route in routes
    )


def _datagram(source: IPv4Address, destination: IPv4Address, port: int, data: bytes) -> bytes:
    size = _UDP.size + len(data)
    udp = _UDP.pack(SERVER_PORT, port, size, 0) + data
    pseudo = source.packed + destination.packed + struct.pack("!HH", _PROTOCOL_UDP, size)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xFFFF) + data
    head = (0x45, 0, 20 + size, 0, 0, _OURS_TTL, _PROTOCOL_UDP)
    header = _IP.pack(*head, 0, source.packed, destination.packed)
    return _IP.pack(*head, checksum(header), source.packed, destination.packed) + udp


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    padded = data + b"\0" if len(data) % 2 else data
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
