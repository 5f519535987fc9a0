"""What iperf3, ping and the kernel print is read as it is meant, and the search for a rate finds it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest

from tests.bench.parsing import (
    SEARCH_FACTOR,
    LoadFailed,
    RoundTrips,
    Volley,
    parse_cpu_ticks,
    parse_ping,
    parse_resident,
    parse_transfer,
    parse_volley,
    percentile,
    search_rate,
)
from tests.bench.wire import echo_request, loss_rules, parse_device_counter, parse_snmp


def iperf(**end: object) -> str:
    """A report of iperf3 3.12 with what is read of it."""
    return json.dumps({"start": {}, "intervals": [], "end": end})


def test_a_transfer_is_what_arrived() -> None:
    report = iperf(
        sum_sent={"bytes": 2_600_000, "bits_per_second": 20.8e6},
        sum_received={"bytes": 2_500_000, "bits_per_second": 20e6},
    )
    transfer = parse_transfer(report)
    assert (transfer.octets, transfer.mbit_s) == (2_500_000, 20.0)
    assert (transfer.back_octets, transfer.back_mbit_s) == (0, 0.0)


def test_both_directions_are_kept_apart() -> None:
    report = iperf(
        sum_received={"bytes": 100, "bits_per_second": 8e6},
        sum_received_bidir_reverse={"bytes": 50, "bits_per_second": 4e6},
    )
    transfer = parse_transfer(report)
    assert (transfer.mbit_s, transfer.back_mbit_s, transfer.back_octets) == (8.0, 4.0, 50)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("", "no report"),
        ("{", "no report"),
        (json.dumps({"start": {}, "error": "unable to connect to server"}), "unable to connect"),
        (json.dumps({"start": {}, "end": {}}), "no end"),
    ],
)
def test_what_did_not_end_well_says_so(report: str, words: str) -> None:
    with pytest.raises(LoadFailed, match=words):
        parse_transfer(report)


def test_a_volley_counts_what_the_receiver_got() -> None:
    report = iperf(
        sum={"lost_packets": 300, "packets": 30_000},
        sum_sent={"packets": 30_000, "seconds": 1.0},
        sum_received={"bytes": 29_700 * 64, "seconds": 1.1},
    )
    volley = parse_volley(report)
    assert volley.loss == pytest.approx(0.01)
    assert volley.offered == 30_000
    assert volley.received == pytest.approx(27_000)
    assert volley.passes(30_000)
    assert not volley.passes(40_000)  # not even offered


def test_a_volley_of_which_nothing_arrived_lost_everything() -> None:
    report = iperf(
        sum={"lost_packets": 0, "packets": 30_000},
        sum_sent={"packets": 30_000, "seconds": 1.0},
        sum_received={"bytes": 0, "seconds": 0},
    )
    assert parse_volley(report) == Volley(30_000, 0.0, 1.0)


def test_ping_times_are_those_that_came_back() -> None:
    text = (
        "64 bytes from 10.99.0.2: icmp_seq=1 ttl=64 time=0.200 ms\n"
        "64 bytes from 10.99.0.2: icmp_seq=2 ttl=64 time=1.50 ms\n"
        "64 bytes from 10.99.0.2: icmp_seq=4 ttl=64 time=12 ms\n\n"
        "--- 10.99.0.2 ping statistics ---\n4 packets transmitted, 3 received, 25% packet loss, time 60ms\n"
    )
    trips = parse_ping(text)
    assert trips == RoundTrips(4, (0.2, 1.5, 12.0))
    assert trips.median == 1.5
    assert trips.p95 == pytest.approx(10.95)


def test_a_ping_without_answers_has_no_median() -> None:
    with pytest.raises(LoadFailed, match="none of 5"):
        _ = parse_ping("5 packets transmitted, 0 received, 100% packet loss").median
    with pytest.raises(LoadFailed, match="without a summary"):
        parse_ping("ping: connect: Network is unreachable")


def test_percentiles_lie_between_neighbours() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0], 0.5) == 1.5
    assert percentile([7.0], 0.95) == 7.0


def test_processor_ticks_are_read_behind_any_name() -> None:
    fields = " ".join(str(number) for number in range(3, 30))
    assert parse_cpu_ticks(f"42 (a) b (c)) S {fields}") == (13, 14)


def test_memory_is_what_is_resident() -> None:
    assert parse_resident("Name:\tx\nVmHWM:\t  999 kB\nVmRSS:\t   56320 kB\n") == 56320 * 1024
    with pytest.raises(ValueError, match="no memory"):
        parse_resident("Name:\tx\nState:\tZ (zombie)\n")


def test_kernel_counters_are_read_by_name() -> None:
    device = ["Inter-|   Receive ...", "  wire: 1 2 3 4 5 6 7 8 90 91 12 13 14 15 16 17", "    lo: 0 0"]
    assert parse_device_counter(device, "wire", "rx_packets") == 2
    assert parse_device_counter(device, "wire", "tx_packets") == 91
    with pytest.raises(ValueError, match="no interface eth9"):
        parse_device_counter(device, "eth9", "rx_packets")
    assert parse_snmp("Ip: Forwarding FragCreates\nIp: 1 7\nIcmp: InMsgs\nIcmp: 0\n", "FragCreates") == 7


def test_the_first_echo_request_has_a_right_checksum() -> None:
    packet = echo_request(0xFFFF, 0xFFFE)
    total = sum(int.from_bytes(packet[i : i + 2], "big") for i in range(0, len(packet), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
    assert packet[0] == 8
    assert len(packet) == socket.ntohs(socket.htons(8))


def test_loss_is_a_share_of_what_arrives() -> None:
    assert "numgen random mod 100000 < 100 drop" in loss_rules(0.001)
    assert "numgen random mod 100000 < 1000 drop" in loss_rules(0.01)
    assert "drop" not in loss_rules(0)
    assert "numgen" not in loss_rules(1)
    assert "drop" in loss_rules(1)


def tunnel(capacity: float, *, offers: float = 1e9, hiccups: int = 0) -> tuple[Callable[[float], Volley], list[float]]:
    """A tunnel that carries ``capacity`` packets a second, and the rates it was tried with."""
    tried: list[float] = []
    left = [hiccups]

    def probe(rate: float) -> Volley:
        tried.append(rate)
        offered = min(rate, offers)
        if offered <= capacity and left[0]:
            left[0] -= 1
            return Volley(offered, offered * 0.9, 0.1)
        received = min(offered, capacity)
        return Volley(offered, received, 1 - received / offered)

    return probe, tried


@pytest.mark.parametrize("capacity", [2_000, 31_000, 60_000, 61_000, 108_000, 151_000, 716_000])
def test_the_search_ends_just_below_the_capacity(capacity: float) -> None:
    probe, tried = tunnel(capacity)
    found = search_rate(probe, 60_000)
    assert capacity / SEARCH_FACTOR**0.25 * 0.98 <= found <= capacity
    assert len(tried) < 30


def test_one_hiccup_does_not_end_the_search() -> None:
    probe, _ = tunnel(151_000, hiccups=1)
    assert search_rate(probe, 60_000) > 130_000


def test_a_sender_at_its_end_is_the_answer() -> None:
    probe, _ = tunnel(1e9, offers=100_000)
    assert search_rate(probe, 60_000) == 100_000


def test_a_dead_tunnel_carries_nothing() -> None:
    probe, tried = tunnel(0)
    assert search_rate(probe, 60_000) == 0
    assert len(tried) < 40
