"""Every fault is named with its file, line and key, all of them at once."""

from __future__ import annotations

import base64
import sys

import pytest

from tests.config.profiles import KEYS, WHOLE, changed, faults


def test_all_faults_at_once_in_the_order_of_the_file() -> None:
    text = (
        WHOLE.replace("mtu = 1300", 'mtu = "big"')
        .replace('name = "branch"', 'name = "laptop"')
        .replace("keepalive = 2.5", "keepalife = 2.5")
        .replace("192.168.51.0/24", "192.168.51.7/24", 1)
    )
    assert faults(text) == [
        'office.toml:5: interface.routes[1]: expected an IPv4 prefix: did you mean "192.168.51.0/24"?, '
        'got "192.168.51.7/24"',
        'office.toml:6: interface.mtu: expected "auto" or an integer from 576 to 1500, got "big"',
        "office.toml:19: peer[1].name: the same as peer[0].name",
        "office.toml:28: punch.keepalife: unknown key: did you mean keepalive?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("version = 1", "version = 2", "1: version: expected 1, the only version there is, got 2"),
        ("version = 1", "", "1: version: is missing"),
        ('"gp-office"', '"a-name-too-long-for-it"', "3: interface.name: expected a name of at most 15"),
        ('"gp-office"', '"a b"', "3: interface.name: expected a name of at most 15"),
        ('"10.66.0.1/24"', '"10.66.0.1"', "4: interface.address: expected the IPv4 address of a host with its prefix"),
        ('"10.66.0.1/24"', '"10.66.0.0/24"', "4: interface.address: expected the IPv4 address of a host"),
        ("mtu = 1300", "mtu = 575", "6: interface.mtu: expected"),
        ("mtu = 1300", "mtu = true", "6: interface.mtu: expected"),
        ('{ file = "me.key" }', '"c2VjcmV0"', "8: identity.private_key: expected a reference"),
        ('{ file = "me.key" }', '{ flie = "me.key" }', "did you mean file?"),
        ('{ file = "me.key" }', '{ file = "a", env = "B" }', "8: identity.private_key: expected a reference"),
        ('{ credential = "laptop.psk" }', '{ credential = "../x" }', "15: peer[0].preshared_key: expected the name"),
        ('"wss://meet.example.org"', '"ws://meet.example.org"', "10: rendezvous.urls[0]: expected wss://"),
        ('"wss://meet.example.org"', '"https://meet.example.org"', "10: rendezvous.urls[0]: expected a URL"),
        ('"wss://meet.example.org"', '"wss://u:pw@meet.example.org"', "10: rendezvous.urls[0]: expected a URL without"),
        (KEYS[0], "AAAA", "14: peer[0].public_key: expected a public key"),
        (f'"{KEYS[0]}"', "7", "14: peer[0].public_key: expected a public key"),
        (f'"{KEYS[0]}"', '"' + "A" * 43 + '="', "14: peer[0].public_key: expected a public key, and this one is all z"),
        (KEYS[1], KEYS[0], "20: peer[1].public_key: the same as peer[0].public_key"),
        ('"10.66.0.2"', '"10.66.0.3"', "21: peer[1].address: 10.66.0.3 overlaps 10.66.0.3 of peer[0].address"),
        ('"10.66.0.2"', '"10.66.0.1"', "16: peer[0].address: the same as interface.address, which is ours"),
        ('"10.66.0.2"', '"192.168.50.4"', "23: peer[1].allowed[0]: 192.168.50.0/24 overlaps 192.168.50.4 of peer[0]"),
        ('address = "10.66.0.2"\n', "", "12: peer[0].address: is missing: with several peers each needs its own"),
        ('address = "10.66.0.1/24"\n', "", "2: interface.address: is missing: with several peers none may choose it"),
        ('"203.0.113.9"', '"224.0.0.1"', "17: peer[0].last_known_address: expected the IPv4 address the peer is seen"),
        ('"203.0.113.9"', '"192.168.50.7"', "5: interface.routes[0]: 192.168.50.0/24 contains peer[0].last_known"),
        ('routes = ["192.168.50.0/24",', 'routes = ["0.0.0.0/0",', "5: interface.routes[0]: expected a prefix longer"),
        (
            'routes = ["192.168.50.0/24",',
            'routes = ["128.0.0.0/1",',
            "5: interface.routes[0]: expected a prefix longer",
        ),
        ('routes = ["192.168.50.0/24",', 'routes = ["127.8.0.0/16",', "5: interface.routes[0]: expected a network of"),
        (
            'routes = ["192.168.50.0/24",',
            'routes = ["10.66.0.0/24",',
            "5: interface.routes[0]: 10.66.0.0/24 is the pre",
        ),
        ('routes = ["192.168.50.0/24",', 'routes = ["172.16.0.0/12",', "5: interface.routes[0]: 172.16.0.0/12 lies"),
        (
            'forms = ["v0"]',
            'forms = ["v9"]',
            '27: punch.forms: expected "auto" or a list of "v1-0/0" and "v0", got a l',
        ),
        ('forms = ["v0"]', 'forms = ["v0", "v0"]', "27: punch.forms: expected each form at most once"),
        ("keepalive = 2.5", "keepalive = nan", "28: punch.keepalive: expected seconds from 0.6 to 60, got nan"),
        ("window = 20", "window = 31", "29: punch.window: expected seconds from 5 to 30, got 31"),
        ("[punch]", "[punsh]", "26: punsh: unknown key: did you mean punch?"),
        ("[rendezvous]", "[[rendezvous]]", "9: rendezvous: expected a table, got a list"),
    ],
)
def test_each_fault_with_its_line(old: str, new: str, fault: str) -> None:
    found = faults(WHOLE.replace(old, new, 1))
    assert any(line.removeprefix("office.toml:").startswith(fault) or fault in line for line in found), found
    assert all(line.startswith("office.toml:") for line in found)


def test_without_a_rendezvous_each_peer_needs_an_address_to_punch_at() -> None:
    text = WHOLE[: WHOLE.index("[rendezvous]")] + WHOLE[WHOLE.index("[[peer]]") :]
    assert faults(text) == [
        "office.toml:15: peer[1]: needs a last_known_address, because there is no [rendezvous] to meet at"
    ]


def test_empty_lists_are_refused() -> None:
    head = WHOLE[: WHOLE.index("[[peer]]")]
    assert faults("peer = []\n" + head) == ["office.toml:1: peer: at least one [[peer]] is needed"]
    assert faults(head) == [
        "office.toml:1: peer: nothing to do: a [[peer]], a [listen] or a [server] section is needed"
    ]
    assert faults(changed('urls = ["wss://meet.example.org", "ws://127.0.0.1:8787"]', "urls = []")) == [
        "office.toml:10: rendezvous.urls: at least one URL is needed"
    ]


def test_a_key_at_fault_silences_the_checks_that_need_it() -> None:
    """A route is not said to lie outside `allowed` where `allowed` could not be read."""
    found = faults(changed('allowed = [\n  "192.168.50.0/24",', "allowed = [\n  50,"))
    assert found == ['office.toml:23: peer[1].allowed[0]: expected an IPv4 prefix such as "192.168.50.0/24", got 50']


def test_what_may_be_a_secret_is_not_repeated() -> None:
    secret = "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnQ="
    for text in (
        changed('{ file = "me.key" }', f'"{secret}"'),
        changed('{ file = "me.key" }', f'{{ env = "{secret}" }}'),
        changed('{ file = "me.key" }', f'{{ prompt = "{secret}" }}'),
        changed(f'"{KEYS[0]}"', f'"{secret}="'),
        changed('"wss://meet.example.org"', f'"wss://user:{secret}@meet.example.org"'),
    ):
        found = faults(text)
        assert found
        assert not any(secret[:20] in fault for fault in found)
    assert not any(secret in fault for fault in faults(WHOLE, f"identity.private_key={secret}"))
    assert not any(secret in fault for fault in faults(WHOLE, f"identity private_key={secret}"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("version = \n", "office.toml:1: invalid value"),
        ('version = 1\nname = "x', "office.toml:2: "),
        ("version = 1\nversion = 1\n", "office.toml:2: cannot overwrite a value"),
        ("\n\na = " + "[" * 3000, "office.toml:3: nested too deeply"),
        ("\na = '" + "x" * 5000 + "'", "office.toml:2: a line of more than 4096 characters"),
        (b"version = 1\n\xff\xfe", "office.toml:2: not UTF-8"),
        (b"#" * (256 * 1024 + 1), "office.toml:1: longer than 262144 octets"),
    ],
)
def test_syntax_errors_have_a_line(text: str | bytes, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith(fault)


def test_a_number_that_python_refuses_has_a_line() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(700)
    try:
        assert faults("\na = " + "9" * 701) == ["office.toml:2: a number with too many digits"]
    finally:
        sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("punch.window=abc", '--set: punch.window: expected seconds from 5 to 30, got "abc"'),
        ("punch.windo=5", "--set: punch.windo: unknown key: did you mean window?"),
        ("peer[7].name=x", "--set: peer[7].name: there is no peer[7]: the profile has 2"),
        ("version.x=1", "--set: version.x: version is no table"),
        ("punch[0]=1", "--set: punch[0]: punch is no list"),
        ("nothing", "--set: nothing: expected key=value, such as punch.keepalive=2"),
        ("=1", "--set: expected key=value, such as punch.keepalive=2"),
    ],
)
def test_overrides_at_fault_say_so(override: str, fault: str) -> None:
    assert fault in faults(WHOLE, override)


def test_control_characters_of_a_profile_do_not_reach_the_terminal() -> None:
    found = faults(changed('"gp-office"', '"\\u001b[2J\\u009b1m\\n"'))
    assert found
    assert all(fault.isprintable() for fault in found)


def test_no_more_than_eight_peers_are_probed_at_a_time() -> None:
    def peers(count: int) -> str:
        return "".join(
            f'[[peer]]\nname = "p{n}"\npublic_key = "{base64.b64encode(bytes([n]) * 32).decode()}"\n'
            f'address = "10.66.0.{n}"\nlast_known_address = "203.0.113.{n}"\n'
            for n in range(2, 2 + count)
        )

    head = WHOLE[: WHOLE.index("[[peer]]")].replace("routes", "# routes")
    assert faults(head + peers(8)) == []
    (fault,) = faults(head + peers(9))
    assert "peer[8].last_known_address: at most 8 peers of a profile may have one" in fault
