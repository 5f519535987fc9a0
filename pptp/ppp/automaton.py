"""The option negotiation automaton of RFC 1661 section 4: its state transition table *is* the code.

``GRID`` is transcribed from the table of section 4.1: a cell is ``actions/state``, ``-`` is an illegal transition, and
a letter after the state is the RFC's footnote. Every control protocol runs one :class:`Automaton`; what an action
means is for :mod:`pptp.ppp.negotiation` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType

from pptp.errors import UsageError
from pptp.value import value


class State(IntEnum):
    """RFC 1661 section 4.2, numbered as in the table."""

    INITIAL = 0
    STARTING = 1
    CLOSED = 2
    STOPPED = 3
    CLOSING = 4
    STOPPING = 5
    REQ_SENT = 6
    ACK_RCVD = 7
    ACK_SENT = 8
    OPENED = 9


class Event(StrEnum):
    """RFC 1661 section 4.3, spelled as in the table."""

    UP = "Up"
    DOWN = "Down"
    OPEN = "Open"
    CLOSE = "Close"
    TIMEOUT = "TO+"  # with a restart counter above zero
    TIMEOUT_EXPIRED = "TO-"
    CONFIGURE_REQUEST_GOOD = "RCR+"
    CONFIGURE_REQUEST_BAD = "RCR-"
    CONFIGURE_ACK = "RCA"
    CONFIGURE_NAK_OR_REJECT = "RCN"
    TERMINATE_REQUEST = "RTR"
    TERMINATE_ACK = "RTA"
    UNKNOWN_CODE = "RUC"
    REJECT_PERMITTED = "RXJ+"  # Code-Reject or Protocol-Reject of something we can do without
    REJECT_CATASTROPHIC = "RXJ-"
    ECHO_OR_DISCARD = "RXR"


class Action(StrEnum):
    """RFC 1661 section 4.4, spelled as in the table."""

    THIS_LAYER_UP = "tlu"
    THIS_LAYER_DOWN = "tld"
    THIS_LAYER_STARTED = "tls"
    THIS_LAYER_FINISHED = "tlf"
    INITIALIZE_RESTART_COUNT = "irc"
    ZERO_RESTART_COUNT = "zrc"
    SEND_CONFIGURE_REQUEST = "scr"
    SEND_CONFIGURE_ACK = "sca"
    SEND_CONFIGURE_NAK_OR_REJECT = "scn"
    SEND_TERMINATE_REQUEST = "str"
    SEND_TERMINATE_ACK = "sta"
    SEND_CODE_REJECT = "scj"
    SEND_ECHO_REPLY = "ser"


# RFC 1661 section 4.1. Footnotes: r restart option, p passive option, x crossed connection.
GRID = """
        0       1          2          3               4      5      6          7          8          9
Up      2       irc,scr/6  -          -               -      -      -          -          -          -
Down    -       -          0          tls/1           0      1      1          1          1          tld/1
Open    tls/1   1          irc,scr/6  3r              5r     5r     6          7          8          9r
Close   0       tlf/0      2          2               4      4      irc,str/4  irc,str/4  irc,str/4  tld,irc,str/4
TO+     -       -          -          -               str/4  str/5  scr/6      scr/6      scr/8      -
TO-     -       -          -          -               tlf/2  tlf/3  tlf/3p     tlf/3p     tlf/3p     -
RCR+    -       -          sta/2      irc,scr,sca/8   4      5      sca/8      sca,tlu/9  sca/8      tld,scr,sca/8
RCR-    -       -          sta/2      irc,scr,scn/6   4      5      scn/6      scn/7      scn/6      tld,scr,scn/6
RCA     -       -          sta/2      sta/3           4      5      irc/7      scr/6x     irc,tlu/9  tld,scr/6x
RCN     -       -          sta/2      sta/3           4      5      irc,scr/6  scr/6x     irc,scr/8  tld,scr/6x
RTR     -       -          sta/2      sta/3           sta/4  sta/5  sta/6      sta/6      sta/6      tld,zrc,sta/5
RTA     -       -          2          3               tlf/2  tlf/3  6          6          8          tld,scr/6
RUC     -       -          scj/2      scj/3           scj/4  scj/5  scj/6      scj/7      scj/8      scj/9
RXJ+    -       -          2          3               4      5      6          6          8          9
RXJ-    -       -          tlf/2      tlf/3           tlf/2  tlf/3  tlf/3      tlf/3      tlf/3      tld,irc,str/5
RXR     -       -          2          3               4      5      6          7          8          ser/9
"""

_RESTART_FOOTNOTE = "r"


@value
class Transition:
    """One cell of the table."""

    actions: tuple[Action, ...]
    state: State
    footnote: str = ""


def _read_cell(cell: str) -> Transition:
    actions, _, target = cell.rpartition("/")
    digit, footnote = target[0], target[1:]
    return Transition(tuple(Action(word) for word in actions.split(",") if word), State(int(digit)), footnote)


def _read_grid(grid: str) -> Mapping[tuple[State, Event], Transition]:
    header, *rows = [line.split() for line in grid.strip().splitlines()]
    states = [State(int(number)) for number in header]
    return MappingProxyType(
        {
            (state, Event(row[0])): _read_cell(cell)
            for row in rows
            for state, cell in zip(states, row[1:], strict=True)
            if cell != "-"
        }
    )


TABLE: Mapping[tuple[State, Event], Transition] = _read_grid(GRID)


class Automaton:
    """One negotiation's state; created in Initial, and moved by :meth:`fire` alone.

    ``restart`` takes the restart option: an Open where the table has an ``r`` is followed by Down and Up, so that it
    renegotiates (section 4.3, "Open"). The passive option (``p``) is not taken: This-Layer-Finished is signalled.
    """

    __slots__ = ("_restart", "state")

    def __init__(self, *, restart: bool = False) -> None:
        self._restart = restart
        self.state = State.INITIAL

    def fire(self, event: Event) -> tuple[Action, ...]:
        """Move on ``event`` and return the actions it calls for, in order.

        Raises :class:`UsageError`, with nothing changed, where the table calls the event illegal.
        """
        transition = TABLE.get((self.state, event))
        if transition is None:
            raise UsageError(f"{event} is illegal in state {self.state.name}")
        self.state = transition.state
        if self._restart and transition.footnote == _RESTART_FOOTNOTE:
            return transition.actions + self.fire(Event.DOWN) + self.fire(Event.UP)
        return transition.actions
