"""Inner addresses: the longest prefix decides the way out, and nobody sends in another's name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

from grepunch.routing import REMEMBERED, AddressTable


def packed(text: str) -> bytes:
    return IPv4Address(text).packed


def table() -> AddressTable[str]:
    addresses: AddressTable[str] = AddressTable()
    addresses.add("bob", "bob!", [IPv4Network("10.66.0.2/32"), IPv4Network("192.168.0.0/16")])
    addresses.add(
        "eve", "eve!", [IPv4Network("10.66.0.3/32"), IPv4Network("192.168.50.0/24"), IPv6Network("fd00::/64")]
    )
    return addresses


def test_the_longest_prefix_wins() -> None:
    addresses = table()
    assert addresses.owner_of(packed("10.66.0.2")) == "bob!"
    assert addresses.owner_of(packed("192.168.50.9")) == "eve!"
    assert addresses.owner_of(packed("192.168.51.9")) == "bob!"
    assert addresses.owner_of(packed("8.8.8.8")) is None


def test_a_peer_sends_only_from_its_own_addresses() -> None:
    addresses = table()
    assert addresses.may_send("bob", packed("10.66.0.2"))
    assert not addresses.may_send("bob", packed("10.66.0.3"))
    assert not addresses.may_send("eve", packed("192.168.51.1"))
    assert addresses.may_send("eve", bytes.fromhex("fd000000000000000000000000000007"))
    assert not addresses.may_send("bob", bytes.fromhex("fd000000000000000000000000000007"))


def test_a_link_local_address_is_owned_by_its_interface_identifier() -> None:
    addresses = table()
    link_local = bytes.fromhex("fe80000000000000") + b"12345678"
    assert addresses.owner_of(link_local) is None
    addresses.set_interface_identifier("bob", b"12345678")
    assert addresses.owner_of(link_local) == "bob!"
    assert addresses.may_send("bob", link_local)
    assert not addresses.may_send("eve", link_local)
    addresses.add("bob", "bob!", [IPv4Network("10.66.0.2/32")])
    assert addresses.owner_of(link_local) == "bob!", "IPV6CP may be quicker than IPCP"
    addresses.set_interface_identifier("bob", None)
    assert addresses.owner_of(link_local) is None


def test_nobody_takes_the_interface_identifier_of_another_peer() -> None:
    addresses = table()
    link_local = bytes.fromhex("fe80000000000000") + b"12345678"
    addresses.set_interface_identifier("eve", b"12345678")
    addresses.set_interface_identifier("bob", b"12345678")
    assert addresses.owner_of(link_local) == "eve!"
    assert not addresses.may_send("bob", link_local)
    addresses.set_interface_identifier("eve", None)
    addresses.set_interface_identifier("bob", b"12345678")
    assert addresses.owner_of(link_local) == "bob!"


def test_multicast_needs_one_single_peer() -> None:
    everyone = bytes.fromhex("ff020000000000000000000000000001")
    assert table().owner_of(everyone) is None
    alone: AddressTable[str] = AddressTable()
    alone.add("bob", "bob!", [IPv4Network("10.66.0.2/32")])
    assert alone.owner_of(everyone) == "bob!"
    assert not alone.may_send("bob", everyone)


def test_a_scan_does_not_grow_memory() -> None:
    addresses = table()
    for n in range(3 * REMEMBERED):
        addresses.owner_of(n.to_bytes(4, "big"))
        addresses.may_send("bob", n.to_bytes(4, "big"))
    assert len(addresses._destinations) <= REMEMBERED
    assert len(addresses._owned["bob"].verdicts) <= REMEMBERED
    assert addresses.owner_of(packed("10.66.0.2")) == "bob!"
