"""Run a sans-IO machine under asyncio: the one exit through which everything it wants leaves.

After every stimulus the driver sends what there is to send, hands over what has happened, and re-arms one timer
(see :mod:`pptp.machine`). Sending and handling may stimulate the same machine again; that joins the round that is
already going on, so events stay in order and the stack stays flat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from grepunch.io import clock
from pptp.errors import UsageError
from pptp.machine import Machine

TransmitT = TypeVar("TransmitT")
EventT = TypeVar("EventT")
ResultT = TypeVar("ResultT")

# ours, because the loop's clock stands still during suspend and the machines' clock does not: a timer is never
# armed further ahead, so after a suspend everything due is acted upon within this many seconds.
LONGEST_SLEEP = 2.0


class Driver(Generic[TransmitT, EventT]):
    """Drives one machine until :meth:`close`; made by its owner inside a running event loop.

    ``send`` is called with each transmit, ``handle`` with each event, neither may block. An exception from the
    machine or from these two propagates to the stimulus, or from a timer to the loop's exception handler; the timer
    is re-armed all the same.
    """

    __slots__ = ("_clock", "_closed", "_due", "_handle", "_loop", "_machine", "_send", "_settling", "_timer")

    def __init__(
        self,
        machine: Machine[TransmitT, EventT],
        *,
        send: Callable[[TransmitT], object],
        handle: Callable[[EventT], object],
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._machine = machine
        self._send = send
        self._handle = handle
        self._clock = now
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the timer rings, by the machine's clock
        self._settling = False
        self._closed = False

    def stimulate(self, action: Callable[[float], ResultT]) -> ResultT:
        """Call ``action(now)``, which commands the machine or feeds it, then settle; returns what ``action`` did.

        Example: ``driver.stimulate(lambda now: link.receive(protocol, information, now))``.
        Raises :class:`UsageError` after :meth:`close`.
        """
        if self._closed:
            raise UsageError("a stimulus for a driver that is closed")
        try:
            return action(self._clock())
        finally:
            self.settle()

    def settle(self) -> None:
        """Send, hand over, re-arm: for owners that stimulated the machine themselves. Harmless at any time."""
        if self._settling or self._closed:
            return
        self._settling = True
        try:
            while self._round():
                pass
        finally:
            self._settling = False
            self._arm()

    def close(self) -> None:
        """Stop: no timer, no transmit and no event after this. The machine itself is left as it is."""
        self._closed = True
        self._disarm()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def _round(self) -> bool:
        """Drain the machine once; True when there was anything, for that may have led to more."""
        transmits = self._machine.transmits()
        for transmit in transmits:
            self._send(transmit)
        events = self._machine.events()
        for event in events:
            if self._closed:  # a handler may close the driver: what it wants no more it does not get
                return False
            self._handle(event)
        return not self._closed and (len(transmits) > 0 or len(events) > 0)

    def _arm(self) -> None:
        """See to it that the timer rings at the deadline or before. An early one that is set stays: to set another
        for every packet that moves the deadline on costs more than to wake for nothing now and then."""
        deadline = None if self._closed else self._machine.deadline()
        if deadline is not None and self._timer is not None and self._due <= deadline:
            return
        self._disarm()
        if deadline is None:
            return
        now = self._clock()
        delay = min(max(0.0, deadline - now), LONGEST_SLEEP)
        self._due = now + delay
        self._timer = self._loop.call_later(delay, self._wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        now = self._clock()
        deadline = self._machine.deadline()
        if deadline is None or deadline > now:
            self._arm()  # the sleep was cut short, or ended within the loop's resolution
            return
        self.stimulate(self._machine.handle_timeout)
