"""What a probe has found out, and what follows from it: a table, one line, a few sentences, and what to try.

Every answer has three values: yes, no, and not tested (None), which is never taken for either. The report orders the
forms that peers should try; it forbids none, for a NAT may treat a peer otherwise than a server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address

from grepunch.ports import Form
from pptp.value import value

# ours: of five packets two must come back, because some NATs pass the first alone
PACKETS = 5
ENOUGH = 2


class Alg(StrEnum):
    """What a PPTP call at the server's TCP 1723 changes for GRE."""

    NONE = "none"  # nothing
    OPENS = "opens"  # it passes GRE with the call's IDs, which does not pass otherwise
    MANDATORY = "mandatory"  # it passes GRE that does not pass at all otherwise
    NOT_NEEDED = "not_needed"  # any Call IDs pass anyway


class CallIds(StrEnum):
    """Which Call IDs pass without a call."""

    ANY = "any"
    EQUAL = "equal"  # the same in both directions
    ZERO = "zero"  # 0 in both directions only


@dataclass(slots=True)
class Tally:
    """One test: what was sent, what the server saw and where from, what came back."""

    sent: int = 0
    seen: set[int] = field(default_factory=set)
    sources: set[IPv4Address] = field(default_factory=set)
    answers: set[int] = field(default_factory=set)

    def passed(self, address: IPv4Address) -> bool | None:
        """Whether it goes and comes. None where it was not tried, and where the server may not have answered: it
        answers ``address`` alone, and the packets came from elsewhere."""
        if not self.sent:
            return None
        if len(self.answers) >= ENOUGH:
            return True
        return None if self.sources - {address} else False


@value
class ProbeReport:
    """The fields of the JSON object. Timers in seconds, as "longer than the first and shorter than the second"."""

    server: IPv4Address
    address: IPv4Address
    """Where the server saw our TCP connection come from."""
    port_preserved: bool | None = None
    """It came from the port that we used."""
    v0: bool | None = None
    v1_zero: bool | None = None
    """Version 1, Call ID 0 in both directions."""
    v1_equal: bool | None = None
    v1_different: bool | None = None
    v1_called: bool | None = None
    """With the Call IDs of a PPTP call that was made before."""
    pptp_control: bool | None = None
    """TCP 1723 of the server could be reached, and a call made."""
    call_id_rewritten: bool | None = None
    """The server saw another Call ID in our call than we sent."""
    gre_address: IPv4Address | None = None
    """Where our GRE comes from."""
    outward: bool | None = None
    """Any of our GRE reaches the server."""
    inward: bool | None = None
    """Any of the server's reaches us."""
    mtu: int | None = None
    """The largest packet that came through whole both ways, of those tried."""
    timer_unreplied: tuple[int, int | None] | None = None
    timer_replied: tuple[int, int | None] | None = None

    @property
    def alg(self) -> Alg | None:
        """What a call changes."""
        if self.v1_called is None or self.v1_different is None:
            return None
        if not self.v1_called:
            return Alg.NONE
        if self.v1_different:
            return Alg.NOT_NEEDED
        return Alg.MANDATORY if self.v0 is False and self.v1_zero is False else Alg.OPENS

    @property
    def call_ids(self) -> CallIds | None:
        """Which Call IDs pass; None where not known, or none does."""
        if self.v1_different:
            return CallIds.ANY
        if self.v1_equal and self.v1_different is False:
            return CallIds.EQUAL
        return CallIds.ZERO if self.v1_zero and self.v1_equal is False and self.v1_different is False else None

    @property
    def pooled(self) -> bool | None:
        """Whether GRE leaves from another address than TCP."""
        return None if self.gre_address is None else self.gre_address != self.address

    @property
    def forms(self) -> tuple[Form, ...]:
        """Both forms, the one that is known to pass first, the one that is known not to last."""
        known = {Form.V1: self.v1_zero, Form.V0: self.v0}
        return tuple(sorted(Form, key=lambda form: {True: 0, None: 1, False: 2}[known[form]]))

    def line(self) -> str:
        """The whole in one line."""
        parts = [
            f"v0={_word(self.v0)}",
            f"v1-0/0={_word(self.v1_zero)}",
            f"v1-id={_word(self.v1_different)}",
            f"alg={self.alg or '?'}",
            f"ip={'?' if self.pooled is None else 'pooled' if self.pooled else 'paired'}",
            f"timer={_timer(self.timer_unreplied)}/{_timer(self.timer_replied)}",
            f"mtu={self.mtu or '?'}",
        ]
        return "GRE: " + " ".join(parts)

    def rows(self) -> list[tuple[str, str, str]]:
        """The table: what, the answer, what was done to find out."""
        timers = "a packet, silence, then one from the server"
        return [
            ("external address", str(self.address), "as the server saw our TCP connection"),
            ("TCP port kept", _word(self.port_preserved), "the same"),
            ("GRE leaves here", _word(self.outward), "the server saw some of it"),
            ("GRE comes back", _word(self.inward), "an answer arrived"),
            ("GRE address", str(self.gre_address or "not tested"), "as the server saw GRE"),
            ("GRE version 0", _word(self.v0), f"{ENOUGH} of {PACKETS} packets came back"),
            ("GRE version 1, Call ID 0", _word(self.v1_zero), "in both directions"),
            ("  equal Call IDs", _word(self.v1_equal), "not 0, without a call"),
            ("  different Call IDs", _word(self.v1_different), "not 0, without a call"),
            ("  after a PPTP call", _word(self.v1_called), "with the Call IDs of that call"),
            ("PPTP call possible", _word(self.pptp_control), "TCP 1723 of the server"),
            ("Call ID rewritten", _word(self.call_id_rewritten), "on the way to the server"),
            ("PPTP helper (ALG)", str(self.alg or "not tested"), "the tests above, compared"),
            ("largest packet", str(self.mtu or "not tested"), "octets, Don't Fragment set"),
            ("forgets unanswered GRE", _seconds(self.timer_unreplied), timers),
            ("forgets answered GRE", _seconds(self.timer_replied), timers),
        ]

    def sentences(self) -> list[str]:
        """Plain words."""
        if self.outward is False:
            return ["GRE does not get out of this network at all."]
        if self.pooled:
            return [f"GRE leaves from {self.gre_address}, everything else from {self.address}: a pool of addresses."]
        told = []
        if self.inward is False:
            told.append("GRE gets out of this network, and nothing of it comes back in.")
        elif self.alg is Alg.MANDATORY:
            told.append("GRE passes only as part of a PPTP call that the NAT has seen.")
        elif self.v1_zero or self.v0:
            best = " and ".join(str(form) for form in self.forms if {Form.V1: self.v1_zero, Form.V0: self.v0}[form])
            told.append(f"GRE passes both ways, as {best}.")
        if self.call_ids is CallIds.ZERO:
            told.append("Version 1 passes with Call ID 0 alone, as on most Linux routers.")
        if self.mtu is not None and self.mtu < 1476:
            told.append(f"Packets larger than {self.mtu} octets do not pass whole.")
        return told or ["Not enough was found out to say."]

    def advice(self) -> str:
        """What to try."""
        if self.outward is False or self.inward is False:
            return "Try another network, or the relay of a rendezvous (punch.relay): no punch can work from here."
        if self.pooled:
            return "Peers cannot know that address beforehand: use the relay of a rendezvous (punch.relay)."
        if self.alg is Alg.MANDATORY:
            kept = "" if self.port_preserved else ", but this NAT may not keep the port that it needs"
            return f"A mirrored PPTP handshake is made by itself{kept}; where that fails, the relay helps."
        if self.v1_zero or self.v0:
            return "Nothing: peers behind such NATs are punched by themselves."
        return "Ask again, and with --timers where that matters."


def _word(value: bool | None) -> str:
    return "not tested" if value is None else "yes" if value else "no"


def _timer(value: tuple[int, int | None] | None) -> str:
    return "?" if value is None else f"{value[0]}-{value[1]}" if value[1] is not None else f">{value[0]}"


def _seconds(value: tuple[int, int | None] | None) -> str:
    if value is None:
        return "not tested"
    return f"after {value[0]} to {value[1]} s" if value[1] is not None else f"after more than {value[0]} s"
