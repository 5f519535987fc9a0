"""One process, one profile, and the parts that it asks for: punched peers, ordinary clients, or a server to dial.

Every part opens what it needs itself, on a device of its own, and puts it back when it is cancelled. What they share
is here: the recording, the control socket, and the rule that the first verdict of any part ends all of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from grepunch import __version__
from grepunch.config import Profile
from grepunch.control_socket import serve_status
from grepunch.interface import verdict_of
from grepunch.io.clock import now
from grepunch.io.errors import HostError
from grepunch.options import Role
from grepunch.progress import Level, Notice, Reporter
from grepunch.recording import Recording
from grepunch.status import Status
from grepunch.verdict import Failure, Verdict

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


async def run_parts(
    profile: Profile,
    role: Role,
    make_parts: Callable[[Recording], Sequence[Part]],
    recording: Recording,
    reporter: Reporter,
) -> Verdict:
    """Run all parts; the first verdict is the verdict. The caller holds the profile's lock."""
    with recording:
        return await _Run(profile, role, make_parts(recording), recording, reporter).run()


class _Run:
    """See :func:`run_parts`."""

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
            self._fault.set_exception(Failure(verdict_of(error)) if isinstance(error, HostError) else error)
            for part in self._parts:
                part.stop_reading()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait for their goodbyes; cancelled once more, they say none."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
