"""Events as a person at a terminal, a log and a program see them."""

from __future__ import annotations

import io
import json
from ipaddress import IPv4Address, IPv4Interface

import pytest

from grepunch.jsonvalue import plain
from grepunch.ports import Form
from grepunch.progress import (
    Color,
    Event,
    FormCount,
    Level,
    Notice,
    PeerDown,
    PeerUp,
    Planned,
    PunchProgress,
    StateChanged,
    make_reporter,
)
from grepunch.status import Stage
from grepunch.verdict import Verdict, VerdictKind

PUNCH = PunchProgress(
    peer="laptop",
    elapsed=12.34,
    forms=(FormCount(Form.V1, 31, 2), FormCount(Form.V0, 30, 0)),
    next_step="silence",
    next_in=17.0,
    own_address=IPv4Address("198.51.100.7"),
    peer_address=IPv4Address("203.0.113.9"),
)
UP = PeerUp(
    peer="laptop",
    path=IPv4Address("203.0.113.9"),
    form=Form.V1,
    elapsed=1.26,
    mtu=1335,
    address=IPv4Address("10.66.0.2"),
    own_address=IPv4Interface("10.66.0.1/24"),
    rtt=0.0203,
)
EVENTS: list[Event] = [
    StateChanged(Stage.MEETING, detail="wss://meet.example.org"),
    PUNCH,
    PUNCH,
    UP,
    PeerDown("laptop", "peer_silent", "nothing for 15 s"),
    Notice("half an address", Level.WARNING, "laptop"),
    Planned("address 10.66.0.1/24 on gp-office"),
]


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def show(
    *, json: bool = False, color: Color = Color.AUTO, terminal: bool = False, **environment: str
) -> tuple[str, str]:
    """All events and a verdict: what went to standard output and standard error."""
    out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
    reporter = make_reporter(json=json, color=color, stdout=out, stderr=err, environment=environment)
    for event in EVENTS:
        reporter.report(event)
    reporter.finish(Verdict(VerdictKind.LINK_LOST, "nothing for 15 s"))
    return out.getvalue(), err.getvalue()


def test_a_pipe_gets_one_line_for_each_change() -> None:
    out, err = show()
    assert out == "address 10.66.0.1/24 on gp-office\n"
    assert err.splitlines() == [
        "meeting: wss://meet.example.org",
        "laptop: up after 1.3 s: 203.0.113.9 over GRE v1-0/0, mtu 1335, rtt 20.3 ms, inside 10.66.0.1/24 to 10.66.0.2",
        "laptop: down: peer_silent: nothing for 15 s",
        "laptop: warning: half an address",
        "link_lost: The link was up and got lost.",
        "  seen: nothing for 15 s",
        "  try:  Start again, or use `--retry forever` to have it come back by itself.",
    ]


def test_a_terminal_gets_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, err = show(terminal=True, NO_COLOR="1")
    live = (
        "\r\x1b[Klaptop: punching 12 s  198.51.100.7 <-> 203.0.113.9  sent/heard v1-0/0 31/2  v0 30/0"
        "  next: silence in 17 s"
    )
    assert live * 2 + "\r\x1b[Klaptop: up after" in err
    assert "\x1b[3" not in err


def test_the_live_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, err = show(terminal=True, NO_COLOR="1")
    assert len(err.split("\r\x1b[K")[1]) == 39


def test_colour_only_where_it_is_wanted() -> None:
    green = "\x1b[32mlaptop: up"
    assert green in show(terminal=True)[1]
    assert green in show(color=Color.ALWAYS, NO_COLOR="1")[1]
    for quiet in (show(), show(color=Color.NEVER, terminal=True), show(terminal=True, NO_COLOR="1")):
        assert "\x1b[3" not in quiet[1]
    assert "\x1b" not in show(terminal=True, TERM="dumb")[1]


def test_a_program_gets_objects() -> None:
    out, err = show(json=True)
    assert err == ""
    objects = [json.loads(line) for line in out.splitlines()]
    assert [value["event"] for value in objects] == [
        "state_changed", "punch_progress", "punch_progress", "peer_up", "peer_down", "notice", "planned", "verdict",
    ]  # fmt: skip
    assert all(value["schema"] == 1 for value in objects)
    assert objects[1]["forms"][0] == {"form": "v1-0/0", "sent": 31, "heard": 2}
    assert (
        objects[3].items()
        >= {
            "schema": 1,
            "event": "peer_up",
            "peer": "laptop",
            "path": "203.0.113.9",
            "form": "v1-0/0",
            "elapsed": 1.26,
            "mtu": 1335,
            "address": "10.66.0.2",
            "own_address": "10.66.0.1/24",
            "rtt": 0.0203,
        }.items()
    )
    assert objects[-1]["result"] == "link_lost"
    assert "peer" not in objects[0]


@pytest.mark.parametrize("as_json", [False, True])
def test_what_strangers_said_is_harmless(as_json: bool) -> None:
    evil = "\x1b]0;x\x07\r\nfake: up\u202e\u2028\udcff"
    out, err = io.StringIO(), io.StringIO()
    reporter = make_reporter(json=as_json, color=Color.NEVER, stdout=out, stderr=err, environment={})
    reporter.report(PeerDown(evil, "refused", evil))
    reporter.report(Planned(evil))
    reporter.finish(Verdict(VerdictKind.INTERNAL, "x" * 5000))
    text = out.getvalue() + err.getvalue()
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("fake") for line in text.splitlines())
    assert all(len(line) < 6000 for line in text.splitlines())


def test_success_without_a_detail_needs_no_word() -> None:
    out, err = io.StringIO(), io.StringIO()
    reporter = make_reporter(json=False, color=Color.AUTO, stdout=out, stderr=err, environment={})
    reporter.finish(Verdict(VerdictKind.UP))
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_octets_have_no_json_form() -> None:
    with pytest.raises(TypeError):
        plain({"key": b"\0" * 32})
