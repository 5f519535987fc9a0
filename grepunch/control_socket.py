"""The control socket: JSON lines over a Unix socket, by which `status` asks a running endpoint how it is.

A request is one object on one line, ``{"request": "status"}``; the answer is one object on one line. The socket has
mode 0660. Whoever may open it may ask and no more: nothing can be changed through it. Everything a client can make
grow is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from grepunch import jsonvalue, runtime
from grepunch.status import Status
from grepunch.verdict import SCHEMA, VerdictKind, failure

# ours, because nobody who watches needs more
LONGEST_REQUEST = 4096  # octets of a line
MOST_CLIENTS = 16
IDLE_LIMIT = 30.0  # seconds without a request
WRITE_LIMIT = 5.0  # seconds for a client to take its answer
PAUSE = 0.05  # seconds between two answers to one client
CLIENT_LIMIT = 3.0  # seconds a client waits for its answer
LONGEST_ANSWER = 8 << 20  # octets; four thousand sessions


def socket_path(profile: str, directory: Path) -> Path:
    """Where the control socket of this profile is."""
    return directory / f"{profile}.sock"


def remove_leftover(profile: str, directory: Path | None = None) -> list[str]:
    """Remove the socket of a killed process of this profile; what it was, in words. The caller holds the lock."""
    path = socket_path(profile, directory or runtime.writable_directory())
    try:
        path.unlink()
    except FileNotFoundError:
        return []
    return [f"control socket {path}"]


@contextlib.asynccontextmanager
async def serve_status(
    profile: str, snapshot: Callable[[], Status], directory: Path | None = None
) -> AsyncIterator[Path]:
    """Answer status requests while the body runs; the caller holds the profile's lock."""
    path = socket_path(profile, directory or runtime.writable_directory())
    remove_leftover(profile, directory)
    server = _Server(snapshot)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(path))
        path.chmod(0o660)
        async with await asyncio.start_unix_server(server.client, sock=listener, limit=LONGEST_REQUEST):
            yield path
            await server.close()
    finally:
        listener.close()
        path.unlink(missing_ok=True)


class _Server:
    """The clients of one control socket."""

    def __init__(self, snapshot: Callable[[], Status]) -> None:
        self._snapshot = snapshot
        self._tasks: set[asyncio.Task[None]] = set()

    def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a client, or turn it away where there are too many."""
        if len(self._tasks) >= MOST_CLIENTS:
            writer.write(_encode(_error("busy", f"at most {MOST_CLIENTS} clients at a time")))
            writer.close()
            return
        task = asyncio.create_task(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let go of every client."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await asyncio.wait_for(reader.readline(), IDLE_LIMIT):
                writer.write(_encode(self._answer(request)))
                await asyncio.wait_for(writer.drain(), WRITE_LIMIT)
                await asyncio.sleep(PAUSE)
        except ValueError:  # the line is longer than the limit
            writer.write(_encode(_error("too_long", f"a request has at most {LONGEST_REQUEST} octets")))
        except (TimeoutError, ConnectionError):
            pass  # a client that went to sleep or away is no news
        finally:
            writer.close()

    def _answer(self, request: bytes) -> Mapping[str, object]:
        try:
            value = json.loads(request)
        except (ValueError, RecursionError):
            return _error("malformed", "a request is one JSON object on one line")
        if not isinstance(value, dict) or value.get("request") != "status":
            return _error("unknown_request", 'the request there is is {"request": "status"}')
        return self._snapshot().as_json()


def _error(word: str, sentence: str) -> dict[str, object]:
    return {"schema": SCHEMA, "error": word, "detail": sentence}


def _encode(value: Mapping[str, object]) -> bytes:
    return jsonvalue.line(value).encode("ascii") + b"\n"


def running(profile: str | None = None) -> dict[str, Path]:
    """The control sockets there are, by profile name; of this one only, where one is named."""
    found: dict[str, Path] = {}
    for directory in runtime.directories():
        try:
            paths = sorted(directory.glob("*.sock")) if profile is None else [socket_path(profile, directory)]
            found = {path.stem: path for path in paths if path.is_socket()} | found
        except OSError:
            continue
    return found


def ask(path: Path) -> dict[str, object] | None:
    """The status of the endpoint behind ``path``; None where nobody is behind it any more.

    Raises :class:`Failure`: no_privilege where we may not ask, internal where the answer makes no sense.
    """
    try:
        answer = _exchange(path)
    except PermissionError:
        raise failure(
            VerdictKind.NO_PRIVILEGE, f"{path} may not be opened by this user", "Ask as root, or as its group."
        ) from None
    except TimeoutError:
        raise failure(VerdictKind.NOT_UP, f"the process behind {path} does not answer") from None
    except OSError:
        return None
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise failure(VerdictKind.INTERNAL, f"{path} gave an answer of another kind", "Are both of the same version?")
    if "error" in value:
        raise failure(VerdictKind.LIMIT_REACHED, f"{path}: {value.get('detail')}")
    return value


def _exchange(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CLIENT_LIMIT)
        connection.connect(str(path))
        connection.sendall(b'{"request":"status"}\n')
        answer = bytearray()
        while not answer.endswith(b"\n") and len(answer) <= LONGEST_ANSWER:
            chunk = connection.recv(65536)
            if not chunk:
                break
            answer += chunk
        return bytes(answer)
