"""The commands by name. A command's module is imported when it is used, so that `--help` answers at once."""

from __future__ import annotations

import importlib

import click

from grepunch import __version__
from grepunch.text import nearest

PROGRAM = "grepunch-pptp"

# command -> (module, attribute, what it does)
COMMANDS = {
    "serve": ("grepunch.cli.endpoint", "serve", "Wait for the peers and clients of a profile."),
    "dial": ("grepunch.cli.endpoint", "dial", "Bring up the tunnel to a peer or server."),
    "demo": ("grepunch.cli.demo", "demo", "Two peers behind two symmetric NATs, on this machine."),
    "rendezvous": ("grepunch.cli.rendezvous", "rendezvous", "The server where peers meet."),
    "probe": ("grepunch.cli.probe", "probe", "What the NATs of this network do with GRE."),
    "status": ("grepunch.cli.status", "status", "What is running, and how it is."),
    "genkey": ("grepunch.cli.keys", "genkey", "Make a private key."),
    "pubkey": ("grepunch.cli.keys", "pubkey", "The public key of a private key."),
    "user": ("grepunch.cli.users", "user", "Who may dial in by ordinary PPTP."),
    "profile": ("grepunch.cli.profile", "profile", "Write, show and check profiles."),
    "completion": ("grepunch.cli.completion", "completion", "Completion for bash, zsh and fish."),
}


class LazyGroup(click.Group):
    """A group over :data:`COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table, which is the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101  the table above
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown command comes with the one that was probably meant."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            meant = nearest(args[0], COMMANDS)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {meant!r}?" if meant else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


EXAMPLES = """\b
Examples:
  grepunch-pptp demo                       see it work; no root, no network
  grepunch-pptp genkey /etc/grepunch-pptp/me.key
  grepunch-pptp profile new office > /etc/grepunch-pptp/office.toml
  grepunch-pptp serve office               on one side
  grepunch-pptp dial office                on the other
"""


@click.group(
    cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80}
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
def app() -> None:
    """A tunnel between two machines behind NATs that pass GRE and nothing else.
    Ordinary PPTP clients are served, and ordinary servers dialled, as well.

    Exit codes: 0 up, 2 usage, 3 profile, 4 privilege, 5 host, 6 running already,
    10 rendezvous, 11 peer absent, 12 NAT, 13 keys or password, 14 not agreed,
    15 link lost, 16 limit, 17 address or pool, 20 not up.
    """
