"""What a profile amounts to for calls: methods and encryption, device, addresses and sizes."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from grepunch.ordinary.interface import planned
from grepunch.ordinary.terms import (
    device_mtu,
    device_name,
    dialling_terms,
    encryption_word,
    own_address,
    random_identifier,
    serving_terms,
    warning,
)
from pptp.crypto.mppe import MppeMode
from pptp.crypto.mppe_keys import Strength
from tests.config.ordinary_profiles import BOTH, CLIENT, SERVER
from tests.config.profiles import read

LEGACY = 'allow = ["mschapv2", "mppe128", "stateful"]\nmppe = "require"\n'
IDENTIFIER = bytes(range(8))


def server(legacy: str, methods: str = "") -> str:
    assert LEGACY in SERVER
    return SERVER.replace(LEGACY, legacy).replace('methods = ["mschapv2"]\n', methods)


@pytest.mark.parametrize(
    ("legacy", "methods", "mppe"),
    [
        ('allow = ["mschapv2", "mppe128"]\n', ["c22381"], (True, {128}, True, False)),
        (LEGACY, ["c22381"], (True, {128}, True, True)),
        (LEGACY + 'mppe_mode = "stateful"\n', ["c22381"], (True, {128}, False, True)),
        (
            'allow = ["pap", "chap", "mschapv2", "mppe40", "mppe56", "cleartext"]\n',
            ["c22381", "c22305", "c023"],
            (False, {40, 56}, True, False),
        ),
        ('allow = ["pap", "cleartext"]\n', ["c023"], None),
        ('allow = ["mschapv2", "mppe128", "cleartext"]\nmppe = "refuse"\n', ["c22381"], None),
    ],
)
def test_methods_the_best_first_and_mppe_as_allowed(
    legacy: str, methods: list[str], mppe: tuple[bool, set[int], bool, bool] | None
) -> None:
    terms = serving_terms(read(server(legacy)), lambda name: None, IDENTIFIER).terms
    assert [authenticator.option.hex() for authenticator in terms.authenticators] == methods
    assert terms.interface_identifier == IDENTIFIER
    if mppe is None:
        assert terms.mppe is None
    else:
        policy = terms.mppe
        assert policy is not None
        assert (policy.required, set(map(int, policy.strengths)), policy.stateless, policy.stateful) == mppe


def test_a_client_proves_itself_in_every_allowed_way_and_asks_for_its_address() -> None:
    config = dialling_terms(read(CLIENT.replace("[server]", 'address = "10.77.0.5/24"\n[server]')), "secret")
    assert config.dials
    assert [method.option.hex() for method in config.terms.authenticatees] == ["c22381", "c023"]
    assert str(config.terms.address) == "10.77.0.5"
    assert "secret" not in repr(config)


def test_sizes_devices_and_addresses() -> None:
    encrypted, clear = read(SERVER), read(server('allow = ["pap", "cleartext"]\n'))
    assert (device_mtu(encrypted), device_mtu(clear)) == (1396, 1400)
    assert device_mtu(read(SERVER, "interface.mtu=1280")) == 1280
    assert own_address(encrypted) == IPv4Interface("10.77.0.1/24")
    assert own_address(read(SERVER, "interface.address=10.77.0.254/24")) == IPv4Interface("10.77.0.254/24")
    both = read(BOTH)
    assert own_address(both) == IPv4Interface("10.77.0.1/24"), "interface.address is the peers' side's"
    assert (device_name(encrypted), device_name(both)) == ("pptp-srv", "gp-office-pptp")
    assert device_mtu(both) == 1396, "interface.mtu is the peers' device's"
    assert device_name(read(BOTH, "listen.interface=dialin")) == "dialin"


def test_a_dry_run_names_device_addresses_and_ports() -> None:
    lines = planned(read(SERVER, "interface.address=10.78.0.1/24"))
    assert "ip address add 10.78.0.1/24 dev pptp-srv" in lines
    assert "ip route add 10.77.0.0/24 dev pptp-srv proto 171" in lines, "a pool beside our own network needs a route"
    assert "# listen at TCP 127.0.0.1:1723" in lines
    assert "ip route add 192.168.10.0/24 dev pptp-cli proto 171" in planned(read(CLIENT))


def test_words_for_people() -> None:
    strong, weak = MppeMode(Strength.BITS_128, stateless=True), MppeMode(Strength.BITS_40, stateless=False)
    assert encryption_word(strong, strong) == "mppe128 stateless"
    assert encryption_word(None, None) == "none"
    assert encryption_word(strong, weak) == "mppe128 stateless out, mppe40 stateful in"
    assert "mschapv2, mppe128" in warning(read(SERVER))


def test_an_interface_identifier_is_local_and_not_zero() -> None:
    assert random_identifier(bytes(8)) == bytes(7) + b"\x01"
    assert random_identifier(b"\xff" * 8)[0] == 0xFD
