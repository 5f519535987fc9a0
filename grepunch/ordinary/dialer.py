"""Ordinary PPTP dialled: one server, one call, one device; again after a failure, where that is wanted."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from grepunch.command import run_command
from grepunch.config import Profile, secret_variables
from grepunch.interface import host_verdicts
from grepunch.io.callgre import CallGre
from grepunch.io.clock import entropy, now
from grepunch.io.engine.rounds import Rounds
from grepunch.io.hostnet import has_ipv6, resolvers
from grepunch.io.packetloop import serve
from grepunch.io.streams import ConnectFailed, Stream, connect
from grepunch.options import EndpointOptions
from grepunch.ordinary.calls import Call, CallPump, CallTable
from grepunch.ordinary.connection import Connection
from grepunch.ordinary.interface import CallInterface
from grepunch.ordinary.outcome import verdict_of_call
from grepunch.ordinary.reporting import CallStories, session_status
from grepunch.ordinary.terms import device_mtu, dialling_terms, encryption_word, is_unset, link_local, warning
from grepunch.progress import Level, Notice, Reporter, SessionDown, SessionUp, StateChanged
from grepunch.recording import Recording
from grepunch.status import LastError, OrdinaryStatus, SessionStatus, Stage, Status, by_cause
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

# ours
CONNECT_WAIT = 15.0  # seconds for TCP to come up
GOODBYE = 1.5  # seconds for the goodbye at the end
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two attempts: doubled each time, less up to a fifth

# a wrong password stays wrong; but whoever stands in between can make any password look wrong, so that who retries
# for ever asks again, ever more rarely; seconds
_FINAL = (VerdictKind.AUTH_FAILED, VerdictKind.NOT_AGREED)
_PATIENCE = (5.0, 300.0)


@dataclass(slots=True)
class _Held:
    """What the call that is up has made on this host."""

    routes: tuple[IPv4Network, ...] = ()
    identifier: bytes | None = None


@dataclass(slots=True)
class _Attempt:
    """One connection, from TCP to its end."""

    up: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    was_up: bool = False
    cause: Terminated | None = None


class OrdinaryDialer:
    """See the module."""

    def __init__(
        self, profile: Profile, password: str, options: EndpointOptions, reporter: Reporter, recording: Recording
    ) -> None:
        """Raises :class:`Failure` where the host lacks a cipher that the profile wants."""
        if profile.server is None:
            raise ValueError("a profile without [server]")
        self._profile = profile
        self._server = profile.server
        self._options = options
        self._reporter = reporter
        self._recording = recording
        self.ready = False
        self._stop_serving: Callable[[], None] | None = None
        self._hidden = secret_variables(profile)
        self._config = dialling_terms(profile, password, ipv6=has_ipv6())
        self._interface = CallInterface(profile)
        self._stories = CallStories(reporter)
        self._connection: Connection | None = None
        self._attempt = _Attempt()
        self._held = _Held()
        self._stage, self._stage_since = Stage.STARTING, now()
        self._last_error: tuple[Stage, str, float] | None = None
        self._fault: Failure | None = None

    # -- life -------------------------------------------------------------------------------------------------

    async def run(self) -> Verdict:
        """Open everything, dial until there is a verdict, close everything."""
        async with AsyncExitStack() as stack:
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
                asks_us=lambda call, packet: None,
                now=now,
            )
            readers = {gre.fileno(): self._pump.gre_readable, device.fileno(): self._pump.tun_readable}
            rounds = Rounds(readers)
            stack.callback(rounds.close)
            self._stop_serving = serve(rounds)
            stack.callback(self.stop_reading)
            stack.push_async_callback(self._say_goodbye)
            gc.freeze()  # what the start has made stays: no collection need look at it again
            self.ready = True
            stack.callback(setattr, self, "ready", False)
            self._reporter.report(Notice(warning(self._profile), Level.WARNING))
            return await self._dial()

    async def _dial(self) -> Verdict:
        """Attempt after attempt, and the user's command once one is up."""
        retries, pause = 0, FIRST_PAUSE
        command: asyncio.Task[int] | None = None
        try:
            while True:
                attempt = self._attempt = _Attempt()
                verdict = await self._until_up(attempt)
                if verdict is None:
                    retries, pause = 0, FIRST_PAUSE
                    if self._options.command and command is None:
                        command = asyncio.create_task(run_command(self._options.command, self._hidden))
                    if await _first(attempt.over, command):
                        return Verdict(VerdictKind.UP, command_status=command.result() if command else None)
                    verdict = self._verdict(attempt)
                self._remember(verdict)
                await self._say_goodbye()
                if self._fault is not None:
                    raise self._fault
                if not self._may_retry(verdict, retries):
                    return verdict
                retries += 1
                shortest, longest = _PATIENCE if verdict.kind in _FINAL else (FIRST_PAUSE, LONGEST_PAUSE)
                pause = max(pause, shortest)
                delay = pause * (1 - entropy(1)[0] / 1280)
                text = f"{verdict.kind}: {verdict.detail}; trying again in {duration(delay)}"
                self._reporter.report(Notice(text, Level.WARNING))
                if command is not None:
                    await asyncio.wait((command,), timeout=delay)
                    if command.done():
                        return Verdict(VerdictKind.UP, command_status=command.result())
                else:
                    await asyncio.sleep(delay)
                pause = min(2 * pause, longest)
        finally:
            if command is not None:
                command.cancel()
                await asyncio.gather(command, return_exceptions=True)

    def _may_retry(self, verdict: Verdict, retries: int) -> bool:
        wanted = self._options.retry
        if verdict.kind in _FINAL:
            return wanted is None and verdict.kind is VerdictKind.AUTH_FAILED
        return wanted is None or retries < wanted

    async def _until_up(self, attempt: _Attempt) -> Verdict | None:
        """One attempt; None once packets can flow, else the verdict."""
        self._enter(Stage.STARTING, f"{self._server.host}, TCP {self._server.port}")
        deadline = now() + self._options.wait
        try:
            await connect(
                self._server.host, self._server.port, self._opened, within=min(CONNECT_WAIT, self._options.wait)
            )
        except ConnectFailed as failed:
            advice = "Check server.host and server.port, and that no firewall on the way blocks TCP 1723."
            return Verdict(VerdictKind.PEER_ABSENT, str(failed), advice)
        try:
            async with asyncio.timeout(max(0.0, deadline - now())):
                await _either(attempt.up, attempt.over)
        except TimeoutError:
            return Verdict(VerdictKind.PEER_ABSENT, f"not up within {self._options.wait:.0f} s, in stage {self._stage}")
        return None if attempt.up.is_set() else self._verdict(attempt)

    def _opened(self, stream: Stream) -> Connection | None:
        remote = stream.ends.remote
        inside = next((route for route in self._profile.interface.routes if remote in route), None)
        if inside is not None:
            text = f"{self._server.host} is {remote}, which the route to {inside} would lead into its own tunnel"
            self._fault = failure(VerdictKind.PROFILE_INVALID, text, "Change interface.routes.")
            self._attempt.over.set()
            return None
        self._connection = Connection(stream, self._config, self._table, self)
        asyncio.get_running_loop().call_soon(self._connection.open)
        return self._connection

    def _verdict(self, attempt: _Attempt) -> Verdict:
        cause = attempt.cause or Terminated(TerminationCause.LOST_CARRIER, "TCP ended")
        return verdict_of_call(cause, was_up=attempt.was_up)

    def _remember(self, verdict: Verdict) -> None:
        self._last_error = self._stage, f"{verdict.kind}: {verdict.detail}", now()
        self._enter(Stage.LOST if self._attempt.was_up else Stage.STARTING, quiet=True)

    def _enter(self, stage: Stage, detail: str = "", *, quiet: bool = False) -> None:
        self._stage, self._stage_since = stage, now()
        if not quiet:
            self._reporter.report(StateChanged(stage, self._server.host, detail))

    async def _say_goodbye(self) -> None:
        """End what there is, and give the server a moment to hear."""
        connection = self._connection
        if connection is None:
            return
        connection.close()
        try:
            async with asyncio.timeout(GOODBYE):
                await self._attempt.over.wait()
        except TimeoutError:
            pass  # a server that does not answer is cut off
        connection.stream.abort()
        connection.stream_closed("")

    # -- the connection's owner -----------------------------------------------------------------------------------

    def admit(self, connection: Connection, call_id: int, user: str) -> Admission | Terminated:
        """Nobody asks a dialler."""
        raise AssertionError("a dialler admits nobody")

    def deliver(self, call: Call, protocol: int, packet: bytes | memoryview) -> None:
        """A packet that has waited for another one."""
        self._pump.deliver(call, protocol, bytes(packet), now())

    def connection_lost(self, connection: Connection) -> None:
        """TCP is gone."""
        if self._connection is connection:
            self._connection = None
        self._attempt.over.set()

    def happened(self, connection: Connection, event: OrdinaryEvent) -> None:
        """An event of the connection."""
        match event:
            case CallUp(call_id=call_id):
                self._enter(Stage.LINK, f"call {call_id} is established; PPP begins")
            case Authenticated(call_id=call_id, user=user, method=method):
                call = self._table.calls[call_id]
                call.user, call.method = user, method
            case EncryptionUp(call_id=call_id, send=send, receive=receive):
                self._table.calls[call_id].encryption = encryption_word(send, receive)
            case EncryptionDown(call_id=call_id):
                self._table.calls[call_id].encryption = "none"
            case Ipv4Up():
                self._guarded(lambda: self._ipv4_up(self._table.calls[event.call_id], event))
            case Ipv6Up():
                self._guarded(lambda: self._ipv6_up(self._table.calls[event.call_id], event))
            case NetworkDown(protocol=PppProtocol.IPV4):
                self._guarded(self._give_back_ipv4)
            case NetworkDown():
                self._guarded(self._give_back_ipv6)
            case CallOver(call_id=call_id, cause=cause):
                self._call_over(self._table.calls[call_id], cause)
            case Noted(sentence=sentence):
                self._stories.noted(connection.source, sentence, now())
            case Terminated():
                self._attempt.cause = self._attempt.cause or event
                self._attempt.over.set()
            case _:
                pass

    def _guarded(self, change: Callable[[], None]) -> None:
        """A change to this host that it may refuse: then the call ends, and the refusal is the verdict."""
        try:
            change()
        except Failure as refused:
            self._fault = refused
            self._attempt.over.set()

    def _ipv4_up(self, call: Call, event: Ipv4Up) -> None:
        call.remote, call.local = event.remote, event.local
        call.mtu = min(event.mtu, device_mtu(self._profile))
        self._interface.set_mtu(call.mtu)
        self._interface.set_address(event.local)
        routes = (*own_route(event.remote, call.connection.source, self._profile), *self._profile.interface.routes)
        if routes != self._held.routes:
            self._interface.remove_routes(self._held.routes)
            self._held.routes = routes
            self._interface.add_routes(routes)
        if call.up_since is not None:
            return
        call.up_since = call.heard = now()
        self._attempt.was_up = True
        self._enter(Stage.UP, quiet=True)
        call.tap = self._recording.inside(event.local, event.remote, initiator=True)
        self._reporter.report(
            SessionUp(
                peer=self._server.host,
                source=call.connection.source,
                address=event.remote,
                own_address=event.local,
                elapsed=call.up_since - call.connection.began,
                mtu=call.mtu,
                authentication=call.method,
                encryption=call.encryption,
                ipv6=call.ipv6,
                dns=event.dns,
            )
        )
        self._attempt.up.set()

    def _ipv6_up(self, call: Call, event: Ipv6Up) -> None:
        call.ipv6, call.local_v6 = True, link_local(event.local)
        call.mtu = call.mtu or min(event.mtu, device_mtu(self._profile))
        self._table.route(call, link_local(event.remote))
        if self._held.identifier is None:
            self._held.identifier = event.local
            self._interface.add_identifier(event.local)

    def _give_back_ipv4(self) -> None:
        """Take from this host the address and the routes that the call has made."""
        routes, self._held.routes = self._held.routes, ()
        self._interface.remove_routes(routes)
        self._interface.set_address(None)

    def _give_back_ipv6(self) -> None:
        """Take the link-local address."""
        identifier, self._held.identifier = self._held.identifier, None
        if identifier is not None:
            self._interface.remove_identifier(identifier)

    def _call_over(self, call: Call, cause: Terminated) -> None:
        strays = self._pump.take_strays(call.call_id)
        if cause.cause is TerminationCause.NO_GRE:
            cause = Terminated(cause.cause, cause.detail + strays)
        self._attempt.cause = cause
        self._guarded(self._give_back_ipv4)
        self._guarded(self._give_back_ipv6)
        if call.up_since is not None:
            self._reporter.report(
                SessionDown(
                    peer=self._server.host,
                    source=call.connection.source,
                    cause=str(cause.cause),
                    detail=cause.detail,
                    duration=now() - call.up_since,
                )
            )

    # -- for status ---------------------------------------------------------------------------------------------

    def describe(self, status: Status) -> Status:
        """The dialler as `status` shows it."""
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
            sessions=(self._session(at),),
        )

    def _session(self, at: float) -> SessionStatus:
        error = self._last_error
        last = LastError(error[0], error[1], at - error[2]) if error is not None else None
        for call in self._table.calls.values():
            return replace(session_status(call, at), name=self._server.host, last_error=last)
        return SessionStatus(self._server.host, self._stage, at - self._stage_since, last_error=last)

    def _drops(self) -> Counter[str]:
        """Packets that belong to no call, by cause."""
        return by_cause(self._table.gre.drops, self._interface.device.drops, self._pump.drops)


def own_route(inside: IPv4Address, outside: IPv4Address, profile: Profile) -> tuple[IPv4Network, ...]:
    """The route to the server's address inside, where it needs one and may have one.

    Some servers call themselves inside by their address outside, and a route to that would lead the tunnel into
    itself. And no server is to choose the address of somebody else, whose packets it then would get: neither a public
    one, nor that of a name server which this host asks.
    """
    if inside in resolvers():
        return ()
    address = profile.interface.address
    covered = address is not None and inside in address.network
    return () if is_unset(inside) or covered or inside == outside or inside.is_global else (IPv4Network(inside),)


async def _either(*events: asyncio.Event) -> None:
    """Wait for the first of several events."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _first(over: asyncio.Event, command: asyncio.Task[int] | None) -> bool:
    """Wait for the end of the call or of the command; whether it was the command's."""
    waiting = asyncio.ensure_future(over.wait())
    try:
        await asyncio.wait([waiting, *([command] if command is not None else [])], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return command is not None and command.done()
