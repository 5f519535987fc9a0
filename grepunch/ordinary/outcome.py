"""How a call ended, in the words of the one table of verdicts, and in the number that a Windows client shows."""

from __future__ import annotations

from grepunch.verdict import Verdict, VerdictKind
from pptp.errors import Terminated, TerminationCause

# A server of ours tells a client why it is turned away, in LCP's Terminate-Request; the first word is the verdict's.
POOL_EXHAUSTED = f"{VerdictKind.POOL_EXHAUSTED}: "
LIMIT_REACHED = f"{VerdictKind.LIMIT_REACHED}: "
_TOLD = {POOL_EXHAUSTED: VerdictKind.POOL_EXHAUSTED, LIMIT_REACHED: VerdictKind.LIMIT_REACHED}

_KINDS = {
    TerminationCause.NO_GRE: VerdictKind.NO_GRE_FROM_PEER,
    TerminationCause.AUTHENTICATION: VerdictKind.AUTH_FAILED,
    TerminationCause.ENCRYPTION: VerdictKind.NOT_AGREED,
    TerminationCause.NOT_AGREED: VerdictKind.NOT_AGREED,
    TerminationCause.REFUSED: VerdictKind.NOT_AGREED,
    TerminationCause.POOL_EXHAUSTED: VerdictKind.POOL_EXHAUSTED,
    TerminationCause.LIMIT_REACHED: VerdictKind.LIMIT_REACHED,
    TerminationCause.DENIED: VerdictKind.LIMIT_REACHED,
    TerminationCause.PEER_SILENT: VerdictKind.PEER_ABSENT,
    TerminationCause.TIMEOUT: VerdictKind.NOT_AGREED,
    TerminationCause.PROTOCOL_ERROR: VerdictKind.NOT_AGREED,
}
_ADVICE = {
    VerdictKind.NO_GRE_FROM_PEER: (
        "Let GRE (IP protocol 47) through from the server: this host's firewall, the NAT here (it needs PPTP "
        "pass-through: on Linux nf_conntrack_pptp), the server's firewall, in this order."
    ),
    VerdictKind.AUTH_FAILED: (
        "Check auth.user and the password; some servers want the user as DOMAIN\\user, and know no other method than "
        "one that legacy.allow leaves out."
    ),
    VerdictKind.NOT_AGREED: "Compare the two offers above; legacy.allow says what this side may agree to.",
    VerdictKind.PEER_ABSENT: "Check server.host and server.port, and that a PPTP server runs there.",
    VerdictKind.LIMIT_REACHED: "Try again later, or ask who runs the server.",
    VerdictKind.POOL_EXHAUSTED: "Try again later, or ask who runs the server to enlarge its pool.",
}

# Windows' RAS error numbers (raserror.h)
_PORT_CLOSED = 619
_DISCONNECTED = 629
_AUTHENTICATION_FAILURE = 691
_NO_PROTOCOLS = 720
_LCP_TERMINATED = 734
_ENCRYPTION_REFUSED = 742
_GRE_BLOCKED = 806
_METHOD_MISMATCH = 919

_NUMBERS = {
    TerminationCause.NO_GRE: _GRE_BLOCKED,
    TerminationCause.AUTHENTICATION: _AUTHENTICATION_FAILURE,
    TerminationCause.ENCRYPTION: _ENCRYPTION_REFUSED,
    TerminationCause.POOL_EXHAUSTED: _NO_PROTOCOLS,
    TerminationCause.LIMIT_REACHED: _LCP_TERMINATED,
    TerminationCause.DENIED: _LCP_TERMINATED,
    TerminationCause.NOT_AGREED: _LCP_TERMINATED,
    TerminationCause.PROTOCOL_ERROR: _PORT_CLOSED,
}
_NO_ERROR = (TerminationCause.PEER_REQUEST, TerminationCause.LOST_CARRIER)


def windows_error(cause: Terminated, *, was_up: bool) -> int | None:
    """The number that a Windows client shows when its call ends so; None where it ended the call itself."""
    if cause.cause in _NO_ERROR:
        return None
    if was_up:
        return _DISCONNECTED
    if cause.cause is TerminationCause.NOT_AGREED:
        detail = cause.detail.lower()
        if "ipcp" in detail:
            return _NO_PROTOCOLS
        if "authentic" in detail:
            return _METHOD_MISMATCH
    return _NUMBERS.get(cause.cause, _PORT_CLOSED)


def verdict_of_call(cause: Terminated, *, was_up: bool) -> Verdict:
    """The verdict of the dialling side on a call that has ended."""
    detail = cause.detail or str(cause.cause)
    told = next((kind for prefix, kind in _TOLD.items() if prefix in detail), None)
    if told is not None:
        return Verdict(told, f"the server ended the call: {detail}", _ADVICE[told])
    if was_up and cause.cause is not TerminationCause.AUTHENTICATION:
        return Verdict(VerdictKind.LINK_LOST, f"{cause.cause}: {detail}")
    kind = _KINDS.get(cause.cause, VerdictKind.NOT_AGREED)
    if kind is VerdictKind.NOT_AGREED and cause.cause in (TerminationCause.PEER_REQUEST, TerminationCause.LOST_CARRIER):
        detail = f"the server ended the call before it was up: {detail}"
    return Verdict(kind, detail, _ADVICE.get(kind, ""))
