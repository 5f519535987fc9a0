"""What both ends of a rendezvous connection have in common: keepalive, a full socket, silence in the log."""

from __future__ import annotations

import logging

from websockets.asyncio.connection import Connection
from websockets.asyncio.server import broadcast

# ours: a dead TCP connection is noticed within 19 s (ping at 10, given up 8 later, closed 1 later)
PING_INTERVAL = 10.0
PING_TIMEOUT = 8.0
CLOSE_TIMEOUT = 1.0

# ours: octets waiting for the socket above which a blob is dropped, and above which the receiver is given up
DROP_BLOBS_AT = 65_536
GIVE_UP_AT = 262_144

# The library logs addresses, headers and tracebacks of what strangers send. What is worth knowing, the runners say.
QUIET = logging.Logger("websockets", level=logging.CRITICAL + 1)


def send_or_drop(connection: Connection, message: str | bytes) -> bool:
    """Send without waiting; False where a blob was dropped because the socket is full.

    Nothing is sent to a connection that is closing, and a receiver that does not even take texts is cut off.
    """
    waiting = connection.transport.get_write_buffer_size()
    if isinstance(message, bytes) and waiting > DROP_BLOBS_AT:
        return False
    if waiting > GIVE_UP_AT:
        connection.transport.abort()
        return False
    broadcast([connection], message)  # the library's way to send from a place that cannot wait
    return True
