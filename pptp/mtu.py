"""Every size sum of the project, in one place (see also `grepunch/secure/PROTOCOL.md`).

Sizes are octets. *Outer* is a whole IPv4 packet on the wire, *inner* a whole IP packet inside the tunnel.
"""

from __future__ import annotations

IPV4_HEADER = 20
GRE_V0_HEADER = 4
GRE_V1_HEADER = 12  # key and sequence number (RFC 2637 section 4.1), no acknowledgement
GRE_ACKNOWLEDGEMENT = 4
SEALED_HEADER = 14  # PPP protocol 2, receiver index 4, counter 8
SEALED_INNER_HEADER = 3  # flags 1, PPP protocol 2
AEAD_TAG = 16
SEALED_OVERHEAD = SEALED_HEADER + SEALED_INNER_HEADER + AEAD_TAG

OVERHEAD_SEALED_V1 = IPV4_HEADER + GRE_V1_HEADER + SEALED_OVERHEAD  # 65
OVERHEAD_SEALED_V0 = IPV4_HEADER + GRE_V0_HEADER + SEALED_OVERHEAD  # 57

PPP_HEADER = 4  # FF 03 and the protocol field, before any compression of either
MPPE_OVERHEAD = 4  # coherency count 2, PPP protocol 2 (RFC 3078 section 3)

INITIAL_OUTER = 1400  # what a new path is trusted with until a padded sealed frame has proven more
LARGEST_OUTER = 1500
SMALLEST_OUTER = 576
IPV6_MINIMUM = 1280  # RFC 8200 section 5: below it IPv6 cannot run

TCP_IPV4_HEADERS = 40
TCP_IPV6_HEADERS = 60


def inner_mtu(outer: int, overhead: int) -> int:
    """Largest inner packet that fits a sealed frame in an outer packet of ``outer`` octets."""
    return outer - overhead


def ordinary_mtu(path_mtu: int, peer_mru: int, *, mppe: bool) -> int:
    """Largest inner packet of an ordinary PPTP link: what fits both an outer packet and the peer's MRU.

    The MRU binds the information field, of which MPPE takes its part (RFC 3078 section 4).
    """
    room = path_mtu - IPV4_HEADER - GRE_V1_HEADER - GRE_ACKNOWLEDGEMENT - PPP_HEADER
    return min(room, peer_mru) - (MPPE_OVERHEAD if mppe else 0)


def tcp_mss(inner: int, *, ipv6: bool = False) -> int:
    """Largest TCP segment payload for an inner MTU."""
    return inner - (TCP_IPV6_HEADERS if ipv6 else TCP_IPV4_HEADERS)
