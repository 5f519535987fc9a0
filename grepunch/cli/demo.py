"""`demo`: two peers behind two NATs on this machine."""

from __future__ import annotations

import os
import sys

import click

from grepunch.cli.common import json_option, nobody_reads, to_capture, to_duration
from grepunch.options import DEFAULT_TRANSFER, Capture, DemoOptions
from grepunch.ports import RelayPolicy
from grepunch.progress import Color, make_reporter
from grepunch.verdict import Verdict

EXAMPLES = """\b
Examples:
  grepunch-pptp demo
  grepunch-pptp demo --nat-a G2 --nat-b G7V0 --pcap demo.pcap
  grepunch-pptp demo --nat-a G4 --relay never
  grepunch-pptp demo --no-rendezvous --json
"""


def to_nat(value: str) -> str:
    """A NAT class, or two in a chain, as the laboratory names them."""
    from grepunch.lab.topology import SidePlan

    try:
        SidePlan.of(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None
    return value


@click.command(epilog=EXAMPLES)
@click.option("--nat-a", type=to_nat, default="G2S", show_default=True, metavar="CLASS", help="The first peer's NAT.")
@click.option("--nat-b", type=to_nat, default="G2S", show_default=True, metavar="CLASS", help="The second peer's NAT.")
@click.option("--rendezvous/--no-rendezvous", default=True, show_default=True, help="Meet at a rendezvous, or not.")
@click.option(
    "--relay",
    type=click.Choice([str(policy) for policy in RelayPolicy]),
    default=str(RelayPolicy.AUTO),
    show_default=True,
    help="What both profiles say of the relay.",
)
@click.option(
    "--transfer-bytes", type=click.IntRange(min=0), default=DEFAULT_TRANSFER, metavar="N", help="To measure speed with."
)
@click.option("--skew", type=to_duration, default=0.0, metavar="TIME", help="How much later the second peer starts.")
@click.option(
    "--pcap",
    "capture",
    type=to_capture,
    metavar="FILE[:plain]",
    help="Capture the second peer's GRE; with :plain, what is sealed in it.",
)
@json_option
def demo(
    nat_a: str,
    nat_b: str,
    rendezvous: bool,
    relay: str,
    transfer_bytes: int,
    skew: float,
    capture: Capture | None,
    as_json: bool,
) -> Verdict:
    """Two peers behind two NATs, and the rendezvous, in network namespaces.

    They punch, ping and measure the throughput, as root or as anyone. CLASS is a
    NAT class: G2S is netfilter with random ports, as many carriers have it.
    """
    from grepunch.demo import run_demo

    options = DemoOptions(nat_a, nat_b, rendezvous, transfer_bytes, skew, capture, as_json, RelayPolicy(relay))
    try:
        verdict = run_demo(options)  # prints its results itself, the JSON object included
    except BrokenPipeError:
        nobody_reads()
    if not as_json and not verdict.ok:
        reporter = make_reporter(
            json=False, color=Color.AUTO, stdout=sys.stdout, stderr=sys.stderr, environment=os.environ
        )
        reporter.finish(verdict)
    return verdict
