"""The cells of the matrix: what happens in each, and the row that it becomes."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address
from typing import Any

from grepunch.lab import capture
from grepunch.lab.node import LabError, Node
from tests.interop import wire
from tests.interop.foreign import FAR_SERVER, Addresses, Client, Foreign, Server, far_namespace, kill_all
from tests.interop.guest import WAN, WAN_HERE, Guest
from tests.interop.kinds import Kind
from tests.interop.ours import Endpoint, ping_command

# who is at the other end, by our role; "none" is a call in which nothing of ours takes part, which judges this suite
PEERS = {"serve": "pppd through pptp-linux", "dial": "pptpd with pppd", "none": "pptp-linux to pptpd"}
TRANSFER = 5_000_000  # octets each way
SIZES = (56, 1300)  # of an echo request's data
PINGS = 5
UP = 40.0  # seconds for a link to come up; it takes two on an idle machine
NOTICED = 30.0  # seconds in which an end must have heard that the other has gone
RECONNECTED = 60.0  # seconds in which a `dial` that retries is up again, its pauses included
LATE = 0.3  # seconds after which a displaced frame may be given up
SETTLED = 10  # calls after which a process has all the descriptors that it is going to need
DISORDER_RATE = 20  # frames between two disorders
DISORDER_PINGS = 600
_DISORDER_INTERVAL = 0.01  # seconds; ten frames that pptp holds back are then out again in time
_ENDED = (0, 5, 16)  # pppd's exit codes: done, SIGTERM, hung up
_TRANSFER_PORT = 5000
_TRANSFER_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to show: the whole life of a link, unless it is one of the others.

    ``disorder`` is pptp-linux' --test-type, ``calls`` a number of calls one after another.
    """

    role: str
    kind: Kind
    disorder: int = 0
    calls: int = 0

    @property
    def test(self) -> str:
        """Its name in the table."""
        if self.role == "none":
            return "self-check"
        if self.calls:
            return f"{self.calls} calls"
        return f"reorder type {self.disorder}" if self.disorder else "link"

    def __str__(self) -> str:
        return f"{self.role} {self.kind.authentication} {self.kind.encryption} {self.test}"


@dataclass(slots=True)
class Row:
    """What a cell came to. ``result``: ``up``, or the verdict's word for what went wrong."""

    peer: str
    our_role: str
    authentication: str
    encryption: str
    test: str
    result: str
    ok: bool
    seconds: float
    seen: list[str] = field(default_factory=list)
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """What is absent is left out."""
        return {key: value for key, value in asdict(self).items() if value != ""}


class Contradiction(LabError):
    """Something was seen that must not be, or not seen that must."""


class Bench:
    """The guest, the node beside it, and what a cell has seen so far."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.node: Node = guest.node
        self.seen: list[str] = []
        self._blob = os.urandom(TRANSFER)
        guest.run(f"head -c {TRANSFER} /dev/urandom >/srv/blob")
        self._guest_digest = guest.run("sha256sum /srv/blob").split()[0]
        self.endpoint: Endpoint | None = None

    def run(self, cell: Cell) -> Row:
        """Run a cell; whatever becomes of it, nothing of it goes on."""
        self.seen = []
        begun = time.monotonic()
        taken = self.node.capture(WAN)
        detail = ""
        try:
            _scenario(cell)(self, cell)
            taken.stop()
            if cell.role != "none":
                self._judge_capture(cell)
        except Exception as error:  # it is the row's, and the matrix goes on
            detail = str(error) if isinstance(error, LabError) else traceback.format_exc()
        finally:
            taken.stop()
            word = self.endpoint.verdict() if self.endpoint is not None else ""
            self._clean()
        if word in ("", "up", "terminated"):  # it did not know of anything wrong
            word = "link_lost" if self.seen else "not_up"
        result = word if detail else "up"
        return Row(
            PEERS[cell.role], cell.role, cell.kind.authentication, cell.kind.encryption, cell.test, result,
            ok=not detail, seconds=round(time.monotonic() - begun, 1), seen=self.seen, detail=detail,
        )  # fmt: skip

    def _clean(self) -> None:
        if self.endpoint is not None:
            self.endpoint.kill()
            self.endpoint = None
        kill_all(self.guest)

    def prepare(self, role: str, kind: Kind) -> Endpoint:
        """Our side of this cell, not yet started."""
        self.endpoint = Endpoint(self.node, role, kind)
        return self.endpoint

    # -- checks ------------------------------------------------------------------------------------------------------

    def agreed(self, endpoint: Endpoint, foreign: Foreign, count: int = 1) -> Addresses:
        """Wait until both ends have a link with IPv4 and IPv6, and both say that it is of this kind."""
        found = foreign.up(UP)
        event = endpoint.wait_for("session_up", UP, count=count)
        kind = endpoint.kind
        wrong = kind.deviations(foreign.log)
        for name, wanted in (("authentication", kind.authentication), ("encryption", kind.encryption)):
            if event.get(name) != wanted:
                wrong.append(f"{endpoint.role} says {name} {event.get(name)!r}")
        if wrong:
            raise Contradiction(f"{'; '.join(wrong)}\n{endpoint.tail()}\n{foreign.log[-4000:]}")
        return found

    def pings(self, endpoint: Endpoint, link: Addresses) -> None:
        """Ping in both directions, with both families and sizes, all of one direction at once."""
        shell = " & ".join(
            f"{{ ping -q -c {PINGS} -i 0.1 -W 5 -s {size} {destination} >/run/ping.{number} 2>&1; }}"
            for number, (destination, size) in enumerate(
                (destination, size)
                for destination in (link.there, f"{link.there_ipv6}%{link.interface}")
                for size in SIZES
            )
        )
        answered = self.guest.run(f"{shell} & wait; cat /run/ping.*").count(f"{PINGS} packets received")
        running = [
            self.node.start(ping_command(endpoint.interface, destination, size, PINGS, 0.1), label="ping")
            for destination in (link.here, link.here_ipv6)
            for size in SIZES
        ]
        back = sum(ping.wait(PINGS * 5 + 10) == 0 for ping in running)
        if (answered, back) != (4, 4):
            said = "\n".join(ping.stdout + ping.stderr for ping in running)
            there = self.guest.run("cat /run/ping.*")
            raise Contradiction(f"pings: {answered} of 4 out of the guest and {back} of 4 into it\n{there}\n{said}")
        self.seen.append("pings 8/8")

    def transfer(self, link: Addresses) -> None:
        """Send a file each way on one connection, at the same time, and compare what came with what was sent."""
        received = hashlib.sha256()

        def feed(connection: socket.socket) -> None:
            connection.sendall(self._blob)
            connection.shutdown(socket.SHUT_WR)

        with self.node.entered():
            listener = socket.create_server((str(link.there), _TRANSFER_PORT))
        begun = time.monotonic()
        answers: list[str] = []
        command = f"nc {link.there} {_TRANSFER_PORT} </srv/blob | sha256sum"
        calling = threading.Thread(target=lambda: answers.append(self.guest.run(command, timeout=_TRANSFER_TIMEOUT)))
        with listener:
            listener.settimeout(_TRANSFER_TIMEOUT)
            calling.start()
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(_TRANSFER_TIMEOUT)
                feeding = threading.Thread(target=feed, args=(connection,))
                feeding.start()
                while data := connection.recv(65536):
                    received.update(data)
                feeding.join()
            calling.join()
        seconds = time.monotonic() - begun
        there = answers[0].split()[0] if answers else "nothing"
        if (received.hexdigest(), there) != (self._guest_digest, hashlib.sha256(self._blob).hexdigest()):
            raise Contradiction("the transferred files differ from what was sent")
        self.seen.append(f"{TRANSFER // 1_000_000} MB each way, SHA-256 equal, {seconds:.1f} s")

    def _judge_capture(self, cell: Cell) -> None:
        """No malformed packet, no expert error, and with encryption no network frame in clear."""
        path = self.node.directory / f"{self.node.name}-{WAN}.pcap"
        found = wire.complaints(path, data_port=_TRANSFER_PORT)
        if found:
            raise Contradiction("tshark objects to:\n" + "\n".join(found[:20]))
        counts = wire.protocols(path)
        clear = counts[wire.IP] + counts[wire.IPV6]
        if bool(cell.kind.strength) != bool(counts[wire.COMPRESSED]) or bool(cell.kind.strength) == bool(clear):
            raise Contradiction(f"on the wire: {clear} frames of IP in clear, {counts[wire.COMPRESSED]} encrypted")
        self.seen.append(f"on the wire {clear or counts[wire.COMPRESSED]} frames {'in clear' if clear else 'of MPPE'}")
        path.rename(path.with_name(f"{str(cell).replace(' ', '-')}.pcap"))


# -- the life of a link ------------------------------------------------------------------------------------------------


def serve_link(bench: Bench, cell: Cell) -> None:
    """A foreign client calls our `serve`: used, ended by each side, again after each side was killed."""
    server, client = bench.prepare("serve", cell.kind), Client(bench.guest)
    server.start()

    def call(count: int) -> Addresses:
        client.dial(WAN_HERE.ip, cell.kind)
        return bench.agreed(server, client, count)

    link = call(1)
    bench.seen.append(f"up as {link.here}")
    bench.pings(server, link)
    bench.transfer(link)
    code = client.hang_up()
    server.wait_for("session_down", NOTICED)
    _must(code in _ENDED, f"pppd ended with {code}")
    bench.seen.append("client hung up")

    call(2)
    server.end()
    _ended_by_peer(client, client.ended(NOTICED))
    bench.seen.append("serve ended")

    server.start()
    call(1)
    client.kill()
    call(2)
    bench.seen.append("up after the client was killed")

    server.kill()
    client.ended(NOTICED)
    server.start()
    call(1)
    bench.seen.append("up after serve was killed")
    client.hang_up()
    server.wait_for("session_down", NOTICED)
    server.end()


def dial_link(bench: Bench, cell: Cell) -> None:
    """Our `dial` calls a foreign server: used, ended by each side, again after each side was killed."""
    client, server = bench.prepare("dial", cell.kind), Server(bench.guest)
    server.start(cell.kind)
    client.start("--retry", "forever")
    link = bench.agreed(client, server)
    bench.seen.append(f"up as {link.there}")
    bench.pings(client, link)
    bench.transfer(link)
    client.end()
    server.wait_for_log("LCP terminated by peer", NOTICED)
    bench.seen.append("dial ended")

    server.forget_log()
    client.start("--retry", "forever")
    bench.agreed(client, server)
    server.forget_log()
    server.hang_up()
    client.wait_for("session_down", NOTICED)
    bench.agreed(client, server, 2)
    bench.seen.append("server hung up, up again")

    server.kill()
    client.wait_for("session_down", NOTICED, count=2)
    server.start(cell.kind)
    server.up(RECONNECTED)
    bench.agreed(client, server, 3)
    bench.seen.append("up after the server was killed")

    client.kill()
    server.wait_for_log("Connection terminated|Modem hangup", NOTICED)
    server.forget_log()
    client.start("--retry", "forever")
    bench.agreed(client, server)
    bench.seen.append("up after dial was killed")
    client.end()


def serve_disorder(bench: Bench, cell: Cell) -> None:
    """A foreign client that reorders what it sends: what arrives in time comes out, in order."""
    server, client = bench.prepare("serve", cell.kind), Client(bench.guest)
    server.start()
    disorder = ("--test-type", str(cell.disorder), "--test-rate", str(DISORDER_RATE))
    client.dial(WAN_HERE.ip, cell.kind, pptp_options=disorder)
    link = bench.agreed(server, client)
    inside = bench.node.capture(server.interface)
    # the last pings only push out what pptp still holds of those before them
    ping = f"ping -q -i {_DISORDER_INTERVAL} -W 1 {link.there}"
    bench.guest.run(f"{ping} -c {DISORDER_PINGS}; {ping} -c 50 -s 57; true", timeout=120)
    inside.stop()
    packets = capture.read(bench.node.directory / f"{bench.node.name}-{server.interface}.pcap")
    out = [int.from_bytes(echo[26:28], "big") for _, echo in packets if _is_request(echo, link.here, 56)]
    frames = wire.gre_frames(capture.read(bench.node.directory / f"{bench.node.name}-{WAN}.pcap"))
    arrived = [frame for frame in frames if frame.source != str(WAN_HERE.ip)]
    # by their length, because they may be encrypted; pptp itself loses a frame each time it turns ten round
    ((length, requests),) = Counter(len(frame.payload) for frame in arrived).most_common(1)
    behind = wire.displaced(arrived)
    late = sum(behind.get(frame.sequence, 0.0) > LATE for frame in arrived if len(frame.payload) == length)
    lost = requests - late - len(set(out))
    bench.seen.append(
        f"{len(behind)} frames displaced; of {requests} echo requests {late} came over {LATE} s late, {lost} were lost"
    )
    _must(len(behind) >= DISORDER_PINGS // DISORDER_RATE // 2, "pptp reordered hardly anything")
    _must(requests > DISORDER_PINGS * 0.9, f"only {requests} echo requests arrived")
    _must(lost <= 0, bench.seen[-1])
    _must(late > 0 or out == sorted(set(out)), f"echo requests came out in the order {out}")
    client.hang_up()
    server.end()


def dial_again_and_again(bench: Bench, cell: Cell) -> None:
    """Our `dial` calls a foreign server that hangs up each time, and needs no more of this machine each time."""
    client, server = bench.prepare("dial", cell.kind), Server(bench.guest)
    server.start(cell.kind)
    begun = time.monotonic()
    client.start("--retry", "forever")
    held = 0
    for number in range(1, cell.calls + 1):
        client.wait_for("session_up", UP, count=number)
        if number == SETTLED:
            held = client.descriptors()
        server.forget_log()
        server.hang_up()
        client.wait_for("session_down", NOTICED, count=number)
    bench.seen.append(f"{cell.calls} calls up in {time.monotonic() - begun:.0f} s")
    bench.agreed(client, server, cell.calls + 1)
    _must(client.descriptors() == held, f"{held} descriptors became {client.descriptors()}")
    bench.pings(client, server.up(UP))
    client.end()


def self_check(bench: Bench, cell: Cell) -> None:
    """A foreign client calls a foreign server from another namespace of the guest: what fails here is this suite's."""
    server, client = Server(bench.guest), Client(bench.guest)
    server.start(cell.kind)
    client.dial(FAR_SERVER, cell.kind, within=far_namespace(bench.guest))
    links = client.up(UP), server.up(UP)
    wrong = cell.kind.deviations(client.log) + cell.kind.deviations(server.log)
    _must(not wrong, "; ".join(wrong))
    _must(links[0].here == links[1].there, f"{links[0]} and {links[1]} are not one link")
    bench.seen.append(f"up as {links[0].here}")
    code = client.hang_up()
    _must(code in _ENDED, f"pppd ended with {code}")
    bench.seen.append("client hung up")


def _is_request(packet: bytes, source: IPv4Address, size: int) -> bool:
    """Whether an IPv4 packet is an ICMP echo request (RFC 792) with so much data."""
    return packet[9] == 1 and packet[20] == 8 and packet[12:16] == source.packed and len(packet) == 28 + size


def _ended_by_peer(client: Client, code: int) -> None:
    log = client.log
    _must(code in _ENDED and "LCP terminated by peer" in log, f"pppd ended with {code}\n{log[-2000:]}")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Contradiction(what)


def _scenario(cell: Cell) -> Callable[[Bench, Cell], None]:
    match cell:
        case Cell(role="none"):
            return self_check
        case Cell(disorder=0, calls=0):
            return serve_link if cell.role == "serve" else dial_link
        case Cell(role="serve", calls=0):
            return serve_disorder
        case _:
            return dial_again_and_again
