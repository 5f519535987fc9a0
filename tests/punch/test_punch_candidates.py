"""Which of a peer's addresses probes may be aimed at."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grepunch.punch.candidate import (
    MAX_EXTERNAL,
    Candidate,
    CandidateKind,
    Refusal,
    is_public,
    own_candidates,
    select_targets,
)

HOME = [IPv4Interface("192.168.1.5/24")]
OURS = IPv4Address("203.0.113.9")
THEIRS = IPv4Address("198.51.100.7")


def external(address: str | IPv4Address) -> Candidate:
    return Candidate(IPv4Address(address), CandidateKind.EXTERNAL)


def lan(address: str) -> Candidate:
    return Candidate(IPv4Address(address), CandidateKind.LAN)


def known(address: str | IPv4Address) -> Candidate:
    return Candidate(IPv4Address(address), CandidateKind.KNOWN)


def test_the_external_address_is_the_target_and_the_lan_address_is_not() -> None:
    selection = select_targets(HOME, OURS, [external(THEIRS), lan("192.168.1.7")])
    assert selection.targets == (external(THEIRS),)
    assert selection.refused == ((lan("192.168.1.7"), Refusal.NOT_ON_OUR_LAN),)
    assert not selection.same_nat


def test_behind_one_nat_only_lan_addresses_within_a_connected_prefix_remain() -> None:
    selection = select_targets(HOME, OURS, [external(OURS), lan("192.168.1.7"), lan("192.168.2.7")])
    assert selection.targets == (lan("192.168.1.7"),)
    assert selection.same_nat
    assert dict(selection.refused) == {external(OURS): Refusal.SAME_NAT, lan("192.168.2.7"): Refusal.NOT_ON_OUR_LAN}


def test_behind_one_nat_without_a_common_lan_nothing_remains() -> None:
    selection = select_targets(HOME, OURS, [external(OURS), lan("10.0.0.7")])
    assert selection.same_nat
    assert not selection.targets


@pytest.mark.parametrize(
    ("address", "refusal"),
    [
        ("10.1.2.3", Refusal.PRIVATE),
        ("172.16.0.1", Refusal.PRIVATE),
        ("192.168.7.7", Refusal.PRIVATE),
        ("100.64.0.1", Refusal.PRIVATE),
        ("169.254.1.1", Refusal.PRIVATE),
        ("127.0.0.1", Refusal.NOT_A_HOST),
        ("0.0.0.1", Refusal.NOT_A_HOST),
        ("224.0.0.1", Refusal.NOT_A_HOST),
        ("255.255.255.255", Refusal.NOT_A_HOST),
        ("192.168.1.5", Refusal.OWN_ADDRESS),
    ],
)
def test_what_no_external_candidate_may_be(address: str, refusal: Refusal) -> None:
    selection = select_targets(HOME, OURS, [external(address)])
    assert not selection.targets
    assert selection.refused == ((external(address), refusal),)


def test_an_external_candidate_on_our_own_link_is_a_neighbour() -> None:
    selection = select_targets([IPv4Interface("203.0.113.9/24")], OURS, [external("203.0.113.20")])
    assert selection.targets == (lan("203.0.113.20"),)


def test_the_configured_address_may_be_private_but_must_be_another_host() -> None:
    assert select_targets(HOME, None, [known("10.9.8.7")]).targets == (known("10.9.8.7"),)
    for address in ("127.0.0.1", "224.0.0.1", "0.0.0.1"):
        assert not select_targets(HOME, None, [known(address)]).targets
    assert select_targets(HOME, OURS, [known(OURS)]).refused == ((known(OURS), Refusal.SAME_NAT),)


def test_the_number_of_targets_is_capped() -> None:
    offered = [external(f"198.51.100.{n}") for n in range(1, 60)]
    selection = select_targets(HOME, OURS, offered)
    assert selection.targets == tuple(offered[:MAX_EXTERNAL])
    assert {refusal for _, refusal in selection.refused} == {Refusal.TOO_MANY}


def test_own_candidates_name_what_others_saw_first_and_cap_the_gre_sources() -> None:
    sources = [IPv4Address(f"203.0.113.{n}") for n in range(9, 20)]
    candidates = own_candidates([*HOME, IPv4Interface("127.0.0.1/8")], OURS, sources)
    assert candidates == (external(OURS), external("203.0.113.10"), external("203.0.113.11"), lan("192.168.1.5"))


def test_documentation_ranges_are_public_and_carrier_ranges_are_not() -> None:
    assert all(is_public(IPv4Address(a)) for a in ("203.0.113.1", "198.51.100.1", "192.0.2.1", "198.18.0.1", "8.8.8.8"))
    assert not any(is_public(IPv4Address(a)) for a in ("10.0.0.1", "100.127.255.254", "172.31.0.1", "169.254.0.1"))


@given(
    st.lists(
        st.builds(Candidate, st.ip_addresses(v=4), st.sampled_from([CandidateKind.EXTERNAL, CandidateKind.LAN])),
        max_size=12,
    ),
    st.booleans(),
)
def test_no_offer_makes_us_probe_inside_addresses_off_our_links(offer: list[Candidate], same: bool) -> None:
    offer = [*offer, external(OURS)] if same else offer
    for target in select_targets(HOME, OURS, offer).targets:
        assert not target.address.is_multicast
        assert not target.address.is_loopback
        if not is_public(target.address):
            assert target.address in IPv4Network("192.168.1.0/24")
            assert target.kind is CandidateKind.LAN
