"""Which peers' packets go to which outer address: asked for every ICMP error and every probe that arrives.

Both are easily forged, and a host may have hundreds of peers: whoever floods us with addresses that nothing of ours
goes to must cost a look-up, not a question to every peer.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address

from grepunch.datapump import PeerTraffic

# ours: a peer may aim us at 64 addresses in an hour; what is sent nothing for long makes room
REMEMBERED = 4096


class Destinations:
    """Fed with all that the peer machines send; forgets first where nothing was sent for longest."""

    def __init__(self) -> None:
        self._peers: OrderedDict[IPv4Address, dict[str, PeerTraffic]] = OrderedDict()

    def sent(self, destination: IPv4Address, traffic: PeerTraffic) -> None:
        """A packet of this peer's goes there."""
        self._peers.setdefault(destination, {})[traffic.name] = traffic
        self._peers.move_to_end(destination)
        if len(self._peers) > REMEMBERED:
            self._peers.popitem(last=False)

    def peers_at(self, address: IPv4Address) -> list[PeerTraffic]:
        """The peers whose packets go there still."""
        peers = self._peers.get(address)
        return [] if peers is None else [traffic for traffic in peers.values() if traffic.machine.sends_to(address)]
