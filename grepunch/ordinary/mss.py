"""The MSS clamp: a TCP connection through the tunnel never agrees on segments that the tunnel cannot carry.

Without it, whatever drops ICMP on the way makes large pages hang. Only a SYN is touched, and of it two octets and the
checksum, by the difference alone (RFC 1624).
"""

from __future__ import annotations

from pptp.mtu import tcp_mss

# RFC 9293 section 3.1, 3.2; RFC 791 section 3.1; RFC 8200 section 3
_TCP = 6
_SYN = 0x02
_OPTION_END, _OPTION_NOTHING, _OPTION_MSS = 0, 1, 2
_MSS_OCTETS = 4
_TCP_HEADER = 20
_IPV6_HEADER = 40
_FRAGMENT_OFFSET = 0x1FFF
_DATA_OFFSET, _FLAGS, _CHECKSUM = 12, 13, 16


def clamp_mss(packet: bytes, mtu: int) -> bytes:
    """``packet``, a whole IP packet, with its MSS option lowered to what fits ``mtu``; the same object where nothing
    is to be done. A SYN without the option stays so: it means 536 (RFC 9293 section 3.7.1)."""
    if len(packet) >= 40 and packet[0] == 0x45 and (packet[9] != _TCP or not packet[20 + _FLAGS] & _SYN):
        return packet  # nearly all there are
    start = _start_of_tcp(packet)
    if start is None or len(packet) < start + _TCP_HEADER or not packet[start + _FLAGS] & _SYN:
        return packet
    at = _find_option(packet, start)
    if at is None:
        return packet
    asked = int.from_bytes(packet[at : at + 2], "big")
    limit = tcp_mss(mtu, ipv6=packet[0] >> 4 == 6)
    if asked <= limit:
        return packet
    changed = bytearray(packet)
    changed[at : at + 2] = limit.to_bytes(2, "big")
    where = start + _CHECKSUM
    # an option at an odd place of the segment enters the sum with its octets swapped
    old, new = (asked, limit) if (at - start) % 2 == 0 else (_swapped(asked), _swapped(limit))
    checksum = int.from_bytes(packet[where : where + 2], "big")
    changed[where : where + 2] = _adjusted(checksum, old, new).to_bytes(2, "big")
    return bytes(changed)


def _start_of_tcp(packet: bytes) -> int | None:
    """Where the TCP header begins; None where there is none, or it is in another fragment."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        offset = int.from_bytes(packet[6:8], "big") & _FRAGMENT_OFFSET
        return (packet[0] & 0x0F) * 4 if packet[9] == _TCP and not offset else None
    if version == 6 and len(packet) >= _IPV6_HEADER:
        return _IPV6_HEADER if packet[6] == _TCP else None
    return None


def _find_option(packet: bytes, start: int) -> int | None:
    """Where the value of the MSS option is."""
    at, end = start + _TCP_HEADER, start + (packet[start + _DATA_OFFSET] >> 4) * 4
    end = min(end, len(packet))
    while at < end:
        kind = packet[at]
        if kind == _OPTION_END:
            return None
        if kind == _OPTION_NOTHING:
            at += 1
            continue
        if at + 1 >= end or (size := packet[at + 1]) < 2 or at + size > end:
            return None
        if kind == _OPTION_MSS:
            return at + 2 if size == _MSS_OCTETS else None
        at += size
    return None


def _swapped(value: int) -> int:
    return value >> 8 | (value & 0xFF) << 8


def _adjusted(checksum: int, old: int, new: int) -> int:
    """RFC 1624 section 3, equation 3: HC' = ~(~HC + ~m + m')."""
    total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
