"""The GRE echo server's mind: hands out cookies, answers who holds one where it was handed to, reports what it saw.

An answer goes only to the address that the cookie was issued to and the packet came from, is as long as the packet, and
there is one for each at most, within rates: the server cannot be turned on anybody. A packet that holds a cookie and
comes from elsewhere (a pool of addresses) is reported to the cookie's owner and not answered; anything else is dropped.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address

from grepunch.nat import packets
from grepunch.nat.messages import CallSeen, Cookie, More, Seen, build, parse
from pptp.errors import WireError
from pptp.machine import earliest
from pptp.value import value

_KEY_SIZE = 32

# ours: a whole probe sends about 60 packets and asks for a cookie or two
MOST_CLIENTS = 64
MOST_PER_SOURCE = 4
PACKETS = 40.0  # a second for each client
PACKETS_BURST = 80.0
PACKETS_IN_ALL = 1000.0
MOST_DELAYED = 4  # answers of one client that wait
LONGEST_DELAY = 250  # seconds
MOST_TEXTS = 32  # of one client
CLIENT_LIFE = 900.0  # seconds; the longest probe measures timers


class EchoTally(StrEnum):
    """What the server counts."""

    ANSWERED = "echo_answered"
    ELSEWHERE = "echo_from_elsewhere"
    DROPPED_FOREIGN = "echo_dropped_foreign"  # no packet of a probe, or of no client
    DROPPED_COOKIE = "echo_dropped_cookie"  # forged or ended
    DROPPED_RATE = "echo_dropped_rate"


@value
class Answer:
    """Send this GRE packet from ``source``, an address of ours, to ``destination``."""

    source: IPv4Address
    destination: IPv4Address
    packet: bytes


@value
class Told:
    """Send this text to a client."""

    client: int
    text: str


@value
class Dismissed:
    """Close the connection of this client."""

    client: int


class _Rate:
    """So many a second, with a burst."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst, self._tokens, self._at = rate, burst, burst, now

    def take(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + self._rate * (now - self._at))
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


@dataclass(slots=True)
class _Client:
    number: int
    identifier: int
    address: IPv4Address
    port: int
    until: float
    rate: _Rate
    texts: int = 0
    delayed: int = 0
    cookies: list[bytes] = field(default_factory=list)


class EchoDesk:
    """All clients of one server; a machine as :mod:`pptp.machine` describes. Clients are numbered by the runner."""

    def __init__(self, *, entropy: Callable[[int], bytes], now: float) -> None:
        self.tallies: Counter[EchoTally] = Counter()
        self._entropy = entropy
        self._key = entropy(_KEY_SIZE)
        self._clients: dict[int, _Client] = {}
        self._identifiers: dict[int, _Client] = {}
        self._everyone = _Rate(PACKETS_IN_ALL, PACKETS_IN_ALL, now)
        self._delayed: list[tuple[float, int, int, Answer]] = []
        self._order = 0
        self._out: list[Answer | Told | Dismissed] = []

    # -- the machine contract -------------------------------------------------------------------------------

    def transmits(self) -> list[Answer | Told | Dismissed]:
        """Drain what is to be sent, and whom to close."""
        out, self._out = self._out, []
        return out

    def deadline(self) -> float | None:
        """When :meth:`handle_timeout` is wanted next."""
        soonest = min((client.until for client in self._clients.values()), default=None)
        return earliest(soonest, self._delayed[0][0] if self._delayed else None)

    def handle_timeout(self, now: float) -> None:
        """Send answers that waited, dismiss clients that stay too long."""
        while self._delayed and self._delayed[0][0] <= now:
            _, _, number, answer = heapq.heappop(self._delayed)
            client = self._clients.get(number)
            if client is not None:
                client.delayed -= 1
                self._out.append(answer)
        for client in list(self._clients.values()):
            if client.until <= now:
                self._dismiss(client)

    # -- clients ----------------------------------------------------------------------------------------------

    def connect(self, number: int, address: IPv4Address, port: int, now: float) -> None:
        """A client is there; it gets a cookie, or is dismissed where there are too many."""
        source = sum(client.address == address for client in self._clients.values())
        identifier = int.from_bytes(self._entropy(4))
        if len(self._clients) >= MOST_CLIENTS or source >= MOST_PER_SOURCE or identifier in self._identifiers:
            self._out.append(Dismissed(number))
            return
        rate = _Rate(PACKETS, PACKETS_BURST, now)
        client = _Client(number, identifier, address, port, now + CLIENT_LIFE, rate)
        self._clients[number] = self._identifiers[identifier] = client
        self._hand_cookie(client, now)

    def disconnect(self, number: int) -> None:
        """A client is gone; harmless where it was."""
        client = self._clients.pop(number, None)
        if client is not None:
            self._identifiers.pop(client.identifier, None)

    def receive(self, number: int, text: str, now: float) -> None:
        """A client says something."""
        client = self._clients.get(number)
        if client is None:
            return
        client.texts += 1
        try:
            asked = isinstance(parse(text), More)
        except WireError:
            asked = False
        if not asked or client.texts > MOST_TEXTS:
            self._dismiss(client)
        else:
            self._hand_cookie(client, now)

    # -- packets ------------------------------------------------------------------------------------------------

    def receive_gre(self, source: IPv4Address, local: IPv4Address, data: bytes, now: float) -> None:
        """A GRE packet came from ``source`` to our address ``local``."""
        try:
            packet = packets.parse(data)
        except WireError:
            self.tallies[EchoTally.DROPPED_FOREIGN] += 1
            return
        client = self._identifiers.get(packets.cookie_identifier(packet.cookie))
        if client is None or packet.answer:
            self.tallies[EchoTally.DROPPED_FOREIGN] += 1
        elif packet.cookie not in client.cookies or packet.delay > LONGEST_DELAY:
            self.tallies[EchoTally.DROPPED_COOKIE] += 1
        elif not (client.rate.take(now) and self._everyone.take(now)):
            self.tallies[EchoTally.DROPPED_RATE] += 1
        else:
            self._take(client, packet, source, local, now)

    def _take(
        self, client: _Client, packet: packets.EchoPacket, source: IPv4Address, local: IPv4Address, now: float
    ) -> None:
        answered = packets.cookie_holds(self._key, packet.cookie, source, now)
        self._tell(client, build(Seen(packet.test, packet.sequence, source, packet.version, packet.call_id, answered)))
        if not answered:
            self.tallies[EchoTally.ELSEWHERE] += 1
            return
        answer = Answer(local, source, packets.build(packet.answered()))
        self.tallies[EchoTally.ANSWERED] += 1
        if not packet.delay:
            self._out.append(answer)
        elif client.delayed < MOST_DELAYED:
            client.delayed += 1
            self._order += 1
            heapq.heappush(self._delayed, (now + packet.delay, self._order, client.number, answer))

    # -- calls --------------------------------------------------------------------------------------------------

    def knows(self, source: IPv4Address) -> bool:
        """Whether a client is there whose calls come from this address."""
        return any(client.address == source for client in self._clients.values())

    def call_placed(self, identifier: int, source: IPv4Address, call_id: int, server_call_id: int) -> bool:
        """A call with this Call ID was placed at our PPTP port by the client of this identifier; False: a stranger."""
        client = self._identifiers.get(identifier)
        if client is None or client.address != source:
            return False
        self._tell(client, build(CallSeen(call_id, server_call_id)))
        return True

    # -- small change -------------------------------------------------------------------------------------------

    def _hand_cookie(self, client: _Client, now: float) -> None:
        until = int(now) + packets.COOKIE_LIFE
        cookie = packets.make_cookie(self._key, client.identifier, until, client.address)
        client.cookies = [*client.cookies[-1:], cookie]
        self._tell(client, build(Cookie(cookie, client.address, client.port)))

    def _tell(self, client: _Client, text: str) -> None:
        self._out.append(Told(client.number, text))

    def _dismiss(self, client: _Client) -> None:
        self.disconnect(client.number)
        self._out.append(Dismissed(client.number))
