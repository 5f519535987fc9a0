"""A new profile, to be filled in: short, and every line with its reason."""

from __future__ import annotations

from grepunch.options import Role

PEER_KEY = "paste the peer's public key here"

_TEMPLATE = """\
# grepunch-pptp profile "{name}".
# The other side has its mirror image: its own name and key, these addresses swapped.
version = 1

[interface]
name = "{device}"                    # of the tunnel device; at most 15 characters
address = "{own}/24"              # ours inside the tunnel
routes = []                           # networks behind the peer; also in its `allowed`
mtu = "auto"

[identity]
private_key = {{ file = "/etc/grepunch-pptp/me.key" }}   # grepunch-pptp genkey FILE

[rendezvous]                          # leave it out where last_known_address is enough
urls = ["wss://meet.example.org"]

[[peer]]
name = "{peer}"
public_key = "{key}"  # what genkey printed over there
address = "{theirs}"                # its address inside the tunnel
allowed = []                          # networks it may speak for, besides its address
# last_known_address = "203.0.113.9"  # its external address: works with no rendezvous

# The defaults of [punch] are right nearly everywhere; `profile show` prints them.
"""


_SERVER = """\
# grepunch-pptp profile "{name}": a server of ordinary PPTP (Windows, NetworkManager, routers).
# Users come from `grepunch-pptp user add NAME`.
version = 1

[interface]
name = "{device}"                    # of the tunnel device; at most 15 characters
pool = "10.77.0.0/24"                 # handed out; the first address is ours
dns = ["10.77.0.1"]                   # told to clients, up to two
push_routes = []                      # networks behind this host, told to Windows

[listen]
tcp = ["0.0.0.0:1723"]

[auth]
users = "/etc/grepunch-pptp/users.toml"
session_policy = "replace"            # or deny, or allow: a user who comes a second time

[legacy]                              # PPTP's own security is breakable in a day
allow = ["mschapv2", "mppe128"]       # nothing is used that is not named here
"""

_CLIENT = """\
# grepunch-pptp profile "{name}": a client of an ordinary PPTP server.
version = 1

[interface]
name = "{device}"                    # of the tunnel device; at most 15 characters
routes = []                           # networks behind the server

[server]
host = "vpn.example.org"

[auth]
user = "alice"
password = {{ prompt = true }}          # or {{ file = "…" }}, {{ credential = "…" }}, {{ env = "…" }}

[legacy]                              # PPTP's own security is breakable in a day
allow = ["mschapv2", "mppe128"]       # nothing is used that is not named here
"""


def ordinary_template(name: str, role: Role) -> str:
    """The text of a new profile for one side of ordinary PPTP."""
    text = _SERVER if role is Role.SERVE else _CLIENT
    return text.format(name=name, device=_device("pptp", name))


def _device(prefix: str, name: str) -> str:
    return f"{prefix}-{name}"[:15].rstrip(".-_")


def profile_template(name: str, role: Role) -> str:
    """The text of a new profile for this side."""
    first, second = "10.66.0.1", "10.66.0.2"
    serving = role is Role.SERVE
    return _TEMPLATE.format(
        name=name,
        device=_device("gp", name),
        own=first if serving else second,
        theirs=second if serving else first,
        peer="laptop" if serving else "office",
        key=PEER_KEY,
    )
