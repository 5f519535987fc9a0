"""Each way of failing has its own verdict, exit code and sentence, said by the real program."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from grepunch.lab.node import Node
from grepunch.lab.topology import MEET_ADDRESSES, Lab
from grepunch.scenario import Peer, Scenario
from grepunch.secure.certificate import laboratory_certificate
from tests.live.live_support import RunInLab

PSK = bytes(range(32))


def no_peer(scenario: Scenario) -> None:
    scenario.start_rendezvous()


def another_key(scenario: Scenario) -> None:
    scenario.write_profile("b", peer_key=b"\x07" * 32)
    scenario.start_rendezvous()
    scenario.start("a")


def no_rendezvous(scenario: Scenario) -> None:
    del scenario


def wrong_authority(scenario: Scenario) -> None:
    scenario.start_rendezvous()
    other, _ = laboratory_certificate(MEET_ADDRESSES[0], datetime.now(UTC))
    (scenario.directory / "meet.crt").write_bytes(other)


def no_such_name(scenario: Scenario) -> None:
    profile = scenario.peers["b"].profile
    profile.write_text(profile.read_text().replace(str(MEET_ADDRESSES[0]), "meet.invalid"))


def one_sided_psk(scenario: Scenario) -> None:
    scenario.write_profile("b", preshared_key=PSK)
    scenario.start_rendezvous()
    scenario.start("a")


def address_clash(scenario: Scenario) -> None:
    scenario.peers["b"].host.ip("address", "add", "10.66.0.77/24", "dev", "lo")


def two_sets_of_addresses(scenario: Scenario) -> None:
    profile = scenario.peers["b"].profile
    profile.write_text(profile.read_text().replace('"10.66.0.1"', '"10.66.0.9"'))
    scenario.start_rendezvous()
    scenario.start("a")


def bad_profile(scenario: Scenario) -> None:
    profile = scenario.peers["b"].profile
    profile.write_text(profile.read_text().replace("[[peer]]", "mtoo = 3\n[[peer]]").replace("/24", "/64"))


SITUATIONS = {
    f.__name__: f
    for f in (
        no_peer,
        another_key,
        no_rendezvous,
        wrong_authority,
        no_such_name,
        one_sided_psk,
        address_clash,
        two_sets_of_addresses,
        bad_profile,
    )
}


def dial_in(situation: str, wait: str) -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        SITUATIONS[situation](scenario)
        scenario.start("b", "--wait", wait)
        verdict, code = scenario.verdict("b", 40)
        scenario.peers["b"].running = None
        return {"verdict": verdict, "code": code, "remains": scenario.remains("b")}


@pytest.mark.parametrize(
    ("situation", "wait", "result", "code", "words"),
    [
        ("no_peer", "3s", "peer_absent", 11, "was not at the rendezvous"),
        ("another_key", "3s", "peer_absent", 11, "was not at the rendezvous"),
        ("no_rendezvous", "3s", "rendezvous_unreachable", 10, "nothing listens"),
        ("wrong_authority", "3s", "rendezvous_unreachable", 10, "certificate is not to be trusted"),
        ("no_such_name", "6s", "rendezvous_unreachable", 10, "meet.invalid"),
        ("one_sided_psk", "60s", "auth_failed", 13, "wrong pre-shared key, or tampering"),
        ("address_clash", "3s", "address_clash", 17, "10.66.0."),
        ("two_sets_of_addresses", "60s", "not_agreed", 14, "10.66.0."),
        ("bad_profile", "3s", "profile_invalid", 3, "peer-b.toml:"),
    ],
)
def test_a_dial_that_fails_says_why(
    run_in_lab: RunInLab, situation: str, wait: str, result: str, code: int, words: str
) -> None:
    seen = run_in_lab(dial_in, situation=situation, wait=wait)
    verdict = seen["verdict"]
    assert (verdict["result"], seen["code"]) == (result, code), verdict
    assert words in verdict["detail"]
    assert verdict["advice"]
    assert seen["remains"] == []


def run_without(options: list[str]) -> dict[str, Any]:
    """Dial as a process without some capabilities (options of setpriv)."""
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        peer = scenario.peers["b"]
        command = [sys.executable, "-m", "grepunch", "dial", str(peer.profile), "--json"]
        peer.running = peer.host.start(["setpriv", *options, *command], label="dial", environment=environment(scenario))
        verdict, code = scenario.verdict("b", 20)
        return {"verdict": verdict, "code": code}


def environment(scenario: Scenario) -> dict[str, str]:
    return {**os.environ, "XDG_RUNTIME_DIR": str(scenario.directory)}


@pytest.mark.parametrize(("capability", "words"), [("net_raw", "CAP_NET_RAW"), ("net_admin", "CAP_NET_ADMIN")])
def test_a_missing_capability_is_named(run_in_lab: RunInLab, capability: str, words: str) -> None:
    options = [f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"]
    seen = run_in_lab(run_without, options=options)
    assert (seen["verdict"]["result"], seen["code"]) == ("no_privilege", 4)
    assert words in seen["verdict"]["detail"] + seen["verdict"]["advice"]


def hide_the_tun_device(host: Node, peer: Peer, scenario: Scenario) -> None:
    """The device's directory covered by an empty one, in a mount namespace of the program's own."""
    inner = f"mount -t tmpfs none /dev/net && exec {sys.executable} -m grepunch dial {peer.profile} --json"
    peer.running = host.start(
        ["unshare", "--mount", "sh", "-c", inner], label="dial", environment=environment(scenario)
    )


def no_tun() -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        peer = scenario.peers["b"]
        hide_the_tun_device(peer.host, peer, scenario)
        verdict, code = scenario.verdict("b", 20)
        return {"verdict": verdict, "code": code}


def test_a_host_without_a_tun_device_is_told_so(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(no_tun)
    assert (seen["verdict"]["result"], seen["code"]) == ("unsupported_host", 5)
    assert "/dev/net/tun" in seen["verdict"]["detail"]


def start_twice() -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        first = scenario.start("b")
        scenario.wait_for("b", "state_changed", 10)
        scenario.start("b")
        verdict, code = scenario.verdict("b", 20)
        return {"verdict": verdict, "code": code, "pid": first.process.pid, "first_lives": first.process.poll() is None}


def test_a_second_start_of_a_profile_names_the_first(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(start_twice)
    assert (seen["verdict"]["result"], seen["code"]) == ("already_running", 6)
    assert seen["verdict"]["facts"]["pid"] == seen["pid"]
    assert seen["first_lives"]


def run_commands() -> dict[str, Any]:
    with Lab("G2S", "G2S") as lab:
        scenario = Scenario(lab)
        scenario.start_rendezvous()
        scenario.start("a")
        scenario.start("b", "--exec", "sh", "-c", "ping -c1 -W2 10.66.0.1 >&2 && exit 42")
        verdict, code = scenario.verdict("b", 30)
        return {"verdict": verdict, "code": code}


def test_exec_runs_over_the_tunnel_and_its_status_is_passed_on(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(run_commands)
    assert seen["code"] == 42
    assert seen["verdict"]["command_status"] == 42
