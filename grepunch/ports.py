"""The types that the pure half (``punch``, ``rendezvous``, ``secure``) and the impure half (``io``, ``lab``) share."""

from __future__ import annotations

from enum import Enum, StrEnum
from ipaddress import IPv4Address

from pptp.value import value


class Form(StrEnum):
    """How a PPP frame is put into GRE on a punched path (the order of preference)."""

    V1 = "v1-0/0"  # enhanced GRE (RFC 2637 section 4.1), Call ID 0 in both directions unless a call has given others
    V0 = "v0"  # plain GRE (RFC 2784) with protocol type 0x880B


# Call IDs of enhanced GRE on a path: ours to the peer, and the peer's to us
CallIds = tuple[int, int]


def form_name(form: Form, call_ids: CallIds | None) -> str:
    """A form as people are told of it, with the Call IDs on the wire where a call has given it others than 0."""
    return f"v1-{call_ids[0]}/{call_ids[1]}" if form is Form.V1 and call_ids is not None else str(form)


class CarrierKind(StrEnum):
    """What carries a link, in a word."""

    DIRECT = "direct"  # GRE between the two peers
    RELAY = "relay"  # through the rendezvous


class Way(Enum):
    """Where a frame goes that goes to no address."""

    RELAY = "relay"


RELAY = Way.RELAY


class RelayPolicy(StrEnum):
    """Whether frames may go through the rendezvous where GRE does not pass. Both sides have to agree to it."""

    NEVER = "never"
    ASK = "ask"  # not before the user has said so; says where it would help
    AUTO = "auto"


@value
class GreFrame:
    """A PPP frame that arrived over GRE: whose, in which form, and with which TTL it arrived (0: not known)."""

    source: IPv4Address
    form: Form
    ppp: memoryview | bytes
    ttl: int = 0


@value
class GreSend:
    """A PPP frame to send over GRE. ``ttl`` None is the system's default."""

    destination: IPv4Address
    form: Form
    ppp: bytes
    ttl: int | None = None


class PathNewsKind(StrEnum):
    """What the network said about a packet of ours (ICMP), as news and never as a fault."""

    TIME_EXCEEDED = "time_exceeded"
    UNREACHABLE = "unreachable"  # host, network or administratively
    PROTOCOL_UNREACHABLE = "protocol_unreachable"
    TOO_BIG = "too_big"


@value
class PathNews:
    """An ICMP error about a GRE packet of ours: who said it, about which destination and, where it can be told, form.

    ``mtu`` is the next-hop MTU of a fragmentation-needed message, else 0.
    """

    kind: PathNewsKind
    reporter: IPv4Address | None
    destination: IPv4Address
    form: Form | None = None
    mtu: int = 0
