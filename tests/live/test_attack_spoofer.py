"""A spoofer on the path with the right address pair: forged, replayed and mutated GRE, 100 000 packets of it."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from grepunch.lab import capture
from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear
from tests.live.live_support import RunInLab

COUNT = 100_000
RATE = 20_000  # packets a second offered
SEED = 1723

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_GRE = struct.Struct("!HHHHI")


def ipv4(source: str, destination: str, payload: bytes) -> bytes:
    """An IPv4 packet; the kernel fills in the checksum."""
    ends = socket.inet_aton(source), socket.inet_aton(destination)
    return _IPV4.pack(0x45, 0, 20 + len(payload), 0, 0, 60, 47, 0, *ends) + payload


def enhanced(ppp: bytes, number: int) -> bytes:
    return _GRE.pack(0x3001, 0x880B, len(ppp), 0, number & 0xFFFFFFFF) + ppp


def evil(recorded: list[bytes], rng: random.Random, number: int) -> bytes:
    """One GRE packet of the attack: replayed, mutated, or made up."""
    match number % 5:
        case 0:
            return rng.choice(recorded)
        case 1:
            mutated = bytearray(rng.choice(recorded))
            for _ in range(rng.randint(1, 3)):
                mutated[rng.randrange(12, len(mutated))] ^= 1 << rng.randrange(8)
            return bytes(mutated)
        case 2:
            return enhanced(b"\x00\x53" + rng.randbytes(rng.randint(0, 120)), number)
        case 3:
            kind = rng.choice((ClearKind.PROBE, ClearKind.HANDSHAKE_FRAGMENT))
            return enhanced(build_clear(ClearPacket(kind, rng.randbytes(rng.choice((44, 200, 900))))), number)
        case _:
            return enhanced(b"\xff\x03\xc0\x21\x05" + rng.randbytes(20), number)  # a forged Terminate-Request


def spoof(source: str, destination: str, recording: str, count: int) -> None:
    """The attacker's program; prints how many packets it sent and how long that took."""
    rng = random.Random(SEED)
    theirs = socket.inet_aton(source)
    recorded = [p[20:] for _, p in capture.read(Path(recording)) if p[9] == 47 and p[12:16] == theirs]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        packets = [ipv4(source, destination, evil(recorded, rng, number)) for number in range(count // 10)]
        began, sent = time.monotonic(), 0
        while sent < count:
            for packet in packets[:500]:
                try:
                    raw.sendto(packet, (destination, 0))
                except OSError:
                    pass  # a full queue: the next one goes
                sent += 1
            rng.shuffle(packets)
            time.sleep(max(0.0, began + sent / RATE - time.monotonic()))
    print(json.dumps({"sent": sent, "seconds": time.monotonic() - began, "recorded": len(recorded)}))


def attack(count: int) -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        recording = lab.wan.capture("b")
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        scenario.up(20)
        scenario.ping("b", 20)
        scenario.transfer(300_000)
        recording.stop()
        answers = lab.wan.capture("a")
        scenario.start_transfer_server()
        running = scenario.start_transfer(20_000_000)
        time.sleep(0.5)
        arguments = (str(lab.a.external), str(lab.b.external), str(lab.directory / "wan-b.pcap"), str(count))
        attacker = lab.wan.start([sys.executable, __file__, *arguments], environment=dict(os.environ))
        transfer = scenario.finish_transfer(running, 110)
        attacker.wait(60)
        answers.stop()
        status = json.loads(scenario.command("b", "status", "peer-b", "--json"))
        ping = scenario.ping("b", 10)
        clear = 0
        for _, packet in capture.read(lab.directory / "wan-a.pcap"):
            if packet[9] == 47 and packet[12:16] == lab.b.external.packed and packet[32:34] != b"\x00\x53":
                clear += 1
        icmp = sum(
            1
            for _, packet in capture.read(lab.directory / "wan-a.pcap")
            if packet[9] == 1 and packet[12:16] == lab.b.external.packed
        )
        return {
            "attacker": json.loads(attacker.stdout),
            "transfer": transfer,
            "ping": ping,
            "answers_in_clear": clear,
            "icmp": icmp,
            "status": status,
            "end": scenario.end(),
        }


def test_a_spoofer_with_the_right_addresses_is_met_with_silence(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(attack, count=COUNT, timeout=170)
    assert seen["attacker"]["sent"] >= COUNT
    assert seen["attacker"]["recorded"] > 100
    assert seen["transfer"]["sha256_match"]
    assert seen["ping"]["lost"] == 0
    assert seen["answers_in_clear"] == 0
    assert seen["icmp"] == 0
    (endpoint,) = seen["status"]["endpoints"]
    (peer,) = endpoint["peers"]
    assert peer["stage"] == "up"
    drops = peer["drops"]
    assert drops.get("bad_tag", 0) > 0
    assert drops.get("replayed", 0) + drops.get("too_old", 0) > 0
    assert seen["end"] == []


if __name__ == "__main__":
    spoof(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
