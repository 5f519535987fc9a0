"""`completion`: the shell's side of tab completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from grepunch.cli.common import emit

EXAMPLES = """\b
Examples:
  eval "$(grepunch-pptp completion bash)"       in ~/.bashrc
  eval "$(grepunch-pptp completion zsh)"        in ~/.zshrc
  grepunch-pptp completion fish | source        in config.fish
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and profile names."""
    from grepunch.cli.app import PROGRAM, app

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"No completion for {shell}.")
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    emit(kind(app, {}, PROGRAM, variable).source())
