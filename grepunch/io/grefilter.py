"""The classic BPF programs in front of our raw sockets: only what a grepunch peer, or a call, may say comes in.

They run in the kernel on whole IPv4 packets of protocol 47, for every GRE packet that this host receives. For peers
(``ADMIT``), admitted is PPP protocol 0x0053 (sealed frames) and LCP Vendor-Specific (code 0: probes, handshake
fragments) behind enhanced GRE with key and sequence number and without acknowledgement, or behind plain GRE; both with
protocol type 0x880B. Everything else, a stock PPTP session of this host included, costs us nothing. ``ADMIT_CALLS`` is
the complement, for ordinary PPTP.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Address
from itertools import chain
from typing import NamedTuple

from pptp.wire.sealed import ENCRYPTED_PROTOCOL
from pptp.wire.vendor import LCP_PROTOCOL, VENDOR_SPECIFIC_CODE

# RFC 2637 section 4.1: version 1 with K and S; RFC 2784 section 2: version 0, no options
GRE_V1_FLAGS = 0x3001
GRE_V0_FLAGS = 0x0000
_GRE_S, _GRE_A = 0x1000, 0x0080
GRE_PROTOCOL_PPP = 0x880B
GRE_V1_SIZE = 12
GRE_V0_SIZE = 4

# RFC 1662 section 3.1
_ADDRESS_AND_CONTROL = 0xFF03

# linux/bpf_common.h
LD_WORD = 0x20  # A <- 32 bits at [k]
LD_HALF_INDEXED = 0x48  # A <- 16 bits at [X + k]
LD_BYTE_INDEXED = 0x50  # A <- 8 bits at [X + k]
LDX_HEADER_LENGTH = 0xB1  # X <- 4 * (low nibble of the octet at [k])
JUMP_IF_EQUAL = 0x15
JUMP = 0x05
ADD = 0x04
AND = 0x54
A_TO_X = 0x07
X_TO_A = 0x87
RETURN = 0x06

# linux/filter.h: offsets from here on count from the IP header, wherever the socket's own view begins
_FROM_IP_HEADER = 0x100000000 - 0x100000

# asm-generic/socket.h
_SO_ATTACH_FILTER = 26

_WHOLE_PACKET = 0xFFFF


class Instruction(NamedTuple):
    """One instruction of classic BPF; jumps count from the instruction after this one."""

    code: int
    jump_true: int
    jump_false: int
    k: int


def _assemble(lines: list[tuple[int, int, str, str] | str]) -> tuple[Instruction, ...]:
    """Resolve labels: a line is a label, or (code, k, label if true, label if false); "" goes on to the next line."""
    labels: dict[str, int] = {}
    code: list[tuple[int, int, str, str]] = []
    for line in lines:
        if isinstance(line, str):
            labels[line] = len(code)
        else:
            code.append(line)

    def distance(label: str, here: int) -> int:
        return labels[label] - here - 1 if label else 0

    return tuple(
        Instruction(op, 0, 0, distance(if_true, here))
        if op == JUMP
        else Instruction(op, distance(if_true, here), distance(if_false, here), k)
        for here, (op, k, if_true, if_false) in enumerate(code)
    )


ADMIT = _assemble(
    [
        (LDX_HEADER_LENGTH, 0, "", ""),
        (LD_HALF_INDEXED, 2, "", ""),
        (JUMP_IF_EQUAL, GRE_PROTOCOL_PPP, "", "reject"),
        (LD_HALF_INDEXED, 0, "", ""),
        (JUMP_IF_EQUAL, GRE_V0_FLAGS, "plain", ""),
        (JUMP_IF_EQUAL, GRE_V1_FLAGS, "", "reject"),
        (X_TO_A, 0, "", ""),
        (ADD, GRE_V1_SIZE, "", ""),
        (JUMP, 0, "ppp", ""),
        "plain",
        (X_TO_A, 0, "", ""),
        (ADD, GRE_V0_SIZE, "", ""),
        "ppp",
        (A_TO_X, 0, "", ""),
        (LD_HALF_INDEXED, 0, "", ""),
        (JUMP_IF_EQUAL, ENCRYPTED_PROTOCOL, "admit", ""),
        (JUMP_IF_EQUAL, LCP_PROTOCOL, "short lcp", ""),
        (JUMP_IF_EQUAL, _ADDRESS_AND_CONTROL, "", "reject"),
        (LD_HALF_INDEXED, 2, "", ""),
        (JUMP_IF_EQUAL, LCP_PROTOCOL, "", "reject"),
        (LD_BYTE_INDEXED, 4, "", ""),
        (JUMP_IF_EQUAL, VENDOR_SPECIFIC_CODE, "admit", "reject"),
        "short lcp",
        (LD_BYTE_INDEXED, 2, "", ""),
        (JUMP_IF_EQUAL, VENDOR_SPECIFIC_CODE, "admit", "reject"),
        "admit",
        (RETURN, _WHOLE_PACKET, "", ""),
        "reject",
        (RETURN, 0, "", ""),
    ]
)
REJECT_ALL = (Instruction(RETURN, 0, 0, 0),)
# What may belong to a call of ordinary PPTP: enhanced GRE with a Call ID, and no sealed frame of a grepunch peer.
ADMIT_CALLS = _assemble(
    [
        (LDX_HEADER_LENGTH, 0, "", ""),
        (LD_HALF_INDEXED, 2, "", ""),
        (JUMP_IF_EQUAL, GRE_PROTOCOL_PPP, "", "reject"),
        (LD_HALF_INDEXED, 6, "", ""),
        (JUMP_IF_EQUAL, 0, "reject", ""),
        (LD_HALF_INDEXED, 0, "", ""),
        (AND, 0xFFFF & ~(_GRE_S | _GRE_A), "", ""),
        (JUMP_IF_EQUAL, GRE_V1_FLAGS & ~_GRE_S, "", "reject"),
        (LD_HALF_INDEXED, 0, "", ""),
        (JUMP_IF_EQUAL, GRE_V1_FLAGS, "", "admit"),
        (LD_HALF_INDEXED, GRE_V1_SIZE, "", ""),
        (JUMP_IF_EQUAL, ENCRYPTED_PROTOCOL, "reject", "admit"),
        "admit",
        (RETURN, _WHOLE_PACKET, "", ""),
        "reject",
        (RETURN, 0, "", ""),
    ]
)


def from_sources(addresses: Collection[IPv4Address]) -> tuple[Instruction, ...]:
    """Admits what comes from one of ``addresses``, to a socket of any IPv4 protocol."""
    admit = Instruction(RETURN, 0, 0, _WHOLE_PACKET)
    tests = [(Instruction(JUMP_IF_EQUAL, 0, 1, int(address)), admit) for address in sorted(addresses)]
    return (Instruction(LD_WORD, 0, 0, _FROM_IP_HEADER + 12), *chain.from_iterable(tests), *REJECT_ALL)


def attach(raw: socket.socket, program: tuple[Instruction, ...]) -> None:
    """Put ``program`` in front of the socket in one step, in place of an earlier one. Raises ``OSError``."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(buffer)))
