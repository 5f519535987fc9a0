"""The engine against real kernels: what is carried is octet for octet what was sent, and every checksum is right.

Each pair is run with the engine at both ends, and with the plain loop at one of them, as on a kernel without offload:
there every packet comes out of the tunnel whole, and an impartial program judges its checksum.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from grepunch.lab.node import Node
from grepunch.lab.topology import Lab
from grepunch.scenario import INNER, TRANSFER_PORT, Scenario
from tests.live.endpoint_support import running, status
from tests.live.live_support import RunInLab
from tests.live.test_capture_looks_like_pptp import tshark

# An endpoint on a system that lacks what the engine needs.
WITHOUT_OFFLOAD = (
    "from grepunch.io.engine import batches\nbatches.available = lambda: False\nfrom grepunch.cli import main\nmain()\n"
)
SIZE = 8_000_000
SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h


def start_plain(scenario: Scenario, name: str) -> None:
    peer = scenario.peers[name]
    runtime = scenario.directory / f"run-{name}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    peer.running = peer.host.start(
        [sys.executable, "-c", WITHOUT_OFFLOAD, peer.role, str(peer.profile), "--json"],
        label=peer.role,
        environment={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
    )
    peer.started_at = time.monotonic()


def checksum_errors(node: Node) -> dict[str, int]:
    """What this node's kernel has counted."""
    lines = [line.split() for line in node.run("cat", "/proc/net/snmp").splitlines()]
    tables = {
        names[0]: dict(zip(names, values, strict=True)) for names, values in zip(lines[::2], lines[1::2], strict=True)
    }
    return {kind: int(tables[f"{kind}:"]["InCsumErrors"]) for kind in ("Tcp", "Udp")}


def link_local(node: Node, interface: str) -> tuple[str, int]:
    """The node's IPv6 address on an interface, and the interface's number."""
    with node.entered():
        index = socket.if_nametoindex(interface)
    for word in node.ip("-6", "-brief", "address", "show", "dev", interface).split():
        if word.startswith("fe80"):
            return word.partition("/")[0], index
    raise ValueError(f"no IPv6 address on {interface}")


def carry(listener: socket.socket, client: socket.socket, data: bytes) -> bool:
    """Send ``data`` over a new TCP connection; whether the same came out."""

    def send() -> None:
        with client:
            client.sendall(data)

    accepted, _ = listener.accept()
    thread = threading.Thread(target=send)
    thread.start()
    received = bytearray()
    with accepted:
        accepted.settimeout(60)
        while part := accepted.recv(1 << 16):
            received += part
    thread.join()
    return received == data


def carry_ipv6(scenario: Scenario) -> bool:
    a, b = scenario.peers["a"].host, scenario.peers["b"].host
    there, scope = link_local(a, "gp-a")
    _, own_scope = link_local(b, "gp-b")
    with a.entered():
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    with b.entered():
        client = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    with listener:
        listener.bind((there, TRANSFER_PORT, 0, scope))
        listener.listen()
        client.connect((there, TRANSFER_PORT, 0, own_scope))
        return carry(listener, client, random.Random(6).randbytes(SIZE // 2))


def carry_datagrams(scenario: Scenario) -> list[int]:
    """How many of 3000 datagrams came, each right: single ones of 64 octets, and trains where the kernel makes them."""
    with scenario.peers["a"].host.entered():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((str(INNER["a"]), 9))
        receiver.settimeout(2)
    with scenario.peers["b"].host.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.connect((str(INNER["a"]), 9))
    right = []
    with receiver, sender:
        for size, train in ((64, 1), (1000, 10), (0, 1)):
            if train > 1:
                sender.setsockopt(SOL_UDP, UDP_SEGMENT, size)
            came = 0
            for number in range(0, 1000, train):
                datagrams = [struct.pack("!I", number + n).ljust(size, b"\xa5")[:size] for n in range(train)]
                sender.send(b"".join(datagrams))
                came += sum(receiver.recv(2048) == datagram for datagram in datagrams)
            right.append(came)
            if train > 1:
                sender.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
    return right


def scenario_transfer(plain: str) -> dict[str, Any]:
    with Lab("G2", "G2S") as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        for name in "ab":
            if name == plain:
                start_plain(scenario, name)
            else:
                scenario.start(name)
        scenario.up(25)
        hosts = {name: peer.host for name, peer in scenario.peers.items()}
        deadline = time.monotonic() + 20
        while "mtu 1435" not in hosts["b"].ip("link", "show", "gp-b") + hosts["a"].ip("link", "show", "gp-a"):
            assert time.monotonic() < deadline, "the path's size was not found"  # IPv6 needs it
            time.sleep(0.05)
        taken = hosts[plain].capture(f"gp-{plain}") if plain else None
        result: dict[str, Any] = {
            "devices": {
                name: "vnet_hdr on" in host.ip("-d", "link", "show", f"gp-{name}") for name, host in hosts.items()
            },
            "transfer": scenario.transfer(SIZE)["sha256_match"],
            "ipv6": carry_ipv6(scenario),
            "datagrams": carry_datagrams(scenario),
            "ping": [
                scenario.ping("b", 5, size=size)["lost"] for size in (16, 57, 1407, 4000)
            ],  # the last in fragments
            "errors": {name: checksum_errors(host) for name, host in hosts.items()},
            "drops": {name: status(scenario, name)["peers"][0]["drops"] for name in hosts},
            "capture": f"{scenario.directory}/{plain}-gp-{plain}.pcap".removeprefix("/run/lab/") if plain else "",
            "stderr": [running(scenario, name).stderr for name in hosts],
        }
        if taken is not None:
            taken.stop()
        return result


@pytest.mark.parametrize("plain", ["", "a", "b"], ids=["both", "plain-serve", "plain-dial"])
def test_transfers_are_exact_and_every_checksum_is_right(run_in_lab: RunInLab, lab_logs: Path, plain: str) -> None:
    result = run_in_lab(scenario_transfer, plain=plain, timeout=150)
    assert result["devices"] == {name: name != plain for name in "ab"}
    assert result["transfer"]
    assert result["ipv6"]
    assert result["datagrams"] == [1000, 1000, 1000]
    assert result["ping"] == [0, 0, 0, 0]
    assert result["errors"] == {name: {"Tcp": 0, "Udp": 0} for name in "ab"}
    # of the start; and on a busy machine a full queue, which is how TCP learns of its share
    explained = {"not_allowed", "wrong_phase", "queue_full"}
    assert {name: set(drops) - explained for name, drops in result["drops"].items()} == {"a": set(), "b": set()}
    assert result["stderr"] == ["", ""]
    if plain:
        path = lab_logs / result["capture"]
        judge = ("-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE")
        assert len(tshark(path, "-Y", "tcp.len > 0")) > SIZE // 1435
        # all ones is right where nothing is, too, and what a kernel writes that makes the sum late (skb_checksum_help)
        wrong = "(tcp.checksum.status == Bad && tcp.checksum != 0xffff) || udp.checksum.status == Bad"
        assert tshark(path, *judge, "-Y", wrong) == []
        assert tshark(path, *judge, "-Y", "ip.checksum.status == Bad || ip.len > 1435") == []
