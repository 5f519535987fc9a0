"""The clock and the entropy that everything sans-IO is handed."""

from __future__ import annotations

import os
import time
from typing import Final

# Frozen by nothing: CLOCK_MONOTONIC, which asyncio keeps, stands still while the machine sleeps, and keys, NAT
# timers and peers do not. The wall clock takes part in no decision.
_CLOCK: Final = time.CLOCK_BOOTTIME


def now() -> float:
    """Seconds since boot, suspend included. Only differences mean anything."""
    return time.clock_gettime(_CLOCK)


def entropy(size: int) -> bytes:
    """``size`` octets from the kernel's generator."""
    return os.urandom(size)
