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


def profile_template(name: str, role: Role) -> str:
    """The text of a new profile for this side."""
    first, second = "10.66.0.1", "10.66.0.2"
    serving = role is Role.SERVE
    return _TEMPLATE.format(
        name=name,
        device=f"gp-{name}"[:15].rstrip(".-_"),
        own=first if serving else second,
        theirs=second if serving else first,
        peer="laptop" if serving else "office",
        key=PEER_KEY,
    )
