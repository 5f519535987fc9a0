"""Keys stay where they belong, and one `serve` has room for several peers that cannot speak for one another."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from grepunch.lab.topology import Lab
from grepunch.scenario import Scenario
from grepunch.secure.identity import Identity, encode_key, generate_private_key
from tests.live.live_support import RunInLab

PSK = bytes(range(1, 33))


def look_for_keys() -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        for name in "ab":
            scenario.write_profile(name, preshared_key=PSK)
        wire = lab.wan.capture("a")
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b", "--pcap", f"{scenario.directory}/plain.pcap:plain")
        scenario.up(20)
        scenario.ping("b", 5)
        status = scenario.command("b", "status", "--json") + scenario.command("b", "status")
        processes = b""
        for peer in scenario.peers.values():
            assert peer.running is not None
            entry = Path("/proc", str(peer.running.process.pid))
            processes += (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        checked = scenario.command("b", "profile", "show", str(scenario.peers["b"].profile))
        end = scenario.end()
        wire.stop()
        secrets = [peer.identity.private_key for peer in scenario.peers.values()] + [PSK]
        needles = [form for key in secrets for form in (key, encode_key(key).encode(), key.hex().encode())]
        haystacks = {
            "status": status.encode(),
            "processes": processes,
            "profile show": checked.encode(),
            **{
                path.name: path.read_bytes()
                for path in scenario.directory.iterdir()
                if path.suffix in (".out", ".err", ".pcap")
            },
        }
        found = [name for name, text in haystacks.items() if any(needle in text for needle in needles)]
        return {"found": found, "searched": sorted(haystacks), "end": end}


def test_planted_keys_are_found_nowhere(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(look_for_keys)
    assert seen["found"] == []
    assert {"plain.pcap", "wan-a.pcap", "status", "processes"} <= set(seen["searched"])
    assert any(name.startswith("a-serve") for name in seen["searched"])
    assert seen["end"] == []


def add_second_dialler(scenario: Scenario) -> None:
    """A third peer that the serving side knows as ``c`` at 10.66.0.3."""
    serving = scenario.peers["a"]
    identity = Identity.from_private_key(generate_private_key(os.urandom))
    directory = scenario.directory
    with os.fdopen(os.open(directory / "peer-c.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(encode_key(identity.private_key) + "\n")
    with serving.profile.open("a") as file:
        file.write(f'[[peer]]\nname = "c"\npublic_key = "{encode_key(identity.public_key)}"\naddress = "10.66.0.3"\n')
    text = scenario.peers["b"].profile.read_text()
    text = text.replace("gp-b", "gp-c").replace("10.66.0.2/24", "10.66.0.3/24").replace("peer-b.key", "peer-c.key")
    (directory / "peer-c.toml").write_text(text)


def two_diallers() -> dict[str, Any]:
    """Side a serves; b dials from behind its NAT, c from the public host, whose address is its own."""
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        add_second_dialler(scenario)
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b")
        runtime = scenario.directory / "run-c"
        runtime.mkdir()
        third = lab.meet.start(
            [sys.executable, "-m", "grepunch", "dial", str(scenario.directory / "peer-c.toml"), "--json"],
            label="dial-c",
            environment={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        )
        scenario.wait_for("b", "peer_up", 20)
        third.wait_for('"peer_up"', 20)
        first = scenario.ping("b", 5)
        said = lab.meet.run("ping", "-n", "-c", "5", "-i", "0.02", "-W", "1", "10.66.0.1")
        # c speaks in b's name: the serving side lets nothing of it in
        lab.meet.ip("address", "add", "10.66.0.2/32", "dev", "lo")
        spoofed = lab.meet.popen(["ping", "-n", "-c", "3", "-i", "0.02", "-W", "1", "-I", "10.66.0.2", "10.66.0.1"])
        spoofed.wait(10)
        status = json.loads(scenario.command("a", "status", "peer-a", "--json"))
        third.stop()
        scenario.wait_for("a", "peer_down", 5, peer="c")
        after = scenario.ping("b", 5)
        peers = {peer["name"]: peer for peer in status["endpoints"][0]["peers"]}
        return {
            "first": first,
            "third": said,
            "spoofed": spoofed.returncode,
            "drops": peers["c"]["drops"],
            "after": after,
            "end": scenario.end(),
        }


def test_two_diallers_share_one_serve_and_cannot_speak_for_each_other(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(two_diallers)
    assert seen["first"]["lost"] == 0
    assert "5 received" in seen["third"]
    assert seen["spoofed"] != 0
    assert seen["drops"]["not_allowed"] >= 3
    assert seen["after"]["lost"] == 0
    assert seen["end"] == []
