"""The asyncio driver: order, re-entrance, one timer, suspend, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from grepunch.io.driver import LONGEST_SLEEP, Driver
from pptp.errors import UsageError


class Machine:
    """Echoes commands as transmits and events, and wants a timeout when told so."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.happened: list[str] = []
        self.at: float | None = None
        self.timeouts: list[float] = []
        self.drains = 0

    def command(self, word: str, now: float) -> str:
        self.out.append(f"send {word}")
        self.happened.append(f"did {word}")
        return f"{word} at {now}"

    def transmits(self) -> list[str]:
        self.drains += 1
        out, self.out = self.out, []
        return out

    def events(self) -> list[str]:
        happened, self.happened = self.happened, []
        return happened

    def deadline(self) -> float | None:
        return self.at

    def handle_timeout(self, now: float) -> None:
        if self.at is not None and self.at <= now:
            self.timeouts.append(now)
            self.at = None
            self.happened.append("timeout")


class Timer:
    """What the loop was asked to call later."""

    def __init__(self, delay: float, call: Callable[[], None]) -> None:
        self.delay, self.call, self.cancelled = delay, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Rig:
    """A driver whose clock and timers the test turns by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = Machine()
        self.log: list[str] = []
        self.time = 100.0
        self.timers: list[Timer] = []
        monkeypatch.setattr("asyncio.get_running_loop", lambda: self)
        self.driver = Driver(self.machine, send=self.log.append, handle=self.handle, now=lambda: self.time)
        self.on_event: dict[str, Callable[[], object]] = {}

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(delay, call))
        return self.timers[-1]

    def handle(self, event: str) -> None:
        self.log.append(event)
        self.on_event.get(event, lambda: None)()

    def command(self, word: str) -> str:
        return self.driver.stimulate(lambda now: self.machine.command(word, now))

    def armed(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def fire(self) -> None:
        (timer,) = self.armed()
        self.timers.clear()
        timer.call()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_transmits_leave_before_events_are_heard(rig: Rig) -> None:
    assert rig.command("x") == "x at 100.0"
    assert rig.log == ["send x", "did x"]


def test_a_handler_may_stimulate_the_same_machine(rig: Rig) -> None:
    rig.on_event["did x"] = lambda: rig.command("y")
    rig.on_event["did y"] = lambda: rig.command("z")
    rig.command("x")
    assert rig.log == ["send x", "did x", "send y", "did y", "send z", "did z"]


def test_one_timer_whatever_happens(rig: Rig) -> None:
    rig.machine.at = 101.0
    for word in "abc":
        rig.command(word)
    assert [timer.delay for timer in rig.armed()] == [1.0]
    rig.machine.at = None
    rig.driver.settle()
    assert rig.armed() == []


def test_a_deadline_that_moves_on_leaves_the_timer_alone_and_an_earlier_one_does_not(rig: Rig) -> None:
    for rig.time, rig.machine.at in ((100.0, 101.0), (100.5, 101.5), (100.9, 101.9)):
        rig.command("a")
    assert len(rig.timers) == 1
    rig.time = 101.0
    rig.fire()
    assert rig.machine.timeouts == []
    assert [round(timer.delay, 6) for timer in rig.armed()] == [0.9]
    rig.machine.at = 101.25
    rig.command("b")
    assert [timer.delay for timer in rig.armed()] == [0.25]


def test_a_deadline_that_has_passed_is_acted_upon_at_once_but_not_inside_the_stimulus(rig: Rig) -> None:
    rig.machine.at = 90.0
    rig.command("a")
    assert rig.machine.timeouts == []
    assert [timer.delay for timer in rig.armed()] == [0.0]
    rig.fire()
    assert rig.machine.timeouts == [100.0]
    assert rig.log[-1] == "timeout"
    assert rig.armed() == []


def test_a_timer_that_fires_early_is_armed_again(rig: Rig) -> None:
    rig.machine.at = 101.0
    rig.command("a")
    rig.time = 100.9
    drains = rig.machine.drains
    rig.fire()
    assert rig.machine.timeouts == []
    assert rig.machine.drains == drains
    assert [round(timer.delay, 6) for timer in rig.armed()] == [0.1]


def test_after_a_suspend_the_timer_is_late_by_no_more_than_the_longest_sleep(rig: Rig) -> None:
    rig.machine.at = 160.0
    rig.command("a")
    assert [timer.delay for timer in rig.armed()] == [LONGEST_SLEEP]
    rig.time = 4000.0  # an hour of suspend later, the loop's own clock has moved by the sleep only
    rig.fire()
    assert rig.machine.timeouts == [4000.0]


def test_after_close_nothing_is_sent_heard_or_armed(rig: Rig) -> None:
    rig.machine.at = 101.0
    rig.command("a")
    rig.driver.close()
    assert rig.driver.closed
    assert rig.armed() == []
    rig.machine.command("b", 0.0)
    rig.driver.settle()
    assert rig.log == ["send a", "did a"]
    with pytest.raises(UsageError):
        rig.command("c")


def test_a_handler_may_close_the_driver(rig: Rig) -> None:
    rig.machine.at = 101.0
    rig.on_event["did a"] = rig.driver.close
    rig.machine.happened += ["did a", "did more"]
    rig.driver.settle()
    assert rig.log == ["did a"]
    assert rig.armed() == []


def test_an_exception_propagates_and_the_timer_is_armed_all_the_same(rig: Rig) -> None:
    def explode() -> None:
        raise ValueError("a handler's fault")

    rig.machine.at = 101.0
    rig.on_event["did a"] = explode
    with pytest.raises(ValueError, match="handler's fault"):
        rig.command("a")
    assert len(rig.armed()) == 1
    rig.command("b")
    assert rig.log[-1] == "did b"


def test_under_a_real_loop_a_timeout_is_an_event() -> None:
    async def scenario() -> list[str]:
        machine, done = Machine(), asyncio.Event()
        heard: list[str] = []

        def handle(event: str) -> None:
            heard.append(event)
            done.set()

        driver = Driver(machine, send=heard.append, handle=handle)
        driver.stimulate(lambda now: setattr(machine, "at", now + 0.001))
        waiting: Awaitable[object] = done.wait()
        await asyncio.wait_for(waiting, 5)
        driver.close()
        return heard

    assert asyncio.run(scenario()) == ["timeout"]
