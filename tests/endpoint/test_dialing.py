"""How long `dial` goes on: what ends it, and what only makes it wait."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from grepunch import dialing
from grepunch.command import run_command
from grepunch.config import Identity, Interface, Peer, Profile, SecretVariable, secret_variables
from grepunch.config.profile import Auth
from grepunch.dialing import Dialing
from grepunch.options import Action, EndpointOptions, Role
from grepunch.outcome import Attempt
from grepunch.progress import Event, Notice
from grepunch.verdict import Verdict, VerdictKind

PEER = "bob"


class Heard:
    """A reporter that keeps the notices."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def report(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.notices.append(event.text)

    def finish(self, verdict: Verdict) -> None:
        raise AssertionError("not its to say")


class Told:
    """A story whose handshake fails again each time it is asked for long enough; never up, or up at some time."""

    def __init__(self, now: Callable[[], float], up_at: float = float("inf")) -> None:
        self.failed: list[float] = []
        self._now = now
        self._up_at = up_at
        self._forgiven_at = 0.0

    @property
    def up(self) -> bool:
        return self._now() >= self._up_at

    def forgive(self) -> None:
        self.failed.append(self._now())
        self._forgiven_at = self._now()

    def attempt(self, waited: float) -> Attempt:
        again = self._now() - self._forgiven_at >= 1.0
        return Attempt(waited, PEER, met=True, authentication_failed="wrong pre-shared key" if again else "")


def watch(monkeypatch: pytest.MonkeyPatch, *, retry: int | None, seconds: float) -> tuple[Verdict | None, Told, Heard]:
    """What `dial` makes of a handshake that never verifies, in so many seconds of a clock that runs by itself."""
    monkeypatch.setattr(dialing, "TICK", 0.0)
    clock, heard = [0.0], Heard()
    told = Told(lambda: clock[0])
    options = EndpointOptions(role=Role.DIAL, action=Action.RUN, wait=30.0, retry=retry)

    async def run() -> Verdict | None:
        task = asyncio.ensure_future(Dialing(options, heard, now=lambda: clock[0]).watch(told, told.attempt))  # type: ignore[arg-type]
        while clock[0] < seconds and not task.done():
            clock[0] += 0.5
            await asyncio.sleep(0)
        if task.done():
            return task.result()
        task.cancel()
        return None

    return asyncio.run(run()), told, heard


@pytest.mark.parametrize("retry", [0, 1, 100])
def test_a_wrong_key_ends_it_however_often_it_was_to_try(monkeypatch: pytest.MonkeyPatch, retry: int) -> None:
    verdict, _, _ = watch(monkeypatch, retry=retry, seconds=100)
    assert verdict is not None
    assert verdict.kind is VerdictKind.AUTH_FAILED


def test_who_retries_for_ever_asks_again_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, told, heard = watch(monkeypatch, retry=None, seconds=3600)
    assert verdict is None, "whoever stands in between can make a key look wrong, and must not end it"
    gaps = [later - earlier for earlier, later in itertools.pairwise(told.failed)]
    assert gaps[0] < 10
    assert all(later >= 0.99 * earlier for earlier, later in itertools.pairwise(gaps))
    assert 300 <= gaps[-1] < 310
    assert len(heard.notices) == len(told.failed) < 25


def test_a_command_does_not_inherit_the_secrets_that_the_profile_takes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("KEY", "PSK", "PASSWORD", "KEPT"):
        monkeypatch.setenv(f"DIAL_{name}", name.lower())
    profile = Profile(
        "office",
        Interface("gp-office"),
        identity=Identity(SecretVariable("DIAL_KEY")),
        peers=(Peer("bob", bytes(32), SecretVariable("DIAL_PSK")),),
        auth=Auth(password=SecretVariable("DIAL_PASSWORD")),
    )
    seen = tmp_path / "seen"
    status = asyncio.run(run_command(("sh", "-c", 'env > "$0"; exit 7', str(seen)), secret_variables(profile)))
    assert status == 7
    assert [line for line in seen.read_text().splitlines() if line.startswith("DIAL_")] == ["DIAL_KEPT=kept"]
