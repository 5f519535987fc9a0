"""grepunch-pptp: a PPTP-compatible VPN endpoint that punches GRE through NATs. Everything that touches the world."""

__version__ = "0.1.0"
