"""Profiles of ordinary PPTP for the tests: a server, a client, and one that has peers and clients."""

from __future__ import annotations

from tests.config.profiles import WHOLE

SERVER = """\
version = 1
[interface]
name = "pptp-srv"
pool = "10.77.0.0/24"
dns = ["10.77.0.1", "9.9.9.9"]
push_routes = ["192.168.10.0/24"]
domain = "example.org"
[listen]
tcp = ["127.0.0.1:1723"]
max_sessions = 20
max_sessions_per_source = 3
idle_timeout = 600
session_timeout = 86400
[auth]
methods = ["mschapv2"]
users = "users.toml"
session_policy = "deny"
[legacy]
allow = ["mschapv2", "mppe128", "stateful"]
mppe = "require"
"""

CLIENT = """\
version = 1
[interface]
name = "pptp-cli"
routes = ["192.168.10.0/24"]
mss_clamp = false
[server]
host = "vpn.example.org"
[auth]
user = "alice"
password = { env = "ALICES_PASSWORD" }
[legacy]
allow = ["mschapv2", "pap", "mppe128", "cleartext"]
"""

BOTH = WHOLE.replace("mtu = 1300", 'mtu = 1300\npool = "10.77.0.0/24"') + SERVER[SERVER.index("[listen]") :]
