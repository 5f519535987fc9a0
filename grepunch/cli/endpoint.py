"""`serve` and `dial`: a profile and what was asked for, handed to the endpoint, under the signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from ipaddress import IPv4Address
from typing import Any

import click

from grepunch.cli.common import (
    CommandT,
    color_option,
    complete_profile,
    emit,
    json_option,
    reporter_for,
    set_option,
    to_capture,
    to_duration,
    to_retries,
)
from grepunch.config import Profile, ProfileInvalid, assemble, check_keys, load
from grepunch.options import DEFAULT_WAIT, Action, Capture, EndpointOptions, Role
from grepunch.progress import Level, Notice, Reporter
from grepunch.verdict import Failure, Verdict, VerdictKind
from pptp.value import value

SERVE_EXAMPLES = """\b
Examples:
  grepunch-pptp serve office
  grepunch-pptp serve dialin               [listen]: ordinary PPTP clients
  grepunch-pptp serve office --check
  grepunch-pptp serve ./office.toml --set interface.mtu=1300 --json
"""

DIAL_EXAMPLES = """\b
Examples:
  grepunch-pptp dial office
  grepunch-pptp dial office --retry forever
  grepunch-pptp dial office --exec ssh 192.168.50.4
  grepunch-pptp dial 203.0.113.9 --peer-key "$KEY" --identity me.key
  grepunch-pptp dial vpn.example.org --user alice --legacy mschapv2,mppe128
"""


@value
class _Common:
    """The options that both commands have."""

    overrides: tuple[str, ...]
    capture: Capture | None
    check: bool
    dry_run: bool
    cleanup: bool
    as_json: bool
    color: str

    def action(self) -> Action:
        """What to do with the profile."""
        if self.check + self.dry_run + self.cleanup > 1:
            raise click.UsageError("--check, --dry-run and --cleanup exclude one another.")
        return Action.DRY_RUN if self.dry_run else Action.CLEANUP if self.cleanup else Action.RUN


def _common_options(command: CommandT) -> CommandT:
    options = (
        set_option,
        click.option("--pcap", "capture", type=to_capture, metavar="FILE[:plain]", help="Capture the tunnel."),
        click.option("--check", is_flag=True, help="Check profile, files and privileges; touch nothing."),
        click.option("--dry-run", is_flag=True, help="Print every address and route it would make."),
        click.option("--cleanup", is_flag=True, help="Remove what a killed run left behind, then end."),
        json_option,
        color_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


class ExecCommand(click.Command):
    """A command whose ``--exec`` takes everything behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``--exec`` and what follows off the arguments before click sees them."""
        if "--exec" in args:
            at = args.index("--exec")
            ctx.meta["grepunch.command"] = tuple(args[at + 1 :])
            if not args[at + 1 :]:
                raise click.UsageError("--exec needs a command behind it.", ctx)
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(epilog=SERVE_EXAMPLES)
@click.argument("profile", shell_complete=complete_profile)
@_common_options
def serve(profile: str, **common: Any) -> Verdict:
    """Wait for the peers of PROFILE and, with [listen], for ordinary PPTP clients.

    PROFILE is a path, or a name looked up in /etc/grepunch-pptp and then in
    ~/.config/grepunch-pptp.
    """
    options = _Common(**common)
    action = options.action()
    loaded = load(profile, options.overrides)
    return _run(loaded, EndpointOptions(Role.SERVE, action, capture=options.capture), options)


@click.command(cls=ExecCommand, epilog=DIAL_EXAMPLES)
@click.argument("target", metavar="PROFILE|ADDRESS|HOST", shell_complete=complete_profile)
@click.option("--wait", type=to_duration, default=DEFAULT_WAIT, metavar="TIME", help="How long to try.  [default: 90s]")
@click.option("--retry", type=to_retries, default=0, metavar="forever|N", help="Begin again after a failure.")
@click.option("--exec", is_flag=True, expose_value=False, help="CMD...: run it once up, then end with its status.")
@click.option("--peer-key", metavar="KEY", help="With ADDRESS: the peer's public key.")
@click.option("--identity", metavar="FILE", help="With ADDRESS: our private key.")
@click.option("--address", metavar="IP/LEN", help="With ADDRESS: ours inside the tunnel.")
@click.option("--user", metavar="NAME", help="With HOST, an ordinary PPTP server: our name.")
@click.option("--legacy", metavar="WORDS", help="With --user: what may be used, such as mschapv2,mppe128.")
@click.option("--password-file", metavar="FILE", help="With --user: the password; else it is asked for.")
@click.option("--route", "routes", multiple=True, metavar="NET", help="With --user: a network behind the server.")
@_common_options
@click.pass_context
def dial(
    ctx: click.Context,
    /,
    target: str,
    wait: float,
    retry: int,
    peer_key: str | None,
    identity: str | None,
    address: str | None,
    user: str | None,
    legacy: str | None,
    password_file: str | None,
    routes: tuple[str, ...],
    **common: Any,
) -> Verdict:
    """Bring up the tunnel to the peer of PROFILE, to the one at ADDRESS, or to the
    ordinary PPTP server of PROFILE or at HOST."""
    options = _Common(**common)
    action = options.action()
    if user is not None:
        if peer_key or identity:
            raise click.UsageError("--user is for ordinary PPTP servers, --peer-key and --identity are for peers.")
        profile = _profile_for_server(target, user, legacy, password_file, address, routes, options.overrides)
    elif legacy is not None or password_file is not None or routes:
        raise click.UsageError("--legacy, --password-file and --route go with --user.")
    elif _is_address(target):
        profile = _profile_for(IPv4Address(target), peer_key, identity, address, options.overrides)
    elif peer_key or identity or address:
        raise click.UsageError(
            f"--peer-key, --identity and --address go with an IPv4 address, and {target!r} is none.", ctx
        )
    else:
        profile = load(target, options.overrides)
    endpoint = EndpointOptions(
        Role.DIAL,
        action,
        wait=wait,
        retry=None if retry < 0 else retry,
        command=ctx.meta.get("grepunch.command", ()),
        capture=options.capture,
    )
    return _run(profile, endpoint, options)


def _is_address(target: str) -> bool:
    try:
        IPv4Address(target)
    except ValueError:
        return False
    return True


def _profile_for(
    target: IPv4Address, peer_key: str | None, identity: str | None, address: str | None, overrides: tuple[str, ...]
) -> Profile:
    """The profile that `dial ADDRESS` amounts to."""
    if peer_key is None:
        raise click.UsageError(
            "An address alone does not say who answers there, and nothing is trusted on first use: name the peer's "
            "public key with --peer-key."
        )
    if identity is None:
        raise click.UsageError("--identity FILE is needed: our private key, as `grepunch-pptp genkey FILE` makes it.")
    data: dict[str, object] = {
        "version": 1,
        "interface": {"name": "gp-dial"} | ({"address": address} if address else {}),
        "identity": {"private_key": {"file": identity}},
        "peer": [{"name": str(target), "public_key": peer_key, "last_known_address": str(target)}],
    }
    return assemble(f"dial-{target}", data, overrides)


def _profile_for_server(
    target: str,
    user: str,
    legacy: str | None,
    password_file: str | None,
    address: str | None,
    routes: tuple[str, ...],
    overrides: tuple[str, ...],
) -> Profile:
    """The profile that `dial HOST --user U` amounts to."""
    if legacy is None:
        raise click.UsageError(
            "PPTP's own security is breakable in a day, and nothing of it is used unless it is named: "
            "--legacy mschapv2,mppe128 is the best there is."
        )
    host, colon, port = target.partition(":")
    if colon and not port.isdecimal():
        raise click.UsageError(f"{port!r} is no TCP port.")
    data: dict[str, object] = {
        "version": 1,
        "interface": {"name": "pptp-dial", "routes": list(routes)} | ({"address": address} if address else {}),
        "server": {"host": host} | ({"port": int(port)} if colon else {}),
        "auth": {"user": user, "password": {"file": password_file} if password_file else {"prompt": True}},
        "legacy": {"allow": [word.strip() for word in legacy.split(",") if word.strip()]},
    }
    return assemble(f"dial-{host}", data, overrides)


def _run(profile: Profile, endpoint: EndpointOptions, options: _Common) -> Verdict:
    reporter = reporter_for(as_json=options.as_json, color=options.color)
    for warning in profile.warnings:
        reporter.report(Notice(str(warning), Level.WARNING))
    if options.check:
        verdict = _check(profile)
        if verdict.ok and not options.as_json:
            emit(f"{profile.name}: profile, files and privileges are in order")
    else:
        verdict = run_signalled(profile, endpoint, reporter)
    reporter.finish(verdict)
    return verdict


def _check(profile: Profile) -> Verdict:
    from grepunch.interface import obstacle
    from grepunch.meetings import check_settings

    faults = check_keys(profile) + check_settings(profile)
    if faults:
        raise ProfileInvalid(faults)
    return obstacle() or Verdict(VerdictKind.UP)


def run_signalled(profile: Profile, endpoint: EndpointOptions, reporter: Reporter) -> Verdict:
    """Run an endpoint in this process until it ends, or is told to by a signal."""
    from grepunch.io.hardening import keep_memory_private
    from grepunch.io.packetloop import PacketLoop
    from grepunch.running import run_profile

    keep_memory_private()
    try:
        with asyncio.Runner(loop_factory=PacketLoop) as runner:
            return runner.run(until_signalled(run_profile(profile, endpoint, reporter)))
    except Failure as failure:
        return failure.verdict


async def until_signalled(work: Coroutine[Any, Any, Verdict]) -> Verdict:
    """Await ``work``; SIGINT and SIGTERM cancel it, and it puts everything back. A second one spares the goodbyes."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    caught: list[VerdictKind] = []

    def on_signal(kind: VerdictKind) -> None:
        caught.append(kind)
        task.cancel()

    kinds = {signal.SIGINT: VerdictKind.INTERRUPTED, signal.SIGTERM: VerdictKind.TERMINATED}
    for number, kind in kinds.items():
        loop.add_signal_handler(number, on_signal, kind)
    try:
        verdict = await task
    except asyncio.CancelledError:
        if not caught:
            raise
        verdict = Verdict(caught[0])
    finally:
        for number in kinds:
            loop.remove_signal_handler(number)
    return Verdict(caught[0], verdict.detail) if caught else verdict
