"""What strangers cause to be said is bounded; what is said has no peer's control characters in it."""

from __future__ import annotations

from ipaddress import IPv4Address

from grepunch.ordinary.reporting import MOST_NOTICES, NOTICE_PERIOD, CallStories, connection_error
from grepunch.progress import Notice, SessionDown, SessionUp, describe
from pptp.errors import Terminated, TerminationCause
from tests.ordinary.server_world import Heard

STRANGER = IPv4Address("203.0.113.66")


def test_strangers_are_told_of_a_few_times_and_then_counted() -> None:
    heard = Heard()
    stories = CallStories(heard)
    for _ in range(500):
        stories.refused(STRANGER, "listen.max_sessions_per_source is 3", 100.0)
    assert len(heard.told) == MOST_NOTICES
    stories.noted(STRANGER, "odd", 100.0 + NOTICE_PERIOD)
    untold, last = heard.told[-2:]
    assert isinstance(untold, Notice)
    assert untold.text.startswith(f"{500 - MOST_NOTICES} more")
    assert isinstance(last, Notice)
    assert "203.0.113.66: odd" in last.text


def test_a_peers_words_are_escaped() -> None:
    heard = Heard()
    CallStories(heard).noted(STRANGER, "\x1b[2J\nfake line", 0.0)
    (told,) = heard.told
    assert isinstance(told, Notice)
    assert told.text.isprintable()
    down = SessionDown("\x1b[31mmallory", STRANGER, "authentication", "\r\nforged", was_up=False, windows_error=691)
    assert describe(down).isprintable()
    assert "(a Windows client shows error 691)" in describe(down)


def test_what_a_session_is_can_be_read_in_one_line() -> None:
    up = SessionUp(
        peer="alice",
        source=STRANGER,
        address=IPv4Address("10.77.0.2"),
        own_address=IPv4Address("10.77.0.1"),
        elapsed=0.4,
        mtu=1396,
        authentication="mschapv2",
        encryption="none",
    )
    assert describe(up) == (
        "alice at 203.0.113.66: up after 0.4 s: inside 10.77.0.1 to 10.77.0.2, mschapv2, in clear, mtu 1396"
    )
    down = SessionDown("alice", STRANGER, "peer_request", duration=61.0)
    assert describe(down) == "alice at 203.0.113.66: down: peer_request, after 1 min 1 s"


def test_only_a_goodbye_is_no_news() -> None:
    assert connection_error(Terminated(TerminationCause.PEER_REQUEST)) is None
    assert connection_error(Terminated(TerminationCause.PROTOCOL_ERROR, "bad magic")) == "protocol_error: bad magic"
