"""What passed between two ends, judged by tshark and by counting: malformed packets, PPP protocols, disorder."""

from __future__ import annotations

import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from grepunch.lab import capture

IP, IPV6, COMPRESSED = 0x0021, 0x0057, 0x00FD  # PPP protocols (RFC 1661, 5072, 1962)
_GRE = 47
_FLAG_S, _FLAG_A = 0x1000, 0x0080  # RFC 2637 section 4.1
_EXPERT_ERROR = 8388608  # tshark's number for severity "Error"


@dataclass(frozen=True, slots=True)
class GreFrame:
    """An enhanced GRE packet with a payload, as it passed."""

    when: float
    source: str
    call_id: int
    sequence: int
    payload: bytes

    @property
    def protocol(self) -> int:
        """Of the PPP frame, whatever of its header is compressed (RFC 1661 sections 2 and 6.5, 1662 section 3.1)."""
        frame = self.payload[2:] if self.payload[:2] == b"\xff\x03" else self.payload
        if frame and frame[0] & 1:
            return frame[0]
        return int.from_bytes(frame[:2], "big")


def gre_frames(packets: Iterable[tuple[float, bytes]]) -> Iterator[GreFrame]:
    """The enhanced GRE packets with a payload among IPv4 packets."""
    for when, packet in packets:
        header = (packet[0] & 15) * 4
        if packet[9] != _GRE or len(packet) < header + 12:
            continue
        flags, _, length, call_id, sequence = struct.unpack_from("!HHHHI", packet, header)
        if flags & _FLAG_S and length:
            start = header + (16 if flags & _FLAG_A else 12)
            source = ".".join(map(str, packet[12:16]))
            yield GreFrame(when, source, call_id, sequence, packet[start : start + length])


def protocols(path: Path) -> Counter[int]:
    """How many frames of each PPP protocol passed."""
    return Counter(frame.protocol for frame in gre_frames(capture.read(path)))


def complaints(path: Path, *, data_port: int) -> list[str]:
    """What tshark finds malformed or calls an error, one line each; ``data_port`` of TCP inside carries no protocol."""
    done = subprocess.run(
        [
            "tshark", "-n", "-r", str(path), "-d", f"tcp.port=={data_port},data",
            "-Y", f"_ws.malformed || _ws.expert.severity == {_EXPERT_ERROR}",
            "-T", "fields", "-e", "frame.number", "-e", "frame.protocols", "-e", "_ws.expert.message",
        ],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def displaced(frames: Iterable[GreFrame]) -> dict[int, float]:
    """Sequence number to seconds by which a frame came after the first one with a later number, where it did.

    For one direction of one call, without a wrap of its numbers.
    """
    behind: dict[int, float] = {}
    overtakers: list[tuple[int, float]] = []  # each higher than all before it, with its time
    for frame in frames:
        if overtakers and frame.sequence < overtakers[-1][0]:
            first = next(when for number, when in overtakers if number > frame.sequence)
            behind[frame.sequence] = frame.when - first
        else:
            overtakers.append((frame.sequence, frame.when))
    return behind
