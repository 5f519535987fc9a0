"""The lab's network is what it says: routed, TTL-true, unforgeable; and it changes as real networks do."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from grepunch.lab import udp_punch
from grepunch.lab.capture import read
from grepunch.lab.impairment import Impairment
from grepunch.lab.nat import GreTimers
from grepunch.lab.topology import MEET_ADDRESSES, Lab, SidePlan
from tests.live.live_support import ICMP_TIME_EXCEEDED, SETTLE, Gre, RunInLab, exchange, gre_v0

ROUTER_A = "198.51.100.1"  # the provider's end of side a's link
NEW_ADDRESS = IPv4Address("198.51.100.77")
BURST = 150  # three times what Linux sends at once where ICMP is limited


def set_up_times() -> list[float]:
    times = []
    for _ in range(3):
        began = time.monotonic()
        with Lab("G15", "G15") as lab:
            times.append(time.monotonic() - began)
            assert lab.a.host.ping(MEET_ADDRESSES[0])
    return times


@pytest.mark.alone
def test_a_lab_is_up_in_less_than_a_second(run_in_lab: RunInLab) -> None:
    assert min(run_in_lab(set_up_times)) < 1.0


def ttl_limited() -> dict[str, Any]:
    """A burst from a dies at the router; then one packet with just enough TTL for b's NAT, and one for b."""
    with Lab("G2", "G2") as lab:
        capturing = [lab.wan.capture(interface) for interface in ("a", "b")]
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        b.send(lab.a.external, gre_v0(b"open"), ttl=2)  # so that b's NAT would let a's packets in
        for _ in range(BURST):
            a.send(lab.b.external, gre_v0(b"dies here"), ttl=2)
        time.sleep(0.1)
        errors, crossed = a.errors(), len(b.heard())
        for ttl in (3, 4):
            a.send(lab.b.external, gre_v0(b"ttl %d" % ttl), ttl=ttl)
        time.sleep(0.1)
        for program in capturing:
            program.stop()
        ttls = {
            interface: [packet[8] for _, packet in read(lab.directory / f"wan-{interface}.pcap") if packet[9] == 47]
            for interface in ("a", "b")
        }
        b_heard = [payload[4:].decode() for _, payload in b.heard()]
        return {"errors": errors, "crossed": crossed, "ttls": ttls, "b_heard": b_heard}


def test_ttl_limited_packets_die_at_the_router_which_says_so_each_time(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(ttl_limited)
    assert seen["crossed"] == 0
    assert seen["errors"] == [[ROUTER_A, ICMP_TIME_EXCEEDED, 0]] * BURST  # no rate limit, and the NAT brought them home
    assert seen["b_heard"] == ["ttl 4"]  # NAT, router, NAT, host: four hops
    assert seen["ttls"]["a"] == [1] * BURST + [2, 3]  # one taken off by a's NAT
    assert seen["ttls"]["b"] == [1, 1, 2]  # b's own opener, then what was left of 3 and 4


def private_source() -> list[int]:
    """What the meet host hears from a with its NAT's rules, without them, and with them again."""
    with Lab("G2") as lab:
        box, a, meet = lab.a.boxes[0], Gre(lab.a.host), Gre(lab.meet)
        counts = []
        for change in (None, "delete table ip nat_box", None):
            if change:
                box.node.nft(change)
            else:
                box.reboot()
            a.send(MEET_ADDRESSES[0], gre_v0(b"whose?"))
            time.sleep(SETTLE)
            counts.append(len(meet.heard()))
        return counts


def test_the_provider_drops_a_source_that_is_not_the_customers(run_in_lab: RunInLab) -> None:
    assert run_in_lab(private_source) == [1, 0, 1]


def same_nat() -> dict[str, Any]:
    with Lab(SidePlan.of("G2", hosts=2)) as lab:
        one, two = Gre(lab.a.hosts[0]), Gre(lab.a.hosts[1])
        for _ in range(3):
            one.send(lab.a.external, gre_v0(b"hairpin"))
            two.send(lab.a.external, gre_v0(b"hairpin"))
            time.sleep(SETTLE)
        hairpin = len(one.heard()) + len(two.heard())
        one.send(lab.a.addresses[1], gre_v0(b"neighbour"))
        time.sleep(SETTLE)
        return {"hairpin": hairpin, "lan": [source for source, _ in two.heard()], "own": str(lab.a.addresses[0])}


def test_two_peers_behind_the_same_nat_meet_on_the_lan_and_never_by_hairpin(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(same_nat)
    assert seen["hairpin"] == 0
    assert seen["lan"] == [seen["own"]]


def nat_trouble(nat: str) -> dict[str, Any]:
    """A working hole before and after a reboot of a's NAT, and after a new external address."""
    with Lab(SidePlan.of(nat, gre_timers=GreTimers(7, 77)), "G2") as lab:
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        before = exchange(lab, a, b, "v0")
        gre_flows = [flow for flow in lab.a.boxes[0].node.flows() if flow.protocol == socket.IPPROTO_GRE]
        lab.a.boxes[0].reboot()
        b.send(lab.a.external, gre_v0(b"into the void"))
        time.sleep(SETTLE)
        lost = len(a.heard())
        after = exchange(lab, a, b, "v0")
        old = str(lab.a.external)
        lab.change_external_address("a", NEW_ADDRESS)
        moved = exchange(lab, a, b, "v0")
        return {
            "before": before,
            "lost": lost,
            "after": after,
            "moved": moved,
            "addresses": [old, str(lab.a.external)],
            "timeouts": [flow.timeout for flow in gre_flows if flow.replied],
            "keys": [[flow.original.source_port, flow.original.destination_port] for flow in gre_flows],
        }


@pytest.mark.parametrize("nat", ["G1", "G2S"])
def test_a_nat_forgets_when_it_reboots_and_moves_to_another_address(run_in_lab: RunInLab, nat: str) -> None:
    seen = run_in_lab(nat_trouble, nat=nat)
    assert seen["lost"] == 0
    assert min(*seen["before"], *seen["after"], *seen["moved"]) >= 3
    assert seen["addresses"] == ["198.51.100.10", str(NEW_ADDRESS)]
    if nat == "G1":
        assert seen["keys"] == []  # netfilter does not track what the model keeps by itself
    else:
        assert seen["keys"] == [[0, 0]]
        assert [timeout in range(74, 78) for timeout in seen["timeouts"]] == [True]  # the timer this side was given


def restarting(plan: str) -> dict[str, Any]:
    """A working hole before, and from the peer's side after, the restart of what restarts behind ``plan``."""
    with Lab(plan, "G2") as lab:
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        before = exchange(lab, a, b, "v0")
        known = [lab.a.external, *(box.address for box in lab.a.boxes)]
        restarted = lab.restart_boxes()
        b.send(known[0], gre_v0(b"to the old address"))
        time.sleep(SETTLE)
        lost = len(a.heard())
        now = [lab.a.external, *(box.address for box in lab.a.boxes)]
        gre_flows = [flow for box in lab.a.boxes for flow in box.node.flows() if flow.protocol == socket.IPPROTO_GRE]
        return {
            "before": before,
            "restarted": restarted,
            "lost": lost,
            "moved": [old != new for old, new in zip(known, now, strict=True)],
            "flows": len(gre_flows),
            "after": exchange(lab, a, b, "v0"),
        }


@pytest.mark.parametrize(
    ("plan", "restarted", "moved"),
    [
        ("G19", ["a.nat1"], [True, True]),
        ("G2+G19", ["a.nat2"], [True, False, True]),
        ("G19+G2", ["a.nat1"], [False, False, False]),
    ],
)
def test_g19_restarts_and_the_outermost_box_has_another_address_then(
    run_in_lab: RunInLab, plan: str, restarted: list[str], moved: list[bool]
) -> None:
    seen = run_in_lab(restarting, plan=plan)
    assert seen["restarted"] == restarted
    assert seen["moved"] == moved
    if plan == "G19":
        assert seen["flows"] == 0
        assert seen["lost"] == 0
    assert min(*seen["before"], *seen["after"]) >= 3


def nothing_restarts() -> list[str]:
    with Lab("G2", "G15") as lab:
        return lab.restart_boxes()


def test_other_classes_do_not_restart(run_in_lab: RunInLab) -> None:
    assert run_in_lab(nothing_restarts) == []


def narrow_link() -> dict[str, Any]:
    """Datagrams with Don't Fragment from the public host to a's, whose LAN carries 1400 octets."""
    with Lab("G0") as lab:
        lab.set_link_mtu(lab.a.host, "eth0", 1400)
        with lab.a.host.entered():
            opener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with lab.meet.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind((str(MEET_ADDRESSES[0]), 4000))
        opener.bind((str(lab.a.address), 4000))
        opener.settimeout(1.0)
        opener.sendto(b"open", (str(MEET_ADDRESSES[0]), 4000))
        sender.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO (linux/in.h)
        sent = []
        for size in (1472, 1372):
            try:
                sent.append(sender.sendto(bytes(size), (str(lab.a.address), 4000)))
                time.sleep(SETTLE)
            except OSError as error:
                sent.append(-(error.errno or 0))
        largest = len(opener.recv(2000))
        sender.connect((str(lab.a.address), 4000))
        return {"largest": largest, "path_mtu": sender.getsockopt(socket.IPPROTO_IP, 14)}  # IP_MTU


def test_a_narrow_link_stops_large_packets_and_says_its_size(run_in_lab: RunInLab) -> None:
    assert run_in_lab(narrow_link) == {"largest": 1372, "path_mtu": 1400}


def names_of(lab_text: tuple[str, str]) -> list[str]:
    with Lab(*lab_text) as lab:
        return [
            str(value) for side in (lab.a, lab.b) for value in (side.external, *(box.address for box in side.boxes))
        ]


def test_addresses_are_where_the_chain_puts_them(run_in_lab: RunInLab) -> None:
    assert run_in_lab(names_of, lab_text=["G15", "G0+G2"]) == [
        *("198.51.100.10", "100.64.1.10", "198.51.100.10"),
        *("203.0.113.10", "100.64.2.10", "203.0.113.10"),
    ]
    assert run_in_lab(names_of, lab_text=["G0", "G2+G0"]) == [
        *("198.51.100.148", "198.51.100.10"),
        *("203.0.113.202", "203.0.113.202", "203.0.113.10"),
    ]


def udp(nat_a: str, nat_b: str) -> dict[str, Any]:
    with Lab(nat_a, nat_b) as lab:
        return udp_punch.attempt(lab.meet, MEET_ADDRESSES, lab.a.host, lab.b.host).as_json()


def ports(report: dict[str, Any]) -> list[int]:
    return [int(mapped.rpartition(":")[2]) for mapped in report["mapped"]]


def test_udp_punching_passes_between_port_preserving_nats(run_in_lab: RunInLab) -> None:
    outcome = run_in_lab(udp, nat_a="G2", nat_b="G2")
    assert outcome["result"] == "passed"
    for report in (outcome["a"], outcome["b"]):
        assert ports(report) == [report["local_port"]] * 2
    assert outcome["a"]["heard_from"] == outcome["b"]["mapped"][0]


def test_udp_punching_fails_with_a_symmetric_nat_that_gre_passes(run_in_lab: RunInLab) -> None:
    others = ("G2S", "G2", "G13", "G15")
    with ThreadPoolExecutor() as pool:  # each attempt mostly waits
        outcomes = list(pool.map(lambda other: run_in_lab(udp, nat_a="G2S", nat_b=other), others))
    for other, outcome in zip(others, outcomes, strict=True):
        a, b = outcome["a"], outcome["b"]
        assert outcome["result"] == "failed", other
        assert a["symmetric"]
        assert a["local_port"] not in ports(a)
        assert b["symmetric"] == (other in ("G2S", "G15")), other
        assert (a["heard_from"], b["heard_from"]) == ("", ""), other
        assert min(a["sent"], b["sent"]) > 100  # it really tried


def test_logs_and_captures_outlive_the_sandbox(run_in_lab: RunInLab, lab_logs: Path) -> None:
    run_in_lab(udp, nat_a="G2", nat_b="G2")
    assert sorted(path.name for path in lab_logs.glob("1/*.out")) == [
        "a-udp-peer-1.out",
        "b-udp-peer-1.out",
        "meet-udp-reflector-1.out",
    ]


def captured_by_a_late_program() -> int:
    """A capture that has no processor while packets pass, and is ended before it gets one."""
    with Lab("G2") as lab:
        capturing, host = lab.wan.capture("a"), Gre(lab.a.host)
        capturing.process.send_signal(signal.SIGSTOP)
        for _ in range(20):
            host.send(MEET_ADDRESSES[0], gre_v0(b"passed"))
        time.sleep(SETTLE)
        capturing.process.send_signal(signal.SIGTERM)
        capturing.process.send_signal(signal.SIGCONT)
        capturing.stop()
        return sum(packet[9] == socket.IPPROTO_GRE for _, packet in read(lab.directory / "wan-a.pcap"))


def test_a_capture_holds_what_passed_before_it_was_ended(run_in_lab: RunInLab) -> None:
    assert run_in_lab(captured_by_a_late_program) == 20


def bad_line() -> dict[str, Any]:
    """One GRE packet each way at a time over a line that is slow, then one that loses all, then a good one."""
    with Lab(SidePlan.of("G2", line=Impairment(delay=0.4)), "G2") as lab:
        line, a, b = lab.a.line, Gre(lab.a.host), Gre(lab.b.host)
        assert line is not None
        heard = []
        for impairment in (None, Impairment(loss=1.0), Impairment()):
            if impairment is not None:
                line.become(impairment)
            for _ in range(3):
                a.send(lab.b.external, gre_v0(b"outwards"))
                b.send(lab.a.external, gre_v0(b"inwards"))
                time.sleep(SETTLE)
            soon = [len(a.heard()), len(b.heard())]
            time.sleep(0.5)
            heard.append((soon, [len(a.heard()), len(b.heard())]))
        began = time.monotonic()
        assert lab.a.host.ping(MEET_ADDRESSES[0])
        with lab.meet.entered():
            listener = socket.create_server((str(MEET_ADDRESSES[0]), 5000))
        with lab.a.host.entered():
            client = socket.create_connection((str(MEET_ADDRESSES[0]), 5000), timeout=5)
        server, _ = listener.accept()
        server.sendall(bytes(300_000))  # checksums and segments as on a wire, or nothing would arrive
        received = 0
        while received < 300_000:
            received += len(client.recv(300_000))
        return {"heard": heard, "ping": time.monotonic() - began, "counters": line.end()}


def test_a_bad_line_carries_what_it_is_told_to_and_may_change_meanwhile(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(bad_line)
    (slow, late), (lost, gone), (good, _) = seen["heard"]
    assert slow == [0, 0]  # a's line takes 0.4 s
    assert min(late) >= 2
    assert lost == gone == [0, 0]
    assert min(good) >= 2
    for direction in seen["counters"]:
        assert direction["lost"] == 3
        assert direction["taken"] > 9


def move_away() -> dict[str, Any]:
    with Lab("G2", "G2", c="G2S") as lab:
        before = lab.a.host.ping(MEET_ADDRESSES[0])
        address = lab.move(lab.a.host, "c")
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        a.send(lab.b.external, gre_v0(b"open"))
        for _ in range(2):
            b.send(lab.sides["c"].external, gre_v0(b"open"))
            a.send(lab.b.external, gre_v0(b"from there"))
            time.sleep(SETTLE)
        return {
            "before": before,
            "after": lab.a.host.ping(MEET_ADDRESSES[0]),
            "address": str(address),
            "heard": [source for source, _ in b.heard()][-1],
            "c": str(lab.sides["c"].external),
        }


def test_a_host_moves_to_another_network(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(move_away)
    assert seen["before"]
    assert seen["after"]
    assert seen["address"] == "172.16.1.130"
    assert seen["heard"] == seen["c"]
