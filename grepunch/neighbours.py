"""IPv6 neighbour discovery: what no packet out of a tunnel may be."""

from __future__ import annotations

# RFC 4861 sections 4 and 6.1: what kernels take for neighbour discovery. It may stand behind other headers (RFC 8200
# section 4), which nothing else with this hop limit does.
DISCOVERY_HOP_LIMIT = 255
_DISCOVERY_TYPES = range(133, 138)
_ICMPV6 = 58
_EXTENSION_HEADERS = frozenset({0, 43, 44, 51, 60, 135, 139, 140})


def discovers_neighbours(packet: bytes | memoryview) -> bool:
    """Whether our kernel may take it for neighbour discovery, of which a tunnel has no need.

    A router that a peer announces would get this host's whole IPv6 traffic: one packet makes a default route.
    """
    header = packet[6]
    return header in _EXTENSION_HEADERS or (
        header == _ICMPV6 and any(kind in _DISCOVERY_TYPES for kind in packet[40:41])
    )
