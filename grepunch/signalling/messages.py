"""What travels in the reliable stream: PPTP's control messages unchanged, and grepunch's own beside them.

The first octet is the kind. All integers are big-endian. A parse is strict and total: every malformation is a
:class:`WireError`. Times are microseconds on the rendezvous server's monotonic clock.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Any

from grepunch.ports import Form, RelayPolicy
from pptp.errors import WireCause, WireError
from pptp.value import value

# ours: more addresses than a host with many interfaces would usefully offer
MAX_CANDIDATES = 16
# ours, because a pool has been seen to use a few addresses for one subscriber, and each gets probes
MAX_GRE_SOURCES = 3
INSTANCE_SIZE = 8

_FORM_BIT = {Form.V1: 1, Form.V0: 2}
_POLICIES = (RelayPolicy.NEVER, RelayPolicy.ASK, RelayPolicy.AUTO)
_LARGEST_FIELD = 0xFFFFFFFF  # a server that holds its clock back for hours must not make a number that has no place

_CANDIDATES = struct.Struct("!BII4sBBB")  # kind, round, round-trip time in us, external address, forms, two counts
_CANDIDATE = struct.Struct("!4sB")  # address, prefix length
_GRE_SOURCE = struct.Struct("!4s")
_PLAN = struct.Struct("!BI8sQ")  # kind, round, server instance, start in us
_PLAN_REPLY = struct.Struct("!BIB")  # kind, round, accepted
_OPEN = struct.Struct("!BIB")  # kind, round, confirmed
_REPORT = struct.Struct("!BIB")  # kind, round, count
_SLOT_TAKEN = struct.Struct("!BI")  # kind, round
_RELAY = struct.Struct("!BB")  # kind, policy
_OUTGOING_CALL = struct.Struct("!BIBHH")  # kind, round, step, serial number, Call ID
_REPORT_ROW = struct.Struct("!BHHHHB")  # form, lead sent, sent, heard, heard by peer, evidence bits


class MessageKind(IntEnum):
    """The first octet of every message of the stream."""

    PPTP = 1
    CANDIDATES = 2
    PLAN = 3
    PLAN_REPLY = 4
    OPEN = 5
    REPORT = 6
    RELAY = 7
    SLOT_TAKEN = 8
    OUTGOING_CALL = 9


@value
class PptpMessage:
    """A control message of RFC 2637 section 2, byte for byte."""

    data: bytes


@value
class Candidates:
    """Where the sender can be reached in this round of punching, and how far the rendezvous is from it."""

    round: int
    rtt: float  # seconds to the rendezvous server and back
    external: IPv4Address  # as the rendezvous saw it; 0.0.0.0 where it saw none
    forms: frozenset[Form]
    local: tuple[tuple[IPv4Address, int], ...]  # address and prefix length of each interface
    gre: tuple[IPv4Address, ...] = ()  # where a GRE echo saw the sender's GRE come from, if from elsewhere


@value
class Plan:
    """The proposal of the lower key: when both start, on the clock of one server instance (seconds)."""

    round: int
    server_instance: bytes
    start: float


@value
class PlanReply:
    """Whether the sender starts then, too."""

    round: int
    accepted: bool


@value
class Open:
    """The sender's NAT is open for the peer; ``confirmed`` where a router beyond it said so."""

    round: int
    confirmed: bool


@value
class ReportRow:
    """What one form has seen in a window, over all addresses; counts are packets and saturate at 65535."""

    form: Form
    lead_sent: int
    sent: int
    heard: int
    heard_by_peer: int
    proven: bool
    left_own_side: bool  # a Time-Exceeded came from beyond the sender's NAT
    refused_by_own_side: bool
    refused_by_peer_side: bool


@value
class Report:
    """What the sender has seen in a window that proved no path: tells in which direction packets died."""

    round: int
    rows: tuple[ReportRow, ...]


@value
class RelayWish:
    """What the sender's profile says of the relay; it is used where both say ``auto``. Sent once a session."""

    policy: RelayPolicy


@value
class SlotTaken:
    """Another peer of the sender's has a GRE session with the address that this peer comes from: no punch can work."""

    round: int


class CallStep(IntEnum):
    """What a message about the outgoing call of the mirrored handshake says."""

    ABLE = 0  # the sender can make one, after an incoming call
    FIRST = 1  # and would begin with it, for it is what helped the last time
    NEXT = 2  # the call has not helped: now the other form, on a new connection
    SEEN = 3  # the receiver's request with this serial number arrived with this Call ID


@value
class OutgoingCall:
    """About outgoing calls in this round. Who knows of none ignores the whole kind, and none is made with him."""

    round: int
    step: CallStep
    serial_number: int = 0
    call_id: int = 0


SignallingMessage = PptpMessage | Candidates | Plan | PlanReply | Open | Report | RelayWish | SlotTaken | OutgoingCall


def build(message: SignallingMessage) -> bytes:
    """The octets of a message."""
    match message:
        case PptpMessage(data):
            return bytes([MessageKind.PPTP]) + data
        case Candidates():
            bits = sum(_FORM_BIT[form] for form in message.forms)
            head = _CANDIDATES.pack(
                MessageKind.CANDIDATES,
                message.round,
                min(round(message.rtt * 1e6), _LARGEST_FIELD),
                message.external.packed,
                bits,
                len(message.local),
                len(message.gre),
            )
            local = b"".join(_CANDIDATE.pack(address.packed, length) for address, length in message.local)
            return head + local + b"".join(address.packed for address in message.gre)
        case Plan():
            return _PLAN.pack(MessageKind.PLAN, message.round, message.server_instance, round(message.start * 1e6))
        case PlanReply():
            return _PLAN_REPLY.pack(MessageKind.PLAN_REPLY, message.round, message.accepted)
        case Open():
            return _OPEN.pack(MessageKind.OPEN, message.round, message.confirmed)
        case Report():
            rows = b"".join(_build_row(row) for row in message.rows)
            return _REPORT.pack(MessageKind.REPORT, message.round, len(message.rows)) + rows
        case RelayWish(policy):
            return _RELAY.pack(MessageKind.RELAY, _POLICIES.index(policy))
        case SlotTaken():
            return _SLOT_TAKEN.pack(MessageKind.SLOT_TAKEN, message.round)
        case OutgoingCall(number, step, serial, call_id):
            return _OUTGOING_CALL.pack(MessageKind.OUTGOING_CALL, number, step, serial, call_id)


def parse(data: bytes) -> SignallingMessage:
    """The message in ``data``; raises :class:`WireError`."""
    if not data:
        raise WireError("signalling message", WireCause.TRUNCATED, "empty")
    try:
        kind = MessageKind(data[0])
    except ValueError:
        raise WireError("signalling message", WireCause.BAD_TYPE, f"kind {data[0]}") from None
    match kind:
        case MessageKind.PPTP:
            return PptpMessage(data[1:])
        case MessageKind.CANDIDATES:
            return _parse_candidates(data)
        case MessageKind.PLAN:
            _, number, instance, start = _exact(_PLAN, data, kind)
            return Plan(number, instance, start / 1e6)
        case MessageKind.PLAN_REPLY:
            _, number, accepted = _exact(_PLAN_REPLY, data, kind)
            return PlanReply(number, _flag(accepted, kind))
        case MessageKind.OPEN:
            _, number, confirmed = _exact(_OPEN, data, kind)
            return Open(number, _flag(confirmed, kind))
        case MessageKind.REPORT:
            return _parse_report(data)
        case MessageKind.RELAY:
            _, number = _exact(_RELAY, data, kind)
            if number >= len(_POLICIES):
                raise WireError("relay wish", WireCause.BAD_VALUE, f"policy {number}")
            return RelayWish(_POLICIES[number])
        case MessageKind.SLOT_TAKEN:
            _, number = _exact(_SLOT_TAKEN, data, kind)
            return SlotTaken(number)
        case MessageKind.OUTGOING_CALL:
            _, number, step, serial, call_id = _exact(_OUTGOING_CALL, data, kind)
            if step not in CallStep.__members__.values():
                raise WireError("outgoing call", WireCause.BAD_VALUE, f"step {step}")
            return OutgoingCall(number, CallStep(step), serial, call_id)


def _exact(layout: struct.Struct, data: bytes, kind: MessageKind) -> tuple[Any, ...]:
    if len(data) < layout.size:
        raise WireError(kind.name.lower(), WireCause.TRUNCATED, f"{len(data)} of {layout.size} octets")
    if len(data) > layout.size:
        raise WireError(kind.name.lower(), WireCause.TRAILING, f"{len(data)} of {layout.size} octets")
    return layout.unpack(data)


def _flag(value: int, kind: MessageKind) -> bool:
    if value not in (0, 1):
        raise WireError(kind.name.lower(), WireCause.BAD_VALUE, f"flag {value}")
    return bool(value)


def _parse_candidates(data: bytes) -> Candidates:
    if len(data) < _CANDIDATES.size:
        raise WireError("candidates", WireCause.TRUNCATED, f"{len(data)} of {_CANDIDATES.size} octets")
    _, number, rtt, external, bits, count, sources = _CANDIDATES.unpack_from(data)
    if count > MAX_CANDIDATES or sources > MAX_GRE_SOURCES:
        raise WireError("candidates", WireCause.OVERSIZE, f"{count} addresses, {sources} of GRE")
    forms = frozenset(form for form, bit in _FORM_BIT.items() if bits & bit)
    if not forms or bits > sum(_FORM_BIT.values()):
        raise WireError("candidates", WireCause.BAD_VALUE, f"forms {bits:#x}")
    middle = _CANDIDATES.size + count * _CANDIDATE.size
    end = middle + sources * _GRE_SOURCE.size
    if len(data) != end:
        cause = WireCause.TRUNCATED if len(data) < end else WireCause.TRAILING
        raise WireError("candidates", cause, f"{len(data)} octets for {count} and {sources} addresses")
    local = []
    for address, length in _CANDIDATE.iter_unpack(data[_CANDIDATES.size : middle]):
        if length > 32:
            raise WireError("candidates", WireCause.BAD_VALUE, f"prefix length {length}")
        local.append((IPv4Address(address), length))
    gre = tuple(IPv4Address(address) for (address,) in _GRE_SOURCE.iter_unpack(data[middle:]))
    return Candidates(number, rtt / 1e6, IPv4Address(external), forms, tuple(local), gre)


def _build_row(row: ReportRow) -> bytes:
    flags = (row.proven, row.left_own_side, row.refused_by_own_side, row.refused_by_peer_side)
    evidence = sum(flag << bit for bit, flag in enumerate(flags))
    counts = (min(count, 0xFFFF) for count in (row.lead_sent, row.sent, row.heard, row.heard_by_peer))
    return _REPORT_ROW.pack(_FORM_BIT[row.form], *counts, evidence)


def _parse_report(data: bytes) -> Report:
    if len(data) < _REPORT.size:
        raise WireError("report", WireCause.TRUNCATED, f"{len(data)} of {_REPORT.size} octets")
    _, number, count = _REPORT.unpack_from(data)
    end = _REPORT.size + count * _REPORT_ROW.size
    if len(data) != end:
        cause = WireCause.TRUNCATED if len(data) < end else WireCause.TRAILING
        raise WireError("report", cause, f"{len(data)} octets for {count} rows")
    rows = []
    for bit, *counts, evidence in _REPORT_ROW.iter_unpack(data[_REPORT.size :]):
        form = next((form for form, value in _FORM_BIT.items() if value == bit), None)
        if form is None or evidence > 15:
            raise WireError("report", WireCause.BAD_VALUE, f"form {bit}, evidence {evidence}")
        flags = (bool(evidence >> shift & 1) for shift in range(4))
        rows.append(ReportRow(form, *counts, *flags))
    return Report(number, tuple(rows))
