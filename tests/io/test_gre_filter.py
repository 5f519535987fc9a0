"""The BPF program by an interpreter of the instructions it uses, against what admission means in words.

The live tests run the same program in the kernel.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grepunch.io import grefilter
from grepunch.io.grefilter import ADMIT, ADMIT_CALLS, REJECT_ALL, Instruction


def run(program: tuple[Instruction, ...], packet: bytes) -> int:
    """How many octets the kernel would keep; a load beyond the packet ends the program with 0, as in the kernel."""
    a = x = counter = 0
    for _ in range(len(program)):
        code, jump_true, jump_false, k = program[counter]
        counter += 1
        try:
            match code:
                case grefilter.LDX_HEADER_LENGTH:
                    x = 4 * (packet[k] & 0x0F)
                case grefilter.LD_HALF_INDEXED:
                    (a,) = struct.unpack_from("!H", packet, x + k)
                case grefilter.LD_BYTE_INDEXED:
                    a = packet[x + k]
                case grefilter.AND:
                    a = a & k
                case grefilter.ADD:
                    a = a + k & 0xFFFFFFFF
                case grefilter.A_TO_X:
                    x = a
                case grefilter.X_TO_A:
                    a = x
                case grefilter.JUMP:
                    counter += k
                case grefilter.JUMP_IF_EQUAL:
                    counter += jump_true if a == k else jump_false
                case grefilter.RETURN:
                    return k
                case other:
                    raise AssertionError(f"unknown instruction {other:#x}")
        except (IndexError, struct.error):
            return 0
    raise AssertionError("the program ran out of its end")


def admitted(packet: bytes) -> bool:
    """The rule in words: the GRE form, then the PPP protocol, then the LCP code."""
    gre = packet[4 * (packet[0] & 0x0F) :]
    if gre[2:4] != b"\x88\x0b":
        return False
    if gre[:2] == b"\x30\x01":
        frame = gre[12:]
    elif gre[:2] == b"\x00\x00":
        frame = gre[4:]
    else:
        return False
    if frame[:2] == b"\x00\x53":
        return True
    return frame[:5] == b"\xff\x03\xc0\x21\x00" or frame[:3] == b"\xc0\x21\x00"


def pieces(*values: bytes) -> st.SearchStrategy[bytes]:
    """One of the telling values, or anything of the same length as the first."""
    return st.sampled_from(values) | st.binary(min_size=len(values[0]), max_size=len(values[0]))


frames = st.builds(
    lambda prefix, protocol, rest: prefix + protocol + rest,
    st.sampled_from([b"", b"\xff\x03"]),
    pieces(b"\x00\x53", b"\xc0\x21", b"\x00\x21"),
    st.binary(max_size=1).map(lambda code: code or b"\x00"),
)
packets = st.builds(
    lambda words, flags, kind, rest, frame, cut: (
        bytes([0x40 | words]) + bytes(4 * words - 1) + flags + kind + (rest if flags == b"\x30\x01" else b"") + frame
    )[: None if cut is None else max(4 * words, cut)],
    st.integers(5, 15),
    pieces(b"\x30\x01", b"\x00\x00", b"\x30\x81", b"\x20\x01"),
    pieces(b"\x88\x0b", b"\x08\x00"),
    st.binary(min_size=8, max_size=8),
    frames,
    st.none() | st.integers(20, 80),
)


@given(packets)
@settings(max_examples=500, deadline=None)
def test_the_program_is_the_rule(packet: bytes) -> None:
    assert (run(ADMIT, packet) > 0) is admitted(packet)


def test_an_admitted_packet_is_kept_whole() -> None:
    packet = bytes([0x45]) + bytes(19) + bytes.fromhex("0000880b0053") + bytes(1400)
    assert run(ADMIT, packet) >= len(packet)


def test_nothing_passes_the_first_program() -> None:
    assert run(REJECT_ALL, bytes([0x45]) + bytes(19) + bytes.fromhex("0000880b0053")) == 0


@pytest.mark.parametrize("program", [ADMIT, ADMIT_CALLS])
def test_every_jump_lands_inside_the_program(program: tuple[Instruction, ...]) -> None:
    for here, (code, jump_true, jump_false, k) in enumerate(program):
        for distance in (k,) if code == grefilter.JUMP else (jump_true, jump_false):
            assert here + 1 + distance <= len(program) - (code != grefilter.RETURN)


def belongs_to_a_call(packet: bytes) -> bool:
    """The rule in words: enhanced GRE with a key, S and A as they come, a Call ID, and nothing sealed."""
    gre = packet[4 * (packet[0] & 0x0F) :]
    if len(gre) < 8 or gre[2:4] != b"\x88\x0b" or gre[6:8] == b"\0\0":
        return False
    flags = int.from_bytes(gre[:2], "big")
    if flags not in (0x2001, 0x3001, 0x2081, 0x3081):
        return False
    return flags != 0x3001 or (len(gre) >= 14 and gre[12:14] != b"\x00\x53")


call_packets = st.builds(
    lambda words, flags, kind, call_id, rest, frame, cut: (
        bytes([0x40 | words])
        + bytes(4 * words - 1)
        + flags
        + kind
        + b"\0\x10"
        + call_id
        + (rest if flags == b"\x30\x01" else b"")
        + frame
    )[: None if cut is None else max(4 * words, cut)],
    st.integers(5, 15),
    pieces(b"\x30\x01", b"\x30\x81", b"\x20\x81", b"\x20\x01"),
    pieces(b"\x88\x0b", b"\x08\x00"),
    pieces(b"\0\0", b"\x12\x34", b"\0\x01"),
    st.binary(min_size=4, max_size=4),
    frames,
    st.none() | st.integers(20, 80),
)


@given(call_packets)
@settings(max_examples=500, deadline=None)
def test_the_program_for_calls_is_its_rule(packet: bytes) -> None:
    assert (run(ADMIT_CALLS, packet) > 0) is belongs_to_a_call(packet)


@given(packets | call_packets)
@settings(max_examples=300, deadline=None)
def test_what_peers_send_with_call_id_zero_and_what_calls_send_never_meet(packet: bytes) -> None:
    sealed_form = run(ADMIT, packet) > 0 and packet[4 * (packet[0] & 0x0F) + 6 :][:2] == b"\0\0"
    assert not (sealed_form and run(ADMIT_CALLS, packet) > 0)
