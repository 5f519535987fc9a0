"""The punched peers of a profile, from the first socket to the last address removed: all that `serve` and `dial` own.

It opens what the system gives (raw socket, TUN device, rendezvous connections), makes a peer machine for each
peer, moves bytes between them, and hands what they say to the interface, the status and the reporter. It decides
nothing about protocols.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from grepunch import interface
from grepunch.admission import HandshakeDesk
from grepunch.config import Keys, Profile, ProfileInvalid, Rendezvous, secret_variables
from grepunch.config import Peer as PeerProfile
from grepunch.datapump import DataPump, PeerTraffic, refusal
from grepunch.destinations import Destinations
from grepunch.dialing import Dialing
from grepunch.entrance import Entrance
from grepunch.interface import TunnelInterface
from grepunch.io.clock import entropy, now
from grepunch.io.engine.batches import GreBatches
from grepunch.io.engine.loop import Engine
from grepunch.io.engine.rounds import Rounds
from grepunch.io.hostnet import has_ipv6
from grepunch.io.netwatch import way_to
from grepunch.io.packetloop import serve
from grepunch.io.rawgre import RawGre
from grepunch.io.tun import Tun
from grepunch.mirrors import Mirrors
from grepunch.movement import Movement
from grepunch.options import EndpointOptions, Role
from grepunch.outcome import Attempt
from grepunch.peer import (
    CarrierChanged,
    InnerMtu,
    MailboxDoubted,
    MailboxSend,
    PathUp,
    PeerConfig,
    PeerContext,
    PeerEvent,
    PeerMachine,
    PeerState,
    RelaySend,
    SessionEnded,
)
from grepunch.ports import GreFrame, GreSend
from grepunch.progress import Level, Notice, Reporter, StateChanged
from grepunch.punch.winners import Winner
from grepunch.recording import Recording
from grepunch.remembered import Remembered, network_id
from grepunch.routing import AddressTable
from grepunch.secure.constants import SESSION_ID_SIZE
from grepunch.secure.exchange import KeyExchange
from grepunch.secure.identity import Identity, shared_secret
from grepunch.sessions import session_factory
from grepunch.status import RendezvousStatus, Stage, Status, by_cause
from grepunch.story import Story
from grepunch.verdict import Failure, Verdict, VerdictKind, failure
from pptp.crypto.aead import Suite
from pptp.datapath import SealedPair
from pptp.ppp.ipcp import Ipv4Up
from pptp.ppp.ipv6cp import Ipv6Up
from pptp.wire.sealed import CAPABILITY_CHECKSUM_ELISION

if TYPE_CHECKING:
    from grepunch.meetings import Meetings

# ours: goodbyes take a second at the most, and a second signal does not wait for them
GOODBYE = 1.5
PROGRESS_INTERVAL = 0.25
# ours: data alone asks nothing of a machine that is not worth a second's wait
SETTLE_DATA = 0.05
_SUITES = (Suite.AES_256_GCM, Suite.CHACHA20_POLY1305)


class Endpoint:
    """See the module."""

    def __init__(
        self,
        profile: Profile,
        keys: Keys,
        options: EndpointOptions,
        reporter: Reporter,
        recording: Recording,
        entrance: Entrance,
    ) -> None:
        self._profile = profile
        self._keys = keys
        self._options = options
        self._reporter = reporter
        self._started = now()
        self._interface = TunnelInterface(profile)
        self._recording = recording
        self.ready = False
        self._addresses: AddressTable[PeerTraffic] = AddressTable()
        self._indices: dict[int, PeerTraffic] = {}
        self._destinations = Destinations()
        self._armed: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        self._stop_serving: Callable[[], None] | None = None
        self._remembered = Remembered(
            profile.name, self._network, lambda text: reporter.report(Notice(text, Level.WARNING))
        )
        self._secrets = {peer.name: shared_secret(keys.private_key, peer.public_key) for peer in profile.peers}
        self._peers = {peer.name: self._make_peer(peer) for peer in profile.peers}
        self._stories = {name: Story(traffic, self._started) for name, traffic in self._peers.items()}
        self._mirrors = Mirrors(
            entrance,
            now,
            settled=lambda name: self._flush(self._peers[name]),
            on_notice=lambda text, peer: self._reporter.report(Notice(text, Level.WARNING, peer)),
            set_call_id=lambda address, call_id: self._gre.set_call_id(address, call_id),
        )
        self._movement = Movement(self._outer_addresses, moved=self._moved, slept=self._slept, now=now)
        self._meetings: Meetings | None = None
        self._all_closed = asyncio.Event()
        self._fault: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def _make_peer(self, peer: PeerProfile) -> PeerTraffic:
        profile, keys = self._profile, self._keys
        dials = self._options.role is Role.DIAL
        exchange = KeyExchange(
            identity=Identity(keys.private_key, keys.public_key),
            peer_public_key=peer.public_key,
            preshared_key=keys.preshared_keys.get(peer.name),
            session_id=entropy(SESSION_ID_SIZE),
            capabilities=CAPABILITY_CHECKSUM_ELISION,
            suites=self._options.suites or _SUITES,
            entropy=entropy,
            allocate_index=lambda: self._allocate_index(peer.name),
            release_index=self._release_index,
        )
        config = PeerConfig(
            name=peer.name,
            public_key=peer.public_key,
            dialing=dials,
            uses_rendezvous=profile.rendezvous is not None,
            forms=profile.punch.forms,
            last_known_address=peer.last_known_address,
            keepalive=profile.punch.keepalive,
            window=profile.punch.window,
            relay=profile.punch.relay,
        )
        local = profile.interface.address
        context = PeerContext(
            config,
            own_public_key=keys.public_key,
            static_secret=self._secrets[peer.name],
            new_session=session_factory(
                dials=dials,
                local=local.ip if local is not None else None,
                remote=peer.address,
                own_public_key=keys.public_key,
                entropy=entropy,
                allowed=peer.allowed,
                ipv6=has_ipv6(),
            ),
            clock=lambda: self._meetings.clock_of(peer.name) if self._meetings is not None else None,
            interfaces=self._interface.host_interfaces,
            slot_taken=lambda address: any(
                other.machine.occupies(address) for other in self._peers.values() if other.name != peer.name
            ),
            entropy=entropy,
            remembered=lambda: self._remembered.best(self._secrets[peer.name]),
        )
        traffic = PeerTraffic(peer.name, PeerMachine(context, exchange))
        self._give_addresses(peer, traffic, peer.address)
        return traffic

    def _give_addresses(self, peer: PeerProfile, traffic: PeerTraffic, address: IPv4Address | None) -> None:
        own = (IPv4Network(address),) if address is not None else ()
        self._addresses.add(peer.name, traffic, (*own, *peer.allowed))

    # -- life -------------------------------------------------------------------------------------------------

    async def run(self) -> Verdict:
        """Open everything, run until the end, close everything."""
        async with AsyncExitStack() as stack:
            with interface.host_verdicts():
                self._gre = RawGre(self._recording.wire_tap)  # before any route: nothing may answer for us
            stack.callback(self._gre.close)
            stack.enter_context(self._interface)
            self._desk = HandshakeDesk(
                Identity(self._keys.private_key, self._keys.public_key),
                {traffic.machine.config.public_key: traffic for traffic in self._peers.values()},
                by_index=self._indices.get,
                peers_at=self._destinations.peers_at,
                settled=self._flush,
                answer=self._answer,
                entropy=entropy,
                now=now,
            )
            self._pump = self._make_pump(self._desk)
            remotes = {peer.name: peer.address for peer in self._profile.peers}
            self._recording.tap(tuple(self._peers.values()), remotes)
            self.ready = True
            stack.callback(setattr, self, "ready", False)
            return await self._run_open(stack)

    def _make_pump(self, desk: HandshakeDesk) -> DataPump | Engine[PeerTraffic]:
        """The engine where the device has offload, the plain loop where the kernel knows none."""
        device = self._interface.device
        if isinstance(device, Tun):
            return DataPump(
                self._gre,
                device,
                self._addresses,
                find_pair=self._find_pair,
                clear_frame=desk.receive,
                relay=self._relay,
                settled=self._flush,
                news=self._take_news,
                now=now,
            )
        return Engine(
            GreBatches(self._gre),
            device,
            owner_of=self._addresses.owner_of,
            refusal=partial(refusal, self._addresses),
            find_pair=self._find_pair,
            clear_frame=desk.receive,
            relay=self._relay,
            moved=self._data_moved,
            settled=self._flush,
            news=self._take_news,
            now=now,
        )

    async def _run_open(self, stack: AsyncExitStack) -> Verdict:
        """With everything open: read sockets, run tasks, until one of them has a verdict."""
        loop = asyncio.get_running_loop()
        device = self._interface.device.fileno()
        # the device first: what the kernel answers, an acknowledgement or the next segments, goes out before more is
        # taken in; under 1 % loss a TCP stream makes 100 Mbit/s so, and 86 the other way round
        readers = {device: self._pump.tun_readable}
        if isinstance(self._pump, Engine):
            readers[self._pump.fileno()] = self._pump.tun_readable
            stack.callback(self._pump.close)
        readers[self._gre.fileno()] = self._pump.gre_readable
        rounds = Rounds(readers, pause=self._pump.pause, settle=self._pump.settle)
        stack.callback(rounds.close)
        self._stop_serving = serve(rounds)
        stack.callback(self.stop_reading)
        stack.callback(self._disarm)
        stack.enter_context(self._movement)
        stack.callback(self._mirrors.close)
        self._report_start()
        tasks: list[asyncio.Future[Verdict]] = [self._fault, loop.create_task(self._show_progress())]
        if self._profile.rendezvous is not None:
            self._meetings = self._make_meetings(self._profile.rendezvous)
            tasks.append(loop.create_task(_forever(self._meetings.run())))
        stack.push_async_callback(_cancel, tasks)
        stack.push_async_callback(self._say_goodbye)
        if self._options.role is Role.DIAL:
            story = next(iter(self._stories.values()))
            patience = Dialing(self._options, self._reporter, hidden=secret_variables(self._profile))
            dialing = loop.create_task(patience.watch(story, self._attempt))
            stack.push_async_callback(_cancel, [dialing])  # before the goodbye: its command may still need the tunnel
            tasks = [*tasks, dialing]
        gc.freeze()  # what the start has made stays: no collection need look at it again
        for traffic in self._peers.values():
            traffic.machine.start(now())
            self._flush(traffic)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return (self._fault if self._fault in done else done.pop()).result()

    def _make_meetings(self, rendezvous: Rendezvous) -> Meetings:
        from grepunch.meetings import Meetings, Member, ca_file_of, check_settings  # and websockets, for whom it is

        faults = check_settings(self._profile)
        if faults:
            raise ProfileInvalid(faults)
        return Meetings(
            rendezvous.urls,
            [Member(name, traffic.machine, self._secrets[name]) for name, traffic in self._peers.items()],
            own_public_key=self._keys.public_key,
            ca_file=ca_file_of(self._profile),
            entropy=entropy,
            now=now,
            on_change=lambda name: self._flush(self._peers[name]),
            on_relayed=self._relayed,
            on_notice=lambda text, peer: self._reporter.report(Notice(text, Level.WARNING, peer)),
        )

    def _report_start(self) -> None:
        device = self._profile.interface.name
        self._reporter.report(StateChanged(Stage.STARTING, detail=f"{device}, mtu {self._interface.mtu}"))
        for notice in self._interface.notices:
            self._reporter.report(notice)

    async def _say_goodbye(self) -> None:
        """Tell every peer, and give it a moment to hear."""
        for traffic in self._peers.values():
            traffic.machine.close(now())
            self._flush(traffic)
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await self._all_closed.wait()

    async def _show_progress(self) -> Verdict:
        """The punch under way, a few times a second."""
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            self._movement.tick()
            external = self._meetings.external if self._meetings is not None else None
            for name, story in self._stories.items():
                if story.stage is not Stage.PUNCHING:
                    continue
                machine = self._peers[name].machine
                progress = story.progress(machine.punch_counts, machine.peer_external, external, now())
                if progress is not None:
                    self._reporter.report(progress)

    def _attempt(self, waited: float) -> Attempt:
        """What is known of the peer that is dialled."""
        story = next(iter(self._stories.values()))
        error = self._meetings.error if self._meetings is not None else ""
        return story.attempt(waited, now(), uses_rendezvous=self._meetings is not None, meeting_error=error)

    def describe(self, status: Status) -> Status:
        """The peers as `status` shows them."""
        at, servers = now(), self._meetings.servers if self._meetings is not None else []
        return replace(
            status,
            peers=tuple(
                replace(
                    story.status(at),
                    routes=self._interface.routes_to(name) or None,
                    remembered=str(winner) if winner is not None else None,
                )
                for name, story in self._stories.items()
                for winner in (self._remembered.best(self._secrets[name]),)
            ),
            rendezvous=tuple(
                RendezvousStatus(s.url, s.connected, s.external if s.connected else None, s.error or None)
                for s in servers
            ),
            drops=Counter(status.drops) + Counter(self._drops()),
        )

    def _drops(self) -> dict[str, int]:
        """Packets that belong to no peer, by cause: what sockets, pump, handshake desk and meetings refused."""
        servers = self._meetings.servers if self._meetings is not None else ()
        total = by_cause(
            *(self._gre.drops, self._interface.device.drops, self._pump.drops, self._desk.drops),
            *(server.drops for server in servers),
        )
        if self._meetings is not None and self._meetings.frames_dropped:
            total["relay_too_slow"] += self._meetings.frames_dropped
        return dict(total)

    def stop_reading(self) -> None:
        """Read no more packets."""
        if self._stop_serving is not None:
            self._stop_serving()
            self._stop_serving = None

    # -- moving bytes -----------------------------------------------------------------------------------------

    def _take_news(self) -> None:
        for news in self._gre.news():
            for traffic in self._destinations.peers_at(news.destination):
                traffic.machine.receive_news(news, now())
                self._flush(traffic)

    def _relay(self, traffic: PeerTraffic, frame: bytes) -> bool:
        return self._meetings is not None and self._meetings.relay(traffic.name, frame)

    def _relayed(self, name: str, frames: Sequence[bytes]) -> None:
        for frame in frames:
            self._pump.relayed(self._peers[name], frame)

    def _answer(self, frame: GreFrame, ppp: bytes) -> None:
        self._gre.send(GreSend(frame.source, frame.form, ppp))

    def _find_pair(self, index: int) -> tuple[PeerTraffic, SealedPair] | None:
        traffic = self._indices.get(index)
        pair = traffic.machine.pair(index) if traffic is not None else None
        return (traffic, pair) if traffic is not None and pair is not None else None

    def _allocate_index(self, name: str) -> int:
        while (index := int.from_bytes(entropy(4), "big")) in self._indices or index == 0:
            pass
        self._indices[index] = self._peers[name]
        return index

    def _release_index(self, index: int) -> None:
        self._indices.pop(index, None)

    def _flush(self, traffic: PeerTraffic) -> None:
        """The one exit of a peer machine: send, tell, re-arm one timer."""
        machine = traffic.machine
        for item in machine.transmits():
            match item:
                case MailboxSend(blob=blob):
                    if self._meetings is not None:
                        self._meetings.send(traffic.name, blob)
                case RelaySend(frame=frame):
                    self._relay(traffic, frame)
                case GreSend():
                    self._destinations.sent(item.destination, traffic)
                    self._gre.send(item)
                case _:
                    self._mirrors.act(traffic.name, machine, item)
        for event in machine.events():
            try:
                self._take(traffic, event)
            except Failure as failed:
                self._host_refused(traffic, event, failed)
        self._pump.review()
        deadline = machine.deadline()
        if deadline is not None:
            self._arm(traffic, deadline)

    def _data_moved(self, traffic: PeerTraffic) -> None:
        """Data has moved, which a machine may take its time to settle: many batches, and then once."""
        self._arm(traffic, now() + SETTLE_DATA)

    def _arm(self, traffic: PeerTraffic, deadline: float) -> None:
        """Have a machine's timer fire at ``deadline`` at the latest: too early is harmless, and cheaper than anew."""
        armed = self._armed.get(traffic.name)
        if armed is not None and armed[0] <= deadline:
            return
        if armed is not None:
            armed[1].cancel()
        delay = max(0.0, deadline - now())
        handle = asyncio.get_running_loop().call_later(delay, self._timer_fired, traffic)
        self._armed[traffic.name] = (deadline, handle)

    def _host_refused(self, traffic: PeerTraffic, event: PeerEvent, failed: Failure) -> None:
        """This host would not have an address or a route. What one peer brings ends no more than its session."""
        clash = isinstance(event, Ipv4Up | CarrierChanged) and failed.verdict.kind is VerdictKind.ADDRESS_CLASH
        if self._options.role is Role.SERVE and clash:
            self._reporter.report(Notice(f"refused: {failed.verdict.detail}", Level.WARNING, traffic.name))
            traffic.machine.refuse(failed.verdict.detail, now())
            asyncio.get_running_loop().call_soon(self._flush, traffic)
        elif not self._fault.done():
            self._fault.set_exception(failed)

    def _profile_of(self, traffic: PeerTraffic) -> PeerProfile:
        return next(peer for peer in self._profile.peers if peer.name == traffic.name)

    def _timer_fired(self, traffic: PeerTraffic) -> None:
        self._armed.pop(traffic.name, None)
        traffic.machine.handle_timeout(now())
        self._flush(traffic)

    def _disarm(self) -> None:
        for _, handle in self._armed.values():
            handle.cancel()
        self._armed.clear()

    # -- movement ---------------------------------------------------------------------------------------------

    def _network(self) -> bytes:
        """What tells the network this host is in from others."""
        meetings = self._meetings
        known = (peer.last_known_address for peer in self._profile.peers if peer.last_known_address is not None)
        towards = next(iter([*(meetings.addresses if meetings is not None else ()), *known]), None)
        way = way_to(towards) if towards is not None else None
        return network_id(way.gateway if way is not None else None, meetings.external if meetings is not None else None)

    def _outer_addresses(self) -> list[IPv4Address]:
        """Where packets of ours go: to peers and to rendezvous servers."""
        holes = [traffic.machine.hole for traffic in self._peers.values()]
        return [*(self._meetings.addresses if self._meetings else ()), *(hole[0] for hole in holes if hole is not None)]

    def _doubt_meetings(self) -> None:
        if self._meetings is not None:
            self._meetings.doubt()

    def _moved(self) -> None:
        """This host sends another way than before."""
        self._doubt_meetings()
        for traffic in self._peers.values():
            traffic.machine.network_changed(now())
            self._flush(traffic)

    def _slept(self) -> None:
        """Every timer is late, and whoever was connected to us may have given up."""
        self._disarm()  # the event loop's own clock stood still meanwhile
        self._doubt_meetings()
        for traffic in self._peers.values():
            traffic.machine.handle_timeout(now())
            self._flush(traffic)

    # -- what peers say -----------------------------------------------------------------------------------------

    def _take(self, traffic: PeerTraffic, event: PeerEvent) -> None:
        name = traffic.name
        match event:
            case InnerMtu(octets=octets):
                self._interface.peer_mtu(name, octets)
            case MailboxDoubted():
                self._doubt_meetings()
            case PathUp(form=form, mirrored=mirrored):
                outgoing = mirrored and any(traffic.machine.call_ids or ())
                self._remembered.won(self._secrets[name], Winner(form, mirrored, outgoing))
            case CarrierChanged():
                self._interface.check_outer(self._outer_addresses())
            case Ipv4Up(local=local, remote=remote):
                self._interface.peer_up(name, local, remote, self._outer_addresses())
                self._give_addresses(self._profile_of(traffic), traffic, remote)
            case Ipv6Up(local=local_identifier, remote=remote_identifier):
                self._addresses.set_interface_identifier(name, remote_identifier)
                self._interface.ipv6_up(name, local_identifier, remote_identifier)
            case SessionEnded():
                peer = self._profile_of(traffic)
                self._give_addresses(peer, traffic, peer.address)
                self._addresses.set_interface_identifier(name, None)
                self._interface.peer_down(name)
            case _:
                pass
        external = self._meetings.external if self._meetings is not None else None
        for told in self._stories[name].take(event, now(), external):
            self._reporter.report(told)
        if all(traffic.machine.state is PeerState.CLOSED for traffic in self._peers.values()):
            self._all_closed.set()


async def _forever(work: Awaitable[None]) -> Verdict:
    """A task that ends by being cancelled, or by raising."""
    try:
        await work
    except ExceptionGroup as group:
        raise group.exceptions[0] from group
    raise failure(VerdictKind.INTERNAL, "a task that never ends has ended")


async def _cancel(tasks: list[asyncio.Future[Verdict]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
