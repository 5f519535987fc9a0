"""The place where control protocols plug into a link: IPCP, IPV6CP, and CCP for MPPE.

A link's configuration lists policies. When the link reaches the Network-Layer Protocol phase it lets each begin as a
:class:`ControlProtocol`, feeds it its packets, and drops it when LCP goes down. The link knows none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pptp.errors import Terminated
from pptp.ppp.auth import AuthSucceeded
from pptp.ppp.automaton import Event
from pptp.ppp.lcp_options import LcpOptions
from pptp.ppp.negotiation import Entropy, LayerDown, LayerFinished, LayerUp, Negotiation, Retransmission
from pptp.value import value
from pptp.wire.cp import build_packet, parse_packet


@value
class NetworkUp:
    """A network protocol can be used. Each control protocol adds what it agreed (``Ipv4Up``, ``Ipv6Up``).

    ``protocol`` is the data protocol, as 0x0021 for IPv4.
    """

    protocol: int


@value
class NetworkDown:
    """A network protocol that was up can be used no longer."""

    protocol: int


@value
class NetworkFinished:
    """A network protocol will not come up by itself any more, and why."""

    protocol: int
    reason: Terminated


NetworkEvent = NetworkUp | NetworkDown | NetworkFinished


@value
class LinkContext:
    """What a control protocol may know when it begins.

    ``authentications`` is what the finished exchanges left: an MPPE policy finds its master keys there. ``local`` and
    ``remote`` are the agreed LCP options of the two directions.
    """

    entropy: Entropy
    retransmission: Retransmission
    local: LcpOptions
    remote: LcpOptions
    authentications: tuple[AuthSucceeded, ...] = ()


class ControlProtocol(Protocol):
    """One control protocol of one link, from its Open on; a machine (``pptp/machine.py``).

    ``receive`` raises :class:`WireError` for a packet that is not one; the link counts it.
    """

    @property
    def opened(self) -> bool:
        """Whether its data protocol may be used."""

    def receive(self, information: bytes, now: float) -> None:
        """Take one packet of its protocol."""

    def protocol_rejected(self, now: float) -> None:
        """The peer does not know this protocol."""

    def lower_down(self, now: float) -> None:
        """LCP went down; the object is not used again after its events were drained."""

    def transmits(self) -> Sequence[bytes]:
        """Drain the packets to be sent, oldest first."""

    def events(self) -> Sequence[NetworkEvent]:
        """Drain what happened, oldest first."""

    def deadline(self) -> float | None:
        """When ``handle_timeout`` is wanted next, or ``None``."""

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that is due."""


class ControlProtocolPolicy(Protocol):
    """A control protocol as the configuration has it."""

    @property
    def protocol(self) -> int:
        """The control protocol's number, as 0x8021."""

    @property
    def data_protocol(self) -> int:
        """The number of what it opens, as 0x0021."""

    @property
    def essential(self) -> bool:
        """Whether the link ends when this protocol is finished."""

    def begin(self, context: LinkContext, now: float) -> ControlProtocol:
        """Start negotiating."""


class NetworkControl:
    """A control protocol that is nothing but a negotiation (IPCP, IPV6CP)."""

    __slots__ = ("_data_protocol", "_negotiation", "_report")

    def __init__(
        self,
        negotiation: Negotiation,
        data_protocol: int,
        report: Callable[[Mapping[int, bytes], Mapping[int, bytes]], NetworkUp],
        now: float,
    ) -> None:
        """``report`` makes the event from the agreed local and remote option values."""
        self._negotiation = negotiation
        self._data_protocol = data_protocol
        self._report = report
        negotiation.fire(Event.OPEN, now)
        negotiation.fire(Event.UP, now)

    @property
    def opened(self) -> bool:
        """Whether its data protocol may be used."""
        return self._negotiation.opened

    def receive(self, information: bytes, now: float) -> None:
        """Take one packet; raises :class:`WireError`."""
        self._negotiation.receive(parse_packet(information), now)

    def protocol_rejected(self, now: float) -> None:
        """The peer does not know this protocol."""
        self._negotiation.refused(now, f"the peer does not speak {self._negotiation.name}")

    def lower_down(self, now: float) -> None:
        """LCP went down."""
        self._negotiation.fire(Event.DOWN, now)

    def transmits(self) -> list[bytes]:
        """Drain the packets to be sent, oldest first."""
        return [build_packet(packet) for packet in self._negotiation.transmits()]

    def events(self) -> list[NetworkEvent]:
        """Drain what happened, oldest first."""
        return [self._translate(event) for event in self._negotiation.events()]

    def _translate(self, event: LayerUp | LayerDown | LayerFinished) -> NetworkEvent:
        match event:
            case LayerUp():
                options = self._negotiation.options
                return self._report(options.local, options.remote)
            case LayerDown():
                return NetworkDown(self._data_protocol)
            case LayerFinished(reason):
                return NetworkFinished(self._data_protocol, reason)

    def deadline(self) -> float | None:
        """When ``handle_timeout`` is wanted next, or ``None``."""
        return self._negotiation.deadline()

    def handle_timeout(self, now: float) -> None:
        """Act on the restart timer."""
        self._negotiation.handle_timeout(now)
