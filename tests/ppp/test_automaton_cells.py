"""All 160 cells of RFC 1661 section 4.1, written out a second time by state instead of by event."""

from __future__ import annotations

import pytest

from pptp.errors import UsageError
from pptp.ppp.automaton import TABLE, Action, Automaton, Event, State

# Read off the RFC's columns, top to bottom, in the words of its sections 4.2 to 4.4. An event that is not named is
# illegal in that state.
EXPECTED: dict[State, dict[str, tuple[str, State]]] = {
    State.INITIAL: {
        "Up": ("", State.CLOSED),
        "Open": ("tls", State.STARTING),
        "Close": ("", State.INITIAL),
    },
    State.STARTING: {
        "Up": ("irc scr", State.REQ_SENT),
        "Open": ("", State.STARTING),
        "Close": ("tlf", State.INITIAL),
    },
    State.CLOSED: {
        "Down": ("", State.INITIAL),
        "Open": ("irc scr", State.REQ_SENT),
        "Close": ("", State.CLOSED),
        "RCR+": ("sta", State.CLOSED),
        "RCR-": ("sta", State.CLOSED),
        "RCA": ("sta", State.CLOSED),
        "RCN": ("sta", State.CLOSED),
        "RTR": ("sta", State.CLOSED),
        "RTA": ("", State.CLOSED),
        "RUC": ("scj", State.CLOSED),
        "RXJ+": ("", State.CLOSED),
        "RXJ-": ("tlf", State.CLOSED),
        "RXR": ("", State.CLOSED),
    },
    State.STOPPED: {
        "Down": ("tls", State.STARTING),
        "Open": ("", State.STOPPED),
        "Close": ("", State.CLOSED),
        "RCR+": ("irc scr sca", State.ACK_SENT),
        "RCR-": ("irc scr scn", State.REQ_SENT),
        "RCA": ("sta", State.STOPPED),
        "RCN": ("sta", State.STOPPED),
        "RTR": ("sta", State.STOPPED),
        "RTA": ("", State.STOPPED),
        "RUC": ("scj", State.STOPPED),
        "RXJ+": ("", State.STOPPED),
        "RXJ-": ("tlf", State.STOPPED),
        "RXR": ("", State.STOPPED),
    },
    State.CLOSING: {
        "Down": ("", State.INITIAL),
        "Open": ("", State.STOPPING),
        "Close": ("", State.CLOSING),
        "TO+": ("str", State.CLOSING),
        "TO-": ("tlf", State.CLOSED),
        "RCR+": ("", State.CLOSING),
        "RCR-": ("", State.CLOSING),
        "RCA": ("", State.CLOSING),
        "RCN": ("", State.CLOSING),
        "RTR": ("sta", State.CLOSING),
        "RTA": ("tlf", State.CLOSED),
        "RUC": ("scj", State.CLOSING),
        "RXJ+": ("", State.CLOSING),
        "RXJ-": ("tlf", State.CLOSED),
        "RXR": ("", State.CLOSING),
    },
    State.STOPPING: {
        "Down": ("", State.STARTING),
        "Open": ("", State.STOPPING),
        "Close": ("", State.CLOSING),
        "TO+": ("str", State.STOPPING),
        "TO-": ("tlf", State.STOPPED),
        "RCR+": ("", State.STOPPING),
        "RCR-": ("", State.STOPPING),
        "RCA": ("", State.STOPPING),
        "RCN": ("", State.STOPPING),
        "RTR": ("sta", State.STOPPING),
        "RTA": ("tlf", State.STOPPED),
        "RUC": ("scj", State.STOPPING),
        "RXJ+": ("", State.STOPPING),
        "RXJ-": ("tlf", State.STOPPED),
        "RXR": ("", State.STOPPING),
    },
    State.REQ_SENT: {
        "Down": ("", State.STARTING),
        "Open": ("", State.REQ_SENT),
        "Close": ("irc str", State.CLOSING),
        "TO+": ("scr", State.REQ_SENT),
        "TO-": ("tlf", State.STOPPED),
        "RCR+": ("sca", State.ACK_SENT),
        "RCR-": ("scn", State.REQ_SENT),
        "RCA": ("irc", State.ACK_RCVD),
        "RCN": ("irc scr", State.REQ_SENT),
        "RTR": ("sta", State.REQ_SENT),
        "RTA": ("", State.REQ_SENT),
        "RUC": ("scj", State.REQ_SENT),
        "RXJ+": ("", State.REQ_SENT),
        "RXJ-": ("tlf", State.STOPPED),
        "RXR": ("", State.REQ_SENT),
    },
    State.ACK_RCVD: {
        "Down": ("", State.STARTING),
        "Open": ("", State.ACK_RCVD),
        "Close": ("irc str", State.CLOSING),
        "TO+": ("scr", State.REQ_SENT),
        "TO-": ("tlf", State.STOPPED),
        "RCR+": ("sca tlu", State.OPENED),
        "RCR-": ("scn", State.ACK_RCVD),
        "RCA": ("scr", State.REQ_SENT),
        "RCN": ("scr", State.REQ_SENT),
        "RTR": ("sta", State.REQ_SENT),
        "RTA": ("", State.REQ_SENT),
        "RUC": ("scj", State.ACK_RCVD),
        "RXJ+": ("", State.REQ_SENT),
        "RXJ-": ("tlf", State.STOPPED),
        "RXR": ("", State.ACK_RCVD),
    },
    State.ACK_SENT: {
        "Down": ("", State.STARTING),
        "Open": ("", State.ACK_SENT),
        "Close": ("irc str", State.CLOSING),
        "TO+": ("scr", State.ACK_SENT),
        "TO-": ("tlf", State.STOPPED),
        "RCR+": ("sca", State.ACK_SENT),
        "RCR-": ("scn", State.REQ_SENT),
        "RCA": ("irc tlu", State.OPENED),
        "RCN": ("irc scr", State.ACK_SENT),
        "RTR": ("sta", State.REQ_SENT),
        "RTA": ("", State.ACK_SENT),
        "RUC": ("scj", State.ACK_SENT),
        "RXJ+": ("", State.ACK_SENT),
        "RXJ-": ("tlf", State.STOPPED),
        "RXR": ("", State.ACK_SENT),
    },
    State.OPENED: {
        "Down": ("tld", State.STARTING),
        "Open": ("", State.OPENED),
        "Close": ("tld irc str", State.CLOSING),
        "RCR+": ("tld scr sca", State.ACK_SENT),
        "RCR-": ("tld scr scn", State.REQ_SENT),
        "RCA": ("tld scr", State.REQ_SENT),
        "RCN": ("tld scr", State.REQ_SENT),
        "RTR": ("tld zrc sta", State.STOPPING),
        "RTA": ("tld scr", State.REQ_SENT),
        "RUC": ("scj", State.OPENED),
        "RXJ+": ("", State.OPENED),
        "RXJ-": ("tld irc str", State.STOPPING),
        "RXR": ("ser", State.OPENED),
    },
}


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
@pytest.mark.parametrize("event", list(Event), ids=str)
def test_cell(state: State, event: Event) -> None:
    automaton = Automaton()
    automaton.state = state
    expected = EXPECTED[state].get(event.value)
    if expected is None:
        with pytest.raises(UsageError):
            automaton.fire(event)
        assert automaton.state is state
    else:
        actions, target = expected
        assert automaton.fire(event) == tuple(Action(word) for word in actions.split())
        assert automaton.state is target


def test_the_table_is_as_large_as_the_rfc_says() -> None:
    assert len(State) * len(Event) == 160
    assert len(TABLE) == sum(len(column) for column in EXPECTED.values()) == 120
    assert {transition.footnote for transition in TABLE.values()} == {"", "r", "p", "x"}


@pytest.mark.parametrize(
    ("state", "actions"),
    [
        (State.STOPPED, "tls irc scr"),
        (State.CLOSING, "irc scr"),
        (State.STOPPING, "irc scr"),
        (State.OPENED, "tld irc scr"),
    ],
)
def test_restart_option_renegotiates_on_open(state: State, actions: str) -> None:
    automaton = Automaton(restart=True)
    automaton.state = state
    assert automaton.fire(Event.OPEN) == tuple(Action(word) for word in actions.split())
    assert automaton.state is State.REQ_SENT


@pytest.mark.parametrize("state", [State.INITIAL, State.CLOSED, State.REQ_SENT, State.ACK_SENT])
def test_restart_option_changes_no_other_cell(state: State) -> None:
    plain, restarting = Automaton(), Automaton(restart=True)
    plain.state = restarting.state = state
    assert plain.fire(Event.OPEN) == restarting.fire(Event.OPEN)
    assert plain.state is restarting.state
