"""Profiles of ordinary PPTP: what they mean, and every way in which their sections may not fit together."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from grepunch.config.legacy import AuthMethod, Listener, MppeModes, MppePolicy, SessionPolicy, Weakness
from grepunch.config.profile import Listen
from grepunch.config.secrets import SecretVariable
from grepunch.config.show import as_document, as_toml
from grepunch.config.template import ordinary_template
from grepunch.options import Role
from tests.config.ordinary_profiles import BOTH, CLIENT, SERVER
from tests.config.profiles import WHOLE, faults, read


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_a_server_arrives_whole() -> None:
    profile = read(SERVER)
    assert profile.peers == ()
    assert profile.identity is None
    assert profile.listen == Listen(
        tcp=(Listener(IPv4Address("127.0.0.1"), 1723),),
        max_sessions=20,
        max_sessions_per_source=3,
        idle_timeout=600.0,
        session_timeout=86400.0,
    )
    assert profile.interface.pool == IPv4Network("10.77.0.0/24")
    assert profile.interface.dns == (IPv4Address("10.77.0.1"), IPv4Address("9.9.9.9"))
    assert profile.interface.push_routes == (IPv4Network("192.168.10.0/24"),)
    assert profile.interface.domain == "example.org"
    assert profile.interface.mss_clamp
    assert profile.auth.users == Path("users.toml")
    assert profile.auth.session_policy is SessionPolicy.DENY
    assert profile.legacy.strengths == (Weakness.MPPE128,)
    assert (profile.legacy.policy, profile.legacy.modes) == (MppePolicy.REQUIRE, MppeModes.ANY)


def test_a_client_arrives_whole_and_its_password_stays_a_reference() -> None:
    profile = read(CLIENT)
    assert profile.server is not None
    assert (profile.server.host, profile.server.port) == ("vpn.example.org", 1723)
    assert profile.auth.password == SecretVariable("ALICES_PASSWORD")
    assert profile.legacy.methods == (AuthMethod.MSCHAPV2, AuthMethod.PAP)
    assert not profile.interface.mss_clamp


@pytest.mark.parametrize(
    ("allow", "policy", "modes"),
    [
        (["mschapv2", "mppe128"], MppePolicy.REQUIRE, MppeModes.STATELESS),
        (["mschapv2", "mppe40", "cleartext"], MppePolicy.ALLOW, MppeModes.STATELESS),
        (["mschapv2", "mppe128", "stateful"], MppePolicy.REQUIRE, MppeModes.ANY),
        (["pap", "cleartext"], MppePolicy.REFUSE, MppeModes.STATELESS),
    ],
)
def test_what_is_allowed_says_whether_mppe_is_required(allow: list[str], policy: MppePolicy, modes: MppeModes) -> None:
    text = changed(SERVER, 'allow = ["mschapv2", "mppe128", "stateful"]\nmppe = "require"\n', f"allow = {allow}\n")
    legacy = read(changed(text, 'methods = ["mschapv2"]\n', "")).legacy
    assert (legacy.policy, legacy.modes) == (policy, modes)


@pytest.mark.parametrize("text", [SERVER, CLIENT, BOTH], ids=["server", "client", "both"])
def test_what_is_shown_loads_to_an_equal_profile(text: str) -> None:
    profile = read(text)
    shown = read(as_toml(as_document(profile)))
    assert as_document(shown) == as_document(profile)


@pytest.mark.parametrize(
    ("base", "old", "new", "fault"),
    [
        (SERVER, 'tcp = ["127.0.0.1:1723"]', 'tcp = ["1723"]', "listen.tcp[0]: expected an IPv4 address and a port"),
        (SERVER, 'tcp = ["127.0.0.1:1723"]', "tcp = []", "listen.tcp: at least one address"),
        (SERVER, "max_sessions = 20", "max_sessions = 0", "listen.max_sessions: expected an integer from 1 to 4096"),
        (SERVER, "idle_timeout = 600", "idle_timeout = -1", "listen.idle_timeout: expected seconds from 1"),
        (SERVER, "[listen]", "[lisen]", "lisen: unknown key: did you mean listen?"),
        (SERVER, 'pool = "10.77.0.0/24"\n', "", "interface.pool: is missing"),
        (SERVER, '"10.77.0.0/24"', '"10.77.0.0/31"', "interface.pool: expected a prefix from /12 to /30"),
        (SERVER, '"10.77.0.0/24"', '"10.77.0.1/24"', 'did you mean "10.77.0.0/24"?'),
        (SERVER, '"9.9.9.9"]', '"9.9.9.9", "8.8.8.8"]', "interface.dns: at most 2 can be told"),
        (
            SERVER,
            '["192.168.10.0/24"]',
            str([f"10.{n}.0.0/16" for n in range(51)]),
            "interface.push_routes: at most 50",
        ),
        (SERVER, '"example.org"', '"exa mple"', "interface.domain: expected a domain"),
        (SERVER, 'methods = ["mschapv2"]', 'methods = ["pap"]', 'auth.methods[0]: legacy.allow does not name "pap"'),
        (SERVER, 'methods = ["mschapv2"]', "methods = []", "auth.methods: at least one method"),
        (
            SERVER,
            'methods = ["mschapv2"]',
            'methods = ["eap"]',
            'auth.methods[0]: expected "mschapv2", "chap" or "pap"',
        ),
        (SERVER, '"deny"', '"kick"', 'auth.session_policy: expected "replace", "deny" or "allow"'),
        (
            SERVER,
            '[legacy]\nallow = ["mschapv2", "mppe128", "stateful"]\nmppe = "require"\n',
            "",
            "legacy.allow: is mis",
        ),
        (SERVER, '"mschapv2", "mppe128", "stateful"', '"mppe128"', "legacy.allow: names no way of authentication"),
        (SERVER, '"mschapv2", "mppe128", "stateful"', '"mschapv2"', "legacy.allow: names neither a strength of MPPE"),
        (SERVER, '"mschapv2", "mppe128", "stateful"', '"mschapv2", "cleartext"', "legacy.mppe: legacy.allow names no"),
        (SERVER, 'mppe = "require"', 'mppe = "allow"', 'legacy.mppe: "allow" leads to links in clear'),
        (SERVER, 'mppe = "require"', 'mppe_mode = "statefull"', "legacy.mppe_mode: expected"),
        (SERVER, ', "stateful"]', ']\nmppe_mode = "stateful"', 'legacy.mppe_mode: legacy.allow has no "stateful"'),
        (CLIENT, 'host = "vpn.example.org"', 'host = "300.1.1.1"', "server.host: expected the name or IPv4 address"),
        (CLIENT, 'host = "vpn.example.org"', 'host = "192.168.10.7"', "interface.routes[0]: 192.168.10.0/24 contains"),
        (CLIENT, 'user = "alice"\n', "", "auth.user: is missing"),
        (CLIENT, 'password = { env = "ALICES_PASSWORD" }\n', "", "auth.password: is missing"),
        (CLIENT, '{ env = "ALICES_PASSWORD" }', '"hunter2"', "auth.password: expected a reference"),
        (CLIENT, ', "cleartext"]', "]", "legacy.mppe: pap leaves no keys for the encryption that is required"),
        (CLIENT, "[auth]", "[listen]\n[auth]", "server: a profile with [server] dials that server alone: [listen]"),
        (BOTH, 'pool = "10.77.0.0/24"', 'pool = "10.66.0.0/24"', "interface.pool: 10.66.0.0/24 overlaps 10.66.0.0/24"),
        (BOTH, 'pool = "10.77.0.0/24"', 'pool = "192.168.50.0/25"', "overlaps what peer[1] has or is allowed"),
        (BOTH, "max_sessions = 20", 'interface = "gp-office"', "listen.interface: the same as interface.name"),
        (WHOLE, '[identity]\nprivate_key = { file = "me.key" }\n', "", "identity: is missing"),
    ],
)
def test_each_fault_is_named(base: str, old: str, new: str, fault: str) -> None:
    found = faults(changed(base, old, new))
    assert any(fault in line for line in found), found
    assert not any("hunter2" in line for line in found)


def test_keys_without_effect_are_warned_of() -> None:
    warned = [str(warning) for warning in read(changed(WHOLE, "mtu = 1300", 'pool = "10.99.0.0/24"')).warnings]
    assert warned == ["office.toml:6: interface.pool: has no effect without [listen]"]
    warned = [str(warning) for warning in read(WHOLE + '[legacy]\nallow = ["pap"]\n').warnings]
    assert warned == ["office.toml:30: legacy: has no effect without [listen] or [server]"]


@pytest.mark.parametrize("role", Role)
def test_the_templates_are_profiles_as_they_stand(role: Role) -> None:
    profile = read(ordinary_template("a-long-name-of-a-place", role))
    assert profile.warnings == ()
    assert (profile.listen is not None) is (role is Role.SERVE)
    assert profile.interface.name == "pptp-a-long-nam"
