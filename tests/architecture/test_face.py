"""What a user meets first: the help screens and the examples in configs/ are whole and true."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from grepunch.cli.app import COMMANDS, app
from grepunch.config import SecretCredential, load
from tests.architecture.source_tree import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
UNITS = sorted((ROOT / "configs").glob("*.service"))
SCREEN = 50  # lines
WIDTH = 80


def commands() -> list[list[str]]:
    """Every command, subcommands included, as its arguments."""
    found: list[list[str]] = [[]]
    context = click.Context(app)
    for name in COMMANDS:
        command = app.get_command(context, name)
        found.append([name])
        if isinstance(command, click.Group):
            found += [[name, sub] for sub in command.list_commands(context)]
    return found


@pytest.mark.parametrize("arguments", commands(), ids=lambda arguments: " ".join(arguments) or "grepunch-pptp")
def test_help_fits_a_screen_and_has_an_example(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--help"], prog_name="grepunch-pptp")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= WIDTH
    assert re.search(rf"Examples?:\n(?s:.*)grepunch-pptp {' '.join(arguments)}", result.output)


def test_the_table_of_commands_tells_the_truth() -> None:
    context = click.Context(app)
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.name))
def test_every_example_profile_loads(path: object) -> None:
    profile = load(str(path))
    assert profile.warnings == ()
    assert profile.peers or profile.listen or profile.server


def test_there_is_a_profile_for_each_use() -> None:
    assert [path.stem for path in CONFIGS] == [
        "dial-ordinary-server",
        "dial-punched-peer",
        "direct-without-rendezvous",
        "gateway",
        "serve-ordinary-clients",
        "serve-punched-peers",
    ]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: str(path.name))
def test_units_call_commands_that_there_are(path: object) -> None:
    text = (ROOT / "configs" / str(path)).read_text()
    lines = re.findall(r"^#?\s*Exec\w+=-?(/usr/local/bin/grepunch-pptp .*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        _, name, *arguments = shlex.split(line.replace("%i", "office").replace("%d", "/credentials"))
        command = app.get_command(click.Context(app), name)
        assert command is not None
        command.make_context(name, arguments)


def test_the_unit_points_to_its_credential() -> None:
    text = (ROOT / "configs" / "grepunch-pptp@.service").read_text()
    (override,) = set(re.findall(r"--set '([^']*)'", text))
    profile = load(str(ROOT / "configs" / "serve-punched-peers.toml"), [override])
    assert profile.identity is not None
    assert profile.identity.private_key == SecretCredential("me.key")
    assert "LoadCredential=me.key:" in text
