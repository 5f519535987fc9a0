"""The profile: what a TOML file says, as frozen values. The names are the file's own keys.

The annotations carry the rule of each key (:mod:`grepunch.config.rules`): how its value is read and what was expected
where it cannot be. :mod:`grepunch.config.validate` walks them, so they are the objects themselves here and no strings.
"""

from dataclasses import field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Annotated

from grepunch.config import ordinary_rules, rules
from grepunch.config.faults import Fault, KeyPath, dotted
from grepunch.config.legacy import (
    PPTP_PORT,
    STRENGTHS,
    AuthMethod,
    Listener,
    MppeModes,
    MppePolicy,
    SessionPolicy,
    Weakness,
)
from grepunch.config.linemap import LineMap
from grepunch.config.secrets import SecretReference
from grepunch.ports import Form, RelayPolicy
from pptp.value import value

CONFIG_VERSION = 1
DEFAULT_KEEPALIVE = 4.0  # seconds; the shortest GRE timers seen on NATs are a little over three times this
DEFAULT_WINDOW = 30.0  # seconds of punching, before the silence in which poisoned NATs forget
DEFAULT_SESSIONS = 200
DEFAULT_SESSIONS_PER_SOURCE = 32  # behind one carrier NAT there may be many clients
DEFAULT_USERS = Path("/etc/grepunch-pptp/users.toml")


@value
class Interface:
    """[interface]: the TUN device."""

    name: Annotated[str, rules.INTERFACE_NAME]
    """Name of the device, at most 15 characters."""
    address: Annotated[IPv4Interface | None, rules.INTERFACE_ADDRESS] = None
    """Our address inside the tunnel with its prefix; without it, the private one that the only peer gives by IPCP."""
    routes: tuple[Annotated[IPv4Network, rules.ROUTE], ...] = ()
    """Prefixes routed into the tunnel, each inside what some peer is allowed."""
    mtu: Annotated[int | None, rules.MTU] = None
    """Inner MTU in octets; "auto" (None here) takes what the path is proven to carry, and 1400 for ordinary PPTP."""
    pool: Annotated[IPv4Network | None, ordinary_rules.POOL] = None
    """With [listen]: the addresses handed out; without an address above, ours is the first of them."""
    dns: tuple[Annotated[IPv4Address, rules.ADDRESS], ...] = ()
    """With [listen]: up to two name servers told to clients."""
    wins: tuple[Annotated[IPv4Address, rules.ADDRESS], ...] = ()
    """With [listen]: up to two WINS servers told to clients."""
    domain: Annotated[str | None, ordinary_rules.DOMAIN] = None
    """With [listen]: the domain told to clients that ask by DHCPINFORM."""
    push_routes: tuple[Annotated[IPv4Network, rules.ROUTE], ...] = ()
    """With [listen]: routes told to clients that ask by DHCPINFORM (options 121 and 249)."""
    mss_clamp: Annotated[bool, ordinary_rules.FLAG] = True
    """Ordinary PPTP: keep TCP segments within what the tunnel carries."""


@value
class Identity:
    """[identity]: who we are."""

    private_key: Annotated[SecretReference, rules.SECRET]
    """Our private key, by reference; `grepunch-pptp genkey` makes one."""


@value
class Rendezvous:
    """[rendezvous]: where peers meet."""

    urls: tuple[Annotated[str, rules.RENDEZVOUS_URL], ...]
    """Servers, raced; wss:// everywhere, ws:// on this host only."""
    ca_file: Annotated[Path | None, rules.PATH] = None
    """Certificates (PEM) to trust instead of the system's."""


@value
class Peer:
    """[[peer]]: one peer that may come, or be dialled."""

    name: Annotated[str, rules.PEER_NAME]
    """What we call it."""
    public_key: Annotated[bytes, rules.PUBLIC_KEY]
    """Its public key: 32 octets, base64 in the file."""
    preshared_key: Annotated[SecretReference | None, rules.SECRET] = None
    """A secret that both sides hold, by reference; 32 octets in base64."""
    address: Annotated[IPv4Address | None, rules.ADDRESS] = None
    """Its address inside the tunnel; without it, the private or allowed one that it names by IPCP."""
    allowed: tuple[Annotated[IPv4Network, rules.PREFIX], ...] = ()
    """Prefixes it may use beside its address."""
    last_known_address: Annotated[IPv4Address | None, rules.EXTERNAL_ADDRESS] = None
    """Its external address; lets it work with no rendezvous at all."""


@value
class Punch:
    """[punch]: how to get through the NATs."""

    forms: Annotated[tuple[Form, ...], rules.FORMS] = (Form.V1, Form.V0)
    """Encapsulations to try; "auto" races all of them."""
    keepalive: Annotated[float, rules.KEEPALIVE] = DEFAULT_KEEPALIVE
    """Seconds between packets that keep the NATs' state alive."""
    window: Annotated[float, rules.WINDOW] = DEFAULT_WINDOW
    """Seconds of punching in one go; windows repeat, after a silence, for as long as --wait lasts."""
    relay: Annotated[RelayPolicy, rules.RELAY] = RelayPolicy.ASK
    """Whether sealed frames may go through the rendezvous: "never", "auto" (both sides must say so), or "ask": not, but
    say where it would have helped."""


@value
class Listen:
    """[listen]: an ordinary PPTP server."""

    tcp: tuple[Annotated[Listener, ordinary_rules.LISTENER], ...] = field(
        default_factory=lambda: (Listener(IPv4Address(0), PPTP_PORT),)
    )
    """Where clients connect, as address:port; everywhere on port 1723 where it is left out."""
    max_sessions: Annotated[int, ordinary_rules.SESSIONS] = DEFAULT_SESSIONS
    """Sessions at a time."""
    max_sessions_per_source: Annotated[int, ordinary_rules.SESSIONS] = DEFAULT_SESSIONS_PER_SOURCE
    """Of these, from one address: several clients behind one NAT share theirs."""
    idle_timeout: Annotated[float | None, ordinary_rules.LIMIT] = None
    """Seconds without a packet from the client after which its session ends; 0 for none."""
    session_timeout: Annotated[float | None, ordinary_rules.LIMIT] = None
    """Seconds after which a session ends; 0 for none."""
    interface: Annotated[str | None, rules.INTERFACE_NAME] = None
    """Name of the clients' device beside the peers' one, in a profile that has [[peer]] too."""


@value
class Server:
    """[server]: the ordinary PPTP server to dial."""

    host: Annotated[str, ordinary_rules.HOST]
    """Its name or IPv4 address."""
    port: Annotated[int, ordinary_rules.PORT] = PPTP_PORT
    """Its TCP port."""


@value
class Auth:
    """[auth]: who may come, or who we are, in ordinary PPTP."""

    methods: tuple[Annotated[AuthMethod, ordinary_rules.METHOD], ...] = ()
    """How passwords are proven, the best first; all that [legacy] allows where it is left out."""
    users: Annotated[Path, rules.PATH] = DEFAULT_USERS
    """With [listen]: the users, in a file of its own, made by `grepunch-pptp user add`."""
    session_policy: Annotated[SessionPolicy, ordinary_rules.SESSION_POLICY] = SessionPolicy.REPLACE
    """With [listen]: whether a user's new session replaces the old one, is denied or allowed."""
    user: Annotated[str | None, ordinary_rules.USER] = None
    """With [server]: our name."""
    password: Annotated[SecretReference | None, rules.SECRET] = None
    """With [server]: our password, by reference."""


@value
class Legacy:
    """[legacy]: what of PPTP's own, breakable security may be used. Nothing of it is unless it is named here."""

    allow: tuple[Annotated[Weakness, ordinary_rules.WEAKNESS], ...] = ()
    """Of mschapv2, chap, pap, mppe128, mppe56, mppe40, stateful, cleartext."""
    mppe: Annotated[MppePolicy | None, ordinary_rules.MPPE] = None
    """require, allow or refuse; left out, what the strengths and cleartext in allow amount to."""
    mppe_mode: Annotated[MppeModes | None, ordinary_rules.MPPE_MODES] = None
    """stateless, stateful or any; left out, any where stateful is allowed, else stateless."""

    @property
    def strengths(self) -> tuple[Weakness, ...]:
        """The strengths of MPPE that are allowed, the strongest first."""
        return tuple(strength for strength in STRENGTHS if strength in self.allow)

    @property
    def policy(self) -> MppePolicy:
        """``mppe``, or what the rest amounts to."""
        if self.mppe is not None:
            return self.mppe
        if not self.strengths:
            return MppePolicy.REFUSE
        return MppePolicy.ALLOW if Weakness.CLEARTEXT in self.allow else MppePolicy.REQUIRE

    @property
    def modes(self) -> MppeModes:
        """``mppe_mode``, or what the rest amounts to."""
        return self.mppe_mode or (MppeModes.ANY if Weakness.STATEFUL in self.allow else MppeModes.STATELESS)

    @property
    def methods(self) -> tuple[AuthMethod, ...]:
        """The ways of authentication that are allowed, the best first."""
        return tuple(method for method in AuthMethod if Weakness(method.value) in self.allow)


@value
class Document:
    """The whole file. Unknown keys are refused at every depth."""

    version: Annotated[int, rules.VERSION]
    interface: Interface
    identity: Identity | None = None
    peer: tuple[Peer, ...] = ()
    rendezvous: Rendezvous | None = None
    punch: Punch = field(default_factory=Punch)
    listen: Listen | None = None
    server: Server | None = None
    auth: Auth = field(default_factory=Auth)
    legacy: Legacy = field(default_factory=Legacy)


@value
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


@value
class Profile:
    """One validated profile. ``name`` names its lock and control socket; secrets are references still."""

    name: str
    interface: Interface
    identity: Identity | None = None
    peers: tuple[Peer, ...] = ()
    rendezvous: Rendezvous | None = None
    punch: Punch = field(default_factory=Punch)
    listen: Listen | None = None
    server: Server | None = None
    auth: Auth = field(default_factory=Auth)
    legacy: Legacy = field(default_factory=Legacy)
    source: Source = field(default_factory=lambda: Source(None, LineMap({}, 0)), compare=False, repr=False)
    warnings: tuple[Fault, ...] = field(default=(), compare=False, repr=False)
