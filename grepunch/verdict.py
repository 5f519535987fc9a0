"""The one table of outcomes: verdict word = exit code = JSON ``result`` value, with its sentence and what to try.

Every way out of the program is one of these rows. Whoever finds out why something ended says it with a
:class:`Verdict` (returned, or raised inside a :class:`Failure`); the command line renders it and exits with its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from types import MappingProxyType

from pptp.value import value

SCHEMA = 1  # of every JSON object the program prints; raised only when a field changes its meaning or goes away

Fact = str | int | float | bool


class VerdictKind(StrEnum):
    """The verdict words; the value is what JSON shows as ``result``."""

    UP = "up"
    INTERNAL = "internal"
    USAGE = "usage"
    PROFILE_INVALID = "profile_invalid"
    NO_PRIVILEGE = "no_privilege"
    UNSUPPORTED_HOST = "unsupported_host"
    ALREADY_RUNNING = "already_running"
    RENDEZVOUS_UNREACHABLE = "rendezvous_unreachable"
    PEER_ABSENT = "peer_absent"
    NAT_BLOCKED = "nat_blocked"
    SAME_SLOT_TAKEN = "same_slot_taken"
    NO_GRE_FROM_PEER = "no_gre_from_peer"
    AUTH_FAILED = "auth_failed"
    NOT_AGREED = "not_agreed"
    LINK_LOST = "link_lost"
    LIMIT_REACHED = "limit_reached"
    ADDRESS_CLASH = "address_clash"
    POOL_EXHAUSTED = "pool_exhausted"
    NOT_UP = "not_up"
    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"


@value
class Outcome:
    """One row of the table: the exit code, the sentence for people, and what to try (empty where nothing is wrong)."""

    exit_code: int
    sentence: str
    advice: str = ""


OUTCOMES: Mapping[VerdictKind, Outcome] = MappingProxyType(
    {
        VerdictKind.UP: Outcome(0, "It worked."),
        VerdictKind.INTERNAL: Outcome(
            1, "This is a fault of the program itself.", "Please report it, with the lines above and what you did."
        ),
        VerdictKind.USAGE: Outcome(
            2,
            "The command line cannot be used as it stands.",
            "See `grepunch-pptp --help` or `grepunch-pptp COMMAND --help`.",
        ),
        VerdictKind.PROFILE_INVALID: Outcome(
            3,
            "The profile cannot be used.",
            "Correct the lines named above; `grepunch-pptp profile check` repeats this.",
        ),
        VerdictKind.NO_PRIVILEGE: Outcome(
            4,
            "The privilege for this is missing.",
            "Run it as root, or with CAP_NET_ADMIN and CAP_NET_RAW (the systemd unit in configs/ gives just these).",
        ),
        VerdictKind.UNSUPPORTED_HOST: Outcome(
            5, "This host lacks something that is needed.", "Provide what is named above, then start again."
        ),
        VerdictKind.ALREADY_RUNNING: Outcome(
            6,
            "It is running already, or what it needs is busy.",
            "See `grepunch-pptp status`; end the other one first.",
        ),
        VerdictKind.RENDEZVOUS_UNREACHABLE: Outcome(
            10,
            "No rendezvous could be reached.",
            "Check rendezvous.urls and the way there (DNS, TCP, the certificate); "
            "with peer.last_known_address it works without one.",
        ),
        VerdictKind.PEER_ABSENT: Outcome(
            11,
            "The peer is absent, or its key is not the one you pinned: to a stranger both look the same.",
            "Start the peer, and compare its public key (`grepunch-pptp pubkey`) with the one in your profile, "
            "and yours with the one in its.",
        ),
        VerdictKind.NAT_BLOCKED: Outcome(
            12,
            "GRE does not get through between the two NATs.",
            "Try another network on the blocked side, or ask who runs it to let GRE (IP protocol 47) pass.",
        ),
        VerdictKind.SAME_SLOT_TAKEN: Outcome(
            12,
            "Another host behind the same NAT already has a GRE session with this peer, and GRE has no ports to share.",
            "Let one host of that network own the session and forward for the others.",
        ),
        VerdictKind.NO_GRE_FROM_PEER: Outcome(
            12,
            "The peer was present, but not one GRE packet came from it.",
            "Look at the peer's side: its host firewall, then its NAT (GRE is IP protocol 47).",
        ),
        VerdictKind.AUTH_FAILED: Outcome(
            13,
            "Authentication failed.",
            "Compare the pre-shared keys of both profiles (or user and password); if they agree, someone tampers.",
        ),
        VerdictKind.NOT_AGREED: Outcome(
            14, "The two sides could not agree.", "Compare the two offers above and change one of the profiles."
        ),
        VerdictKind.LINK_LOST: Outcome(
            15, "The link was up and got lost.", "Start again, or use `--retry forever` to have it come back by itself."
        ),
        VerdictKind.LIMIT_REACHED: Outcome(16, "A limit was reached.", "Wait, or raise the limit that is named above."),
        VerdictKind.ADDRESS_CLASH: Outcome(
            17,
            "An address of this profile is already in use on this host.",
            "Choose another interface.address or prefix, on both sides.",
        ),
        VerdictKind.POOL_EXHAUSTED: Outcome(
            17, "No address is left to hand out.", "Enlarge the pool, or end sessions that are no longer needed."
        ),
        VerdictKind.NOT_UP: Outcome(
            20, "It is not up.", "Start it with `grepunch-pptp serve` or `grepunch-pptp dial`."
        ),
        VerdictKind.INTERRUPTED: Outcome(130, "Interrupted."),
        VerdictKind.TERMINATED: Outcome(143, "Ended by a signal."),
    }
)


@value
class Verdict:
    """How something ended.

    ``detail`` is what was seen, in words; ``advice`` replaces the table's where more is known; ``facts`` are values
    for programs (``direction``, ``stage``, ...), in snake_case and without secrets. ``command_status`` is the exit
    status of the command that ``--exec`` ran, which then is the program's own.
    """

    kind: VerdictKind
    detail: str = ""
    advice: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    command_status: int | None = None

    @property
    def ok(self) -> bool:
        """Whether everything that was asked for happened."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """What the process exits with."""
        if self.kind is VerdictKind.UP and self.command_status is not None:
            return self.command_status
        return OUTCOMES[self.kind].exit_code

    @property
    def sentence(self) -> str:
        """The table's sentence."""
        return OUTCOMES[self.kind].sentence

    @property
    def try_next(self) -> str:
        """What to try: the finder's advice, else the table's."""
        return self.advice or OUTCOMES[self.kind].advice

    def lines(self) -> list[str]:
        """For people: word and sentence, what was seen, what to try."""
        lines = [f"{self.kind}: {self.sentence}"]
        lines += [
            f"  seen: {line}" if index == 0 else f"        {line}" for index, line in enumerate(self._detail_lines())
        ]
        if self.try_next:
            lines.append(f"  try:  {self.try_next}")
        return lines

    def as_json(self) -> dict[str, object]:
        """For programs: one object; what is absent is left out."""
        value: dict[str, object] = {
            "schema": SCHEMA,
            "event": "verdict",
            "result": str(self.kind),
            "exit_code": self.exit_code,
            "sentence": self.sentence,
        }
        if self.detail:
            value["detail"] = self.detail
        if self.try_next:
            value["advice"] = self.try_next
        if self.command_status is not None:
            value["command_status"] = self.command_status
        if self.facts:
            value["facts"] = dict(self.facts)
        return value

    def _detail_lines(self) -> list[str]:
        return self.detail.splitlines()


class Failure(Exception):
    """Carries a verdict up to the command line from wherever nothing more can be done."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"{verdict.kind}: {verdict.detail or verdict.sentence}")
        self.verdict = verdict


def failure(kind: VerdictKind, detail: str = "", advice: str = "", **facts: Fact) -> Failure:
    """A :class:`Failure` of this kind, ready to raise."""
    return Failure(Verdict(kind, detail, advice, facts))
