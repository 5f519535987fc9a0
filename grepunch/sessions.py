"""The PPTP session that two grepunch peers run inside the seal: policy from the profile, made anew for each session."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network

from pptp.control import ControlConfig
from pptp.mtu import LARGEST_OUTER, OVERHEAD_SEALED_V0, inner_mtu
from pptp.ppp.ipcp import IpcpPolicy
from pptp.ppp.ipv6cp import Ipv6cpPolicy
from pptp.ppp.lcp_options import LcpPolicy
from pptp.ppp.negotiation import Retransmission
from pptp.ppp.policy import LinkConfig
from pptp.session import Session, SessionConfig

# RFC 2637 section 4.1 with what NATs do to it: a NAT without a PPTP helper passes enhanced GRE only with Call ID 0
# in both directions
PUNCHED_CALL_ID = 0
# ours: RFC 1661 section 4.6 has 3 s by default, for telephone lines, and wants it set to suit the link; a round trip
# here is far below a second, and the first request is easily lost: one side's path is there a moment before the other's
RESTART_TIMER = 1.0

# RFC 1918 section 3, RFC 6598 section 7
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))

_UNIVERSAL_BIT = 0x02


def interface_identifier(public_key: bytes) -> bytes:
    """The IPv6 interface identifier of a host (8 octets, locally administered): the same at every start."""
    digest = hashlib.sha256(b"interface identifier" + public_key).digest()[:8]
    return bytes([digest[0] & ~_UNIVERSAL_BIT]) + digest[1:7] + bytes([digest[7] or 1])


def session_factory(
    *,
    dials: bool,
    local: IPv4Address | None,
    remote: IPv4Address | None,
    own_public_key: bytes,
    entropy: Callable[[int], bytes],
    allowed: Sequence[IPv4Network] = (),
    ipv6: bool = True,
) -> Callable[[], Session]:
    """Makes sessions whose IPCP must end in the profile's addresses, as far as it names them.

    What it leaves open the peer may choose among the private addresses and what it is ``allowed`` anyway: nobody who
    leaves out an address means to let the peer take the place of a public server.

    Without ``ipv6``, because this host has none, IPV6CP is refused.
    Neither a PPTP nor an LCP Echo ever ends a session here: only the path manager judges silence. The largest inner
    packet differs from path to path, so LCP announces the largest there can be.
    """

    def may_choose(address: IPv4Address) -> bool:
        return address not in (local, remote) and any(address in network for network in (*PRIVATE, *allowed))

    ipv6cp = Ipv6cpPolicy(interface_identifier=interface_identifier(own_public_key), fixed=True)
    config = SessionConfig(
        dials=dials,
        call_id=PUNCHED_CALL_ID,
        control=ControlConfig(echo_wait=None),
        link=LinkConfig(
            lcp=LcpPolicy(
                mru=inner_mtu(LARGEST_OUTER, OVERHEAD_SEALED_V0),
                pfc=False,
                acfc=False,
                echo_interval=None,
                echo_failures=0,
            ),
            control_protocols=(
                IpcpPolicy(local=local, remote=remote, strict=True, may_choose=may_choose),
                *((ipv6cp,) if ipv6 else ()),
            ),
            retransmission=Retransmission(restart_timer=RESTART_TIMER),
        ),
    )
    return lambda: Session(config, entropy=entropy)
