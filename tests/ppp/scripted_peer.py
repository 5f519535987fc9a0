"""One link whose other end is played by the test: it says what it is told to say and hears everything."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

from pptp.ppp.ipcp import IpcpPolicy
from pptp.ppp.lcp_options import LcpPolicy
from pptp.ppp.link import Link, LinkEvent, Phase
from pptp.ppp.policy import LinkConfig
from pptp.wire.cp import (
    Code,
    CpPacket,
    Option,
    build_options,
    build_packet,
    parse_packet,
)
from pptp.wire.ppp import Protocol

OURS, THEIRS = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.9")
DNS = IPv4Address("10.77.0.53")
SERVER = IpcpPolicy(local=OURS, remote=THEIRS, strict=True, dns=(DNS,))
MAGIC = Option(5, b"\x11\x22\x33\x44")


class Peer:
    """The other end of one link, played by the test: it says what it is told to say and hears everything."""

    def __init__(self, ipcp: IpcpPolicy = SERVER, lcp: LcpPolicy | None = None) -> None:
        config = LinkConfig(lcp=lcp or LcpPolicy(), control_protocols=(ipcp,))
        self.link = Link(config, entropy=random.Random(5).randbytes)
        self.now = 0.0
        self.log: list[LinkEvent] = []
        self.pending: list[tuple[int, CpPacket]] = []  # what the link said when the test last kept it
        self.link.open(0)

    def phase(self) -> Phase:
        return self.link.phase

    def hear(self) -> list[tuple[int, CpPacket]]:
        self.log += self.link.events()
        return [(frame.protocol, parse_packet(frame.information)) for frame in self.link.transmits()]

    def say(self, packet: CpPacket, protocol: int = Protocol.LCP) -> list[tuple[int, CpPacket]]:
        self.link.receive(protocol, build_packet(packet), self.now)
        return self.hear()

    def ask(self, *options: Option, identifier: int = 1, protocol: int = Protocol.LCP) -> CpPacket:
        """Send a Configure-Request and return the answer to it."""
        heard = self.say(CpPacket(Code.CONFIGURE_REQUEST, identifier, build_options(options)), protocol)
        return next(packet for spoken, packet in heard if spoken == protocol and packet.code in (2, 3, 4))

    def acknowledge(self, protocol: int = Protocol.LCP) -> list[tuple[int, CpPacket]]:
        """Answer the link's latest pending Configure-Request of ``protocol`` with an Ack."""
        requests = [
            packet for spoken, packet in self.pending if spoken == protocol and packet.code == Code.CONFIGURE_REQUEST
        ]
        return self.say(CpPacket(Code.CONFIGURE_ACK, requests[-1].identifier, requests[-1].data), protocol)

    def run_timers(self) -> None:
        deadline = self.link.deadline()
        assert deadline is not None
        self.now = deadline
        self.link.handle_timeout(deadline)

    def establish(self, *options: Option) -> list[tuple[int, CpPacket]]:
        """Bring LCP up; returns what the link says first thereafter."""
        self.pending = self.hear()
        self.ask(*(options or (MAGIC,)), identifier=0)
        return self.acknowledge()

    def networked(self, *options: Option) -> Peer:
        """Bring LCP and IPCP up."""
        self.pending = self.establish(*options)
        self.ask(Option(3, THEIRS.packed), protocol=Protocol.IPCP)
        self.acknowledge(Protocol.IPCP)
        assert self.link.carries(Protocol.IPV4)
        return self


def codes(heard: list[tuple[int, CpPacket]]) -> list[int]:
    return [packet.code for _, packet in heard]
