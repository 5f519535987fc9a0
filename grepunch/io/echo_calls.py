"""The PPTP port of the GRE echo server, where those who probe place a call: scenery for the NATs on the way.

A call carries nothing. Whoever connects from an address that no probe under way comes from is cut off without a word.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address

from grepunch.io.streams import Stream, listen
from pptp.errors import WireError
from pptp.wire.control import (
    TCP_PORT,
    EchoReply,
    EchoRequest,
    MessageSplitter,
    OutgoingCallReply,
    OutgoingCallRequest,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    build_message,
    parse_message,
)

# ours
MOST_CALLS = 64  # connections
MOST_PER_SOURCE = 4
CALL_LIFE = 300.0  # seconds
MOST_MESSAGES = 64  # of one connection: a probe sends two

_ANY = IPv4Address(0)

Knows = Callable[[IPv4Address], bool]
"""Whether a probe comes from this address."""
Placed = Callable[[int, IPv4Address, int, int], bool]
"""A call of the client with this identifier, from this address, with its Call ID and ours; False: there is none."""


class CallPort:
    """See the module; :meth:`open` before the first connection, :meth:`close` at the end."""

    def __init__(self, knows: Knows, placed: Placed) -> None:
        self._knows = knows
        self._placed = placed
        self._call_ids = itertools.cycle(range(1, 0x10000))
        self._sources: Counter[IPv4Address] = Counter()
        self._callers: set[_Caller] = set()
        self._servers: list[asyncio.AbstractServer] = []

    async def open(self, hosts: Sequence[str], port: int = TCP_PORT) -> None:
        """Listen at the IPv4 addresses of ``hosts``; raises as :func:`grepunch.io.streams.listen` does."""
        addresses = list(dict.fromkeys([address for host in hosts for address in await _addresses(host)]))
        for address in [_ANY] if _ANY in addresses else addresses:
            self._servers.append(await listen(address, port, self._accept, shared=False))

    def close(self) -> None:
        """Stop listening, cut everybody off."""
        for server in self._servers:
            server.close()
        for caller in tuple(self._callers):
            caller.stream.abort()

    def _accept(self, stream: Stream) -> _Caller | None:
        source = stream.ends.remote
        full = len(self._callers) >= MOST_CALLS or self._sources[source] >= MOST_PER_SOURCE
        if full or not self._knows(source):
            return None
        caller = _Caller(stream, self._reply, self._lost)
        self._callers.add(caller)
        self._sources[source] += 1
        return caller

    def _lost(self, caller: _Caller) -> None:
        source = caller.stream.ends.remote
        self._callers.discard(caller)
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    def _reply(self, message: object, source: IPv4Address) -> bytes | None:
        """What a PAC says to that; None where it hangs up."""
        match message:
            case StartControlConnectionRequest():
                return build_message(StartControlConnectionReply(host_name=b"echo", vendor_name=b"grepunch"))
            case EchoRequest(identifier=identifier):
                return build_message(EchoReply(identifier))
            case OutgoingCallRequest(call_id=call_id, phone_number=number) if len(number) == 8:
                with suppress(ValueError):
                    given = next(self._call_ids)
                    if self._placed(int(number, 16), source, call_id, given):
                        return build_message(OutgoingCallReply(given, call_id))
        return None


class _Caller:
    """One connection; a :class:`~grepunch.io.streams.StreamUser`."""

    def __init__(
        self,
        stream: Stream,
        reply: Callable[[object, IPv4Address], bytes | None],
        lost: Callable[[_Caller], None],
    ) -> None:
        self.stream = stream
        self._reply = reply
        self._lost = lost
        self._splitter = MessageSplitter()
        self._left = MOST_MESSAGES
        self._end = asyncio.get_running_loop().call_later(CALL_LIFE, stream.abort)

    def data_received(self, data: bytes) -> None:
        """Answer every message; the first that has no answer ends the connection."""
        try:
            self._splitter.feed(data)
            while (message := self._splitter.next_message()) is not None:
                self._left -= 1
                reply = self._reply(parse_message(message), self.stream.ends.remote) if self._left >= 0 else None
                if reply is None:
                    self.stream.close()
                    return
                self.stream.write(reply)
        except WireError:
            self.stream.abort()

    def stream_closed(self, why: str) -> None:
        """It is over."""
        self._end.cancel()
        self._lost(self)


async def _addresses(host: str) -> list[IPv4Address]:
    """The IPv4 addresses of a host, which may have none."""
    with suppress(socket.gaierror):
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, TCP_PORT, family=socket.AF_INET, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return [IPv4Address(entry[4][0]) for entry in found]
    return []
