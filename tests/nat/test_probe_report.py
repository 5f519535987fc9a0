"""What follows from a probe's answers, and how it is said: unknown stays unknown, and nothing is forbidden."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address

import pytest

from grepunch.cli.probe import as_object
from grepunch.nat.report import Alg, CallIds, ProbeReport, Tally
from grepunch.ports import Form

SERVER, ADDRESS, OTHER = (IPv4Address(text) for text in ("192.0.2.10", "198.51.100.7", "198.51.100.8"))
NETFILTER = ProbeReport(
    SERVER, ADDRESS, port_preserved=True, v0=True, v1_zero=True, v1_equal=False, v1_different=False, v1_called=False,
    pptp_control=True, call_id_rewritten=False, gre_address=ADDRESS, outward=True, inward=True, mtu=1476,
)  # fmt: skip


def report(**changes: object) -> ProbeReport:
    from dataclasses import replace

    return replace(NETFILTER, **changes)  # type: ignore[arg-type]


def test_the_one_line() -> None:
    line = report(timer_unreplied=(20, 35), timer_replied=(200, None)).line()
    assert line == "GRE: v0=yes v1-0/0=yes v1-id=no alg=none ip=paired timer=20-35/>200 mtu=1476"
    nothing = ProbeReport(SERVER, ADDRESS).line()
    assert nothing == "GRE: v0=not tested v1-0/0=not tested v1-id=not tested alg=? ip=? timer=?/? mtu=?"


@pytest.mark.parametrize(
    ("changes", "alg", "call_ids"),
    [
        ({}, Alg.NONE, CallIds.ZERO),
        ({"v1_called": True}, Alg.OPENS, CallIds.ZERO),
        ({"v1_called": True, "v0": False, "v1_zero": False}, Alg.MANDATORY, None),
        ({"v1_called": True, "v0": None, "v1_zero": False}, Alg.OPENS, None),
        ({"v1_called": True, "v1_equal": True, "v1_different": True}, Alg.NOT_NEEDED, CallIds.ANY),
        ({"v1_equal": True}, Alg.NONE, CallIds.EQUAL),
        ({"v1_called": None}, None, CallIds.ZERO),
        ({"v1_different": None}, None, None),
    ],
)
def test_what_a_call_changes_and_which_call_ids_pass(
    changes: dict[str, object], alg: Alg | None, call_ids: CallIds | None
) -> None:
    assert (report(**changes).alg, report(**changes).call_ids) == (alg, call_ids)


def test_forms_are_ordered_and_none_is_left_out() -> None:
    for v0, zero in itertools.product((True, None, False), repeat=2):
        forms = report(v0=v0, v1_zero=zero).forms
        assert set(forms) == set(Form)
        if v0 is not zero:
            assert (forms[0] is Form.V0) == (v0 is True or zero is False)


def test_two_of_five_pass_one_does_not_and_strays_are_not_judged() -> None:
    tally = Tally()
    assert tally.passed(ADDRESS) is None
    tally.sent = 5
    assert tally.passed(ADDRESS) is False
    tally.answers = {0}
    assert tally.passed(ADDRESS) is False
    tally.sources = {OTHER}
    assert tally.passed(ADDRESS) is None
    tally.answers = {0, 3}
    assert tally.passed(ADDRESS) is True


@pytest.mark.parametrize(
    ("changes", "words", "advice"),
    [
        ({}, "GRE passes both ways, as v1-0/0 and v0.", "Nothing"),
        ({"v0": False}, "GRE passes both ways, as v1-0/0.", "Nothing"),
        ({"outward": False}, "GRE does not get out of this network at all.", "relay"),
        ({"inward": False}, "nothing of it comes back in", "relay"),
        ({"gre_address": OTHER}, "a pool of addresses", "relay"),
        ({"v0": False, "v1_zero": False, "v1_called": True}, "only as part of a PPTP call", "mirrored"),
        ({"mtu": 1400}, "larger than 1400", "Nothing"),
    ],
)
def test_plain_words_and_what_to_try(changes: dict[str, object], words: str, advice: str) -> None:
    assert words in " ".join(report(**changes).sentences())
    assert advice in report(**changes).advice()


def test_every_report_has_words_and_a_table() -> None:
    for values in itertools.product((True, None, False), repeat=4):
        some = report(v0=values[0], v1_zero=values[1], v1_called=values[2], inward=values[3])
        assert some.sentences()
        assert some.advice()
        assert all(len(row) == 3 and all(row) for row in some.rows())


def test_json_leaves_out_what_was_not_tested() -> None:
    shown = as_object(report(mtu=None, v1_called=None))
    assert "mtu" not in shown
    assert "alg" not in shown
    assert shown["address"] == "198.51.100.7"
    assert shown["forms"] == ["v1-0/0", "v0"]
    assert shown["call_ids"] == "zero"
    assert shown["schema"] == 1
