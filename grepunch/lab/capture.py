"""Write what passes an interface to a pcap file: ``python -m grepunch.lab.capture INTERFACE FILE``.

IPv4 packets only, each complete and without a link header, in both directions. Prints one line when it has begun.
Every packet is in the file at once, so the file is whole whenever and however the program ends; ended by SIGTERM, it
first writes what had passed until then.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

READY = "capturing"  # the line printed when the first packet would be seen
# The pcap file format (draft-ietf-opsawg-pcap)
_MAGIC = 0xA1B2C3D4
_LINKTYPE_RAW = 101
_SNAPLEN = 65535
_FILE_HEADER = struct.Struct("<IHHiIII")
_PACKET_HEADER = struct.Struct("<IIII")
_ETH_P_ALL = 0x0003  # linux/if_ether.h; a tap for one protocol would miss what the interface sends
_ETH_P_IP = 0x0800
_BUFFER = 8 << 20  # ours: a burst that no scheduling delay of a busy machine loses


def read(path: Path) -> Iterator[tuple[float, bytes]]:
    """The packets of a file written here, as far as they are whole: seconds since the epoch, and the IPv4 packet."""
    data = path.read_bytes()
    offset = _FILE_HEADER.size
    while offset + _PACKET_HEADER.size <= len(data):
        seconds, microseconds, length, _ = _PACKET_HEADER.unpack_from(data, offset)
        offset += _PACKET_HEADER.size + length
        if offset <= len(data):
            yield seconds + microseconds / 1e6, data[offset - length : offset]


def main() -> None:
    """Capture until SIGTERM."""
    interface, path = sys.argv[1:]
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as tap,
        Path(path).open("wb", buffering=0) as file,
    ):
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        tap.bind((interface, _ETH_P_ALL))
        file.write(_FILE_HEADER.pack(_MAGIC, 2, 4, 0, 0, _SNAPLEN, _LINKTYPE_RAW))

        def finish(number: int, frame: object) -> None:
            tap.bind((interface, 0))  # packet(7): nothing more comes
            tap.setblocking(False)

        signal.signal(signal.SIGTERM, finish)
        print(READY, flush=True)
        while True:
            try:
                packet, (_, protocol, *_) = tap.recvfrom(_SNAPLEN)
            except BlockingIOError:
                return
            if protocol != _ETH_P_IP:
                continue
            microseconds = time.time_ns() // 1000
            header = _PACKET_HEADER.pack(*divmod(microseconds, 1_000_000), len(packet), len(packet))
            file.write(header + packet)


if __name__ == "__main__":
    main()
