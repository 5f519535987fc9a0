"""The profile: what a TOML file says, as frozen values. The names are the file's own keys.

The annotations carry the rule of each key (:mod:`grepunch.config.rules`): how its value is read and what was expected
where it cannot be. :mod:`grepunch.config.validate` lets pydantic walk them; nothing here needs pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Annotated, ClassVar

from grepunch.config import rules
from grepunch.config.faults import Fault, KeyPath, dotted
from grepunch.config.linemap import LineMap
from grepunch.config.secrets import SecretReference
from grepunch.ports import Form

CONFIG_VERSION = 1
DEFAULT_KEEPALIVE = 4.0  # seconds; the shortest GRE timers seen on NATs are a little over three times this
DEFAULT_WINDOW = 30.0  # seconds of punching, before the silence in which poisoned NATs forget


@dataclass(frozen=True, slots=True)
class Interface:
    """[interface]: the TUN device."""

    name: Annotated[str, rules.INTERFACE_NAME]
    """Name of the device, at most 15 characters."""
    address: Annotated[IPv4Interface | None, rules.INTERFACE_ADDRESS] = None
    """Our address inside the tunnel with its prefix; without it, the one that the peer gives by IPCP."""
    routes: tuple[Annotated[IPv4Network, rules.ROUTE], ...] = ()
    """Prefixes routed into the tunnel, each inside what some peer is allowed."""
    mtu: Annotated[int | None, rules.MTU] = None
    """Inner MTU in octets; "auto" (None here) takes what the path is proven to carry."""


@dataclass(frozen=True, slots=True)
class Identity:
    """[identity]: who we are."""

    private_key: Annotated[SecretReference, rules.SECRET]
    """Our private key, by reference; `grepunch-pptp genkey` makes one."""


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """[rendezvous]: where peers meet."""

    urls: tuple[Annotated[str, rules.RENDEZVOUS_URL], ...]
    """Servers, raced; wss:// everywhere, ws:// on this host only."""
    ca_file: Annotated[Path | None, rules.PATH] = None
    """Certificates (PEM) to trust instead of the system's."""


@dataclass(frozen=True, slots=True)
class Peer:
    """[[peer]]: one peer that may come, or be dialled."""

    name: Annotated[str, rules.PEER_NAME]
    """What we call it."""
    public_key: Annotated[bytes, rules.PUBLIC_KEY]
    """Its public key: 32 octets, base64 in the file."""
    preshared_key: Annotated[SecretReference | None, rules.SECRET] = None
    """A secret that both sides hold, by reference; 32 octets in base64."""
    address: Annotated[IPv4Address | None, rules.ADDRESS] = None
    """Its address inside the tunnel; without it, the one it names by IPCP."""
    allowed: tuple[Annotated[IPv4Network, rules.PREFIX], ...] = ()
    """Prefixes it may use beside its address."""
    last_known_address: Annotated[IPv4Address | None, rules.EXTERNAL_ADDRESS] = None
    """Its external address; lets it work with no rendezvous at all."""


@dataclass(frozen=True, slots=True)
class Punch:
    """[punch]: how to get through the NATs."""

    forms: Annotated[tuple[Form, ...], rules.FORMS] = (Form.V1, Form.V0)
    """Encapsulations to try; "auto" races all of them."""
    keepalive: Annotated[float, rules.KEEPALIVE] = DEFAULT_KEEPALIVE
    """Seconds between packets that keep the NATs' state alive."""
    window: Annotated[float, rules.WINDOW] = DEFAULT_WINDOW
    """Seconds of punching in one go; windows repeat, after a silence, for as long as --wait lasts."""


@dataclass(frozen=True, slots=True)
class Document:
    """The whole file. Unknown keys are refused at every depth; the strings below the keys become the schema's."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    version: Annotated[int, rules.VERSION]
    """Of this format: 1."""
    interface: Interface
    identity: Identity
    peer: tuple[Peer, ...]
    rendezvous: Rendezvous | None = None
    punch: Punch = field(default_factory=Punch)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a profile was read from, so that later faults can name the line too."""

    path: Path | None
    lines: LineMap = field(repr=False)
    overridden: frozenset[KeyPath] = frozenset()

    def fault(self, path: KeyPath, message: str) -> Fault:
        """A fault at this key: its line in the file, or the ``--set`` that gave it its value."""
        if any(path[: len(key)] == key for key in self.overridden):
            return Fault("--set", 0, dotted(path), message)
        name = self.path.name if self.path else "command line"
        return Fault(name, self.lines.line(path) if self.path else 0, dotted(path), message)


@dataclass(frozen=True, slots=True)
class Profile:
    """One validated profile. ``name`` names its lock and control socket; secrets are references still."""

    name: str
    interface: Interface
    identity: Identity
    peers: tuple[Peer, ...]
    rendezvous: Rendezvous | None = None
    punch: Punch = field(default_factory=Punch)
    source: Source = field(default_factory=lambda: Source(None, LineMap({}, 0)), compare=False, repr=False)
    warnings: tuple[Fault, ...] = field(default=(), compare=False, repr=False)
