"""Captures: what tshark and scapy make of them, and how the file itself is kept."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.io import capture
from grepunch.io.capture import PcapFile, PlainCapture, WireCapture
from grepunch.io.errors import Refused

LOCAL, REMOTE = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.2")
TSHARK = shutil.which("tshark")

# RFC 2637 sections 2.1, 2.2, 2.7, 2.8, 2.12: the messages of one call, laid out by hand
_COOKIE = 0x1A2B3C4D
_START = "!HHIHHHHIIHH64s64s"


def start(kind: int, result: int = 0) -> bytes:
    return struct.pack(_START, 156, 1, _COOKIE, kind, 0, 0x0100, result << 8, 3, 3, 1, 1, b"host", b"grepunch")


CALL_REQUEST = struct.pack(
    "!HHIHHHHIIIIHHHH64s64s", 168, 1, _COOKIE, 7, 0, 0, 1, 300, 100_000_000, 3, 3, 64, 0, 0, 0, b"", b""
)
CALL_REPLY = struct.pack("!HHIHHHHBBHIHHI", 32, 1, _COOKIE, 8, 0, 0, 0, 1, 0, 0, 100_000_000, 64, 0, 0)
CALL_CLEAR = struct.pack("!HHIHHHH", 16, 1, _COOKIE, 12, 0, 0, 0)
CONVERSATION = [(True, start(1)), (False, start(2, 1)), (True, CALL_REQUEST), (False, CALL_REPLY), (True, CALL_CLEAR)]

# RFC 1661: Configure-Request with MRU and magic number, Echo-Request; RFC 1332: Configure-Request with an address
LCP_REQUEST = bytes.fromhex("0101000e010405780506deadbeef")
LCP_ECHO = bytes.fromhex("09010008deadbeef")
IPCP_REQUEST = bytes.fromhex("0101000a03060a420001")


def echo_request(data: bytes) -> bytes:
    """An inner ICMP echo request with correct checksums."""
    icmp = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + data
    icmp = icmp[:2] + struct.pack("!H", capture._checksum(icmp)) + icmp[4:]
    return capture._ipv4(IPv4Address("10.66.0.1"), IPv4Address("10.66.0.2"), 1, icmp, 64)


WARNING = 0x600000  # of tshark's expert severities; errors are above, notes and chat below


def tshark(path: Path, *fields: str) -> list[dict[str, str]]:
    """The fields of every packet, each as it occurs first; fails where tshark finds anything malformed or wrong."""
    assert TSHARK is not None, "tshark is the judge of captures: install it"
    checks = ["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]
    names = [*fields, "_ws.expert.severity", "_ws.malformed", "_ws.expert.message"]
    wanted = [argument for name in names for argument in ("-e", name)]
    command = [TSHARK, "-n", "-r", str(path), *checks, "-T", "fields", *wanted, "-E", "occurrence=f"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    packets = [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
    for packet in packets:
        assert int(packet["_ws.expert.severity"] or 0) < WARNING, packet
        assert not packet["_ws.malformed"], packet
    return packets


@pytest.mark.parametrize("initiator", [True, False])
def test_tshark_reads_a_whole_plain_session(tmp_path: Path, initiator: bool) -> None:
    path = tmp_path / "plain.pcap"
    file = PcapFile(path)
    plain = PlainCapture(file, LOCAL, REMOTE, initiator=initiator)
    for outgoing, message in CONVERSATION[:4]:
        plain.control(message, outgoing=outgoing is initiator)
    for outgoing in (True, False):
        plain.ppp(0xC021, LCP_REQUEST, outgoing=outgoing)
        plain.ppp(0xC021, LCP_ECHO, outgoing=outgoing)
        plain.ppp(0x8021, IPCP_REQUEST, outgoing=outgoing)
        plain.ppp(0x0021, echo_request(b"ping" * 10), outgoing=outgoing)
    plain.control(CALL_CLEAR, outgoing=initiator)
    plain.end()
    file.close()

    packets = tshark(
        path, "ip.src", "tcp.dstport", "tcp.stream", "tcp.len", "pptp.control_message_type",
        "gre.sequence_number", "gre.key.call_id", "ppp.protocol", "icmp.type",
    )  # fmt: skip
    assert len(packets) == file.packets
    messages = [packet for packet in packets if packet["pptp.control_message_type"]]
    assert [packet["pptp.control_message_type"] for packet in messages] == ["1", "2", "7", "8", "12"]
    assert [int(packet["tcp.len"]) for packet in messages] == [len(message) for _, message in CONVERSATION]
    assert (messages[0]["ip.src"], messages[0]["tcp.dstport"]) == (str(LOCAL if initiator else REMOTE), "1723")
    assert {packet["tcp.stream"] for packet in packets} == {"0", ""}
    names = ("ip.src", "gre.sequence_number", "gre.key.call_id", "ppp.protocol")
    assert [tuple(packet[name] for name in names) for packet in packets if packet["gre.key.call_id"]] == [
        (str(source), str(sequence), "0", protocol)
        for source in (LOCAL, REMOTE)
        for sequence, protocol in enumerate(("0xc021", "0xc021", "0x8021", "0x0021"))
    ]
    assert [packet["icmp.type"] for packet in packets if packet["icmp.type"]] == ["8", "8"]


def test_scapy_dissects_the_plain_session_alike(tmp_path: Path) -> None:
    from scapy.layers.inet import ICMP, IP, TCP
    from scapy.layers.ppp import PPP
    from scapy.layers.pptp import PPTP, PPTPOutgoingCallRequest
    from scapy.utils import rdpcap

    path = tmp_path / "plain.pcap"
    file = PcapFile(path)
    plain = PlainCapture(file, LOCAL, REMOTE, initiator=True, call_id=7)
    plain.control(CALL_REQUEST, outgoing=True)
    plain.ppp(0x0021, echo_request(b"ping"), outgoing=True)
    file.close()
    packets = rdpcap(str(path))
    assert [str(packet[TCP].flags) for packet in packets if TCP in packet] == ["S", "SA", "A", "PA", "A"]
    (request,) = [packet for packet in packets if PPTP in packet or PPTPOutgoingCallRequest in packet]
    assert request[PPTPOutgoingCallRequest].minimum_bps == 300
    inner = packets[-1]
    assert (inner[IP].proto, inner[PPP].proto) == (47, 0x0021)
    assert inner.getlayer(IP, 2)[ICMP].type == 8
    for packet in packets:  # scapy computes what we wrote
        written = bytes(packet)
        del packet[IP].chksum
        if TCP in packet:
            del packet[TCP].chksum
        assert bytes(packet) == written


def test_tshark_reads_the_wire(tmp_path: Path) -> None:
    path = tmp_path / "wire.pcap"
    file = PcapFile(path)
    wire = WireCapture(file)
    sealed = bytes.fromhex("0053") + os.urandom(40)
    probe = bytes.fromhex("ff03c021") + bytes.fromhex("0000000c00000000") + b"\x02gp\x01"
    loopback = IPv4Address("127.0.0.2")
    wire.sent(loopback, None, struct.pack("!HHHHI", 0x3001, 0x880B, len(sealed), 0, 9) + sealed)
    wire.sent(loopback, 3, struct.pack("!HH", 0, 0x880B) + probe)
    received = capture._ipv4(REMOTE, LOCAL, 47, struct.pack("!HH", 0, 0x880B) + sealed, 58)
    wire.received(received)
    file.close()
    packets = tshark(path, "ip.src", "ip.dst", "ip.ttl", "gre.sequence_number", "ppp.protocol")
    assert [list(packet.values())[:5] for packet in packets] == [
        ["127.0.0.1", "127.0.0.2", "64", "9", "0x0053"],
        ["127.0.0.1", "127.0.0.2", "3", "", "0xc021"],
        [str(REMOTE), str(LOCAL), "58", "", "0x0053"],
    ]
    assert received in path.read_bytes()


def test_times_are_those_of_the_wall_clock(tmp_path: Path) -> None:
    path = tmp_path / "times.pcap"
    file = PcapFile(path, wall_clock=lambda: 1_700_000_000.25)
    file.record(echo_request(b""))
    file.close()
    assert [packet["frame.time_epoch"] for packet in tshark(path, "frame.time_epoch")] == ["1700000000.250000000"]


def test_only_the_owner_can_read_it_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "mode.pcap"
    path.write_bytes(b"an older capture")
    path.chmod(0o644)
    old = os.umask(0)
    try:
        PcapFile(path).close()
        PcapFile(tmp_path / "new.pcap").close()
    finally:
        os.umask(old)
    for made in (path, tmp_path / "new.pcap"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        assert made.stat().st_size == 24


@pytest.mark.parametrize("trap", ["symlink", "dangling", "hard link", "pipe", "directory", "nowhere"])
def test_no_other_file_is_ever_written_to(tmp_path: Path, trap: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    path = tmp_path / "trap.pcap"
    match trap:
        case "symlink":
            path.symlink_to(precious)
        case "dangling":
            path.symlink_to(tmp_path / "new")
        case "hard link":
            path.hardlink_to(precious)
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "nowhere":
            path = tmp_path / "none" / "trap.pcap"
    with pytest.raises(Refused, match=r"trap\.pcap"):
        PcapFile(path)
    assert precious.read_text() == "keep me"
    assert not (tmp_path / "new").exists()


def test_a_capture_ends_at_its_limit_with_a_whole_packet(tmp_path: Path) -> None:
    path = tmp_path / "limit.pcap"
    file = PcapFile(path, limit=24 + 3 * (16 + 100))
    for _ in range(5):
        file.record(echo_request(bytes(72)))
    assert file.packets == 3
    assert "largest size" in file.stopped
    assert len(tshark(path, "frame.number")) == 3
    file.close()
    file.close()
    file.record(b"after close")
    assert path.stat().st_size == 24 + 3 * 116


def test_a_file_that_cannot_be_written_stops_the_capture_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "full.pcap"
    file = PcapFile(path)
    file.record(echo_request(b"first"))
    whole = path.stat().st_size
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    file.record(echo_request(b"half of this one fits"))
    assert path.stat().st_size == whole
    assert "full" in file.stopped

    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    other = PcapFile(tmp_path / "none.pcap")
    assert "No space left" in other.stopped
    other.record(b"anything")
    assert other.packets == 0
    other.close()
    file.close()


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_a_packet_with_its_checksum_sums_to_zero(data: bytes) -> None:
    packet = capture._ipv4(LOCAL, REMOTE, 47, data, 64)
    assert capture._checksum(packet[:20]) == 0
    assert struct.unpack_from("!H", packet, 2) == (len(packet),)


def test_the_judge_sees_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "wrong.pcap"
    file = PcapFile(path)
    plain = PlainCapture(file, LOCAL, REMOTE, initiator=True)
    plain.control(start(1), outgoing=True)
    file.close()
    wrong = bytearray(path.read_bytes())
    wrong[-60] ^= 1  # inside the message: the TCP checksum no longer fits
    path.write_bytes(wrong)
    with pytest.raises(AssertionError, match=r"[Cc]hecksum"):
        tshark(path)
