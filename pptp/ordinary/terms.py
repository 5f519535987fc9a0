"""What the terms of a call mean for its link, and what a peer said to encryption that the terms refuse."""

from __future__ import annotations

from pptp.errors import Terminated, TerminationCause, WireError
from pptp.ordinary.values import Admit, CallTerms, OrdinaryConfig
from pptp.ppp.auth import AuthSucceeded
from pptp.ppp.ccp import OPTION_MPPE, describe
from pptp.ppp.control_protocol import ControlProtocolPolicy
from pptp.ppp.ipcp import IpcpPolicy
from pptp.ppp.ipv6cp import Ipv6cpPolicy
from pptp.ppp.lcp_options import LcpPolicy
from pptp.ppp.policy import LinkConfig
from pptp.wire.cp import Code, parse_options, parse_packet

# ours, because the PNS opens its GRE socket only once it has read our Outgoing-Call-Reply: what comes before is lost,
# and repeated after 3 s. Whoever is spoken to first answers at once.
PAC_FIRST_REQUEST_DELAY = 0.25
# ours, because a PAC's socket is open as it replies, but its PPP may still be starting (pptpd starts a pppd)
PNS_FIRST_REQUEST_DELAY = 0.1
# ours, because a peer that cannot do without encryption leaves at once, or when its own patience with CCP ends
_OFFER_LIFE = 10.0  # seconds


def link_config(config: OrdinaryConfig, call_id: int, admit: Admit | None) -> LinkConfig:
    """The policy of one call's link; ``admit`` is the owner's, of the serving side."""
    terms = config.terms
    return LinkConfig(
        lcp=LcpPolicy(mru=terms.mru, echo_interval=terms.echo_interval, echo_failures=terms.echo_failures),
        control_protocols=_control_protocols(terms, config.dials),
        authenticators=terms.authenticators,
        authenticatees=terms.authenticatees,
        first_request_delay=PNS_FIRST_REQUEST_DELAY if config.dials else PAC_FIRST_REQUEST_DELAY,
        admit=None if admit is None else _OneAdmission(call_id, admit, bool(terms.authenticators)).ask,
    )


def _control_protocols(terms: CallTerms, dials: bool) -> tuple[ControlProtocolPolicy, ...]:
    if dials:
        addresses = IpcpPolicy(local=terms.address, ask_dns=terms.ask_dns, ask_wins=terms.ask_wins)
    else:
        addresses = IpcpPolicy(strict=True)  # the admission's stands in for it
    protocols: tuple[ControlProtocolPolicy, ...] = (addresses,)
    if terms.mppe is not None:
        protocols = (terms.mppe, *protocols)
    if terms.ipv6:
        # whoever serves keeps the one it has: what a client wants it to be called may be another client's
        fixed = not dials and terms.interface_identifier is not None
        protocols += (Ipv6cpPolicy(interface_identifier=terms.interface_identifier, fixed=fixed),)
    return protocols


class _OneAdmission:
    """Asks the owner once a call, also where LCP comes up, and the user authenticates, again."""

    __slots__ = ("_admit", "_answer", "_authenticates", "_call_id", "_user")

    def __init__(self, call_id: int, admit: Admit, authenticates: bool) -> None:
        self._call_id = call_id
        self._admit = admit
        self._authenticates = authenticates
        self._user = ""
        self._answer: IpcpPolicy | Terminated | None = None

    def ask(self, authentications: tuple[AuthSucceeded, ...]) -> IpcpPolicy | Terminated:
        """The first authentication is the peer's to us; another user than before stays out."""
        user = authentications[0].identity if self._authenticates else ""
        if self._answer is None:
            admitted = self._admit(self._call_id, user)
            self._user = user
            if isinstance(admitted, Terminated):
                self._answer = admitted
            else:
                self._answer = IpcpPolicy(
                    local=admitted.local, remote=admitted.remote, strict=True, dns=admitted.dns, wins=admitted.wins
                )
        elif user != self._user:
            return Terminated(TerminationCause.DENIED, "another user than this call began with")
        return self._answer


class RefusedEncryption:
    """What the peer asks of CCP while we refuse it, so that an end over this can name both offers."""

    __slots__ = ("_heard_at", "_wanted")

    def __init__(self) -> None:
        self._wanted = 0
        self._heard_at = 0.0

    def hear(self, information: bytes | memoryview, now: float) -> None:
        """A CCP packet of the peer."""
        try:
            packet = parse_packet(bytes(information))
            options = parse_options(packet.data) if packet.code == Code.CONFIGURE_REQUEST else ()
        except WireError:
            return
        for option in options:
            if option.type == OPTION_MPPE:
                self._wanted = int.from_bytes(option.value[:4], "big")
                self._heard_at = now

    def explain(self, reason: Terminated, now: float) -> Terminated:
        """The peer's farewell, with both offers where it had just wanted encryption."""
        recent = self._wanted and now - self._heard_at < _OFFER_LIFE
        if not recent or reason.cause is not TerminationCause.PEER_REQUEST:
            return reason
        offers = f"we refuse encryption, the peer wants {describe(self._wanted)}"
        return Terminated(TerminationCause.ENCRYPTION, f"{reason.detail}; {offers}" if reason.detail else offers)
