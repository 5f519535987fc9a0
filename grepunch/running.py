"""One process, one profile, and the parts that it asks for: punched peers, ordinary clients, or a server to dial.

Every part opens what it needs itself, on a device of its own, and puts it back when it is cancelled. What they share
is here: the recording, the control socket, and the rule that the first verdict of any part ends all of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Protocol

from grepunch import __version__, interface
from grepunch.config import Profile, Secrets, read_secrets
from grepunch.control_socket import remove_leftover, serve_status
from grepunch.entrance import Entrance
from grepunch.io.clock import now
from grepunch.io.errors import HostError
from grepunch.options import Action, EndpointOptions, Role
from grepunch.progress import Level, Notice, Planned, Reporter
from grepunch.recording import Recording
from grepunch.runtime import ProfileLock
from grepunch.status import Status
from grepunch.verdict import Failure, Verdict, VerdictKind, failure

RECORDING_WATCH = 1.0  # seconds between two looks at the recording


class Part(Protocol):
    """Something that runs until it has a verdict or is cancelled."""

    @property
    def ready(self) -> bool:
        """Whether everything is open, so that it can be asked for its status."""

    async def run(self) -> Verdict:
        """Open, work, close. Raises :class:`Failure`."""

    def describe(self, status: Status) -> Status:
        """``status`` with what this part has to say."""

    def stop_reading(self) -> None:
        """A callback has failed: read no more packets, which might fail again and again."""


async def run_profile(profile: Profile, options: EndpointOptions, reporter: Reporter) -> Verdict:
    """Run a profile until it ends by itself or is cancelled; everything it made is gone when this returns.

    Raises :class:`Failure` for what stands in the way of starting.
    """
    _check_role(profile, options)
    if options.action is Action.DRY_RUN:
        for line in _planned(profile):
            reporter.report(Planned(line))
        return Verdict(VerdictKind.UP)
    secrets = read_secrets(profile) if options.action is Action.RUN else None  # cleaning up needs none
    obstacle = interface.obstacle()
    if obstacle is not None:
        return obstacle
    with ProfileLock(profile.name):
        removed = interface.clean_up(profile.name) + remove_leftover(profile.name)
        if secrets is None:
            return Verdict(VerdictKind.UP, "\n".join(f"removed: {what}" for what in removed) or "nothing was left")
        for what in removed:
            reporter.report(Notice(f"removed what a killed run had left: {what}", Level.WARNING))
        recording = Recording(options.capture, profile.interface.address)
        with recording:
            parts = _parts(profile, secrets, options, reporter, recording)
            return await _Run(profile, options.role, parts, recording, reporter).run()


def _planned(profile: Profile) -> list[str]:
    lines = interface.planned(profile) if profile.peers else []
    if profile.listen is not None or profile.server is not None:
        from grepunch.ordinary.interface import planned

        lines += planned(profile)
    return lines


def _parts(
    profile: Profile, secrets: Secrets, options: EndpointOptions, reporter: Reporter, recording: Recording
) -> list[Part]:
    """What the profile asks for. Each is imported where it is used: others start the faster for it."""
    parts: list[Part] = []
    entrance = Entrance.of(profile)
    if secrets.keys is not None:
        from grepunch.endpoint import Endpoint

        parts.append(Endpoint(profile, secrets.keys, options, reporter, recording, entrance))
    if profile.listen is not None:
        from grepunch.ordinary.server import OrdinaryServer

        parts.append(OrdinaryServer(profile, reporter, recording, entrance))
    if profile.server is not None:
        from grepunch.ordinary.dialer import OrdinaryDialer

        parts.append(OrdinaryDialer(profile, secrets.password, options, reporter, recording))
    return parts


def _check_role(profile: Profile, options: EndpointOptions) -> None:
    if options.role is Role.SERVE and profile.server is not None:
        text = f"{profile.name}: a profile with [server] is for dial"
        raise failure(VerdictKind.PROFILE_INVALID, text, f"Use `grepunch-pptp dial {profile.name}`.")
    if options.role is Role.DIAL and profile.server is None and (len(profile.peers) != 1 or profile.listen is not None):
        there = "there is a [listen]" if profile.listen is not None else f"there are {len(profile.peers)}"
        raise failure(
            VerdictKind.PROFILE_INVALID,
            f"{profile.name}: dial needs exactly one [[peer]] or a [server], and {there}",
            "Use one profile for each peer to dial; `serve` takes any number.",
        )


class _Run:
    """See :func:`run_profile`."""

    def __init__(
        self, profile: Profile, role: Role, parts: Sequence[Part], recording: Recording, reporter: Reporter
    ) -> None:
        self._profile = profile
        self._role = role
        self._parts = parts
        self._recording = recording
        self._reporter = reporter
        self._started = now()
        self._fault: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    async def run(self) -> Verdict:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._callback_failed)
        async with serve_status(self._profile.name, self.status):
            tasks = [loop.create_task(part.run()) for part in self._parts]
            watch = loop.create_task(self._watch_recording())
            try:
                done, _ = await asyncio.wait([self._fault, *tasks], return_when=asyncio.FIRST_COMPLETED)
                return (self._fault if self._fault in done else done.pop()).result()
            finally:
                await _end([watch, *tasks])

    def status(self) -> Status:
        """The process as `status` shows it."""
        status = Status(
            profile=self._profile.name,
            role=self._role,
            pid=os.getpid(),
            uptime=now() - self._started,
            version=__version__,
            interface=self._profile.interface.name,
            address=self._profile.interface.address,
        )
        for part in self._parts:
            if part.ready:
                status = part.describe(status)
        return status

    async def _watch_recording(self) -> None:
        """Say once that the recording has stopped."""
        while True:
            await asyncio.sleep(RECORDING_WATCH)
            if self._recording.stopped:
                self._reporter.report(Notice(self._recording.stopped, Level.WARNING))
                return

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback raised ends everything with a verdict; the loop would only print it, again and again."""
        error = context.get("exception")
        if error is None or "transport" in context or "socket" in context:  # a connection's trouble, not ours
            self._reporter.report(Notice(f"{context['message']}: {error}", Level.WARNING))
        elif not self._fault.done():
            self._fault.set_exception(Failure(interface.verdict_of(error)) if isinstance(error, HostError) else error)
            for part in self._parts:
                part.stop_reading()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their goodbyes; cancelled once more, they say none."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
