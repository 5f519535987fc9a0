"""What each NAT class does with GRE, with real packets; every class has an assertion that no other model meets."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from grepunch.lab.capture import read
from grepunch.lab.nat import GreTimers
from grepunch.lab.topology import MEET_ADDRESSES, Lab, SidePlan
from tests.live.live_support import CODE_PROTOCOL, FORMS, ICMP_UNREACHABLE, SETTLE, Gre, RunInLab, exchange, gre_v0

ECHO_REQUEST = 8  # RFC 792
PLAIN = ["v0", "0/0"]  # the forms whose key netfilter takes for the same in both directions


def what_passes(pairs: list[tuple[str, str]]) -> dict[str, dict[str, list[int]]]:
    """For each pair of classes and each form, how many of four packets each side heard."""
    table: dict[str, dict[str, list[int]]] = {}
    for nat_a, nat_b in pairs:
        with Lab(nat_a, nat_b) as lab:
            row = table[f"{nat_a} x {nat_b}"] = {}
            for form in FORMS:
                a, b = Gre(lab.a.host), Gre(lab.b.host)
                row[form] = exchange(lab, a, b, form)
                a.close()
                b.close()
                for box in (*lab.a.boxes, *lab.b.boxes):
                    box.reboot()
    return table


@pytest.mark.parametrize(
    ("pairs", "passing"),
    [
        ([("G0", "G0"), ("G2", "G2"), ("G2S", "G2S"), ("G2S", "G0"), ("G3", "G2S")], PLAIN),
        ([("G15", "G2S"), ("G2S+G2S", "G3"), ("G2+G0", "G0+G2")], PLAIN),
        ([("G1", "G1"), ("G1L", "G1L"), ("G1+G1", "G1")], list(FORMS)),
        ([("G4", "G2"), ("G4R", "G2"), ("G5", "G5"), ("G2+G5", "G0"), ("G6", "G0")], []),
        ([("G7V0", "G2")], ["0/0"]),
        ([("G7V1", "G2")], ["v0"]),
        ([("G7K", "G1")], PLAIN),
        ([("G12", "G2"), ("G16", "G2")], PLAIN),
        ([("G9", "G2"), ("G9", "G0")], []),  # the peer opens its NAT for an address that nothing comes from
    ],
    ids=["netfilter", "double", "address-pair", "blocked", "no-v0", "no-v1", "no-ids", "variants", "pool"],
)
def test_what_passes_both_ways_and_what_not_at_all(
    run_in_lab: RunInLab, pairs: list[tuple[str, str]], passing: list[str]
) -> None:
    for pair, row in run_in_lab(what_passes, pairs=pairs).items():
        for form, heard in row.items():
            if form in passing:
                assert min(heard) >= 3, (pair, form, heard)  # the very first may meet a box that is still closed
            elif (pair, form) == ("G7K x G1", "0/7"):
                assert (heard[0], heard[1] >= 3) == (0, True)  # only what has a Call ID is dropped
            else:
                assert heard == [0, 0], (pair, form, heard)


def stray_then_answer(nat: str, lead: bool, silence: float = 0.0) -> dict[str, Any]:
    """The peer sends first (after our TTL-limited packets if ``lead``), then both go on; who hears whom?"""
    with Lab(SidePlan.of(nat, gre_timers=GreTimers(unreplied=1, replied=60)), "G2") as lab:
        a, b, own_input = Gre(lab.a.host), Gre(lab.b.host), Gre(lab.a.boxes[0].node)
        if lead:
            a.send(lab.b.external, gre_v0(b"lead"), ttl=2)
            time.sleep(SETTLE)
        b.send(lab.a.external, gre_v0(b"early"))
        time.sleep(SETTLE)
        strays = len(own_input.heard())
        local = [flow for flow in lab.a.boxes[0].node.flows() if flow.protocol == socket.IPPROTO_GRE]
        together = exchange(lab, a, b, "v0")
        a.heard(), b.heard()
        time.sleep(silence)
        return {"strays": strays, "flows": len(local), "together": together, "later": exchange(lab, a, b, "v0")}


def test_g13_takes_strays_and_is_poisoned_by_them_until_they_stop(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(stray_then_answer, nat="G13", lead=False, silence=1.5)  # longer than the unreplied timer
    assert seen["strays"] == 1
    assert seen["flows"] == 1
    assert seen["together"] == [0, 0]
    assert min(seen["later"]) >= 3  # the silence let the flow expire, and we sent first: the timers are per namespace


def test_a_ttl_limited_lead_keeps_g13_from_being_poisoned(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(stray_then_answer, nat="G13", lead=True)
    assert seen["strays"] == 0
    assert min(seen["together"]) >= 3


def test_g2_drops_strays_unseen_and_unremembered(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(stray_then_answer, nat="G2", lead=False)
    assert (seen["strays"], seen["flows"]) == (0, 0)
    assert min(seen["together"]) >= 3


def two_hosts_one_slot(nat: str) -> dict[str, int]:
    """Two hosts behind one NAT send to the same peer, which then answers: who hears it?"""
    with Lab(SidePlan.of(nat, hosts=2)) as lab:
        first, second, peer = Gre(lab.a.hosts[0]), Gre(lab.a.hosts[1]), Gre(lab.meet)
        for host in (first, second):
            for _ in range(2):
                host.send(MEET_ADDRESSES[0], gre_v0(b"mine"))
                time.sleep(SETTLE)
        arrived = len(peer.heard())
        for _ in range(3):
            peer.send(lab.a.external, gre_v0(b"answer"))
        time.sleep(SETTLE)
        return {"arrived": arrived, "first": len(first.heard()), "second": len(second.heard())}


@pytest.mark.parametrize(
    ("nat", "expected"),
    [
        ("G1", {"arrived": 4, "first": 3, "second": 0}),
        ("G1L", {"arrived": 4, "first": 0, "second": 3}),
        ("G2", {"arrived": 2, "first": 3, "second": 0}),  # netfilter drops what has no slot of its own
    ],
)
def test_two_hosts_behind_one_address_share_one_slot(run_in_lab: RunInLab, nat: str, expected: dict[str, int]) -> None:
    assert run_in_lab(two_hosts_one_slot, nat=nat) == expected


def refusals(nat: str) -> dict[str, Any]:
    with Lab(nat, "G0") as lab:
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        heard = exchange(lab, a, b, "v0")
        return {"heard": heard, "errors": a.errors()}


def test_g4_is_silent_and_g4r_says_protocol_unreachable(run_in_lab: RunInLab) -> None:
    assert run_in_lab(refusals, nat="G4") == {"heard": [0, 0], "errors": []}
    refused = run_in_lab(refusals, nat="G4R")
    assert refused["heard"] == [0, 0]
    assert refused["errors"] == [["192.168.1.1", ICMP_UNREACHABLE, CODE_PROTOCOL]] * 4


def source_on_the_wire() -> list[str]:
    with Lab("G6") as lab:
        capturing, a = lab.wan.capture("a"), Gre(lab.a.host)
        a.send(MEET_ADDRESSES[0], gre_v0(b"as I am"))
        time.sleep(SETTLE)
        capturing.stop()
        packets = (packet for _, packet in read(lab.directory / "wan-a.pcap"))
        return [socket.inet_ntoa(packet[12:16]) for packet in packets if packet[9] == socket.IPPROTO_GRE]


def test_g6_lets_gre_out_with_the_hosts_own_address(run_in_lab: RunInLab) -> None:
    assert run_in_lab(source_on_the_wire) == ["192.168.1.100"]


def firewall_without_nat() -> dict[str, Any]:
    with Lab("G0", "G0") as lab:
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        b.send(lab.a.external, gre_v0(b"unasked"))
        time.sleep(SETTLE)
        unasked = len(a.heard())
        a.send(lab.b.external, gre_v0(b"open"))
        b_heard = []
        for _ in range(2):  # the first only opens b's own firewall
            time.sleep(SETTLE)
            b.send(lab.a.external, gre_v0(b"asked"))
            a.send(lab.b.external, gre_v0(b"again"))
            time.sleep(SETTLE)
            b_heard += [source for source, _ in b.heard()]
        return {"unasked": unasked, "asked": len(a.heard()), "source": b_heard[-1], "own": str(lab.a.address)}


def test_g0_translates_nothing_and_admits_only_answers(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(firewall_without_nat)
    assert (seen["unasked"], seen["asked"]) == (0, 2)
    assert seen["source"] == seen["own"]


def from_the_pool() -> dict[str, Any]:
    """Both send, and b to where a's GRE really comes from."""
    with Lab("G9", "G2") as lab:
        second = lab.a.boxes[0].nat.second(lab.a.external)
        capturing, a, b = lab.wan.capture("a"), Gre(lab.a.host), Gre(lab.b.host)
        for _ in range(3):
            a.send(lab.b.external, gre_v0(b"from the pool"))
            b.send(second, gre_v0(b"to the pool"))
            time.sleep(SETTLE)
        lab.a.host.ping(MEET_ADDRESSES[0])
        capturing.stop()
        packets = [packet for _, packet in read(lab.directory / "wan-a.pcap")]
        icmp = {socket.inet_ntoa(p[12:16]) for p in packets if p[9] == socket.IPPROTO_ICMP and p[20] == ECHO_REQUEST}
        heard = [source for source, _ in b.heard()]
        return {"a": len(a.heard()), "b": heard, "icmp": list(icmp), "external": str(lab.a.external)}


def test_g9_sends_gre_from_another_address_than_the_rest_and_takes_answers_there(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(from_the_pool)
    assert seen["icmp"] == [seen["external"]]
    assert set(seen["b"]).isdisjoint(seen["icmp"])
    assert len(seen["b"]) >= 2
    assert seen["a"] >= 2


def remembered() -> list[int]:
    with Lab("G12", "G2") as lab:
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        exchange(lab, a, b, "v0")
        return [flow.timeout for flow in lab.a.boxes[0].node.flows() if flow.protocol == socket.IPPROTO_GRE]


def test_g12_remembers_a_flow_for_half_a_minute(run_in_lab: RunInLab) -> None:
    (timeout,) = run_in_lab(remembered)
    assert timeout in range(27, 31)


def through_a_narrow_silent_link() -> dict[str, Any]:
    """Large and small GRE packets with Don't Fragment both ways, and a transfer over TCP."""
    with Lab("G16", "G2") as lab:
        a, b = Gre(lab.a.host), Gre(lab.b.host)
        exchange(lab, a, b, "v0")
        for node in (a, b):
            node.never_fragment()
        heard = []
        for size in (1400, 1401):
            a.send(lab.b.external, gre_v0(bytes(size - 24)))
            b.send(lab.a.external, gre_v0(bytes(size - 24)))
            time.sleep(SETTLE)
            heard.append([len(a.heard()), len(b.heard())])
        with lab.meet.entered():
            listener = socket.create_server((str(MEET_ADDRESSES[0]), 5000))
        with lab.a.host.entered():
            client = socket.socket()
        client.settimeout(5.0)
        client.connect((str(MEET_ADDRESSES[0]), 5000))
        server, _ = listener.accept()
        server.sendall(bytes(20_000))
        received = 0
        while received < 20_000:
            received += len(client.recv(20_000))
        return {"heard": heard, "errors": a.errors() + b.errors(), "tcp": received}


def test_g16_swallows_what_is_too_large_and_says_nothing_while_tcp_is_told(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(through_a_narrow_silent_link)
    assert seen["heard"] == [[1, 1], [0, 0]]
    assert seen["errors"] == []
    assert seen["tcp"] == 20_000
