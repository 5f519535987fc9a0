"""TUN devices, addresses, routes and the nft guard in a real kernel: made, used, and gone without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from grepunch.io import capabilities, nftguard
from grepunch.io.errors import AddressClash, DeviceGone, HostError, NameTaken, NoPrivilege, Refused
from grepunch.io.netconf import InterfacePlan, Netconf, remove_leftovers, render
from grepunch.io.rawgre import RawGre
from grepunch.io.tun import Tun, TunDrop
from grepunch.lab.requirements import program, require_tun
from tests.io.routed import eventually
from tests.live.live_support import RunInLab

NAME = "gp-bob"
PLAN = InterfacePlan(
    profile="bob",
    name=NAME,
    addresses=(IPv4Interface("10.66.0.1/24"), IPv6Interface("fd66::1/64")),
    mtu=1335,
    routes=(IPv4Network("10.77.0.2/32"), IPv4Network("192.168.50.0/24"), IPv6Network("fd77::/48")),
)
TUNSETPERSIST = 0x400454CB


def ip(*arguments: str) -> str:
    return subprocess.run([program("ip"), *arguments], check=True, capture_output=True, text=True).stdout


def everything() -> str:
    """The whole network configuration, as exactly as ip(8) and nft(8) tell it."""
    parts = [ip("-d", "address"), ip("-d", "link"), ip("rule")]
    parts += [ip(family, "-d", "route", "show", "table", "all") for family in ("-4", "-6")]
    parts.append(subprocess.run([program("nft"), "list", "ruleset"], check=True, capture_output=True, text=True).stdout)
    return "\n".join(parts)


def host() -> str:
    """A host with one LAN interface; its configuration."""
    require_tun()
    ip("link", "set", "lo", "up")
    ip("link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    for interface in ("lan0", "lan1"):
        ip("link", "set", interface, "addrgenmode", "none", "up")
    ip("address", "add", "192.168.1.10/24", "dev", "lan0")
    ip("address", "add", "fd01::10/64", "dev", "lan0", "nodad")
    ip("route", "add", "default", "via", "192.168.1.1")
    return everything()


def refusal(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except HostError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def ipv4(source: str, destination: str, data: bytes = b"inner") -> bytes:
    ends = socket.inet_aton(source), socket.inet_aton(destination)
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 0, 0, 64, 253, 0, *ends)
    total = sum(struct.unpack("!10H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    return packet[:10] + struct.pack("!H", ~total & 0xFFFF) + packet[12:] + data


def scenario_there_and_back() -> dict[str, object]:
    before = host()
    tun, netconf = Tun(NAME), Netconf()
    netconf.apply(PLAN)
    guard = nftguard.install("bob")
    up = everything() + ip("route") + ip("-6", "route")
    missing = [
        expected
        for expected in (
            "mtu 1335",
            "qlen 50",
            "alias grepunch-pptp:bob",
            "inet 10.66.0.1/24 scope global gp-bob",
            "inet6 fd66::1/64 scope global",
            "10.77.0.2 dev gp-bob proto 171 scope link",
            "192.168.50.0/24 dev gp-bob proto 171 scope link",
            "fd77::/48 dev gp-bob proto 171",
            "table ip grepunch_bob",
        )
        if expected not in up
    ]
    link_local = "fe80" in ip("-6", "address", "show", "dev", NAME)
    netconf.set_mtu(1215)  # too narrow for IPv6, which therefore goes
    narrow = ["mtu 1215" in ip("link", "show", NAME), "fd66" in everything(), "fd77" in everything()]
    netconf.set_mtu(1335)
    wide = ["mtu 1335" in ip("link", "show", NAME), "fd66" in everything(), "fd77" in everything()]
    netconf.undo()
    stripped = [line for line in everything().splitlines() if "10.66" in line or "proto 171" in line or "fd66" in line]
    tun.close()
    netconf.undo()
    return {
        "missing": missing,
        "link local": link_local,
        "narrow": narrow,
        "wide": wide,
        "guard": str(guard),
        "stripped": stripped,
        "guard removed": [nftguard.remove("bob"), nftguard.remove("bob")],
        "same": everything() == before,
    }


def test_everything_is_made_and_exactly_undone(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_there_and_back) == {
        "missing": [],
        "link local": False,
        "narrow": [True, False, False],
        "wide": [True, True, True],
        "guard": "None",
        "stripped": [],
        "guard removed": [True, False],
        "same": True,
    }


def scenario_difference() -> dict[str, object]:
    before = host()
    tun, netconf = Tun(NAME), Netconf()
    netconf.apply(PLAN)
    changed = InterfacePlan(
        "bob", NAME, PLAN.addresses[:1], 1280, (IPv4Network("192.168.50.0/24"), IPv4Network("192.168.60.0/24"))
    )

    async def inside_a_running_loop() -> None:
        netconf.apply(changed)

    asyncio.run(inside_a_running_loop())
    routes = [line.split()[0] for line in ip("route", "show", "proto", "171").splitlines()]
    addresses = [line.split()[1] for line in ip("address", "show", "dev", NAME).splitlines() if "inet" in line]
    netconf.undo()
    tun.close()
    return {"routes": sorted(routes), "addresses": addresses, "same": everything() == before}


def test_a_second_plan_carries_out_the_difference(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_difference) == {
        "routes": ["192.168.50.0/24", "192.168.60.0/24"],
        "addresses": ["10.66.0.1/24"],
        "same": True,
    }


def scenario_narrow() -> dict[str, object]:
    before = host()
    tun, netconf = Tun(NAME), Netconf()
    address, peers = PLAN.addresses[:1], (IPv4Network("10.66.0.3/32"), IPv6Network("fe80::3/128"))

    def seen() -> list[str]:
        shown = (ip(family, "route", "show", "proto", "171") for family in ("-4", "-6"))
        lines = [line.split() for text in shown for line in text.splitlines()]
        return sorted(f"{line[0]} {line[line.index('mtu') + 1] if 'mtu' in line else ''}".strip() for line in lines)

    told = []
    for narrow in (1300, 1350, None, 1280):
        mtus = tuple((peer, narrow) for peer in peers) if narrow is not None else ()
        netconf.apply(InterfacePlan("bob", NAME, address, 1435, (PLAN.routes[0], *peers), mtus))
        told.append(seen())
    netconf.apply(InterfacePlan("bob", NAME, address, 1435))
    told.append(seen())
    netconf.undo()
    tun.close()
    return {"told": told, "same": everything() == before}


def test_routes_take_a_smaller_mtu_and_lose_it_again(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(scenario_narrow)
    first = str(PLAN.routes[0]).removesuffix("/32")
    assert seen["told"] == [
        *([f"10.66.0.3 {mtu}".strip(), first, f"fe80::3 {mtu}".strip()] for mtu in ("1300", "1350", "", "1280")),
        [],
    ]
    assert seen["same"]


def scenario_clashes() -> dict[str, list[str]]:
    before = host()
    ip("route", "add", "10.88.0.0/16", "dev", "lan0", "scope", "link")
    routed = everything()
    tun = Tun(NAME)

    def attempt(address: str, *routes: str) -> list[str]:
        netconf = Netconf()
        with_tun = everything()
        plan = InterfacePlan("bob", NAME, (IPv4Interface(address),), 1400, tuple(map(IPv4Network, routes)))
        result = refusal(lambda: netconf.apply(plan))
        if result[0] != "nothing" and flags_aside(everything()) != flags_aside(with_tun):
            result.append("something was left")
        netconf.undo()
        return result

    result = {
        "same address": attempt("192.168.1.10/32"),
        "inside the LAN": attempt("192.168.1.77/32"),
        "around the LAN": attempt("192.168.0.1/16"),
        "route of the LAN": attempt("10.66.0.1/24", "192.168.1.0/24"),
        "part of the LAN": attempt("10.66.0.1/24", "192.168.1.128/25"),
        "around is fine": attempt("10.66.0.1/24", "192.168.0.0/16"),
        "half-way": attempt("10.66.0.1/24", "10.99.0.0/24", "10.88.0.0/16"),
    }
    tun.close()
    result["same"] = [str(everything() == routed), str(routed != before)]
    return result


def flags_aside(text: str) -> str:
    """What may stay on the TUN itself after a failure: its tag and MTU go with it."""
    words = [word for line in text.splitlines() if "alias" not in line for word in line.split()]
    skip = {"mtu", "qdisc", "addrgenmode", "state", "gso_max_size", "qlen"}
    return " ".join(
        word for before, word in zip(["", *words], words, strict=False) if before not in skip and word not in skip
    )


def test_clashes_are_refused_by_name_with_nothing_left(run_in_lab: RunInLab) -> None:
    result = run_in_lab(scenario_clashes)
    for case in ("same address", "inside the LAN", "around the LAN", "route of the LAN", "part of the LAN"):
        kind, sentence = result.pop(case)
        assert kind == AddressClash.__name__, case
        assert "lan0" in sentence, case
    kind, sentence = result.pop("half-way")
    assert kind == AddressClash.__name__
    assert "10.88.0.0/16" in sentence
    assert result == {"around is fine": ["nothing", ""], "same": ["True", "True"]}


def scenario_packets() -> dict[str, object]:
    host()
    tun, netconf = Tun(NAME), Netconf()
    down = tun.write(ipv4("10.66.0.2", "10.66.0.1"))
    netconf.apply(PLAN)
    quiet = tun.read(64)  # no router solicitation, no multicast report
    poll = select.poll()
    poll.register(tun, select.POLLIN)
    idle = poll.poll(0)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as inner:
        inner.setblocking(False)
        for number in range(5):
            inner.sendto(b"out %d" % number, ("10.66.0.2", 0))
        readable = bool(poll.poll(1000))
        first, rest, none = tun.read(2), tun.read(64), tun.read(64)
        taken = tun.write(ipv4("10.66.0.2", "10.66.0.1", b"in"))

        def heard() -> list[bytes]:
            with contextlib.suppress(BlockingIOError):
                return [inner.recv(2048)[20:]]
            return []

        arrived = eventually(heard)
    bad = tun.write(b"\x00" * 40)
    drops = {str(cause): count for cause, count in tun.drops.items()}
    ip("link", "del", NAME)
    gone = [refusal(lambda: tun.read(1))[0], refusal(lambda: tun.write(ipv4("10.66.0.2", "10.66.0.1")))[0]]
    netconf.undo()  # nothing is left to undo, which is no error
    tun.close()
    return {
        "down": down,
        "quiet": len(quiet),
        "idle": idle,
        "readable": readable,
        "read": [packet[20:].decode() for packet in first + rest],
        "none": none,
        "taken": taken,
        "arrived": [data.decode() for data in arrived],
        "bad": bad,
        "drops": drops,
        "gone": gone,
    }


def test_packets_in_both_directions(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_packets) == {
        "down": False,
        "quiet": 0,
        "idle": [],
        "readable": True,
        "read": [f"out {number}" for number in range(5)],
        "none": [],
        "taken": True,
        "arrived": ["in"],
        "bad": False,
        "drops": {TunDrop.DOWN: 1, TunDrop.NOT_IP: 1},
        "gone": [DeviceGone.__name__] * 2,
    }


def scenario_taken() -> list[list[str]]:
    host()
    tun = Tun(NAME)
    ip("tuntap", "add", "dev", "gp-kept", "mode", "tun")
    return [
        refusal(lambda: Tun(NAME)),
        refusal(lambda: Tun("gp-kept")),
        refusal(lambda: Tun("lan0")),
        refusal(lambda: Netconf().apply(InterfacePlan("bob", "gp-none", (), 1400))),
        [str(tun.fileno() > 2), ""],
    ]


def test_a_name_that_is_taken_says_so(run_in_lab: RunInLab) -> None:
    *taken, nowhere, open_still = run_in_lab(scenario_taken)
    assert [kind for kind, _ in taken] == [NameTaken.__name__] * 3
    assert [name in sentence for name, (_, sentence) in zip((NAME, "gp-kept", "lan0"), taken, strict=True)] == [
        True
    ] * 3
    assert nowhere == [DeviceGone.__name__, "There is no interface gp-none."]
    assert open_still == ["True", ""]


def scenario_killed() -> dict[str, object]:
    before = host()
    child = os.fork()
    if child == 0:
        tun, netconf = Tun(NAME), Netconf()
        netconf.apply(PLAN)
        nftguard.install("bob")
        # The kernel removes a killed process's TUN; one that somebody made persistent stays.
        fcntl.ioctl(tun.fileno(), TUNSETPERSIST, 1)
        second = Tun("gp-eve")
        other = Netconf()
        other.apply(InterfacePlan("eve", "gp-eve", (IPv4Interface("10.67.0.1/24"),), 1400))
        os.kill(os.getpid(), signal.SIGKILL)
        os._exit(second.fileno())
    os.waitpid(child, 0)
    left = eventually(lambda: [text for text in [everything()] if "NO-CARRIER" in text and "gp-eve" not in text])[0]
    leftovers = {
        "interface": "alias grepunch-pptp:bob" in left,
        "table": "grepunch_bob" in left,
        "other": "gp-eve" in left,
    }
    spared = remove_leftovers("bo")
    untouched = everything() == left
    removed = remove_leftovers("bob")
    return {
        **leftovers,
        "spared": spared,
        "untouched": untouched,
        "removed": removed,
        "again": remove_leftovers("bob"),
        "same": everything() == before,
    }


def test_a_killed_process_leaves_nothing_after_the_clean_up(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_killed) == {
        "interface": True,
        "table": True,
        "other": False,
        "spared": [],
        "untouched": True,
        "removed": ["interface gp-bob, its addresses and routes", "nft table grepunch_bob"],
        "again": [],
        "same": True,
    }


def scenario_dry_run() -> dict[str, object]:
    """What the dry run prints, executed by ip(8), is what apply does."""
    host()
    tun, netconf = Tun(NAME), Netconf()
    netconf.apply(PLAN)
    applied = everything()
    netconf.undo()
    tun.close()
    tun = Tun(NAME)
    batch = "\n".join(line.removeprefix("ip ") for line in render(PLAN))
    subprocess.run([program("ip"), "-batch", "-"], input=batch, text=True, check=True)
    by_hand = everything()
    tun.close()
    return {"applied": without_index(applied), "by hand": without_index(by_hand)}


def without_index(text: str) -> list[str]:
    return sorted(line.partition(f": {NAME}")[2] or line for line in text.splitlines())


def test_the_dry_run_is_what_happens(run_in_lab: RunInLab) -> None:
    result = run_in_lab(scenario_dry_run)
    assert result["applied"] == result["by hand"]


def scenario_guard() -> dict[str, object]:
    """A kernel without our socket answers GRE with protocol-unreachable; the guard keeps that in."""
    host()
    ip("address", "add", "198.51.100.1/32", "dev", "lo")

    def answers() -> dict[str, int]:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as witness,
            socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW) as sender,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            witness.settimeout(0.05)
            gre = bytearray(ipv4("198.51.100.1", "192.168.1.10", bytes.fromhex("0000880b0053") + bytes(31)))
            gre[9], gre[10:12] = 47, b"\0\0"
            sender.sendto(gre, ("192.168.1.10", 0))
            udp.sendto(b"nobody listens", ("192.168.1.10", 9999))
            found = {"gre": 0, "udp": 0}
            with contextlib.suppress(TimeoutError):
                while True:
                    packet = witness.recv(2048)
                    found["gre" if packet[28 + 9] == 47 else "udp"] += 1
            return found

    before = answers()
    error = nftguard.install("a strange/name")
    during = answers()
    again = nftguard.install("a strange/name")
    nftguard.remove("a strange/name")
    return {"before": before, "error": str(error), "during": during, "again": str(again), "after": answers()}


def test_the_guard_holds_back_icmp_about_gre_alone(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_guard) == {
        "before": {"gre": 1, "udp": 1},
        "error": "None",
        "during": {"gre": 0, "udp": 1},
        "again": "None",
        "after": {"gre": 1, "udp": 1},
    }


_POWERLESS = """
import ctypes, json, sys
sys.path[:] = json.loads(sys.argv[1])
libc = ctypes.CDLL(None)
from grepunch.io import capabilities, nftguard
from grepunch.io.errors import HostError
from grepunch.io.netconf import InterfacePlan, Netconf, remove_leftovers
from grepunch.io.rawgre import RawGre
from grepunch.io.tun import Tun
from tests.live.test_io_tun_netconf import refusal
print(json.dumps({
    "raw": refusal(RawGre), "tun": refusal(lambda: Tun("gp-bob")),
    "netconf": refusal(lambda: Netconf().apply(InterfacePlan("bob", "lan0", (), 1400))),
    "check": [[c.name, type(c.error).__name__, c.required] for c in capabilities.check()],
    "guard": type(nftguard.install("bob")).__name__,
}))
"""


def scenario_powerless() -> dict[str, object]:
    import json

    host()
    able = [[c.name, str(c.error)] for c in capabilities.check()]
    without = [program("setpriv"), "--bounding-set=-all", "--inh-caps=-all", "--", sys.executable, "-c", _POWERLESS]
    done = subprocess.run([*without, json.dumps(sys.path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    result: dict[str, object] = json.loads(done.stdout)
    return {"able": able, **result}


def test_without_capabilities_every_refusal_is_typed_and_tells_what_is_missing(run_in_lab: RunInLab) -> None:
    result = run_in_lab(scenario_powerless)
    no = NoPrivilege.__name__
    assert result["able"] == [
        ["raw GRE socket", "None"],
        ["TUN device", "None"],
        ["network administration", "None"],
        ["nft", "None"],
    ]
    for what, word in (("raw", "CAP_NET_RAW"), ("tun", "CAP_NET_ADMIN"), ("netconf", "CAP_NET_ADMIN")):
        kind, sentence = result[what]
        assert kind == no, what
        assert word in sentence, what
    assert result["check"] == [
        ["raw GRE socket", no, True],
        ["TUN device", "NoneType", True],
        ["network administration", no, True],
        ["nft", "NoneType", False],
    ]
    assert result["guard"] == no


def scenario_no_device() -> list[list[str]]:
    from grepunch.io import tun

    empty = Path("/run/empty")
    empty.touch()
    found = []
    for path in (Path("/run/nothing"), empty / "below", empty):
        tun.DEVICE = path
        found.append(refusal(lambda: Tun(NAME)))
    return found


def test_no_device_is_unsupported(run_in_lab: RunInLab) -> None:
    missing, below, no_device = run_in_lab(scenario_no_device)
    assert missing[0] == below[0] == "Unsupported"
    assert "modprobe tun" in missing[1]
    assert no_device[0] == Refused.__name__


def scenario_closed() -> list[int]:
    tun, gre = Tun(NAME), RawGre()
    descriptors = [tun.fileno(), gre.fileno()]
    tun.close()
    tun.close()
    gre.close()
    gre.close()
    found = []
    for descriptor in descriptors:
        try:
            os.fstat(descriptor)
        except OSError as error:
            found.append(error.errno or 0)
    return found


def test_closing_twice_is_harmless(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_closed) == [errno.EBADF] * 2


@pytest.mark.parametrize("profile", ["bob", "a-b", "a_b", "ünï/code", "x" * 40])
def test_the_kernel_takes_every_table_name(run_in_lab: RunInLab, profile: str) -> None:
    assert run_in_lab(scenario_table, profile=profile) == ["None", True]


def scenario_table(profile: str) -> list[object]:
    return [str(nftguard.install(profile)), nftguard.remove(profile)]
