"""``--pcap``: what an endpoint records, on the wire or inside, from its taps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

from grepunch.interface import host_verdicts
from grepunch.io.capture import PcapFile, PlainCapture, WireCapture
from grepunch.options import Capture

if TYPE_CHECKING:
    from grepunch.datapump import PeerTraffic  # and every part of a peer, where there may be none

# what stands for an address the profile does not name (RFC 5737 section 3)
_PLACEHOLDERS = (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))


class Recording:
    """One capture file, or none; a context manager. Made before the sockets that it taps."""

    def __init__(self, capture: Capture | None, address: IPv4Interface | None) -> None:
        """``address`` is ours inside the tunnel."""
        self._file: PcapFile | None = None
        self._plain = capture is not None and capture.plain
        self._local = address.ip if address is not None else _PLACEHOLDERS[0]
        self._captures: list[PlainCapture] = []
        if capture is not None:
            with host_verdicts():
                self._file = PcapFile(capture.path)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        for capture in self._captures:
            capture.end()
        if self._file is not None:
            self._file.close()

    @property
    def wire_tap(self) -> WireCapture | None:
        """What the raw socket is to tell of every packet; None where nobody records the wire."""
        return WireCapture(self._file) if self._file is not None and not self._plain else None

    @property
    def stopped(self) -> str:
        """Why recording has stopped, if it has."""
        return (self._file.stopped or "") if self._file is not None else ""

    def tap(self, peers: Sequence[PeerTraffic], remotes: Mapping[str, IPv4Address | None]) -> None:
        """Record the inside of these peers' sessions, where that was asked for."""
        if self._file is None or not self._plain:
            return
        for peer in peers:
            ends = self._local, remotes[peer.name] or _PLACEHOLDERS[1]
            self._tap_peer(PlainCapture(self._file, *ends, initiator=peer.machine.config.dialing), peer)

    def inside(
        self, local: IPv4Address, remote: IPv4Address, *, initiator: bool
    ) -> Callable[[int, bytes, bool], None] | None:
        """What records the IP packets of a call of ordinary PPTP between these inner addresses, if that was asked
        for: protocol, packet, outgoing."""
        if self._file is None or not self._plain:
            return None
        capture = PlainCapture(self._file, local, remote, initiator=initiator)
        return lambda protocol, packet, outgoing: capture.ppp(protocol, packet, outgoing=outgoing)

    def _tap_peer(self, capture: PlainCapture, peer: PeerTraffic) -> None:
        def control(message: bytes, outgoing: bool) -> None:
            capture.control(message, outgoing=outgoing)

        def ppp(protocol: int, information: bytes, outgoing: bool) -> None:
            capture.ppp(protocol, information, outgoing=outgoing)

        self._captures.append(capture)
        peer.machine.taps.control = control
        peer.machine.taps.ppp = peer.tap = ppp
