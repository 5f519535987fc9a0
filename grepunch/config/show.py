"""A profile as the document it amounts to: every default filled in, every secret still a reference."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from grepunch.config.profile import CONFIG_VERSION, Legacy, Listen, Peer, Profile, Punch, Rendezvous
from grepunch.config.secrets import describe

Table = dict[str, object]


def as_document(profile: Profile) -> Table:
    """The document, as :mod:`tomllib` would read it; it loads to an equal profile."""
    document: Table = {
        "version": CONFIG_VERSION,
        "interface": _interface(profile),
    }
    if profile.identity is not None:
        document["identity"] = {"private_key": describe(profile.identity.private_key)}
    if profile.rendezvous is not None:
        document["rendezvous"] = _rendezvous(profile.rendezvous)
    if profile.peers:
        document["peer"] = [_peer(peer) for peer in profile.peers]
        document["punch"] = _punch(profile.punch)
    if profile.listen is not None:
        document["listen"] = _listen(profile.listen)
    if profile.server is not None:
        document["server"] = _present(host=profile.server.host, port=profile.server.port)
    if profile.listen is not None or profile.server is not None:
        document["auth"] = _auth(profile)
        document["legacy"] = _legacy(profile.legacy)
    return document


def _interface(profile: Profile) -> Table:
    interface = profile.interface
    ordinary: Table = {}
    if profile.listen is not None:
        ordinary = _present(
            pool=None if interface.pool is None else str(interface.pool),
            dns=[str(server) for server in interface.dns],
            wins=[str(server) for server in interface.wins],
            domain=interface.domain,
            push_routes=[str(route) for route in interface.push_routes],
        )
    if profile.listen is not None or profile.server is not None:
        ordinary["mss_clamp"] = interface.mss_clamp
    return ordinary | _present(
        name=interface.name,
        address=None if interface.address is None else str(interface.address),
        routes=[str(route) for route in interface.routes],
        mtu="auto" if interface.mtu is None else interface.mtu,
    )


def _rendezvous(rendezvous: Rendezvous) -> Table:
    return _present(urls=list(rendezvous.urls), ca_file=None if rendezvous.ca_file is None else str(rendezvous.ca_file))


def _peer(peer: Peer) -> Table:
    return _present(
        name=peer.name,
        public_key=base64.b64encode(peer.public_key).decode("ascii"),
        preshared_key=None if peer.preshared_key is None else describe(peer.preshared_key),
        address=None if peer.address is None else str(peer.address),
        allowed=[str(prefix) for prefix in peer.allowed],
        last_known_address=None if peer.last_known_address is None else str(peer.last_known_address),
    )


def _punch(punch: Punch) -> Table:
    return _present(
        forms=[str(form) for form in punch.forms],
        keepalive=punch.keepalive,
        window=punch.window,
        relay=str(punch.relay),
    )


def _listen(listen: Listen) -> Table:
    return _present(
        tcp=[str(listener) for listener in listen.tcp],
        max_sessions=listen.max_sessions,
        max_sessions_per_source=listen.max_sessions_per_source,
        idle_timeout=listen.idle_timeout or 0,
        session_timeout=listen.session_timeout or 0,
        interface=listen.interface,
    )


def _auth(profile: Profile) -> Table:
    auth = profile.auth
    methods = [str(method) for method in auth.methods or profile.legacy.methods]
    if profile.server is not None:
        password = None if auth.password is None else describe(auth.password)
        return _present(methods=methods, user=auth.user, password=password)
    return _present(methods=methods, users=str(auth.users), session_policy=str(auth.session_policy))


def _legacy(legacy: Legacy) -> Table:
    return _present(
        allow=[str(weakness) for weakness in legacy.allow],
        mppe=str(legacy.policy),
        mppe_mode=str(legacy.modes),
    )


def _present(**values: object) -> Table:
    return {key: value for key, value in values.items() if value is not None}


def as_toml(document: Mapping[str, object]) -> str:
    """The document as TOML."""
    sections = []
    for key, value in document.items():
        if isinstance(value, dict):
            sections.append(f"[{key}]\n{_pairs(value)}")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            sections += [f"[[{key}]]\n{_pairs(item)}" for item in value]
        else:
            sections.append(f"{key} = {_value(value)}")
    return "\n\n".join(sections)


def _pairs(table: Mapping[str, object]) -> str:
    return "\n".join(f"{key} = {_value(value)}" for key, value in table.items())


def _value(value: object) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case _:  # JSON's text, numbers and booleans are TOML's, but for U+007F
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
