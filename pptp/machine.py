"""The contract every state machine of this project obeys. Read this file first.

A machine is sans-IO: it owns no socket, reads no clock and draws no entropy. Bytes and the time go in;
bytes, events and a deadline come out. The same few calls drive all of them:

* ``receive_*(data, now)`` -- something arrived.
* commands (``open(now)``, ``close(now)``, ...) -- the owner wants something.
* ``transmits()`` -- drain what is to be sent, oldest first. Afterwards the queue is empty.
* ``events()`` -- drain what happened, oldest first.
* ``deadline()`` -- when ``handle_timeout`` wants to be called next, or ``None``.
* ``handle_timeout(now)`` -- act on every timer that is due. A spurious call is harmless.

``now`` is a float of seconds on a monotonic clock that counts suspend (CLOCK_BOOTTIME); only differences
matter. After every stimulus the driver drains ``transmits`` and ``events`` and re-arms one timer from
``deadline``: there is one exit, so no path can forget to flush.

Machines nest: a parent feeds its children, drains them and wraps what comes out. Two machines joined by a
fake link on a virtual clock are the ordinary test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

TransmitT_co = TypeVar("TransmitT_co", covariant=True)
EventT_co = TypeVar("EventT_co", covariant=True)


class Machine(Protocol[TransmitT_co, EventT_co]):
    """What the driver needs of a machine; ``receive_*`` and the commands are each machine's own."""

    def transmits(self) -> Sequence[TransmitT_co]:
        """Drain what is to be sent, oldest first."""

    def events(self) -> Sequence[EventT_co]:
        """Drain what happened, oldest first."""

    def deadline(self) -> float | None:
        """When ``handle_timeout`` is wanted next, or ``None``."""

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that is due at ``now``; harmless when none is."""


def earliest(*deadlines: float | None) -> float | None:
    """The earliest of several deadlines, ``None`` where none is set."""
    return min((d for d in deadlines if d is not None), default=None)
