"""Everything that is decided about a link before it starts. Policy enters here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from pptp.errors import Terminated
from pptp.ppp.auth import Authenticatee, Authenticator, AuthSucceeded
from pptp.ppp.control_protocol import ControlProtocolPolicy
from pptp.ppp.ipcp import IpcpPolicy
from pptp.ppp.ipv6cp import Ipv6cpPolicy
from pptp.ppp.lcp_options import LcpPolicy
from pptp.ppp.negotiation import Retransmission

Admit = Callable[[tuple[AuthSucceeded, ...]], IpcpPolicy | Terminated]
"""Asked once authentication is over, with what it left: which addresses the peer gets, or why it may not come in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """One link's policy.

    ``authenticators`` are the methods by which the peer may authenticate itself, the best first (empty: it need not);
    ``authenticatees`` those by which we can (empty: a peer that asks is rejected). ``control_protocols`` are what the
    link is for; any other is answered with Protocol-Reject. ``first_request_delay`` seconds pass before our first
    Configure-Request unless the peer speaks first, for a peer that opens its end later than we do. With ``admit`` the
    peer's addresses depend on who it is: what it returns stands in for the :class:`IpcpPolicy` listed here.
    """

    control_protocols: tuple[ControlProtocolPolicy, ...]
    lcp: LcpPolicy = field(default_factory=LcpPolicy)
    authenticators: tuple[Authenticator, ...] = ()
    authenticatees: tuple[Authenticatee, ...] = ()
    retransmission: Retransmission = field(default_factory=Retransmission)
    first_request_delay: float = 0.0
    admit: Admit | None = None

    def __post_init__(self) -> None:
        """Refuse two handlers for one protocol, and a link without a purpose."""
        numbers = [policy.protocol for policy in self.control_protocols]
        if not numbers or len(set(numbers)) != len(numbers):
            raise ValueError("a link has at least one control protocol, and each one once")

    @classmethod
    def sealed(
        cls,
        *,
        local: IPv4Address,
        remote: IPv4Address,
        mru: int,
        ipv6: bool = True,
        interface_identifier: bytes | None = None,
        echo_interval: float | None = None,
        retransmission: Retransmission | None = None,
    ) -> LinkConfig:
        """The policy of a link inside the seal, where frames are authentic and the path manager judges silence.

        No authentication; PFC, ACFC, CCP and ECP are rejected; IPCP ends in exactly these addresses or fails; a lost
        Echo never ends the link. ``mru`` is the largest inner packet.
        """
        lcp = LcpPolicy(mru=mru, pfc=False, acfc=False, echo_interval=echo_interval, echo_failures=0)
        protocols: tuple[ControlProtocolPolicy, ...] = (IpcpPolicy(local=local, remote=remote, strict=True),)
        if ipv6:
            protocols += (Ipv6cpPolicy(interface_identifier=interface_identifier),)
        return cls(lcp=lcp, control_protocols=protocols, retransmission=retransmission or Retransmission())
