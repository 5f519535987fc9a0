"""The fifteen control messages of RFC 2637 section 2, and the splitting of a TCP stream into them.

Every message has one fixed size. The field order of each dataclass is the order on the wire; reserved fields do not
appear: they are sent as zero and tolerated with any value (some Cisco firewalls send other ones in the header;
:func:`reserved0` tells). Result, error and cause codes stay plain integers, because peers send values no table lists.

Text fields are ``bytes`` without the NUL octets that pad them to 64 (or 128) octets on the wire: they come from the
peer, need not be ASCII and need not be terminated. :func:`printable` makes them fit for a log.

Sections 2.2 to 2.13 look for the general error codes "in section 2.2"; they are in section 2.16.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import fields
from enum import IntEnum
from typing import Any

from pptp.errors import UsageError, WireCause, WireError
from pptp.value import value

# RFC 2637 section 1.4 and section 2
MAGIC_COOKIE = 0x1A2B3C4D
PROTOCOL_VERSION = 0x0100
CONTROL_MESSAGE = 1  # "PPTP Message Type"; 2, management messages, was never defined
TCP_PORT = 1723
_HEADER = struct.Struct("!HHIHH")  # length, PPTP message type, magic cookie, control message type, reserved0
_TEXT_SIZE = 64


class ControlType(IntEnum):
    """Control message types (RFC 2637 section 1.4)."""

    START_REQUEST = 1
    START_REPLY = 2
    STOP_REQUEST = 3
    STOP_REPLY = 4
    ECHO_REQUEST = 5
    ECHO_REPLY = 6
    OUTGOING_CALL_REQUEST = 7
    OUTGOING_CALL_REPLY = 8
    INCOMING_CALL_REQUEST = 9
    INCOMING_CALL_REPLY = 10
    INCOMING_CALL_CONNECTED = 11
    CALL_CLEAR_REQUEST = 12
    CALL_DISCONNECT_NOTIFY = 13
    WAN_ERROR_NOTIFY = 14
    SET_LINK_INFO = 15


class StartResult(IntEnum):
    """Result codes of a Start-Control-Connection-Reply (section 2.2)."""

    OK = 1
    GENERAL_ERROR = 2
    ALREADY_EXISTS = 3
    NOT_AUTHORIZED = 4
    BAD_VERSION = 5


class StopReason(IntEnum):
    """Reasons of a Stop-Control-Connection-Request (section 2.3)."""

    NONE = 1
    PROTOCOL = 2
    LOCAL_SHUTDOWN = 3


class GenericResult(IntEnum):
    """Result codes of the Stop- and Echo-Reply (sections 2.4 and 2.6)."""

    OK = 1
    GENERAL_ERROR = 2


class OutgoingCallResult(IntEnum):
    """Result codes of an Outgoing-Call-Reply (section 2.8)."""

    CONNECTED = 1
    GENERAL_ERROR = 2
    NO_CARRIER = 3
    BUSY = 4
    NO_DIAL_TONE = 5
    TIME_OUT = 6
    DO_NOT_ACCEPT = 7


class IncomingCallResult(IntEnum):
    """Result codes of an Incoming-Call-Reply (section 2.10)."""

    CONNECT = 1
    GENERAL_ERROR = 2
    DO_NOT_ACCEPT = 3


class DisconnectResult(IntEnum):
    """Result codes of a Call-Disconnect-Notify (section 2.13). Windows sends 0 whatever the reason."""

    UNSPECIFIED = 0
    LOST_CARRIER = 1
    GENERAL_ERROR = 2
    ADMIN_SHUTDOWN = 3
    REQUEST = 4


class GeneralError(IntEnum):
    """General error codes (section 2.16)."""

    NONE = 0
    NOT_CONNECTED = 1
    BAD_FORMAT = 2
    BAD_VALUE = 3
    NO_RESOURCE = 4
    BAD_CALL_ID = 5
    PAC_ERROR = 6


@value
class StartControlConnectionRequest:
    """Section 2.1. ``maximum_channels`` is 0 from a PNS."""

    protocol_version: int = PROTOCOL_VERSION
    framing_capabilities: int = 3
    bearer_capabilities: int = 3
    maximum_channels: int = 0
    firmware_revision: int = 0
    host_name: bytes = b""
    vendor_name: bytes = b""


@value
class StartControlConnectionReply:
    """Section 2.2."""

    protocol_version: int = PROTOCOL_VERSION
    result_code: int = StartResult.OK
    error_code: int = GeneralError.NONE
    framing_capabilities: int = 3
    bearer_capabilities: int = 3
    maximum_channels: int = 0
    firmware_revision: int = 0
    host_name: bytes = b""
    vendor_name: bytes = b""


@value
class StopControlConnectionRequest:
    """Section 2.3."""

    reason: int = StopReason.NONE


@value
class StopControlConnectionReply:
    """Section 2.4."""

    result_code: int = GenericResult.OK
    error_code: int = GeneralError.NONE


@value
class EchoRequest:
    """Section 2.5."""

    identifier: int


@value
class EchoReply:
    """Section 2.6."""

    identifier: int
    result_code: int = GenericResult.OK
    error_code: int = GeneralError.NONE


@value
class OutgoingCallRequest:
    """Section 2.7, PNS to PAC; ``call_id`` is the PNS's. Speeds in bit/s, ``processing_delay`` in 1/10 s."""

    call_id: int
    call_serial_number: int = 0
    minimum_bps: int = 2400
    maximum_bps: int = 100_000_000
    bearer_type: int = 3
    framing_type: int = 3
    receive_window: int = 64
    processing_delay: int = 0
    phone_number: bytes = b""
    subaddress: bytes = b""


@value
class OutgoingCallReply:
    """Section 2.8, PAC to PNS; ``call_id`` is the PAC's, ``peer_call_id`` the PNS's."""

    call_id: int
    peer_call_id: int
    result_code: int = OutgoingCallResult.CONNECTED
    error_code: int = GeneralError.NONE
    cause_code: int = 0
    connect_speed: int = 0
    receive_window: int = 64
    processing_delay: int = 0
    physical_channel_id: int = 0


@value
class IncomingCallRequest:
    """Section 2.9, PAC to PNS; ``call_id`` is the PAC's."""

    call_id: int
    call_serial_number: int = 0
    bearer_type: int = 3
    physical_channel_id: int = 0
    dialed_number: bytes = b""
    dialing_number: bytes = b""
    subaddress: bytes = b""


@value
class IncomingCallReply:
    """Section 2.10, PNS to PAC; ``call_id`` is the PNS's, ``peer_call_id`` the PAC's."""

    call_id: int
    peer_call_id: int
    result_code: int = IncomingCallResult.CONNECT
    error_code: int = GeneralError.NONE
    receive_window: int = 64
    processing_delay: int = 0


@value
class IncomingCallConnected:
    """Section 2.11, PAC to PNS; ``peer_call_id`` is the PNS's."""

    peer_call_id: int
    connect_speed: int = 0
    receive_window: int = 64
    processing_delay: int = 0
    framing_type: int = 3


@value
class CallClearRequest:
    """Section 2.12, PNS to PAC; ``call_id`` is the PNS's."""

    call_id: int


@value
class CallDisconnectNotify:
    """Section 2.13, PAC to PNS; ``call_id`` is the PAC's (several implementations send the PNS's)."""

    call_id: int
    result_code: int = DisconnectResult.REQUEST
    error_code: int = GeneralError.NONE
    cause_code: int = 0
    statistics: bytes = b""


@value
class WanErrorNotify:
    """Section 2.14, PAC to PNS; ``peer_call_id`` is the PNS's. Counters since the start of the call."""

    peer_call_id: int
    crc_errors: int = 0
    framing_errors: int = 0
    hardware_overruns: int = 0
    buffer_overruns: int = 0
    timeout_errors: int = 0
    alignment_errors: int = 0


@value
class SetLinkInfo:
    """Section 2.15, PNS to PAC; ``peer_call_id`` is the PAC's."""

    peer_call_id: int
    send_accm: int = 0xFFFFFFFF
    receive_accm: int = 0xFFFFFFFF


ConnectionMessage = (
    StartControlConnectionRequest
    | StartControlConnectionReply
    | StopControlConnectionRequest
    | StopControlConnectionReply
    | EchoRequest
    | EchoReply
)
CallMessage = (
    OutgoingCallRequest
    | OutgoingCallReply
    | IncomingCallRequest
    | IncomingCallReply
    | IncomingCallConnected
    | CallClearRequest
    | CallDisconnectNotify
    | WanErrorNotify
    | SetLinkInfo
)
ControlMessage = ConnectionMessage | CallMessage


@value
class _Layout:
    """How a message lies on the wire: integers, then one length word for each counted text, then the texts."""

    message: type[Any]
    body: struct.Struct
    texts: int = 0
    counted: int = 0

    @property
    def size(self) -> int:
        return _HEADER.size + self.body.size


_LAYOUTS: Mapping[ControlType, _Layout] = {
    ControlType.START_REQUEST: _Layout(StartControlConnectionRequest, struct.Struct("!HxxIIHH64s64s"), texts=2),
    ControlType.START_REPLY: _Layout(StartControlConnectionReply, struct.Struct("!HBBIIHH64s64s"), texts=2),
    ControlType.STOP_REQUEST: _Layout(StopControlConnectionRequest, struct.Struct("!Bxxx")),
    ControlType.STOP_REPLY: _Layout(StopControlConnectionReply, struct.Struct("!BBxx")),
    ControlType.ECHO_REQUEST: _Layout(EchoRequest, struct.Struct("!I")),
    ControlType.ECHO_REPLY: _Layout(EchoReply, struct.Struct("!IBBxx")),
    ControlType.OUTGOING_CALL_REQUEST: _Layout(
        OutgoingCallRequest, struct.Struct("!HHIIIIHHHxx64s64s"), texts=2, counted=1
    ),
    ControlType.OUTGOING_CALL_REPLY: _Layout(OutgoingCallReply, struct.Struct("!HHBBHIHHI")),
    ControlType.INCOMING_CALL_REQUEST: _Layout(
        IncomingCallRequest, struct.Struct("!HHIIHH64s64s64s"), texts=3, counted=2
    ),
    ControlType.INCOMING_CALL_REPLY: _Layout(IncomingCallReply, struct.Struct("!HHBBHHxx")),
    ControlType.INCOMING_CALL_CONNECTED: _Layout(IncomingCallConnected, struct.Struct("!HxxIHHI")),
    ControlType.CALL_CLEAR_REQUEST: _Layout(CallClearRequest, struct.Struct("!Hxx")),
    ControlType.CALL_DISCONNECT_NOTIFY: _Layout(CallDisconnectNotify, struct.Struct("!HBBHxx128s"), texts=1),
    ControlType.WAN_ERROR_NOTIFY: _Layout(WanErrorNotify, struct.Struct("!HxxIIIIII")),
    ControlType.SET_LINK_INFO: _Layout(SetLinkInfo, struct.Struct("!HxxII")),
}
_TYPES: Mapping[type[Any], ControlType] = {layout.message: kind for kind, layout in _LAYOUTS.items()}
_FIELDS: Mapping[type[Any], tuple[str, ...]] = {
    message: tuple(one.name for one in fields(message)) for message in _TYPES
}

SMALLEST_MESSAGE = min(layout.size for layout in _LAYOUTS.values())
LARGEST_MESSAGE = max(layout.size for layout in _LAYOUTS.values())


def control_type(message: ControlMessage) -> ControlType:
    """The type number of a message."""
    return _TYPES[type(message)]


def message_size(kind: ControlType) -> int:
    """Octets of a whole message of this type, header included."""
    return _LAYOUTS[kind].size


def reserved0(data: bytes | memoryview) -> int:
    """The reserved field of a parsed message's header: should be 0, and is not from every peer."""
    value: int = _HEADER.unpack_from(data)[4]
    return value


def parse_message(data: bytes | memoryview) -> ControlMessage:
    """Parse exactly one whole message; raises :class:`WireError`."""
    length, layout = _check_header(data)
    if length > len(data):
        raise WireError("control message", WireCause.TRUNCATED, f"{len(data)} octets of {length}")
    if length < len(data):
        raise WireError("control message", WireCause.TRAILING, f"{len(data)} octets, length {length}")
    values = layout.body.unpack_from(data, _HEADER.size)
    fixed = len(values) - layout.texts - layout.counted
    texts = [text.rstrip(b"\0") for text in values[fixed + layout.counted :]]
    for index, announced in enumerate(values[fixed : fixed + layout.counted]):
        if announced > _TEXT_SIZE:
            raise WireError("control message", WireCause.BAD_LENGTH, f"a number of {announced} octets in a field of 64")
        texts[index] = values[fixed + layout.counted + index][:announced]
    message: ControlMessage = layout.message(*values[:fixed], *texts)
    return message


def _check_header(data: bytes | memoryview | bytearray) -> tuple[int, _Layout]:
    """Length and layout of the message whose header is at the start of ``data``."""
    if len(data) < _HEADER.size:
        raise WireError("control message", WireCause.TRUNCATED, f"{len(data)} octets")
    length, kind, magic, control, _ = _HEADER.unpack_from(data)
    if magic != MAGIC_COOKIE:
        raise WireError("control message", WireCause.BAD_MAGIC, f"0x{magic:08x}")
    if kind != CONTROL_MESSAGE:
        raise WireError("control message", WireCause.BAD_TYPE, f"PPTP message type {kind}")
    try:
        layout = _LAYOUTS[control]
    except KeyError:
        raise WireError("control message", WireCause.BAD_TYPE, f"control message type {control}") from None
    if length != layout.size:
        raise WireError(
            "control message", WireCause.BAD_LENGTH, f"{length} octets announced, type {control} has {layout.size}"
        )
    return length, layout


def build_message(message: ControlMessage) -> bytes:
    """The octets of a message; raises :class:`UsageError` where a value does not fit its field."""
    kind = _TYPES[type(message)]
    layout = _LAYOUTS[kind]
    values = tuple(getattr(message, name) for name in _FIELDS[type(message)])
    fixed = len(values) - layout.texts
    texts: tuple[bytes, ...] = values[fixed:]
    room = 128 if kind is ControlType.CALL_DISCONNECT_NOTIFY else _TEXT_SIZE
    if any(len(text) > room for text in texts):
        raise UsageError(f"{type(message).__name__}: a text longer than its field of {room} octets")
    try:
        body = layout.body.pack(*values[:fixed], *(len(text) for text in texts[: layout.counted]), *texts)
    except struct.error as error:
        raise UsageError(f"{type(message).__name__}: {error}") from None
    return _HEADER.pack(layout.size, CONTROL_MESSAGE, MAGIC_COOKIE, kind, 0) + body


def printable(text: bytes) -> str:
    """A peer's text for logs and status: up to the first NUL, everything but printable ASCII escaped."""
    head = text.split(b"\0", 1)[0]
    return "".join(chr(octet) if 0x20 <= octet < 0x7F and octet != 0x5C else f"\\x{octet:02x}" for octet in head)


class MessageSplitter:
    """Cuts a TCP stream into control messages (RFC 2637 section 1.4). One per connection, dies with it.

    Loss of synchronisation is final: the owner must close the connection and must not search for the next cookie.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lost: WireError | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take what was read from the stream, of any size; afterwards drain :meth:`next_message`."""
        if self._lost is None:
            self._buffer += data

    def next_message(self) -> bytes | None:
        """The next whole message, or ``None`` until more is fed. Raises :class:`WireError` once in step no more."""
        if self._lost is not None:
            raise self._lost
        if len(self._buffer) < _HEADER.size:
            return None
        try:
            length, _ = _check_header(self._buffer)
        except WireError as error:
            self._lost = error
            self._buffer.clear()
            raise
        if len(self._buffer) < length:
            return None
        message = bytes(self._buffer[:length])
        del self._buffer[:length]
        return message
