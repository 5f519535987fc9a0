"""Where peers meet: every peer's mailbox on every rendezvous named, and which of them is used.

The servers are raced. A peer is told of the first server on which the other side is present and whose clock is known;
when that one is lost, of the next. Blobs are taken from any. The endpoint makes one :class:`Meetings`, runs it as
a task and hears through ``on_change`` that a peer's machine may have something to send.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from grepunch.config import Fault, Profile
from grepunch.echo_sources import gre_sources
from grepunch.io.meeting import Connected, MeetingClient, MeetingConfigError, MeetingEvent, Unreachable, tls_context
from grepunch.peer import PeerMachine
from grepunch.rendezvous.client import RendezvousClient
from grepunch.rendezvous.events import (
    BlobReceived,
    ClockSynced,
    DaysChanged,
    Disconnected,
    FramesRelayed,
    KeyInUseTwice,
    PeerAbsent,
    PeerPresent,
    RelayUsedUp,
    ServerFault,
    Welcomed,
)
from grepunch.rendezvous.limits import TokenBucket
from grepunch.secure.derive import mailbox_id, side_tag
from grepunch.secure.handshake import MessageType
from grepunch.signalling.messages import INSTANCE_SIZE
from pptp.errors import Drop

# ours: a peer that knows the clock already may begin its handshake while we still measure it
EARLY_BLOBS = 64
# ours: what a server, or whoever replays through it, may cost us: 2 % of a core. A message 1 takes 0.3 ms to open and
# anything else 20 us; 256 peers that all come back at once send 256 of them.
BLOBS = (1000.0, 4096.0)  # a second, and at once
INITIATION_COST = 16.0


def check_settings(profile: Profile) -> tuple[Fault, ...]:
    """What keeps the servers of a profile from ever being met, whatever the network does. Connects to nothing."""
    if profile.rendezvous is None:
        return ()
    try:
        for url in profile.rendezvous.urls:
            tls_context(url, None)
    except MeetingConfigError as error:
        return (profile.source.fault(("rendezvous", "urls"), str(error)),)
    try:
        tls_context(profile.rendezvous.urls[0], ca_file_of(profile))
    except MeetingConfigError as error:
        return (profile.source.fault(("rendezvous", "ca_file"), str(error)),)
    return ()


def ca_file_of(profile: Profile) -> Path | None:
    """The certificates to trust; as with secrets, a relative path starts at the profile's directory."""
    ca_file = profile.rendezvous.ca_file if profile.rendezvous is not None else None
    base = profile.source.path.parent if profile.source.path is not None else Path()
    return base / ca_file if ca_file is not None else None


@dataclass(slots=True)
class Member:
    """One peer as the meetings see it; ``shared`` is the Diffie-Hellman of the two static keys."""

    name: str
    machine: PeerMachine
    shared: bytes = field(repr=False)
    server: Server | None = None  # where it is met now


class Server:
    """One rendezvous server: its connection, its clock, who is present there. Also the clock peers agree on."""

    def __init__(self, url: str, machine: RendezvousClient, now: Callable[[], float]) -> None:
        self.url = url
        self.machine = machine
        self.connected = False
        self.instance = b""
        self.rtt = 0.0
        self.external: IPv4Address | None = None
        self.gre_sources: tuple[IPv4Address, ...] = ()
        self.error = ""
        self.relays = False
        self.used_up: set[bytes] = set()  # mailboxes for which it relays no more
        self.client: MeetingClient | None = None
        self.mailboxes: dict[bytes, Member] = {}
        self.present: dict[str, dict[bytes, int]] = {}  # peer -> mailbox -> incarnation
        self.early: list[tuple[Member, bytes]] = []  # blobs that came before the clock was known
        self.drops: Counter[Drop] = Counter()
        self._now = now
        self._blobs = TokenBucket(BLOBS, now())

    @property
    def usable(self) -> bool:
        """Whether peers can be met here now."""
        return self.connected and self.machine.synchronised

    def admits(self, blob: bytes) -> bool:
        """Whether there is time for this blob; whoever drops it need not count it."""
        cost = INITIATION_COST if blob[:1] == bytes([MessageType.INITIATION]) else 1.0
        admitted = self._blobs.take(self._now(), cost)
        if not admitted:
            self.drops[Drop.RATE_LIMITED] += 1
        return admitted

    def server_time(self, now: float) -> float:
        """The server's clock at our ``now``."""
        return self.machine.server_time(now)

    def local_time(self, server_time: float) -> float:
        """Our clock at the server's ``server_time``."""
        return self.machine.local_time(server_time)


class Meetings:
    """All servers, all mailboxes."""

    def __init__(
        self,
        urls: Sequence[str],
        members: Sequence[Member],
        *,
        own_public_key: bytes,
        ca_file: Path | None,
        entropy: Callable[[int], bytes],
        now: Callable[[], float],
        on_change: Callable[[str], None],
        on_relayed: Callable[[str, Sequence[bytes]], None],
        on_notice: Callable[[str, str | None], None],
    ) -> None:
        """``on_change`` gets the name of a peer whose machine was told something, ``on_relayed`` a peer's frames that
        came over a relay, ``on_notice`` a sentence and the peer it is about."""
        self._members = {member.name: member for member in members}
        self._own_public_key = own_public_key
        self._now = now
        self._on_change = on_change
        self._on_relayed = on_relayed
        self._on_notice = on_notice
        self._ca_file = ca_file
        self._asking: set[asyncio.Task[None]] = set()  # of GRE echoes
        self.servers: list[Server] = []
        for url in urls:
            server = Server(url, RendezvousClient(entropy=entropy), now)
            server.client = MeetingClient(url, server.machine, self._listener(server), ca_file=ca_file, clock=now)
            self.servers.append(server)

    async def run(self) -> None:
        """Keep every connection, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for server in self.servers:
                    if server.client is not None:
                        group.create_task(server.client.run())
        finally:
            for task in self._asking:
                task.cancel()

    def send(self, name: str, blob: bytes) -> None:
        """Hand a blob for a peer to the server where it is met; without one it is lost."""
        server = self._members[name].server
        if server is None or server.client is None:
            return
        for mailbox in server.present.get(name, {}):
            server.client.send(mailbox, blob)
            return

    def doubt(self) -> None:
        """The network may have changed, or a peer has fallen silent: see whether the connections still are any good."""
        for server in self.servers:
            if server.client is not None:
                server.client.doubt()

    @property
    def addresses(self) -> list[IPv4Address]:
        """Where the servers are that we are connected to."""
        found = [server.client.server_address for server in self.servers if server.client is not None]
        return [address for address in found if address is not None]

    def relay(self, name: str, frame: bytes) -> bool:
        """Have a sealed frame for a peer relayed; False where that is not possible now."""
        for server, mailbox in self._relays_of(name):
            return server.client is not None and server.client.relay(mailbox, frame)
        return False

    def relay_of(self, name: str) -> str:
        """The URL of the server that relays for a peer; empty where none does."""
        return next((server.url for server, _ in self._relays_of(name)), "")

    @property
    def frames_dropped(self) -> int:
        """Relayed frames of ours that never left, because a connection was slower than they came."""
        return sum(server.client.frames_dropped for server in self.servers if server.client is not None)

    def _relays_of(self, name: str) -> Iterator[tuple[Server, bytes]]:
        """Servers that relay for a peer, with the mailbox: first where it is met."""
        met = self._members[name].server
        others = (server for server in self.servers if server is not met)
        for server in (met, *others) if met is not None else others:
            if server.usable and server.relays:
                for mailbox in server.present.get(name, {}):
                    if mailbox not in server.used_up:
                        yield server, mailbox
                        break

    def clock_of(self, name: str) -> Server | None:
        """The clock of the server where a peer is met."""
        server = self._members[name].server
        return server if server is not None and server.usable else None

    @property
    def external(self) -> IPv4Address | None:
        """Where we were seen from, as the first server that told."""
        return next((s.external for s in self.servers if s.connected and s.external is not None), None)

    @property
    def error(self) -> str:
        """Why no server can be reached; empty while one can, or before the first try has ended."""
        if any(server.connected for server in self.servers) or not all(server.error for server in self.servers):
            return ""
        return "\n".join(f"{server.url}: {server.error}" for server in self.servers)

    # -- what servers say ------------------------------------------------------------------------------------

    def _listener(self, server: Server) -> Callable[[MeetingEvent], None]:
        def listen(event: MeetingEvent) -> None:
            self._take(server, event)

        return listen

    def _take(self, server: Server, event: MeetingEvent) -> None:
        match event:
            case Connected():
                server.error = ""
            case Welcomed(server_instance=instance, observed=observed, relay=rate, gre_echo=echo):
                server.connected, server.external, server.relays = True, observed, rate > 0
                server.used_up.clear()
                server.instance = instance[:INSTANCE_SIZE]  # enough to tell two runs of a server apart
                if echo:
                    self._ask_echo(server)
                else:
                    server.gre_sources = ()
            case DaysChanged(days=days):
                self._join(server, days)
            case ClockSynced(rtt=rtt):
                server.rtt = rtt
                for name in tuple(server.present):
                    self._choose(name)
                early, server.early = server.early, []
                for member, payload in early:
                    self._deliver(member, payload)
            case PeerPresent(mailbox=mailbox, incarnation=incarnation) if mailbox in server.mailboxes:
                member = server.mailboxes[mailbox]
                server.present.setdefault(member.name, {})[mailbox] = incarnation
                self._choose(member.name, renewed=True)
            case PeerAbsent(mailbox=mailbox) if mailbox in server.mailboxes:
                self._absent(server, mailbox)
            case BlobReceived(mailbox=mailbox, payload=payload) if mailbox in server.mailboxes:
                if not server.admits(payload):
                    pass
                elif server.usable:
                    self._deliver(server.mailboxes[mailbox], payload)
                elif len(server.early) < EARLY_BLOBS:
                    server.early.append((server.mailboxes[mailbox], payload))
            case FramesRelayed(mailbox=mailbox, frames=frames) if mailbox in server.mailboxes:
                self._on_relayed(server.mailboxes[mailbox].name, frames)
            case RelayUsedUp(mailbox=mailbox) if mailbox in server.mailboxes:
                server.used_up.add(mailbox)
                name = server.mailboxes[mailbox].name
                self._on_notice(f"{server.url} relays no more for this pair today", name)
                self._choose(name)
            case KeyInUseTwice(mailbox=mailbox) if mailbox in server.mailboxes:
                self._on_notice(
                    "this key is in use twice: another program meets this peer with it",
                    server.mailboxes[mailbox].name,
                )
            case Unreachable(detail=detail):
                if not server.error:
                    self._on_notice(f"{server.url}: {detail}", None)
                server.error = detail
                server.connected = False
            case Disconnected():
                server.connected = False
                names = tuple(server.present)
                server.present.clear()
                for name in names:
                    self._choose(name)
            case ServerFault(detail=detail):
                self._on_notice(f"{server.url} breaks the protocol: {detail}", None)
            case _:
                pass

    def _ask_echo(self, server: Server) -> None:
        asking = asyncio.get_running_loop().create_task(self._learn_sources(server))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _learn_sources(self, server: Server) -> None:
        """See where our GRE comes from; where that is news, peers met here get to know it in a new round."""
        sources = await gre_sources(server.url, ca_file=self._ca_file)
        elsewhere = tuple(address for address in sources if address != server.external)
        if elsewhere == server.gre_sources:
            return
        server.gre_sources = elsewhere
        for member in self._members.values():
            if member.server is server:
                member.machine.network_changed(self._now())
                self._on_change(member.name)

    def _join(self, server: Server, days: Sequence[int]) -> None:
        """Be in the mailboxes of these days, and in no others."""
        client = server.client
        if client is None:
            return
        wanted = {
            mailbox_id(member.shared, day): (member, side_tag(member.shared, self._own_public_key, day))
            for member in self._members.values()
            for day in days
        }
        for mailbox in [mailbox for mailbox in server.mailboxes if mailbox not in wanted]:
            client.leave(mailbox)
            self._absent(server, mailbox)
            del server.mailboxes[mailbox]
        for mailbox, (member, side) in wanted.items():
            if mailbox not in server.mailboxes:
                server.mailboxes[mailbox] = member
                client.join(mailbox, side)

    def _deliver(self, member: Member, payload: bytes) -> None:
        member.machine.receive_blob(payload, self._now())
        self._on_change(member.name)

    def _absent(self, server: Server, mailbox: bytes) -> None:
        name = server.mailboxes[mailbox].name
        mailboxes = server.present.get(name, {})
        mailboxes.pop(mailbox, None)
        if not mailboxes:
            server.present.pop(name, None)
        self._choose(name)

    def _choose(self, name: str, *, renewed: bool = False) -> None:
        """Tell the peer's machine where it is met now, when that has changed or the other side came anew."""
        member = self._members[name]
        best = next((server for server in self.servers if server.usable and name in server.present), None)
        changed = best is not member.server or renewed
        member.server = best
        if not changed:
            pass
        elif best is None:
            member.machine.mailbox_down(self._now())
        else:
            member.machine.mailbox_up(frozenset(best.present[name].items()), self._now())
        member.machine.relay_offered(bool(self.relay_of(name)), self._now())
        self._on_change(name)
