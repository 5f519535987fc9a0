"""A TCP transfer whose every octet is checked: the load of the demo and of the live tests.

Two programs, each a process of its own on its own host: ``serve ADDRESS PORT`` answers any number of
transfers until it is ended; ``run ADDRESS PORT BYTES SECONDS`` sends ``BYTES`` octets up, then takes as many
down, and prints one JSON object: ``{"bytes", "sha256_match", "mbit_s_up", "mbit_s_down"}``. Each direction is paced
to take ``SECONDS`` (0: as fast as it goes), so that what must happen in mid-transfer does so on any machine. Sender
and receiver each hash what they handled; the digests are compared at the end of each direction.

On the wire of a connection: direction (1 octet, ``u`` or ``d``), length (8, big-endian), milliseconds (4) that the
octets are paced over, the octets, SHA-256 of them (32); for ``u`` the server then answers with the digest it computed.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time

_REQUEST = struct.Struct("!cQI")
_CHUNK = 1 << 18
_IDLE_LIMIT = 120.0  # seconds without an octet: longer than the longest outage a transfer must survive


def _send(connection: socket.socket, length: int, seconds: float) -> bytes:
    """Send ``length`` octets that differ from chunk to chunk, evenly over ``seconds``; returns their SHA-256."""
    digest = hashlib.sha256()
    noise = bytearray(os.urandom(_CHUNK))
    began = time.monotonic()
    sent = 0
    while sent < length:
        time.sleep(max(0.0, began + seconds * sent / length - time.monotonic()))
        struct.pack_into("!Q", noise, 0, sent)
        chunk = memoryview(noise)[: min(_CHUNK, length - sent)]
        digest.update(chunk)
        connection.sendall(chunk)
        sent += len(chunk)
    return digest.digest()


def _receive(connection: socket.socket, length: int) -> bytes:
    """Receive ``length`` octets; returns their SHA-256. Raises ``ConnectionError`` when they end early."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    left = length
    while left:
        count = connection.recv_into(view[: min(_CHUNK, left)])
        if not count:
            raise ConnectionError(f"{left} of {length} octets are missing")
        digest.update(view[:count])
        left -= count
    return digest.digest()


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionError("the transfer's peer went away")
        data += part
    return data


def _answer(connection: socket.socket) -> None:
    with connection:
        connection.settimeout(_IDLE_LIMIT)
        direction, length, milliseconds = _REQUEST.unpack(_receive_exactly(connection, _REQUEST.size))
        if direction == b"u":
            connection.sendall(_receive(connection, length))
        else:
            connection.sendall(_send(connection, length, milliseconds / 1000))


def serve(address: str, port: int) -> None:
    """Answer transfers, each in a thread, until the process is ended."""
    with socket.create_server((address, port)) as listener:
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _one_way(address: str, port: int, direction: bytes, length: int, seconds: float) -> tuple[bool, float]:
    """One transfer; whether the digests agree, and its rate in Mbit/s (until the last octet was confirmed)."""
    with socket.create_connection((address, port), timeout=30) as connection:
        connection.settimeout(_IDLE_LIMIT)
        began = time.monotonic()
        connection.sendall(_REQUEST.pack(direction, length, round(seconds * 1000)))
        mine = _send(connection, length, seconds) if direction == b"u" else _receive(connection, length)
        theirs = _receive_exactly(connection, len(mine))
        return mine == theirs, length * 8 / 1e6 / (time.monotonic() - began)


def run(address: str, port: int, length: int, seconds: float) -> dict[str, object]:
    """``length`` octets up, then down, in no less than ``seconds`` each."""
    up_matches, up = _one_way(address, port, b"u", length, seconds)
    down_matches, down = _one_way(address, port, b"d", length, seconds)
    return {
        "bytes": length,
        "sha256_match": up_matches and down_matches,
        "mbit_s_up": round(up, 1),
        "mbit_s_down": round(down, 1),
    }


def main(arguments: list[str]) -> None:
    """``serve ADDRESS PORT`` or ``run ADDRESS PORT BYTES SECONDS``."""
    match arguments:
        case ["serve", address, port]:
            serve(address, int(port))
        case ["run", address, port, length, seconds]:
            print(json.dumps(run(address, int(port), int(length), float(seconds))))
        case _:
            raise SystemExit("usage: serve ADDRESS PORT | run ADDRESS PORT BYTES SECONDS")


if __name__ == "__main__":
    main(sys.argv[1:])
