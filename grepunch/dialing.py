"""The patience of `dial`: how long it waits for the tunnel, what it runs when it is up, and when it gives up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from grepunch.io.clock import now
from grepunch.options import EndpointOptions
from grepunch.outcome import Attempt, explain
from grepunch.progress import Level, Notice, Reporter
from grepunch.story import Story
from grepunch.verdict import Verdict, VerdictKind

# ours: a verdict may come this much late
TICK = 0.1
# ours: what a command gets between SIGTERM and SIGKILL when the endpoint ends
COMMAND_GRACE = 2.0

# a wrong key stays wrong: another minute would not help
_FINAL = (VerdictKind.AUTH_FAILED, VerdictKind.NOT_AGREED)


class Dialing:
    """Watches one peer's story for the command line; made by the endpoint of `dial`."""

    def __init__(self, options: EndpointOptions, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._retries = 0

    async def watch(self, story: Story, attempt: Callable[[float], Attempt]) -> Verdict:
        """Wait until it is up, run the command, and return the verdict when it is over.

        ``attempt`` gives what is known after so many seconds.
        """
        began, was_up = now(), False
        command: asyncio.Task[int] | None = None
        try:
            while True:
                await asyncio.sleep(TICK)
                if story.up:
                    began, was_up, self._retries = now(), True, 0
                    if self._options.command and command is None:
                        command = asyncio.create_task(_run(self._options.command))
                if command is not None and command.done():
                    return Verdict(VerdictKind.UP, command_status=command.result())
                verdict = self._judge(now() - began, was_up, attempt)
                if verdict is None:
                    continue
                if not self._try_again(verdict):
                    return verdict
                began = now()
        finally:
            if command is not None and not command.done():
                command.cancel()
                await asyncio.gather(command, return_exceptions=True)

    def _judge(self, waited: float, was_up: bool, attempt: Callable[[float], Attempt]) -> Verdict | None:
        """The verdict that is due, or None."""
        known = attempt(waited)
        final = bool(known.authentication_failed or known.link_error)
        over = waited >= self._options.wait
        hopeless = known.next_round_in is not None and waited + known.next_round_in >= self._options.wait
        if not (final or over or (hopeless and not was_up)):
            return None
        verdict = explain(known)
        if was_up and not final:
            return Verdict(VerdictKind.LINK_LOST, f"down for {waited:.0f} s; {verdict.kind}: {verdict.detail}")
        return verdict

    def _try_again(self, verdict: Verdict) -> bool:
        if verdict.kind in _FINAL:
            return False
        if self._options.retry is not None and self._retries >= self._options.retry:
            return False
        self._retries += 1
        self._reporter.report(Notice(f"{verdict.kind}: {verdict.detail}; trying again", Level.WARNING))
        return True


async def _run(command: tuple[str, ...]) -> int:
    """Run the user's command to its end; its exit status as a shell would give it."""
    try:
        process = await asyncio.create_subprocess_exec(*command)
    except FileNotFoundError:
        return 127
    except PermissionError:
        return 126
    try:
        status = await process.wait()
        return status if status >= 0 else 128 - status
    except asyncio.CancelledError:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), COMMAND_GRACE)
        except TimeoutError:
            process.kill()
        raise
