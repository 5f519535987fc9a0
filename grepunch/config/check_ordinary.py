"""What no single key of ordinary PPTP can tell: which sections go together, and what [legacy] must allow for them."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from grepunch.config import ordinary_rules, rules
from grepunch.config.faults import KeyPath
from grepunch.config.legacy import STRENGTHS, AuthMethod, MppeModes, MppePolicy, Weakness
from grepunch.config.reading import Findings, read_each, read_value, table_of

# ours, because the answer to DHCPINFORM is one packet that has to fit the tunnel, and holds each route twice
MOST_PUSHED = 50

_SERVER_KEYS = ("pool", "dns", "wins", "domain", "push_routes")
_WHY = "PPTP's own security is breakable in a day, and nothing of it is used unless it is named"


def check_ordinary(data: Mapping[str, object], found: Findings) -> None:
    """Check a parsed TOML file, valid or not."""
    serves, dials, punches = "listen" in data, "server" in data, "peer" in data
    if not (serves or dials or punches):
        found.faults.append((("peer",), "nothing to do: a [[peer]], a [listen] or a [server] section is needed"))
    if dials and (serves or punches):
        other = "[listen]" if serves else "[[peer]]"
        found.faults.append((("server",), f"a profile with [server] dials that server alone: {other} goes elsewhere"))
    if punches and "identity" not in data:
        found.faults.append((("identity",), "is missing: to its peers this side is its private key"))
    _check_interface(data, serves=serves, punches=punches, found=found)
    if serves or dials:
        _check_auth(data, dials=dials, found=found)
        _check_legacy(data, found)
        return
    found.warnings += [
        ((key,), "has no effect without [listen] or [server]") for key in ("auth", "legacy") if key in data
    ]


def _check_interface(data: Mapping[str, object], *, serves: bool, punches: bool, found: Findings) -> None:
    interface = table_of(data, "interface")
    if not serves:
        found.warnings += [
            (("interface", key), "has no effect without [listen]") for key in _SERVER_KEYS if key in interface
        ]
        _check_dialled_routes(data, found)
        return
    listen = table_of(data, "listen")
    if listen.get("tcp") == []:
        found.faults.append((("listen", "tcp"), "at least one address and port is needed"))
    if "pool" not in interface:
        found.faults.append((("interface", "pool"), "is missing: [listen] needs addresses to hand out"))
    for key in ("dns", "wins"):
        if isinstance(values := interface.get(key), list) and len(values) > ordinary_rules.MOST_SERVERS:
            found.faults.append((("interface", key), f"at most {ordinary_rules.MOST_SERVERS} can be told to a client"))
    if isinstance(routes := interface.get("push_routes"), list) and len(routes) > MOST_PUSHED:
        found.faults.append((("interface", "push_routes"), f"at most {MOST_PUSHED} fit into one answer"))
    pool = read_value(interface, "pool", ordinary_rules.POOL)
    if isinstance(pool, IPv4Network):
        _check_pool(pool, data, punches=punches, found=found)
    if punches and listen.get("interface") == interface.get("name"):
        found.faults.append((("listen", "interface"), "the same as interface.name: peers and clients have one each"))


def _check_pool(pool: IPv4Network, data: Mapping[str, object], *, punches: bool, found: Findings) -> None:
    address = read_value(table_of(data, "interface"), "address", rules.INTERFACE_ADDRESS)
    if punches and isinstance(address, IPv4Interface) and pool.overlaps(address.network):
        text = f"{pool} overlaps {address.network} of interface.address, where the peers are"
        found.faults.append((("interface", "pool"), text))
    peers = data.get("peer")
    for index, peer in enumerate(peers if isinstance(peers, list) else []):
        if not isinstance(peer, dict):
            continue
        prefixes = [prefix for _, prefix in read_each(peer, "allowed", rules.PREFIX, ("peer", index))[0]]
        own = read_value(peer, "address", rules.ADDRESS)
        if isinstance(own, IPv4Address):
            prefixes.append(IPv4Network(own))
        if any(isinstance(prefix, IPv4Network) and prefix.overlaps(pool) for prefix in prefixes):
            found.faults.append((("interface", "pool"), f"{pool} overlaps what peer[{index}] has or is allowed"))


def _check_dialled_routes(data: Mapping[str, object], found: Findings) -> None:
    """A route to the server itself would lead the tunnel into the tunnel."""
    try:
        server = IPv4Address(str(table_of(data, "server").get("host")))
    except ValueError:
        return
    for path, route in read_each(table_of(data, "interface"), "routes", rules.ROUTE, ("interface",))[0]:
        if isinstance(route, IPv4Network) and server in route:
            found.faults.append((path, f"{route} contains server.host: the tunnel would be routed into itself"))


def _check_auth(data: Mapping[str, object], *, dials: bool, found: Findings) -> None:
    auth = table_of(data, "auth")
    if dials:
        found.faults += [
            (("auth", key), "is missing: [server] needs to know who we are")
            for key in ("user", "password")
            if key not in auth
        ]
    allowed = _words(table_of(data, "legacy"), "allow")
    if auth.get("methods") == []:
        found.faults.append((("auth", "methods"), "at least one method is needed"))
    for index, method in enumerate(_words(auth, "methods")):
        if method in list(AuthMethod) and method not in allowed:
            found.faults.append((("auth", "methods", index), f'legacy.allow does not name "{method}": {_WHY}'))


def _check_legacy(data: Mapping[str, object], found: Findings) -> None:
    legacy = table_of(data, "legacy")
    allowed = _words(legacy, "allow")
    methods = _words(table_of(data, "auth"), "methods") or [method for method in AuthMethod if method in allowed]
    where: KeyPath = ("legacy", "allow")
    if not any(method in allowed for method in AuthMethod):
        text = f'names no way of authentication, such as allow = ["mschapv2", "mppe128"]: {_WHY}'
        found.faults.append((where, text if allowed else f"is missing or {text}"))
        return
    strengths = [strength for strength in STRENGTHS if strength in allowed]
    clear = Weakness.CLEARTEXT in allowed
    policy = legacy.get("mppe")
    if not strengths and not clear:
        found.faults.append((where, 'names neither a strength of MPPE, such as "mppe128", nor "cleartext"'))
        return
    if policy in (MppePolicy.REQUIRE, MppePolicy.ALLOW) and not strengths:
        found.faults.append((("legacy", "mppe"), 'legacy.allow names no strength, such as "mppe128"'))
    if policy in (MppePolicy.ALLOW, MppePolicy.REFUSE) and not clear:
        found.faults.append(
            (("legacy", "mppe"), f'"{policy}" leads to links in clear: legacy.allow has no "cleartext"')
        )
    _check_keys_for_mppe(policy or (MppePolicy.ALLOW if clear else MppePolicy.REQUIRE), methods, found)
    if legacy.get("mppe_mode") in (MppeModes.STATEFUL, MppeModes.ANY) and Weakness.STATEFUL not in allowed:
        found.faults.append((("legacy", "mppe_mode"), 'legacy.allow has no "stateful"'))


def _check_keys_for_mppe(policy: object, methods: list[str], found: Findings) -> None:
    if policy == MppePolicy.REQUIRE:
        for method in methods:
            if method in (AuthMethod.PAP, AuthMethod.CHAP):
                text = f"{method} leaves no keys for the encryption that is required: allow cleartext, or drop {method}"
                found.faults.append((("legacy", "mppe"), text))


def _words(values: Mapping[str, object], key: str) -> list[str]:
    items = values.get(key)
    return [item for item in items if isinstance(item, str)] if isinstance(items, list) else []
