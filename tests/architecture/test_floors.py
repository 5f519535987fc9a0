"""The house holds: imports point down only, the pure half stays pure, and each library stays in its room.

Floor 0 is codecs and arithmetic, 1 the sans-IO protocol, 2 the sans-IO ways of meeting and punching, 3 system calls
without policy, 4 lifetimes and policy, 5 the command line.
"""

from __future__ import annotations

import pytest

from tests.architecture.source_tree import PACKAGES, Import, imports, module_name, python_files

FLOORS = {
    "pptp": 0,
    "pptp.wire": 0,
    "pptp.crypto": 0,
    "pptp.timers": 0,
    "pptp.serial": 0,
    "pptp.machine": 0,
    "pptp.errors": 0,
    "pptp.mtu": 0,
    "pptp.value": 0,
    "pptp.session": 1,
    "pptp.datapath": 1,
    "pptp.mirrored": 1,
    "pptp.channel": 1,
    "pptp.control": 1,
    "pptp.ordinary": 1,
    "pptp.ppp": 1,
    "grepunch": 0,  # the version
    "grepunch.ports": 0,  # the types that floors 2 and 3 share
    "grepunch.nat": 2,
    "grepunch.punch": 2,
    "grepunch.rendezvous": 2,
    "grepunch.secure": 2,
    "grepunch.signalling": 2,
    "grepunch.io": 3,
    "grepunch.lab": 3,
    "grepunch.cli": 5,
    "grepunch.__main__": 5,
}
POLICY = 4  # every other module of grepunch

# Where the rule is broken on purpose: (importer, imported) and why.
ALLOWED = {
    ("grepunch.secure", "pptp.datapath"): "the slow path compiles the fast path: a handshake ends in a SealedPair",
    ("grepunch.io.echo_client", "grepunch.nat"): "the runner of a probe's messages",
    ("grepunch.io.echo_server", "grepunch.nat"): "the runner of the echo server's machine",
    ("grepunch.io.meeting", "grepunch.rendezvous"): "the runners of the rendezvous' two machines",
    ("grepunch.io.meeting_server", "grepunch.nat"): "the WebSocket of a probe comes in by the same port",
    ("grepunch.io.meeting_server", "grepunch.rendezvous"): "the runners of the rendezvous' two machines",
}

# The world: no floor below 3 may know of it. Clock and entropy are handed in.
IMPURE = {
    "asyncio", "fcntl", "getpass", "multiprocessing", "os", "pathlib", "random", "resource", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip

# Library -> the only places that import it.
ROOMS = {
    "cryptography": ("pptp.crypto", "grepunch.secure"),
    "pyroute2": ("grepunch.lab",),
    "scapy": ("grepunch.io.capture",),
    "websockets": (
        "grepunch.io.echo_client",
        "grepunch.io.echo_server",
        "grepunch.io.framequeue",
        "grepunch.io.meeting",
        "grepunch.io.meeting_link",
        "grepunch.io.meeting_server",
    ),
    "click": ("grepunch.cli",),
    "rich": ("grepunch.cli",),
}
LAZY = {"scapy"}  # imported inside functions only, for the sake of the start-up

ALL = [found for path in python_files(*PACKAGES) for found in imports(path)]
OWN = [found for found in ALL if found.imported.split(".")[0] in PACKAGES]


def unit(module: str) -> str:
    """The package or module on the second level: ``grepunch.io.tun`` is of ``grepunch.io``."""
    return ".".join(module.split(".")[:2])


def floor(module: str) -> int:
    """The floor a module is on."""
    return FLOORS.get(unit(module), POLICY)


def within(module: str, rooms: tuple[str, ...]) -> bool:
    """Whether a module is one of these or inside one of them."""
    return any(module == room or module.startswith(room + ".") for room in rooms)


def is_allowed(found: Import) -> bool:
    """Whether this import keeps to the rules."""
    above, below = floor(found.importer), floor(found.imported)
    if unit(found.importer) == unit(found.imported):
        return True
    if any(within(found.importer, (who,)) and within(found.imported, (what,)) for who, what in ALLOWED):
        return True
    match above:
        case 0 | 1:
            return below <= above
        case 2:
            return below == 0
        case 3:
            return below <= 1
        case _:
            return below <= above


def test_imports_point_down() -> None:
    assert [str(found) for found in OWN if not is_allowed(found)] == []


def test_the_protocol_library_knows_nothing_of_the_program() -> None:
    upward = [found for found in OWN if found.importer.startswith("pptp") and found.imported.startswith("grepunch")]
    assert [str(found) for found in upward] == []


def test_every_module_below_policy_has_its_floor() -> None:
    modules = {unit(module_name(path)) for path in python_files("pptp")}
    assert modules - set(FLOORS) == set()


def test_every_exception_is_needed() -> None:
    used = {
        (who, what)
        for who, what in ALLOWED
        for found in OWN
        if within(found.importer, (who,)) and within(found.imported, (what,))
    }
    assert used == set(ALLOWED)


def test_the_pure_half_knows_no_world() -> None:
    impure = [found for found in ALL if floor(found.importer) <= 2 and found.imported.split(".")[0] in IMPURE]
    assert [str(found) for found in impure] == []


@pytest.mark.parametrize("library", sorted(ROOMS))
def test_each_library_stays_in_its_room(library: str) -> None:
    users = [found for found in ALL if found.imported.split(".")[0] == library]
    assert [str(found) for found in users if not within(found.importer, ROOMS[library])] == []


def test_what_is_slow_to_import_is_imported_late() -> None:
    eager = [found for found in ALL if found.imported.split(".")[0] in LAZY and not (found.lazy or found.for_types)]
    assert [str(found) for found in eager] == []
