"""What NATs and firewalls do with GRE, as data: each class is the nft rules that make one Linux namespace behave so.

Netfilter itself is the model of most home routers and carrier NATs: it keys GRE by (source, destination, key) and,
where no PPTP helper has seen a control connection, takes the key of version 0 as 0 in both directions and that of
version 1 as the Call ID in one direction and 0 in the other. So version 0 and Call ID 0 both ways look like one flow
each, and any other Call ID like two strangers. The remaining classes are told apart by rules before or after it.

In every such namespace the interface towards the hosts is called ``lan`` and the one towards the world ``wan``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from ipaddress import IPv4Address

from grepunch.lab.impairment import Impairment
from pptp.value import value

TABLE = "nat_box"  # the nft table that holds a class' rules; a test's own rules go into tables of their own
# ours, because no class of the models forgets a pair sooner than netfilter's own replied GRE flow (180 s)
_PAIR_TIMEOUT = "180s"


class Hook(StrEnum):
    """The chains a class may have rules in; the value is nft's declaration of the chain."""

    RAW = "type filter hook prerouting priority raw"
    PREROUTING = "type filter hook prerouting priority filter"
    INPUT = "type filter hook input priority filter"
    FORWARD = "type filter hook forward priority filter"
    OUTPUT = "type filter hook output priority filter"
    POSTROUTING = "type nat hook postrouting priority srcnat"
    REWRITE = "type filter hook postrouting priority srcnat"


@value
class GreTimers:
    """How many seconds a NAT remembers a GRE flow: before the first answer, and after it (Linux has 30 and 180)."""

    unreplied: int = 30
    replied: int = 180


@value
class NatClass:
    """One class of NAT or firewall: its name, what it stands for, and its rules chain by chain.

    Rules may use ``$EXTERNAL``, the box' address on its ``wan`` side, and where ``pooled`` also ``$SECOND``, another
    one. ``translates`` says whether hosts behind it have private addresses. Where set, ``gre_timers`` are its memory
    of GRE, ``mtu`` is what the link outside it carries, saying so to nobody, and ``line`` what else that link does.
    ``restarts``: it is to restart in the middle, and to come back under another external address.
    """

    name: str
    summary: str
    rules: Mapping[Hook, tuple[str, ...]]
    declarations: tuple[str, ...] = ()
    translates: bool = True
    pooled: bool = False
    gre_timers: GreTimers | None = None
    mtu: int | None = None
    line: Impairment | None = None
    restarts: bool = False

    def ruleset(self, external: IPv4Address) -> str:
        """The input of ``nft -f -`` that replaces this box' rules, forgetting what its maps had learned."""
        chains = (
            f"chain {hook.name.lower()} {{ {hook.value}; policy accept;\n"
            + "".join(f"{rule}\n" for rule in rules)
            + "}\n"
            for hook, rules in self.rules.items()
        )
        body = "".join(f"{declaration}\n" for declaration in self.declarations) + "".join(chains)
        return (
            f"define EXTERNAL = {external}\ndefine SECOND = {self.second(external)}\n"
            f"table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{body}}}\n"
        )

    @staticmethod
    def second(external: IPv4Address) -> IPv4Address:
        """The other address of a pool whose first is ``external``."""
        return external + 1


def _with(base: NatClass, name: str, summary: str, hook: Hook, rule: str, *declarations: str) -> NatClass:
    """``base`` under a new name, with one more rule before its own."""
    rules = {**base.rules, hook: (rule, *base.rules.get(hook, ()))}
    return replace(base, name=name, summary=summary, rules=rules, declarations=base.declarations + declarations)


# An ordinary box lets nothing in that nobody inside asked for: neither through it nor to itself.
_UNSOLICITED = ('iifname "wan" ct state { new, invalid } drop',)
_CLOSED: Mapping[Hook, tuple[str, ...]] = {Hook.INPUT: _UNSOLICITED, Hook.FORWARD: _UNSOLICITED}
_MASQUERADE = ('oifname "wan" masquerade',)
_MASQUERADE_RANDOM = ('oifname "wan" masquerade random',)


def _pair_keyed(name: str, summary: str, remember: str) -> NatClass:
    """A NAT that keeps one inside host per outside address and never looks into the GRE header.

    The source is rewritten in postrouting: rewritten in prerouting, the packet seems to come from the box itself,
    and routing drops it as a martian. Netfilter's own tracking is bypassed, which also costs ICMP errors about GRE.
    """
    return NatClass(
        name,
        summary,
        {
            Hook.RAW: (
                f'iifname "lan" ip protocol gre {remember} notrack',
                'iifname "wan" ip protocol gre ip daddr set ip saddr map @flows notrack',
            ),
            **_CLOSED,
            Hook.POSTROUTING: _MASQUERADE,
            Hook.REWRITE: ('oifname "wan" ip protocol gre ip saddr set $EXTERNAL',),
        },
        (f"map flows {{ type ipv4_addr : ipv4_addr; flags dynamic,timeout; timeout {_PAIR_TIMEOUT}; size 4096; }}",),
    )


G0 = NatClass(
    "G0",
    "stateful firewall, no NAT",
    {Hook.FORWARD: ('iifname "wan" ct state new drop',)},
    translates=False,
)
G1 = _pair_keyed(
    "G1",
    "keyed by the pair of addresses, blind to the Call ID, first host wins (pf, VPP, old netfilter)",
    "add @flows { ip daddr : ip saddr }",
)
G1L = _pair_keyed(
    "G1L",
    "keyed by the pair of addresses, blind to the Call ID, last host wins (libalias, many small routers)",
    # "update" would refresh the timer and keep the value; only a new element changes it.
    "delete @flows { ip daddr : ip saddr } add @flows { ip daddr : ip saddr }",
)
G2 = NatClass(
    "G2",
    "netfilter without PPTP helper, ports preserved (most Linux routers)",
    {**_CLOSED, Hook.POSTROUTING: _MASQUERADE},
)
G2S = NatClass(
    "G2S",
    "netfilter without PPTP helper, symmetric, random ports (carrier NATs)",
    {**_CLOSED, Hook.POSTROUTING: _MASQUERADE_RANDOM},
)
G3 = _with(
    G2,
    "G3",
    "netfilter with PPTP helper",
    Hook.PREROUTING,
    'tcp dport 1723 ct helper set "pptp_helper"',
    'ct helper pptp_helper { type "pptp" protocol tcp; }',
)
G4 = _with(G2, "G4", "GRE dropped in silence", Hook.FORWARD, "ip protocol gre drop")
G4R = _with(
    G2,
    "G4R",
    "GRE refused with ICMP protocol-unreachable",
    Hook.FORWARD,
    "ip protocol gre reject with icmp type prot-unreachable",
)
G5 = _with(
    G3,
    "G5",
    "GRE only as part of a PPTP session that the box has seen (ASA, IOS PAT, many carrier NATs)",
    Hook.FORWARD,
    "ip protocol gre ct state new drop",
)
# Many helpers know outgoing calls only. Netfilter's knows both kinds and cannot be told otherwise; but an incoming call
# of ours opens the flow with key 0, in either version, and no outgoing call does: so that flow is what is dropped here.
G5K = _with(
    _with(G5, "G5K", "", Hook.FORWARD, "ip protocol gre @th,13,3 0 drop"),
    "G5K",
    "as G5, with a helper that knows outgoing calls only: no GRE of version 0 or with Call ID 0",
    Hook.FORWARD,
    "ip protocol gre @th,13,3 1 @th,48,16 0 drop",
)
# Nothing rewrites the source: the hosts' private addresses reach the provider, who drops them.
G6 = _with(G2, "G6", "GRE leaves untranslated", Hook.RAW, 'iifname "lan" ip protocol gre notrack')
# The version is the last 3 bits of the first 16 of either header; the Call ID is bits 48 to 63 of version 1's.
G7V0 = _with(G2, "G7V0", "GRE version 0 dropped", Hook.FORWARD, "ip protocol gre @th,13,3 0 drop")
G7V1 = _with(G2, "G7V1", "GRE version 1 dropped", Hook.FORWARD, "ip protocol gre @th,13,3 1 drop")
G7K = _with(
    G1,
    "G7K",
    "GRE version 1 with a Call ID other than 0 dropped, the rest as G1",
    Hook.FORWARD,
    "ip protocol gre @th,13,3 1 @th,48,16 != 0 drop",
)
G9 = replace(
    _with(
        G2,
        "G9",
        "a pool of addresses: GRE leaves from another one than TCP and UDP",
        Hook.POSTROUTING,
        'oifname "wan" ip protocol gre snat to $SECOND',
    ),
    pooled=True,
)
G12 = replace(G2, name="G12", summary="netfilter with short memory for GRE", gre_timers=GreTimers(5, 30))
# TCP is told, as every such box does it, or nothing at all would work behind it; GRE has to find out.
G16 = replace(
    _with(
        _with(
            G2,
            "G16",
            "the link outside carries 1400 octets and nobody says so",
            Hook.FORWARD,
            "tcp flags syn / syn,rst tcp option maxseg size set 1360",
        ),
        "G16",
        "the link outside carries 1400 octets and nobody says so",
        Hook.OUTPUT,
        "icmp type destination-unreachable icmp code frag-needed drop",
    ),
    mtu=1400,
)
G18 = replace(
    G2,
    name="G18",
    summary="netfilter behind a bad line: loss, duplication, reordering, corruption, delay and jitter",
    line=Impairment(loss=0.05, duplication=0.02, reorder=0.10, corruption=0.01, delay=0.020, jitter=0.005),
)
G19 = replace(
    G2,
    name="G19",
    summary="netfilter that restarts in the middle, and comes back under another external address",
    restarts=True,
)
G13 = NatClass(
    "G13",
    "netfilter whose own input takes strays: the peer's early packet can occupy the slot ours needs",
    {Hook.FORWARD: _UNSOLICITED, Hook.POSTROUTING: _MASQUERADE},
)

_CLASSES: Mapping[str, NatClass] = {
    nat.name: nat
    for nat in (G0, G1, G1L, G2, G2S, G3, G4, G4R, G5, G5K, G6, G7V0, G7V1, G7K, G9, G12, G13, G16, G18, G19)
}
_CHAINS: Mapping[str, tuple[NatClass, ...]] = {"G15": (G2S, G2)}  # double NAT: the home's own, then the carrier's


def names() -> tuple[str, ...]:
    """Every name :func:`chain` knows."""
    return (*_CLASSES, *_CHAINS)


def chain(text: str) -> tuple[NatClass, ...]:
    """The boxes named by ``text``, from the host outwards: ``"G2"``, ``"G15"``, or any mixture as ``"G2S+G5"``.

    Raises ``ValueError`` naming the known classes.
    """
    boxes: list[NatClass] = []
    for name in text.split("+"):
        if name in _CHAINS:
            boxes += _CHAINS[name]
        elif name in _CLASSES:
            boxes.append(_CLASSES[name])
        else:
            raise ValueError(f"no NAT class is called {name!r}; known: {', '.join(names())}, or several joined by '+'")
    return tuple(boxes)
