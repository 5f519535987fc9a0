"""The relay with real endpoints: it carries what GRE cannot, loses nothing on the way to GRE and holds nothing back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from grepunch.lab.node import LabError
from grepunch.lab.requirements import program
from grepunch.lab.topology import Lab
from grepunch.scenario import INNER, Scenario
from tests.live import counted
from tests.live.live_support import RunInLab

AUTO = 'relay = "auto"'
FAST = 1000.0  # Mbit/s: no quota in the way
RATE = 400.0  # counted packets a second, each way
SLOW_OCTETS = 60_000_000  # four minutes at 2 Mbit/s: the transfer is never over before the pings are

NO_GRE = "table ip closed {\nchain forward { type filter hook forward priority -10; ip protocol gre drop; }\n}\n"
GRE_AGAIN = "table ip closed\ndelete table ip closed\n"


def both_up(scenario: Scenario, timeout: float = 25.0) -> tuple[dict[str, Any], dict[str, Any]]:
    scenario.start_rendezvous()
    scenario.start("a")
    scenario.start("b")
    return scenario.up(timeout)


def over_the_relay(nat_a: str, nat_b: str) -> dict[str, Any]:
    with Lab(nat_a, nat_b) as lab:
        scenario = Scenario(lab, punch=f"window = 5\n{AUTO}", relay=FAST)
        up = both_up(scenario)
        transfer = scenario.transfer(5_000_000, 60)
        ping = scenario.ping("b", 5)
        scenario.wait_for("b", "notice", 30, level="info")
        status = scenario.status("b")["peers"][0]
        end = scenario.end()
        return {"up": up, "transfer": transfer, "ping": ping, "status": status, "end": end}


def test_a_pair_that_gre_cannot_join_is_joined_by_the_relay(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(over_the_relay, nat_a="G2S", nat_b="G6", timeout=110)
    for up in seen["up"]:
        assert up["carrier"] == "relay"
        assert "path" not in up
        assert up["reason"]
    assert seen["transfer"]["sha256_match"]
    assert seen["ping"]["lost"] == 0
    assert seen["status"]["stage"] == "up"
    assert seen["status"]["carrier"] == "relay"
    assert "died" in seen["status"]["relay_reason"], "why there is no direct path"
    assert seen["status"]["mtu"] == 1335
    assert seen["end"] == []


def there_and_back(rates: Sequence[float], size: int) -> dict[str, Any]:
    """Counted packets, so many a second from a and from b, while the link moves from the relay to GRE and back."""
    with Lab("G2S", "G2S") as lab:
        lab.a.boxes[-1].node.nft(NO_GRE)
        scenario = Scenario(lab, punch=AUTO, relay=FAST)
        up = both_up(scenario)
        ends = [
            counted.start(scenario.peers[name].host, INNER[name], INNER[other], rate, size)
            for name, other, rate in (("a", "b", rates[0]), ("b", "a", rates[1]))
        ]
        time.sleep(0.5)  # their own start takes the processors from everybody
        began = time.monotonic()  # from here on both listen
        time.sleep(1.0)
        lab.a.boxes[-1].node.nft(GRE_AGAIN)
        for name in "ab":
            scenario.wait_for(name, "path_changed", 40, carrier="direct")
        time.sleep(1.5)
        cut = time.monotonic()
        lab.a.boxes[-1].node.nft(NO_GRE)
        for name in "ab":
            scenario.wait_for(name, "path_changed", 40, carrier="relay")
        back = time.monotonic()
        time.sleep(1.0)
        ways = counted.finish(ends[0], ends[1], 60)
        stages = [e["stage"] for e in scenario.events("b") if e["event"] == "state_changed"]
        return {"up": up, "ways": ways, "began": began, "cut": cut, "back": back, "stages": stages}


def judge_there_and_back(seen: dict[str, Any]) -> None:
    assert {up["carrier"] for up in seen["up"]} == {"relay"}
    for way in seen["ways"]:
        assert way["sent"] > 0
        assert way["repeated"] == 0
        # nothing is lost but what went into the hole between its death and the move
        lost = [at for at in way["lost"] if at >= seen["began"]]
        assert [at for at in lost if not seen["cut"] - 0.1 <= at <= seen["back"]] == []
    assert "lost" not in seen["stages"], "the link was up all the time"


def test_a_stream_moves_to_gre_without_a_loss_or_a_repetition_and_back_when_gre_dies(run_in_lab: RunInLab) -> None:
    judge_there_and_back(run_in_lab(there_and_back, rates=(RATE, RATE), size=counted.SIZE, timeout=110))


def slow_line(rate: str) -> dict[str, Any]:
    """A transfer over a relay behind a slow line, and pings beside it."""
    with Lab("G4", "G2") as lab:
        scenario = Scenario(lab, punch=AUTO, relay=FAST)
        both_up(scenario)
        for node, interface in ((lab.a.boxes[-1].node, "wan"), (lab.wan, "a")):
            node.run(program("tc"), "qdisc", "add", "dev", interface, "root", "tbf", "rate", rate, "burst", "16kb",
                     "latency", "50ms")  # fmt: skip
        scenario.start_transfer_server()
        transfer = scenario.start_transfer(SLOW_OCTETS)
        time.sleep(1.5)
        pings = scenario.ping("b", 10, interval=0.3)
        if transfer.process.poll() is not None:
            raise LabError(f"the transfer ended before the pings did: {transfer.stdout}{transfer.stderr}")
        return {"pings": pings}


def test_a_slow_relay_drops_instead_of_holding_back(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(slow_line, rate="2mbit", timeout=100)
    assert seen["pings"]["lost"] < 10
    assert seen["pings"]["rtt_seconds_median"] < 0.8


def without_consent() -> dict[str, Any]:
    with Lab("G4", "G2") as lab:
        scenario = Scenario(lab, punch="window = 5", relay=FAST)
        scenario.start_rendezvous()
        scenario.start("a", "--set", "punch.relay=auto")
        scenario.start("b", "--wait", "8s", "--set", "punch.relay=ask")
        verdict, code = scenario.verdict("b", 40)
        return {"verdict": verdict, "code": code, "told": [e for e in scenario.events("b") if e["event"] == "notice"]}


def test_without_consent_it_ends_blocked_and_says_how_to_allow_it(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(without_consent)
    verdict = seen["verdict"]
    assert (verdict["result"], seen["code"]) == ("nat_blocked", 12)
    assert "wants to be asked" in verdict["facts"]["relay"]
    assert "--set punch.relay=auto" in verdict["advice"]
    assert len([event for event in seen["told"] if "--set punch.relay=auto" in event["text"]]) == 1
