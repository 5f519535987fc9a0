"""The control socket answers, and no more than that; the lock is held once; `status` shows what there is."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import stat
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from grepunch import control_socket, runtime
from grepunch.cli.entry import run
from grepunch.control_socket import LONGEST_REQUEST, MOST_CLIENTS, serve_status
from grepunch.options import Role
from grepunch.ports import Form
from grepunch.runtime import ProfileLock
from grepunch.status import LastError, PeerStatus, RendezvousStatus, Stage, Status
from grepunch.verdict import Failure, VerdictKind

STATUS = Status(
    profile="office",
    role=Role.SERVE,
    pid=4711,
    uptime=3725.0,
    version="0.1.0",
    interface="gp-office",
    address=IPv4Interface("10.66.0.1/24"),
    peers=(
        PeerStatus(
            "laptop",
            Stage.UP,
            since=75.0,
            routes=(IPv4Network("192.168.50.0/24"),),
            path=IPv4Address("203.0.113.9"),
            form=Form.V1,
            mtu=1403,
            rtt=0.0203,
            loss=0.015,
            rx_bytes=5_000_000,
            tx_bytes=700,
            drops={"replayed": 2},
        ),
        PeerStatus("branch", Stage.PUNCHING, since=3.0, last_error=LastError(Stage.HANDSHAKE, "no\x1banswer", 9.0)),
    ),
    rendezvous=(RendezvousStatus("wss://meet.example.org", True, IPv4Address("198.51.100.7")),),
)
ANSWER = {
    "schema": 1,
    "profile": "office",
    "role": "serve",
    "pid": 4711,
    "uptime": 3725.0,
    "version": "0.1.0",
    "interface": "gp-office",
    "address": "10.66.0.1/24",
    "peers": [
        {
            "name": "laptop",
            "stage": "up",
            "since": 75.0,
            "routes": ["192.168.50.0/24"],
            "path": "203.0.113.9",
            "form": "v1-0/0",
            "mtu": 1403,
            "rtt": 0.0203,
            "loss": 0.015,
            "rx_bytes": 5000000,
            "tx_bytes": 700,
            "rx_packets": 0,
            "tx_packets": 0,
            "drops": {"replayed": 2},
        },
        {
            "name": "branch",
            "stage": "punching",
            "since": 3.0,
            "rx_bytes": 0,
            "tx_bytes": 0,
            "rx_packets": 0,
            "tx_packets": 0,
            "drops": {},
            "last_error": {"stage": "handshake", "text": "no\x1banswer", "age": 9.0},
        },
    ],
    "rendezvous": [{"url": "wss://meet.example.org", "connected": True, "external_address": "198.51.100.7"}],
    "drops": {},
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime directory of this test."""
    monkeypatch.setattr(runtime, "SYSTEM_DIRECTORY", tmp_path / "run")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "run").mkdir(mode=0o755)
    return tmp_path / "run"


def with_server(directory: Path, body: Callable[[Path], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serve_status("office", lambda: STATUS, directory) as path:
            await body(path)

    asyncio.run(asyncio.wait_for(main(), 20))


async def exchange(path: Path, *requests: bytes) -> list[dict[str, object]]:
    """What the server answers before it closes, or we do."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.writelines(requests)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return [json.loads(line) for line in answer.splitlines()]


def test_status_over_the_socket(directory: Path) -> None:
    async def body(path: Path) -> None:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660  # noqa: PTH116  nobody else waits here
        assert await exchange(path, b'{"request": "status"}\n') == [ANSWER]
        assert await asyncio.to_thread(control_socket.ask, path) == ANSWER

    with_server(directory, body)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b"{}\n", "unknown_request"),
        (b'{"request": "stop"}\n', "unknown_request"),
        (b"[1]\n", "unknown_request"),
        (b"\xff\xfe\n", "malformed"),
        (b"[" * 4000 + b"\n", "malformed"),
        (b"x" * (LONGEST_REQUEST + 1) + b"\n", "too_long"),
        (b"x" * (3 * LONGEST_REQUEST), "too_long"),
    ],
)
def test_bad_requests_are_named(directory: Path, request_line: bytes, error: str) -> None:
    async def body(path: Path) -> None:
        (answer,) = await exchange(path, request_line)
        assert answer["error"] == error
        assert await exchange(path, b'{"request":"status"}\n') == [ANSWER]

    with_server(directory, body)


def test_more_clients_than_there_may_be_are_turned_away(directory: Path) -> None:
    async def body(path: Path) -> None:
        clients = [await asyncio.open_unix_connection(str(path)) for _ in range(MOST_CLIENTS)]
        for reader, writer in clients:  # each is served before the next comes
            writer.write(b'{"request":"status"}\n')
            assert json.loads(await reader.readline()) == ANSWER
        (answer,) = await exchange(path)
        assert answer["error"] == "busy"
        for _, writer in clients:
            writer.close()

    with_server(directory, body)


def test_a_socket_left_by_a_killed_process_is_replaced(directory: Path) -> None:
    async def left(path: Path) -> None:
        os.link(path, directory / "left")

    with_server(directory, left)
    (directory / "left").rename(directory / "office.sock")
    assert control_socket.ask(directory / "office.sock") is None

    async def body(path: Path) -> None:
        assert await exchange(path, b'{"request":"status"}\n') == [ANSWER]

    with_server(directory, body)


def test_status_on_the_command_line(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def body(path: Path) -> None:
        assert await asyncio.to_thread(run, ["status"]) == 0
        assert await asyncio.to_thread(run, ["status", "office", "--json"]) == 0
        assert await asyncio.to_thread(run, ["status", "other"]) == 20

    with_server(directory, body)
    out, err = capsys.readouterr()
    *text, as_json = out.splitlines()
    assert text[0] == (
        "office (serve, process 4711), running for 1 h 2 min, gp-office 10.66.0.1/24, "
        "wss://meet.example.org sees us at 198.51.100.7"
    )
    assert " ".join(text[1].split()) == "PEER STATE SINCE PATH MTU RTT LOSS RECEIVED SENT DROPPED LAST ERROR"
    assert " ".join(text[2].split()).endswith("203.0.113.9 v1-0/0 1403 20.3 ms 1.5% 4.8 MiB 700 B 2")
    assert text[3].endswith("handshake: no\\x1banswer (9.0 s ago)")
    assert text[4] == "to 192.168.50.0/24 through laptop"
    assert json.loads(as_json) == {"schema": 1, "result": "up", "endpoints": [ANSWER]}
    assert "other is not running" in err


def test_nothing_running(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status"]) == 20
    assert "no endpoint is running" in capsys.readouterr().err
    assert run(["status", "--json"]) == 20
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "result": "not_up", "endpoints": []}


def test_the_lock_is_held_once(directory: Path) -> None:
    with ProfileLock("office"):
        with pytest.raises(Failure) as caught, ProfileLock("office"):
            pass
        with ProfileLock("other"):
            pass
    verdict = caught.value.verdict
    assert verdict.kind is VerdictKind.ALREADY_RUNNING
    assert verdict.facts == {"pid": os.getpid()}
    assert str(os.getpid()) in verdict.detail
    assert list(directory.iterdir()) == []
    with ProfileLock("office"):
        assert (directory / "office.lock").read_text() == f"{os.getpid()}\n"


def hold(directory: str) -> None:
    """Take the lock and die with it."""
    ProfileLock("office", Path(directory)).__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_lock_of_a_killed_process_is_free(directory: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(str(directory),))
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert (directory / "office.lock").exists()
    with ProfileLock("office"):
        assert (directory / "office.lock").read_text() == f"{os.getpid()}\n"


def test_without_a_directory_of_ours_it_says_so(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.chmod(0o777)
    with pytest.raises(Failure, match="unsupported_host"):
        runtime.writable_directory()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    with pytest.raises(Failure, match="unsupported_host"):
        runtime.writable_directory()
    (tmp_path / "absent").mkdir()
    assert runtime.writable_directory() == tmp_path / "absent" / "grepunch-pptp"
