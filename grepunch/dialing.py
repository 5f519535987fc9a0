"""The patience of `dial`: how long it waits for the tunnel, what it runs when it is up, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from grepunch.command import run_command
from grepunch.io import clock
from grepunch.options import EndpointOptions
from grepunch.outcome import Attempt, explain
from grepunch.progress import Level, Notice, Reporter
from grepunch.story import Story
from grepunch.verdict import Verdict, VerdictKind

# ours: a verdict may come this much late; while the tunnel is up nothing is waited for but its loss
TICK = 0.1
TICK_WHILE_UP = 1.0

# a wrong key stays wrong: another minute would not help
_FINAL = (VerdictKind.AUTH_FAILED, VerdictKind.NOT_AGREED)
# ours: but whoever stands in between can make any key look wrong, so that who retries for ever asks again, ever more
# rarely; seconds
_PATIENCE = (5.0, 300.0)


class Dialing:
    """Watches one peer's story for the command line; made by the endpoint of `dial`."""

    def __init__(
        self,
        options: EndpointOptions,
        reporter: Reporter,
        *,
        hidden: Collection[str] = (),
        now: Callable[[], float] = clock.now,
    ) -> None:
        """``hidden``: environment variables that the command is not to see."""
        self._options = options
        self._hidden = hidden
        self._reporter = reporter
        self._now = now
        self._retries = 0
        self._patience, self._longest = _PATIENCE

    async def watch(self, story: Story, attempt: Callable[[float], Attempt]) -> Verdict:
        """Wait until it is up, run the command, and return the verdict when it is over.

        ``attempt`` gives what is known after so many seconds.
        """
        began, was_up = self._now(), False
        command: asyncio.Task[int] | None = None
        try:
            while True:
                await _pause(TICK_WHILE_UP if story.up else TICK, command)
                if command is not None and command.done():
                    return Verdict(VerdictKind.UP, command_status=command.result())
                if story.up:
                    began, was_up, self._retries = self._now(), True, 0
                    self._patience = _PATIENCE[0]
                    if self._options.command and command is None:
                        command = asyncio.create_task(run_command(self._options.command, self._hidden))
                    continue
                if self._now() < began:  # a handshake that failed is given time
                    continue
                verdict = self._judge(attempt(self._now() - began), was_up=was_up)
                if verdict is None:
                    continue
                if not self._try_again(verdict):
                    return verdict
                began = self._now()
                if verdict.kind is VerdictKind.AUTH_FAILED:
                    story.forgive()
                    began += self._patience
                    self._patience = min(2 * self._patience, self._longest)
        finally:
            if command is not None:
                command.cancel()
                await asyncio.gather(command, return_exceptions=True)

    def _judge(self, known: Attempt, *, was_up: bool) -> Verdict | None:
        """The verdict that is due, or None."""
        wait = self._options.wait
        final = bool(known.authentication_failed or known.link_error)
        hopeless = known.next_round_in is not None and known.waited + known.next_round_in >= wait and not was_up
        if not (final or hopeless or known.waited >= wait):
            return None
        verdict = explain(known)
        if was_up and not final:
            return Verdict(VerdictKind.LINK_LOST, f"down for {known.waited:.0f} s; {verdict.kind}: {verdict.detail}")
        return verdict

    def _try_again(self, verdict: Verdict) -> bool:
        forever = self._options.retry is None
        if verdict.kind in _FINAL and not (forever and verdict.kind is VerdictKind.AUTH_FAILED):
            return False
        if self._options.retry is not None and self._retries >= self._options.retry:
            return False
        self._retries += 1
        self._reporter.report(Notice(f"{verdict.kind}: {verdict.detail}; trying again", Level.WARNING))
        return True


async def _pause(seconds: float, command: asyncio.Task[int] | None) -> None:
    """Sleep, but not past the end of the command."""
    if command is None:
        await asyncio.sleep(seconds)
    else:
        await asyncio.wait((command,), timeout=seconds)
