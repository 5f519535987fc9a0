"""A rendezvous that lies: ``python -m tests.live.evil_rendezvous TRUE FALSE ARGUMENTS...`` is `rendezvous ARGUMENTS`,
but who comes from TRUE is told that he was seen at FALSE, and every blob is delivered three times, to its sender too.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address

from grepunch.cli.entry import main
from grepunch.rendezvous.broker import Broker, _Side

REPEATS = 3


def lie(true: IPv4Address, false: IPv4Address) -> None:
    """Make every broker of this process do so."""
    connect, deliver = Broker.connect, Broker._deliver

    def lying_connect(self: Broker, connection_id: int, address: IPv4Address | IPv6Address, now: float) -> None:
        connect(self, connection_id, false if address == true else address, now)

    def repeating_deliver(self: Broker, receiver: _Side, payload: bytes) -> None:
        sender = self._other(receiver)
        for _ in range(REPEATS):
            deliver(self, receiver, payload)
            if sender is not None:
                deliver(self, sender, payload)

    Broker.connect = lying_connect  # type: ignore[method-assign]
    Broker._deliver = repeating_deliver  # type: ignore[method-assign]


if __name__ == "__main__":
    lie(IPv4Address(sys.argv[1]), IPv4Address(sys.argv[2]))
    sys.argv[1:3] = ["rendezvous"]
    main()
