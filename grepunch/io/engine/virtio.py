"""The header that a TUN device with ``IFF_VNET_HDR`` puts before every packet, both ways (virtio 1.2 section 5.1.6).

It says whether a checksum is still to be made, and whether the packet is a train of segments to be cut. Ten octets in
the host's byte order.
"""

from __future__ import annotations

import struct

# linux/virtio_net.h
NEEDS_CSUM = 1  # the transport checksum field holds the pseudo-header's sum
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP = 5  # VIRTIO_NET_HDR_GSO_UDP_L4: datagrams of one size, the last one shorter
GSO_ECN = 0x80  # with TCP: the first segment has CWR set

# flags, type, octets of headers, octets of a segment's payload, where the transport header begins (from the IP header
# on), where in that its checksum is
HEADER = struct.Struct("=BBHHHH")
