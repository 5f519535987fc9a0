"""What is decided about interfaces without touching one: names, plans, the guard's rules."""

from __future__ import annotations

import errno
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.io import nftguard
from grepunch.io.errors import AddressClash, BadName, NoPrivilege, Refused
from grepunch.io.netconf import InterfacePlan, Netconf, host_interfaces, render
from grepunch.io.tun import check_name


@pytest.mark.parametrize("name", ["gp-bob", "x" * 15, "tun0", "gp.bob@1"])
def test_names_that_the_kernel_takes(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 16, "ü" * 8, "a/b", "a b", "a:b", "a\0b", "gp%d", "a\nb"])
def test_names_that_no_interface_can_have(name: str) -> None:
    with pytest.raises(BadName):
        check_name(name)


def test_a_dry_run_tells_every_step_in_order() -> None:
    plan = InterfacePlan(
        "bob",
        "gp-bob",
        (IPv4Interface("10.66.0.1/24"), IPv6Interface("fd66::1/64")),
        1335,
        (
            IPv4Network("10.66.0.0/24"),
            IPv4Network("10.77.0.2/32"),
            IPv4Network("10.77.0.2/32"),
            IPv6Network("fd77::/48"),
        ),
        ((IPv4Network("10.77.0.2/32"), 1200),),
    )
    assert render(plan) == [
        "ip link set dev gp-bob addrgenmode none txqueuelen 500 alias grepunch-pptp:bob",
        "ip link set dev gp-bob mtu 1335",
        "ip address add 10.66.0.1/24 dev gp-bob",
        "ip address add fd66::1/64 dev gp-bob",
        "ip link set dev gp-bob up",
        "ip route add 10.77.0.2/32 dev gp-bob proto 171 mtu 1200",
        "ip route add fd77::/48 dev gp-bob proto 171",
    ]


def test_ipv6_is_left_out_of_an_interface_too_narrow_for_it() -> None:
    plan = InterfacePlan("bob", "gp-bob", (IPv6Interface("fd66::1/64"),), 1279, (IPv6Network("fd77::/48"),))
    assert not any("fd" in line for line in render(plan))


@pytest.mark.parametrize("everything", [IPv4Network("0.0.0.0/0"), IPv6Network("::/0")])
def test_a_default_route_would_swallow_the_tunnel_itself(everything: IPv4Network | IPv6Network) -> None:
    with pytest.raises(AddressClash, match="own packets"):
        InterfacePlan("bob", "gp-bob", (), 1400, (everything,))


def test_an_mtu_needs_a_plan_first() -> None:
    netconf = Netconf()
    with pytest.raises(ValueError, match="no plan"):
        netconf.set_mtu(1400)
    netconf.undo()


def test_the_guard_is_one_batch_about_one_table() -> None:
    rules = nftguard.rules("bob")
    assert rules.splitlines()[:3] == [
        "table ip grepunch_bob {}",
        "delete table ip grepunch_bob",
        "table ip grepunch_bob {",
    ]
    assert rules.count("drop") == 1


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_no_two_profiles_share_a_table_and_none_breaks_out_of_the_batch(one: str, other: str) -> None:
    name = nftguard.table_name(one)
    assert (name == nftguard.table_name(other)) is (one == other)
    assert name.replace("_", "").isalnum()
    assert name.isascii()


def test_without_the_program_the_guard_is_left_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftguard, "_SYSTEM_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    left_out = nftguard.install("bob")
    assert left_out is not None
    assert "nftables" in left_out.advice
    assert nftguard.remove("bob") is False


@pytest.mark.parametrize(
    ("refused", "kind", "said"),
    [
        (OSError(errno.EAFNOSUPPORT, "Address family not supported"), Refused, "Address family not supported"),
        (OSError(errno.EPERM, "Operation not permitted"), NoPrivilege, "CAP_NET_ADMIN"),
        (TimeoutError("timed out"), Refused, "timed out"),
    ],
)
def test_a_host_without_netlink_says_so(
    monkeypatch: pytest.MonkeyPatch, refused: OSError, kind: type[Exception], said: str
) -> None:
    def refuse() -> None:
        raise refused

    monkeypatch.setattr("grepunch.io.netconf.Rtnetlink", refuse)
    with pytest.raises(kind, match=said):
        Netconf().apply(InterfacePlan("bob", "gp-bob", (), 1335))
    with pytest.raises(kind, match="tell of its interfaces"):
        host_interfaces("gp-bob")
