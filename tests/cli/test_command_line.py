"""Arguments in, verdict out: what the endpoint is asked for, and how every way out looks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import ModuleType

import pytest

from grepunch.cli.endpoint import until_signalled
from grepunch.cli.entry import run
from grepunch.config import Profile, SecretFile
from grepunch.io.errors import NoPrivilege
from grepunch.lab.sandbox import SandboxFailure
from grepunch.options import Action, Capture, DemoOptions, EndpointOptions, Role
from grepunch.progress import Reporter, StateChanged
from grepunch.status import Stage
from grepunch.verdict import Verdict, VerdictKind, failure
from tests.config.profiles import KEYS, WHOLE


@dataclass
class FakeEndpoint:
    """Stands in for the endpoint: notes what it was asked for, answers as told."""

    answer: Verdict | Exception = field(default_factory=lambda: Verdict(VerdictKind.UP))
    asked: list[tuple[Profile, EndpointOptions]] = field(default_factory=list)

    async def run_profile(self, profile: Profile, options: EndpointOptions, reporter: Reporter) -> Verdict:
        self.asked.append((profile, options))
        reporter.report(StateChanged(Stage.WAITING, "laptop"))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> FakeEndpoint:
    fake = FakeEndpoint()
    module = ModuleType("grepunch.running")
    module.run_profile = fake.run_profile  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "grepunch.running", module)
    return fake


@pytest.fixture
def office(tmp_path: Path) -> str:
    path = tmp_path / "office.toml"
    path.write_text(WHOLE)
    return str(path)


def test_serve_hands_the_profile_over(endpoint: FakeEndpoint, office: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", office, "--set", "punch.window=10", "--pcap", "x.pcap:plain"]) == 0
    ((profile, options),) = endpoint.asked
    assert profile.name == "office"
    assert profile.punch.window == 10
    assert options == EndpointOptions(Role.SERVE, capture=Capture(Path("x.pcap"), plain=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "laptop: waiting\n"


def test_dial_takes_a_command_behind_exec(endpoint: FakeEndpoint, office: str) -> None:
    endpoint.answer = Verdict(VerdictKind.UP, command_status=3)
    assert run(["dial", office, "--wait", "2m", "--retry", "forever", "--exec", "ping", "-c", "3", "--json"]) == 3
    ((_, options),) = endpoint.asked
    assert options == EndpointOptions(Role.DIAL, wait=120.0, retry=None, command=("ping", "-c", "3", "--json"))


def test_dial_an_address(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    identity = str(tmp_path / "me.key")
    arguments = ["dial", "203.0.113.9", "--peer-key", KEYS[0], "--identity", identity, "--address", "10.0.0.2/24"]
    assert run([*arguments, "--retry", "2"]) == 0
    ((profile, options),) = endpoint.asked
    assert options.retry == 2
    assert profile.name == "dial-203.0.113.9"
    assert profile.interface.address == IPv4Interface("10.0.0.2/24")
    assert profile.identity is not None
    assert profile.identity.private_key == SecretFile(Path(identity))
    assert profile.peers[0].last_known_address == IPv4Address("203.0.113.9")
    assert profile.peers[0].public_key == bytes([1]) * 32


@pytest.mark.parametrize(("flag", "action"), [("--dry-run", Action.DRY_RUN), ("--cleanup", Action.CLEANUP)])
def test_other_actions(endpoint: FakeEndpoint, office: str, flag: str, action: Action) -> None:
    assert run(["serve", office, flag]) == 0
    assert endpoint.asked[0][1].action is action


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["dail", "office"], "Did you mean 'dial'?"),
        (["serve"], "Missing argument 'PROFILE'"),
        (["serve", "x", "--wait", "3"], "No such option"),
        (["dial", "x", "--wait", "soon"], "'soon' is no duration"),
        (["dial", "x", "--retry", "-1"], "neither 'forever' nor a number"),
        (["dial", "x", "--exec"], "--exec needs a command behind it"),
        (["dial", "203.0.113.9"], "nothing is trusted on first use"),
        (["dial", "203.0.113.9", "--peer-key", "k"], "--identity FILE is needed"),
        (["dial", "office", "--peer-key", "k"], "'office' is none"),
        (["serve", "x", "--check", "--dry-run"], "exclude one another"),
        (["rendezvous", "--listen", "nowhere"], "'nowhere' is no HOST:PORT"),
        (["rendezvous", "--trusted-proxy", "x"], "--trusted-proxy"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_usage(arguments: list[str], seen: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: ")
    assert seen in err
    assert "\n  try:  " in err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: ")


def test_an_invalid_profile(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "office.toml"
    path.write_text(WHOLE.replace("mtu = 1300", "mtu = 1").replace("window = 20", "window = 0"))
    assert run(["serve", str(path)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "profile_invalid: The profile cannot be used."
    assert lines[1].startswith("  seen: office.toml:6: interface.mtu: ")
    assert lines[2].startswith("        office.toml:29: punch.window: ")


def test_a_failure_of_the_endpoint_is_its_verdict(
    endpoint: FakeEndpoint, office: str, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.answer = failure(VerdictKind.NAT_BLOCKED, "0 heard", direction="in")
    assert run(["dial", office, "--json"]) == 12
    out, err = capsys.readouterr()
    assert err == ""
    first, last = map(json.loads, out.splitlines())
    assert first == {"schema": 1, "event": "state_changed", "stage": "waiting", "peer": "laptop", "detail": ""}
    assert (last["event"], last["result"], last["facts"]) == ("verdict", "nat_blocked", {"direction": "in"})


def test_a_fault_of_ours_is_a_short_report(
    endpoint: FakeEndpoint, office: str, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.answer = ZeroDivisionError("by\nzero\x1b[2J")
    assert run(["dial", office]) == 1
    err = capsys.readouterr().err
    assert "internal: This is a fault of the program itself." in err
    assert "seen: ZeroDivisionError: by" in err
    assert "test_command_line.py:" in err
    assert "Traceback" not in err
    assert "\x1b" not in err


def test_json_of_what_never_began(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "no-such-profile", "--json"]) == 3
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["result"] == "profile_invalid"


def test_warnings_of_a_profile_are_shown(
    endpoint: FakeEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "office.toml"
    path.write_text(WHOLE.replace('address = "10.66.0.3"', 'address = "10.99.0.3"'))
    assert run(["serve", str(path)]) == 0
    assert capsys.readouterr().err.startswith("warning: office.toml:21: peer[1].address: 10.99.0.3 lies outside")


@pytest.mark.parametrize("json", [False, True])
def test_probe_says_what_the_host_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], json: bool
) -> None:
    async def probe(url: str, **options: object) -> None:
        raise NoPrivilege("Raw sockets are not allowed.", "Start it as root.")

    monkeypatch.setattr("grepunch.probing.probe", probe)
    assert run(["probe", "wss://meet.example.org", *(["--json"] if json else [])]) == 4
    out, err = capsys.readouterr()
    assert "Raw sockets are not allowed." in (out if json else err)
    assert "Start it as root." in (out if json else err)


def test_a_demo_that_nobody_reads_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(entry: str, arguments: object) -> None:
        raise SandboxFailure("BrokenPipeError", "Traceback ...")

    monkeypatch.setattr("grepunch.lab.sandbox.run", broken)
    redirected: list[int] = []
    monkeypatch.setattr("os.dup2", lambda new, old: redirected.append(new))
    assert run(["demo"]) == 0
    assert capfd.readouterr() == ("", "")
    assert len(redirected) == 1


def test_demo_prints_for_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[DemoOptions] = []
    answers = [Verdict(VerdictKind.UP), Verdict(VerdictKind.NAT_BLOCKED), Verdict(VerdictKind.NAT_BLOCKED)]

    def run_demo(options: DemoOptions) -> Verdict:
        asked.append(options)
        print("demo's last line")
        return answers[len(asked) - 1]

    module = ModuleType("grepunch.demo")
    module.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "grepunch.demo", module)
    assert run(["demo", "--nat-a", "G2", "--no-rendezvous", "--transfer-bytes", "5", "--skew", "500ms"]) == 0
    assert asked[0] == DemoOptions(nat_a="G2", rendezvous=False, transfer_bytes=5, skew=0.5)
    assert capsys.readouterr() == ("demo's last line\n", "")
    assert run(["demo"]) == 12
    out, err = capsys.readouterr()
    assert out == "demo's last line\n"
    assert err.startswith("nat_blocked: ")
    assert run(["demo", "--json"]) == 12
    assert capsys.readouterr() == ("demo's last line\n", "")


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, VerdictKind.INTERRUPTED), (signal.SIGTERM, VerdictKind.TERMINATED)]
)
def test_a_signal_lets_everything_be_put_back(number: signal.Signals, kind: VerdictKind) -> None:
    put_back = []

    async def work() -> Verdict:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            put_back.append("routes")
        return Verdict(VerdictKind.UP)

    assert asyncio.run(until_signalled(work())) == Verdict(kind)
    assert put_back == ["routes"]


def test_work_that_catches_its_cancellation_ends_by_the_signal_too() -> None:
    async def work() -> Verdict:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Verdict(VerdictKind.LINK_LOST, "said goodbye")
        raise AssertionError("not cancelled")

    assert asyncio.run(until_signalled(work())) == Verdict(VerdictKind.TERMINATED, "said goodbye")


def grepunch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program as its own process."""
    return subprocess.run(
        [sys.executable, "-m", "grepunch", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **environment},
        check=False,
    )


def test_as_a_process() -> None:
    version = grepunch("--version")
    assert (version.returncode, version.stdout.split()[0], version.stderr) == (0, "grepunch-pptp,", "")
    assert grepunch("dail").returncode == 2


def test_a_reader_that_has_seen_enough() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "grepunch", "profile", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert err == b""


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from grepunch.cli.entry import run; run(['--help']); "
        "heavy = {'scapy', 'cryptography', 'websockets', 'rich', 'pyroute2', 'asyncio'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion() -> None:
    assert "_GREPUNCH_PPTP_COMPLETE" in grepunch("completion", "bash").stdout
    done = grepunch(_GREPUNCH_PPTP_COMPLETE="bash_complete", COMP_WORDS="grepunch-pptp dial --re", COMP_CWORD="2")
    assert done.stdout.split() == ["plain,--retry"]


def test_completion_knows_the_profiles(tmp_path: Path) -> None:
    (tmp_path / "grepunch-pptp").mkdir()
    (tmp_path / "grepunch-pptp" / "office.toml").touch()
    done = grepunch(
        _GREPUNCH_PPTP_COMPLETE="bash_complete",
        COMP_WORDS="grepunch-pptp serve off",
        COMP_CWORD="2",
        XDG_CONFIG_HOME=str(tmp_path),
    )
    assert "plain,office" in done.stdout.split()
