"""The device of ordinary PPTP between two real kernels: whole packets out, trains in, bad checksums counted."""

from __future__ import annotations

import random
import select
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from grepunch.io.tun import JoiningTun
from grepunch.lab.node import Node
from grepunch.lab.requirements import program
from tests.live.live_support import RunInLab
from tests.live.test_engine_transfers import carry, checksum_errors

SIZE = 4_000_000
DAMAGED = 20
PORT = 5001


class Wire:
    """Carries packets between two devices in batches, and damages some segments of the first on their way."""

    def __init__(self, near: JoiningTun, far: JoiningTun) -> None:
        self._ways = {near.fileno(): (near, far), far.fileno(): (far, near)}
        self._near = near
        self.damaged = self.carried = self.largest = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            for descriptor in select.select(list(self._ways), [], [], 0.1)[0]:
                source, sink = self._ways[descriptor]
                for packet in source.read(64):
                    self.largest = max(self.largest, len(packet))
                    sink.write(self._spoil(packet) if source is self._near else packet)
                sink.flush()

    def _spoil(self, packet: bytes) -> bytes:
        self.carried += 1
        if self.damaged < DAMAGED and self.carried % 50 == 0 and len(packet) > 1000:
            self.damaged += 1
            return packet[:-1] + bytes([packet[-1] ^ 1])
        return packet


def received(node: Node, interface: str) -> int:
    """Packets, or trains, that this node's kernel has taken from the device."""
    lines = node.run("cat", "/proc/net/dev").splitlines()
    (line,) = [line for line in lines if line.strip().startswith(f"{interface}:")]
    return int(line.split(":")[1].split()[1])


def scenario_devices() -> dict[str, Any]:
    nodes = [Node(name, Path("/run/lab")) for name in ("near", "far")]
    devices = []
    for number, node in enumerate(nodes, 1):
        subprocess.run([program("ip"), "netns", "add", node.name], check=True)
        with node.entered():
            devices.append(JoiningTun("gp-joins"))
        node.ip("address", "add", f"10.66.0.{number}/24", "dev", "gp-joins")
        node.ip("link", "set", "gp-joins", "mtu", "1396", "up")
    near, far = nodes
    with far.entered():
        listener = socket.create_server(("10.66.0.2", PORT))
    with near.entered():
        client = socket.socket()
    wire = Wire(*devices)
    with listener:
        client.connect(("10.66.0.2", PORT))
        same = carry(listener, client, random.Random(7).randbytes(SIZE))
    wire.close()
    result = {
        "same": same,
        "damaged": wire.damaged,
        "errors": checksum_errors(far),
        "largest": wire.largest,
        "carried": wire.carried,
        "taken": received(far, "gp-joins"),
        "drops": [len(device.drops) for device in devices],
    }
    for device in devices:
        device.close()
    return result


def test_the_kernel_gets_trains_and_every_bad_checksum(run_in_lab: RunInLab) -> None:
    result = run_in_lab(scenario_devices)
    assert result["same"]
    assert result["largest"] <= 1396
    assert result["damaged"] == DAMAGED
    assert result["errors"] == {"Tcp": DAMAGED, "Udp": 0}
    assert result["taken"] < result["carried"]
    assert result["drops"] == [0, 0]
