"""Two PPTP sessions joined: control connection, call and link come up together and end together, with the reason."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Address

from grepunch.sessions import session_factory
from pptp.errors import Terminated, TerminationCause
from pptp.ppp.ipcp import Ipv4Up
from pptp.session import CallUp, ControlOut, Session, SessionEvent

A, B = IPv4Address("10.66.0.1"), IPv4Address("10.66.0.2")
OTHER = IPv4Address("10.66.0.9")


def session(*, dials: bool, local: IPv4Address | None, remote: IPv4Address | None) -> Session:
    key = bytes([dials]) * 32
    entropy = random.Random(dials).randbytes
    return session_factory(dials=dials, local=local, remote=remote, own_public_key=key, entropy=entropy)()


class Pair:
    """A PAC and a PNS on one virtual clock; ``lost`` says which of what they send never arrives."""

    def __init__(self, pac: Session, pns: Session) -> None:
        self.ends = (pac, pns)
        self.events: tuple[list[SessionEvent], list[SessionEvent]] = ([], [])
        self.now = 0.0
        self.lost: Callable[[int, object], bool] = lambda sender, item: False
        for end in self.ends:
            end.open(self.now)

    def run(self, until: float = 30.0) -> None:
        while True:
            if self._exchange():
                continue
            deadlines = [d for d in (end.deadline() for end in self.ends) if d is not None and d <= until]
            if not deadlines:
                return
            self.now = max(self.now, min(deadlines))
            for end in self.ends:
                end.handle_timeout(self.now)

    def _exchange(self) -> bool:
        moved = False
        for sender, end in enumerate(self.ends):
            other = self.ends[1 - sender]
            for item in end.transmits():
                moved = True
                if self.lost(sender, item):
                    continue
                if isinstance(item, ControlOut):
                    other.receive_control(item.message, self.now)
                else:
                    other.receive_ppp(item.protocol, bytes(item.information), self.now)
            self.events[sender].extend(end.events())
        return moved

    def path_up(self) -> None:
        for end in self.ends:
            end.path_up(self.now)


def pair() -> Pair:
    return Pair(session(dials=False, local=A, remote=B), session(dials=True, local=B, remote=A))


def test_the_link_waits_for_the_path_and_ends_in_the_profiles_addresses() -> None:
    joined = pair()
    joined.run(1)
    assert all(events == [CallUp(0, 0)] for events in joined.events)
    joined.path_up()
    joined.run(1)
    local = [next(e for e in events if isinstance(e, Ipv4Up)) for events in joined.events]
    assert [(e.local, e.remote) for e in local] == [(A, B), (B, A)]


def test_a_dialler_without_an_address_takes_the_one_it_is_given() -> None:
    joined = Pair(session(dials=False, local=A, remote=B), session(dials=True, local=None, remote=None))
    joined.path_up()
    joined.run(1)
    up = next(e for e in joined.events[1] if isinstance(e, Ipv4Up))
    assert (up.local, up.remote) == (B, A)


def test_addresses_that_do_not_meet_end_both_sides_with_the_reason() -> None:
    joined = Pair(session(dials=False, local=A, remote=B), session(dials=True, local=B, remote=OTHER))
    joined.path_up()
    joined.run()
    ends = [events[-1] for events in joined.events]
    assert all(isinstance(end, Terminated) and "10.66.0." in end.detail for end in ends), ends
    assert {end.cause for end in ends if isinstance(end, Terminated)} == {
        TerminationCause.NOT_AGREED,
        TerminationCause.PEER_REQUEST,
    }


def test_a_goodbye_ends_both_sides_and_nothing_follows() -> None:
    for leaver in (0, 1):
        joined = pair()
        joined.path_up()
        joined.run(1)
        joined.ends[leaver].close(joined.now)
        joined.run()
        for events in joined.events:
            assert isinstance(events[-1], Terminated)
            assert sum(isinstance(event, Terminated) for event in events) == 1
        assert [end.deadline() for end in joined.ends] == [None, None]


def test_a_goodbye_that_nobody_hears_still_ends() -> None:
    joined = pair()
    joined.path_up()
    joined.run(1)
    joined.lost = lambda sender, item: True
    joined.ends[1].close(joined.now)
    joined.run(joined.now + 30)
    assert isinstance(joined.events[1][-1], Terminated)


def test_an_echo_that_is_never_answered_ends_nothing() -> None:
    joined = pair()
    joined.path_up()
    joined.run(1)
    joined.lost = lambda sender, item: True
    joined.run(joined.now + 400)
    assert not any(isinstance(event, Terminated) for events in joined.events for event in events)
