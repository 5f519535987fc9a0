"""The PPTP session that two grepunch peers run inside the seal: policy from the profile, made anew for each session."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from ipaddress import IPv4Address

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
) -> Callable[[], Session]:
    """Makes sessions whose IPCP must end in the profile's addresses, where it names both.

    Neither a PPTP nor an LCP Echo ever ends a session here: only the path manager judges silence. The largest inner
    packet differs from path to path, so LCP announces the largest there can be.
    """
    strict = local is not None and remote is not None
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
                IpcpPolicy(local=local, remote=remote, strict=strict),
                Ipv6cpPolicy(interface_identifier=interface_identifier(own_public_key)),
            ),
            retransmission=Retransmission(restart_timer=RESTART_TIMER),
        ),
    )
    return lambda: Session(config, entropy=entropy)
