"""`rendezvous`: the server where peers meet."""

from __future__ import annotations

import asyncio
import logging
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grepunch.verdict import Verdict, VerdictKind, failure

if TYPE_CHECKING:
    from grepunch.io.meeting_server import RendezvousServerOptions

DEFAULT_LISTEN = "127.0.0.1:8787"  # behind a proxy that does TLS

EXAMPLES = """\b
Examples:
  grepunch-pptp rendezvous --listen 0.0.0.0:443 --cert meet.pem --key meet.key
  grepunch-pptp rendezvous --listen 127.0.0.1:8787 --trusted-proxy 127.0.0.1
"""


def to_listen(value: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``[IPv6]:PORT`` or ``:PORT``."""
    host, separator, port = value.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is no HOST:PORT, such as 0.0.0.0:443.")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104  as asked for


@click.command(epilog=EXAMPLES)
@click.option(
    "--listen",
    type=to_listen,
    multiple=True,
    default=[DEFAULT_LISTEN],
    metavar="HOST:PORT",
    show_default=DEFAULT_LISTEN,
    help="Where to listen; repeatable.",
)
@click.option("--cert", type=click.Path(path_type=Path), metavar="FILE", help="TLS certificate and its chain, PEM.")
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Its private key, unless in --cert.")
@click.option("--relay", is_flag=True, help="Relay sealed frames of peers that GRE cannot join.")
@click.option(
    "--relay-rate",
    type=click.FloatRange(0.1, 10_000),
    default=8.0,
    show_default=True,
    metavar="MBIT/S",
    help="What each of two peers may send.",
)
@click.option("--gre-echo", is_flag=True, help="Answer `probe`, by GRE and on TCP 1723; needs CAP_NET_RAW.")
@click.option("--trusted-proxy", multiple=True, metavar="PREFIX", help="Believe X-Forwarded-For of these; repeatable.")
def rendezvous(
    listen: tuple[tuple[str, int], ...],
    cert: Path | None,
    key: Path | None,
    relay: bool,
    relay_rate: float,
    gre_echo: bool,
    trusted_proxy: tuple[str, ...],
) -> Verdict:
    """Run the server where peers meet.

    It needs no privilege and no disk. It learns addresses and times, never keys or
    names. Peers take wss:// only: give it a certificate, or a proxy that has one.
    """
    from grepunch.io.meeting_server import RendezvousServerOptions
    from grepunch.rendezvous.limits import BrokerLimits, RelayLimits

    try:
        proxies = tuple(ip_network(prefix) for prefix in trusted_proxy)
    except ValueError as error:
        raise click.UsageError(f"--trusted-proxy: {error}.") from None
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    limits = BrokerLimits(relay=RelayLimits.of_rate(relay_rate * 1e6 / 8) if relay else None)
    return _serve(RendezvousServerOptions(tuple(listen), cert, key, proxies, limits, gre_echo))


def _serve(options: RendezvousServerOptions) -> Verdict:
    from grepunch.cli.endpoint import until_signalled
    from grepunch.io.meeting_server import RendezvousServerError, ServerFailure, serve_rendezvous

    async def serve() -> Verdict:
        await serve_rendezvous(options)
        return Verdict(VerdictKind.UP)

    try:
        return asyncio.run(until_signalled(serve()))
    except RendezvousServerError as error:
        kind = {
            ServerFailure.ADDRESS_IN_USE: VerdictKind.ALREADY_RUNNING,
            ServerFailure.NO_PRIVILEGE: VerdictKind.NO_PRIVILEGE,
        }.get(error.failure, VerdictKind.USAGE)
        advice = "Name another port with --listen." if kind is not VerdictKind.USAGE else ""
        raise failure(kind, str(error), advice, reason=str(error.failure)) from None
