"""Configuration options: one small object per option, and the four views of an option set.

A :class:`Rule` knows one option from both sides: what we ask for, what we make of the peer's answers, and what we
answer to the peer's request (RFC 1661 section 5.1 to 5.4). :class:`Options` puts the rules of one control protocol
together and keeps want, allow, local and remote apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pptp.errors import PeerViolation, WireCause, WireError
from pptp.value import value
from pptp.wire.cp import Code, Option, build_options, parse_options


@value
class Ack:
    """The peer's option is acceptable as it is."""


@value
class Nak:
    """The option is known, its value is not acceptable; ``value`` would be."""

    value: bytes


@value
class Rej:
    """The option is not known here, or not to be had."""


Verdict = Ack | Nak | Rej


class Rule(ABC):
    """One configuration option. The defaults are those of an option that we never ask for and can do without.

    ``review``, ``countered`` and ``agreed`` raise :class:`PeerViolation` where no further answer can help; the
    negotiation then ends as not agreed, with that sentence.
    """

    type: int
    name: str

    def required_locally(self) -> bool:
        """Whether the negotiation is worthless when the peer refuses our option."""
        return False

    def required_remotely(self) -> bool:
        """Whether the negotiation is worthless when the peer will not ask what ``missing`` says."""
        return False

    def want(self) -> bytes | None:
        """The value to ask for at the start of a negotiation, ``None``: do not ask."""
        return None

    def countered(self, asked: bytes | None, suggested: bytes) -> bytes | None:
        """What to ask for after the peer's Nak, ``None``: leave the option out. ``asked`` None: we had left it out."""
        return None

    def agreed(self, value: bytes | None) -> None:  # noqa: B027 -- most options are content with any agreement
        """The peer has acknowledged ``value``, or a request without this option."""

    @abstractmethod
    def review(self, value: bytes, own: bytes | None) -> Verdict:
        """Judge the peer's request; ``own`` is what we are asking for ourselves."""

    def missing(self) -> bytes | None:
        """What the peer should have asked for where it left the option out, ``None``: nothing."""
        return None


@value
class Reply:
    """Our answer to a Configure-Request, and what the peer gets if the answer is an Ack."""

    code: Code
    data: bytes
    accepted: Mapping[int, bytes]


@dataclass(slots=True)
class Options:
    """The option set of one control protocol.

    *want* is what the rules would like to ask for, *allow* the rules by option type (any other type is rejected),
    *local* what our Configure-Request says now, *remote* what we have acknowledged to the peer. Once the layer is
    up, local and remote are what was agreed.
    """

    allow: Mapping[int, Rule]
    local: dict[int, bytes] = field(default_factory=dict)
    remote: Mapping[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> Options:
        """The option set of ``rules``; we ask in their order."""
        return cls({rule.type: rule for rule in rules})

    def restart(self) -> None:
        """Begin anew with what we want."""
        wanted = ((rule.type, rule.want()) for rule in self.allow.values())
        self.local = {kind: value for kind, value in wanted if value is not None}
        self.remote = {}

    def request(self) -> bytes:
        """The option list of our Configure-Request."""
        return build_options(Option(kind, value) for kind, value in self.local.items())

    def review(self, data: bytes, *, may_nak: bool) -> Reply:
        """Answer the option list of a Configure-Request; the list of an Ack is the request's, octet for octet.

        A Reject goes before a Nak and the two never mix (RFC 1661 section 5.3, 5.4). Of a repeated option the first
        counts. Without ``may_nak`` (Max-Failure was reached) what would be a Nak is a Reject, and nothing is
        appended. Raises :class:`WireError`, or :class:`PeerViolation` where it cannot end well.
        """
        accepted: dict[int, bytes] = {}
        naks: list[Option] = []
        rejects: list[Option] = []
        seen: set[int] = set()
        for option in parse_options(data):
            if option.type in seen:
                continue
            seen.add(option.type)
            rule = self.allow.get(option.type)
            match rule.review(option.value, self.local.get(option.type)) if rule else Rej():
                case Ack():
                    accepted[option.type] = option.value
                case Nak(value) if may_nak:
                    naks.append(Option(option.type, value))
                case _:
                    rejects.append(option)
        if rejects:
            return Reply(Code.CONFIGURE_REJECT, build_options(rejects), {})
        naks += self._demands(seen, may_nak=may_nak)
        if naks:
            return Reply(Code.CONFIGURE_NAK, build_options(naks), {})
        return Reply(Code.CONFIGURE_ACK, data, accepted)

    def _demands(self, seen: set[int], *, may_nak: bool) -> list[Option]:
        """What the request lacks."""
        demands = []
        for rule in self.allow.values():
            value = None if rule.type in seen else rule.missing()
            if value is None:
                continue
            if may_nak:
                demands.append(Option(rule.type, value))
            elif rule.required_remotely():
                raise PeerViolation(f"the peer will not ask for {rule.name} {_show(value)}")
        return demands

    def acknowledged(self) -> None:
        """The peer acknowledged our request; raises :class:`PeerViolation` where the result is of no use."""
        for rule in self.allow.values():
            rule.agreed(self.local.get(rule.type))

    def take_naks(self, data: bytes) -> None:
        """Take the peer's suggestions into our next request; raises :class:`WireError`, :class:`PeerViolation`."""
        for option in parse_options(data):
            rule = self.allow.get(option.type)
            if rule is None:
                continue
            value = rule.countered(self.local.get(option.type), option.value)
            if value is None:
                self._drop(rule, option.value)
            else:
                self.local[option.type] = value

    def take_rejects(self, data: bytes) -> None:
        """Leave out what the peer rejected; raises :class:`WireError`, :class:`PeerViolation`.

        What is rejected must stand in our request, unchanged and in its order (RFC 1661 section 5.4): else
        ``BAD_VALUE``, and the packet counts for nothing.
        """
        rejected = parse_options(data)
        ours = iter(self.local.items())
        if not rejected or not all((option.type, option.value) in ours for option in rejected):
            raise WireError("Configure-Reject", WireCause.BAD_VALUE, "rejects what was not asked")
        for option in rejected:
            self._drop(self.allow[option.type], None)

    def drop_countered(self, data: bytes) -> None:
        """Read a Nak as a Reject, because Naks do not converge."""
        for option in parse_options(data):
            if option.type in self.local:
                self._drop(self.allow[option.type], option.value)

    def _drop(self, rule: Rule, suggested: bytes | None) -> None:
        asked = self.local.pop(rule.type, None)
        if asked is not None and rule.required_locally():
            answer = "rejects it" if suggested is None else f"suggests {_show(suggested)}"
            raise PeerViolation(f"we ask for {rule.name} {_show(asked)}, the peer {answer}")


def _show(value: bytes) -> str:
    return ".".join(map(str, value)) if len(value) == 4 else value.hex() or "(empty)"
