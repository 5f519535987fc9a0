"""Ordinary PPTP served: whoever connects to TCP 1723 and proves a password gets an address on one device.

Owns the listeners, the connections, the address pool and the device; ends when it is cancelled, and puts everything
back. Nothing is said to anybody before the protocol says so, and every end is told with the number a Windows client
shows for it.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from grepunch.config import Profile, users_file
from grepunch.entrance import Entrance
from grepunch.interface import host_verdicts
from grepunch.io.callgre import CallGre
from grepunch.io.clock import entropy, now
from grepunch.io.engine.rounds import Rounds
from grepunch.io.errors import HostError
from grepunch.io.hostnet import forwards_ipv4, has_ipv6
from grepunch.io.limits import raise_descriptor_limit
from grepunch.io.packetloop import serve
from grepunch.io.streams import Stream, listen
from grepunch.ordinary.admission import Admission as Book
from grepunch.ordinary.admission import Limits, Refusal
from grepunch.ordinary.calls import Call, CallPump, CallTable
from grepunch.ordinary.connection import Connection
from grepunch.ordinary.dhcpinform import Answers, build_answer, looks_like_dhcp, parse_inform
from grepunch.ordinary.interface import CallInterface
from grepunch.ordinary.outcome import LIMIT_REACHED, POOL_EXHAUSTED, windows_error
from grepunch.ordinary.pool import AddressPool
from grepunch.ordinary.reporting import CallStories, connection_error, session_status
from grepunch.ordinary.terms import (
    encryption_word,
    link_local,
    methods,
    own_address,
    random_identifier,
    serving_terms,
    warning,
)
from grepunch.ordinary.users import UserDirectory, UsersInvalid
from grepunch.progress import Level, Notice, Reporter, SessionDown, SessionUp, StateChanged
from grepunch.recording import Recording
from grepunch.status import OrdinaryStatus, Stage, Status, by_cause
from grepunch.text import duration
from grepunch.verdict import Failure, Verdict, VerdictKind, failure
from pptp.control import Noted
from pptp.errors import Terminated, TerminationCause
from pptp.ordinary import (
    Admission,
    Authenticated,
    CallOver,
    CallUp,
    EncryptionDown,
    EncryptionUp,
    Ipv4Up,
    Ipv6Up,
    NetworkDown,
    OrdinaryEvent,
)
from pptp.wire.ppp import Protocol as PppProtocol

EventT = TypeVar("EventT")

# ours
GOODBYE = 1.5  # seconds for the goodbyes at the end
SWEEP = 1.0  # seconds between two looks at idle and long sessions
CALLS_IN_VAIN = 8  # one after the other, of one connection; whoever wants more has to connect again, which is counted
_DESCRIPTORS_BESIDE = 128  # of everything else in this process


@dataclass(slots=True)
class _Session:
    """What a call holds of the server beside its packets: to be given back exactly once."""

    call: Call
    address: IPv4Address | None = None
    routes: tuple[IPv4Network, ...] = ()
    identifier: bytes | None = None


class OrdinaryServer:
    """See the module."""

    def __init__(
        self, profile: Profile, reporter: Reporter, recording: Recording, entrance: Entrance | None = None
    ) -> None:
        """``entrance`` gets the calls of punched peers that come in here.

        Raises :class:`Failure` where the users cannot be read or the host lacks a cipher.
        """
        if profile.listen is None:
            raise ValueError("a profile without [listen]")
        self._profile = profile
        self._listen = profile.listen
        self._reporter = reporter
        self._recording = recording
        self._entrance = entrance
        self.ready = False
        self._stop_serving: Callable[[], None] | None = None
        try:
            self._users = UserDirectory(users_file(profile))
        except UsersInvalid as invalid:
            raise failure(VerdictKind.PROFILE_INVALID, str(invalid), "See `grepunch-pptp user --help`.") from None
        self._own = own_address(profile)
        pool = profile.interface.pool
        self._pool = AddressPool(pool or self._own.network, self._own.ip)
        self._identifier = random_identifier(entropy(8))
        self._config = serving_terms(profile, self._users.credential, self._identifier, ipv6=has_ipv6())
        limits = Limits(self._listen.max_sessions, self._listen.max_sessions_per_source, profile.auth.session_policy)
        self._book: Book[Call] = Book(limits)
        self._answers = Answers(
            self._own.ip,
            profile.interface.dns,
            profile.interface.wins,
            profile.interface.domain,
            profile.interface.push_routes,
        )
        self._interface = CallInterface(profile)
        self._connections: set[Connection] = set()
        self._sessions: dict[int, _Session] = {}
        self._stories = CallStories(reporter)
        self._all_gone = asyncio.Event()

    # -- life -------------------------------------------------------------------------------------------------

    async def run(self) -> Verdict:
        """Open everything, serve until cancelled, close everything."""
        async with AsyncExitStack() as stack:
            self._check_descriptors()
            with host_verdicts():
                gre = CallGre(self._recording.wire_tap)
            stack.callback(gre.close)
            stack.enter_context(self._interface)
            self._table = CallTable(gre, entropy)
            device = self._interface.device
            self._pump = CallPump(
                self._table,
                device,
                mss_clamp=self._profile.interface.mss_clamp,
                asks_us=self._answer_inform,
                now=now,
            )
            readers = {gre.fileno(): self._pump.gre_readable, device.fileno(): self._pump.tun_readable}
            rounds = Rounds(readers)
            stack.callback(rounds.close)
            self._stop_serving = serve(rounds)
            stack.callback(self.stop_reading)
            stack.push_async_callback(self._say_goodbye)  # which needs the readers: clients answer it
            for listener in self._listen.tcp:
                with host_verdicts():
                    # mirrored handshakes with punched peers begin at port 1723
                    shared = bool(self._profile.peers)
                    server = await listen(listener.address, listener.port, self._accept, shared=shared)
                stack.callback(server.close)
            gc.freeze()  # what the start has made stays: no collection need look at it again
            self.ready = True
            stack.callback(setattr, self, "ready", False)
            self._report_start()
            while True:
                await asyncio.sleep(SWEEP)
                self._sweep()

    def _check_descriptors(self) -> None:
        needed = self._listen.max_sessions + _DESCRIPTORS_BESIDE
        limit = raise_descriptor_limit(needed)
        if limit < needed:
            text = f"only {limit} descriptors: about {max(0, limit - _DESCRIPTORS_BESIDE)} sessions will fit"
            self._reporter.report(Notice(f"{text} (raise LimitNOFILE, or `ulimit -n`)", Level.WARNING))

    def _report_start(self) -> None:
        where = ", ".join(str(listener) for listener in self._listen.tcp)
        words = ", ".join(str(method) for method in methods(self._profile))
        detail = f"{self._interface.device.name}, TCP {where}, {words}, {self._pool.size} addresses"
        self._reporter.report(StateChanged(Stage.WAITING, detail=detail))
        self._reporter.report(Notice(warning(self._profile), Level.WARNING))
        if not forwards_ipv4():
            text = (
                "IPv4 forwarding is off: clients reach this host and nothing behind it (sysctl net.ipv4.ip_forward=1)"
            )
            self._reporter.report(Notice(text))
        if not self._users.users:
            self._reporter.report(Notice("there are no users yet: `grepunch-pptp user add`", Level.WARNING))

    async def _say_goodbye(self) -> None:
        """Tell every client, and give it a moment to hear."""
        for connection in tuple(self._connections):
            connection.close()
        if self._connections:
            try:
                async with asyncio.timeout(GOODBYE):
                    await self._all_gone.wait()
            except TimeoutError:
                pass  # clients that do not answer are cut off
        for connection in tuple(self._connections):
            connection.stream.abort()
            connection.stream_closed("")

    def _sweep(self) -> None:
        """End what has been idle, or up, for too long."""
        at, idle, longest = now(), self._listen.idle_timeout, self._listen.session_timeout
        for session in tuple(self._sessions.values()):
            call = session.call
            if call.up_since is None:
                continue
            if longest is not None and at - call.up_since >= longest:
                self._end(call, f"listen.session_timeout: up for {duration(longest)}")
            elif idle is not None and at - max(call.heard, call.up_since) >= idle:
                self._end(call, f"listen.idle_timeout: nothing from the client for {duration(idle)}")

    def _end(self, call: Call, sentence: str) -> None:
        call.connection.close_call(call.call_id, Terminated(TerminationCause.TIMEOUT, sentence))

    # -- connections ------------------------------------------------------------------------------------------

    def _accept(self, stream: Stream) -> Connection | None:
        source = stream.ends.remote
        if self._entrance is not None and self._entrance.take(stream):
            return None
        refusal = self._book.connect(source, now())
        if refusal is not None:
            self._stories.refused(source, refusal.sentence, now())
            return None
        try:
            connection = Connection(stream, self._config, self._table, self)
        except HostError as error:  # the address it came to has just been taken from this host
            self._book.disconnect(source)
            self._reporter.report(Notice(f"{source} was turned away: {error}", Level.WARNING))
            return None
        self._connections.add(connection)
        self._all_gone.clear()
        complaint = self._users.refresh()
        if complaint is not None:
            self._reporter.report(Notice(complaint, Level.WARNING))
        asyncio.get_running_loop().call_soon(connection.open)
        return connection

    def connection_lost(self, connection: Connection) -> None:
        """A connection is over."""
        self._connections.discard(connection)
        self._book.disconnect(connection.source)
        if not self._connections:
            self._all_gone.set()

    def admit(self, connection: Connection, call_id: int, user: str) -> Admission | Terminated:
        """A user is authenticated: an address, or why there is none."""
        call = self._table.calls[call_id]
        verdict = self._book.admit(call_id, user, call)
        if isinstance(verdict, Refusal):
            return Terminated(TerminationCause.LIMIT_REACHED, f"{LIMIT_REACHED}{verdict.sentence}")
        for old in verdict.replaces:
            self._give_back(old)  # before the new session asks for the very address
            why = Terminated(TerminationCause.REPLACED, f"a newer session from {connection.source} took over")
            old.connection.close_call(old.call_id, why)
        address = self._pool.lease(user, self._users.reserved())
        if address is None:
            self._book.leave(call_id)
            text = f"{POOL_EXHAUSTED}all {self._pool.size} addresses of interface.pool are taken"
            return Terminated(TerminationCause.POOL_EXHAUSTED, text)
        self._sessions[call_id] = _Session(call, address)
        call.local, call.remote = self._own.ip, address
        return Admission(self._own.ip, address, self._profile.interface.dns, self._profile.interface.wins)

    def deliver(self, call: Call, protocol: int, packet: bytes | memoryview) -> None:
        """A packet that has waited for another one."""
        self._pump.deliver(call, protocol, bytes(packet), now())

    # -- what calls say -----------------------------------------------------------------------------------------

    def happened(self, connection: Connection, event: OrdinaryEvent) -> None:
        """An event of a connection."""
        match event:
            case CallUp(call_id=call_id):
                self._table.calls[call_id].sources = set()  # it may send from what it is given, and has nothing yet
                self._stories.began(self._table.calls[call_id], now())
                barred = self._book.barred(connection.source, now())
                if barred is not None:
                    connection.close_call(call_id, Terminated(TerminationCause.DENIED, barred.sentence))
            case Authenticated(call_id=call_id, user=user, method=method):
                call = self._table.calls[call_id]
                call.user, call.method = user, method
                connection.calls_in_vain = 0
            case EncryptionUp(call_id=call_id, send=send, receive=receive):
                self._table.calls[call_id].encryption = encryption_word(send, receive)
            case EncryptionDown(call_id=call_id):
                self._table.calls[call_id].encryption = "none"
            case Ipv4Up():
                self._guarded(self._ipv4_up, self._table.calls[event.call_id], event)
            case Ipv6Up():
                self._guarded(self._ipv6_up, self._table.calls[event.call_id], event)
            case NetworkDown(call_id=call_id, protocol=protocol):
                self._table.unroute(self._table.calls[call_id], 4 if protocol == PppProtocol.IPV4 else 16)
            case CallOver(call_id=call_id, cause=cause):
                self._call_over(self._table.calls[call_id], cause)
            case Noted(sentence=sentence):
                self._stories.noted(connection.source, sentence, now())
            case Terminated():
                self._connection_ended(connection, event)
            case _:
                pass

    def _guarded(self, change: Callable[[Call, EventT], None], call: Call, event: EventT) -> None:
        """A change to this host that it may refuse: that ends the one call it was for."""
        try:
            change(call, event)
        except Failure as refused:
            self._reporter.report(Notice(f"{call.user}: {refused}", Level.WARNING))
            call.connection.close_call(call.call_id, Terminated(TerminationCause.REFUSED, str(refused)))

    def _ipv4_up(self, call: Call, event: Ipv4Up) -> None:
        session = self._sessions.get(call.call_id)
        if session is None:  # replaced meanwhile
            return
        call.remote, call.local = event.remote, event.local
        call.mtu = min(event.mtu, self._interface.mtu)
        self._table.route(call, event.remote.packed)
        if not session.routes and not any(event.remote in network for network in self._interface.networks):
            session.routes = (IPv4Network(event.remote),)
            self._interface.add_routes(session.routes)
        if call.up_since is None:
            call.up_since = call.heard = now()
            self._reporter.report(
                SessionUp(
                    peer=call.user,
                    source=call.connection.source,
                    address=event.remote,
                    own_address=event.local,
                    elapsed=call.up_since - call.connection.began,
                    mtu=call.mtu,
                    authentication=call.method,
                    encryption=call.encryption,
                    ipv6=call.ipv6,
                )
            )
            call.tap = self._recording.inside(event.local, event.remote, initiator=False)

    def _ipv6_up(self, call: Call, event: Ipv6Up) -> None:
        session = self._sessions.get(call.call_id)
        if session is None:
            return
        theirs = link_local(event.remote)
        if self._table.by_address.get(theirs, call) is not call:
            # clients choose their identifiers, and one that chose another's would get its packets
            self._stories.noted(call.connection.source, f"{call.user} asks for another client's IPv6 address", now())
            return
        call.ipv6, call.local_v6 = True, link_local(event.local)
        call.mtu = call.mtu or min(event.mtu, self._interface.mtu)
        self._table.route(call, theirs)
        if session.identifier is None:
            session.identifier = event.local
            self._interface.add_identifier(event.local)

    def _call_over(self, call: Call, cause: Terminated) -> None:
        if cause.cause is TerminationCause.AUTHENTICATION:
            self._book.failed(call.connection.source, now())
        self._book.leave(call.call_id)
        self._give_back(call)
        was_up = call.up_since is not None
        strays = self._pump.take_strays(call.call_id)
        detail = cause.detail + (strays if cause.cause is TerminationCause.NO_GRE else "")
        ended = SessionDown(
            peer=call.user or str(call.connection.source),
            source=call.connection.source,
            cause=str(cause.cause),
            detail=detail,
            was_up=was_up,
            windows_error=windows_error(cause, was_up=was_up),
            duration=now() - call.up_since if call.up_since is not None else None,
        )
        self._stories.ended(ended, now(), stranger=not call.user)
        if not call.user:
            self._in_vain(call.connection)

    def _in_vain(self, connection: Connection) -> None:
        """A call has ended and nobody was authenticated: that does not go on for ever on one connection."""
        connection.calls_in_vain += 1
        known = any(call.user for call in self._table.calls.values() if call.connection is connection)
        if connection.calls_in_vain >= CALLS_IN_VAIN and not known:
            sentence = f"{CALLS_IN_VAIN} calls on one connection, and nobody authenticated"
            self._stories.refused(connection.source, sentence, now())
            connection.close(Terminated(TerminationCause.DENIED, sentence))

    def _give_back(self, call: Call) -> None:
        """Return what a call holds; harmless for one that holds nothing."""
        self._table.unroute(call)
        session = self._sessions.pop(call.call_id, None)
        if session is None:
            return
        if session.address is not None:
            self._pool.release(session.address)
        if session.routes:
            self._interface.remove_routes(session.routes)
        if session.identifier is not None:
            self._interface.remove_identifier(session.identifier)

    def _connection_ended(self, connection: Connection, end: Terminated) -> None:
        sentence = connection_error(end)
        if sentence is not None and not connection.had_call:
            self._stories.noted(connection.source, sentence, now())

    def _answer_inform(self, call: Call, packet: bytes) -> bytes | None:
        """The answer to DHCPINFORM; None for every other packet."""
        if not looks_like_dhcp(packet) or call.remote is None:
            return None
        inform = parse_inform(packet, call.remote)
        return build_answer(inform, self._answers) if inform is not None else None

    # -- for status ---------------------------------------------------------------------------------------------

    def describe(self, status: Status) -> Status:
        """The server as `status` shows it."""
        return replace(status, ordinary=self._status(now()), drops=Counter(status.drops) + self._drops())

    def stop_reading(self) -> None:
        """Read no more packets."""
        if self._stop_serving is not None:
            self._stop_serving()
            self._stop_serving = None

    def _status(self, at: float) -> OrdinaryStatus:
        return OrdinaryStatus(
            interface=self._interface.device.name,
            allowed=tuple(str(weakness) for weakness in self._profile.legacy.allow),
            mppe=str(self._profile.legacy.policy),
            address=self._own,
            listening=tuple(str(listener) for listener in self._listen.tcp),
            connections=self._book.connections,
            pool_size=self._pool.size,
            pool_leased=len(self._pool.leases),
            sessions=tuple(session_status(call, at) for call in tuple(self._table.calls.values())),
        )

    def _drops(self) -> Counter[str]:
        """Packets that belong to no call, by cause."""
        return by_cause(self._table.gre.drops, self._interface.device.drops, self._pump.drops)
