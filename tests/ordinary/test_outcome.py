"""How the end of a call is said: verdict, exit code and advice for the dialler, Windows' number in the server's log."""

from __future__ import annotations

import pytest

from grepunch.ordinary.outcome import LIMIT_REACHED, POOL_EXHAUSTED, verdict_of_call, windows_error
from grepunch.verdict import VerdictKind
from pptp.errors import Terminated, TerminationCause

CAUSE = TerminationCause


@pytest.mark.parametrize(
    ("cause", "detail", "kind", "number"),
    [
        (CAUSE.NO_GRE, "control connection up, no GRE from the peer for 6 s", VerdictKind.NO_GRE_FROM_PEER, 806),
        (CAUSE.AUTHENTICATION, "wrong password", VerdictKind.AUTH_FAILED, 691),
        (CAUSE.ENCRYPTION, "ours: 128; theirs: none", VerdictKind.NOT_AGREED, 742),
        (CAUSE.NOT_AGREED, "IPCP: no address", VerdictKind.NOT_AGREED, 720),
        (CAUSE.NOT_AGREED, "LCP: Authentication-Protocol", VerdictKind.NOT_AGREED, 919),
        (CAUSE.NOT_AGREED, "LCP did not converge", VerdictKind.NOT_AGREED, 734),
        (CAUSE.POOL_EXHAUSTED, "all 5 addresses are taken", VerdictKind.POOL_EXHAUSTED, 720),
        (CAUSE.LIMIT_REACHED, "listen.max_sessions is 5", VerdictKind.LIMIT_REACHED, 734),
        (CAUSE.PEER_SILENT, "no answer", VerdictKind.PEER_ABSENT, 619),
        (CAUSE.PROTOCOL_ERROR, "bad magic", VerdictKind.NOT_AGREED, 619),
        (CAUSE.TIMEOUT, "not up within 60 s", VerdictKind.NOT_AGREED, 619),
        (CAUSE.PEER_REQUEST, "", VerdictKind.NOT_AGREED, None),
    ],
)
def test_before_it_was_up(cause: TerminationCause, detail: str, kind: VerdictKind, number: int | None) -> None:
    end = Terminated(cause, detail)
    verdict = verdict_of_call(end, was_up=False)
    assert verdict.kind is kind
    assert detail in verdict.detail
    assert verdict.try_next
    assert windows_error(end, was_up=False) == number


@pytest.mark.parametrize("cause", [c for c in CAUSE if c is not CAUSE.AUTHENTICATION])
def test_once_it_was_up_it_is_lost(cause: TerminationCause) -> None:
    end = Terminated(cause, "")
    assert verdict_of_call(end, was_up=True).kind is VerdictKind.LINK_LOST
    assert windows_error(end, was_up=True) in (629, None)


@pytest.mark.parametrize("cause", CAUSE)
@pytest.mark.parametrize("was_up", [True, False])
def test_every_cause_has_a_verdict_with_words(cause: TerminationCause, was_up: bool) -> None:
    verdict = verdict_of_call(Terminated(cause), was_up=was_up)
    assert verdict.detail
    assert not verdict.ok


def test_what_a_server_of_ours_says_is_understood() -> None:
    """It arrives as the data of LCP's Terminate-Request, within whatever the link makes of that."""
    for prefix, kind in ((POOL_EXHAUSTED, VerdictKind.POOL_EXHAUSTED), (LIMIT_REACHED, VerdictKind.LIMIT_REACHED)):
        end = Terminated(CAUSE.PEER_REQUEST, f'the peer closed the link ("{prefix}all are taken")')
        assert verdict_of_call(end, was_up=False).kind is kind
