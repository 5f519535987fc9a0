"""A profile as the document it amounts to: every default filled in, every secret still a reference."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from grepunch.config.profile import CONFIG_VERSION, Interface, Peer, Profile, Punch, Rendezvous
from grepunch.config.secrets import describe

Table = dict[str, object]


def as_document(profile: Profile) -> Table:
    """The document, as :mod:`tomllib` would read it; it loads to an equal profile."""
    document: Table = {
        "version": CONFIG_VERSION,
        "interface": _interface(profile.interface),
        "identity": {"private_key": describe(profile.identity.private_key)},
    }
    if profile.rendezvous is not None:
        document["rendezvous"] = _rendezvous(profile.rendezvous)
    document["peer"] = [_peer(peer) for peer in profile.peers]
    document["punch"] = _punch(profile.punch)
    return document


def _interface(interface: Interface) -> Table:
    return _present(
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
    return _present(forms=[str(form) for form in punch.forms], keepalive=punch.keepalive, window=punch.window)


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
