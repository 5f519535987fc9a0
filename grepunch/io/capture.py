"""Captures of the tunnel as pcap files that tshark and scapy read.

Two kinds, both of raw IPv4 packets:

* :class:`WireCapture` -- what is on the wire: GRE packets with everything sealed, safe to hand to others.
* :class:`PlainCapture` -- what is inside: PPP frames as enhanced-GRE packets without the seal, and PPTP control
  messages as TCP segments on port 1723. Both are synthetic (between two grepunch peers neither is ever on a wire),
  with correct lengths, checksums and sequence numbers.

A capture never holds a key. It never disturbs the tunnel either: when the file cannot be written, or has reached its
limit, recording stops, and :attr:`PcapFile.stopped` says why.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from grepunch.io.errors import Refused
from grepunch.io.grefilter import GRE_PROTOCOL_PPP, GRE_V1_FLAGS
from grepunch.io.rawsocket import local_address_towards
from pptp.mtu import IPV4_HEADER
from pptp.serial import increment
from pptp.wire.control import TCP_PORT

# draft-ietf-opsawg-pcap: the classic file format with microseconds
_MAGIC = 0xA1B2C3D4
_VERSION = (2, 4)
_SNAPSHOT_LENGTH = 0xFFFF
_LINKTYPE_RAW = 101  # whole IP packets, no link header
_FILE_HEADER = struct.Struct("=IHHiIII")
_RECORD_HEADER = struct.Struct("=IIII")  # seconds, microseconds, octets recorded, octets there were

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_GRE_V1 = struct.Struct("!HHHHI")
_TCP = struct.Struct("!HHIIHHHH")
_PSEUDO_HEADER = struct.Struct("!4s4sBBH")
_IPPROTO_TCP = 6
_IPPROTO_GRE = 47
_DONT_FRAGMENT = 0x4000
_FIN, _SYN, _PUSH, _ACK = 0x01, 0x02, 0x08, 0x10
_TCP_HEADER_WORDS = _TCP.size // 4

# RFC 1661 section 2, RFC 1662 section 3.1
_PPP_PREFIX = b"\xff\x03"
_PPP_HEADER = struct.Struct("!2sH")

# ours
_INITIATOR_PORT = 49152  # the first dynamic port (RFC 6335): the stream is not a real one
_DEFAULT_TTL: Final = 64
_WINDOW = 0xFFFF
LARGEST_FILE = 256 << 20  # what peers send decides how fast the file grows, so it ends somewhere


class PcapFile:
    """A pcap file that only its owner can read. Each packet is in the file when :meth:`record` returns.

    Raises :class:`Refused` where the file cannot be made: a symbolic link, no regular file, somebody else's, or one
    with a second name.
    """

    def __init__(self, path: Path, *, limit: int = LARGEST_FILE, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._left = limit
        self._descriptor = _create(path)
        self.packets = 0
        self.stopped = ""
        self._write(_FILE_HEADER.pack(_MAGIC, *_VERSION, 0, 0, _SNAPSHOT_LENGTH, _LINKTYPE_RAW))

    def record(self, packet: bytes) -> None:
        """Append one IPv4 packet with the present time."""
        if self.stopped:
            return
        seconds, fraction = divmod(self._wall_clock(), 1)
        header = _RECORD_HEADER.pack(int(seconds), int(fraction * 1e6), len(packet), len(packet))
        self._write(header + packet)
        self.packets += not self.stopped

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        self.stopped = self.stopped or "closed"
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> None:
        if len(data) > self._left:
            self.stopped = "the capture has reached its largest size"
            return
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self.stopped = f"the capture could not be written: {error.strerror}"
            return
        if written < len(data):  # a full disk; half a record would spoil the file
            os.ftruncate(self._descriptor, os.lseek(self._descriptor, -written, os.SEEK_CUR))
            self.stopped = "the capture could not be written: the disk is full"
            return
        self._left -= written


def _create(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise Refused(f"The capture {path} could not be made: {error.strerror}.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise Refused(f"The capture {path} was not touched: it is no ordinary file, or not ours alone.")
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class WireCapture:
    """Records what our raw socket sends and receives; a ``rawsocket.WireTap``.

    A received packet is recorded as it came. The IPv4 header of a sent one is the kernel's work and not seen here: it
    is written anew, with the source the kernel chooses for that destination (0.0.0.0 without a route).
    """

    def __init__(self, file: PcapFile) -> None:
        self._file = file

    def sent(self, destination: IPv4Address, ttl: int | None, gre: bytes) -> None:
        """Record a GRE packet that went out."""
        source = local_address_towards(destination) or IPv4Address(0)
        self._file.record(_ipv4(source, destination, _IPPROTO_GRE, gre, _DEFAULT_TTL if ttl is None else ttl))

    def received(self, packet: bytes) -> None:
        """Record an IPv4 packet that came in."""
        self._file.record(packet)


@dataclass(slots=True)
class _Direction:
    """What one end has said so far: the next numbers of its GRE packets and of its TCP octets."""

    address: IPv4Address
    port: int
    gre_sequence: int = 0
    tcp_sequence: int = 0


class PlainCapture:
    """Records the inside of one session: its PPP frames and its control messages.

    ``local`` and ``remote`` are the ends of the path. ``initiator``: we placed the call (PNS). One for each session
    and path; several may share a file.
    """

    def __init__(
        self, file: PcapFile, local: IPv4Address, remote: IPv4Address, *, initiator: bool, call_id: int = 0
    ) -> None:
        self._file = file
        self._call_id = call_id
        ports = (_INITIATOR_PORT, TCP_PORT) if initiator else (TCP_PORT, _INITIATOR_PORT)
        self._local, self._remote = _Direction(local, ports[0]), _Direction(remote, ports[1])
        self._initiator = initiator
        self._connected = False

    def ppp(self, protocol: int, information: bytes, *, outgoing: bool) -> None:
        """Record a PPP frame, by its protocol number and information field."""
        sender, receiver = self._ends(outgoing)
        frame = _PPP_HEADER.pack(_PPP_PREFIX, protocol) + information
        header = _GRE_V1.pack(GRE_V1_FLAGS, GRE_PROTOCOL_PPP, len(frame), self._call_id, sender.gre_sequence)
        sender.gre_sequence = increment(sender.gre_sequence)
        self._file.record(_ipv4(sender.address, receiver.address, _IPPROTO_GRE, header + frame, _DEFAULT_TTL))

    def control(self, message: bytes, *, outgoing: bool) -> None:
        """Record a PPTP control message, as one TCP segment that the other end acknowledges at once."""
        if not self._connected:
            self._connect()
        self._segment(outgoing, _PUSH | _ACK, message)
        self._segment(not outgoing, _ACK)

    def end(self) -> None:
        """Record that the control connection has closed. Only where it had begun."""
        if self._connected:
            self._segment(self._initiator, _FIN | _ACK)
            self._segment(not self._initiator, _FIN | _ACK)
            self._segment(self._initiator, _ACK)
            self._connected = False

    def _connect(self) -> None:
        self._connected = True
        self._segment(self._initiator, _SYN)
        self._segment(not self._initiator, _SYN | _ACK)
        self._segment(self._initiator, _ACK)

    def _ends(self, outgoing: bool) -> tuple[_Direction, _Direction]:
        return (self._local, self._remote) if outgoing else (self._remote, self._local)

    def _segment(self, outgoing: bool, flags: int, data: bytes = b"") -> None:
        sender, receiver = self._ends(outgoing)
        acknowledged = receiver.tcp_sequence if flags & _ACK else 0
        offset_and_flags = _TCP_HEADER_WORDS << 12 | flags

        def header(checksum: int) -> bytes:
            return _TCP.pack(
                sender.port, receiver.port, sender.tcp_sequence, acknowledged, offset_and_flags, _WINDOW, checksum, 0
            )

        length = _TCP.size + len(data)
        pseudo = _PSEUDO_HEADER.pack(sender.address.packed, receiver.address.packed, 0, _IPPROTO_TCP, length)
        segment = header(_checksum(pseudo + header(0) + data)) + data
        sender.tcp_sequence = increment(sender.tcp_sequence, len(data) + (1 if flags & (_SYN | _FIN) else 0))
        self._file.record(_ipv4(sender.address, receiver.address, _IPPROTO_TCP, segment, _DEFAULT_TTL))


def _ipv4(source: IPv4Address, destination: IPv4Address, protocol: int, payload: bytes, ttl: int) -> bytes:
    """An IPv4 packet (RFC 791) without options; one that would be too long is cut."""
    payload = payload[: 0xFFFF - IPV4_HEADER]

    def header(checksum: int) -> bytes:
        ends = source.packed, destination.packed
        return _IPV4.pack(0x45, 0, IPV4_HEADER + len(payload), 0, _DONT_FRAGMENT, ttl, protocol, checksum, *ends)

    return header(_checksum(header(0))) + payload


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
