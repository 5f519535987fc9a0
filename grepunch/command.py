"""The user's command that `dial --exec` runs once it is up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from contextlib import suppress

# ours: what a command gets between SIGTERM and SIGKILL when the endpoint ends
COMMAND_GRACE = 2.0

# what a shell says of a command that it does not find, or cannot run
NOT_FOUND, NOT_EXECUTABLE = 127, 126


async def run_command(command: tuple[str, ...], hidden: Collection[str]) -> int:
    """Run the user's command to its end, without the ``hidden`` environment variables; its exit status as a shell's.

    Cancelled, it ends the command: SIGTERM, and SIGKILL where that is not heard.
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except FileNotFoundError:
        return NOT_FOUND
    except OSError:
        return NOT_EXECUTABLE
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):  # it has just ended
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), COMMAND_GRACE)
        except TimeoutError:
            process.kill()
            await process.wait()
        raise
    return status if status >= 0 else 128 - status
