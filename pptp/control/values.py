"""What a control connection is told and what it tells: configuration, calls and events."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import NewType

from pptp.errors import Terminated
from pptp.value import value
from pptp.wire.control import WanErrorNotify

# RFC 2637 sections 3.1.4, 3.2.1 and 2.4
REPLY_WAIT = 60.0  # seconds for any state that waits for the peer
ECHO_INTERVAL = 60.0  # seconds without a control message from the peer until we ask
ECHO_WAIT = 60.0  # seconds for the answer
# ours, because the RFC names no time: mpd5 waits as long
STOP_WAIT = 3.0
# ours, because one control connection must not be able to claim all 65536 Call IDs
MAX_CALLS = 16

CallHandle = NewType("CallHandle", int)


class Role(StrEnum):
    """Which end of a call this side is (RFC 2637 section 1.2)."""

    PNS = "PNS"
    PAC = "PAC"


class CallState(Enum):
    """States of a call (RFC 2637 sections 3.2.3 and 3.2.4); an idle call does not exist."""

    DECIDING = "wait_cs_ans"  # the peer asked; the owner has not yet accepted or refused
    WAIT_REPLY = "wait_reply"  # we asked
    WAIT_CONNECT = "wait_connect"  # incoming, PNS: accepted, waiting for Incoming-Call-Connected
    ESTABLISHED = "established"
    WAIT_DISCONNECT = "wait_disconnect"  # PNS: Call-Clear-Request sent


@value
class Call:
    """One call as it stands. ``call_id`` is ours, ``peer_call_id`` the peer's; ``None`` until assigned.

    ``peer_window`` 0 means that the peer asks for no flow control. ``peer_processing_delay`` is in 1/10 s. Numbers
    and ACCMs are the peer's and only for information. ``deadline`` is when the present state has lasted too long.
    """

    handle: CallHandle
    role: Role
    incoming: bool
    state: CallState
    call_id: int | None = None
    peer_call_id: int | None = None
    serial_number: int = 0
    connect_speed: int = 0
    peer_window: int = 0
    peer_processing_delay: int = 0
    number: bytes = b""
    send_accm: int = 0xFFFFFFFF
    receive_accm: int = 0xFFFFFFFF
    deadline: float | None = None


@value
class ControlConfig:
    """How this side introduces itself and how patient it is. Times in seconds.

    ``echo_interval`` ``None`` never asks; ``echo_wait`` ``None`` asks but judges nothing by a missing answer (a
    sealed session leaves that to its path). ``first_wait`` is how long a connection that the peer opened may stay
    without its Start-Control-Connection-Request.
    """

    host_name: bytes = b""
    vendor_name: bytes = b"grepunch-pptp"
    firmware_revision: int = 1
    receive_window: int = 64
    processing_delay: int = 0
    maximum_bps: int = 100_000_000
    max_calls: int = MAX_CALLS
    first_wait: float = REPLY_WAIT
    reply_wait: float = REPLY_WAIT
    call_wait: float = REPLY_WAIT
    stop_wait: float = STOP_WAIT
    echo_interval: float | None = ECHO_INTERVAL
    echo_wait: float | None = ECHO_WAIT


@value
class PeerInfo:
    """How the peer introduced itself."""

    host_name: bytes
    vendor_name: bytes
    firmware_revision: int
    maximum_channels: int


@value
class ControlEstablished:
    """The control connection is established: calls may be placed."""

    peer: PeerInfo


@value
class CallRequested:
    """The peer asks for a call: accept or refuse it. ``call.role`` PAC: outgoing call, PNS: incoming call."""

    call: Call


@value
class CallEstablished:
    """A call is up: both Call IDs are known and GRE may flow."""

    call: Call


@value
class CallEnded:
    """A call is over and forgotten; ``call`` is its last state."""

    call: Call
    cause: Terminated


@value
class LinkInfoReceived:
    """As PAC: the ACCMs the PNS's PPP negotiated, now in ``call``. For information: nothing here stuffs bytes."""

    call: Call


@value
class WanErrorsReceived:
    """As PNS: the PAC's error counters of the call."""

    call: Call
    errors: WanErrorNotify


@value
class Noted:
    """Something odd that changed nothing, as a sentence for the log; each at most once a connection."""

    sentence: str


@value
class CloseTransport:
    """The owner has to close the transport once everything in ``transmits`` is sent."""


ControlEvent = (
    ControlEstablished
    | CallRequested
    | CallEstablished
    | CallEnded
    | LinkInfoReceived
    | WanErrorsReceived
    | Noted
    | CloseTransport
    | Terminated
)
