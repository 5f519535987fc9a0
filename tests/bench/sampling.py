"""Where a process spends its processor time, by function and line, and how much of it in the kernel.

A timer of the process' own processor time interrupts it, and the line that it is on is counted: once where it stands,
and once for every function above. A system call or a call into a library counts for the line that made it, as Python
learns of the signal when the call is over. It costs a few microseconds per sample, and there are some hundred samples
in a second of processor time (the kernel's tick bounds them), so it measures what runs without it. Kernel and user time
are the kernel's own count of the process.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Self

INTERVAL = 0.001  # seconds of processor time; the kernel rounds up to its tick


class Sampler:
    """Samples from ``with`` to its end, or from SIGUSR1 to SIGUSR2 within it; then writes JSON to ``path``.

    SIGUSR1 begins anew, so that start-up does not count; SIGUSR2 stops and writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: Counter[tuple[CodeType, int]] = Counter()
        self._calls: Counter[CodeType] = Counter()
        self._began = os.times()

    def __enter__(self) -> Self:
        signal.signal(signal.SIGPROF, self._take)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self._lines[frame.f_code, frame.f_lineno or 0] += 1  # between two lines there is none
        seen = set()
        above: FrameType | None = frame
        while above is not None:
            if above.f_code not in seen:
                seen.add(above.f_code)
                self._calls[above.f_code] += 1
            above = above.f_back

    def _begin(self, number: int, frame: FrameType | None) -> None:
        self._lines.clear()
        self._calls.clear()
        self._began = os.times()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def _write(self, number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        ended = os.times()
        result = {
            "user": ended.user - self._began.user,
            "system": ended.system - self._began.system,
            "lines": [[_place(code), line, count] for (code, line), count in self._lines.most_common()],
            "calls": [[_place(code), count] for code, count in self._calls.most_common()],
        }
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps(result))
        unfinished.rename(self._path)


def _place(code: CodeType) -> str:
    return f"{code.co_filename}:{code.co_qualname}"
