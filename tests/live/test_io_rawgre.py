"""The raw GRE socket against a real kernel, a real router and impartial witnesses."""

from __future__ import annotations

import socket
import struct
import time
from ipaddress import IPv4Address

from grepunch.io.rawgre import RawGre
from grepunch.io.rawsocket import SocketDrop, local_address_towards
from grepunch.lab.requirements import program
from grepunch.ports import Form, GreSend, PathNews
from tests.io.routed import R_TOWARDS_A, A, B, build, drain, eventually, raw
from tests.live.live_support import RunInLab

SEALED = bytes.fromhex("0053") + bytes(31)
PROBE = bytes.fromhex("ff03c02100010008") + bytes(4)
SETTLE = 0.1
ICMP = socket.IPPROTO_ICMP
GRE = socket.IPPROTO_GRE


def gre_v1(payload: bytes, flags: int = 0x3001, kind: int = 0x880B, length: int | None = None) -> bytes:
    return struct.pack("!HHHHI", flags, kind, len(payload) if length is None else length, 0, 0) + payload


def gre_v0(payload: bytes, flags: int = 0, kind: int = 0x880B) -> bytes:
    return struct.pack("!HH", flags, kind) + payload


def told(news: list[PathNews]) -> list[list[object]]:
    return [[n.kind, str(n.reporter), str(n.destination), n.form, n.mtu] for n in news]


def unreachables(packets: list[bytes]) -> int:
    return sum(packet[20] == 3 for packet in packets)


def scenario_silence() -> dict[str, int]:
    a, _, b = build()
    strangers = [b"anything", SEALED, gre_v1(b"\xff\x03\xc0\x21\x01"), gre_v0(SEALED), gre_v0(b"", kind=0x6558)]
    with raw(a, GRE) as sender, raw(a, ICMP) as witness:

        def provoke() -> int:
            for packet in strangers:
                sender.sendto(packet, (str(B), 0))
            time.sleep(SETTLE)
            return unreachables(drain(witness))

        before = provoke()
        with b.entered():
            gre = RawGre()
        during = provoke()
        heard = len(gre.receive(64))
        gre.close()
        return {"before": before, "during": during, "heard": heard, "after": provoke()}


def test_nobody_is_answered_while_the_socket_is_open(run_in_lab: RunInLab) -> None:
    result = run_in_lab(scenario_silence)
    assert result == {"before": 5, "during": 0, "heard": 1, "after": 5}


def scenario_filter() -> list[list[object]]:
    a, _, b = build()
    with b.entered():
        gre = RawGre()
    packets = [
        gre_v1(SEALED),  # 0
        gre_v0(SEALED),  # 1
        gre_v1(PROBE),  # 2
        gre_v0(PROBE),  # 3
        gre_v0(PROBE[2:]),  # 4: LCP without FF 03
        gre_v1(PROBE[:4] + b"\x01" + PROBE[5:]),  # Configure-Request
        gre_v0(b"\xc0\x21\x09\x00\x00\x04"),  # Echo-Request
        gre_v0(bytes.fromhex("ff030021") + bytes(20)),  # IPv4
        gre_v0(bytes.fromhex("ff030053") + bytes(31)),  # sealed, with FF 03
        gre_v0(bytes.fromhex("53") + bytes(31)),  # sealed, compressed protocol
        gre_v1(SEALED, flags=0x3081),  # acknowledgement present
        gre_v1(SEALED, flags=0x2001),  # no sequence number
        gre_v1(SEALED, kind=0x0800),
        gre_v0(SEALED, kind=0x0800),
        gre_v0(SEALED, flags=0x2000),
        gre_v0(b""),
        gre_v1(b""),
        b"\x00",
        gre_v1(SEALED, length=len(SEALED) + 1),  # counted as malformed
        gre_v1(SEALED + b"pad", length=len(SEALED)),  # 5: padded
        gre_v0(SEALED + bytes(1400)),  # 6
    ]
    with raw(a, GRE) as sender:
        for packet in packets:
            sender.sendto(packet, (str(B), 0))
    frames = eventually(lambda: gre.receive(64), len(packets), 0.2)
    assert gre.drops == {SocketDrop.MALFORMED: 1}, gre.drops
    assert gre.received == len(frames)
    return [[str(f.source), f.form, bytes(f.ppp).hex(), f.ttl] for f in frames]


def test_only_sealed_frames_and_vendor_specific_lcp_come_in(run_in_lab: RunInLab) -> None:
    expected = [
        (Form.V1, SEALED),
        (Form.V0, SEALED),
        (Form.V1, PROBE),
        (Form.V0, PROBE),
        (Form.V0, PROBE[2:]),
        (Form.V1, SEALED),
        (Form.V0, SEALED + bytes(1400)),
    ]
    assert run_in_lab(scenario_filter) == [[str(A), form, frame.hex(), 63] for form, frame in expected]


def scenario_what_arrived_before_the_filter() -> int:
    a, _, b = build()
    opened = 0
    with raw(a, GRE) as sender:
        for _ in range(20):  # a socket is made while unwanted packets pour in
            for _ in range(50):
                sender.sendto(gre_v0(b"\xff\x03\x00\x21" + bytes(20)), (str(B), 0))
            with b.entered():
                gre = RawGre()
            for _ in range(50):
                sender.sendto(gre_v0(b"\xff\x03\x00\x21" + bytes(20)), (str(B), 0))
            opened += len(gre.receive(200)) + gre.drops.total()
            gre.close()
    return opened


def test_nothing_slips_in_before_the_filter(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_what_arrived_before_the_filter) == 0


def scenario_wire() -> list[list[object]]:
    a, _, b = build()
    with a.entered():
        gre = RawGre()
    other = IPv4Address("198.18.2.3")
    b.ip("address", "add", f"{other}/24", "dev", "b0")
    with raw(b, GRE) as witness:
        for destination, form, ttl in (
            (B, Form.V1, None),
            (B, Form.V0, None),
            (B, Form.V1, 9),
            (other, Form.V1, None),
            (B, Form.V1, None),
            (B, Form.V0, 7),
        ):
            assert gre.send(GreSend(destination, form, SEALED, ttl))
        assert gre.send_frame(B, Form.V1, SEALED)
        packets = eventually(lambda: drain(witness), 7)
    assert gre.sent == 7
    return [
        [str(IPv4Address(packet[16:20])), packet[6] & 0x40, packet[8], packet[20 : -len(SEALED)].hex()]
        for packet in packets
    ]


def test_headers_ttl_and_sequence_numbers_on_the_wire(run_in_lab: RunInLab) -> None:
    length = f"{len(SEALED):04x}"

    def v1(sequence: int) -> str:
        return f"3001880b{length}0000{sequence:08x}"

    dont_fragment = 0x40
    assert run_in_lab(scenario_wire) == [
        [str(B), dont_fragment, 63, v1(0)],
        [str(B), dont_fragment, 63, "0000880b"],
        [str(B), dont_fragment, 8, v1(1)],
        ["198.18.2.3", dont_fragment, 63, v1(0)],
        [str(B), dont_fragment, 63, v1(2)],
        [str(B), dont_fragment, 6, "0000880b"],
        [str(B), dont_fragment, 63, v1(3)],
    ]


def scenario_news() -> dict[str, object]:
    a, r, b = build()
    with a.entered():
        gre = RawGre()
        source = local_address_towards(B)
    result: dict[str, object] = {"source": str(source)}

    def send(form: Form, ttl: int | None = None, size: int = 33, destination: IPv4Address = B) -> list[list[object]]:
        assert gre.send(GreSend(destination, form, SEALED + bytes(size - 33), ttl))
        return told(eventually(gre.news))

    # First, because a router's kernel has a rate limit of its own for this one, which other errors use up.
    r.ip("route", "add", "unreachable", "203.0.113.0/24")
    result["host"] = send(Form.V0, destination=IPv4Address("203.0.113.1"))
    result["expired v1"] = send(Form.V1, 1)
    result["expired v0"] = send(Form.V0, 1)
    result["protocol"] = send(Form.V1)
    r.ip("link", "set", "rb", "mtu", "1000")
    result["too big"] = send(Form.V1, size=1200)
    result["again too big"] = send(Form.V1, size=1200)  # the kernel's path MTU cache is ignored
    # Every error above was also pending for the next call; nothing was lost to one.
    result["drops"] = dict(gre.drops)
    result["sent"] = gre.sent
    # Pending when receive is called:
    with b.entered():
        other = RawGre()
    gre.send(GreSend(B, Form.V1, SEALED, 1))
    other.send(GreSend(A, Form.V1, SEALED))
    time.sleep(SETTLE)
    result["received"] = len(gre.receive(64))
    result["left"] = len(gre.news())
    return result


def test_icmp_errors_are_news_and_never_fatal(run_in_lab: RunInLab) -> None:
    router = str(R_TOWARDS_A)
    assert run_in_lab(scenario_news) == {
        "source": str(A),
        "expired v1": [["time_exceeded", router, str(B), "v1-0/0", 0]],
        "expired v0": [["time_exceeded", router, str(B), "v0", 0]],
        "protocol": [["protocol_unreachable", str(B), str(B), "v1-0/0", 0]],
        "host": [["unreachable", router, "203.0.113.1", "v0", 0]],
        "too big": [["too_big", router, str(B), "v1-0/0", 1000]],
        "again too big": [["too_big", router, str(B), "v1-0/0", 1000]],
        "drops": {},
        "sent": 6,
        "received": 1,
        "left": 1,
    }


def scenario_refusals() -> dict[str, object]:
    a, _, _ = build()
    with a.entered():
        gre = RawGre()
    result: dict[str, object] = {}

    def refused(destination: str = str(B), size: int = 33, form: Form = Form.V1) -> dict[str, int]:
        gre.drops.clear()
        assert not gre.send_frame(IPv4Address(destination), form, SEALED + bytes(size - 33))
        return {str(cause): count for cause, count in gre.drops.items()}

    result["too big"] = refused(size=1500)
    result["its news"] = told(gre.news())[:1]
    for kind in ("unreachable", "prohibit", "blackhole"):
        a.ip("route", "add", kind, "203.0.113.0/24")
        result[kind] = refused("203.0.113.1")
        a.ip("route", "del", kind, "203.0.113.0/24")
    result["broadcast"] = refused("255.255.255.255")
    a.nft("table ip t { chain c { type filter hook output priority 0; ip protocol gre drop; }; }")
    result["firewall"] = refused()
    a.nft("delete table ip t")
    a.ip("link", "set", "a0", "down")
    result["no route"] = refused()
    a.ip("link", "set", "a0", "up")
    a.ip("route", "add", "default", "via", str(R_TOWARDS_A))
    # None of these used up a sequence number, and the socket works as ever.
    with raw(a, GRE):
        assert gre.send_frame(B, Form.V1, SEALED)
    result["sent"] = gre.sent
    return result


def test_what_the_kernel_refuses_is_dropped_and_counted(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_refusals) == {
        "too big": {"too_big": 1},
        "its news": [["too_big", "None", str(B), None, 1500]],
        "unreachable": {"no_route": 1},
        "prohibit": {"no_route": 1},
        "blackhole": {"no_route": 1},
        "broadcast": {"no_route": 1},
        "firewall": {"firewalled": 1},
        "no route": {"no_route": 1},
        "sent": 1,
    }


def scenario_full_queue() -> dict[str, object]:
    a, _, _ = build()
    # A queue that gives a packet away once a second: the socket's send buffer fills up behind it.
    a.run(
        program("tc"),
        "qdisc",
        "replace",
        "dev",
        "a0",
        "root",
        "tbf",
        "rate",
        "8kbit",
        "burst",
        "1600",
        "limit",
        "30000000",
    )
    with a.entered():
        gre = RawGre()
    frame = SEALED + bytes(1400 - len(SEALED))
    results = [gre.send_frame(B, Form.V1, frame) for _ in range(8000)]
    return {
        "some": any(results),
        "all": all(results),
        "drops": gre.drops[SocketDrop.SEND_QUEUE_FULL] == results.count(False),
    }


def test_a_full_send_queue_drops_and_counts(run_in_lab: RunInLab) -> None:
    assert run_in_lab(scenario_full_queue) == {"some": True, "all": False, "drops": True}
