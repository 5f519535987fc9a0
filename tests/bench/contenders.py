"""Every contender, in the order of the table."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.contender import Contender
from tests.bench.foreign import EasyTier, Nebula, OpenVpn, Tinc, WireguardGo
from tests.bench.own import Original, Ours, OursChaCha, OursMppe, Veth

CONTENDERS: tuple[type[Contender], ...] = (
    Veth,
    Ours,
    OursChaCha,
    OursMppe,
    Original,
    OpenVpn,
    WireguardGo,
    Nebula,
    EasyTier,
    Tinc,
)
NAMES = tuple(kind.name for kind in CONTENDERS)


def chosen(names: Sequence[str]) -> list[Contender]:
    """The contenders of these names, in the table's order. Raises ``ValueError`` for a name that is none."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"no contender is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return [kind() for kind in CONTENDERS if kind.name in names]
