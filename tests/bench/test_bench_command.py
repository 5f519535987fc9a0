"""The command line of the bench, what it does about missing contenders, and the parts of its other modes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from grepunch.config import Profile
from grepunch.lab.node import LabError
from grepunch.options import EndpointOptions, Role
from grepunch.progress import Reporter
from grepunch.verdict import Verdict, VerdictKind
from pptp.crypto.aead import Suite
from tests.bench import __main__ as command
from tests.bench import endpoint, fleet, profiling, queue_curve, sessions
from tests.bench.contenders import CONTENDERS, NAMES, chosen
from tests.bench.foreign import OpenVpn, Packaged
from tests.bench.round import LOADS, Plan, Round
from tests.bench.sampling import Sampler
from tests.config.profiles import WHOLE


def test_quick_is_shorter() -> None:
    usual, quick = command.parse([]), command.parse(["--quick"])
    assert (usual.rounds, quick.rounds) == (5, 1)
    assert quick.seconds < usual.seconds
    assert [contender.name for contender in usual.contenders] == list(NAMES)
    assert usual.loads == list(LOADS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "ours,openvnp"], "no contender is called openvnp; there are veth, ours"),
        (["--loads", "tcp,upd"], "no load is called upd"),
        (["--sessions", "1,many"], "many"),
        (["--profile", "--queue"], "not allowed with"),
    ],
)
def test_wrong_words_are_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parse(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_missing_contender_ends_it_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(OpenVpn, "programs", ("there-is-no-such-program",))
    assert command.main(["--only", "openvpn"]) == 1
    said = capsys.readouterr().err
    assert "missing: openvpn: there-is-no-such-program not installed: sudo apt-get install openvpn" in said
    assert "--allow-missing" in said


def test_every_contender_says_what_it_is() -> None:
    for kind in CONTENDERS:
        assert kind.name
        assert kind.title
        assert kind.setting
        assert kind.inner_mtu <= 1500
        if issubclass(kind, Packaged):
            assert kind.package in (Path(__file__).parents[2] / ".ci" / "setup").read_text()


def test_a_plan_crosses_the_border_of_the_sandbox() -> None:
    plan = Plan(("ours", "openvpn"), ("tcp",), 2.0)
    assert Plan.of(json.loads(json.dumps(plan.as_json()))) == plan
    assert command.longest(plan) > 60
    assert command.usual(plan) < command.longest(plan)


def test_a_failure_costs_its_contender_one_figure(capsys: pytest.CaptureFixture[str]) -> None:
    round_ = Round(Plan(("ours", "openvpn")))
    for name in ("ours", "openvpn"):
        with round_.attempt(name, "udp64"):
            if name == "openvpn":
                raise LabError("the endpoint ended\nwith much to say")
            round_.note(name, udp64=100.0)
    assert round_.measured == {"ours": {"udp64": 100.0}}
    assert "with much to say" in round_.errors["openvpn"]["udp64"]
    assert "openvpn: udp64 failed: the endpoint ended\n" in capsys.readouterr().err


def test_a_fault_of_its_own_is_not_hidden() -> None:
    round_ = Round(Plan(("ours",)))
    with pytest.raises(AttributeError), round_.attempt("ours", "udp64"):
        raise AttributeError("a mistake in the bench")


def test_chosen_contenders_keep_the_order_of_the_table() -> None:
    assert [contender.name for contender in chosen(["openvpn", "ours"])] == ["ours", "openvpn"]


def test_an_endpoint_can_be_told_to_offer_one_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[EndpointOptions] = []

    def run(profile: Profile, options: EndpointOptions, reporter: Reporter) -> Verdict:
        told.append(options)
        return Verdict(VerdictKind.UP)

    profile = tmp_path / "office.toml"
    profile.write_text(WHOLE)
    profile.chmod(0o600)
    monkeypatch.setattr("tests.bench.endpoint.run_signalled", run)
    with pytest.raises(SystemExit) as ended:
        endpoint.main(["--suite", "CHACHA20_POLY1305", "serve", str(profile), "--json"])
    assert ended.value.code == 0
    assert [(options.role, options.suites) for options in told] == [(Role.SERVE, (Suite.CHACHA20_POLY1305,))]


def work(until: Path) -> int:
    """Something that takes processor time, until a file is there."""
    total = 0
    while not until.exists():
        total += sum(range(1000))
    return total


def test_samples_tell_which_function_worked(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGPROF, signal.SIGUSR1, signal.SIGUSR2)}
    try:
        with Sampler(path):
            os.kill(os.getpid(), signal.SIGUSR1)
            began = os.times()
            while os.times().user - began.user < 0.2:  # processor time, so that any machine takes samples
                sum(range(1000))
            os.kill(os.getpid(), signal.SIGUSR2)
            work(path)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    value = json.loads(path.read_text())
    assert any("test_samples_tell_which_function_worked" in place for place, _, _ in value["lines"])
    assert any("test_samples_tell_which_function_worked" in place for place, _ in value["calls"])
    assert value["user"] > 0.1


def test_a_profile_shows_shares_and_microseconds() -> None:
    here = str(Path(profiling.__file__))
    one = profiling.sampled(
        {
            "load": "TCP",
            "side": "left",
            "packets": 1000,
            "user": 0.003,
            "system": 0.001,
            "lines": [[f"{here}:measure", 1, 30], [f"{here}:measure", 2, 30], ["<string>:seal", 0, 40]],
            "calls": [[f"{here}:measure", 60]],
        }
    )
    assert one.microseconds == pytest.approx(4.0)
    assert one.kernel_share == pytest.approx(0.25)
    assert one.functions() == [(f"{here}:measure", 60), ("<string>:seal", 40)]
    lines = profiling.lines_of(one)
    assert "4.00 us a packet (25% kernel, 75% user), 1000 packets, 100 samples" in lines[0]
    assert any("tests/bench/profiling.py:measure" in line and "60.0%" in line and "2.40" in line for line in lines)


def test_an_idle_endpoint_has_no_profile() -> None:
    one = profiling.Sampled("UDP", "left", 0, 0.0, 0.0, [], [])
    assert "idle" in "\n".join(profiling.lines_of(one))


def test_the_queue_curve_is_of_medians() -> None:
    rows = [
        {
            "round": number,
            "txqueuelen": 500,
            "gso_max_size": 65536,
            "as_shipped": True,
            "mbit_s": speed,
            "ping_ms": 2.0,
            "ping_p95_ms": 3.0,
        }
        for number, speed in enumerate((900.0, 1000.0, 2000.0))
    ]
    lines = queue_curve.lines_of(rows)
    assert lines[1].split() == ["500", "65536", "1000", "2.00", "3.00", "shipped"]


def test_idle_sessions_are_held_against_none() -> None:
    alone = {
        "idle_sessions": 0,
        "up_seconds": 0.0,
        "fwd": 1000.0,
        "rev": 1000.0,
        "serve_cpu_per_gb": 3.0,
        "serve_idle_cpu": 0.0,
        "serve_rss_mb": 60.0,
    }
    beside = {**alone, "idle_sessions": 100, "fwd": 900.0, "rev": 980.0, "serve_rss_mb": 80.0}
    lines = sessions.lines_of([alone, beside])
    assert lines[1].split()[-1] == "1.00"
    assert lines[2].split() == ["100", "900", "980", "3.00", "0.00", "80.0", "0.0", "0.94"]


def test_a_fleet_dials_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [tmp_path / f"{number}.out" for number in range(2 * fleet.AT_ONCE)]
    looks: list[int] = []

    def sleep(seconds: float) -> None:
        """While it waits, one more comes up."""
        looks.append(sum(map(fleet.is_up, logs)))
        logs[looks[-1]].write_text('{"event":"state"}\n{"event":"peer_up"}\n')

    monkeypatch.setattr("tests.bench.fleet.time.sleep", sleep)
    queue = fleet.Queue()
    for log in logs:
        queue.add(str(log))
    assert looks == list(range(fleet.AT_ONCE + 1))
