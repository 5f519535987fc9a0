"""The path manager on a virtual clock: keepalives, suspicion, death, stalls, and the size of the path."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from grepunch.ports import Form, PathNews, PathNewsKind
from grepunch.punch.path import (
    CheckDue,
    KeepaliveDue,
    PathDead,
    PathEvent,
    PathManager,
    PathState,
    Recovered,
    Suspect,
    keepalive_interval,
)
from grepunch.punch.pathmtu import CONFIRM_INTERVAL, TRY_INTERVAL, MtuProbeDue, OuterMtu

PEER = IPv4Address("198.51.100.7")
DELAY = 0.04


class Path:
    """A path that answers checks and padded frames, as wide as ``width``, until it is cut."""

    def __init__(self, width: int = 1500) -> None:
        self.manager = PathManager()
        self.width = width
        self.cut = False
        self.now = 0.0
        self.log: list[tuple[float, PathEvent]] = []
        self._pending: list[tuple[float, Callable[[], None]]] = []
        self.manager.nominated(PEER, Form.V1, 0.0)

    def run(
        self, until: float, *, peer_every: float | None = 4.0, load_every: float | None = None, size: int = 0
    ) -> None:
        """Let time pass: the peer sends every ``peer_every`` seconds, we send traffic every ``load_every``."""
        peer_at = self.now + peer_every if peer_every else float("inf")
        load_at = self.now + load_every if load_every else float("inf")
        while True:
            self._drain()
            self._pending.sort(key=lambda entry: entry[0])
            answer_at = self._pending[0][0] if self._pending else float("inf")
            deadline = self.manager.deadline()
            step = min(peer_at, load_at, answer_at, float("inf") if deadline is None else deadline)
            if step > until:
                self.now = until
                return
            self.now = step
            if step == answer_at:
                self._pending.pop(0)[1]()
            elif step == peer_at:
                peer_at += peer_every or 0.0
                if not self.cut:
                    self.manager.received(self.now)
            elif step == load_at:
                load_at += load_every or 0.0
                self.manager.sent(self.now, size)
            else:
                self.manager.handle_timeout(self.now)

    def _drain(self) -> None:
        for event in self.manager.events():
            self.log.append((self.now, event))
            if self.cut:
                continue
            match event:
                case CheckDue():
                    self._pending.append((self.now + DELAY, lambda: self.manager.received(self.now)))
                case MtuProbeDue(outer) if outer <= self.width:
                    self._pending.append((self.now + DELAY, lambda outer=outer: self._acknowledge(outer)))  # type: ignore[misc]

    def _acknowledge(self, outer: int) -> None:
        self.manager.received(self.now)
        self.manager.mtu_acknowledged(outer, self.now)

    def times(self, kind: type[PathEvent]) -> list[float]:
        return [at for at, event in self.log if isinstance(event, kind)]

    def first(self, kind: type[PathEvent], after: float) -> float:
        return next(at for at, event in self.log if isinstance(event, kind) and at >= after) - after


# -- alive or not --------------------------------------------------------------------------------------------


def test_a_silent_side_sends_keepalives_every_four_seconds() -> None:
    path = Path()
    path.run(41.0)
    assert path.times(KeepaliveDue) == pytest.approx([4.0 * n for n in range(1, 11)])
    assert not path.times(CheckDue)
    assert path.manager.state is PathState.ALIVE


def test_own_traffic_stands_for_keepalives_but_the_peers_does_not() -> None:
    path = Path()
    path.run(19.0, peer_every=0.1)
    assert len(path.times(KeepaliveDue)) == 4
    path.run(40.0, peer_every=0.1, load_every=0.1)
    assert len(path.times(KeepaliveDue)) == 4


def test_one_way_load_is_checked_and_never_suspected() -> None:
    path = Path()
    path.run(60.0, load_every=0.05)
    assert path.times(CheckDue)
    assert not path.times(Suspect)
    assert min(b - a for a, b in zip(path.times(CheckDue), path.times(CheckDue)[1:], strict=False)) >= 0.5


class ForgetfulNat(Path):
    """An idle path through a NAT on our side that forgets a flow ``timer`` seconds after its last packet."""

    def __init__(self, timer: float) -> None:
        super().__init__()
        self.timer = timer
        self.open_until = timer

    def live(self, until: float, phase: float) -> None:
        """The peer's keepalives come every 4 s, ``phase`` seconds after our first ones would go."""
        peer_at = self.now + phase
        while self.now < until:
            for event in self.manager.events():
                self.log.append((self.now, event))
                if isinstance(event, KeepaliveDue | CheckDue | MtuProbeDue):
                    self.open_until = self.now + self.timer
                if isinstance(event, CheckDue):
                    self.manager.received(self.now)
            self.now = min(peer_at, self.manager.deadline() or until)
            if self.now == peer_at:
                peer_at += 4.0
                if self.now <= self.open_until:
                    self.open_until = self.now + self.timer
                    self.manager.received(self.now)
            else:
                self.manager.handle_timeout(self.now)


@pytest.mark.parametrize(("timer", "longest"), [(2.5, 2.5), (2.0, 2.0), (1.0, 1.0)])
def test_keepalives_become_as_frequent_as_a_forgetful_nat_needs_them(timer: float, longest: float) -> None:
    path = ForgetfulNat(timer)
    path.live(120.0, phase=3.9)
    late = [at for at in path.times(KeepaliveDue) if at > 60.0]
    assert max(b - a for a, b in pairwise(late)) <= longest + 1e-6
    assert not [at for at in path.times(CheckDue) if at > 60.0]
    assert not path.times(Suspect)


def test_one_missed_keepalive_now_and_then_changes_nothing() -> None:
    path = Path()
    for _ in range(5):
        path.run(path.now + 30.0)
        path.cut = True
        path.run(path.now + 4.5)  # the peer's keepalive is lost once
        path.cut = False
    path.log.clear()
    path.run(path.now + 40.0)
    times = path.times(KeepaliveDue)
    assert min(b - a for a, b in pairwise(times)) == pytest.approx(4.0)


def test_under_traffic_a_cut_is_suspected_within_three_and_a_half_seconds() -> None:
    path = Path()
    path.run(10.0, peer_every=0.1, load_every=0.1)
    path.cut = True
    path.run(40.0, load_every=0.1)
    assert path.first(CheckDue, 10.0) == pytest.approx(2.0, abs=0.2)
    assert path.first(Suspect, 10.0) == pytest.approx(3.5, abs=0.2)
    assert path.first(PathDead, 10.0) == pytest.approx(15.0, abs=0.2)
    assert len(path.times(Suspect)) == len(path.times(PathDead)) == 1
    assert len([at for at in path.times(CheckDue) if at > 10.0]) <= 27


def test_idle_a_cut_is_suspected_after_two_missed_keepalives() -> None:
    path = Path()
    path.run(8.0)
    path.cut = True
    path.run(30.0)
    assert path.first(Suspect, 8.0) == pytest.approx(8.5)
    assert path.first(PathDead, 8.0) == pytest.approx(15.0)
    assert path.manager.deadline() is None


def test_traffic_after_a_quiet_spell_is_given_its_two_seconds() -> None:
    path = Path()
    path.run(3.0, peer_every=None)
    path.manager.sent(path.now)
    path.run(4.9, peer_every=None)
    assert not path.times(CheckDue)


def test_one_lost_keepalive_of_the_peer_is_bridged_by_a_check() -> None:
    path = Path()
    path.run(60.0, peer_every=8.0)
    assert not path.times(Suspect)


@pytest.mark.parametrize("silence", [10.0, 20.0])
def test_what_is_heard_again_recovers(silence: float) -> None:
    path = Path()
    path.cut = True
    path.run(silence)
    path.manager.received(path.now)
    path.cut = False
    path.run(silence + 10.0)
    assert path.times(Recovered) == [silence]
    assert path.manager.state is PathState.ALIVE
    assert path.first(KeepaliveDue, silence) <= 4.0


def test_after_a_suspend_the_path_is_checked_and_not_buried() -> None:
    path = Path()
    path.run(5.0)
    path.log.clear()
    path.manager.handle_timeout(65.0)
    assert path.manager.events() == [CheckDue(1)]
    path.manager.received(65.1)
    assert path.manager.state is PathState.ALIVE


def test_after_a_suspend_a_path_that_is_gone_is_suspected_soon() -> None:
    path = Path()
    path.run(5.0)
    path.cut = True
    path.manager.handle_timeout(65.0)
    path.now = 65.0
    path.run(90.0, peer_every=None)
    assert path.first(Suspect, 65.0) <= 2.0
    assert path.first(PathDead, 65.0) <= 15.0


def test_a_refusal_by_icmp_is_a_reason_to_look_and_no_more() -> None:
    path = Path()
    path.run(6.0)
    path.log.clear()
    for _ in range(50):
        path.manager.receive_news(PathNews(PathNewsKind.PROTOCOL_UNREACHABLE, PEER, PEER, Form.V1), path.now)
        path.run(path.now + 0.01, peer_every=None)
    assert 1 <= len(path.times(CheckDue)) <= 2
    assert path.manager.state is PathState.ALIVE


def test_nothing_is_due_before_a_nomination() -> None:
    manager = PathManager()
    manager.received(1.0)
    manager.handle_timeout(100.0)
    manager.receive_news(PathNews(PathNewsKind.TOO_BIG, PEER, PEER, mtu=1000), 100.0)
    assert (manager.events(), manager.deadline(), manager.path) == ([], None, None)


def test_the_round_trip_is_smoothed() -> None:
    manager = PathManager()
    manager.rtt_measured(0.1)
    assert manager.rtt == 0.1
    manager.rtt_measured(0.9)
    assert manager.rtt == pytest.approx(0.2)


def test_a_shorter_known_timer_shortens_the_keepalive() -> None:
    assert [keepalive_interval(t) for t in (None, 30.0, 6.0, 0.9)] == [4.0, 4.0, 2.0, 0.6]


# -- its size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "found"),
    [(1500, 1500), (1492, 1492), (1479, 1460), (1440, 1430), (1400, 1400), (1300, 1280), (1000, 1000), (600, 576)],
)
def test_the_size_of_a_new_path_is_found(width: int, found: int) -> None:
    path = Path(width)
    path.run(6.0)
    assert path.manager.outer_mtu == found
    changes = [event.value for _, event in path.log if isinstance(event, OuterMtu)]
    assert changes == ([] if found == 1400 else [found])


def test_each_larger_size_is_tried_three_times() -> None:
    path = Path(1400)
    path.run(6.0)
    tried = [
        (round(at, 2), event.outer) for at, event in path.log if isinstance(event, MtuProbeDue) and event.outer > 1400
    ]
    sizes = [size for size in (1500, 1492, 1480, 1460, 1430) for _ in range(3)]
    assert tried == [(round(TRY_INTERVAL * n, 2), size) for n, size in enumerate(sizes)]


@pytest.mark.parametrize("narrow", [1280, 1000])
@pytest.mark.parametrize("with_icmp", [True, False])
def test_a_narrower_path_is_noticed_within_two_seconds_under_load(narrow: int, with_icmp: bool) -> None:
    path = Path(1500)
    path.run(10.0, peer_every=0.1, load_every=0.02, size=1500)
    assert path.manager.outer_mtu == 1500
    path.width = narrow
    if with_icmp:
        path.manager.receive_news(PathNews(PathNewsKind.TOO_BIG, PEER, PEER, Form.V1, mtu=narrow), path.now)
    path.run(14.0, peer_every=0.1, load_every=0.02, size=1500)
    assert path.first(OuterMtu, 10.0) <= 2.0
    assert path.manager.outer_mtu == narrow


def test_icmp_names_a_size_between_the_usual_ones() -> None:
    path = Path(1500)
    path.run(5.0)
    path.width = 1342
    path.manager.receive_news(PathNews(PathNewsKind.TOO_BIG, PEER, PEER, mtu=1342), path.now)
    path.run(8.0)
    assert path.manager.outer_mtu == 1342


def test_a_lying_icmp_message_lowers_nothing() -> None:
    path = Path(1500)
    path.run(5.0)
    path.log.clear()
    for _ in range(1000):
        path.manager.receive_news(PathNews(PathNewsKind.TOO_BIG, PEER, PEER, Form.V1, mtu=600), path.now)
        path.run(path.now + 0.01, peer_every=None)
    for mtu in (0, 68, 575, 1500, 65535):
        path.manager.receive_news(PathNews(PathNewsKind.TOO_BIG, PEER, PEER, Form.V1, mtu=mtu), path.now)
    path.run(path.now + 3.0)
    assert path.manager.outer_mtu == 1500
    assert len(path.times(MtuProbeDue)) <= 10 / CONFIRM_INTERVAL + 2  # whatever the flood of lies


def test_a_dead_path_is_not_taken_for_a_narrow_one() -> None:
    path = Path(1500)
    path.run(5.0)
    path.cut = True
    path.run(40.0, load_every=0.05, size=1500)
    assert path.manager.outer_mtu == 1500
    assert path.manager.state is PathState.DEAD


def test_a_path_that_became_wider_is_found_out() -> None:
    path = Path(1280)
    path.run(5.0)
    path.width = 1500
    path.run(70.0)
    assert path.manager.outer_mtu == 1500


def test_a_size_that_our_own_interface_refuses_is_not_tried_again() -> None:
    manager = PathManager()
    manager.nominated(PEER, Form.V1, 0.0)
    manager.events()
    manager.mtu_refused(1500, 0.0)
    assert manager.events() == [MtuProbeDue(1492)]


def test_a_new_path_starts_from_the_safe_size() -> None:
    path = Path(1500)
    path.run(5.0)
    path.log.clear()
    path.manager.nominated(PEER, Form.V0, path.now)
    events = path.manager.events()
    assert OuterMtu(1400) in events
    assert path.manager.path == (PEER, Form.V0)
