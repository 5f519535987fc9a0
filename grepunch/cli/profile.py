"""`profile`: write one, show what one amounts to, check one, and the schema."""

from __future__ import annotations

import json

import click

from grepunch.cli.common import complete_profile, emit, json_option, set_option
from grepunch.config import Profile, ProfileInvalid, check_keys, load
from grepunch.config.show import as_document, as_toml
from grepunch.config.template import ordinary_template, profile_template
from grepunch.options import Role
from grepunch.verdict import SCHEMA, Verdict, VerdictKind

EXAMPLES = """\b
Examples:
  grepunch-pptp profile new office > /etc/grepunch-pptp/office.toml
  grepunch-pptp profile check office
  grepunch-pptp profile show office --set punch.window=10
"""


@click.group(epilog=EXAMPLES)
def profile() -> None:
    """Write, show and check profiles."""


@profile.command(epilog="\b\nExample:\n  grepunch-pptp profile new office --role dial > office.toml\n")
@click.argument("name")
@click.option("--role", type=click.Choice([str(role) for role in Role]), default=str(Role.SERVE), show_default=True)
@click.option("--ordinary", is_flag=True, help="For ordinary PPTP: a server of it, or a client.")
def new(name: str, role: str, ordinary: bool) -> None:
    """Print a commented profile called NAME, to be filled in."""
    template = ordinary_template if ordinary else profile_template
    emit(template(name, Role(role)).rstrip("\n"))


@profile.command(epilog="\b\nExample:\n  grepunch-pptp profile show office --json\n")
@click.argument("reference", metavar="PROFILE", shell_complete=complete_profile)
@set_option
@json_option
def show(reference: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print PROFILE with every default filled in; secrets stay references."""
    document = as_document(load(reference, overrides))
    emit(json.dumps({"schema": SCHEMA, **document}) if as_json else as_toml(document))


@profile.command(epilog="\b\nExample:\n  grepunch-pptp profile check ./office.toml\n")
@click.argument("reference", metavar="PROFILE", shell_complete=complete_profile)
@set_option
@json_option
def check(reference: str, overrides: tuple[str, ...], as_json: bool) -> Verdict:
    """Say everything that is wrong with PROFILE and the keys it refers to."""
    loaded: Profile = load(reference, overrides)
    faults = check_keys(loaded)
    if faults:
        raise ProfileInvalid(faults)
    verdict = Verdict(VerdictKind.UP, "\n".join(map(str, loaded.warnings)))
    lines = [*(f"warning: {warning}" for warning in loaded.warnings), f"{loaded.name}: in order"]
    emit(json.dumps(verdict.as_json()) if as_json else "\n".join(lines))
    return verdict


@profile.command(epilog="\b\nExample:\n  grepunch-pptp profile schema > profile.schema.json\n")
def schema() -> None:
    """Print the JSON Schema of a profile."""
    from grepunch.config.schema import json_schema

    emit(json.dumps(json_schema(), indent=2))
